"""The fields of results: checks and read-only copies of what constructors are given."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import check_given, real_of
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException
from aidotnet_py.meta_learning.contract.statistics import require_numbers

__all__ = ["check_all_given", "check_threshold", "rows_view", "set_fields", "vector_copy", "vector_pair"]

_THRESHOLD = "a number of at least 0"


def set_fields(result: object, **fields: object) -> None:
    """Set the fields of a frozen result."""
    for name, value in fields.items():
        object.__setattr__(result, name, value)


def check_all_given(**arguments: object) -> None:
    """Raise ArgumentNullException if one of some arguments is None."""
    for name, value in arguments.items():
        check_given(name, value, "given")


def vector_copy(name: str, values: Any) -> NDArray[Any]:
    """Return a read-only one-dimensional copy of an argument."""
    copy = np.array(values)
    require_numbers(name, copy)
    copy.flags.writeable = False
    return copy


def rows_view(name: str, values: Any) -> NDArray[Any]:
    """Return a read-only view of a two-dimensional argument, which may be large."""
    view = np.asarray(values).view()
    require_numbers(name, view, 2)
    view.flags.writeable = False
    return view


def vector_pair(first: str, x: Any, second: str, y: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return read-only copies of two arguments of one length."""
    a, b = vector_copy(first, x), vector_copy(second, y)
    if a.shape != b.shape or a.size == 0:
        raise ArgumentException(
            f"{first} and {second} must have one length, at least 1, got shapes {a.shape} and {b.shape}"
        )
    return a, b


def check_threshold(name: str, value: float) -> None:
    """Raise ArgumentOutOfRangeException for a negative threshold, or NaN; another error for what is no number."""
    check_given(name, value, _THRESHOLD)
    if not real_of(name, _THRESHOLD, value) >= 0:
        raise ArgumentOutOfRangeException(f"{name} must be at least 0, got {value}")
