"""Arrays of many tasks, stacked in one array (tasks, …) or split again."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from aidotnet_py.backends import Array, Backend

__all__ = ["Columns", "bytes_of", "repeat_rows", "row_views", "split_rows", "stack_rows"]


def repeat_rows(backend: Backend, row: Array, count: int) -> Array:
    """Return a new array (count, P) whose rows are all the vector ``row``, shape (P,)."""
    repeated = backend.empty((count, *row.shape), backend.dtype_of(row))
    backend.copyto(repeated, row)
    return repeated


def stack_rows(backend: Backend, rows: Sequence[Array]) -> Array:
    """Return a new array whose rows are these vectors (P,)."""
    return backend.concat([backend.reshape(row, (1, *row.shape)) for row in rows], 0)


def row_views(backend: Backend, stacked: Array) -> list[Array]:
    """Return the entries along the first axis as views."""
    tasks, *shape = stacked.shape
    whole = (slice(None),) * len(shape)
    return [
        backend.reshape(backend.index(stacked, (slice(task, task + 1), *whole)), tuple(shape)) for task in range(tasks)
    ]


def split_rows(backend: Backend, stacked: Array) -> list[Array]:
    """Return the entries along the first axis as new arrays."""
    return [backend.asarray(row) for row in row_views(backend, stacked)]


def bytes_of(backend: Backend, arrays: Sequence[Array]) -> int:
    """Return the bytes of some arrays."""
    return sum(math.prod(array.shape) * backend.dtype_of(array).itemsize for array in arrays)


class Columns:
    """The columns of some of a model's parameters in vectors (tasks, P)."""

    def __init__(self, backend: Backend, shapes: Mapping[str, tuple[int, ...]], names: Collection[str]) -> None:
        self._backend = backend
        # Pieces of neighbouring parameters: whether the names include them, and their columns.
        self._pieces: list[tuple[bool, slice]] = []
        start = 0
        for name, shape in shapes.items():
            stop, chosen = start + math.prod(shape), name in names
            if self._pieces and self._pieces[-1][0] == chosen:
                start = self._pieces.pop()[1].start
            self._pieces.append((chosen, slice(start, stop)))
            start = stop

    def of(self, vectors: Array) -> Array:
        """Return these columns: a view if they are neighbours, else a new array."""
        return self._chosen(vectors, True)

    def others_of(self, vectors: Array) -> Array:
        """Return the other columns: a view if they are neighbours, else a new array."""
        return self._chosen(vectors, False)

    def join(self, values: Array, others: Array) -> Array:
        """Return new vectors with ``values`` in these columns and ``others`` in the other ones."""
        parts: list[Array] = []
        starts = {True: 0, False: 0}
        for chosen, columns in self._pieces:
            start = starts[chosen]
            starts[chosen] = stop = start + columns.stop - columns.start
            parts.append(self._columns(values if chosen else others, slice(start, stop)))
        return self._backend.concat(parts, 1)

    def _chosen(self, vectors: Array, wanted: bool) -> Array:
        parts = [self._columns(vectors, columns) for chosen, columns in self._pieces if chosen == wanted]
        return parts[0] if len(parts) == 1 else self._backend.concat(parts, 1)

    def _columns(self, vectors: Array, columns: slice) -> Array:
        return self._backend.index(vectors, (slice(None), columns))
