"""The backend over NumPy: arrays in the host's memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import DTypeLike, NDArray

from aidotnet_py.backends.numpy.blas_calls import BLAS_CALLS
from aidotnet_py.backends.numpy.blas_threads import ONE_THREAD, threads_allowed
from aidotnet_py.backends.numpy.error_function import erf
from aidotnet_py.backends.numpy.small_products import small_product
from aidotnet_py.backends.protocol import Array, Elementwise, KernelCompiler
from aidotnet_py.representations import concise_repr

if TYPE_CHECKING:
    from aidotnet_py.backends.numpy.llvm import LlvmCompiler

__all__ = ["NumPyBackend"]


def _sigmoid(x: Array, out: Array | None = None) -> Array:
    # 1 / (1 + exp(−x)) keeps its relative accuracy on both sides; the overflow of exp gives the right limit, 0.
    y = np.negative(x, out=out)
    y = np.exp(y, out=out)
    y = np.add(y, 1, out=out)
    return np.reciprocal(y, out=out)


def _softplus(x: Array, out: Array | None = None) -> Array:
    return np.logaddexp(x, 0, out=out)


def _relu(x: Array, out: Array | None = None) -> Array:
    return np.maximum(x, 0, out=out)


def _negative(x: Array, out: Array | None = None) -> Array:
    # Where x has strides of some powers of two and out has gaps, np.negative of NumPy 2.4 skips elements.
    if out is None or out.flags.c_contiguous:
        return np.negative(x, out=out)
    return np.multiply(x, -1, out=out)


def _isfinite(x: Array, out: Array | None = None) -> Array:
    # Where out has gaps or runs backwards, np.isfinite of NumPy 2.4 skips elements.
    if out is None or out.flags.c_contiguous:
        return np.isfinite(x, out=out)
    return _copied(np.isfinite(x), out)


def _where(mask: Array, x: Array, y: Array, out: Array | None = None) -> Array:
    if out is None:
        return cast(Array, np.where(mask, x, y))
    np.copyto(out, y)
    np.copyto(out, x, where=mask)
    return out


def _copied(result: Array, out: Array) -> Array:
    np.copyto(out, result)
    return out


def _as_array(result: Any) -> Array:
    """Turn NumPy's scalars into arrays of no axes, as the protocol promises."""
    return np.asarray(result)


_ELEMENTWISE: dict[str, Elementwise] = {
    "abs": np.absolute,
    "add": np.add,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "ceil": np.ceil,
    "cos": np.cos,
    "cosh": np.cosh,
    "divide": np.divide,
    "equal": np.equal,
    "erf": erf,
    "exp": np.exp,
    "expm1": np.expm1,
    "floor": np.floor,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "isfinite": _isfinite,
    "less": np.less,
    "less_equal": np.less_equal,
    "log": np.log,
    "log1p": np.log1p,
    "logical_and": np.logical_and,
    "logical_not": np.logical_not,
    "logical_or": np.logical_or,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "multiply": np.multiply,
    "negative": _negative,
    "not_equal": np.not_equal,
    "pow": np.power,
    "relu": _relu,
    "sigmoid": _sigmoid,
    "sign": np.sign,
    "sin": np.sin,
    "sinh": np.sinh,
    "softplus": _softplus,
    "sqrt": np.sqrt,
    "subtract": np.subtract,
    "tan": np.tan,
    "tanh": np.tanh,
    "where": _where,
}


def _refuse_indices(indices: Array, length: int) -> NoReturn:
    place = tuple(np.argwhere((indices < -length) | (indices >= length))[0].tolist())
    where = f" (at {place} in indices of shape {indices.shape})" if place else ""
    raise IndexError(f"index {indices[place]} is out of bounds for an axis of length {length}{where}")


@cache
def _compiler() -> LlvmCompiler | None:
    # Imported on first use, like threadpoolctl: both together would take a sixth of the package's import time.
    with BLAS_CALLS.lock:
        compiler: LlvmCompiler | None = import_module("aidotnet_py.backends.numpy.llvm").shared_compiler()
    return compiler


# BLAS divides longer inner products among its threads, and their number would change the last bits.
_VECDOT_BLOCK = 8192


