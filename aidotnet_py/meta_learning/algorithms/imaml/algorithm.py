"""iMAML: meta-gradients by the implicit function theorem, at a memory cost that does not grow with the inner steps."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends import Array
from aidotnet_py.caller import level_outside
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning.algorithms.imaml.error_bound import meta_gradient_error_bound
from aidotnet_py.meta_learning.algorithms.imaml.learned_lambda import LogLambda
from aidotnet_py.meta_learning.algorithms.imaml.options import iMAMLOptions
from aidotnet_py.meta_learning.algorithms.imaml.system import (
    ImplicitSystem,
    Solve,
    WarmStarts,
    name_of_task,
    probes_for,
)
from aidotnet_py.meta_learning.contract.enums import MetaLearningAlgorithmType
from aidotnet_py.meta_learning.contract.protocols import is_inner_solver
from aidotnet_py.meta_learning.contract.tasks import is_batches
from aidotnet_py.meta_learning.learner.core import Tasks
from aidotnet_py.meta_learning.learner.step import MetaGradientLearner, TaskGradients
from aidotnet_py.meta_learning.objective.chunk import Chunk
from aidotnet_py.meta_learning.objective.finiteness import row_norms
from aidotnet_py.solvers import NeumannReport, SolverReport, StopReason
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["LooseToleranceWarning", "NonPositiveCurvatureWarning", "SeriesGrowthWarning", "iMAMLAlgorithm"]

# Of ‖g‖: a residual above it is no small error in v.
_LOOSE = 0.01


class LooseToleranceWarning(RuntimeWarning):
    """ConjugateGradientTolerance, which is absolute, ended a solve whose residual is a large part of its gradient."""


class NonPositiveCurvatureWarning(RuntimeWarning):
    """A solve stopped at a direction along which I + λH is not positive; what it found so far was used."""


class SeriesGrowthWarning(RuntimeWarning):
    """A Neumann series grows instead of shrinking: ‖λH‖ > 1 along g, and its sum approximates nothing."""


@dataclass(frozen=True)
class _Details:
    """What there is to tell of a chunk: norms at φ, one a task, and the solve."""

    chunk: Chunk
    inner_norms: NDArray[Any]
    query_norms: NDArray[Any] | None
    solve: Solve | None


class iMAMLAlgorithm(MetaGradientLearner[T, TInput, TOutput]):
    """Implicit MAML (Rajeswaran, Finn, Kakade & Levine 2019, Algorithms 1 and 2).

    For each task, with θ the meta-parameters:

    1. φ ← θ, then K = AdaptationSteps inner steps on the support loss (with its proximal term, if so chosen);
    2. g = ∇L_query(φ);
    3. solve (I + λH) v = g, H the curvature of the support loss at φ in exact products, by conjugate gradient, from
       zero or the task's last solution, preconditioned if so chosen, or by a series. Where every parameter has a λ of
       its own, D = diag(λ), v = D⁻¹(H + D⁻¹)⁻¹g.

    The mean of v over the tasks, clipped, goes to the meta-optimizer. With InnerObjective "proximal", v tends to the
    exact gradient of L_query(φ(θ)) as the inner steps converge; with "support" it is AiDotNet's documented heuristic.
    Since only φ counts, and not how it was found, InnerOptimizer may be any solver. With a learned λ, its gradient
    comes from the same solve: dL_query/d(log λ) = Σᵢ vᵢ(φᵢ − θᵢ), or one such term for each parameter.

    Parameters
    ----------
    options : iMAMLOptions
        Read when used, so it can be changed between steps.

    Raises
    ------
    ArgumentNullException
        When options is None.
    InvalidOperationException
        When options has no model.
    ArgumentException
        When an option is invalid; the message names the first.

    Warns
    -----
    LooseToleranceWarning
        In `MetaTrain`, when ConjugateGradientTolerance ends a solve at a residual above a hundredth of ‖g‖, the first
        time: a gradient below the tolerance gives v = 0.
    NonPositiveCurvatureWarning
        In `MetaTrain`, when a solve meets non-positive curvature, the first time.
    SeriesGrowthWarning
        In `MetaTrain`, when a Neumann series grows; the message has the norms of its last two terms.

    References
    ----------
    Rajeswaran, A., Finn, C., Kakade, S. M. & Levine, S. (2019). Meta-learning with implicit gradients. NeurIPS.

    Examples
    --------
    One task, y = 3x, and a model y = wx from w = 0:

    >>> import numpy as np
    >>> from aidotnet_py import FunctionModel, MetaLearningTask, SGDOptimizer, TaskBatch, iMAMLAlgorithm, iMAMLOptions
    >>> model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((1, 1))})
    >>> x = np.array([[1.0], [-1.0]])
    >>> task = MetaLearningTask(SupportSetX=x, SupportSetY=3 * x, QuerySetX=2 * x, QuerySetY=6 * x, NumWays=1)
    >>> options = iMAMLOptions.FromPaper(model, Lambda=2.0, InnerLearningRate=0.1, MetaOptimizer=SGDOptimizer(0.1))
    >>> learner = iMAMLAlgorithm(options)
    >>> losses = [learner.MetaTrain(TaskBatch([task])) for _ in range(20)]
    >>> [round(float(loss), 3) for loss in losses[:3]]
    [9.109, 5.812, 3.709]
    >>> learner.Adapt(task).Predict(np.array([[1.0]])).round(2)
    array([[2.98]])
    """

    _options_type = iMAMLOptions

    def __init__(self, options: iMAMLOptions[T, TInput, TOutput]) -> None:
        super().__init__(options)
        self._imaml = options
        self._warned_of_curvature = self._warned_of_tolerance = False
        self._begin_anew()

    @property
    def AlgorithmType(self) -> MetaLearningAlgorithmType:
        """``MetaLearningAlgorithmType.iMAML``."""
        return MetaLearningAlgorithmType.iMAML

    @property
    def LambdaRegularization(self) -> float | Array:
        """λ as it is now: the option, or what was learned, a number or an array (P,)."""
        learned = self._learned_lambda()
        return float(self._imaml.LambdaRegularization) if learned is None else learned.value

    # What is learned and kept beside the model's parameters.

    def _begin_anew(self) -> None:
        self._log_lambda: LogLambda | None = None
        self._warm_starts = WarmStarts()
        # The signs that diagonals are estimated with, beside what they were made for.
        self._probes: tuple[Any, Array | None] = (None, None)

    def _learned_lambda(self) -> LogLambda | None:
        kind = self._imaml.LearnedLambda
        if kind is None:
            return None
        with self._state:
            if self._log_lambda is None or self._log_lambda.kind != kind:
                first, parameters = float(self._imaml.LambdaRegularization), self.BaseModel.GetParameters()
                self._log_lambda = LogLambda.beginning(kind, self._backend, first, parameters)
            return self._log_lambda

    def _lambda_of(self, chunk: Chunk) -> float | Array:
        """λ as it was when the call began."""
        now = self._learned_lambda()
        if now is None or chunk.learned is None:
            return float(self._imaml.LambdaRegularization)
        return (now if now.logarithms is chunk.learned else LogLambda(now.kind, chunk.backend, chunk.learned)).value

    def _learned(self) -> Array | None:
        learned = self._learned_lambda()
        return None if learned is None else learned.logarithms

    def _set_learned(self, vector: Array) -> None:
        kind = self._imaml.LearnedLambda
        assert kind is not None
        self._log_lambda = LogLambda(kind, self._backend, vector)

    def _opened(self, tasks: Tasks[T, TInput, TOutput], *roles: str, training: bool = True) -> Chunk:
        for place, task in enumerate(tasks):
            if self._imaml.WarmStartSolves:
                name_of_task(task.TaskId, place)
            if self._imaml.InnerGradientTolerance is not None and is_batches(task.SupportInput):
                raise ArgumentException(
                    f"InnerGradientTolerance is {self._imaml.InnerGradientTolerance}, and SupportInput of task {place} "
                    "a list of batches; the gradient of one does not tell when all are fitted, and None is wanted"
                )
        return super()._opened(tasks, *roles, training=training)

    def _extra_state(self) -> dict[str, Array]:
        return self._warm_starts.state()

    def _set_extra_state(self, state: Mapping[str, Array]) -> None:
        self._warm_starts.set_state(state, self.BaseModel.GetParameters(), self._backend)

    # The step.

    def _inner_tolerance(self) -> float | None:
        return self._imaml.InnerGradientTolerance

    def _proximal_strength(self, chunk: Chunk) -> Array | float | None:
        return None if self._imaml.InnerObjective == "support" else 1.0 / self._lambda_of(chunk)

    def _meta_gradients(self, chunk: Chunk) -> TaskGradients:
        """Algorithm 2 for some of the tasks."""
        system = self._system(chunk)
        with chunk.together() if self._is_one_piece(system) else nullcontext():
            start, adapted = self._adapted(chunk)
            losses, g = chunk.query.evaluate(adapted)
            begun = system.begin(chunk, adapted, g)
        measured = self._sound(chunk, losses, g)
        slopes, v, solve = system.finish(chunk, adapted, g, begun)
        query_norms = row_norms(chunk.backend, g) if self._imaml.ErrorConstants is not None else None
        inner_norms = row_norms(chunk.backend, self._rule(chunk).follow(adapted, start, slopes))
        chunk.require_finite("meta-gradient", v)
        learned = self._learned_lambda()
        if learned is not None:
            v = self._backend.concat([v, learned.slopes(v, adapted - start)], 1)
        return TaskGradients(measured, v, _Details(chunk, inner_norms, query_norms, solve))

    def _is_one_piece(self, system: ImplicitSystem) -> bool:
        """Whether a device can do the whole step without the host."""
        by_steps = not is_inner_solver(self._imaml.InnerOptimizer) and self._imaml.InnerGradientTolerance is None
        return system.is_plain and by_steps

    def _system(self, chunk: Chunk) -> ImplicitSystem:
        warm = self._warm_starts if self._imaml.WarmStartSolves else None
        return ImplicitSystem(self._imaml, self._lambda_of(chunk), self._signs(), warm)

    def _signs(self) -> Array | None:
        """The same at every step, so that they are drawn once and not for each chunk."""
        key = (self._imaml.PreconditionerProbes, self._imaml.RandomSeed, self._backend.name, self._kind)
        made_for, signs = self._probes
        if made_for != key:
            signs = probes_for(self._imaml, self.BaseModel.GetParameters(), self._backend)
            self._probes = key, signs
        return signs

    # What a step reports and keeps.

    def _metrics(self, details: Sequence[_Details]) -> dict[str, float]:
        """How far inner loops and solves were from their ends; warns of what went wrong in the solves."""
        reports = [part.solve.report for part in details if part.solve is not None]
        self._warn(reports)
        inner = np.concatenate([part.inner_norms for part in details])
        return {"InnerGradientNorm": float(np.max(inner)), **_of_solves(reports), **self._bounds(details, reports)}

    def _bounds(self, details: Sequence[_Details], reports: Sequence[SolverReport]) -> dict[str, float]:
        """Distances that hold where the support losses are convex, with the strong convexity that is known of them."""
        lam, constants = self.LambdaRegularization, self._imaml.ErrorConstants
        if self._imaml.InnerObjective != "proximal" or not isinstance(lam, float):
            return {}
        stiffness = 1.0 + lam * (0.0 if constants is None else constants.strong_convexity)
        inner = np.concatenate([part.inner_norms for part in details])
        found = {"InnerDistance": lam * float(np.max(inner)) / stiffness}
        if not reports:
            return found
        residuals = np.concatenate([report.residual_norms for report in reports])
        found["SolveError"] = float(np.max(residuals)) / stiffness
        if constants is not None:
            query = np.concatenate([part.query_norms for part in details if part.query_norms is not None])
            bounds = meta_gradient_error_bound(inner, residuals, query, lam, constants)
            # Of the mean over the tasks, which errs by at most the mean of their errors.
            found["MetaGradientErrorBound"] = float(np.mean(bounds))
        return found

    def _done(self, details: Sequence[_Details]) -> None:
        if self._imaml.WarmStartSolves:
            for part in details:
                if part.solve is not None:
                    ids = [task.TaskId for task in part.chunk.tasks]
                    self._warm_starts.keep(self._backend, ids, part.solve.solutions)

    def _warn(self, reports: Sequence[SolverReport]) -> None:
        """Of series that grow, each time; of curvature that is not positive and of small gradients, once each."""
        series = [report for report in reports if isinstance(report, NeumannReport)]
        if series:
            _warn_of_growth(series)
        curved = _curved(reports)
        if any(curved) and not self._warned_of_curvature:
            self._warned_of_curvature = True
            warnings.warn(
                f"conjugate gradient met non-positive curvature in {sum(curved)} of {len(curved)} tasks and stopped "
                "there: I + λH is indefinite where the inner steps ended. More or shorter inner steps, a smaller "
                "LambdaRegularization, ConjugateGradientDamping or Curvature='gauss-newton' mend it; each step's "
                "NonPositiveCurvatureTasks counts them, and this is said once",
                NonPositiveCurvatureWarning,
                stacklevel=level_outside(),
            )
        ended = [report for report in reports if StopReason.CONVERGED in report.stop_reasons]
        if ended and not series and not self._warned_of_tolerance:
            self._warn_of_tolerance(ended)

    def _warn_of_tolerance(self, reports: Sequence[SolverReport]) -> None:
        loose = np.concatenate([_is_loose(report) for report in reports])
        if loose.any():
            self._warned_of_tolerance = True
            norms = np.concatenate([report.rhs_norms for report in reports])
            warnings.warn(
                f"ConjugateGradientTolerance {self._imaml.ConjugateGradientTolerance:g} ended the solves of "
                f"{loose.sum()} tasks at a residual above a hundredth of their gradients, the smallest of norm "
                f"{norms[loose].min():.3g}: v is that inexact, and zero where the gradient is no larger than the "
                "tolerance. A smaller ConjugateGradientTolerance or larger units of the targets mend it; this is said "
                "once",
                LooseToleranceWarning,
                stacklevel=level_outside(),
            )


def _curved(reports: Sequence[SolverReport]) -> list[bool]:
    """For each task, whether its solve met non-positive curvature."""
    return [bool(met) for report in reports for met in report.stopped_by(StopReason.NON_POSITIVE_CURVATURE)]


def _is_loose(report: SolverReport) -> NDArray[np.bool_]:
    """For each task, whether its bound ended the solve while the residual was a large part of the right-hand side."""
    return report.converged & (report.residual_norms > _LOOSE * report.rhs_norms)


def _of_solves(reports: Sequence[SolverReport]) -> dict[str, float]:
    """What there is to tell of the solves."""
    if not reports:
        return {}
    found = {
        "SolverResidual": float(max(np.max(report.residual_norms) for report in reports)),
        "SolverIterations": float(max(np.max(report.iterations) for report in reports)),
    }
    series = [report for report in reports if isinstance(report, NeumannReport)]
    if series:
        return found | {"GrowingSeriesTasks": float(sum(np.sum(report.grew) for report in series))}
    return found | {"NonPositiveCurvatureTasks": float(sum(_curved(reports)))}


def _warn_of_growth(reports: Sequence[NeumannReport]) -> None:
    grew = np.concatenate([report.grew for report in reports])
    if grew.any():
        task = int(np.argmax(grew))
        before, last = (np.concatenate([r.term_norms[place] for r in reports])[task] for place in (-2, -1))
        warnings.warn(
            f"the Neumann series of task {task} grows: its last two terms have norms {before:.4g} and {last:.4g}; "
            "a smaller LambdaRegularization or conjugate gradient is wanted",
            SeriesGrowthWarning,
            stacklevel=level_outside(),
        )
