"""Gradients and products of objectives without a Program, as Python calls in a schedule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

from aidotnet_py.autodiff.extend import Call, Queue
from aidotnet_py.backends import Array, Backend
from aidotnet_py.meta_learning.objective.interface import (
    CurvatureKind,
    CurvatureWork,
    GradientWork,
    ProductWork,
    TaskObjective,
)

__all__ = ["CalledObjective"]

C = TypeVar("C")


class CalledObjective(ABC):
    """An objective whose work in a schedule calls its methods `of_step`, `evaluate` and `curvature`."""

    _backend: Backend
    _points: Array
    _queue: Queue | None = None

    @abstractmethod
    def of_step(self, step: int) -> TaskObjective:
        """Return the objective of an inner step."""

    @property
    def queue(self) -> Queue:
        """A queue of its own, since Python calls cannot wait for other work."""
        if self._queue is None:
            self._queue = Queue(self._backend)
        return self._queue

    def gradient_work(self, like: Array) -> GradientWork:
        """Return evaluations as Python calls."""
        backend = self._backend
        self._points = points = backend.asarray(like)
        dtype, gradients = backend.dtype_of(points), self._empty()
        losses = backend.empty((points.shape[0],), dtype)

        def evaluate(step: int) -> None:
            evaluation = self.of_step(step).evaluate(points)
            backend.copyto(losses, evaluation.losses)
            backend.copyto(gradients, evaluation.gradients)

        return GradientWork(points, losses, gradients, lambda step: Call(lambda: evaluate(step)), evaluate, self.queue)

    def product_work(self, kind: CurvatureKind, identity: float, weight: float) -> ProductWork:
        """Return products as Python calls."""
        vectors = self._empty()

        def multiply(step: int) -> None:
            objective = self.of_step(step)
            product = objective.curvature(self._points, kind, identity=identity, weight=weight)[1]
            self._backend.copyto(vectors, product(vectors))

        return ProductWork(vectors, lambda step: Call(lambda: multiply(step)))

    def curvature_work(self, kind: CurvatureKind) -> CurvatureWork:
        """Return gradients and products as Python calls."""
        gradients, vectors, products = self._empty(), self._empty(), self._empty()
        operator: list[Callable[[Array], Array]] = []

        def at_point(step: int) -> None:
            slopes, product = self.of_step(step).curvature(self._points, kind)
            self._backend.copyto(gradients, slopes)
            operator[:] = [product]

        def multiply() -> None:
            self._backend.copyto(products, operator[0](vectors))

        return CurvatureWork(
            gradients, vectors, products, lambda step: Call(lambda: at_point(step)), lambda _: Call(multiply)
        )

    def companion(self, serves: Callable[[C], bool], make: Callable[[], C]) -> C:
        """Make a new companion, since the buffers belong to one call."""
        return make()

    def _empty(self) -> Array:
        return self._backend.empty(tuple(self._points.shape), self._backend.dtype_of(self._points))
