"""Concatenation along an axis."""

# Rules are lambdas, whose parameters no annotation can reach; what they call is typed.
# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aidotnet_py.autodiff.primitive import Primitive, no_flops
from aidotnet_py.autodiff.primitives.broadcasting import batch_of
from aidotnet_py.autodiff.primitives.shape import full, slice_
from aidotnet_py.autodiff.tracing.emission import emit
from aidotnet_py.autodiff.tracing.value_types import type_of
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.exceptions import ArgumentException

__all__ = ["concatenate"]


def _concatenate_shape(*types: ArrayType, axis: int) -> ArrayType:
    first = types[0].shape
    for t in types[1:]:
        if len(t.shape) != len(first) or any(
            i != axis and n != m for i, (n, m) in enumerate(zip(first, t.shape, strict=True))
        ):
            raise ArgumentException(
                f"arrays must have equal shapes except along axis {axis}, got {first} and {t.shape}"
            )
    shape = list(first)
    shape[axis] = sum(t.shape[axis] for t in types)
    return types[0].with_shape(shape)


def _concatenate_jvp(tangents: Sequence[Any], *arrays: Any, output: Any, axis: int) -> Any:
    pairs = zip(tangents, arrays, strict=True)
    return concatenate([full(type_of(x), 0.0) if t is None else t for t, x in pairs], axis)


def _concatenate_transpose(ct: Any, *arrays: Any, axis: int) -> list[Any]:
    cotangents: list[Any] = []
    start = 0
    for x in arrays:
        shape = x.shape
        spans = tuple((start, start + n, 1) if i == axis else (0, n, 1) for i, n in enumerate(shape))
        cotangents.append(slice_(ct, spans) if isinstance(x, ArrayType) else None)
        start += shape[axis]
    return cotangents


def _concatenate_batch(inputs: Sequence[Any], batched: Sequence[bool], size: int, axis: int) -> Any:
    return concatenate([batch_of(x, b, size) for x, b in zip(inputs, batched, strict=True)], axis + 1)


_concatenate = Primitive(
    name="concatenate",
    shape=_concatenate_shape,
    run=lambda backend, out, *arrays, axis: backend.concat(arrays, axis, out=out),
    jvp=_concatenate_jvp,
    transpose=_concatenate_transpose,
    batch=_concatenate_batch,
    flops=no_flops,
)


def concatenate(arrays: Sequence[Any], axis: int) -> Any:
    """Join arrays of one dtype along an axis.

    Parameters
    ----------
    arrays : sequence of Tracer
        At least one; shapes are equal except along the axis.
    axis : int
        At least 0.

    Returns
    -------
    Tracer

    Raises
    ------
    ArgumentException
        When the shapes differ along another axis.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff.extend import ArrayType, concatenate, new_trace
    >>> with new_trace() as trace:
    ...     x = trace.new_input(ArrayType((2, 3), np.dtype(float)))
    ...     concatenate([x, x], 1)
    Tracer(float64[2,6])
    """
    return arrays[0] if len(arrays) == 1 else emit(_concatenate, *arrays, axis=axis)
