"""The right-hand side as rows, one system a row, and the checks of all that must fit it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import array_hint, check_given, refusal
from aidotnet_py.autodiff.extend import Tracer
from aidotnet_py.backends import Array, Backend, available_backends, backend_of, is_plain
from aidotnet_py.exceptions import ArgumentException, ArgumentNullException

__all__ = ["Operator", "Rows", "check_callable"]

#: A linear map: an array of the right-hand side's shape goes in, one of the same shape and dtype comes out.
Operator: TypeAlias = Callable[[Array], Array]


class Rows:
    """A right-hand side of shape (n,) or (tasks, n), seen as (tasks, n).

    Solvers work on rows alone; what they hand to the caller's functions, and what comes back, has the caller's shape.
    """

    def __init__(self, rhs: Array) -> None:
        if rhs is None:
            raise ArgumentNullException("rhs must be an array of shape (n,) or (tasks, n), got None")
        backend = backend_of(rhs)
        if backend is None:
            known = ", ".join(available_backends())
            raise ArgumentException(
                f"rhs must be an array of one of the backends {known}, got {_kind_of(rhs)}{array_hint('rhs', rhs)}"
            )
        self.backend: Backend = backend
        self.dtype = backend.dtype_of(rhs)
        self.shape: tuple[int, ...] = tuple(rhs.shape)
        if len(self.shape) not in (1, 2) or 0 in self.shape or self.dtype.kind != "f":
            raise ArgumentException(
                "rhs must have shape (n,) or (tasks, n), not empty, and a real floating dtype, "
                f"got shape {self.shape} and dtype {self.dtype}"
                f"{'; use rhs.astype(np.float64)' if self.dtype.kind in 'biu' else ''}"
            )
        self.tasks, self.n = (1, *self.shape)[-2:]
        self.array: Array = self.as_rows(_plain(backend, rhs, self.dtype))

    def as_rows(self, array: Array) -> Array:
        """Return the view (tasks, n) of an array of the caller's shape."""
        return array if len(self.shape) == 2 else self.backend.reshape(array, (1, self.n))

    def as_given(self, rows: Array) -> Array:
        """Return the view in the caller's shape of an array (tasks, n)."""
        return rows if len(self.shape) == 2 else self.backend.reshape(rows, (self.n,))

    def empty(self) -> Array:
        """Return a new array (tasks, n)."""
        return self.backend.empty((self.tasks, self.n), self.dtype)

    def column(self, values: Array) -> Array:
        """Return the view (tasks, n) in which each row repeats its task's entry of ``values``, shape (tasks,)."""
        return self.backend.broadcast_to(self.backend.reshape(values, (self.tasks, 1)), (self.tasks, self.n))

    def fitting(self, name: str, array: Array) -> Array:
        """Return the array as rows once it has the right-hand side's shape, dtype and backend."""
        backend = self.backend
        if backend.owns(array) and backend.dtype_of(array) == self.dtype and tuple(array.shape) == self.shape:
            return self.as_rows(_plain(backend, array, self.dtype))
        owner = backend_of(array)
        if owner is None:
            came = _kind_of(array)
        else:
            came = f"shape {tuple(array.shape)} and dtype {owner.dtype_of(array)} on backend {owner.name!r}"
        wanted = f"shape {self.shape} and dtype {self.dtype} on backend {backend.name!r}"
        raise ArgumentException(f"{name} must have {wanted}, like rhs, got {came}")

    def on_rows(self, name: str, function: Operator) -> Operator:
        """Return the caller's function as one on rows: it cannot write to its argument, and its result is checked."""
        check_callable(name, function, f"a function of an array of shape {self.shape}")
        result, argument = f"the result of {name}", _Argument(self)
        return lambda rows: self.fitting(result, function(argument.of(rows)))


class _Argument:
    """What a caller's function is handed: a view that NumPy lets nobody write to, elsewhere a copy.

    An iteration hands over one buffer again and again, and a view of it is made once.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._last: Array | None = None
        self._view: NDArray[Any] | None = None

    def of(self, array: Array) -> Array:
        """Return the values in the caller's shape."""
        view = self._view
        # A function may have changed the flags and the shape of the view itself.
        if view is not None and self._last is array and view.shape == self._rows.shape and not view.flags.writeable:
            return view
        given = self._rows.as_given(array)
        if not isinstance(given, np.ndarray):
            return self._rows.backend.asarray(given)
        self._last, self._view = array, cast("NDArray[Any]", given).view()
        self._view.flags.writeable = False
        return self._view


def check_callable(name: str, function: object, wanted: str) -> None:
    """Raise an error unless the argument is a function."""
    check_given(name, function, wanted)
    if not callable(function):
        raise ArgumentException(refusal(name, wanted, function))


def _kind_of(value: object) -> str:
    """Name the type of what is no array; of a traced one, say what it takes."""
    remedy = "; a solve is not traced, but aidotnet_py.implicit differentiates it" if isinstance(value, Tracer) else ""
    return type(value).__name__ + remedy


def _plain(backend: Backend, array: Array, dtype: np.dtype[Any]) -> Array:
    """Return the array, or a copy where compiled work cannot read its memory."""
    return array if is_plain(array) else backend.asarray(array, dtype)
