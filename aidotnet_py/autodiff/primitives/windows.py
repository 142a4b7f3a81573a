"""Windows of images, for convolution and pooling: the linear primitive `patches` and its transpose `fold`."""

# Rules are lambdas, whose parameters no annotation can reach; what they call is typed.
# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from typing import Any

from aidotnet_py.autodiff.primitive import Primitive, no_flops, one_flop_per_element
from aidotnet_py.autodiff.primitives.shape import reshape
from aidotnet_py.autodiff.tracing.emission import emit
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.exceptions import ArgumentException

__all__ = ["fold", "patches"]

Pair = tuple[int, int]


def _patches_shape(x: ArrayType, window: Pair, stride: Pair) -> ArrayType:
    n, height, width, channels = x.shape
    if window[0] > height or window[1] > width:
        raise ArgumentException(f"window must be no larger than the (padded) image of {(height, width)}, got {window}")
    rows = (height - window[0]) // stride[0] + 1
    columns = (width - window[1]) // stride[1] + 1
    return x.with_shape((n, rows, columns, *window, channels))


def _merge_batch(x: Any, size: int) -> Any:
    return reshape(x, (size * x.shape[1], *x.shape[2:]))


def _split_batch(x: Any, size: int, count: int) -> Any:
    return reshape(x, (size, count, *x.shape[1:]))


_patches = Primitive(
    name="patches",
    shape=_patches_shape,
    run=lambda backend, out, x, window, stride: backend.patches(x, window, stride, out=out),
    jvp=lambda tangents, x, output, window, stride: patches(tangents[0], window, stride),
    transpose=lambda ct, x, window, stride: [fold(ct, x.shape[1:3], stride)],
    batch=lambda inputs, batched, size, window, stride: _split_batch(
        patches(_merge_batch(inputs[0], size), window, stride), size, inputs[0].shape[1]
    ),
    flops=no_flops,
)


def patches(x: Any, window: Pair, stride: Pair) -> Any:
    """Return all windows of images (n, h, w, c) as (n, rows, columns, window height, window width, c)."""
    return emit(_patches, x, window=window, stride=stride)


_fold = Primitive(
    name="fold",
    shape=lambda x, image, stride: x.with_shape((x.shape[0], *image, x.shape[-1])),
    run=lambda backend, out, x, image, stride: backend.fold(x, stride, out=out),
    jvp=lambda tangents, x, output, image, stride: fold(tangents[0], image, stride),
    transpose=lambda ct, x, image, stride: [patches(ct, x.shape[3:5], stride)],
    batch=lambda inputs, batched, size, image, stride: _split_batch(
        fold(_merge_batch(inputs[0], size), image, stride), size, inputs[0].shape[1]
    ),
    flops=one_flop_per_element,
)


def fold(x: Any, image: Pair, stride: Pair) -> Any:
    """Add the elements of windows onto the pixels that they came from, in images of that size."""
    return emit(_fold, x, image=image, stride=stride)
