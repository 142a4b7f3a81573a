"""The support and query sets of some tasks, read once, and the names that messages call them by."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from aidotnet_py.backends import backend_of
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask, columns_of, set_names

__all__ = ["Names", "Sets", "are_alike", "names_of_places"]

_SHAPE, _DTYPE = map(operator.attrgetter, ("shape", "dtype"))

# The names of a task's inputs and outputs in messages, by the task's place.
Names: TypeAlias = Callable[[int], tuple[str, str]]


@lru_cache(maxsize=16)
def names_of_places(count: int, first: int | None = None) -> tuple[str, ...]:
    """Return the words that name each of so many tasks in a message; ``first`` if they are a part of a batch."""
    if first is None and count == 1:
        return ("",)
    return tuple(f" of task {(first or 0) + place}" for place in range(count))


class Sets:
    """The sets of tasks by role, "Support" or "Query".

    Parameters
    ----------
    tasks : sequence of IMetaLearningTask
        The tasks.
    wheres : sequence of str
        The words that name each task in messages.
    """

    def __init__(self, tasks: Sequence[IMetaLearningTask[Any, Any, Any]], wheres: Sequence[str]) -> None:
        self.tasks, self.wheres = tasks, wheres
        self._columns: dict[str, tuple[list[Any], list[Any]]] = {}
        self._alike: dict[str, bool] = {}

    def __len__(self) -> int:
        return len(self.tasks)

    def part(self, places: Sequence[int]) -> Sets:
        """Return the sets of the tasks at some places."""
        if places == range(len(self)):
            return self
        return Sets([self.tasks[place] for place in places], [self.wheres[place] for place in places])

    def columns(self, role: str) -> tuple[list[Any], list[Any]]:
        """Return the inputs and the outputs of all tasks."""
        if role not in self._columns:
            self._columns[role] = columns_of(self.tasks, role)
        return self._columns[role]

    def pairs(self, role: str) -> list[tuple[Any, Any]]:
        """Return input and output of each task."""
        return list(zip(*self.columns(role), strict=True))

    def are_alike(self, role: str) -> bool:
        """Return whether all inputs are arrays of one type, shape, dtype and backend, and all outputs too."""
        if role not in self._alike:
            self._alike[role] = all(map(are_alike, self.columns(role)))
        return self._alike[role]

    def names(self, role: str, suffix: str = "") -> Names:
        """Return the function that names inputs and outputs in messages."""

        def names(place: int) -> tuple[str, str]:
            x, y = set_names(self.tasks[place], role)
            return x + suffix + self.wheres[place], y + suffix + self.wheres[place]

        return names


def are_alike(arrays: Sequence[Any]) -> bool:
    """Return whether all are arrays of one type, shape, dtype and backend; arrays of two types may still fit."""
    first = arrays[0]
    backend = backend_of(first)
    if backend is None:
        return False
    if len(set(map(type, arrays))) != 1:
        return False
    if backend.stacked(arrays) is not None:
        return True
    count = len(arrays)
    alike = all(list(map(of, arrays)).count(of(first)) == count for of in (_SHAPE, _DTYPE))
    return alike and all(map(backend.owns, arrays))
