"""The right-hand side as rows, one system a row, and the checks of all that must fit it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends import Array, Backend, available_backends, backend_of, is_plain
from aidotnet_py.exceptions import ArgumentException, ArgumentNullException, ArgumentOutOfRangeException

__all__ = ["Operator", "Rows", "check_count", "check_number"]

# The largest count: no machine lives to see it.
_MOST = 2**63 - 1

# A linear map: an array of the right-hand side's shape goes in, one of the same shape and dtype comes out.
Operator: TypeAlias = Callable[[Array], Array]


class Rows:
    """A right-hand side of shape (n,) or (tasks, n), seen as (tasks, n).

    Solvers work on rows alone; what they hand to the caller's functions, and what comes back, has the caller's shape.
    """

    def __init__(self, rhs: Array) -> None:
        if rhs is None:
            raise ArgumentNullException("rhs is None; wanted an array of shape (n,) or (tasks, n)")
        backend = backend_of(rhs)
        if backend is None:
            known = ", ".join(available_backends())
            raise ArgumentException(f"rhs is a {type(rhs).__name__}; wanted an array of one of the backends {known}")
        self.backend: Backend = backend
        self.dtype = backend.dtype_of(rhs)
        self.shape: tuple[int, ...] = tuple(rhs.shape)
        if len(self.shape) not in (1, 2) or 0 in self.shape or self.dtype.kind != "f":
            raise ArgumentException(
                f"rhs has shape {self.shape} and dtype {self.dtype}; "
                "wanted shape (n,) or (tasks, n), not empty, and a real floating dtype"
            )
        self.tasks, self.n = (1, *self.shape)[-2:]
        self.array: Array = self.as_rows(_plain(backend, rhs, self.dtype))

    def as_rows(self, array: Array) -> Array:
        """The view (tasks, n) of an array of the caller's shape."""
        return array if len(self.shape) == 2 else self.backend.reshape(array, (1, self.n))

    def as_given(self, rows: Array) -> Array:
        """The view in the caller's shape of an array (tasks, n)."""
        return rows if len(self.shape) == 2 else self.backend.reshape(rows, (self.n,))

    def empty(self) -> Array:
        """A new array (tasks, n)."""
        return self.backend.empty((self.tasks, self.n), self.dtype)

    def column(self, values: Array) -> Array:
        """The view (tasks, n) in which each row repeats its task's entry of ``values``, shape (tasks,)."""
        return self.backend.broadcast_to(self.backend.reshape(values, (self.tasks, 1)), (self.tasks, self.n))

    def fitting(self, name: str, array: Array) -> Array:
        """Return the array as rows once it has the right-hand side's shape, dtype and backend."""
        backend = self.backend
        if backend.owns(array) and backend.dtype_of(array) == self.dtype and tuple(array.shape) == self.shape:
            return self.as_rows(_plain(backend, array, self.dtype))
        owner = backend_of(array)
        if owner is None:
            came = f"is a {type(array).__name__}"
        else:
            came = f"has shape {tuple(array.shape)} and dtype {owner.dtype_of(array)} on backend {owner.name!r}"
        wanted = f"shape {self.shape} and dtype {self.dtype} on backend {backend.name!r}"
        raise ArgumentException(f"{name} {came}; wanted {wanted}, like rhs")

    def on_rows(self, name: str, function: Operator) -> Operator:
        """The caller's function as one on rows: it cannot write to its argument, and its result is checked."""
        if function is None:  # pyright: ignore[reportUnnecessaryComparison] -- callers may be untyped
            raise ArgumentNullException(f"{name} is None; wanted a function of an array of shape {self.shape}")
        if not callable(function):
            raise ArgumentException(
                f"{name} is a {type(function).__name__}; wanted a function of an array of shape {self.shape}"
            )
        result = f"the result of {name}"
        return lambda rows: self.fitting(result, function(_read_only(self.backend, self.as_given(rows))))


def _plain(backend: Backend, array: Array, dtype: np.dtype[Any]) -> Array:
    """The array, or a copy where compiled work cannot read its memory."""
    return array if is_plain(array) else backend.asarray(array, dtype)


def _read_only(backend: Backend, array: Array) -> Array:
    """The values, for a caller's function: a view that NumPy lets nobody write to, elsewhere a copy."""
    if not isinstance(array, np.ndarray):
        return backend.asarray(array)
    view = cast("NDArray[Any]", array).view()
    view.flags.writeable = False
    return view


def check_count(name: str, value: Any) -> int:
    """Return ``value`` as an int once it is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ArgumentException(f"{name} is {value!r}; wanted a whole number of at least 1")
    count = int(value)
    if not 1 <= count <= _MOST:
        if count > _MOST:
            raise ArgumentOutOfRangeException(f"{name} is beyond 64 bits; wanted a whole number from 1 to 2⁶³ − 1")
        shown = count if count >= -_MOST else "beyond 64 bits"
        raise ArgumentOutOfRangeException(f"{name} is {shown}; wanted a whole number of at least 1")
    return count


def check_number(name: str, value: Any) -> float:
    """Return ``value`` as a float once it is a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ArgumentException(f"{name} is {value!r}; wanted a finite number of at least 0")
    try:
        number = float(value)
    except OverflowError:
        raise ArgumentOutOfRangeException(
            f"{name} is a number beyond {sys.float_info.max:.1e}; wanted a finite number of at least 0"
        ) from None
    if not (math.isfinite(number) and number >= 0):
        raise ArgumentOutOfRangeException(f"{name} is {number}; wanted a finite number of at least 0")
    return number
