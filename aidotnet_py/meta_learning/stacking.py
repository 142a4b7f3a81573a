"""Vectors of many tasks as the rows of one array (tasks, P), and back."""

from __future__ import annotations

from collections.abc import Sequence

from aidotnet_py.backends import Array, Backend

__all__ = ["repeat_rows", "split_rows", "stack_rows"]


def repeat_rows(backend: Backend, row: Array, count: int) -> Array:
    """A vector (P,) as ``count`` equal rows of a new array (count, P)."""
    repeated = backend.broadcast_to(backend.reshape(row, (1, *row.shape)), (count, *row.shape))
    return backend.asarray(repeated)


def stack_rows(backend: Backend, rows: Sequence[Array]) -> Array:
    """Vectors (P,) as the rows of a new array."""
    return backend.concat([backend.reshape(row, (1, *row.shape)) for row in rows], 0)


def split_rows(backend: Backend, stacked: Array) -> list[Array]:
    """The rows of an array, each a new vector (P,)."""
    shape = (stacked.shape[1],)
    return [
        backend.asarray(backend.reshape(backend.index(stacked, (slice(t, t + 1),)), shape))
        for t in range(stacked.shape[0])
    ]
