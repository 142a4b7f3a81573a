"""Results of training, evaluation and adaptation: losses, accuracies, times and their summaries.

Numbers called T are NumPy scalars of the model's type. Accuracy is the fraction of examples whose largest output is
the right class, from 0 to 1; for regression it is NaN, and every summary of it is NaN in turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import check_given
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.meta_learning.contract.result_text import (
    change,
    html,
    loss_and_accuracy,
    number,
    place_of_best,
    report,
    shown_rows,
    spread,
)
from aidotnet_py.meta_learning.contract.statistics import (
    BasicStats,
    BestValue,
    ConfidenceInterval,
    best_of,
    difference,
    require_numbers,
)
from aidotnet_py.nn.statistics import Statistics
from aidotnet_py.type_parameters import T

__all__ = [
    "MetaAdaptationResult",
    "MetaEvaluationResult",
    "MetaTrainingResult",
    "MetaTrainingStepResult",
]


_NORMALIZED_BY: Mapping[Statistics, str] = {"batch": "each query set as a whole", "support": "the support sets"}


@dataclass(frozen=True, init=False)
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
        _check_all_given(
            metaLoss=metaLoss,
            taskLoss=taskLoss,
            accuracy=accuracy,
            numTasks=numTasks,
            iteration=iteration,
            timeMs=timeMs,
        )
        _set(
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


@dataclass(frozen=True, eq=False, init=False)
class MetaTrainingResult(Generic[T]):
    """A whole run of meta-training.

    Parameters
    ----------
    lossHistory, accuracyHistory : (iterations,) array of T
        Loss and accuracy of every iteration, at least one; kept as read-only copies.
    trainingTime : datetime.timedelta
        How long the run took.
    additionalMetrics : mapping of str to T, optional
        Whatever else was measured.

    Raises
    ------
    ArgumentNullException
        When a history or the time is None.
    ArgumentException
        When a history is empty, not one-dimensional or not of floating-point numbers, or the two differ in length.

    Examples
    --------
    >>> from datetime import timedelta
    >>> import numpy as np
    >>> from aidotnet_py.meta_learning.contract.results import MetaTrainingResult
    >>> losses, accuracies = np.array([2.5, 0.75, 1.0]), np.array([0.25, 0.875, 0.75])
    >>> result = MetaTrainingResult(losses, accuracies, timedelta(seconds=6))
    >>> float(result.CalculateLossImprovement()), float(result.CalculateAccuracyImprovement())
    (1.5, 0.5)
    >>> result.FindBestLoss().Iteration
    1
    >>> print(result.GenerateReport())
    Meta-training
      iterations           3
      time                 6.00 s (0.5 iterations/s)
      loss                 2.5 → 1 (improved by 1.5)
      best loss            0.75 at iteration 1
      accuracy             0.25 → 0.75 (improved by 0.5)
      best accuracy        0.875 at iteration 1
      converged            no
    """

    LossHistory: NDArray[T]
    AccuracyHistory: NDArray[T]
    TrainingTime: timedelta
    AdditionalMetrics: Mapping[str, T]

    @suggests_keywords(
        LossHistory="lossHistory",
        AccuracyHistory="accuracyHistory",
        TrainingTime="trainingTime",
        AdditionalMetrics="additionalMetrics",
    )
    def __init__(
        self,
        lossHistory: NDArray[T],
        accuracyHistory: NDArray[T],
        trainingTime: timedelta,
        additionalMetrics: Mapping[str, T] | None = None,
    ) -> None:
        _check_all_given(lossHistory=lossHistory, accuracyHistory=accuracyHistory, trainingTime=trainingTime)
        losses, accuracies = _pair("lossHistory", lossHistory, "accuracyHistory", accuracyHistory)
        _set(
            self,
            LossHistory=losses,
            AccuracyHistory=accuracies,
            TrainingTime=trainingTime,
            AdditionalMetrics=dict(additionalMetrics or {}),
        )

    @property
    def TotalIterations(self) -> int:
        """How many iterations the run took."""
        return len(self.LossHistory)

    @property
    def InitialLoss(self) -> T:
        """The loss of the first iteration."""
        return cast(T, self.LossHistory[0])

    @property
    def FinalLoss(self) -> T:
        """The loss of the last iteration."""
        return cast(T, self.LossHistory[-1])

    @property
    def InitialAccuracy(self) -> T:
        """The accuracy of the first iteration."""
        return cast(T, self.AccuracyHistory[0])

    @property
    def FinalAccuracy(self) -> T:
        """The accuracy of the last iteration."""
        return cast(T, self.AccuracyHistory[-1])

    def CalculateLossImprovement(self) -> T:
        """Return ``InitialLoss − FinalLoss``, a difference and not a fraction: positive where the loss fell."""
        return difference(self.InitialLoss, self.FinalLoss)

    def CalculateAccuracyImprovement(self) -> T:
        """Return ``FinalAccuracy − InitialAccuracy``: positive where the accuracy rose."""
        return difference(self.FinalAccuracy, self.InitialAccuracy)

    def HasConverged(self, windowSize: int = 100, varianceThreshold: float = 0.001) -> bool:
        """Return whether the sample variance of the last ``windowSize`` losses is below the threshold.

        A history shorter than the window has not converged, nor has one with a NaN in it.

        Raises
        ------
        ArgumentOutOfRangeException
            When ``windowSize`` is below 2, or ``varianceThreshold`` negative or NaN.
        """
        if windowSize < 2:
            raise ArgumentOutOfRangeException(f"windowSize must be at least 2 for a variance, got {windowSize}")
        _check_threshold("varianceThreshold", varianceThreshold)
        if self.TotalIterations < windowSize:
            return False
        with np.errstate(all="ignore"):
            return bool(np.var(self.LossHistory[-windowSize:], dtype=np.float64, ddof=1) < varianceThreshold)

    def FindBestLoss(self) -> BestValue[T]:
        """Return the lowest loss and its place in ``LossHistory``; NaNs are passed over, (NaN, 0) where all are."""
        return best_of(self.LossHistory, np.nanargmin)

    def FindBestAccuracy(self) -> BestValue[T]:
        """Return the highest accuracy and its place in ``AccuracyHistory``; NaNs are passed over, (NaN, 0) for all."""
        return best_of(self.AccuracyHistory, np.nanargmax)

    def GenerateReport(self) -> str:
        """Return a summary to print."""
        return report("Meta-training", self._rows())

    def _repr_html_(self) -> str:
        return html("Meta-training", self._rows(), self.LossHistory)

    def _rows(self) -> dict[str, str]:
        seconds = self.TrainingTime.total_seconds()
        pace = f" ({self.TotalIterations / seconds:.1f} iterations/s)" if seconds > 0 else ""
        best_loss, best_accuracy = self.FindBestLoss(), self.FindBestAccuracy()
        return shown_rows(
            {
                "iterations": str(self.TotalIterations),
                "time": f"{seconds:.2f} s{pace}",
                "loss": change(self.InitialLoss, self.FinalLoss, self.CalculateLossImprovement()),
                "best loss": place_of_best(best_loss),
                "accuracy": change(self.InitialAccuracy, self.FinalAccuracy, self.CalculateAccuracyImprovement()),
                "best accuracy": place_of_best(best_accuracy),
                "converged": "yes" if self.HasConverged() else "no",
            },
            self.AdditionalMetrics,
        )


@dataclass(frozen=True, eq=False, init=False)
class MetaEvaluationResult(Generic[T]):
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
        _check_all_given(taskAccuracies=taskAccuracies, taskLosses=taskLosses, evaluationTime=evaluationTime)
        accuracies, losses = _pair("taskAccuracies", taskAccuracies, "taskLosses", taskLosses)
        if single_accuracies is not None:
            single_accuracies, _ = _pair("single_accuracies", single_accuracies, "taskLosses", losses)
        _set(
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


@dataclass(frozen=True, eq=False, init=False)
class MetaAdaptationResult(Generic[T]):
    """How adapting to one task went.

    Parameters
    ----------
    queryAccuracy, queryLoss, supportAccuracy, supportLoss : T
        On either set, after adaptation.
    adaptationSteps : int
        How many inner steps were taken; 1 for a solver in their place.
    adaptationTimeMs : float
        How long they took, in milliseconds.
    perStepLosses : (adaptationSteps + 1,) array of T, optional
        The support loss before the first and after each step; kept as a read-only copy, empty where it was not tracked.
    additionalMetrics : mapping of str to T, optional
        Whatever else was measured.
    step_parameters : (steps, P) array of T, optional
        φ₁ … φ_K, the parameters after each step, on the host; kept read-only, not copied. None where they were not
        asked for.

    Raises
    ------
    ArgumentNullException
        When a loss, an accuracy, the steps or the time are None.
    ArgumentException
        When ``perStepLosses`` is not one-dimensional, ``step_parameters`` not two-dimensional, or either not of
        floating-point numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.meta_learning.contract.results import MetaAdaptationResult
    >>> result = MetaAdaptationResult(
    ...     queryAccuracy=np.float64(0.75), queryLoss=np.float64(0.5), supportAccuracy=np.float64(1.0),
    ...     supportLoss=np.float64(0.125), adaptationSteps=2, adaptationTimeMs=4.5,
    ...     perStepLosses=np.array([1.0, 0.13, 0.125]),
    ... )
    >>> float(result.CalculateOverfittingGap()), result.DidConverge()
    (0.25, True)
    >>> print(result.GenerateReport())
    Adaptation
      steps                2
      time                 4.50 ms
      query                loss 0.5, accuracy 0.75
      support              loss 0.125, accuracy 1
      overfitting gap      0.25
      loss by step         1 → 0.125
      converged            yes
    """

    QueryAccuracy: T
    QueryLoss: T
    SupportAccuracy: T
    SupportLoss: T
    AdaptationSteps: int
    AdaptationTimeMs: float
    PerStepLosses: NDArray[T]
    AdditionalMetrics: Mapping[str, T]
    step_parameters: NDArray[T] | None

    @suggests_keywords(
        QueryAccuracy="queryAccuracy",
        QueryLoss="queryLoss",
        SupportAccuracy="supportAccuracy",
        SupportLoss="supportLoss",
        AdaptationSteps="adaptationSteps",
        AdaptationTimeMs="adaptationTimeMs",
        PerStepLosses="perStepLosses",
        AdditionalMetrics="additionalMetrics",
    )
    def __init__(
        self,
        queryAccuracy: T,
        queryLoss: T,
        supportAccuracy: T,
        supportLoss: T,
        adaptationSteps: int,
        adaptationTimeMs: float,
        perStepLosses: NDArray[T] | None = None,
        additionalMetrics: Mapping[str, T] | None = None,
        step_parameters: NDArray[T] | None = None,
    ) -> None:
        _check_all_given(
            queryAccuracy=queryAccuracy,
            queryLoss=queryLoss,
            supportAccuracy=supportAccuracy,
            supportLoss=supportLoss,
            adaptationSteps=adaptationSteps,
            adaptationTimeMs=adaptationTimeMs,
        )
        _set(
            self,
            QueryAccuracy=queryAccuracy,
            QueryLoss=queryLoss,
            SupportAccuracy=supportAccuracy,
            SupportLoss=supportLoss,
            AdaptationSteps=adaptationSteps,
            AdaptationTimeMs=adaptationTimeMs,
            PerStepLosses=_copy("perStepLosses", np.empty(0) if perStepLosses is None else perStepLosses),
            AdditionalMetrics=dict(additionalMetrics or {}),
            step_parameters=None if step_parameters is None else _rows("step_parameters", step_parameters),
        )

    def CalculateOverfittingGap(self) -> T:
        """Return how much better the support set is served than the query set: positive means overfitting.

        ``SupportAccuracy − QueryAccuracy`` for classification; for regression, where accuracies are NaN,
        ``QueryLoss − SupportLoss``.
        """
        if np.isnan(self.SupportAccuracy) or np.isnan(self.QueryAccuracy):
            return difference(self.QueryLoss, self.SupportLoss)
        return difference(self.SupportAccuracy, self.QueryAccuracy)

    def DidConverge(self, convergenceThreshold: float = 0.01) -> bool:
        """Return whether the steps lowered the support loss by at least the threshold, an absolute number.

        That is ``PerStepLosses[0] − PerStepLosses[-1] ≥ convergenceThreshold``, AiDotNet's own reading: the adaptation
        got somewhere, not that it has come to rest. False with fewer than two losses in ``PerStepLosses``, or where
        the first or the last is NaN.

        Raises
        ------
        ArgumentOutOfRangeException
            When ``convergenceThreshold`` is negative or NaN.
        """
        _check_threshold("convergenceThreshold", convergenceThreshold)
        if len(self.PerStepLosses) < 2:
            return False
        return float(self.PerStepLosses[0]) - float(self.PerStepLosses[-1]) >= convergenceThreshold

    def GenerateReport(self) -> str:
        """Return a summary to print."""
        return report("Adaptation", self._rows())

    def _repr_html_(self) -> str:
        return html("Adaptation", self._rows(), self.PerStepLosses)

    def _rows(self) -> dict[str, str]:
        rows = {
            "steps": str(self.AdaptationSteps),
            "time": f"{self.AdaptationTimeMs:.2f} ms",
            "query": loss_and_accuracy(self.QueryLoss, self.QueryAccuracy),
            "support": loss_and_accuracy(self.SupportLoss, self.SupportAccuracy),
            "overfitting gap": number(self.CalculateOverfittingGap()),
        }
        if len(self.PerStepLosses):
            rows["loss by step"] = f"{number(self.PerStepLosses[0])} → {number(self.PerStepLosses[-1])}"
            rows["converged"] = "yes" if self.DidConverge() else "no"
        return shown_rows(rows, self.AdditionalMetrics)


def _set(result: object, **fields: object) -> None:
    """Set the fields of a frozen result."""
    for name, value in fields.items():
        object.__setattr__(result, name, value)


def _check_all_given(**arguments: object) -> None:
    """Raise ArgumentNullException if one of some arguments is None."""
    for name, value in arguments.items():
        check_given(name, value, "given")


def _copy(name: str, values: Any) -> NDArray[Any]:
    """Return a read-only one-dimensional copy of an argument."""
    copy = np.array(values)
    require_numbers(name, copy)
    copy.flags.writeable = False
    return copy


def _rows(name: str, values: Any) -> NDArray[Any]:
    """Return a read-only view of a two-dimensional argument, which may be large."""
    view = np.asarray(values).view()
    require_numbers(name, view, 2)
    view.flags.writeable = False
    return view


def _pair(first: str, x: Any, second: str, y: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return read-only copies of two arguments of one length."""
    a, b = _copy(first, x), _copy(second, y)
    if a.shape != b.shape or a.size == 0:
        raise ArgumentException(
            f"{first} and {second} must have one length, at least 1, got shapes {a.shape} and {b.shape}"
        )
    return a, b


def _check_threshold(name: str, value: float) -> None:
    if not value >= 0:
        raise ArgumentOutOfRangeException(f"{name} must be at least 0, got {value}")
