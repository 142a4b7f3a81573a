"""The step that most algorithms share: a gradient of each task, their mean to the meta-optimizer.

An algorithm is a subclass that writes `AlgorithmType` and `_meta_gradients`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aidotnet_py.backends import Array
from aidotnet_py.meta_learning.contract.task_batch import TaskBatch
from aidotnet_py.meta_learning.learner.base import Measured, MetaLearnerBase, StepRecord
from aidotnet_py.meta_learning.learner.parallel import over_chunks
from aidotnet_py.meta_learning.objective.checks import checked_tasks
from aidotnet_py.meta_learning.objective.chunk import Chunk
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["MetaGradientLearner", "TaskGradients"]


@dataclass(frozen=True)
class TaskGradients:
    """What some of the tasks contribute to a step.

    Attributes
    ----------
    measured : (NDArray, list of float)
        Losses and accuracies of the query sets, before the meta-update.
    meta_gradients : array, shape (tasks, meta-parameters)
        Arrays of their own.
    details : object
        Whatever `_metrics` makes numbers of.
    """

    measured: Measured
    meta_gradients: Array
    details: Any = None


class MetaGradientLearner(MetaLearnerBase[T, TInput, TOutput]):
    """The base of the algorithms that move θ along the mean of the tasks' meta-gradients.

    A subclass writes `AlgorithmType` and ``_meta_gradients(chunk)``; ``_metrics`` where a step has more to report.

    Parameters
    ----------
    options : MetaLearnerOptions
        Read when used, so it can be changed between steps.
    """

    def MetaTrain(self, taskBatch: TaskBatch[T, TInput, TOutput]) -> T:
        """One meta-training step.

        Parameters
        ----------
        taskBatch : TaskBatch
            Tasks with support and query sets, alike in shape.

        Returns
        -------
        T
            The mean query loss over the batch, at the adapted parameters, before the meta-update.

        Raises
        ------
        ArgumentException
            When the batch is None or empty, or does not fit the model; nothing was computed then.
        InvalidOperationException
            When a loss, a gradient or a solve is not finite; the message names the task and the quantity, and
            parameters, optimizer and iteration are as they were.
        """
        whole = self._opened(checked_tasks(taskBatch), "Support", "Query")
        parts = over_chunks(whole, self._meta_gradients)
        details = [part.details for part in parts]
        record = StepRecord(
            np.concatenate([part.measured[0] for part in parts]),
            [accuracy for part in parts for accuracy in part.measured[1]],
            self._metrics(details),
        )
        meta_gradients = self._backend.concat([part.meta_gradients for part in parts], 0)
        # What it changes has been put aside with all that this step may change.
        self._journal.hand_on()
        record.metrics["MetaGradientNorm"] = self._meta_update(meta_gradients)
        self._record = record
        self._done(details)
        return self._scalar()(float(np.mean(record.losses, dtype=np.float64)))

    @abstractmethod
    def _meta_gradients(self, chunk: Chunk) -> TaskGradients:
        """What these tasks contribute; InvalidOperationException where something is not finite."""

    def _metrics(self, details: Sequence[Any]) -> dict[str, float]:
        """Numbers to report with the step, from the details of its chunks."""
        return {}

    def _done(self, details: Sequence[Any]) -> None:
        """Keep what the next step is to have of this one, now that nothing can fail any more."""

    def _query(self, chunk: Chunk, adapted: Array) -> tuple[Measured, Array]:
        """The query sets at these parameters: losses and accuracies, and gradients (tasks, P).

        The gradients are valid until the query objective is asked again. Raises InvalidOperationException where a loss
        or a gradient is not finite.
        """
        losses, gradients = chunk.query.evaluate(adapted)
        return self._sound(chunk, losses, gradients), gradients

    def _sound(self, chunk: Chunk, losses: Array, gradients: Array) -> Measured:
        """Losses and accuracies of the query sets' evaluation; raises where it is not finite."""
        chunk.require_finite("query loss", losses)
        chunk.require_finite("query gradient", gradients)
        return chunk.on_host(losses), chunk.query.accuracies()
