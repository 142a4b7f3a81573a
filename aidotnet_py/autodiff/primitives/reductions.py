"""Maxima over axes."""

# Rules are lambdas, whose parameters no annotation can reach; what they call is typed.
# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from aidotnet_py.autodiff.primitive import Primitive
from aidotnet_py.autodiff.primitives.broadcasting import reduced_type, spread, sum_
from aidotnet_py.autodiff.primitives.elementwise import astype, equal, negative, subtract
from aidotnet_py.autodiff.tracing.emission import emit
from aidotnet_py.autodiff.tracing.value_types import type_of
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.exceptions import ArgumentException

__all__ = ["max_", "min_"]


def _max_shape(x: ArrayType, axes: tuple[int, ...]) -> ArrayType:
    if any(x.shape[i] == 0 for i in axes):
        raise ArgumentException(f"a maximum must have at least one element, got axes {axes} of shape {x.shape}")
    return reduced_type(x, axes)


def _max_jvp(tangents: Sequence[Any], x: Any, output: Any, axes: tuple[int, ...]) -> Any:
    # Elements that tie for the maximum share its tangent equally.
    t = tangents[0]
    shape = type_of(x).shape
    chosen = astype(equal(x, spread(output, shape, axes)), t.dtype)
    share = chosen / spread(sum_(chosen, axes), shape, axes)
    return sum_(t * share, axes)


_max = Primitive(
    name="max",
    shape=_max_shape,
    run=lambda backend, out, x, axes: backend.max(x, axes, out=out),
    jvp=_max_jvp,
    transpose=None,
    batch=lambda inputs, batched, size, axes: max_(inputs[0], tuple(i + 1 for i in axes)),
    loop="max",
)


def max_(x: Any, axes: tuple[int, ...]) -> Any:
    """Take maxima over axes and remove them."""
    if type_of(x).dtype.kind == "b":
        return astype(max_(astype(x, np.uint8), axes), bool)
    return emit(_max, x, axes=axes) if axes else x


def min_(x: Any, axes: tuple[int, ...]) -> Any:
    """Take minima over axes and remove them."""
    dtype = type_of(x).dtype
    if dtype.kind == "b":
        return astype(min_(astype(x, np.uint8), axes), bool)
    if dtype.kind == "f":
        return negative(max_(negative(x), axes))
    # −1 − x and max − x reverse the order of integers without overflow; −x overflows for the least integer.
    mirror = -1 if dtype.kind == "i" else int(np.iinfo(dtype).max)
    return subtract(mirror, max_(subtract(mirror, x), axes))
