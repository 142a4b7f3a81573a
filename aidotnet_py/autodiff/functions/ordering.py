"""NumPy's functions of the order of elements, on traced values."""

# What has rules that are lambdas is not typed.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from aidotnet_py.autodiff.functions.axes import expand_reduced, normalise_axes, one_axis
from aidotnet_py.autodiff.functions.indexing import move_axis, take_along_axis
from aidotnet_py.autodiff.primitives import elementwise as ew
from aidotnet_py.autodiff.primitives.broadcasting import spread
from aidotnet_py.autodiff.primitives.reductions import max_, min_
from aidotnet_py.autodiff.primitives.shape import reshape
from aidotnet_py.autodiff.primitives.sorting import argsort as _argsort
from aidotnet_py.autodiff.tracing.host_data import HostData
from aidotnet_py.autodiff.tracing.value_types import type_of
from aidotnet_py.exceptions import NotSupportedException

__all__ = ["along", "argmax", "argmin", "argsort", "sort"]


def along(a: Any, axis: int | None) -> tuple[Any, int]:
    """Return the array and a number of its axis in 0 … n − 1; for None, the flat array."""
    if axis is None:
        return reshape(a, (type_of(a).size,)), 0
    return a, one_axis(axis, len(type_of(a).shape))


def _require_own_order(order: Any) -> None:
    if order is not None:
        raise NotSupportedException(f"order must be None for a traced value, got {order!r}")


def argsort(a: Any, axis: int | None = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> Any:
    """Compute `numpy.argsort`, always stable."""
    _require_own_order(order)
    a, i = along(a, axis)
    last = len(a.shape) - 1
    return move_axis(_argsort(move_axis(a, i, last)), last, i)


def sort(a: Any, axis: int | None = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> Any:
    """Compute `numpy.sort`; derivatives go with the elements, equal ones in their order."""
    _require_own_order(order)
    a, i = along(a, axis)
    return take_along_axis(a, argsort(a, i), i)


def _place_of(extreme: Callable[[Any, tuple[int, ...]], Any], name: str) -> Callable[..., Any]:
    def function(a: Any, axis: int | None = None, *, keepdims: bool = False) -> Any:
        shape = type_of(a).shape
        a, i = along(a, axis)
        chosen = ew.equal(a, spread(extreme(a, (i,)), a.shape, (i,)))
        if type_of(a).is_floating:
            # NaN is the extreme where there is one, and equals nothing.
            chosen = ew.logical_or(chosen, ew.not_equal(a, a))
        length = a.shape[i]
        # The first place is the one with most places after it.
        after = HostData(np.arange(length)[::-1].reshape(-1, *(1 for _ in a.shape[i + 1 :])))
        place = ew.subtract(length - 1, max_(ew.where(chosen, after, -1), (i,)))
        return expand_reduced(place, shape, normalise_axes(axis, len(shape))) if keepdims else place

    function.__name__ = name
    return function


argmax = _place_of(max_, "argmax")
argmin = _place_of(min_, "argmin")
