"""The interface of objectives: losses, gradients and curvature of a batch of tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeVar

from aidotnet_py.autodiff.extend import Queue, Step
from aidotnet_py.backends import Array

__all__ = [
    "PATIENCE",
    "CurvatureKind",
    "CurvatureWork",
    "Evaluation",
    "GradientWork",
    "ProductWork",
    "TaskObjective",
]

C = TypeVar("C")

# Sizes of tasks that come once are not worth compiling for: a step of K inner steps runs its programs K times.
PATIENCE = 12

CurvatureKind = Literal["hessian", "gauss-newton"]


class Evaluation(NamedTuple):
    """Losses (tasks,) and gradients (tasks, P); valid until the next work on an objective of that role."""

    losses: Array
    gradients: Array


@dataclass(frozen=True)
class GradientWork:
    """Losses (tasks,) and gradients (tasks, P) at the points (tasks, P), as steps of a schedule.

    Attributes
    ----------
    points, losses, gradients : array
        Arrays that the steps read and write.
    step : callable
        Returns the evaluation for inner step k (0, 1, …), on the sets of that step.
    buffers : object
        The owner of the arrays, which lives as long as they are used; the same owner means the same arrays.
    queue : Queue
        The queue that runs the steps.
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
        Each step replaces them by the products.
    step : callable
        Returns the product for inner step k, on the sets of that step.
    """

    vectors: Array
    step: Callable[[int], Step]


@dataclass(frozen=True)
class CurvatureWork:
    """Gradients and products Hv at the points of a `GradientWork`.

    Attributes
    ----------
    gradients, vectors, products : array, shape (tasks, P)
        ``at_point`` writes gradients; ``product`` reads vectors and writes products.
    at_point, product : callable
        Return the steps for inner step k, on the sets of that step: the first runs once a point, then the second.
    """

    gradients: Array
    vectors: Array
    products: Array
    at_point: Callable[[int], Step]
    product: Callable[[int], Step]


class TaskObjective(Protocol):
    """The loss of one set (support or query) of each task, as a function of that task's parameters.

    Parameters are stacked: row t of an array (tasks, P) belongs to task t. Callers must not write to an array of
    points while they take products with the curvature there.
    """

    @property
    def tasks_at_once(self) -> int:
        """The number of tasks that work best together, at least 1."""
        ...

    @property
    def batches(self) -> Sequence[TaskObjective]:
        """The objectives of the set's batches; the objective itself if there is one batch."""
        ...

    def of_step(self, step: int) -> TaskObjective:
        """Return the objective of step number ``step`` (0, 1, …) of an inner loop: itself, or one of its batches."""
        ...

    def part(self, start: int, stop: int, lane: int) -> TaskObjective:
        """Return the objective of some of the tasks; lanes share no buffers, and may run at the same time."""
        ...

    def evaluate(self, points: Array) -> Evaluation:
        """Return losses and gradients at these parameters."""
        ...

    def gradient_work(self, like: Array) -> GradientWork:
        """Return evaluations as steps of a schedule, at points like these; valid until other work on the objective."""
        ...

    def product_work(self, kind: CurvatureKind, identity: float, weight: float) -> ProductWork:
        """Return products at the points of the last `gradient_work`, which replace their vectors."""
        ...

    def curvature_work(self, kind: CurvatureKind) -> CurvatureWork:
        """Return gradients and products at the points of the last `gradient_work`."""
        ...

    @property
    def queue(self) -> Queue:
        """The queue that runs the work; objectives with one queue can run together."""
        ...

    def companion(self, serves: Callable[[C], bool], make: Callable[[], C]) -> C:
        """Return an object that was made earlier for these buffers and that ``serves`` accepts, or make one."""
        ...

    def accuracies(self) -> list[float]:
        """Return the accuracy of each task at the parameters just evaluated; NaN if accuracy has no meaning.

        Raises
        ------
        InvalidOperationException
            If an objective of the same role was evaluated since.
        """
        ...

    def curvature(
        self, points: Array, kind: CurvatureKind, *, identity: float = 0.0, weight: float = 1.0
    ) -> tuple[Array, Callable[[Array], Array]]:
        """Return the gradients at these parameters, and v ↦ identity · v + weight · Hv for vectors (tasks, P).

        A product's array is valid until the next product. Products stay right after any other work on the objective.
        """
        ...
