"""The result of one meta-training step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic

from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.meta_learning.contract.results.fields import check_all_given, set_fields
from aidotnet_py.meta_learning.contract.results.text import html, loss_and_accuracy, number, shown_rows
from aidotnet_py.type_parameters import T

__all__ = ["MetaTrainingStepResult"]


@dataclass(frozen=True, eq=False, init=False)
class MetaTrainingStepResult(Generic[T]):
    """One meta-training step.

    Parameters
    ----------
    metaLoss : T
        The loss that the step minimises.
    taskLoss : T
        The mean query loss after adaptation, before the update.
    accuracy : T
        The mean over the query sets.
    numTasks, iteration : int
        Tasks of the step, and the count of steps with this one.
    timeMs : float
        Milliseconds of the step.
    additionalMetrics : mapping of str to T, optional
        Norms of gradients, residuals and iterations of solves.

    Raises
    ------
    ArgumentNullException
        When one of the others is None.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.meta_learning.contract.results import MetaTrainingStepResult
    >>> step = MetaTrainingStepResult(
    ...     metaLoss=np.float32(0.5), taskLoss=np.float32(0.5), accuracy=np.float32(0.8), numTasks=4, iteration=1,
    ...     timeMs=12.5,
    ... )
    >>> float(step.MetaLoss), step.AdditionalMetrics
    (0.5, {})
    """

    MetaLoss: T
    TaskLoss: T
    Accuracy: T
    NumTasks: int
    Iteration: int
    TimeMs: float
    AdditionalMetrics: Mapping[str, T]

    @suggests_keywords(
        MetaLoss="metaLoss",
        TaskLoss="taskLoss",
        Accuracy="accuracy",
        NumTasks="numTasks",
        Iteration="iteration",
        TimeMs="timeMs",
        AdditionalMetrics="additionalMetrics",
    )
    def __init__(
        self,
        metaLoss: T,
        taskLoss: T,
        accuracy: T,
        numTasks: int,
        iteration: int,
        timeMs: float,
        additionalMetrics: Mapping[str, T] | None = None,
    ) -> None:
        check_all_given(
            metaLoss=metaLoss,
            taskLoss=taskLoss,
            accuracy=accuracy,
            numTasks=numTasks,
            iteration=iteration,
            timeMs=timeMs,
        )
        set_fields(
            self,
            MetaLoss=metaLoss,
            TaskLoss=taskLoss,
            Accuracy=accuracy,
            NumTasks=numTasks,
            Iteration=iteration,
            TimeMs=timeMs,
            AdditionalMetrics=dict(additionalMetrics or {}),
        )

    def _repr_html_(self) -> str:
        rows = {
            "loss": number(self.MetaLoss),
            "query": loss_and_accuracy(self.TaskLoss, self.Accuracy),
            "tasks": str(self.NumTasks),
            "time": f"{self.TimeMs:.2f} ms",
        }
        return html(f"Step {self.Iteration}", shown_rows(rows, self.AdditionalMetrics))
