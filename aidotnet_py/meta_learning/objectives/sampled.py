"""Objectives of models that the engine cannot trace: gradients from the model itself, or from its losses alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from aidotnet_py.backends import Array, Backend, backend_of, get_backend
from aidotnet_py.losses import ILossFunction
from aidotnet_py.meta_learning.objectives.interface import CurvatureKind, Evaluation
from aidotnet_py.models import IFullModel, IGradientComputable

__all__ = ["ComputedObjective", "PerturbedObjective"]


class _TaskByTask(ABC):
    """Tasks one after another through the model's own methods; curvature by central differences of gradients."""

    def __init__(
        self,
        model: IFullModel[Any, Any, Any],
        loss: ILossFunction[Any],
        inputs: Sequence[Array],
        targets: Sequence[Array],
    ) -> None:
        self._model = model
        self._loss = loss
        self._sets = list(zip(inputs, targets, strict=True))
        self._backend: Backend = backend_of(model.GetParameters()) or get_backend("numpy")
        self._accuracies: list[float] = []

    @abstractmethod
    def _gradient(self, point: Array, x: Array, y: Array) -> Array:
        """The gradient (P,) of one task's loss."""

    def _loss_and_accuracy(self, point: Array, x: Array, y: Array) -> tuple[float, float]:
        predictions = self._model.WithParameters(point).Predict(x)
        return float(self._loss.CalculateLoss(predictions, y)), self._loss.accuracy(predictions, y)

    def evaluate(self, points: Array) -> Evaluation:
        """Losses and gradients at these parameters."""
        rows = _rows(self._backend, points)
        found = [self._loss_and_accuracy(p, x, y) for p, (x, y) in zip(rows, self._sets, strict=True)]
        self._accuracies = [accuracy for _, accuracy in found]
        losses = self._backend.asarray(np.array([loss for loss, _ in found]), self._backend.dtype_of(points))
        return Evaluation(losses, self._gradients(points))

    def _gradients(self, points: Array) -> Array:
        rows = _rows(self._backend, points)
        return _stack(self._backend, [self._gradient(p, x, y) for p, (x, y) in zip(rows, self._sets, strict=True)])

    def accuracies(self) -> list[float]:
        """Of each task, at the parameters last evaluated."""
        return self._accuracies

    def curvature(self, points: Array, kind: CurvatureKind) -> tuple[Array, Callable[[Array], Array]]:
        """The gradients at these parameters, and v ↦ (∇L(φ + εv) − ∇L(φ − εv)) / 2ε.

        ε‖v‖ = ∛eps (1 + ‖φ‖), which balances the two errors of a central difference: the third derivative's, of order
        ε², and rounding's, of order eps/ε. For a model without traced structure both kinds are this.
        """
        step = float(np.finfo(self._backend.dtype_of(points)).eps) ** (1 / 3)

        def product(v: Array) -> Array:
            lengths = self._norms(v)
            scale = step * (1.0 + self._norms(points)) / np.where(lengths > 0, lengths, 1.0)
            size = self._backend.asarray(scale[:, None], self._backend.dtype_of(points))
            forward, backward = points + size * v, points - size * v
            return (self._gradients(forward) - self._gradients(backward)) / (2.0 * size)

        return self._gradients(points), product

    def _norms(self, stacked: Array) -> Any:
        return np.sqrt(self._backend.to_numpy(self._backend.vecdot(stacked, stacked)))


class ComputedObjective(_TaskByTask):
    """For an `IGradientComputable` model: its own gradients."""

    def _gradient(self, point: Array, x: Array, y: Array) -> Array:
        model = cast("IGradientComputable[Any, Any, Any]", self._model.WithParameters(point))
        return model.ComputeGradients(x, y, self._loss)


class PerturbedObjective(_TaskByTask):
    """For any other model: gradients by simultaneous perturbation (Spall 1992).

    g ≈ (L(φ + cΔ) − L(φ − cΔ)) / 2c · Δ with random signs Δ: two losses for a gradient whose expectation is right to
    order c².
    """

    def __init__(
        self,
        model: IFullModel[Any, Any, Any],
        loss: ILossFunction[Any],
        inputs: Sequence[Array],
        targets: Sequence[Array],
        generator: np.random.Generator,
    ) -> None:
        super().__init__(model, loss, inputs, targets)
        self._generator = generator
        self._fixed_signs: Array | None = None

    def _gradient(self, point: Array, x: Array, y: Array) -> Array:
        dtype = self._backend.dtype_of(point)
        signs = self._fixed_signs if self._fixed_signs is not None else self._draw(point)
        size = float(np.finfo(dtype).eps) ** (1 / 3)
        above, _ = self._loss_and_accuracy(point + size * signs, x, y)
        below, _ = self._loss_and_accuracy(point - size * signs, x, y)
        return ((above - below) / (2.0 * size)) * signs

    def _draw(self, like: Array) -> Array:
        signs = self._generator.integers(0, 2, size=tuple(like.shape)) * 2 - 1
        return self._backend.asarray(signs, self._backend.dtype_of(like))

    def curvature(self, points: Array, kind: CurvatureKind) -> tuple[Array, Callable[[Array], Array]]:
        """As for computed gradients, with one draw of signs for the whole solve: the operator must not change in it."""
        signs = self._draw(_rows(self._backend, points)[0])
        gradients, differences = super().curvature(points, kind)

        def product(v: Array) -> Array:
            self._fixed_signs = signs
            try:
                return differences(v)
            finally:
                self._fixed_signs = None

        return gradients, product


def _rows(backend: Backend, stacked: Array) -> list[Array]:
    shape = (stacked.shape[1],)
    return [
        backend.asarray(backend.reshape(backend.index(stacked, (slice(t, t + 1),)), shape))
        for t in range(stacked.shape[0])
    ]


def _stack(backend: Backend, rows: Sequence[Array]) -> Array:
    return backend.concat([backend.reshape(row, (1, *row.shape)) for row in rows], 0)
