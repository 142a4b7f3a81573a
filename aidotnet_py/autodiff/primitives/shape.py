"""Primitives that only move elements: reshape, permute, slice, pad, flip, fill, stop_gradient."""

# Rules are lambdas, whose parameters no annotation can reach; what they call is typed.
# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import math
from typing import Any

import numpy as np

from aidotnet_py.autodiff.primitive import Primitive, no_flops
from aidotnet_py.autodiff.strides import reshaped_strides
from aidotnet_py.autodiff.tracing.emission import emit
from aidotnet_py.autodiff.tracing.tracer import Tracer
from aidotnet_py.autodiff.tracing.value_types import is_array, type_of
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.backends import Array, Backend
from aidotnet_py.exceptions import ArgumentException

__all__ = [
    "as_array",
    "flip",
    "full",
    "pad",
    "permute_dims",
    "reshape",
    "slice_",
    "slice_primitive",
    "stop_gradient",
    "unslice",
]


def _reshape_shape(x: ArrayType, shape: tuple[int, ...]) -> ArrayType:
    if math.prod(shape) != x.size:
        raise ArgumentException(f"shape must have {x.size} elements like {x.shape}, got {shape}")
    return x.with_shape(shape)


_reshape = Primitive(
    name="reshape",
    shape=_reshape_shape,
    run=lambda backend, x, shape: backend.reshape(x, shape),
    jvp=lambda tangents, x, output, shape: reshape(tangents[0], shape),
    transpose=lambda ct, x, shape: [reshape(ct, x.shape)],
    batch=lambda inputs, batched, size, shape: reshape(inputs[0], (size, *shape)),
    view=lambda x, strides, shape: reshaped_strides(x.shape, strides, shape),
    flops=no_flops,
)


def reshape(x: Any, shape: tuple[int, ...]) -> Any:
    """Return the elements in another shape, in C order.

    Parameters
    ----------
    x : Tracer
        The value.
    shape : tuple of int
        Lengths of at least 0, with as many elements.

    Returns
    -------
    Tracer

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff.extend import ArrayType, new_trace, reshape
    >>> with new_trace() as trace:
    ...     reshape(trace.new_input(ArrayType((2, 3), np.dtype(float))), (6,))
    Tracer(float64[6])
    """
    return x if type_of(x).shape == shape else emit(_reshape, x, shape=shape)


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argsort(axes))


_permute = Primitive(
    name="permute_dims",
    shape=lambda x, axes: x.with_shape([x.shape[i] for i in axes]),
    run=lambda backend, x, axes: backend.permute_dims(x, axes),
    jvp=lambda tangents, x, output, axes: permute_dims(tangents[0], axes),
    transpose=lambda ct, x, axes: [permute_dims(ct, _inverse(axes))],
    batch=lambda inputs, batched, size, axes: permute_dims(inputs[0], (0, *(i + 1 for i in axes))),
    view=lambda x, strides, axes: tuple(strides[i] for i in axes),
    flops=no_flops,
)


def permute_dims(x: Any, axes: tuple[int, ...]) -> Any:
    """Return the value with its axes in another order."""
    return x if axes == tuple(range(len(axes))) else emit(_permute, x, axes=axes)


def _slice_shape(x: ArrayType, spans: tuple[tuple[int, int, int], ...]) -> ArrayType:
    return x.with_shape([len(range(*span)) for span in spans])


def _slice_run(backend: Backend, x: Array, spans: tuple[tuple[int, int, int], ...]) -> Array:
    return backend.index(x, tuple(slice(*span) for span in spans))


def unslice(x: Any, shape: tuple[int, ...], spans: tuple[tuple[int, int, int], ...]) -> Any:
    """Return zeros of a shape with x at the places that `slice_` selects there: its transpose."""
    margins: list[tuple[int, int, int]] = []
    for length, (start, stop, step) in zip(shape, spans, strict=True):
        count = len(range(start, stop, step))
        end = start + (count - 1) * step + 1 if count else start
        margins.append((start, length - end, step - 1))
    return pad(x, tuple(margins))


slice_primitive = Primitive(
    name="slice",
    shape=_slice_shape,
    run=_slice_run,
    jvp=lambda tangents, x, output, spans: slice_(tangents[0], spans),
    transpose=lambda ct, x, spans: [unslice(ct, x.shape, spans)],
    batch=lambda inputs, batched, size, spans: slice_(inputs[0], ((0, size, 1), *spans)),
    view=lambda x, strides, spans: tuple(s * step for s, (_, _, step) in zip(strides, spans, strict=True)),
    flops=no_flops,
)


