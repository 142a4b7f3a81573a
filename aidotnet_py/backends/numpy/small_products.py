"""Products of NumPy's arrays by a small matrix, by the function that kernels call."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from aidotnet_py.backends.kernel import is_small_product
from aidotnet_py.backends.memory import is_plain
from aidotnet_py.backends.protocol import Array

if TYPE_CHECKING:
    from aidotnet_py.backends.numpy.llvm import LlvmCompiler

__all__ = ["small_product"]

_FUNCTION = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 8)


def small_product(x: Array, y: Array, out: Array | None, compiler: Callable[[], LlvmCompiler | None]) -> Array | None:
    """Return ``x @ y`` by the function of a compiler; None if it is left to BLAS, or NumPy refuses it."""
    if not (_is_matrices(x) and _is_matrices(y) and x.dtype.char == y.dtype.char and x.shape[-1] == y.shape[-2]):
        return None
    if not is_small_product(*y.shape[-2:]) or not (x.size and y.size):
        return None
    lead = x.shape[:-2]
    if lead != y.shape[:-2]:
        try:
            lead = np.broadcast_shapes(lead, y.shape[:-2])
        except ValueError:
            return None
    shape = (*lead, x.shape[-2], y.shape[-1])
    if out is not None and not (_is_matrices(out) and out.shape == shape and out.flags.writeable):
        return None
    found = compiler()
    address = None if found is None else found.small_product("float32" if x.dtype.char == "f" else "float64")
    if address is None:
        return None
    function = _FUNCTION(address)
    x, y = _plain(x), _plain(y)
    y = y if x.itemsize in y.strides[-2:] else y.copy()
    fits = out is not None and out.dtype == x.dtype and is_plain(out) and out.strides[-1] == x.itemsize
    if out is None or not fits or np.may_share_memory(out, x) or np.may_share_memory(out, y):
        result = np.empty(shape, x.dtype)
        _multiply(function, x, y, result)
        if out is None:
            return result
        np.copyto(out, result)
    else:
        _multiply(function, x, y, out)
    return out


def _is_matrices(array: Array) -> bool:
    return type(array) is np.ndarray and array.ndim >= 2 and array.dtype.char in "fd"


def _plain(array: Array) -> Array:
    return array if is_plain(array) else np.array(array, array.dtype.newbyteorder("="))


def _multiply(function: Callable[..., Any], x: Array, y: Array, out: Array) -> None:
    strides = [step // out.itemsize for step in (*x.strides[-2:], *y.strides[-2:], out.strides[-2])]
    sizes = (*out.shape[-2:], x.shape[-1], *strides)
    lead = out.shape[:-2]
    # NumPy's function for it takes as long as a small product, and most factors have these axes already.
    broadcast = [a if a.shape[:-2] == lead else np.broadcast_to(a, (*lead, *a.shape[-2:])) for a in (x, y, out)]
    for addresses in zip(*map(_addresses, broadcast), strict=True):
        function(*addresses, *sizes)


def _addresses(matrices: Array) -> list[int]:
    """Return the addresses of matrices, in C order."""
    places = [cast("int", matrices.__array_interface__["data"][0])]
    for length, step in zip(matrices.shape[:-2], matrices.strides[:-2], strict=True):
        places = [place + step * i for place in places for i in range(length)]
    return places
