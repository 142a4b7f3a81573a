"""The host's side of an iterative solve: which tasks still run, and why the others stopped."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.solvers.report import SolverReport, StopReason

__all__ = ["Progress"]

_Mask: TypeAlias = NDArray[np.bool_]


class Progress:
    """The state of each task: every attribute is an array of shape (tasks,).

    Parameters
    ----------
    norms : NDArray, shape (tasks,)
        ‖b − Ax₀‖ at the starting point.
    limit : int
        The most iterations for a task.
    tolerance : float
        The residual norm at which a task has converged.
    """

    def __init__(self, norms: NDArray[Any], limit: int, tolerance: float) -> None:
        numbers = np.finfo(norms.dtype)
        self.limit = limit
        # Comparing a float32 with a Python float that float32 cannot hold is an overflow in NumPy's eyes.
        self.tolerance = min(tolerance, float(numbers.max))
        # Below this, squared norms leave the normal numbers, and quotients of them are noise.
        self.threshold = max(self.tolerance, float(np.sqrt(numbers.smallest_normal)))
        self.initial_norms = self.norms = norms
        self.iterations = np.zeros(norms.shape, np.int64)
        # Tasks whose recurrence says that they are done; `measure` has the last word.
        self.claims: _Mask = np.zeros(norms.shape, np.bool_)
        self.reasons: NDArray[np.object_] = np.full(norms.shape, StopReason.MAX_ITERATIONS, dtype=object)
        self.reasons[norms <= self.threshold] = StopReason.PRECISION_LIMIT
        self.reasons[norms <= self.tolerance] = StopReason.CONVERGED
        self.reasons[~np.isfinite(norms)] = StopReason.NOT_FINITE
        self.running: _Mask = np.isfinite(norms) & (norms > self.threshold)
        # For the bound on drift: the sum of ‖r‖ over the iterations, the last ‖r‖, 1/α and √β/α of the last step, and
        # the largest row sum of the tridiagonal matrix that the steps make, which bounds what they have seen of ‖A‖.
        self._sum_of_norms = norms.copy()
        self._recurred = norms
        self._above = np.zeros_like(norms)
        self._row_sums = np.zeros_like(norms)

    def may_have_drifted(self, lengths: NDArray[Any]) -> bool:
        """Whether some task's ‖b − Ax‖ may differ by more than a tenth from the ‖r‖ of its recurrence.

        Each step rounds r and x, and the product errs by some roundings of ‖A‖‖p‖. With 32 eps for all that, steps of
        length |α|‖Ap‖ ≤ ‖r‖ + ‖r₊‖, and ‖x‖, ``lengths``, growing from step to step, the two differ by at most
        32 eps (4 Σ‖r‖ + 3k‖A‖‖x‖). A task that claims to have converged, or stopped at numbers that are no numbers, is
        always looked at.
        """
        eps = float(np.finfo(self.norms.dtype).eps)
        with np.errstate(all="ignore"):
            drift = 32 * eps * (4 * self._sum_of_norms + 3 * self.iterations * self._row_sums * lengths)
            certain = (drift <= 0.1 * self._recurred) & ~self.claims
        idle = (self.iterations == 0) & np.isfinite(self.norms)
        if bool((certain | idle).all()):
            self.norms = np.where(idle, self.norms, self._recurred)
            return False
        return True

    def _remember(self, sound: _Mask, curvatures: NDArray[Any], slopes: NDArray[Any], squares: NDArray[Any]) -> None:
        """Take in a step: its row of the tridiagonal matrix has 1/α + β₋/α₋ and, on both sides, √β/α."""
        with np.errstate(all="ignore"):
            inverse = curvatures / slopes
            ratio = squares / slopes
            beside = np.sqrt(ratio) * inverse
            row = inverse + self._above + beside
            norms = np.sqrt(squares)
        self._row_sums = np.where(sound, np.maximum(self._row_sums, row), self._row_sums)
        self._above = np.where(sound, ratio * inverse + beside, self._above)
        self._sum_of_norms = np.where(sound, self._sum_of_norms + norms, self._sum_of_norms)
        self._recurred = np.where(sound, norms, self._recurred)

    def judge(self, curvatures: NDArray[Any], slopes: NDArray[Any], squares: NDArray[Any]) -> _Mask:
        """Decide who stops at this step, and why; return the tasks that may take it.

        ``curvatures`` are pᵀAp, ``slopes`` rᵀM⁻¹r before the step, ``squares`` ‖r‖² after it.
        """
        finite: _Mask = np.isfinite(curvatures) & np.isfinite(slopes) & np.isfinite(squares)
        sound: _Mask = self.running & finite & (curvatures > 0) & (slopes > 0)
        self.reasons[self.running & (curvatures <= 0)] = StopReason.NON_POSITIVE_CURVATURE
        self.reasons[self.running & (slopes <= 0)] = StopReason.INDEFINITE_PRECONDITIONER
        self.reasons[self.running & ~finite] = StopReason.NOT_FINITE
        self.iterations = self.iterations + sound
        self._remember(sound, curvatures, slopes, squares)
        claims: _Mask = sound & (np.sqrt(squares) <= self.threshold)
        self.claims = self.claims | claims
        self.running = sound & ~claims & (self.iterations < self.limit)
        return sound

    def measure(self, norms: NDArray[Any], least_norms: NDArray[Any]) -> None:
        """Take the measured ‖b − Ax‖ of all tasks; those that claimed too much run on where that can help.

        ``least_norms`` are the rounding of b: no residual below it can be told from one of that size.
        """
        self.reasons[norms <= self.tolerance] = StopReason.CONVERGED
        self.reasons[~np.isfinite(norms)] = StopReason.NOT_FINITE
        refuted: _Mask = self.claims & np.isfinite(norms) & (norms > self.tolerance)
        self.reasons[refuted] = StopReason.PRECISION_LIMIT
        # Running on from the measured residual is iterative refinement. So that it has an end, each round must halve
        # that residual, and the tolerance must be one that can be reached.
        improving: _Mask = refuted & (norms <= self.norms / 2) & (self.tolerance >= least_norms)
        self.reasons[improving] = StopReason.MAX_ITERATIONS
        self.running = improving & (self.iterations < self.limit)
        self.claims = np.zeros_like(self.claims)
        self.norms = norms

    def report(self) -> SolverReport:
        """What the caller is told."""
        reasons: list[StopReason] = self.reasons.tolist()
        return SolverReport(self.iterations, self.initial_norms, self.norms, tuple(reasons))
