"""The inner loop: K optimizer steps for every task of a batch at once."""

from __future__ import annotations

import copy
from collections.abc import Callable

from aidotnet_py.backends import Array, Backend
from aidotnet_py.meta_learning.stacking import split_rows, stack_rows
from aidotnet_py.optimizers import ElementwiseOptimizer, IGradientBasedOptimizer

__all__ = ["inner_steps"]


def inner_steps(
    backend: Backend,
    points: Array,
    steps: int,
    gradient: Callable[[Array], Array],
    optimizer: IGradientBasedOptimizer,
) -> None:
    """Take ``steps`` steps from ``points`` (tasks, P), in place, with an optimizer that has no past.

    ``gradient`` is asked for once a step, for all tasks, and what it gives is written over. An elementwise optimizer
    steps all rows at once; any other is copied for each task, so that tasks cannot see each other.
    """
    if isinstance(optimizer, ElementwiseOptimizer):
        stacked = optimizer.fresh()
        for _ in range(steps):
            stacked.update_in_place(points, gradient(points))
        return
    own = [copy.deepcopy(optimizer) for _ in range(points.shape[0])]
    for one in own:
        one.Reset()
    for _ in range(steps):
        pairs = zip(own, split_rows(backend, points), split_rows(backend, gradient(points)), strict=True)
        moved = [one.UpdateParameters(point, slope) for one, point, slope in pairs]
        backend.copyto(points, stack_rows(backend, moved))
