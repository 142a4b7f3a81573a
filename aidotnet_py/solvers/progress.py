"""The host's side of an iterative solve: which tasks still run, and why the others stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.solvers.bounds import Bounds
from aidotnet_py.solvers.report import BoundName, SolverReport, StopReason

__all__ = ["Callback", "Progress", "threshold_of"]

_Mask: TypeAlias = NDArray[np.bool_]
# Of the count of steps and the residual norms after the last.
Callback: TypeAlias = Callable[[int, NDArray[Any]], object]


def threshold_of(bounds: NDArray[Any]) -> NDArray[Any]:
    """Return the residual norms at which iterations end: the bounds, or the least that their dtype allows.

    Below that, squared norms leave the normal numbers, and quotients of them are noise.
    """
    thresholds: NDArray[Any] = np.maximum(bounds, _least(bounds.dtype))
    return thresholds


@lru_cache
def _eps(dtype: np.dtype[Any]) -> float:
    return float(np.finfo(dtype).eps)


@lru_cache
def _least(dtype: np.dtype[Any]) -> Any:
    return np.sqrt(np.finfo(dtype).smallest_normal)


class Progress:
    """The state of each task: every attribute is an array of shape (tasks,).

    Parameters
    ----------
    norms : NDArray, shape (tasks,)
        ‖b − Ax₀‖ at the starting point.
    rhs_norms : NDArray, shape (tasks,)
        ‖b‖.
    limit : int
        The most iterations for a task.
    bounds : Bounds
        When a task has converged.
    scales : NDArray, shape (tasks,), optional
        What b was multiplied by before the solve; the report has the units from before.
    callback : callable, optional
        Called after each step with the count of steps and the norms of the residuals after it, NaN for tasks that
        took none.
    """

    def __init__(
        self,
        norms: NDArray[Any],
        rhs_norms: NDArray[Any],
        limit: int,
        bounds: Bounds,
        scales: NDArray[Any] | None = None,
        callback: Callback | None = None,
    ) -> None:
        self.limit, self._callback = limit, callback
        self.rhs_norms, self._bounds = rhs_norms, bounds
        self._scales = scales
        self.tolerance, self._relative = bounds.of(rhs_norms, scales)
        self.threshold = threshold_of(self.tolerance)
        self.initial_norms = self.norms = norms
        self.iterations = np.zeros(norms.shape, np.int64)
        # Tasks whose recurrence says that they are done; `measure` has the last word.
        self.claims: _Mask = np.zeros(norms.shape, np.bool_)
        self.reasons: NDArray[np.object_] = np.full(norms.shape, StopReason.MAX_ITERATIONS, dtype=object)
        self.running = np.isfinite(norms) & (norms > self.threshold)
        if not self._all_run:
            self.reasons[norms <= self.threshold] = StopReason.PRECISION_LIMIT
            self.reasons[norms <= self.tolerance] = StopReason.CONVERGED
            self.reasons[~np.isfinite(norms)] = StopReason.NOT_FINITE
        # Whether the last step was the last that some task may take.
        self.limited = False
        # pᵀAp, rᵀr before and rᵀr after some steps each, (steps, 3, tasks), for the bound on drift.
        self._steps: list[NDArray[Any]] = []
        # The tasks whose ‖b − Ax‖ is measured; None as long as none has to be.
        self._looked_at: _Mask | None = None
        # ‖r‖² after each step, NaN for tasks that took none.
        self._squares: list[NDArray[Any]] = []

    def may_have_drifted(self, lengths: NDArray[Any]) -> _Mask:
        """Return the tasks whose ‖b − Ax‖ may differ by more than a tenth from the ‖r‖ of their recurrence.

        Each step rounds r and x, and the product errs by some roundings of ‖A‖‖p‖. With 32 eps for all that, steps of
        length |α|‖Ap‖ ≤ ‖r‖ + ‖r₊‖, and ‖x‖, ``lengths``, growing from step to step, the two differ by at most
        32 eps (4 Σ‖r‖ + 3k‖A‖‖x‖). A task that claims to have converged, or stopped at numbers that are no numbers, is
        always looked at, and so is every later round of a task that was looked at once. No task is looked at on account
        of another.
        """
        if self._looked_at is not None:
            return self._looked_at
        eps = _eps(self.norms.dtype)
        curvatures, slopes, squares = np.concatenate(self._steps).transpose(1, 0, 2)
        # A task takes every step until it stops.
        last = self.iterations - 1
        sound: Any = True if (last == len(squares) - 1).all() else np.arange(len(squares))[:, None] <= last
        with np.errstate(all="ignore"):
            # What the steps have seen of ‖A‖: the largest row sum of the tridiagonal matrix that they make, whose rows
            # have 1/α + β₋/α₋ in the middle and √β/α beside it.
            inverse, ratio = curvatures / slopes, squares / slopes
            beside = np.sqrt(ratio) * inverse
            rows = inverse + beside
            rows[1:] += (ratio * inverse + beside)[:-1]
            largest = np.maximum.reduce(rows, axis=0, where=sound, initial=0.0)
            norms = np.sqrt(squares)
            total = self.norms + np.add.reduce(norms, axis=0, where=sound)
            recurred = norms[-1]
            if sound is not True:
                recurred = np.where(last >= 0, norms[last, np.arange(len(total))], self.norms)
            drift = 32 * eps * (4 * total + 3 * self.iterations * largest * lengths)
            certain = (drift <= 0.1 * recurred) & ~self.claims
        idle = (self.iterations == 0) & np.isfinite(self.norms)
        drifted: _Mask = ~(certain | idle)
        self.norms = np.where(drifted, self.norms, recurred)
        return drifted

    @property
    def running(self) -> _Mask:
        """The tasks that run."""
        return self._running

    @running.setter
    def running(self, running: _Mask) -> None:
        self._running, count = running, np.count_nonzero(running)
        self.is_running, self._all_run = count > 0, count == len(running)
        # Iterations that all tasks that run may still take.
        self.left = self.limit - int(self.iterations[running].max()) if self.is_running else 0

    @property
    def steps(self) -> int:
        """The steps so far."""
        return len(self._squares)

    def judge_all(self, records: NDArray[Any]) -> None:
        """Apply `judge` to consecutive records, shape (steps, 4, tasks); the last row is 1 for tasks that run on."""
        while len(records) and self.is_running:
            quiet = self._count_quiet(records[: self.left, 3])
            if quiet:
                self._pass(np.array(records[:quiet, :3]))
            else:
                self.judge(*records[0, :3])
            records = records[quiet or 1 :]

    def _count_quiet(self, run_on: NDArray[Any]) -> int:
        """Return how many of the first steps no task stops at by itself."""
        quiet = run_on == self.running
        return len(quiet) if quiet.all() else int(quiet.all(axis=1).argmin())

    def _pass(self, steps: NDArray[Any]) -> None:
        """Take steps, shape (steps, 3, tasks), at which no task stops by itself; the last may be the last allowed."""
        self.iterations = self.iterations + len(steps) * self.running
        self._steps.append(steps)
        squares = steps[:, 2]
        self.take(squares if self._all_run else np.where(self.running, squares, steps.dtype.type(np.nan)))
        self.left -= len(steps)
        self.limited = self.left == 0
        if self.limited:
            self.running = self.running & (self.iterations < self.limit)

    def judge(self, curvatures: NDArray[Any], slopes: NDArray[Any], squares: NDArray[Any]) -> _Mask:
        """Decide who stops at this step, and why; return the tasks that may take it.

        ``curvatures`` are pᵀAp, ``slopes`` rᵀM⁻¹r before the step, ``squares`` ‖r‖² after it.
        """
        finite: _Mask = np.isfinite(curvatures) & np.isfinite(slopes) & np.isfinite(squares)
        sound: _Mask = self.running & finite & (curvatures > 0) & (slopes > 0)
        if (sound != self.running).any():
            self.reasons[self.running & (curvatures <= 0)] = StopReason.NON_POSITIVE_CURVATURE
            self.reasons[self.running & (slopes <= 0)] = StopReason.INDEFINITE_PRECONDITIONER
            self.reasons[self.running & ~finite] = StopReason.NOT_FINITE
        self.iterations = self.iterations + sound
        self._steps.append(np.array([[curvatures, slopes, squares]]))
        self.take([np.where(sound, squares, squares.dtype.type(np.nan))])
        claims: _Mask = sound & (np.sqrt(squares) <= self.threshold)
        self.claims = self.claims | claims
        left: _Mask = self.iterations < self.limit
        self.running = sound & ~claims & left
        self.limited = bool((sound & ~claims & ~left).any())
        return sound

    def take(self, squares: Iterable[NDArray[Any]]) -> None:
        """Record steps after which ‖r‖² are these, NaN for tasks that took none."""
        if self._callback is None:
            self._squares.extend(squares)
            return
        for of_step in squares:
            self._squares.append(of_step)
            with np.errstate(all="ignore"):
                norms = np.sqrt(of_step).astype(self.norms.dtype)
                if self._scales is not None:
                    norms = norms / self._scales
            self._callback(len(self._squares), norms)

    def measure(self, norms: NDArray[Any], looked_at: _Mask | None = None) -> None:
        """Take the measured ‖b − Ax‖ of tasks; those that claimed too much run on where that can help.

        ``looked_at`` are the tasks that are judged by them; None: all that took a step. The others are where they
        began, and what is known of them must not depend on the tasks beside them.
        """
        looked_at = self._looked_at = self.iterations > 0 if looked_at is None else looked_at
        norms = np.where(looked_at, norms, self.norms)
        self.reasons[looked_at & (norms <= self.tolerance)] = StopReason.CONVERGED
        self.reasons[looked_at & ~np.isfinite(norms)] = StopReason.NOT_FINITE
        # Without claims there is nothing to refute, and nobody runs on.
        self.running = self._refine(norms) if self.claims.any() else self.claims
        self.norms = norms

    def _refine(self, norms: NDArray[Any]) -> _Mask:
        """Give up the claims; return the tasks that run on from their measured residuals."""
        claims, self.claims = self.claims, np.zeros_like(self.claims)
        with np.errstate(all="ignore"):
            # No residual below the rounding of b can be told from one of that size.
            least_norms = self.rhs_norms * norms.dtype.type(_eps(norms.dtype))
            halves = self.norms / 2
        refuted: _Mask = claims & np.isfinite(norms) & (norms > self.tolerance)
        self.reasons[refuted] = StopReason.PRECISION_LIMIT
        # Running on from the measured residual is iterative refinement. So that it has an end, each round must halve
        # that residual, and the tolerance must be one that can be reached.
        improving: _Mask = refuted & (norms <= halves) & (self.tolerance >= least_norms)
        self.reasons[improving] = StopReason.MAX_ITERATIONS
        return improving & (self.iterations < self.limit)

    def withdraw(self, norms: NDArray[Any], overflowed: _Mask) -> None:
        """Take ‖b − Ax‖, measured where solutions lost digits, or all of them, when they were handed out."""
        self.reasons[(norms > self.tolerance) & (self.reasons == StopReason.CONVERGED)] = StopReason.PRECISION_LIMIT
        self.reasons[overflowed] = StopReason.NOT_FINITE
        self.iterations = np.where(overflowed, 0, self.iterations)
        self.norms = norms

    def report(self) -> SolverReport:
        """Return the report of the solve."""
        reasons: list[StopReason] = self.reasons.tolist()
        norms, bounds = (self.rhs_norms, self.initial_norms, self.norms), self.tolerance
        if self._scales is not None:
            with np.errstate(all="ignore"):
                norms = (norms[0] / self._scales, norms[1] / self._scales, norms[2] / self._scales)
            bounds, _ = self._bounds.of(norms[0], None)
        names: tuple[BoundName, ...] = tuple("rtol" if is_relative else "atol" for is_relative in self._relative)
        return SolverReport(
            self.iterations,
            norms[1],
            norms[2],
            tuple(reasons),
            norms[0],
            bounds,
            names,
            tuple(self._squares),
            self._scales,
        )
