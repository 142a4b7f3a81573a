"""The metrics of an iMAML step, of its inner loops and its solves, and warnings about solves that failed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends import Array
from aidotnet_py.caller import level_outside
from aidotnet_py.meta_learning.algorithms.imaml.error_bound import meta_gradient_error_bound
from aidotnet_py.meta_learning.algorithms.imaml.options import iMAMLOptions
from aidotnet_py.meta_learning.algorithms.imaml.system import Solve
from aidotnet_py.meta_learning.learner.tasks import Tasks
from aidotnet_py.meta_learning.objective.finiteness import row_norms
from aidotnet_py.solvers import NeumannReport, SolverReport, StopReason

__all__ = [
    "Details",
    "LooseToleranceWarning",
    "NonPositiveCurvatureWarning",
    "SeriesGrowthWarning",
    "Warnings",
    "metrics",
]

# A share of ‖g‖: a larger residual is a large error in v.
_LOOSE = 0.01


class LooseToleranceWarning(RuntimeWarning):
    """ConjugateGradientTolerance, which is absolute, ended a solve whose residual is a large part of its gradient."""


class NonPositiveCurvatureWarning(RuntimeWarning):
    """A solve stopped at a direction along which I + λH is not positive; its last iterate was used."""


class SeriesGrowthWarning(RuntimeWarning):
    """A Neumann series grows instead of shrinking: ‖λH‖ > 1 along g, and its sum is no approximation of v."""


@dataclass(frozen=True)
class Details:
    """Measurements of some tasks: TaskIds and names in messages, norms at φ, one for each task, and the solve.

    The solutions are there only if the next solves start from them, since workers send them home.
    """

    ids: list[int | str]
    names: list[str]
    inner_norms: NDArray[Any]
    query_norms: NDArray[Any] | None
    report: SolverReport | None
    solutions: Array | None

    @classmethod
    def of(
        cls,
        options: iMAMLOptions[Any, Any, Any],
        tasks: Tasks,
        adapted: Array,
        g: Array,
        slopes: Array,
        solve: Solve | None,
    ) -> Details:
        """Return the measurements at φ, given ∇L_q and ∇L_s there."""
        query_norms = row_norms(tasks.backend, g) if options.ErrorConstants is not None else None
        inner_norms = row_norms(tasks.backend, tasks.rule.follow(adapted, tasks.start, slopes))
        if solve is None:
            return cls(tasks.ids, [], inner_norms, query_norms, None, None)
        solutions = solve.solutions if options.WarmStartSolves else None
        # No other report is told of by task.
        names = tasks.names if isinstance(solve.report, NeumannReport) else []
        return cls(tasks.ids, names, inner_norms, query_norms, solve.report, solutions)


def metrics(options: iMAMLOptions[Any, Any, Any], lam: float | Array, details: Sequence[Details]) -> dict[str, float]:
    """Return the metrics of a step."""
    reports = [part.report for part in details if part.report is not None]
    inner = np.concatenate([part.inner_norms for part in details])
    return {
        "InnerGradientNorm": float(np.max(inner)),
        **_of_solves(reports),
        **_distances(options, lam, details, reports),
    }


def _distances(
    options: iMAMLOptions[Any, Any, Any],
    lam: float | Array,
    details: Sequence[Details],
    reports: Sequence[SolverReport],
) -> dict[str, float]:
    """Return bounds that hold for convex support losses; strong convexity in ErrorConstants makes them tighter."""
    constants = options.ErrorConstants
    if options.InnerObjective != "proximal" or not isinstance(lam, float):
        return {}
    stiffness = 1.0 + lam * (0.0 if constants is None else constants.strong_convexity)
    inner = np.concatenate([part.inner_norms for part in details])
    distances = {"InnerDistance": lam * float(np.max(inner)) / stiffness}
    if not reports:
        return distances
    residuals = np.concatenate([report.residual_norms for report in reports])
    distances["SolveError"] = float(np.max(residuals)) / stiffness
    if constants is not None:
        query = np.concatenate([part.query_norms for part in details if part.query_norms is not None])
        bounds = meta_gradient_error_bound(inner, residuals, query, lam, constants)
        # The error of the mean over the tasks is at most the mean of the tasks' errors.
        distances["MetaGradientErrorBound"] = float(np.mean(bounds))
    return distances


class Warnings:
    """The warnings of a learner; some of them appear only once."""

    def __init__(self) -> None:
        self._told_of_curvature = self._told_of_tolerance = False

    def warn(self, options: iMAMLOptions[Any, Any, Any], details: Sequence[Details]) -> None:
        """Warn of growing series, each time, and of non-positive curvature and of loose tolerances, once each."""
        reports = [part.report for part in details if part.report is not None]
        series = [(part.names, part.report) for part in details if isinstance(part.report, NeumannReport)]
        for names, report in series:
            if report.grew.any():
                _warn_of_growth(names, report)
                break
        curved = _curvature_flags(reports)
        if any(curved) and not self._told_of_curvature:
            self._told_of_curvature = True
            warnings.warn(
                f"conjugate gradient met non-positive curvature in {sum(curved)} of {len(curved)} tasks and stopped "
                "there: I + λH is indefinite where the inner steps ended. More or shorter inner steps, a smaller "
                "LambdaRegularization, ConjugateGradientDamping or Curvature='gauss-newton' help; each step's "
                "NonPositiveCurvatureTasks counts them, and this warning appears once",
                NonPositiveCurvatureWarning,
                stacklevel=level_outside(),
            )
        ended = [report for report in reports if StopReason.CONVERGED in report.stop_reasons]
        if ended and not series and not self._told_of_tolerance:
            self._warn_of_tolerance(options, ended)

    def _warn_of_tolerance(self, options: iMAMLOptions[Any, Any, Any], reports: Sequence[SolverReport]) -> None:
        loose = np.concatenate([_is_loose(report) for report in reports])
        if loose.any():
            self._told_of_tolerance = True
            norms = np.concatenate([report.rhs_norms for report in reports])
            warnings.warn(
                f"ConjugateGradientTolerance {options.ConjugateGradientTolerance:g} ended the solves of "
                f"{loose.sum()} tasks at a residual above a hundredth of their gradients, the smallest of norm "
                f"{norms[loose].min():.3g}: v is that inexact, and zero where the gradient is no larger than the "
                "tolerance. A smaller ConjugateGradientTolerance or larger units of the targets help; this warning "
                "appears once",
                LooseToleranceWarning,
                stacklevel=level_outside(),
            )


def _curvature_flags(reports: Sequence[SolverReport]) -> list[bool]:
    """Return for each task whether its solve met non-positive curvature."""
    return [bool(met) for report in reports for met in report.stopped_by(StopReason.NON_POSITIVE_CURVATURE)]


def _is_loose(report: SolverReport) -> NDArray[np.bool_]:
    """Return for each task whether its bound ended the solve at a residual that is a large part of the gradient."""
    return report.converged & (report.residual_norms > _LOOSE * report.rhs_norms)


def _of_solves(reports: Sequence[SolverReport]) -> dict[str, float]:
    """Return the metrics of the solves."""
    if not reports:
        return {}
    numbers = {
        "SolverResidual": float(max(np.max(report.residual_norms) for report in reports)),
        "SolverIterations": float(max(np.max(report.iterations) for report in reports)),
    }
    series = [report for report in reports if isinstance(report, NeumannReport)]
    if series:
        return numbers | {"GrowingSeriesTasks": float(sum(np.sum(report.grew) for report in series))}
    return numbers | {"NonPositiveCurvatureTasks": float(sum(_curvature_flags(reports)))}


def _warn_of_growth(names: Sequence[str], report: NeumannReport) -> None:
    task = int(np.argmax(report.grew))
    before, last = (report.term_norms[place][task] for place in (-2, -1))
    warnings.warn(
        f"the Neumann series of {names[task]} grows: its last two terms have norms {before:.4g} and {last:.4g}; "
        "use a smaller LambdaRegularization or conjugate gradient",
        SeriesGrowthWarning,
        stacklevel=level_outside(),
    )
