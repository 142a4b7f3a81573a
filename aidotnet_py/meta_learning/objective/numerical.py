"""Objectives of models that the engine cannot trace: gradients from the model, or estimated from losses."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends import Array, Backend, described
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.locks import Lock
from aidotnet_py.losses import ILossFunction
from aidotnet_py.losses.interface import checked_accuracy
from aidotnet_py.meta_learning.contract.protocols import with_parameters
from aidotnet_py.meta_learning.objective.called import CalledObjective
from aidotnet_py.meta_learning.objective.finiteness import host_norms
from aidotnet_py.meta_learning.objective.interface import CurvatureKind, Evaluation, TaskObjective
from aidotnet_py.meta_learning.objective.stacking import split_rows, stack_rows
from aidotnet_py.models import IFullModel

__all__ = ["ComputedObjective", "PerturbedObjective"]

Product = Callable[[Array], Array]
Host = NDArray[np.float64]

# Directions of a perturbed gradient; the gradient of a model with no more parameters has no noise.
_DIRECTIONS = 16


class _TaskByTask(CalledObjective):
    """An objective that goes task by task through the model's own methods.

    Concurrent calls use the model one at a time, since its copies may share state.
    """

    def __init__(
        self,
        model: IFullModel[Any, Any, Any],
        loss: ILossFunction[Any],
        backend: Backend,
        inputs: Sequence[Array],
        targets: Sequence[Array],
        asking: Lock,
    ) -> None:
        self._asking = asking
        self._model = model
        self._loss = loss
        self._backend = backend
        self._sets = list(zip(inputs, targets, strict=True))
        self._accuracies: list[float] = []

    @abstractmethod
    def _gradients(self, points: Array) -> Array:
        """Return the gradients (tasks, P) of the tasks' losses."""

    @abstractmethod
    def _hessian(self, points: Array) -> tuple[Array, Product]:
        """Return the gradients at these parameters, and v ↦ Hv there."""

    def curvature(
        self, points: Array, kind: CurvatureKind, *, identity: float = 0.0, weight: float = 1.0
    ) -> tuple[Array, Product]:
        """Return the gradients at these parameters, and v ↦ identity · v + weight · Hv there.

        Without a traced model, both kinds of curvature are the Hessian.
        """
        gradients, product = self._hessian(points)
        return gradients, lambda v: v * identity + weight * product(v)

    @property
    def tasks_at_once(self) -> int:
        """All tasks, since they run one by one anyway, with random numbers in their order."""
        return len(self._sets)

    @property
    def batches(self) -> list[TaskObjective]:
        """The objective itself."""
        return [self]

    def of_step(self, step: int) -> Self:
        """Return the objective itself."""
        return self

    def part(self, start: int, stop: int, lane: int) -> Self:
        """Return the objective of some of the tasks, which an inner solver of one vector asks for one by one."""
        part = copy.copy(self)
        part._sets, part._accuracies = self._sets[start:stop], []
        return part

    def evaluate(self, points: Array) -> Evaluation:
        """See `TaskObjective`."""
        losses: list[float] = []
        self._accuracies = []
        for point, (x, y) in zip(split_rows(self._backend, points), self._sets, strict=True):
            with self._asking:
                predictions = with_parameters(self._model, point).Predict(x)
                losses.append(float(self._loss.CalculateLoss(predictions, y)))
                self._accuracies.append(checked_accuracy(self._loss, predictions, y))
        return Evaluation(self._like(points, np.array(losses)), self._gradients(points))

    def accuracies(self) -> list[float]:
        """Return the accuracy of each task at the parameters last evaluated."""
        return self._accuracies

    def _step_lengths(self, points: Array, exponent: float) -> Host:
        """Return the length of a difference step for each task: a power of eps, times 1 + ‖φ‖."""
        eps = float(np.finfo(self._backend.dtype_of(points)).eps)
        lengths: Host = eps**exponent * (1.0 + host_norms(self._host(points)))
        return lengths

    def _host(self, array: Array) -> Host:
        values: Host = self._backend.to_numpy(array).astype(np.float64)
        return values

    def _like(self, array: Array, values: Host) -> Array:
        return self._backend.asarray(values, self._backend.dtype_of(array))


