"""A backend over array-api-strict, for tests: what passes on it leans on no habit that only NumPy has.

Its arrays live on one of the strict library's devices, which refuse to mix with each other and with NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import array_api_strict as xp
import numpy as np
import scipy.special
from array_api_strict import _array_object, _dtypes

# Each new array's dtype is looked for among these: by its hash, and not by fourteen comparisons in turn.
_array_object._all_dtypes = dict.fromkeys(_dtypes._all_dtypes)


def _sigmoid(x: Any) -> Any:
    return 1.0 / (1.0 + xp.exp(-x))


def _softplus(x: Any) -> Any:
    return xp.logaddexp(x, xp.zeros_like(x))


def _relu(x: Any) -> Any:
    return xp.maximum(x, xp.zeros_like(x))


def _erf(x: Any) -> Any:
    values = np.asarray(xp.asarray(x, device=xp.Device("CPU_DEVICE"))._array)
    return xp.asarray(scipy.special.erf(values), device=x.device)


# Its name is private.
_ARRAY = type(xp.empty(0))

_COMPOSED = {"erf": _erf, "sigmoid": _sigmoid, "softplus": _softplus, "relu": _relu}


class StrictBackend:
    """array-api-strict as a `Backend`; ``out`` is met by computing and assigning."""

    def __init__(self, name: str = "strict", device: str = "CPU_DEVICE") -> None:
        self.name = name
        self.compiler = None
        self.threads = 1
        self.flops_at_once = 30_000_000
        self.capturing = None
        self.device = xp.Device(device)

    def owns(self, value: object) -> bool:
        return isinstance(value, _ARRAY) and value.device == self.device

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        # Filled with NaN where possible, so that reading what was never written shows.
        kind = np.dtype(dtype)
        return xp.full(shape, float("nan") if kind.kind == "f" else 0, dtype=self._dtype(dtype), device=self.device)

    def asarray(self, value: Any, dtype: Any = None) -> Any:
        if self.owns(value):
            copy = self.empty(value.shape, dtype or self.dtype_of(value))
            return self.astype(value, dtype or self.dtype_of(value), out=copy)
        made = np.array(value, dtype=dtype, order="C")
        return xp.asarray(made.astype(made.dtype.newbyteorder("=")), device=self.device)

    def _dtype(self, dtype: Any) -> Any:
        return getattr(xp, np.dtype(dtype).name)

    def transfer_aside(self, like: Sequence[Any]) -> Callable[[Sequence[Any]], Sequence[Any]]:
        return lambda values: [self.asarray(value) for value in values]

    def to_numpy(self, array: Any) -> Any:
        assert self.owns(array), f"{array!r} is not an array of {self.name}"
        return np.asarray(xp.asarray(array, device=xp.Device("CPU_DEVICE"))._array)

    def dtype_of(self, array: Any) -> np.dtype[Any]:
        return np.dtype(str(array.dtype).rsplit(".", 1)[-1])

    def strides_of(self, array: Any) -> tuple[int, ...]:
        return tuple(s // array._array.itemsize for s in array._array.strides)

    def reshape(self, array: Any, shape: tuple[int, ...]) -> Any:
        # Arrays of no elements share no memory, which copy=False would take for a copy.
        return xp.reshape(array, shape, copy=False if array.size else None)

    def permute_dims(self, array: Any, axes: tuple[int, ...]) -> Any:
        return xp.permute_dims(array, axes)

    def broadcast_to(self, array: Any, shape: tuple[int, ...]) -> Any:
        return xp.broadcast_to(array, shape)

    def index(self, array: Any, key: tuple[slice, ...]) -> Any:
        return array[key]

    def copyto(self, out: Any, value: Any) -> None:
        out[...] = value

    def elementwise(self, name: str) -> Any:
        function = _COMPOSED.get(name) or getattr(xp, name)

        def into(*operands: Any, out: Any = None) -> Any:
            if name == "where" and not hasattr(operands[1], "dtype") and not hasattr(operands[2], "dtype"):
                operands = (
                    operands[0],
                    *(xp.full(operands[0].shape, v, dtype=out.dtype, device=self.device) for v in operands[1:]),
                )
            return self._into(out, function(*operands))

        return into

    def astype(self, array: Any, dtype: Any, out: Any = None) -> Any:
        return self._into(out, xp.astype(array, self._dtype(dtype)))

    def sum(self, array: Any, axes: tuple[int, ...], out: Any = None) -> Any:
        return self._into(out, xp.sum(array, axis=axes, dtype=array.dtype))

    def max(self, array: Any, axes: tuple[int, ...], out: Any = None) -> Any:
        return self._into(out, xp.max(array, axis=axes))

    def cumulative_sum(self, array: Any, axis: int, out: Any = None) -> Any:
        return self._into(out, xp.cumulative_sum(array, axis=axis, dtype=array.dtype))

    def vecdot(self, x: Any, y: Any, out: Any = None) -> Any:
        return self._into(out, xp.vecdot(x, y))

    def matmul(self, x: Any, y: Any, out: Any = None) -> Any:
        return self._into(out, xp.matmul(x, y))

    def solve(self, matrices: Any, right: Any, out: Any = None) -> Any:
        return self._into(out, xp.linalg.solve(matrices, right))

    def cholesky(self, matrices: Any, out: Any = None) -> Any:
        return self._into(out, xp.linalg.cholesky(matrices))

    def slogdet(self, matrices: Any, out: Any = None) -> Any:
        return self._into(out, xp.stack(list(xp.linalg.slogdet(matrices)), axis=-1))

    def stacked(self, arrays: Sequence[Any]) -> Any:
        return None

    def concat(self, arrays: Sequence[Any], axis: int, out: Any = None) -> Any:
        return self._into(out, xp.concat(list(arrays), axis=axis))

    def wrap_indices(self, indices: Any, length: int, out: Any = None) -> Any:
        values = self.to_numpy(indices).tolist()
        flat = np.ravel(np.asarray(values, dtype=object)).tolist()
        if any(not -length <= i < length for i in flat):
            raise IndexError(f"an index of {flat} is out of bounds for an axis of length {length}")
        places = np.asarray([i % length for i in flat], np.int64).reshape(indices.shape)
        return self._into(out, xp.asarray(places, device=self.device))

    def take(self, array: Any, indices: Any, out: Any = None) -> Any:
        flat = xp.take(array, xp.reshape(indices, (-1,)), axis=0)
        return self._into(out, xp.reshape(flat, (*indices.shape, *array.shape[1:])))

    def scatter_add(self, values: Any, indices: Any, out: Any) -> Any:
        rows = xp.reshape(values, (indices.size, *out.shape[1:]))
        out[...] = 0
        for row, index in enumerate(np.ravel(self.to_numpy(indices)).tolist()):
            out[index, ...] += rows[row, ...]
        return out

    def argsort(self, array: Any, out: Any = None) -> Any:
        return self._into(out, xp.argsort(array, axis=-1, stable=True))

    def patches(self, array: Any, window: tuple[int, int], stride: tuple[int, int], out: Any = None) -> Any:
        n, height, width, channels = array.shape
        rows, columns = ((s - k) // t + 1 for s, k, t in zip((height, width), window, stride, strict=True))
        if out is None:
            out = self.empty((n, rows, columns, *window, channels), self.dtype_of(array))
        for i in range(window[0]):
            for j in range(window[1]):
                out[:, :, :, i, j, :] = array[self._span(i, j, rows, columns, stride)]
        return out

    def fold(self, patches: Any, stride: tuple[int, int], out: Any) -> Any:
        _, rows, columns, kernel_h, kernel_w, _ = patches.shape
        out[...] = 0
        for i in range(kernel_h):
            for j in range(kernel_w):
                key = self._span(i, j, rows, columns, stride)
                out[key] = out[key] + patches[:, :, :, i, j, :]
        return out

    @staticmethod
    def _span(i: int, j: int, rows: int, columns: int, stride: tuple[int, int]) -> tuple[slice, ...]:
        return (
            slice(None),
            slice(i, i + (rows - 1) * stride[0] + 1, stride[0]),
            slice(j, j + (columns - 1) * stride[1] + 1, stride[1]),
            slice(None),
        )

    def errors_ignored(self) -> AbstractContextManager[Any]:
        return np.errstate(all="ignore")

    def single_threaded(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def synchronize(self) -> None:
        pass

    def capture(self, work: Callable[[], object]) -> None:
        return None

    @staticmethod
    def _into(out: Any, result: Any) -> Any:
        if out is None:
            return result
        # As `out[...] = result`, which takes ten times as long to check its index.
        assert result.device == out.device, f"{result.device} and {out.device} must not mix"
        np.copyto(out._array, result._array, casting="no")
        return out
