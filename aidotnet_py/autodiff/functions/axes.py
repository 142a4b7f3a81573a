"""Axes as NumPy takes them: one or several, negative ones from the end, None for all."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any, cast

import numpy as np

from aidotnet_py.autodiff.primitives.broadcasting import kept_shape
from aidotnet_py.autodiff.primitives.shape import reshape
from aidotnet_py.exceptions import ArgumentException

__all__ = ["Axes", "expand_reduced", "ints", "normalise_axes", "one_axis", "positive_axes"]

Axes = int | Sequence[int] | None


def _are_several(value: object) -> bool:
    return isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim > 0)


def ints(value: int | Sequence[int]) -> list[int]:
    """Return one int or several, also in an array, as a list."""
    return [index(v) for v in cast("Sequence[int]", value if _are_several(value) else [value])]


def positive_axes(axis: int | Sequence[int], ndim: int) -> list[int]:
    """Return axes in the given order, as distinct numbers in 0 … ndim − 1."""
    axes = ints(axis)
    if any(not -ndim <= a < ndim for a in axes) or len({a % ndim for a in axes}) != len(axes):
        raise ArgumentException(f"axis must be distinct axes of an array with {ndim} axes, got {axis}")
    return [a % ndim for a in axes]


def normalise_axes(axis: Axes, ndim: int) -> tuple[int, ...]:
    """Return axes as a sorted tuple of distinct numbers in 0 … ndim − 1; None means all."""
    return tuple(range(ndim)) if axis is None else tuple(sorted(positive_axes(axis, ndim)))


def one_axis(axis: int, ndim: int) -> int:
    """Return an axis as a number in 0 … ndim − 1; several are refused."""
    if _are_several(axis):
        raise ArgumentException(f"axis must be one integer, got {axis}")
    return positive_axes(axis, ndim)[0]


def expand_reduced(y: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    """Return a reduced value with the reduced axes restored at length 1."""
    return reshape(y, kept_shape(shape, axes))
