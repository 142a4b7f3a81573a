"""The result of adapting to one task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.meta_learning.contract.read_only import HoldsReadOnlyArrays
from aidotnet_py.meta_learning.contract.results.fields import (
    check_all_given,
    check_threshold,
    rows_view,
    set_fields,
    vector_copy,
)
from aidotnet_py.meta_learning.contract.results.text import html, loss_and_accuracy, number, report, shown_rows
from aidotnet_py.meta_learning.contract.statistics import difference
from aidotnet_py.type_parameters import T

__all__ = ["MetaAdaptationResult"]


@dataclass(frozen=True, eq=False, init=False)
class MetaAdaptationResult(HoldsReadOnlyArrays, Generic[T]):
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
        check_all_given(
            queryAccuracy=queryAccuracy,
            queryLoss=queryLoss,
            supportAccuracy=supportAccuracy,
            supportLoss=supportLoss,
            adaptationSteps=adaptationSteps,
            adaptationTimeMs=adaptationTimeMs,
        )
        set_fields(
            self,
            QueryAccuracy=queryAccuracy,
            QueryLoss=queryLoss,
            SupportAccuracy=supportAccuracy,
            SupportLoss=supportLoss,
            AdaptationSteps=adaptationSteps,
            AdaptationTimeMs=adaptationTimeMs,
            PerStepLosses=vector_copy("perStepLosses", np.empty(0) if perStepLosses is None else perStepLosses),
            AdditionalMetrics=dict(additionalMetrics or {}),
            step_parameters=None if step_parameters is None else rows_view("step_parameters", step_parameters),
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
        check_threshold("convergenceThreshold", convergenceThreshold)
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
