"""Inner steps, the query gradient and a solve's first iterations as one piece of work that a device replays.

Nothing in it waits for the host, and all of it is on buffers that stay where they are: a device that can capture work
(a CUDA graph) does the whole of it for one call from Python.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends import Array, Backend
from aidotnet_py.exceptions import InvalidOperationException
from aidotnet_py.meta_learning.objective.descent import numbers_of
from aidotnet_py.meta_learning.objective.following import Following
from aidotnet_py.meta_learning.objective.interface import CurvatureKind, TaskObjective
from aidotnet_py.meta_learning.objective.traced import BatchedPrograms, TracedObjective
from aidotnet_py.optimizers import ElementwiseOptimizer
from aidotnet_py.solvers.bounds import Bounds
from aidotnet_py.solvers.iteration import BufferedOperator, Iteration
from aidotnet_py.solvers.progress import threshold_of

__all__ = ["BegunStep", "StepSettings", "step_in_one_go"]

# Captured steps of a batch's shapes; those of other settings make room.
_MOST_CAPTURED = 4


@dataclass(frozen=True)
class StepSettings:
    """What a step is of.

    Attributes
    ----------
    optimizer, following, steps
        The inner steps.
    kind, identity, weight
        The operator identity · v + weight · Hv of the solve.
    iterations, atol
        Of conjugate gradient, from zero.
    """

    optimizer: ElementwiseOptimizer
    following: Following
    steps: int
    kind: CurvatureKind
    identity: float
    weight: float
    iterations: int
    atol: float


@dataclass(frozen=True)
class BegunStep:
    """Where the work has come to; arrays are valid until the objectives are asked again.

    Attributes
    ----------
    points : array, shape (tasks, P)
        φ.
    losses, gradients : array, shape (tasks,) and (tasks, P)
        Of the query sets at φ.
    slopes : array, shape (tasks, P)
        Gradients of the support sets at φ.
    operator, records : BufferedOperator, NDArray
        For `finish_in_place`, with the gradients of the query sets on the right-hand side.
    """

    points: Array
    losses: Array
    gradients: Array
    slopes: Array
    operator: BufferedOperator
    records: NDArray[Any]


def step_in_one_go(
    support: TaskObjective, query: TaskObjective, start: Array, settings: StepSettings
) -> BegunStep | None:
    """Run a step from θ, start, (tasks, P); None, and nothing done, where it cannot be one piece of work."""
    if not isinstance(support, TracedObjective) or not isinstance(query, TracedObjective):
        return None
    can = settings.optimizer.has_formula and settings.iterations <= Iteration.MOST
    if support.backend.capturing is None or not can:
        return None
    programs = support.bound()
    step = programs.whole_step
    if not isinstance(step, _WholeStep) or step.query is not query.bound():
        step = programs.whole_step = _WholeStep(query.bound())
    return step.run(support, query, start, settings)


class _WholeStep:
    """The captured steps of some programs of support sets, and of these programs of query sets."""

    def __init__(self, query: BatchedPrograms) -> None:
        self.query = query
        self._captured: dict[Hashable, Callable[[], None] | None] = {}

    def run(self, support: TracedObjective, query: TracedObjective, start: Array, settings: StepSettings) -> BegunStep:
        backend, programs, others = support.backend, support.bound(), query.bound()
        optimizer, steps = settings.optimizer, settings.steps
        descent = programs.descent(optimizer, settings.following)
        coefficients = {"identity": settings.identity, "weight": settings.weight}
        operator = support.operator(programs.points, settings.kind, **coefficients)
        at_point, iteration = operator.prepare, operator.iteration

        def work() -> None:
            descent.take(optimizer, steps)
            backend.copyto(others.points, programs.points)
            query.run()
            at_point.run()
            backend.copyto(iteration.r, others.gradients)
            iteration.begin()
            iteration.run(settings.iterations)

        descent.load(start, settings.following)
        at_point.load()
        # With an rtol of 0, right-hand sides do not matter.
        norms: NDArray[Any] = np.zeros(int(start.shape[0]), backend.dtype_of(start))
        bounds, _ = Bounds(0.0, settings.atol).of(norms, None)
        backend.copyto(iteration.threshold, backend.asarray(threshold_of(bounds)))
        # All that the work does not read from buffers.
        key = (descent, repr(numbers_of(optimizer, steps)), settings.kind, settings.iterations)
        self._do(key, work, backend)
        query.evaluated()
        at_point.done()
        records = backend.to_numpy(iteration.latest(settings.iterations))
        return BegunStep(
            programs.points, others.losses, others.gradients, programs.gradients, operator, np.array(records)
        )

    def _do(self, key: Hashable, work: Callable[[], None], backend: Backend) -> None:
        replay = self._captured.get(key)
        if replay is not None:
            replay()
            return
        work()
        if key not in self._captured:
            while len(self._captured) >= _MOST_CAPTURED:
                self._captured.pop(next(iter(self._captured)))
            try:
                self._captured[key] = backend.capture(work)
            except InvalidOperationException:
                self._captured[key] = None
