"""Several batches of a set: the steps look at one after another, everything else at their mean."""

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
    """The mean of the losses of several batches, of which step k of an inner loop sees number k mod n alone."""

    def __init__(self, batches: Sequence[TaskObjective], backend: Backend) -> None:
        self.batches = batches
        self._backend = backend
        self._accuracies: list[float] = []

    @property
    def tasks_at_once(self) -> int:
        """As many as the batch of the largest examples allows."""
        return min(batch.tasks_at_once for batch in self.batches)

    def of_step(self, step: int) -> TaskObjective:
        """The batch whose turn it is."""
        return self.batches[step % len(self.batches)]

    def part(self, start: int, stop: int, lane: int) -> SuccessiveObjective:
        """The objective of some of the tasks."""
        return SuccessiveObjective([batch.part(start, stop, lane) for batch in self.batches], self._backend)

    def evaluate(self, points: Array) -> Evaluation:
        """Mean losses and gradients."""
        share = 1.0 / len(self.batches)
        found: list[tuple[Array, Array]] = []
        accuracies: list[list[float]] = []
        for batch in self.batches:
            losses, gradients = batch.evaluate(points)
            found.append((losses * share, gradients * share))
            accuracies.append(batch.accuracies())
        self._accuracies = [float(np.mean(of_task)) for of_task in zip(*accuracies, strict=True)]
        losses, gradients = (reduce(add, arrays) for arrays in zip(*found, strict=True))
        return Evaluation(losses, gradients)

    def accuracies(self) -> list[float]:
        """Of each task, the mean over its batches, at the parameters last evaluated."""
        return self._accuracies

    def curvature(
        self, points: Array, kind: CurvatureKind, *, identity: float = 0.0, weight: float = 1.0
    ) -> tuple[Array, Callable[[Array], Array]]:
        """The mean gradients at these parameters, and v ↦ identity · v + weight · H̄v, H̄ the mean of the curvatures."""
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
