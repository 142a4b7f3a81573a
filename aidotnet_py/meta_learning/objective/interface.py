"""What an algorithm may ask of a batch of tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

from aidotnet_py.backends import Array
from aidotnet_py.meta_learning.objective.following import Following
from aidotnet_py.optimizers import ElementwiseOptimizer

__all__ = ["CurvatureKind", "Evaluation", "TaskObjective"]

CurvatureKind = Literal["hessian", "gauss-newton"]


class Evaluation(NamedTuple):
    """Losses (tasks,) and gradients (tasks, P); valid until an objective of that role is asked again."""

    losses: Array
    gradients: Array


class TaskObjective(Protocol):
    """The loss of one set (support or query) of each task, as a function of that task's parameters.

    Parameters are stacked: row t of an array (tasks, P) belongs to task t. Nobody writes to an array of points while
    products with the curvature there are asked for.
    """

    @property
    def tasks_at_once(self) -> int:
        """How many tasks are best worked on together, at least 1."""
        ...

    @property
    def batches(self) -> Sequence[TaskObjective]:
        """The objectives of the batches that the set comes in; itself alone where it is one."""
        ...

    def of_step(self, step: int) -> TaskObjective:
        """What step number ``step`` (0, 1, …) of an inner loop looks at: the same, or the batch whose turn it is."""
        ...

    def part(self, start: int, stop: int, lane: int) -> TaskObjective:
        """The objective of some of the tasks; those of different lanes share no buffers, and may work side by side."""
        ...

    def at_hand(self, points: Array) -> Array:
        """A copy of the points where they are evaluated without being copied again; it may be written to.

        It is valid until the objective is asked about other points.
        """
        ...

    def evaluate(self, points: Array) -> Evaluation:
        """Losses and gradients at these parameters."""
        ...

    def descend(
        self, points: Array, start: Array, optimizer: ElementwiseOptimizer, following: Following, steps: int
    ) -> bool:
        """Take so many steps of an optimizer with no past, from points that are `at_hand`, over which they are written.

        What the steps follow may depend on where they started. False, and nothing done, where it cannot take them all
        by itself.
        """
        ...

    def accuracies(self) -> list[float]:
        """Of each task, at the parameters just evaluated; NaN where accuracy has no meaning.

        Raises
        ------
        InvalidOperationException
            When an objective of the same role was evaluated since.
        """
        ...

    def curvature(
        self, points: Array, kind: CurvatureKind, *, identity: float = 0.0, weight: float = 1.0
    ) -> tuple[Array, Callable[[Array], Array]]:
        """The gradients at these parameters, and v ↦ identity · v + weight · Hv there for stacked vectors (tasks, P).

        A product's array is valid until the next product. Products stay right whatever is asked in between.
        """
        ...

    def product(
        self, points: Array, vectors: Array, kind: CurvatureKind, *, identity: float = 0.0, weight: float = 1.0
    ) -> Array:
        """One product: identity · v + weight · Hv at these parameters, for one stacked vector v (tasks, P).

        For points that are not asked about again: nothing is kept for a second product, which saves the memory for it.
        The array is valid until the next such product; it may be the next vector.
        """
        ...
