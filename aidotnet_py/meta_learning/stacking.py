"""Arrays of many tasks stacked in one (tasks, …), and back."""

from __future__ import annotations

from collections.abc import Sequence

from aidotnet_py.backends import Array, Backend

__all__ = ["repeat_rows", "row_views", "split_rows", "stack_rows"]


def repeat_rows(backend: Backend, row: Array, count: int) -> Array:
    """A vector (P,) as ``count`` equal rows of a new array (count, P)."""
    repeated = backend.broadcast_to(backend.reshape(row, (1, *row.shape)), (count, *row.shape))
    return backend.asarray(repeated)


def stack_rows(backend: Backend, rows: Sequence[Array]) -> Array:
    """Vectors (P,) as the rows of a new array."""
    return backend.concat([backend.reshape(row, (1, *row.shape)) for row in rows], 0)


def row_views(backend: Backend, stacked: Array) -> list[Array]:
    """The entries along the first axis, as views."""
    tasks, *shape = stacked.shape
    whole = (slice(None),) * len(shape)
    return [
        backend.reshape(backend.index(stacked, (slice(task, task + 1), *whole)), tuple(shape)) for task in range(tasks)
    ]


def split_rows(backend: Backend, stacked: Array) -> list[Array]:
    """The entries along the first axis, as new arrays."""
    return [backend.asarray(row) for row in row_views(backend, stacked)]
