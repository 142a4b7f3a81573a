"""Functions composed of primitives that NumPy lacks: softmax, convolution, pooling, normalisation.

Each works on traced values and, outside a trace, on arrays of any backend.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from aidotnet_py.autodiff.functions.axes import Axes, expand_reduced, normalise_axes
from aidotnet_py.autodiff.functions.indexing import is_integer
from aidotnet_py.autodiff.functions.on_arrays import on_arrays
from aidotnet_py.autodiff.primitives import elementwise
from aidotnet_py.autodiff.primitives import shape as shapes
from aidotnet_py.autodiff.primitives.broadcasting import sum_
from aidotnet_py.autodiff.primitives.matmul import matmul
from aidotnet_py.autodiff.primitives.reductions import max_
from aidotnet_py.autodiff.primitives.windows import patches
from aidotnet_py.autodiff.tracing.host_data import HostData
from aidotnet_py.autodiff.tracing.value_types import type_of
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException

__all__ = [
    "average_pool2d",
    "batch_norm",
    "conv2d",
    "erf",
    "layer_norm",
    "log_softmax",
    "logsumexp",
    "max_pool2d",
    "one_hot",
    "relu",
    "sigmoid",
    "softmax",
    "softplus",
    "stop_gradient",
    "with_value",
]

Padding = int | str | tuple[tuple[int, int], tuple[int, int]]


@on_arrays("x")
def relu(x: Any) -> Any:
    """Return max(x, 0), with derivative 0 at 0.

    Examples
    --------
    >>> import numpy as np
    >>> relu(np.array([-1.0, 2.0]))
    array([0., 2.])
    """
    return elementwise.relu(x)


@on_arrays("x")
def sigmoid(x: Any) -> Any:
    """Return 1 / (1 + exp(−x)), accurate to relative precision on both sides.

    Examples
    --------
    >>> import numpy as np
    >>> sigmoid(np.array([0.0]))
    array([0.5])
    """
    return elementwise.sigmoid(x)


@on_arrays("x")
def softplus(x: Any) -> Any:
    """Return log(1 + exp(x)) without overflow; its derivative is the sigmoid.

    Examples
    --------
    >>> import numpy as np
    >>> softplus(np.array([1000.0]))
    array([1000.])
    """
    return elementwise.softplus(x)


@on_arrays("x")
def erf(x: Any) -> Any:
    """Return the error function 2/√π ∫₀ˣ exp(−t²) dt.

    Examples
    --------
    >>> import numpy as np
    >>> erf(np.array([0.0, 1.0, 10.0]))
    array([0.        , 0.84270079, 1.        ])
    """
    return elementwise.erf(x)


@on_arrays("x")
def stop_gradient(x: Any) -> Any:
    """Return x as a constant: every derivative through it is zero."""
    return shapes.stop_gradient(x)


@on_arrays("value", "x")
def with_value(value: Any, x: Any) -> Any:
    """Return ``value`` with the derivatives of x: for limits where the formula of x gives inf − inf or 0 · inf.

    Parameters
    ----------
    value, x : array
        Of one shape and dtype.

    Returns
    -------
    array

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff import value_and_grad
    >>> from aidotnet_py.autodiff.extend import with_value
    >>> value_and_grad(lambda x: with_value(1.0 + 0.0 * x, x**2))(3.0)
    (array(1.), array(6.))
    """
    return elementwise.with_value(value, x)


@on_arrays("x")
def logsumexp(x: Any, axis: Axes = None, keepdims: bool = False) -> Any:
    """Compute log Σ exp(x) over axes, shifted by the maximum so that nothing overflows.

    Parameters
    ----------
    x : array
        Floating.
    axis : int, sequence of int or None
        Axes to reduce; None for all.
    keepdims : bool
        Whether the reduced axes stay, with length 1.

    Examples
    --------
    >>> import numpy as np
    >>> logsumexp(np.array([1000.0, 1000.0]))
    array(1000.69314718)
    """
    x, dtype = elementwise.for_mean(x)
    axes = normalise_axes(axis, len(x.shape))
    shift = _shift(x, axes)
    exponentials = elementwise.exp(x - expand_reduced(shift, x.shape, axes))
    y = elementwise.astype(elementwise.log(sum_(exponentials, axes)) + shift, dtype)
    return expand_reduced(y, x.shape, axes) if keepdims else y


def _shift(x: Any, axes: tuple[int, ...]) -> Any:
    """Return the maximum over axes as a constant; 0 where it is infinite, since inf − inf is NaN."""
    top = shapes.stop_gradient(max_(x, axes))
    return elementwise.where(elementwise.isfinite(top), top, 0.0)


@on_arrays("x")
def log_softmax(x: Any, axis: int = -1) -> Any:
    """Return x − logsumexp(x) along an axis, accurate even if one element is far above the others."""
    x, dtype = elementwise.for_mean(x)
    return elementwise.astype(_log_softmax(x, axis), dtype)


def _log_softmax(x: Any, axis: int) -> Any:
    axes = normalise_axes(axis, len(x.shape))
    centred = x - expand_reduced(_shift(x, axes), x.shape, axes)
    return centred - expand_reduced(elementwise.log(sum_(elementwise.exp(centred), axes)), x.shape, axes)


@on_arrays("x")
def softmax(x: Any, axis: int = -1) -> Any:
    """Return exp(x) / Σ exp(x) along an axis.

    Examples
    --------
    >>> import numpy as np
    >>> softmax(np.zeros(4))
    array([0.25, 0.25, 0.25, 0.25])
    """
    x, dtype = elementwise.for_mean(x)
    return elementwise.astype(elementwise.exp(_log_softmax(x, axis)), dtype)


@on_arrays("indices")
def one_hot(indices: Any, classes: int, dtype: Any = np.float64) -> Any:
    """Return a row (…, classes) for each integer: 1 at its place, 0 elsewhere; all 0 if it is out of range.

    Pass the dtype of the computation, as in ``one_hot(labels, 5, logits.dtype)``: float64 rows would convert float32
    logits to float64.
    """
    if type_of(indices).dtype.kind not in "iu":
        raise ArgumentException(f"indices must be integers, got dtype {type_of(indices).dtype}")
    wide = elementwise.astype(shapes.reshape(indices, (*indices.shape, 1)), np.int64)
    return elementwise.astype(elementwise.equal(wide, HostData(np.arange(classes, dtype=np.int64))), dtype)


def _pair(value: int | tuple[int, int], name: str, least: int = 1) -> tuple[int, int]:
    pair: Any = (value, value) if is_integer(value) else value
    if not _is_pair(pair) or not all(is_integer(n) and n >= least for n in pair):
        raise ArgumentOutOfRangeException(f"{name} must be an int or a pair of ints of at least {least}, got {value!r}")
    # Plain: shapes are computed from them, which NumPy's small integers may not hold.
    return int(pair[0]), int(pair[1])


def _margins(
    padding: Padding, image: Sequence[int], window: tuple[int, int], stride: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        # ceil(n / stride) outputs; an odd margin goes after, as in TensorFlow and JAX.
        totals = [max((math.ceil(n / s) - 1) * s + k - n, 0) for n, k, s in zip(image, window, stride, strict=True)]
        return (totals[0] // 2, totals[0] - totals[0] // 2), (totals[1] // 2, totals[1] - totals[1] // 2)
    margins: Any = ((padding, padding), (padding, padding)) if is_integer(padding) else padding
    if not _is_pair(margins) or not all(_is_pair(pair) and all(map(is_integer, pair)) for pair in margins):
        raise ArgumentException(
            f"padding must be 'same', 'valid', an int or ((top, bottom), (left, right)), got {padding!r}"
        )
    if any(n < 0 for pair in margins for n in pair):
        raise ArgumentOutOfRangeException(f"padding must be at least 0, got {margins!r}")
    (top, bottom), (left, right) = [[int(n) for n in pair] for pair in margins]
    return (top, bottom), (left, right)


def _is_pair(value: object) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2  # pyright: ignore[reportUnknownArgumentType] -- of anything


def _image(x: Any, name: str) -> tuple[int, int, int, int]:
    if len(x.shape) != 4:
        raise ArgumentException(f"{name} must be images (n, height, width, channels), got shape {x.shape}")
    n, height, width, channels = x.shape
    return n, height, width, channels


def _windows(x: Any, window: tuple[int, int], stride: tuple[int, int], padding: Padding, value: float) -> Any:
    (top, bottom), (left, right) = _margins(padding, x.shape[1:3], window, stride)
    return patches(shapes.pad(x, ((0, 0, 0), (top, bottom, 0), (left, right, 0), (0, 0, 0)), value), window, stride)


@on_arrays("x", "weight", "bias")
def conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: Padding = "same",
    groups: int = 1,
) -> Any:
    """Compute the 2-D convolution (cross-correlation, as everywhere in deep learning), channels last.

    It is windows and one matrix product: the forward pass, the weights' gradient and every curvature product use the
    same windows. With the extra `fast`, products over 3 × 3 windows at steps of 1 are by minimal filtering if channels
    are many (Winograd 1980; Lavin & Gray 2016): with 16 multiplications for 4 pixels in place of 36, and rounding as
    small. A pixel that is infinite or NaN then reaches the whole tile of 2 × 2 pixels around it.

    Parameters
    ----------
    x : array, shape (n, height, width, channels)
        Images.
    weight : array, shape (kernel height, kernel width, channels // groups, filters)
        Kernels; the filters of group i have the i-th place.
    bias : array, shape (filters,), or None
        Added to every pixel.
    stride : int or (int, int)
        Steps between windows.
    padding : "same", "valid", int or ((top, bottom), (left, right))
        Zeros around the images.
    groups : int
        Number of groups of channels and filters; a filter reads the channels of its group.

    Returns
    -------
    array, shape (n, rows, columns, filters)

    Raises
    ------
    ArgumentException
        When shapes do not match.

    Examples
    --------
    >>> import numpy as np
    >>> conv2d(np.ones((1, 3, 3, 1)), np.ones((2, 2, 1, 1)), padding="valid")[0, :, :, 0]
    array([[4., 4.],
           [4., 4.]])
    """
    n, _, _, channels = _image(x, "x")
    if not is_integer(groups) or groups < 1:
        raise ArgumentOutOfRangeException(f"groups must be an int of at least 1, got {groups}")
    groups = int(groups)
    if len(weight.shape) != 4 or weight.shape[2] * groups != channels or weight.shape[3] % groups:
        raise ArgumentException(
            f"weight must have shape (kernel height, kernel width, {channels // groups}, a multiple of {groups}) for "
            f"{groups} groups and x of shape {x.shape}, got {weight.shape}"
        )
    kernel, filters = weight.shape[:2], weight.shape[3]
    if bias is not None and bias.shape != (filters,):
        raise ArgumentException(f"bias must have shape {(filters,)}, one number per filter, got {bias.shape}")
    windows = _windows(x, kernel, _pair(stride, "stride"), padding, 0.0)
    rows, columns = windows.shape[1:3]
    pixels = n * rows * columns
    span = kernel[0] * kernel[1]
    if groups == 1:
        product = matmul(
            shapes.reshape(windows, (pixels, span * channels)), shapes.reshape(weight, (span * channels, filters))
        )
    else:
        product = _grouped_product(windows, weight, pixels, groups)
    y = shapes.reshape(product, (n, rows, columns, filters))
    return y if bias is None else y + bias


def _grouped_product(windows: Any, weight: Any, pixels: int, groups: int) -> Any:
    """Multiply each group by its kernels: (groups, pixels, span) by (groups, span, filters of a group)."""
    inner, filters = weight.shape[2], weight.shape[3]
    span = weight.shape[0] * weight.shape[1]
    rows = shapes.permute_dims(shapes.reshape(windows, (pixels, span, groups, inner)), (2, 0, 1, 3))
    kernels = shapes.permute_dims(shapes.reshape(weight, (span, inner, groups, filters // groups)), (2, 0, 1, 3))
    product = matmul(
        shapes.reshape(rows, (groups, pixels, span * inner)),
        shapes.reshape(kernels, (groups, span * inner, filters // groups)),
    )
    return shapes.reshape(shapes.permute_dims(product, (1, 0, 2)), (pixels, filters))


def _tiles(x: Any, window: tuple[int, int], stride: tuple[int, int]) -> Any:
    """Return windows that do not overlap, as a view (n, rows, kh, columns, kw, c)."""
    n, height, width, channels = x.shape
    rows, columns = height // window[0], width // window[1]
    cropped = shapes.slice_(x, ((0, n, 1), (0, rows * window[0], 1), (0, columns * window[1], 1), (0, channels, 1)))
    return shapes.reshape(cropped, (n, rows, window[0], columns, window[1], channels))


def _pool(
    x: Any,
    window: int | tuple[int, int],
    stride: int | tuple[int, int] | None,
    padding: Padding,
    reduce: Callable[[Any, tuple[int, ...]], Any],
    fill: float,
) -> Any:
    _image(x, "x")
    size = _pair(window, "window")
    step = size if stride is None else _pair(stride, "stride")
    unpadded = _margins(padding, x.shape[1:3], size, step) == ((0, 0), (0, 0))
    if size == step and unpadded and x.shape[1] >= size[0] and x.shape[2] >= size[1]:
        return reduce(_tiles(x, size, step), (2, 4))
    return reduce(_windows(x, size, step, padding, fill), (3, 4))


@on_arrays("x")
def max_pool2d(
    x: Any,
    window: int | tuple[int, int],
    *,
    stride: int | tuple[int, int] | None = None,
    padding: Padding = "valid",
) -> Any:
    """Compute maxima over windows of images (n, height, width, channels); stride None: the window's size.

    Elements that tie for a maximum share its derivative equally. Padding is −inf, or the least integer.

    Examples
    --------
    >>> import numpy as np
    >>> max_pool2d(np.arange(16.0).reshape(1, 4, 4, 1), 2)[0, :, :, 0]
    array([[ 5.,  7.],
           [13., 15.]])
    """
    dtype = type_of(x).dtype
    least = -math.inf if dtype.kind == "f" else False if dtype.kind == "b" else int(np.iinfo(dtype).min)
    return _pool(x, window, stride, padding, max_, least)


@on_arrays("x")
def average_pool2d(
    x: Any,
    window: int | tuple[int, int],
    *,
    stride: int | tuple[int, int] | None = None,
    padding: Padding = "valid",
) -> Any:
    """Compute means over windows of images (n, height, width, channels); padding counts as zeros.

    Stride None: the window's size.

    Examples
    --------
    >>> import numpy as np
    >>> average_pool2d(np.arange(16.0).reshape(1, 4, 4, 1), 2)[0, :, :, 0]
    array([[ 2.5,  4.5],
           [10.5, 12.5]])
    """
    size = _pair(window, "window")
    x, dtype = elementwise.for_mean(x)
    return elementwise.astype(_pool(x, size, stride, padding, sum_, 0.0) * (1.0 / (size[0] * size[1])), dtype)


def _normalise(x: Any, axes: tuple[int, ...], epsilon: float) -> Any:
    count = math.prod(x.shape[i] for i in axes)
    if count < 2 or not axes:
        raise ArgumentException(
            f"x must have at least 2 elements to normalise over, got shape {x.shape}; one minus its mean is 0"
        )
    x, dtype = elementwise.for_mean(x)
    mean = expand_reduced(sum_(x, axes) * (1.0 / count), x.shape, axes)
    centred = x - mean
    variance = expand_reduced(sum_(centred * centred, axes) * (1.0 / count), x.shape, axes)
    return elementwise.astype(centred * (1.0 / elementwise.sqrt(variance + epsilon)), dtype)


def _scale_and_shift(y: Any, scale: Any, shift: Any) -> Any:
    y = y if scale is None else y * scale
    return y if shift is None else y + shift


@on_arrays("x", "scale", "shift")
def batch_norm(x: Any, scale: Any = None, shift: Any = None, *, epsilon: float = 1e-5) -> Any:
    """Normalise each channel by the mean and variance of its batch: (x − μ)/√(σ² + ε) · scale + shift.

    Statistics run over all axes but the last, with σ² the population variance; no running averages are kept, the
    convention of few-shot learning (Finn et al. 2017).

    Examples
    --------
    >>> import numpy as np
    >>> batch_norm(np.array([[0.0], [2.0]])).round(3)
    array([[-1.],
           [ 1.]])
    """
    return _scale_and_shift(_normalise(x, tuple(range(len(x.shape) - 1)), epsilon), scale, shift)


@on_arrays("x", "scale", "shift")
def layer_norm(x: Any, scale: Any = None, shift: Any = None, *, epsilon: float = 1e-5) -> Any:
    """Normalise over the last axis: (x − μ)/√(σ² + ε) · scale + shift (Ba, Kiros & Hinton 2016).

    Examples
    --------
    >>> import numpy as np
    >>> layer_norm(np.array([[1.0, 3.0]])).round(3)
    array([[-1.,  1.]])
    """
    return _scale_and_shift(_normalise(x, tuple(range(len(x.shape)))[-1:], epsilon), scale, shift)
