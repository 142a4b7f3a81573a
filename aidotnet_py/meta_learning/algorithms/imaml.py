"""iMAML: meta-gradients by the implicit function theorem, at a memory cost that does not grow with the inner steps."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends import Array
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning.algorithms.imaml_options import iMAMLOptions
from aidotnet_py.meta_learning.caller import level_outside
from aidotnet_py.meta_learning.chunks import Chunk
from aidotnet_py.meta_learning.enums import MetaLearningAlgorithmType
from aidotnet_py.meta_learning.gradient_learner import MetaGradientLearner, TaskGradients
from aidotnet_py.solvers import NeumannReport, Operator, SolverReport, StopReason, conjugate_gradient, neumann_series
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["NonPositiveCurvatureWarning", "SeriesGrowthWarning", "iMAMLAlgorithm"]


class NonPositiveCurvatureWarning(RuntimeWarning):
    """A solve stopped at a direction along which I + λH is not positive; what it found so far was used."""


class SeriesGrowthWarning(RuntimeWarning):
    """A Neumann series grows instead of shrinking: ‖λH‖ > 1 along g, and its sum approximates nothing."""


@dataclass(frozen=True)
class _Details:
    """What there is to report of a chunk: the largest norm of an inner gradient at φ, and the solve."""

    inner_norm: float
    report: SolverReport | None


class iMAMLAlgorithm(MetaGradientLearner[T, TInput, TOutput]):
    """Implicit MAML (Rajeswaran, Finn, Kakade & Levine 2019, Algorithms 1 and 2).

    For each task, with θ the meta-parameters:

    1. φ ← θ, then K = AdaptationSteps inner steps on the support loss (with its proximal term, if so chosen);
    2. g = ∇L_query(φ);
    3. solve (I + λH) v = g by conjugate gradient, H the curvature of the support loss at φ, in exact products.

    The mean of v over the tasks, clipped, goes to the meta-optimizer. With InnerObjective "proximal", v tends to the
    exact gradient of L_query(φ(θ)) as the inner steps converge; with "support" it is AiDotNet's documented heuristic.

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

    @property
    def AlgorithmType(self) -> MetaLearningAlgorithmType:
        """``MetaLearningAlgorithmType.iMAML``."""
        return MetaLearningAlgorithmType.iMAML

    def _meta_gradients(self, chunk: Chunk) -> TaskGradients:
        """Algorithm 2 for some of the tasks."""
        start, adapted = self._adapted(chunk)
        query = self._query_result(chunk, adapted)
        slopes, v, report = self._solved(chunk, adapted, query.gradients)
        inner = self._inner_gradient(adapted, start, slopes)
        chunk.require_finite("meta-gradient", v)
        return TaskGradients(query, v, _Details(self._largest_norm(inner), report))

    def _solved(self, chunk: Chunk, adapted: Array, gradients: Array) -> tuple[Array, Array, SolverReport | None]:
        """The support gradients at φ, and the v of (I + λH) v = g for every task, with the report of the solve."""
        options = self._imaml
        if options.UseFirstOrder:
            return chunk.support.evaluate(adapted).gradients, self._backend.asarray(gradients), None
        slopes, operator = chunk.support.curvature(
            adapted,
            options.Curvature,
            identity=1.0 + float(options.ConjugateGradientDamping),
            weight=float(options.LambdaRegularization),
        )
        by = self._by_series if options.UseNeumannApproximation else self._by_conjugate_gradient
        v, report = by(operator, gradients)
        stopped = np.array([reason is StopReason.NOT_FINITE for reason in report.stop_reasons])
        chunk.require_sound("solve", ~stopped)
        return slopes, v, report

    def _by_conjugate_gradient(self, operator: Operator, gradients: Array) -> tuple[Array, SolverReport]:
        options, backend = self._imaml, self._backend
        v, report = conjugate_gradient(
            operator,
            gradients,
            max_iterations=options.ConjugateGradientIterations,
            tolerance=options.ConjugateGradientTolerance,
        )
        # Stopped before its first step, a solve is still at zero: the first-order gradient says more than nothing.
        unmoved = _curved(report) & (report.iterations == 0)
        if unmoved.any():
            mask = backend.broadcast_to(backend.asarray(unmoved[:, None]), tuple(v.shape))
            v = backend.elementwise("where")(mask, gradients, v)
        return v, report

    def _by_series(self, operator: Operator, gradients: Array) -> tuple[Array, SolverReport]:
        return neumann_series(operator, gradients, terms=self._imaml.NeumannSeriesTerms)

    def _metrics(self, details: Sequence[_Details]) -> dict[str, float]:
        """What inner loops and solves say; warns of what went wrong in the solves."""
        metrics = {"InnerGradientNorm": max(part.inner_norm for part in details)}
        reports = [part.report for part in details if part.report is not None]
        if reports:
            self._report(reports, metrics)
        return metrics

    def _report(self, reports: Sequence[SolverReport], metrics: dict[str, float]) -> None:
        """Fill in what the solves say, and warn of what went wrong in them."""
        metrics["SolverResidual"] = float(max(np.max(report.residual_norms) for report in reports))
        metrics["SolverIterations"] = float(max(np.max(report.iterations) for report in reports))
        series = [report for report in reports if isinstance(report, NeumannReport)]
        if series:
            metrics["GrowingSeriesTasks"] = float(sum(np.sum(report.grew) for report in series))
            _warn_of_growth(series)
            return
        curved = np.concatenate([_curved(report) for report in reports])
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

    def _largest_norm(self, stacked: Array) -> float:
        backend = self._backend
        squares = backend.to_numpy(backend.vecdot(stacked, stacked))
        if np.isfinite(squares).all():
            return float(np.sqrt(np.max(squares)))
        # In float64 and on the host: squares of large float32 numbers overflow.
        return float(np.max(np.linalg.norm(backend.to_numpy(stacked).astype(np.float64), axis=1)))


def _curved(report: SolverReport) -> NDArray[np.bool_]:
    """Which tasks' solves met non-positive curvature."""
    return np.array([reason is StopReason.NON_POSITIVE_CURVATURE for reason in report.stop_reasons])


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
