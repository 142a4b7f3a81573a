"""The inner loop: optimizer steps on the support sets of some tasks, all at once and in place."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from aidotnet_py.backends import Array
from aidotnet_py.meta_learning.objective import TaskObjective
from aidotnet_py.meta_learning.objective.chunk import Chunk
from aidotnet_py.meta_learning.objective.finiteness import row_norms
from aidotnet_py.meta_learning.objective.following import Following
from aidotnet_py.meta_learning.objective.stacking import split_rows, stack_rows
from aidotnet_py.optimizers import ElementwiseOptimizer, IGradientBasedOptimizer

__all__ = ["Follow", "InnerLoop", "InnerState"]

# The gradients to follow at some points, from the start and the gradients of the support losses there.
Follow: TypeAlias = Callable[[Array, Array, Array], Array]


@dataclass(frozen=True)
class InnerState:
    """Where an inner loop stood after some of its steps."""

    taken: int
    points: Array
    memory: Mapping[str, Any]


class InnerLoop:
    """Steps of an optimizer with no past, from θ, for all tasks of a chunk.

    An elementwise optimizer steps all rows at once; any other is copied for each task, so that tasks cannot see each
    other.

    Parameters
    ----------
    chunk : Chunk
        With its support sets.
    start : array, shape (tasks, P)
        θ, once a task.
    optimizer : IGradientBasedOptimizer
        Not changed.
    follow : callable
        The gradients that the steps follow; what it returns is written over.
    tolerance : float, optional
        A task whose gradient to follow has no greater norm stays where it is from then on.

    Attributes
    ----------
    chunk, start
        As given.
    points : array, shape (tasks, P)
        φ after the steps so far, where the support objective works.
    taken : int
        How many steps that were.
    moving : NDArray, shape (tasks,)
        Which tasks still move.
    """

    def __init__(
        self,
        chunk: Chunk,
        start: Array,
        optimizer: IGradientBasedOptimizer,
        follow: Follow,
        tolerance: float | None = None,
    ) -> None:
        self.chunk = chunk
        self.start = start
        self.points = chunk.support.at_hand(start)
        self.taken = 0
        self.moving = np.ones(len(chunk.tasks), dtype=np.bool_)
        self._ended = False
        self._tolerance = tolerance
        self._follow = follow
        self._stacked: ElementwiseOptimizer | None = None
        self._own: list[IGradientBasedOptimizer] = []
        if isinstance(optimizer, ElementwiseOptimizer):
            self._stacked = optimizer.fresh()
        else:
            self._own = [copy.deepcopy(optimizer) for _ in chunk.tasks]
            for one in self._own:
                one.Reset()

    @property
    def objective(self) -> TaskObjective:
        """The support losses that the next step looks at."""
        return self.chunk.support.of_step(self.taken)

    def run(self, steps: int, watch: Callable[[Array], None] | None = None) -> None:
        """Step until there were so many, or no task moves any more; ``watch`` sees the losses before each step.

        No other steps may follow: what the optimizer remembers may be with the objective.
        """
        if watch is None and self._tolerance is None and self._descended(steps - self.taken):
            self.taken = steps
            self._ended = True
        while self.taken < steps and self.moving.any():
            losses = self.step()
            if watch is not None:
                watch(losses)

    def _descended(self, steps: int) -> bool:
        """Whether the objective took all steps by itself, without Python in between."""
        if self.taken or self._stacked is None or not isinstance(self._follow, Following):
            return False
        return self.chunk.support.descend(self.points, self.start, self._stacked, self._follow, steps)

    def step(self) -> Array:
        """Take one step; returns the support losses before it, valid until the objective is asked again."""
        assert not self._ended
        losses, gradients = self.objective.evaluate(self.points)
        followed = self._follow(self.points, self.start, gradients)
        if self._tolerance is None:
            self._move(followed)
        else:
            self._move_unfinished(followed, self._tolerance)
        self.taken += 1
        return losses

    def _move_unfinished(self, gradients: Array, tolerance: float) -> None:
        backend = self.chunk.backend
        norms = row_norms(backend, gradients)
        # "Not smaller", so that what is not finite goes on and is told of.
        self.moving &= ~(norms <= tolerance)
        if not self.moving.any():
            return
        before = None if self.moving.all() else backend.asarray(self.points)
        self._move(gradients)
        if before is not None:
            mask = backend.broadcast_to(backend.asarray(self.moving[:, None]), tuple(before.shape))
            backend.copyto(self.points, backend.elementwise("where")(mask, self.points, before))

    def _move(self, gradients: Array) -> None:
        if self._stacked is not None:
            self._stacked.update_in_place(self.points, gradients)
            return
        backend = self.chunk.backend
        rows = zip(self._own, split_rows(backend, self.points), split_rows(backend, gradients), strict=True)
        backend.copyto(self.points, stack_rows(backend, [one.UpdateParameters(p, g) for one, p, g in rows]))

    def state(self) -> InnerState:
        """A copy of all that the next steps depend on; of an elementwise optimizer's loop."""
        assert self._stacked is not None
        return InnerState(self.taken, self.chunk.backend.asarray(self.points), self._stacked.GetState())

    def restore(self, state: InnerState) -> None:
        """Go back to a state."""
        assert self._stacked is not None
        self.chunk.backend.copyto(self.points, state.points)
        self._stacked.SetState(state.memory)
        self.taken = state.taken
