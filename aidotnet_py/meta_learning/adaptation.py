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
    start: Array,
    steps: int,
    gradient: Callable[[Array], Array],
    optimizer: IGradientBasedOptimizer,
) -> Array:
    """Points (tasks, P) after ``steps`` steps from ``start``, with an optimizer that has no past.

    ``gradient`` is asked for once a step, for all tasks. An elementwise optimizer steps all rows at once; any other
    is copied for each task, so that tasks cannot see each other.
    """
    points = start
    if isinstance(optimizer, ElementwiseOptimizer):
        stacked = optimizer.fresh()
        for _ in range(steps):
            points = stacked.UpdateParameters(points, gradient(points))
        return points
    own = [copy.deepcopy(optimizer) for _ in range(start.shape[0])]
    for one in own:
        one.Reset()
    for _ in range(steps):
        pairs = zip(own, split_rows(backend, points), split_rows(backend, gradient(points)), strict=True)
        points = stack_rows(backend, [one.UpdateParameters(point, slope) for one, point, slope in pairs])
    return points
