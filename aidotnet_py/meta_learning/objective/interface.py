"""What an algorithm may ask of a batch of tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeVar

from aidotnet_py.autodiff.extend import Queue, Step
from aidotnet_py.backends import Array

__all__ = [
    "RUNS_BEFORE_COMPILING",
    "CurvatureKind",
    "CurvatureWork",
    "Evaluation",
    "GradientWork",
    "ProductWork",
    "TaskObjective",
]

C = TypeVar("C")

# Sizes of tasks that come once are not worth compiling for: a step of K inner steps runs its programs K times.
RUNS_BEFORE_COMPILING = 16

CurvatureKind = Literal["hessian", "gauss-newton"]


class Evaluation(NamedTuple):
    """Losses (tasks,) and gradients (tasks, P); valid until an objective of that role is asked again."""

    losses: Array
    gradients: Array


@dataclass(frozen=True)
class GradientWork:
    """Losses (tasks,) and gradients (tasks, P) at the points (tasks, P), as steps of a schedule.

    Attributes
    ----------
    points, losses, gradients : array
        What the steps read and write.
    step : callable
        Gives the step that evaluates the sets which inner step number k (0, 1, …) looks at.
    buffers : object
        The owner of the arrays: works of one owner have the same.
    queue : Queue
        What the steps go through.
    """

    points: Array
    losses: Array
    gradients: Array
    step: Callable[[int], Step]
    buffers: object
    queue: Queue


@dataclass(frozen=True)
class ProductWork:
    """v ↦ identity · v + weight · Hv at the points of a `GradientWork`, over the vectors (tasks, P).

    Attributes
    ----------
    vectors : array, shape (tasks, P)
        What each step reads and writes.
    step : callable
        Gives the step for the sets which inner step number k looks at.
    """

    vectors: Array
    step: Callable[[int], Step]


@dataclass(frozen=True)
class CurvatureWork:
    """Gradients and products Hv at the points of a `GradientWork`.

    Attributes
    ----------
    gradients, vectors, products : array, shape (tasks, P)
        What ``at_point`` writes, and what ``product`` reads and writes.
    at_point, product : callable
        Give the steps for the sets which inner step number k looks at: the first once a point, then the second.
    """

    gradients: Array
    vectors: Array
    products: Array
    at_point: Callable[[int], Step]
    product: Callable[[int], Step]


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

    def evaluate(self, points: Array) -> Evaluation:
        """Losses and gradients at these parameters."""
        ...

    def gradient_work(self, like: Array) -> GradientWork:
        """Evaluations as steps of a schedule, for points like these; valid until the objective is asked otherwise."""
        ...

    def product_work(self, kind: CurvatureKind, identity: float, weight: float) -> ProductWork:
        """Return products at the points of the last `gradient_work`, in the place of their vectors."""
        ...

    def curvature_work(self, kind: CurvatureKind) -> CurvatureWork:
        """Return gradients and products at the points of the last `gradient_work`."""
        ...

    @property
    def queue(self) -> Queue:
        """What the work goes through; objectives that share one can work together."""
        ...

    def companion(self, serves: Callable[[C], bool], make: Callable[[], C]) -> C:
        """Return what was made for these buffers before and serves again, or make it."""
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
