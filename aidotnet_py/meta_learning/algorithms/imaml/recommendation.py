"""What `iMAMLOptions.Recommended` measures: the inner rate that suits a model and its tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from aidotnet_py.exceptions import InvalidOperationException
from aidotnet_py.meta_learning.algorithms.maml import MAMLAlgorithm, MAMLOptions
from aidotnet_py.meta_learning.contract.options import MetaLearnerOptions
from aidotnet_py.meta_learning.contract.protocols import model_backend
from aidotnet_py.meta_learning.contract.task_batch import TaskBatch
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask, MetaLearningTask, all_examples
from aidotnet_py.meta_learning.learner.loader_place import look_ahead

__all__ = ["SupportFit"]

_TASKS = 8
# Rates are 10^(place/4): the search begins at 0.01, and goes at most twelve decades either way.
_FIRST, _DECADE, _LIMIT = -8, 4, 48
# A rate that leaves this share of the loss fits: a greater one is not better.
_FITTED = 0.01
# The search begins to climb at a rate that leaves at least this share.
_SLOW = 0.9
# If K more steps would remove a greater share, the curvature at the start is too low for K steps.
# Training will raise it, and the rate leaves room for that (docs/decisions/0035-a-measured-inner-rate.md).
_DONE = 0.025


class SupportFit:
    """How well K steps of gradient descent fit the support sets of a few drawn tasks.

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
        """Return the rate to train with: half of the best one, or less if K steps end long before a minimum."""
        if self._start == 0:
            return _rate(_FIRST)
        half = _rate(self._best_place()) / 2
        still_to_fall = self._left_at(half, 1) - self._left_at(half, 2)
        return half / max(1.0, still_to_fall / _DONE)

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
            self._shares[place] = self._left_at(_rate(place), 1)
        return self._shares[place]

    def _left_at(self, rate: float, times: int) -> float:
        """Return the share of the loss that K·times steps leave, at least `_FITTED`; infinite if they diverge."""
        try:
            loss = float(self._learner(rate, times).Evaluate(self._tasks))
        except InvalidOperationException:
            return math.inf
        return max(loss / self._start, _FITTED)

    def _learner(self, rate: float, times: int = 1) -> MAMLAlgorithm[Any, Any, Any, Any]:
        options = self._options
        return MAMLAlgorithm(
            MAMLOptions(
                options.MetaModel,
                LossFunction=options.LossFunction,
                InnerLearningRate=rate,
                AdaptationSteps=options.AdaptationSteps * times,
                UseFirstOrder=True,
                # Gradients of models without them are estimated along random directions.
                RandomSeed=0,
            )
        )


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
