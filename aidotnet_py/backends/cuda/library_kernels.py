"""Our own kernels where CuPy lacks an ``out``, has no fixed order of addition, or needs many launches."""

from __future__ import annotations

from typing import Any

from aidotnet_py.backends.protocol import Array

__all__ = ["CuPyKernels"]

# Half precision is computed in single precision, as in CuPy.
_WIDE = """
template <typename U> struct wide { typedef float type; };
template <> struct wide<double> { typedef double type; };
"""

# 1 / (1 + exp(−x)) keeps its relative accuracy on both sides; the overflow of exp gives the right limit, 0.
_SIGMOID = """
typedef typename wide<T>::type W;
y = (T)((W)1 / ((W)1 + exp(-(W)x)));
"""

_ERF = """
typedef typename wide<T>::type W;
y = (T)erf((W)x);
"""

# In CuPy 13 the sign of NaN is 0.
_SIGN = "y = x != x ? x : (T)((x > (T)0) - (x < (T)0));"

# Each sign has its own arithmetic, because the largest uint64 would be negative as int64.
_WRAP_INDICES = """
place = index < 0 ? length - 1 - ~(long long)index % length
                  : (long long)((unsigned long long)index % (unsigned long long)length)
"""

# One thread per element of the result reads all indices: atomics would add in a random order, and sorting would wait
# for the device.
_SCATTER_ADD = """
const ptrdiff_t row = i / width, column = i % width;
T total = (T)0;
for (ptrdiff_t k = 0; k < count; ++k) {
    const ptrdiff_t at = (ptrdiff_t)indices[k];
    if (at == row || at + rows == row) total = total + values[k * width + column];
}
out = total;
"""

# One thread per pixel adds the window elements over it, in the order of their places in the window.
_FOLD = """
const ptrdiff_t channel = i % channels;
const ptrdiff_t x = i / channels % width, y = i / channels / width % height, image = i / channels / width / height;
T total = (T)0;
for (ptrdiff_t a = 0; a < kernel_h; ++a) {
    for (ptrdiff_t b = 0; b < kernel_w; ++b) {
        const ptrdiff_t down = y - a, right = x - b;
        if (down < 0 || right < 0 || down % stride_h != 0 || right % stride_w != 0) continue;
        const ptrdiff_t r = down / stride_h, q = right / stride_w;
        if (r >= rows || q >= columns) continue;
        const ptrdiff_t window = (image * rows + r) * columns + q;
        total = total + patches[((window * kernel_h + a) * kernel_w + b) * channels + channel];
    }
}
out = total;
"""

_FOLD_SIZES = "int64 height, int64 width, int64 rows, int64 columns"
_FOLD_WINDOW = "int64 kernel_h, int64 kernel_w, int64 stride_h, int64 stride_w, int64 channels"


class CuPyKernels:
    """The kernels; CuPy compiles each when it first meets a dtype.

    Parameters
    ----------
    cupy : module
        CuPy.
    """

    def __init__(self, cupy: Any) -> None:
        kernel: Any = cupy.ElementwiseKernel
        self._sigmoid = kernel("T x", "T y", _SIGMOID, "aidotnet_sigmoid", preamble=_WIDE)
        self._erf = kernel("T x", "T y", _ERF, "aidotnet_erf", preamble=_WIDE)
        self._sign = kernel("T x", "T y", _SIGN, "aidotnet_sign")
        self._where = kernel("bool mask, T x, T y", "T z", "z = mask ? x : y", "aidotnet_where")
        self._vecdot: Any = cupy.ReductionKernel("T x, T y", "T z", "x * y", "a + b", "z = a", "0", "aidotnet_vecdot")
        self._wrap_indices = kernel("I index, int64 length", "int64 place", _WRAP_INDICES, "aidotnet_wrap_indices")
        self._scatter_add = kernel(
            "raw T values, raw I indices, int64 count, int64 width, int64 rows",
            "T out",
            _SCATTER_ADD,
            "aidotnet_scatter_add",
        )
        self._fold = kernel(f"raw T patches, {_FOLD_SIZES}, {_FOLD_WINDOW}", "T out", _FOLD, "aidotnet_fold")

    def sigmoid(self, x: Array, out: Array | None = None) -> Array:
        """Compute 1 / (1 + exp(−x))."""
        return _call(self._sigmoid, x, out=out)

    def erf(self, x: Array, out: Array | None = None) -> Array:
        """2/√π ∫₀ˣ exp(−t²) dt."""
        return _call(self._erf, x, out=out)

    def sign(self, x: Array, out: Array | None = None) -> Array:
        """Return −1, 0 or 1; NaN for NaN."""
        return _call(self._sign, x, out=out)

    def where(self, mask: Array, x: Array, y: Array, out: Array) -> Array:
        """Choose elements of x where the mask is true, of y elsewhere; both may be numbers."""
        return _call(self._where, mask, x, y, out=out)

    def vecdot(self, x: Array, y: Array, out: Array | None = None) -> Array:
        """Return inner products over the last axis."""
        return self._vecdot(x, y, out=out, axis=-1)

    def wrap_indices(self, indices: Array, length: int, out: Array | None = None) -> Array:
        """Return integers modulo the length, as int64."""
        return _call(self._wrap_indices, indices, length, out=out)

    def scatter_add(self, values: Array, indices: Array, out: Array) -> Array:
        """Zero ``out``, then add each row of values to the row of its index."""
        rows = out.shape[0]
        width = out.size // max(rows, 1)
        return self._scatter_add(values, indices, indices.size, width, rows, out)

    def fold(self, patches: Array, stride: tuple[int, int], out: Array) -> Array:
        """Sum the window elements over each pixel."""
        _, rows, columns, kernel_h, kernel_w, channels = patches.shape
        _, height, width, _ = out.shape
        return self._fold(patches, height, width, rows, columns, kernel_h, kernel_w, *stride, channels, out)


def _call(kernel: Any, *operands: Array, out: Array | None) -> Array:
    return kernel(*operands) if out is None else kernel(*operands, out)
