"""Cumulative sums along an axis."""

# Rules are lambdas, whose parameters no annotation can reach; what they call is typed.
# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from typing import Any

from aidotnet_py.autodiff.primitive import Primitive
from aidotnet_py.autodiff.primitives.shape import flip
from aidotnet_py.autodiff.tracing.emission import emit
from aidotnet_py.autodiff.tracing.tracer import Tracer

__all__ = ["cumulative_sum"]

_cumulative_sum = Primitive(
    name="cumulative_sum",
    shape=lambda x, axis: x,
    run=lambda backend, out, x, axis: backend.cumulative_sum(x, axis, out=out),
    jvp=lambda tangents, x, output, axis: cumulative_sum(tangents[0], axis),
    transpose=lambda ct, x, axis: [flip(cumulative_sum(flip(ct, (axis,)), axis), (axis,))],
    batch=lambda inputs, batched, size, axis: cumulative_sum(inputs[0], axis + 1),
)


def cumulative_sum(x: Any, axis: int) -> Tracer:
    """Sum the first elements along an axis, for each number of them from 1 on."""
    return emit(_cumulative_sum, x, axis=axis)
