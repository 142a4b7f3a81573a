"""iMAML: meta-gradients by the implicit function theorem, at a memory cost that does not grow with the inner steps."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from aidotnet_py.backends import Array
from aidotnet_py.meta_learning.algorithms.imaml_options import iMAMLOptions
from aidotnet_py.meta_learning.base import MetaLearnerBase, StepRecord, batch_tasks
from aidotnet_py.meta_learning.enums import MetaLearningAlgorithmType
from aidotnet_py.meta_learning.objectives import TaskObjective
from aidotnet_py.meta_learning.task_batch import TaskBatch
from aidotnet_py.solvers import StopReason, conjugate_gradient, neumann_series
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["SeriesGrowthWarning", "iMAMLAlgorithm"]


class SeriesGrowthWarning(RuntimeWarning):
    """A Neumann series grows instead of shrinking: ‖λH‖ > 1 along g, and its sum approximates nothing."""


class iMAMLAlgorithm(MetaLearnerBase[T, TInput, TOutput]):
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
        self._imaml = options

    @property
    def AlgorithmType(self) -> MetaLearningAlgorithmType:
        """``MetaLearningAlgorithmType.iMAML``."""
        return MetaLearningAlgorithmType.iMAML

    def MetaTrain(self, taskBatch: TaskBatch[T, TInput, TOutput]) -> T:
        """One meta-training step.

        Parameters
        ----------
        taskBatch : TaskBatch
            Tasks with support and query sets, alike in shape.

        Returns
        -------
        T
            The mean query loss over the batch, at the adapted parameters, before the meta-update.

        Raises
        ------
        ArgumentException
            When the batch is None or empty, or does not fit the model; nothing was computed then.
        InvalidOperationException
            When a loss, a gradient or a solve is not finite; the message names the task and the quantity, and
            parameters, optimizer and iteration are as they were.

        Warns
        -----
        SeriesGrowthWarning
            When a Neumann series grows; the message has the norms of its last two terms.
        """
        tasks = batch_tasks(taskBatch)
        support, query = self._opened(tasks, "Support", "Query")
        start, adapted = self._adapted(support, tasks)
        losses, gradients = query.evaluate(adapted)
        self._require_finite("query loss", losses, tasks)
        self._require_finite("query gradient", gradients, tasks)
        metrics: dict[str, float] = {}
        meta_gradients = self._implicit_gradients(support, start, adapted, gradients, metrics)
        self._require_finite("meta-gradient", meta_gradients, tasks)
        record = StepRecord(self._host(losses), query.accuracies(), metrics)
        metrics["MetaGradientNorm"] = self._meta_update(meta_gradients)
        self._record = record
        return self._number(float(np.mean(record.losses, dtype=np.float64)))

    def _inner_gradient(self, points: Array, start: Array, gradients: Array) -> Array:
        """∇L_support(φ), plus (φ − θ)/λ for the proximal objective."""
        if self._imaml.InnerObjective == "support":
            return gradients
        return gradients + (points - start) * (1.0 / self._imaml.LambdaRegularization)

    def _implicit_gradients(
        self, support: TaskObjective, start: Array, adapted: Array, gradients: Array, metrics: dict[str, float]
    ) -> Array:
        """The v of (I + λH) v = g for every task; fills in what the solve reports."""
        options = self._imaml
        if options.UseFirstOrder:
            slopes = support.evaluate(adapted).gradients
            metrics["InnerGradientNorm"] = self._largest_norm(self._inner_gradient(adapted, start, slopes))
            return gradients
        slopes, product = support.curvature(adapted, options.Curvature)
        metrics["InnerGradientNorm"] = self._largest_norm(self._inner_gradient(adapted, start, slopes))

        def operator(v: Array) -> Array:
            return v + options.LambdaRegularization * product(v)

        if options.UseNeumannApproximation:
            return self._by_series(operator, gradients, metrics)
        return self._by_conjugate_gradient(operator, gradients, metrics)

    def _by_conjugate_gradient(
        self, operator: Callable[[Array], Array], gradients: Array, metrics: dict[str, float]
    ) -> Array:
        options, backend = self._imaml, self._backend
        v, report = conjugate_gradient(
            operator,
            gradients,
            max_iterations=options.ConjugateGradientIterations,
            tolerance=options.ConjugateGradientTolerance,
            damping=options.ConjugateGradientDamping,
        )
        curved = np.array([reason is StopReason.NON_POSITIVE_CURVATURE for reason in report.stop_reasons])
        metrics["SolverResidual"] = float(np.max(report.residual_norms))
        metrics["SolverIterations"] = float(np.max(report.iterations))
        metrics["NonPositiveCurvatureTasks"] = float(np.sum(curved))
        # Stopped before its first step, a solve is still at zero: the first-order gradient says more than nothing.
        unmoved = curved & (report.iterations == 0)
        if unmoved.any():
            mask = backend.broadcast_to(backend.asarray(unmoved[:, None]), tuple(v.shape))
            v = backend.elementwise("where")(mask, gradients, v)
        return v

    def _by_series(self, operator: Callable[[Array], Array], gradients: Array, metrics: dict[str, float]) -> Array:
        options = self._imaml
        damping = options.ConjugateGradientDamping

        def damped(v: Array) -> Array:
            return operator(v) + damping * v if damping else operator(v)

        v, report = neumann_series(damped, gradients, terms=options.NeumannSeriesTerms)
        metrics["SolverResidual"] = float(np.max(report.residual_norms))
        metrics["SolverIterations"] = float(np.max(report.iterations))
        if report.grew.any():
            task = int(np.argmax(report.grew))
            before, last = report.term_norms[-2, task], report.term_norms[-1, task]
            warnings.warn(
                f"the Neumann series of task {task} grows: its last two terms have norms {before:.4g} and {last:.4g}; "
                "a smaller LambdaRegularization or conjugate gradient is wanted",
                SeriesGrowthWarning,
                stacklevel=4,
            )
        return v

    def _largest_norm(self, stacked: Array) -> float:
        backend = self._backend
        return float(np.sqrt(np.max(backend.to_numpy(backend.vecdot(stacked, stacked)))))