class NumPyBackend:
    """NumPy as a `Backend`.

    Parameters
    ----------
    compiled : bool
        Whether repeated elementwise work is compiled if llvmlite is installed; the results have the same bits.
        Products by a small matrix are compiled in any case.

    Examples
    --------
    >>> from aidotnet_py.backends import NumPyBackend
    >>> backend = NumPyBackend()
    >>> backend.matmul(backend.asarray([[1.0, 2.0]]), backend.asarray([[3.0], [4.0]]))
    array([[11.]])
    """

    name = "numpy"
    capturing = None
    # Enough to make the cost of Python calls negligible, and few enough for the operands to stay in the caches.
    flops_at_once = 30_000_000
    _compiled = True

    __repr__ = concise_repr

    def __init__(self, *, compiled: bool = True) -> None:
        self._compiled = compiled

    @property
    def compiler(self) -> KernelCompiler | None:
        # A subclass may compute otherwise than NumPy; compiled loops would ignore its methods.
        return _compiler() if self._compiled and type(self) is NumPyBackend else None

    def owns(self, value: object) -> bool:
        # A masked array would lose its mask; a matrix has other rules of multiplication.
        return type(value) is np.ndarray or (
            isinstance(value, np.ndarray) and not isinstance(value, (np.ma.MaskedArray, np.matrix))
        )

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        return np.empty(shape, dtype)

    def asarray(self, value: object, dtype: DTypeLike | None = None) -> Array:
        made = np.array(value, dtype=dtype, order="C")
        return made if made.dtype.isnative else made.astype(self.dtype_of(made))

    def transfer_aside(self, like: Sequence[Array]) -> Callable[[Sequence[NDArray[Any]]], Sequence[Array]]:
        return lambda values: [self.asarray(value) for value in values]

    def to_numpy(self, array: Array) -> NDArray[Any]:
        return np.asarray(array)

    def dtype_of(self, array: Array) -> np.dtype[Any]:
        # In native byte order, which every result has.
        dtype: np.dtype[Any] = np.asarray(array).dtype
        return dtype if dtype.isnative else dtype.newbyteorder("=")

    def strides_of(self, array: Array) -> tuple[int, ...]:
        return tuple(s // array.itemsize for s in array.strides)

    def reshape(self, array: Array, shape: tuple[int, ...]) -> Array:
        return array.reshape(shape, copy=False)

    def permute_dims(self, array: Array, axes: tuple[int, ...]) -> Array:
        return np.transpose(array, axes)

    def broadcast_to(self, array: Array, shape: tuple[int, ...]) -> Array:
        return np.broadcast_to(array, shape)

    def index(self, array: Array, key: tuple[slice, ...]) -> Array:
        return array[(*key, ...)]  # With the Ellipsis, an array of no axes stays an array.

    def copyto(self, out: Array, value: Array | complex) -> None:
        np.copyto(out, value)

    def elementwise(self, name: str) -> Elementwise:
        return _ELEMENTWISE[name]

    def astype(self, array: Array, dtype: DTypeLike, out: Array | None = None) -> Array:
        if out is None:
            return np.asarray(array).astype(dtype)
        np.copyto(out, array, casting="unsafe")
        return out

    def sum(self, array: Array, axes: tuple[int, ...], out: Array | None = None) -> Array:
        if array.dtype == np.float16:
            return self.astype(np.add.reduce(array, axis=axes, dtype=np.float32), np.float16, out)
        # NumPy would widen small integers, but a Program's types are fixed.
        return _as_array(np.add.reduce(array, axis=axes, dtype=array.dtype, out=out))

    def max(self, array: Array, axes: tuple[int, ...], out: Array | None = None) -> Array:
        return _as_array(np.maximum.reduce(array, axis=axes, out=out))

    def cumulative_sum(self, array: Array, axis: int, out: Array | None = None) -> Array:
        if array.dtype == np.float16:
            return self.astype(np.cumsum(array, axis=axis, dtype=np.float32), np.float16, out)
        return _as_array(np.cumsum(array, axis=axis, dtype=array.dtype, out=out))

    def vecdot(self, x: Array, y: Array, out: Array | None = None) -> Array:
        whole = x.shape[-1] - x.shape[-1] % _VECDOT_BLOCK
        if whole == 0:
            return _as_array(np.vecdot(x, y, out=out))
        blocks = (*x.shape[:-1], -1, _VECDOT_BLOCK)
        parts = np.vecdot(x[..., :whole].reshape(blocks), y[..., :whole].reshape(blocks))
        return _as_array(np.add(parts.sum(axis=-1), np.vecdot(x[..., whole:], y[..., whole:]), out=out))

    def matmul(self, x: Array, y: Array, out: Array | None = None) -> Array:
        product = small_product(x, y, out, _compiler)
        if product is not None:
            return product
        with BLAS_CALLS.lock:
            return np.matmul(x, y, out=out)

    def solve(self, matrices: Array, right: Array, out: Array | None = None) -> Array:
        with BLAS_CALLS.lock:
            solution = cast(Array, np.linalg.solve(matrices, right))
        return solution if out is None else _copied(solution, out)

    def cholesky(self, matrices: Array, out: Array | None = None) -> Array:
        with BLAS_CALLS.lock:
            factors = cast(Array, np.linalg.cholesky(matrices))
        return factors if out is None else _copied(factors, out)

    def slogdet(self, matrices: Array, out: Array | None = None) -> Array:
        with BLAS_CALLS.lock:
            parts = np.linalg.slogdet(matrices)
        return np.stack(parts, axis=-1, out=out)

    def stacked(self, arrays: Sequence[Array]) -> Array | None:
        # Reading an array's address takes twice as long as copying a few numbers, and ten times as long as their share
        # of a `concat`.
        return None

    def concat(self, arrays: Sequence[Array], axis: int, out: Array | None = None) -> Array:
        return np.concatenate(arrays, axis=axis, out=out)

    def wrap_indices(self, indices: Array, length: int, out: Array | None = None) -> Array:
        if out is None:
            out = np.empty(indices.shape, np.int64)
        if indices.size == 0:
            return out
        # Compared before the conversion: the largest uint64 becomes −1 as int64.
        low = int(indices.min())
        if low < -length or int(indices.max()) >= length:
            _refuse_indices(indices, length)
        np.copyto(out, indices, casting="unsafe")
        return np.add(out, length, out=out, where=out < 0) if low < 0 else out

    def take(self, array: Array, indices: Array, out: Array | None = None) -> Array:
        if out is None:
            return _as_array(np.take(array, indices, axis=0))
        if indices.size and not 0 <= indices.min() <= indices.max() < len(array):
            raise IndexError(f"indices must be from 0 to {len(array) - 1}, got {indices.min()} to {indices.max()}")
        # In mode "raise" NumPy would write to `out` through a buffer.
        return np.take(array, indices, axis=0, out=out, mode="clip")

    def scatter_add(self, values: Array, indices: Array, out: Array) -> Array:
        if out.dtype == np.float16:
            return self.astype(self.scatter_add(values, indices, np.empty(out.shape, np.float32)), np.float16, out)
        out[...] = 0
        np.add.at(out, indices, values)
        return out

    def argsort(self, array: Array, out: Array | None = None) -> Array:
        order = np.argsort(array, axis=-1, kind="stable").astype(np.int64, copy=False)
        return order if out is None else _copied(order, out)

    def patches(
        self, array: Array, window: tuple[int, int], stride: tuple[int, int], out: Array | None = None
    ) -> Array:
        n, height, width, channels = array.shape
        rows = (height - window[0]) // stride[0] + 1
        columns = (width - window[1]) // stride[1] + 1
        sn, sh, sw, sc = array.strides
        view = as_strided(
            array,
            (n, rows, columns, *window, channels),
            (sn, sh * stride[0], sw * stride[1], sh, sw, sc),
            writeable=False,
        )
        if out is None:
            return view.copy()
        np.copyto(out, view)
        return out

    def fold(self, patches: Array, stride: tuple[int, int], out: Array) -> Array:
        if out.dtype == np.float16:
            return self.astype(self.fold(patches, stride, np.empty(out.shape, np.float32)), np.float16, out)
        _, rows, columns, kernel_h, kernel_w, _ = patches.shape
        out[...] = 0
        for i in range(kernel_h):
            for j in range(kernel_w):
                target = out[
                    :,
                    i : i + (rows - 1) * stride[0] + 1 : stride[0],
                    j : j + (columns - 1) * stride[1] + 1 : stride[1],
                ]
                np.add(target, patches[:, :, :, i, j], out=target)
        return out

    @property
    def threads(self) -> int:
        # As many as NumPy's own products use, so that the user's limit for them applies here too.
        return threads_allowed()

    def single_threaded(self) -> AbstractContextManager[Any]:
        return ONE_THREAD.stay()

    def errors_ignored(self) -> AbstractContextManager[Any]:
        return np.errstate(all="ignore")

    def synchronize(self) -> None:
        """Return at once: NumPy returns when its work is done."""

    def capture(self, work: Callable[[], object]) -> Callable[[], None] | None:
        return None
