"""The result of a run of meta-training: the course of loss and accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import ANY_WHOLE
from aidotnet_py.exceptions import ArgumentOutOfRangeException
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.meta_learning.contract.read_only import HoldsReadOnlyArrays
from aidotnet_py.meta_learning.contract.results.fields import check_all_given, check_threshold, set_fields, vector_pair
from aidotnet_py.meta_learning.contract.results.text import change, html, place_of_best, report, shown_rows
from aidotnet_py.meta_learning.contract.statistics import BestValue, best_of, difference
from aidotnet_py.type_parameters import T

__all__ = ["MetaTrainingResult"]


@dataclass(frozen=True, eq=False, init=False)
class MetaTrainingResult(HoldsReadOnlyArrays, Generic[T]):
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
        check_all_given(lossHistory=lossHistory, accuracyHistory=accuracyHistory, trainingTime=trainingTime)
        losses, accuracies = vector_pair("lossHistory", lossHistory, "accuracyHistory", accuracyHistory)
        set_fields(
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
        window = ANY_WHOLE.check("windowSize", windowSize)
        if window < 2:
            raise ArgumentOutOfRangeException(f"windowSize must be at least 2 for a variance, got {windowSize}")
        check_threshold("varianceThreshold", varianceThreshold)
        if self.TotalIterations < window:
            return False
        with np.errstate(all="ignore"):
            return bool(np.var(self.LossHistory[-window:], dtype=np.float64, ddof=1) < varianceThreshold)

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