class ComputedObjective(_TaskByTask):
    """The objective of an `IGradientComputable` model, with the model's own gradients."""

    def _gradients(self, points: Array) -> Array:
        rows: list[Array] = []
        for point, (x, y) in zip(split_rows(self._backend, points), self._sets, strict=True):
            with self._asking:
                gradient = with_parameters(self._model, point).ComputeGradients(x, y, self._loss)
                rows.append(self._copy(gradient, point))
        return stack_rows(self._backend, rows)

    def _copy(self, gradient: Array, point: Array) -> Array:
        """Check and copy a gradient, since the model may return the next one in the same array."""
        came, wanted = described(gradient), described(point)
        if came != wanted:
            name = type(self._model).__name__
            raise ArgumentException(f"the result of ComputeGradients of {name} must be {wanted}, got {came}")
        return self._backend.asarray(gradient)

    def _hessian(self, points: Array) -> tuple[Array, Product]:
        """Return the gradients at these parameters, and v ↦ (∇L(φ + εv) − ∇L(φ − εv)) / 2ε.

        ε‖v‖ = ∛eps (1 + ‖φ‖) balances the two errors of a central difference: truncation, of order ε², and rounding,
        of order eps/ε.
        """
        lengths = self._step_lengths(points, 1 / 3)

        def product(v: Array) -> Array:
            along = self._host(v)
            steps = (lengths / _or_one(host_norms(along)))[:, None]
            # In float64: the precision of v may hold neither ε nor 1/ε.
            move = self._like(v, steps * along)
            ahead, behind = (self._host(self._gradients(p)) for p in (points + move, points - move))
            return self._like(v, (ahead - behind) / (2.0 * steps))

        return self._gradients(points), product


class PerturbedObjective(_TaskByTask):
    """The objective of any other model, with gradients by simultaneous perturbation (Spall 1992).

    g ≈ (P/M) Σ (L(φ + cq) − L(φ − cq)) / 2c · q, over M = min(P, 16) random orthonormal directions q. The expectation
    is right to order c². The estimate is the gradient itself if M = P; otherwise its squared error is about
    (P/M − 1)‖g‖².
    """

    def __init__(
        self,
        model: IFullModel[Any, Any, Any],
        loss: ILossFunction[Any],
        backend: Backend,
        inputs: Sequence[Array],
        targets: Sequence[Array],
        asking: Lock,
        generator: np.random.Generator,
    ) -> None:
        super().__init__(model, loss, backend, inputs, targets, asking)
        self._generator = generator

    def _gradients(self, points: Array) -> Array:
        directions = self._draw(points)
        slopes = self._slopes(points, directions, self._step_lengths(points, 1 / 3))
        _, count, parameters = directions.shape
        return self._like(points, _combine(slopes, directions) * (parameters / count))

    def _hessian(self, points: Array) -> tuple[Array, Product]:
        """Return the gradients at these parameters, and v ↦ QᵀQ H QᵀQ v, Q one draw of directions for all products.

        A solve needs an operator that is symmetric, and positive semidefinite if H is. Differences of noisy gradients
        are neither; the projection of H on Q from both sides is both. Second differences of losses have errors of
        order ε² and eps/ε², which ε = ∜eps (1 + ‖φ‖) balances.
        """
        directions = self._draw(points)
        lengths = self._step_lengths(points, 1 / 4)

        def product(v: Array) -> Array:
            along = _combine(np.einsum("tmp,tp->tm", directions, self._host(v)), directions)
            steps = (lengths / _or_one(host_norms(along)))[:, None]
            move = self._like(v, steps * along)
            ahead, behind = (self._slopes(p, directions, lengths) for p in (points + move, points - move))
            return self._like(v, _combine((ahead - behind) / (2.0 * steps), directions))

        return self._gradients(points), product

    def _draw(self, points: Array) -> Host:
        """Draw orthonormal rows for each task, shape (tasks, M, P)."""
        tasks, parameters = points.shape
        normal = self._generator.standard_normal((tasks, parameters, min(parameters, _DIRECTIONS)))
        return np.swapaxes(np.linalg.qr(normal).Q, 1, 2)

    def _slopes(self, points: Array, directions: Host, lengths: Host) -> Host:
        """Return the derivatives (tasks, M) of the losses along the directions, by central differences."""
        slopes = np.empty(directions.shape[:2])
        for t, (point, (x, y)) in enumerate(zip(split_rows(self._backend, points), self._sets, strict=True)):
            for m, direction in enumerate(directions[t]):
                step = self._like(point, lengths[t] * direction)
                ahead, behind = (self._loss_at(p, x, y) for p in (point + step, point - step))
                slopes[t, m] = (ahead - behind) / (2.0 * lengths[t])
        return slopes

    def _loss_at(self, point: Array, x: Array, y: Array) -> float:
        with self._asking:
            return float(self._loss.CalculateLoss(with_parameters(self._model, point).Predict(x), y))


def _combine(coefficients: Host, directions: Host) -> Host:
    """Return Σ over m of coefficient m times direction m, shape (tasks, P)."""
    vectors: Host = np.einsum("tm,tmp->tp", coefficients, directions)
    return vectors


def _or_one(norms: Host) -> Host:
    return np.where(norms > 0, norms, 1.0)
