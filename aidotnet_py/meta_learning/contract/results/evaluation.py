"""The result of an evaluation: losses and accuracies task by task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic

from numpy.typing import NDArray

from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.meta_learning.contract.read_only import HoldsReadOnlyArrays
from aidotnet_py.meta_learning.contract.results.fields import check_all_given, set_fields, vector_pair
from aidotnet_py.meta_learning.contract.results.text import html, report, shown_rows, spread
from aidotnet_py.meta_learning.contract.statistics import BasicStats, ConfidenceInterval
from aidotnet_py.nn.statistics import Statistics
from aidotnet_py.type_parameters import T

__all__ = ["MetaEvaluationResult"]


_NORMALIZED_BY: Mapping[Statistics, str] = {"batch": "each query set as a whole", "support": "the support sets"}


@dataclass(frozen=True, eq=False, init=False)
class MetaEvaluationResult(HoldsReadOnlyArrays, Generic[T]):
    """How a learner does on tasks that it adapts to.

    Parameters
    ----------
    taskAccuracies, taskLosses : (tasks,) array of T
        Accuracy and loss on each task's query set after adaptation, at least one; kept as read-only copies, as
        ``PerTaskAccuracies`` and ``PerTaskLosses``.
    evaluationTime : datetime.timedelta
        How long the evaluation took.
    additionalMetrics : mapping of str to T, optional
        Whatever else was measured.
    normalization : "batch" or "support", optional
        What the model's BatchNorm layers normalised query sets by: their own statistics, so that the answer for one
        example hangs on the others, or those of the support sets. None: no such layers are known of.
    single_accuracies : (tasks,) array of T, optional
        The accuracies of the models that `Adapt` gives, which answer for one example at a time as for all together;
        kept as a read-only copy. None: not measured.

    Raises
    ------
    ArgumentNullException
        When accuracies, losses or the time are None.
    ArgumentException
        When an array is empty, not one-dimensional or not of floating-point numbers, or they differ in length.

    Examples
    --------
    >>> from datetime import timedelta
    >>> import numpy as np
    >>> from aidotnet_py.meta_learning.contract.results import MetaEvaluationResult
    >>> result = MetaEvaluationResult(np.array([0.5, 0.75, 1.0]), np.array([3.0, 2.0, 1.0]), timedelta(seconds=2))
    >>> lower, upper = result.GetLossConfidenceInterval()
    >>> round(float(lower), 3), round(float(upper), 3)
    (0.868, 3.132)
    >>> print(result.GenerateReport())
    Meta-evaluation
      tasks                3
      time                 2.00 s
      accuracy             0.75 ± 0.283 (median 0.75, from 0.5 to 1)
      loss                 2 ± 1.13 (median 2, from 1 to 3)
    """

    PerTaskAccuracies: NDArray[T]
    PerTaskLosses: NDArray[T]
    EvaluationTime: timedelta
    AdditionalMetrics: Mapping[str, T]

    normalization: Statistics | None
    single_accuracies: NDArray[T] | None

    @suggests_keywords(
        PerTaskAccuracies="taskAccuracies",
        PerTaskLosses="taskLosses",
        EvaluationTime="evaluationTime",
        AdditionalMetrics="additionalMetrics",
    )
    def __init__(
        self,
        taskAccuracies: NDArray[T],
        taskLosses: NDArray[T],
        evaluationTime: timedelta,
        additionalMetrics: Mapping[str, T] | None = None,
        normalization: Statistics | None = None,
        single_accuracies: NDArray[T] | None = None,
    ) -> None:
        check_all_given(taskAccuracies=taskAccuracies, taskLosses=taskLosses, evaluationTime=evaluationTime)
        accuracies, losses = vector_pair("taskAccuracies", taskAccuracies, "taskLosses", taskLosses)
        if single_accuracies is not None:
            single_accuracies, _ = vector_pair("single_accuracies", single_accuracies, "taskLosses", losses)
        set_fields(
            self,
            PerTaskAccuracies=accuracies,
            PerTaskLosses=losses,
            EvaluationTime=evaluationTime,
            AdditionalMetrics=dict(additionalMetrics or {}),
            normalization=normalization,
            single_accuracies=single_accuracies,
        )

    @property
    def NumTasks(self) -> int:
        """How many tasks were evaluated."""
        return len(self.PerTaskLosses)

    @property
    def AccuracyStats(self) -> BasicStats[T]:
        """Summary of the accuracies."""
        return BasicStats.of(self.PerTaskAccuracies)

    @property
    def LossStats(self) -> BasicStats[T]:
        """Summary of the losses."""
        return BasicStats.of(self.PerTaskLosses)

    def GetAccuracyConfidenceInterval(self) -> ConfidenceInterval[T]:
        """Return the 95 % interval of the mean accuracy, mean ± 1.96 s/√n; its width is NaN for a single task."""
        return self.AccuracyStats.ConfidenceInterval()

    def GetLossConfidenceInterval(self) -> ConfidenceInterval[T]:
        """Return the 95 % interval of the mean loss, mean ± 1.96 s/√n; its width is NaN for a single task."""
        return self.LossStats.ConfidenceInterval()

    def GenerateReport(self) -> str:
        """Return a summary to print."""
        return report("Meta-evaluation", self._rows())

    def _repr_html_(self) -> str:
        return html("Meta-evaluation", self._rows())

    def _rows(self) -> dict[str, str]:
        rows = {
            "tasks": str(self.NumTasks),
            "time": f"{self.EvaluationTime.total_seconds():.2f} s",
            "accuracy": spread(self.AccuracyStats),
            "loss": spread(self.LossStats),
        }
        if self.normalization is not None:
            rows["normalised by"] = _NORMALIZED_BY[self.normalization]
            if self.single_accuracies is not None:
                rows["accuracy one by one"] = spread(BasicStats.of(self.single_accuracies))
        return shown_rows(rows, self.AdditionalMetrics)
