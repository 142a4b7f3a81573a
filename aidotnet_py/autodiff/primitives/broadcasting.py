"""Repetition along axes and sums over them: each is the transpose of the other."""

# Rules are lambdas, whose parameters no annotation can reach; what they call is typed.
# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from typing import Any

from aidotnet_py.autodiff.primitive import Primitive, no_flops
from aidotnet_py.autodiff.primitives.shape import reshape
from aidotnet_py.autodiff.tracing.emission import emit
from aidotnet_py.autodiff.tracing.value_types import type_of
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.exceptions import ArgumentException

__all__ = ["batch_of", "broadcast_to", "kept_shape", "reduced_type", "spread", "sum_"]


def _broadcast_transpose(ct: Any, x: ArrayType, shape: tuple[int, ...]) -> list[Any]:
    repeated = tuple(i for i, (n, m) in enumerate(zip(x.shape, shape, strict=True)) if n != m)
    return [reshape(sum_(ct, repeated), x.shape)]


_broadcast = Primitive(
    name="broadcast_to",
    shape=lambda x, shape: x.with_shape(shape),
    run=lambda backend, x, shape: backend.broadcast_to(x, shape),
    jvp=lambda tangents, x, output, shape: broadcast_to(tangents[0], shape),
    transpose=_broadcast_transpose,
    batch=lambda inputs, batched, size, shape: broadcast_to(inputs[0], (size, *shape)),
    view=lambda x, strides, shape: tuple(s if n == m else 0 for s, n, m in zip(strides, x.shape, shape, strict=True)),
    flops=no_flops,
)


def broadcast_to(x: Any, shape: tuple[int, ...]) -> Any:
    """Repeat axes of length 1 and add leading axes to reach a shape."""
    have = type_of(x).shape
    if have == shape:
        return x
    lined_up = (1,) * (len(shape) - len(have)) + have
    if len(have) > len(shape) or any(n not in (1, m) for n, m in zip(lined_up, shape, strict=True)):
        raise ArgumentException(f"shape must be one that {have} broadcasts to, got {shape}")
    x = reshape(x, lined_up)
    return x if lined_up == shape else emit(_broadcast, x, shape=shape)


def batch_of(x: Any, batched: bool, size: int) -> Any:
    """Return the value with a leading axis of that size; unless it is batched already, a view repeats it.

    Parameters
    ----------
    x : Tracer
        The value.
    batched : bool
        Whether it has the axis.
    size : int
        The length of the axis.

    Returns
    -------
    Tracer

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff.extend import ArrayType, batch_of, new_trace
    >>> with new_trace() as trace:
    ...     batch_of(trace.new_input(ArrayType((3,), np.dtype(float))), False, 2)
    Tracer(float64[2,3])
    """
    if batched:
        return x
    shape = type_of(x).shape
    return broadcast_to(reshape(x, (1, *shape)), (size, *shape))


def reduced_type(x: ArrayType, axes: tuple[int, ...]) -> ArrayType:
    """Return the type of a reduction over axes."""
    return x.with_shape([n for i, n in enumerate(x.shape) if i not in axes])


def kept_shape(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape with the reduced axes at length 1, as ``keepdims`` gives it."""
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


def spread(y: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    """Repeat a reduced value over the reduced axes."""
    return broadcast_to(reshape(y, kept_shape(shape, axes)), shape)


_sum = Primitive(
    name="sum",
    shape=reduced_type,
    run=lambda backend, out, x, axes: backend.sum(x, axes, out=out),
    jvp=lambda tangents, x, output, axes: sum_(tangents[0], axes),
    transpose=lambda ct, x, axes: [spread(ct, x.shape, axes)],
    batch=lambda inputs, batched, size, axes: sum_(inputs[0], tuple(i + 1 for i in axes)),
    loop="sum",
)


def sum_(x: Any, axes: tuple[int, ...]) -> Any:
    """Sum over axes and remove them."""
    return emit(_sum, x, axes=axes) if axes else x