def slice_(x: Any, spans: tuple[tuple[int, int, int], ...]) -> Any:
    """Select start, start + step, … before stop along each axis.

    Parameters
    ----------
    x : Tracer
        The value.
    spans : tuple of (int, int, int)
        Start, stop and step of each axis; steps are positive, bounds within the axis.

    Returns
    -------
    Tracer

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff.extend import ArrayType, new_trace, slice_
    >>> with new_trace() as trace:
    ...     slice_(trace.new_input(ArrayType((4, 3), np.dtype(float))), ((0, 4, 2), (1, 3, 1)))
    Tracer(float64[2,2])
    """
    whole = tuple((0, n, 1) for n in type_of(x).shape)
    return x if spans == whole else emit(slice_primitive, x, spans=spans)


Margins = tuple[tuple[int, int, int], ...]


def _pad_shape(x: ArrayType, margins: Margins, value: float) -> ArrayType:
    return x.with_shape([lo + n + hi + max(n - 1, 0) * gap for n, (lo, hi, gap) in zip(x.shape, margins, strict=True)])


def _pad_spans(x: ArrayType, margins: Margins) -> tuple[tuple[int, int, int], ...]:
    """Return the places of the input's elements in the output."""
    return tuple(
        (lo, lo + (max(n - 1, 0) * (gap + 1) + 1 if n else 0), gap + 1)
        for n, (lo, _, gap) in zip(x.shape, margins, strict=True)
    )


def _pad_run(backend: Backend, out: Array, x: Array, margins: Margins, value: float) -> None:
    backend.copyto(out, value)
    if 0 in x.shape:
        return
    spans = _pad_spans(ArrayType(tuple(x.shape), backend.dtype_of(x)), margins)
    backend.copyto(backend.index(out, tuple(slice(*span) for span in spans)), x)


_pad = Primitive(
    name="pad",
    shape=_pad_shape,
    run=_pad_run,
    jvp=lambda tangents, x, output, margins, value: pad(tangents[0], margins),
    transpose=lambda ct, x, margins, value: [slice_(ct, _pad_spans(x, margins))],
    batch=lambda inputs, batched, size, margins, value: pad(inputs[0], ((0, 0, 0), *margins), value),
    flops=no_flops,
)


def pad(x: Any, margins: Margins, value: float = 0.0) -> Any:
    """Add (before, after, between) elements of a constant value along each axis."""
    if all(m == (0, 0, 0) for m in margins):
        return x
    return emit(_pad, x, margins=margins, value=type_of(x).dtype.type(value).item())


_flip = Primitive(
    name="flip",
    shape=lambda x, axes: x,
    run=lambda backend, x, axes: backend.index(
        x, tuple(slice(None, None, -1 if i in axes else None) for i in range(len(x.shape)))
    ),
    jvp=lambda tangents, x, output, axes: flip(tangents[0], axes),
    transpose=lambda ct, x, axes: [flip(ct, axes)],
    batch=lambda inputs, batched, size, axes: flip(inputs[0], tuple(i + 1 for i in axes)),
    view=lambda x, strides, axes: tuple(-s if i in axes else s for i, s in enumerate(strides)),
    flops=no_flops,
)


def flip(x: Any, axes: tuple[int, ...]) -> Any:
    """Reverse the order of the elements along axes."""
    return emit(_flip, x, axes=axes) if axes else x


_full = Primitive(
    name="full",
    shape=lambda type, value: type,
    run=lambda backend, out, type, value: backend.copyto(out, value),
    jvp=None,
    transpose=None,
    batch=lambda inputs, batched, size, type, value: full(type.with_shape((size, *type.shape)), value),
    flops=no_flops,
)


def full(array_type: ArrayType, value: float) -> Tracer:
    """Return an array filled with one value."""
    return emit(_full, type=array_type, value=array_type.dtype.type(value).item())


def as_array(x: Any) -> Any:
    """Return a number as an array without axes, which can be reshaped; an array as it is."""
    return x if is_array(x) else full(type_of(x), x)


_stop_gradient = Primitive(
    name="stop_gradient",
    shape=lambda x: x,
    run=lambda backend, x: x,
    jvp=None,
    transpose=None,
    batch=lambda inputs, batched, size: stop_gradient(inputs[0]),
    view=lambda x, strides: strides,
    flops=no_flops,
)


def stop_gradient(x: Any) -> Tracer:
    """Return x as a constant: every derivative through it is zero."""
    return emit(_stop_gradient, x)
