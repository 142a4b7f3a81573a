"""The sum of the tasks' meta-gradients, by an order of additions that the places of the tasks alone decide."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from aidotnet_py.backends import Array, Backend

__all__ = ["Piece", "SumOfTasks"]

# How many tasks, and then how many sums of as many tasks each, are added up at a time.
_SIBLINGS = 8


class Piece(NamedTuple):
    """Rows of the tasks from ``start`` to ``stop``: one for each ``size`` of them, their sum."""

    start: int
    stop: int
    size: int
    rows: Array


class SumOfTasks:
    """The sum of the vectors of tasks in a row, which come in pieces, in their order.

    Tasks are the leaves of a tree in which eight siblings are added up one by one: tasks 0 to 7, 8 to 15, and so on,
    then eight of these sums. So the bits of the sum of a batch do not depend on who added up which part of it, nor on
    how many tasks came at once, and a part of n tasks is a few sums, about 14 log₈ n at most.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        # What is added up so far; the sizes fall, but at the beginning of a part of a batch.
        self.pieces: list[Piece] = []

    def add_rows(self, start: int, rows: Array) -> None:
        """Add the vectors (tasks, P) of tasks from a place on."""
        count, begin = int(rows.shape[0]), 0
        while begin < count:
            end = min(count, begin + _SIBLINGS - (start + begin) % _SIBLINGS)
            own = rows
            if end - begin < count:
                own = self._backend.index(rows, (slice(begin, end), slice(None)))
            self._add(Piece(start + begin, start + end, 1, own))
            begin = end

    def add(self, pieces: Iterable[Piece]) -> None:
        """Add the pieces of the tasks that come next."""
        for piece in pieces:
            self._add(piece)

    def total(self) -> Array:
        """Return the sum (P,)."""
        while len(self.pieces) > 1:
            size = self.pieces[-1].size
            self._add_up(sum(piece.size == size for piece in self.pieces))
        (whole,) = self.pieces
        return self._backend.sum(whole.rows, (0,))

    def _add(self, piece: Piece) -> None:
        self.pieces.append(piece)
        while True:
            size, stop = self.pieces[-1].size, self.pieces[-1].stop
            start = stop - _SIBLINGS * size
            siblings = [one for one in self.pieces if one.size == size and one.start >= start]
            if start % (_SIBLINGS * size) or siblings[0].start != start:
                return
            self._add_up(len(siblings))

    def _add_up(self, count: int) -> None:
        """Put the sum of the last pieces in their place."""
        last = self.pieces[-count:]
        rows = last[0].rows if count == 1 else self._backend.concat([piece.rows for piece in last], 0)
        vector = self._backend.sum(rows, (0,))
        row = self._backend.reshape(vector, (1, int(vector.shape[0])))
        self.pieces[-count:] = [Piece(last[0].start, last[-1].stop, _SIBLINGS * last[0].size, row)]
