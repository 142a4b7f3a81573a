"""What a backend's operations are compared with: NumPy's, in value, dtype and shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from aidotnet_py.backends import Array, Backend

__all__ = ["LOGICAL", "UNARY", "agree", "agree_with_out", "reference", "require", "strided_out"]

LOGICAL = ("logical_and", "logical_not", "logical_or")
UNARY = (
    *("abs", "atan", "ceil", "cos", "cosh", "erf", "exp", "expm1", "floor", "isfinite", "log", "log1p", "negative"),
    *("relu", "sigmoid", "sign", "sin", "sinh", "softplus", "sqrt", "tan", "tanh"),
)
# Some roundings, relative to the value.
_ROUNDING = {np.dtype(np.float16): 4e-3, np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-13}


def _relu(x: Any) -> Any:
    return np.maximum(x, 0)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _softplus(x: Any) -> Any:
    return np.logaddexp(x, np.zeros_like(x))


_REFERENCES: dict[str, Callable[..., Any]] = {
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
    "relu": _relu,
    "sigmoid": _sigmoid,
    "softplus": _softplus,
}


def reference(name: str) -> Callable[..., Any]:
    """Return NumPy's function for the name of an elementwise one."""
    return _REFERENCES.get(name) or getattr(np, name)


def require(holds: bool, message: str) -> None:
    """Raise an AssertionError with the message, unless it holds."""
    if not holds:
        raise AssertionError(message)


def agree(backend: Backend, what: str, found: Array, wanted: Any, *, least: float = 0.1) -> None:
    """Require an array of the backend with the shape, dtype and, to some roundings, the values of NumPy's.

    Roundings are relative to a value, and of smaller values than ``least`` relative to that.
    """
    wanted = np.asarray(wanted)
    require(backend.owns(found), f"{what} must return an array that the backend owns, got a {type(found).__name__}")
    host, dtype = np.asarray(backend.to_numpy(found)), backend.dtype_of(found)
    if not (dtype == wanted.dtype and tuple(found.shape) == wanted.shape and host.shape == wanted.shape):
        kind = f"{wanted.dtype}{wanted.shape}"
        raise AssertionError(f"{what} must return {kind}, got {dtype}{tuple(found.shape)}")
    close = (host == wanted) | ((host != host) & (wanted != wanted))
    if not close.all() and wanted.dtype in _ROUNDING:
        rtol = _ROUNDING[wanted.dtype]
        with np.errstate(all="ignore"):
            close = np.isclose(host, wanted, rtol=rtol, atol=rtol * least, equal_nan=True)
    if not close.all():
        place = tuple(np.argwhere(~close)[0].tolist())
        raise AssertionError(f"{what} must be {wanted[place]} at {place}, as NumPy's is, got {host[place]}")


def strided_out(backend: Backend, shape: tuple[int, ...], dtype: Any) -> tuple[Array, Array]:
    """Return a view for results, axes in reverse order and elements apart, and the array of zeros that it is in."""
    buffer = backend.asarray(np.zeros((*shape[::-1], 2), dtype))
    turned = backend.permute_dims(buffer, tuple(range(len(shape), -1, -1)))
    return backend.reshape(backend.index(turned, (slice(1, 2), *[slice(None)] * len(shape))), shape), buffer


def agree_with_out(backend: Backend, what: str, f: Callable[..., Array], *args: Any, wanted: Any) -> None:
    """Require the result of a call without ``out``, and what it writes into a new array and into a strided view."""
    wanted = np.asarray(wanted)
    agree(backend, what, f(*args), wanted)
    out = backend.empty(wanted.shape, wanted.dtype)
    agree(backend, f"{what} with out", f(*args, out=out), wanted)
    agree(backend, f"out of {what}", out, wanted)
    view, buffer = strided_out(backend, wanted.shape, wanted.dtype)
    f(*args, out=view)
    agree(backend, f"a strided out of {what}", view, wanted)
    beside = backend.to_numpy(buffer)[..., 0]
    require(not beside.any(), f"{what} must write to the elements of a strided out alone, got others changed")
