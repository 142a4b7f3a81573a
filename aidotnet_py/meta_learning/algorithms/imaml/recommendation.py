"""What `iMAMLOptions.Recommended` measures: the inner rate that suits a model and its tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from aidotnet_py.exceptions import ArgumentException, InvalidOperationException
from aidotnet_py.meta_learning.algorithms.imaml.pilot import largest_eigenvalue, shortly_trained
from aidotnet_py.meta_learning.algorithms.maml import MAMLAlgorithm, MAMLOptions
from aidotnet_py.meta_learning.contract.options import MetaLearnerOptions
from aidotnet_py.meta_learning.contract.protocols import missing_members, model_backend
from aidotnet_py.meta_learning.contract.task_batch import TaskBatch
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask, MetaLearningTask, all_examples, is_batches
from aidotnet_py.meta_learning.learner.loader_place import look_ahead
from aidotnet_py.models import IDifferentiableModel

__all__ = ["SupportFit"]

_TASKS = 8
# Rates are 10^(place/4): the search begins at 0.01, and goes at most twelve decades either way.
_FIRST, _DECADE, _LIMIT = -8, 4, 48
# A rate that leaves this share of the loss fits: a greater one is not better.
_FITTED = 0.01
# The search begins to climb at a rate that leaves at least this share.
_SLOW = 0.9
# The curvature that training brings is that after a short one at this share of the best rate at the start
# (docs/decisions/0035-a-measured-inner-rate.md).
_SLOWER = 1 / 16


class SupportFit:
    """How well K steps of gradient descent fit the support sets of a few drawn tasks, and what rate suits them.

    The model is not changed, and the loader goes on as if nothing had been drawn.

    Parameters
    ----------
    options : MetaLearnerOptions
        Valid options with the model, the loader, the loss and K.

    Raises
    ------
    ArgumentException
        When the tasks do not fit the model, or the loader can neither be set back nor copied.
    InvalidOperationException
        When the model's loss is not finite.
    """

    def __init__(self, options: MetaLearnerOptions[Any, Any, Any, Any]) -> None:
        self._options = options
        assert options.DataLoader is not None
        tasks = look_ahead(options.DataLoader, lambda loader: list(loader.GetTaskBatch(_TASKS)))
        self._tasks = _with_support_as_query(options, tasks)
        curve = self._learner(_rate(-_LIMIT)).adaptation_curve(self._tasks, 1)
        self._start = float(np.mean(curve.losses[:, 0]))
        self._shares: dict[int, float] = {}
        self.has_classes = not bool(np.isnan(curve.accuracies).any())

    def rate(self) -> float:
        """Return the rate that fits best for classes; for a regression at most its half, and a third of what is stable.

        Gradient descent is stable below 2/L, L the largest eigenvalue of the Gauss–Newton matrix. Meta-training of a
        regression raises L by up to twenty times, so that it is measured after a short one, on a copy of the model;
        not for a model without Gauss–Newton products.

        Raises
        ------
        ArgumentException
            When a loss is negative, such as a log-likelihood's: a fit is a share of the loss at the start.
        """
        _require_a_scale(self._start)
        if self._start == 0:
            return _rate(_FIRST)
        best = _rate(self._best_place())
        if self.has_classes:
            return best
        if missing_members(self._options.MetaModel, IDifferentiableModel):
            return best / 2
        slower = best * _SLOWER
        model = shortly_trained(self._options, slower, max(map(_batches, self._tasks)))
        curvature = largest_eigenvalue(model, self._options.loss_of(model), self._tasks)
        if not math.isfinite(curvature):
            return slower
        return min(best / 2, 2 / (3 * curvature)) if curvature > 0 else best / 2

    def _best_place(self) -> int:
        """Return the first minimum from low rates on: a low loss beyond it is luck at the edge of divergence."""
        place = _FIRST
        while place > -_LIMIT and not _SLOW <= self._left(place) <= 1.001:
            place -= _DECADE
        while place < _LIMIT and self._left(place + _DECADE) < self._left(place):
            place += _DECADE
        step = 1 if self._left(place + 1) < self._left(place) else -1
        while abs(place) < _LIMIT and self._is_better(place + step, place):
            place += step
        return place

    def _is_better(self, other: int, place: int) -> bool:
        return self._left(other) < self._left(place) or (other < place and self._left(other) == _FITTED)

    def _left(self, place: int) -> float:
        if place not in self._shares:
            self._shares[place] = self._left_at(_rate(place))
        return self._shares[place]

    def _left_at(self, rate: float) -> float:
        """Return the share of the loss that K steps leave, at least `_FITTED`; infinite if they diverge."""
        try:
            loss = float(self._learner(rate).Evaluate(self._tasks))
        except InvalidOperationException:
            return math.inf
        _require_a_scale(loss)
        return max(loss / self._start, _FITTED)

    def _learner(self, rate: float) -> MAMLAlgorithm[Any, Any, Any, Any]:
        options = self._options
        return MAMLAlgorithm(
            MAMLOptions(
                options.MetaModel,
                LossFunction=options.LossFunction,
                InnerLearningRate=rate,
                AdaptationSteps=options.AdaptationSteps,
                UseFirstOrder=True,
                # Gradients of models without them are estimated along random directions.
                RandomSeed=0,
            )
        )


def _require_a_scale(loss: float) -> None:
    if loss < 0:
        raise ArgumentException(
            f"LossFunction must be at least 0 for a measured rate, got a mean of {loss:.3g}; give InnerLearningRate"
        )


def _batches(task: IMetaLearningTask[Any, Any, Any]) -> int:
    return len(task.SupportInput) if is_batches(task.SupportInput) else 1


def _rate(place: int) -> float:
    return float(10.0 ** (place / _DECADE))


def _with_support_as_query(
    options: MetaLearnerOptions[Any, Any, Any, Any], tasks: Sequence[IMetaLearningTask[Any, Any, Any]]
) -> TaskBatch[Any, Any, Any]:
    backend = model_backend(options.MetaModel)
    return TaskBatch(
        [
            MetaLearningTask(
                SupportSetX=task.SupportInput,
                SupportSetY=task.SupportOutput,
                QuerySetX=all_examples(backend, task.SupportInput),
                QuerySetY=all_examples(backend, task.SupportOutput),
                NumWays=task.NumWays,
                NumShots=task.NumShots,
                NumQueryPerClass=task.NumShots,
            )
            for task in tasks
        ]
    )
