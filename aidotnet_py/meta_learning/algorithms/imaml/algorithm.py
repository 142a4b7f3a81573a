"""iMAML: meta-gradients by the implicit function theorem, at a memory cost that does not grow with the inner steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from aidotnet_py.backends import Array
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning.algorithms.imaml.learned_lambda import (
    LOG_LAMBDA,
    lambda_of,
    learned_lambda,
    slopes_of_log_lambda,
)
from aidotnet_py.meta_learning.algorithms.imaml.options import iMAMLOptions
from aidotnet_py.meta_learning.algorithms.imaml.report import Details, Warnings, metrics
from aidotnet_py.meta_learning.algorithms.imaml.system import ImplicitSystem
from aidotnet_py.meta_learning.algorithms.imaml.warm_starts import SolveMemory, name_of_task
from aidotnet_py.meta_learning.contract.enums import MetaLearningAlgorithmType
from aidotnet_py.meta_learning.contract.tasks import is_batches
from aidotnet_py.meta_learning.inner.rule import InnerRule, along_proximal_gradient
from aidotnet_py.meta_learning.learner.base import MetaLearnerBase
from aidotnet_py.meta_learning.learner.core import Batch
from aidotnet_py.meta_learning.learner.learned import Learned
from aidotnet_py.meta_learning.learner.tasks import Tasks
from aidotnet_py.meta_learning.objective.chunk import Chunk
from aidotnet_py.models.interfaces import TModel_co
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["iMAMLAlgorithm"]


class iMAMLAlgorithm(MetaLearnerBase[T, TInput, TOutput, TModel_co]):
    """Implicit MAML (Rajeswaran, Finn, Kakade & Levine 2019, Algorithms 1 and 2).

    For each task, with θ the meta-parameters:

    1. φ ← θ, then K = AdaptationSteps inner steps on the support loss (with its proximal term, if so chosen);
    2. g = ∇L_query(φ);
    3. solve (I + λH) v = g, H the curvature of the support loss at φ in exact products, by conjugate gradient, from
       zero or the task's last solution, with or without a preconditioner, or by a series. With a λ for each parameter,
       D = diag(λ), v = D⁻¹(H + D⁻¹)⁻¹g.

    The mean of v over the tasks, clipped, goes to the meta-optimizer. With InnerObjective "proximal", v tends to the
    exact gradient of L_query(φ(θ)) as the inner steps converge; with "support" it is AiDotNet's documented heuristic.
    Since v depends on φ alone, and not on the way to φ, InnerOptimizer may be any solver. The gradient of a learned λ
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

    def __init__(self, options: iMAMLOptions[T, TInput, TOutput, TModel_co]) -> None:
        # Set first, since the base's constructor calls `learned`.
        self._imaml = options
        super().__init__(options)
        self._last_lambda: tuple[Array | None, str | None, float | Array] = None, None, 0.0
        self._warnings = Warnings()
        self._begin_anew()

    @property
    def AlgorithmType(self) -> MetaLearningAlgorithmType:
        """``MetaLearningAlgorithmType.iMAML``."""
        return MetaLearningAlgorithmType.iMAML

    @property
    def LambdaRegularization(self) -> float | Array:
        """The current λ: the option or the learned value, a number or an array (P,)."""
        return self._lambda_of(self._learned_vectors())

    def learned(self) -> Sequence[Learned]:
        """Return log λ if λ is learned."""
        return learned_lambda(self._imaml)

    def _lambda_of(self, learned: Mapping[str, Array]) -> float | Array:
        """Return λ; keep the last result, since a step calls this three times and a call waits for the device."""
        logarithms = learned.get(LOG_LAMBDA)
        if logarithms is None:
            return float(self._imaml.LambdaRegularization)
        kind, (known, known_kind, lam) = self._imaml.LearnedLambda, self._last_lambda
        if known is not logarithms or known_kind != kind:
            lam = lambda_of(self._imaml, logarithms, self._backend)
            self._last_lambda = logarithms, kind, lam
        return lam

    def _begin_anew(self) -> None:
        self._solves = SolveMemory(self._imaml)

    def _extra_state(self) -> dict[str, Array]:
        return self._solves.warm_starts.state()

    def _state_for(self, tasks: Batch[Any, Any, Any]) -> dict[str, Array]:
        """Return the last solutions of these tasks."""
        if not self._imaml.WarmStartSolves:
            return {}
        solutions, names = self._solves.warm_starts.state(), [name_of_task(task.TaskId) for task in tasks]
        return {name: solutions[name] for name in names if name in solutions}

    def _set_extra_state(self, state: Mapping[str, Array]) -> None:
        self._solves.warm_starts.set_state(state, self.BaseModel.GetParameters(), self._backend)

    def _open(
        self, tasks: Batch[T, TInput, TOutput], *roles: str, training: bool = True, first: int | None = None
    ) -> list[Chunk]:
        warm, tolerance = self._imaml.WarmStartSolves, self._imaml.InnerGradientTolerance
        for place, task in enumerate(tasks if warm or tolerance is not None else (), first or 0):
            if warm:
                name_of_task(task.TaskId, place)
            if tolerance is not None and is_batches(task.SupportInput):
                raise ArgumentException(
                    f"InnerGradientTolerance must be None if SupportInput of task {place} is a list of batches, got "
                    f"{tolerance}; a small gradient of one batch does not show convergence"
                )
        return super()._open(tasks, *roles, training=training, first=first)

    # The step.

    def inner_rule(self, tasks: Tasks) -> InnerRule:
        """Return a step of the inner optimizer along the gradient, with the proximal term if InnerObjective has it."""
        optimizer, tolerance = self._inner_optimizer(), self._imaml.InnerGradientTolerance
        if self._imaml.InnerObjective == "support":
            return InnerRule(optimizer, tolerance=tolerance)
        strength = 1.0 / self._lambda_of(tasks.learned)
        return InnerRule(optimizer, along_proximal_gradient, (strength,), tolerance=tolerance)

    def meta_gradient(self, tasks: Tasks) -> Array | tuple[Array, Mapping[str, Array]]:
        """Return v of (I + λH) v = g for every task, and the gradient of log λ."""
        lam = self._lambda_of(tasks.learned)
        system = ImplicitSystem(self._imaml, lam, self._solves.probes_like(tasks.start), self._solves.warm_starts)
        with tasks.together() if system.is_one_piece else nullcontext():
            adapted = tasks.adapt()
            g = tasks.query_gradient(adapted)
            at_point = system.begin(tasks, adapted, g)
        slopes, v, solve = system.finish(tasks, adapted, g, at_point)
        tasks.details = Details.of(self._imaml, tasks, adapted, g, slopes, solve)
        if not tasks.learned:
            return v
        return v, {LOG_LAMBDA: slopes_of_log_lambda(self._imaml, tasks.backend, v, adapted - tasks.start)}

    # The report and the state of a step.

    def report(self, details: Sequence[Details]) -> Mapping[str, float]:
        """Return the metrics of inner loops and solves; warn of failures in the solves."""
        self._warnings.warn(self._imaml, details)
        return metrics(self._imaml, self.LambdaRegularization, details)

    def _end_step(self, details: Sequence[Details]) -> None:
        self._solves.keep(details, self._backend)
