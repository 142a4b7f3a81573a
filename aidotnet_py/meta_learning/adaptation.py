"""The inner loop: K optimizer steps for every task of a batch at once."""

from __future__ import annotations

import copy
from collections.abc import Callable

from aidotnet_py.backends import Array, Backend
from aidotnet_py.optimizers import ElementwiseOptimizer, IGradientBasedOptimizer

__all__ = ["inner_steps", "repeat_rows", "stack_rows"]


def repeat_rows(backend: Backend, row: Array, count: int) -> Array:
    """A vector (P,) as ``count`` equal rows (count, P) of a new array."""
    repeated = backend.broadcast_to(backend.reshape(row, (1, *row.shape)), (count, *row.shape))
    return backend.asarray(repeated)


def stack_rows(backend: Backend, rows: list[Array]) -> Array:
    """Vectors (P,) as the rows of a new array."""
    return backend.concat([backend.reshape(row, (1, *row.shape)) for row in rows], 0)


def inner_steps(
    backend: Backend,
    start: Array,
    steps: int,
    gradient: Callable[[Array], Array],
    optimizer: IGradientBasedOptimizer,
) -> Array:
    """Points (tasks, P) after ``steps`` steps from ``start``, with an optimizer that has no past.

    ``gradient`` is asked for once a step, for all tasks. An elementwise optimizer steps all rows at once; any other
    is copied for each task, so that tasks cannot see each other.
    """
    if isinstance(optimizer, ElementwiseOptimizer):
        stacked = optimizer.fresh()
        points = start
        for _ in range(steps):
            points = stacked.UpdateParameters(points, gradient(points))
        return points
    own = [copy.deepcopy(optimizer) for _ in range(start.shape[0])]
    for one in own:
        one.Reset()
    points = start
    for _ in range(steps):
        pairs = zip(own, _rows(backend, points), _rows(backend, gradient(points)), strict=True)
        points = stack_rows(backend, [one.UpdateParameters(point, slope) for one, point, slope in pairs])
    return points


def _rows(backend: Backend, stacked: Array) -> list[Array]:
    shape = (stacked.shape[1],)
    return [
        backend.asarray(backend.reshape(backend.index(stacked, (slice(t, t + 1),)), shape))
        for t in range(stacked.shape[0])
    ]
