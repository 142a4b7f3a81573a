"""iMAML: meta-gradients by the implicit function theorem, at a memory cost that does not grow with the inner steps."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends import Array
from aidotnet_py.caller import level_outside
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning.algorithms.imaml_lambda import LearnedLambda
from aidotnet_py.meta_learning.algorithms.imaml_options import iMAMLOptions
from aidotnet_py.meta_learning.algorithms.imaml_solve import ImplicitSystem, WarmStarts, met_curvature, probes_for
from aidotnet_py.meta_learning.chunks import Chunk
from aidotnet_py.meta_learning.enums import MetaLearningAlgorithmType
from aidotnet_py.meta_learning.error_bound import meta_gradient_error_bound
from aidotnet_py.meta_learning.gradient_learner import MetaGradientLearner, QueryResult, TaskGradients
from aidotnet_py.solvers import NeumannReport, SolverReport
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["NonPositiveCurvatureWarning", "SeriesGrowthWarning", "iMAMLAlgorithm"]


class NonPositiveCurvatureWarning(RuntimeWarning):
    """A solve stopped at a direction along which I + λH is not positive; what it found so far was used."""


class SeriesGrowthWarning(RuntimeWarning):
    """A Neumann series grows instead of shrinking: ‖λH‖ > 1 along g, and its sum approximates nothing."""


@dataclass(frozen=True)
class _Details:
    """What there is to tell of a chunk: norms at φ, one a task, the solve, and what it came to."""

    inner_norms: NDArray[Any]
    query_norms: NDArray[Any]
    report: SolverReport | None = None
    ids: Sequence[int | str] = ()
    solutions: Array = None


class iMAMLAlgorithm(MetaGradientLearner[T, TInput, TOutput]):
    """Implicit MAML (Rajeswaran, Finn, Kakade & Levine 2019, Algorithms 1 and 2).

    For each task, with θ the meta-parameters:

    1. φ ← θ, then K = AdaptationSteps inner steps on the support loss (with its proximal term, if so chosen);
    2. g = ∇L_query(φ);
    3. solve (I + λH) v = g by conjugate gradient, H the curvature of the support loss at φ, in exact products.

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

    def __init__(self, options: iMAMLOptions[T, TInput, TOutput]) -> None:
        super().__init__(options)
        if not isinstance(options, iMAMLOptions):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
            raise ArgumentException(f"options is a {type(options).__name__}; iMAMLOptions are wanted")
        self._imaml = options
        self._warned_of_curvature = False
        self._forget()

    def _forget(self) -> None:
        """Begin with the options' λ, and with no solutions."""
        self._learned: LearnedLambda | None = None
        self._warm_starts = WarmStarts()

    @property
    def AlgorithmType(self) -> MetaLearningAlgorithmType:
        """``MetaLearningAlgorithmType.iMAML``."""
        return MetaLearningAlgorithmType.iMAML

    @property
    def Lambda(self) -> float | Array:
        """λ as it is now: a number, or an array (P,) where each parameter has learned its own."""
        learned = self._learned_lambda()
        return float(self._imaml.LambdaRegularization) if learned is None else learned.value

    # What is learned beside the model's parameters.

    def _learned_lambda(self) -> LearnedLambda | None:
        kind = self._imaml.LearnedLambda
        if kind is None:
            return None
        if self._learned is None or self._learned.kind != kind:
            first, parameters = float(self._imaml.LambdaRegularization), self.BaseModel.GetParameters()
            self._learned = LearnedLambda.beginning(kind, self._backend, first, parameters)
        return self._learned

    def _meta_parameters(self) -> Array:
        learned, parameters = self._learned_lambda(), super()._meta_parameters()
        return parameters if learned is None else self._backend.concat([parameters, learned.logarithms], 0)

    def _set_meta_parameters(self, vector: Array) -> None:
        backend, kind = self._backend, self._imaml.LearnedLambda
        if kind is None:
            super()._set_meta_parameters(vector)
            return
        count = int(self.BaseModel.GetParameters().shape[0])
        # First what may fail, then what changes anything.
        learned = LearnedLambda(kind, backend, backend.asarray(backend.index(vector, (slice(count, None),))))
        super()._set_meta_parameters(backend.asarray(backend.index(vector, (slice(0, count),))))
        self._learned = learned

    def _reset_optimizers(self) -> None:
        super()._reset_optimizers()
        self._forget()

    def _extra_state(self) -> dict[str, Array]:
        return self._warm_starts.state()

    def _set_extra_state(self, state: Mapping[str, Array]) -> None:
        self._warm_starts.set_state(state, self.BaseModel.GetParameters(), self._backend)

    # The step.

    def _inner_tolerance(self) -> float | None:
        return self._imaml.InnerGradientTolerance

    def _proximal_strength(self) -> Array | float | None:
        return None if self._imaml.InnerObjective == "support" else 1.0 / self.Lambda

    def _meta_gradients(self, chunk: Chunk) -> TaskGradients:
        """Algorithm 2 for some of the tasks."""
        start, adapted = self._adapted(chunk)
        query = self._query_result(chunk, adapted)
        slopes, v, details = self._solved(chunk, adapted, query)
        inner = self._inner_gradient(adapted, start, slopes)
        chunk.require_finite("meta-gradient", v)
        learned = self._learned_lambda()
        if learned is not None:
            v = self._backend.concat([v, learned.slopes(v, adapted - start)], 1)
        return TaskGradients(query, v, replace(details, inner_norms=self._norms(inner)))

    def _solved(self, chunk: Chunk, adapted: Array, query: QueryResult) -> tuple[Array, Array, _Details]:
        """The support gradients at φ, the v of (I + λH) v = g for every task, and what there is to tell of it."""
        options, nothing = self._imaml, np.empty(0)
        if options.UseFirstOrder:
            v = self._backend.asarray(query.gradients)
            return chunk.support.evaluate(adapted).gradients, v, _Details(nothing, nothing)
        warm = self._warm_starts if options.WarmStartSolves else None
        probes = probes_for(options, self.BaseModel.GetParameters(), self._backend)
        norms = nothing if options.ErrorConstants is None else self._norms(query.gradients)
        system = ImplicitSystem(options, self.Lambda, probes, warm)
        slopes, v, solutions, report = system.solved(chunk, adapted, query.gradients)
        if warm is None:
            return slopes, v, _Details(nothing, norms, report)
        return slopes, v, _Details(nothing, norms, report, [task.TaskId for task in chunk.tasks], solutions)

    # What a step reports and keeps.

    def _metrics(self, details: Sequence[_Details]) -> dict[str, float]:
        """How far inner loops and solves were from their ends; warns of what went wrong in the solves."""
        inner = np.concatenate([part.inner_norms for part in details])
        metrics = {"InnerGradientNorm": float(np.max(inner))}
        reports = [part.report for part in details if part.report is not None]
        if reports:
            self._report(reports, metrics)
        lam = self.Lambda
        if self._imaml.InnerObjective == "proximal" and isinstance(lam, float):
            query = np.concatenate([part.query_norms for part in details])
            self._bounds(metrics, inner, query, reports, lam)
        return metrics

    def _bounds(
        self,
        metrics: dict[str, float],
        inner: NDArray[Any],
        query: NDArray[Any],
        reports: Sequence[SolverReport],
        lam: float,
    ) -> None:
        """Distances that hold where the support losses are convex, with the strong convexity that is known of them."""
        constants = self._imaml.ErrorConstants
        stiffness = 1.0 + lam * (0.0 if constants is None else constants.strong_convexity)
        metrics["InnerDistance"] = lam * metrics["InnerGradientNorm"] / stiffness
        if not reports:
            return
        metrics["SolveError"] = metrics["SolverResidual"] / stiffness
        if constants is not None:
            residuals = np.concatenate([report.residual_norms for report in reports])
            bounds = meta_gradient_error_bound(inner, residuals, query, lam, constants)
            # Of the mean over the tasks, which errs by at most the mean of their errors.
            metrics["MetaGradientErrorBound"] = float(np.mean(bounds))

    def _done(self, details: Sequence[_Details]) -> None:
        for part in details:
            if part.ids:
                self._warm_starts.keep(self._backend, part.ids, part.solutions)

    def _report(self, reports: Sequence[SolverReport], metrics: dict[str, float]) -> None:
        """Fill in what the solves say, and warn of what went wrong in them."""
        metrics["SolverResidual"] = float(max(np.max(report.residual_norms) for report in reports))
        metrics["SolverIterations"] = float(max(np.max(report.iterations) for report in reports))
        series = [report for report in reports if isinstance(report, NeumannReport)]
        if series:
            metrics["GrowingSeriesTasks"] = float(sum(np.sum(report.grew) for report in series))
            _warn_of_growth(series)
            return
        curved = np.concatenate([met_curvature(report) for report in reports])
        metrics["NonPositiveCurvatureTasks"] = float(np.sum(curved))
        if curved.any() and not self._warned_of_curvature:
            self._warned_of_curvature = True
            warnings.warn(
                f"conjugate gradient met non-positive curvature in {np.sum(curved)} of {len(curved)} tasks and stopped "
                "there: I + λH is indefinite where the inner steps ended. More or shorter inner steps, a smaller "
                "LambdaRegularization, ConjugateGradientDamping or Curvature='gauss-newton' mend it; each step's "
                "NonPositiveCurvatureTasks counts them, and this is said once",
                NonPositiveCurvatureWarning,
                stacklevel=level_outside(),
            )

    def _norms(self, stacked: Array) -> NDArray[Any]:
        """The norm of each row, on the host."""
        backend = self._backend
        squares = backend.to_numpy(backend.vecdot(stacked, stacked))
        if np.isfinite(squares).all():
            norms: NDArray[Any] = np.sqrt(squares)
            return norms
        # In float64 and on the host: squares of large float32 numbers overflow.
        wide: NDArray[Any] = np.linalg.norm(backend.to_numpy(stacked).astype(np.float64), axis=1)
        return wide


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
