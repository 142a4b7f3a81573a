"""The objective of a set that comes in several batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add

import numpy as np

from aidotnet_py.backends import Array, Backend
from aidotnet_py.meta_learning.objective.called import CalledObjective
from aidotnet_py.meta_learning.objective.interface import CurvatureKind, Evaluation, TaskObjective

__all__ = ["SuccessiveObjective"]


class SuccessiveObjective(CalledObjective):
    """The mean loss of n batches; step k of an inner loop uses batch k mod n alone."""

    def __init__(self, batches: Sequence[TaskObjective], backend: Backend) -> None:
        self.batches = batches
        self._backend = backend
        self._accuracies: list[float] = []

    @property
    def tasks_at_once(self) -> int:
        """The smallest number among the batches."""
        return min(batch.tasks_at_once for batch in self.batches)

    def of_step(self, step: int) -> TaskObjective:
        """Return the batch of an inner step."""
        return self.batches[step % len(self.batches)]

    def part(self, start: int, stop: int, lane: int) -> SuccessiveObjective:
        """See `TaskObjective`."""
        return SuccessiveObjective([batch.part(start, stop, lane) for batch in self.batches], self._backend)

    def evaluate(self, points: Array) -> Evaluation:
        """Return the batches' mean losses and gradients."""
        share = 1.0 / len(self.batches)
        terms: list[tuple[Array, Array]] = []
        accuracies: list[list[float]] = []
        for batch in self.batches:
            losses, gradients = batch.evaluate(points)
            terms.append((losses * share, gradients * share))
            accuracies.append(batch.accuracies())
        self._accuracies = [float(np.mean(of_task)) for of_task in zip(*accuracies, strict=True)]
        losses, gradients = (reduce(add, arrays) for arrays in zip(*terms, strict=True))
        return Evaluation(losses, gradients)

    def accuracies(self) -> list[float]:
        """Return the mean accuracy of each task over its batches, at the parameters last evaluated."""
        return self._accuracies

    def curvature(
        self, points: Array, kind: CurvatureKind, *, identity: float = 0.0, weight: float = 1.0
    ) -> tuple[Array, Callable[[Array], Array]]:
        """Return the mean gradients, and v ↦ identity · v + weight · H̄v, H̄ the mean of the curvatures."""
        share = 1.0 / len(self.batches)
        gradients: list[Array] = []
        products: list[Callable[[Array], Array]] = []
        for batch in self.batches:
            slopes, product = batch.curvature(points, kind, identity=identity * share, weight=weight * share)
            gradients.append(slopes * share)
            products.append(product)

        def product_of_mean(v: Array) -> Array:
            return reduce(add, [self._backend.asarray(product(v)) for product in products])

        return reduce(add, gradients), product_of_mean
