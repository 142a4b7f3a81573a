"""Meta-SGD: a rate for each parameter's inner steps, learned together with the start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from aidotnet_py.arguments import POSITIVE, SWITCH
from aidotnet_py.backends import Array
from aidotnet_py.meta_learning.contract.enums import MetaLearningAlgorithmType
from aidotnet_py.meta_learning.contract.options import MetaLearnerOptions, with_suggestions
from aidotnet_py.meta_learning.inner.path import Segments, invalid_segments
from aidotnet_py.meta_learning.inner.rule import InnerRule
from aidotnet_py.meta_learning.learner.base import MetaLearnerBase
from aidotnet_py.meta_learning.learner.learned import Learned
from aidotnet_py.meta_learning.learner.tasks import Tasks
from aidotnet_py.models.interfaces import TModel_co
from aidotnet_py.optimizers import SGDOptimizer
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["MetaSGDAlgorithm", "MetaSGDOptions"]


@with_suggestions
@dataclass(eq=False, kw_only=True)
class MetaSGDOptions(MetaLearnerOptions[T, TInput, TOutput, TModel_co]):
    """Options of `MetaSGDAlgorithm`: those of every learner, and Meta-SGD's own.

    Parameters
    ----------
    MetaModel : IFullModel
        The model whose parameters are learned. Required; all others are keywords. See `MetaLearnerOptions`.
    InnerOptimizer : None
        The learned rates take its place.
    InnerLearningRate : float
        The start of every rate, at construction, at Reset and with a new model.
    AdaptationSteps : int
        K, the number of inner steps, > 0.
    NumMetaIterations, EvaluationFrequency, CheckpointFrequency : int
        As for every learner, with AiDotNet's defaults for Meta-SGD.
    MinLearningRate, MaxLearningRate : float
        Bounds of every rate after a meta-update; 0 < MinLearningRate ≤ InnerLearningRate ≤ MaxLearningRate.
    UseFirstOrder : bool
        Leave out the curvature: v_k = ∇L_q(φ_K) at every step. AiDotNet's default is True; here the meta-gradient is
        exact by default.
    CheckpointSegments : int, "sqrt" or None
        The number of segments of the inner loop; see `MAMLOptions`.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py import FunctionModel, MetaSGDOptions
    >>> model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((2, 1))})
    >>> MetaSGDOptions(model, AdaptationSteps=1, InnerLearningRate=0.1).IsValid()
    True
    >>> MetaSGDOptions(model, InnerLearningRate=2.0).IsValid()
    False
    """

    AdaptationSteps: int = 5
    NumMetaIterations: int = 10000
    EvaluationFrequency: int = 500
    CheckpointFrequency: int = 1000
    MinLearningRate: float = 1e-6
    MaxLearningRate: float = 1.0
    UseFirstOrder: bool = False
    CheckpointSegments: Segments = None

    _constraints: ClassVar = {"MinLearningRate": POSITIVE, "MaxLearningRate": POSITIVE, "UseFirstOrder": SWITCH}

    def invalid(self) -> Iterator[str]:
        """Yield a message for each problem."""
        yield from super().invalid()
        least, most, first = self.MinLearningRate, self.MaxLearningRate, self.InnerLearningRate
        if all(POSITIVE.problem("", rate) is None for rate in (least, most, first)):
            if most < least:
                yield f"MaxLearningRate must be at least MinLearningRate, {least!r}, got {most!r}"
            elif not least <= first <= most:
                yield (
                    f"InnerLearningRate must lie in [MinLearningRate, MaxLearningRate] = [{least!r}, {most!r}], "
                    f"got {first!r}"
                )
        yield from invalid_segments(self.CheckpointSegments, self.AdaptationSteps)
        if self.InnerOptimizer is not None:
            yield (
                "InnerOptimizer must be None, as Meta-SGD learns the rates of its gradient descent, got a "
                f"{type(self.InnerOptimizer).__name__}"
            )


_UNIT_STEPS = SGDOptimizer(1.0)


class _SummingRule(InnerRule):
    """A rule whose memory is the sum of the gradients so far."""

    @property
    def memory(self) -> tuple[str, ...]:
        return ("gradients",)

    def take(
        self, points: Any, start: Any, gradients: Any, memory: Any, values: Any, coefficients: Any
    ) -> tuple[Any, list[Any]]:
        moved, _ = super().take(points, start, gradients, [], values, coefficients)
        return moved, [gradients + memory[0]]


def _at_rates(points: Array, start: Array, gradients: Array, rates: Array) -> Array:
    return gradients * rates


class MetaSGDAlgorithm(MetaLearnerBase[T, TInput, TOutput, TModel_co]):
    r"""Meta-SGD (Li, Zhou, Chen & Li 2017, Algorithm 1), for any number of inner steps.

    The start θ and a rate α_i for each parameter are learned together. For each task,

    .. math::
        \phi_{k+1} = \phi_k - \alpha \circ \nabla L_s(\phi_k), \quad v_K = \nabla L_q(\phi_K), \quad
        v_k = v_{k+1} - H(\phi_k)\,(\alpha \circ v_{k+1}),

    and the gradients of L_q(φ_K) are v_0 in θ and −Σ_k ∇L_s(φ_k) ∘ v_{k+1} in α. Means over the tasks, clipped by the
    norm of both together, go to the meta-optimizer, and the new rates are clipped to their bounds.

    Parameters
    ----------
    options : MetaSGDOptions
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
    Li, Z., Zhou, F., Chen, F. & Li, H. (2017). Meta-SGD: learning to learn quickly for few-shot learning.
    arXiv:1707.09835.

    Examples
    --------
    One task, y = 3x₁, and a model y = wx from w = 0: the rate of w₁ grows, and the rate of w₂ has no effect.

    >>> import numpy as np
    >>> from aidotnet_py import FunctionModel, MetaLearningTask, MetaSGDAlgorithm, MetaSGDOptions, TaskBatch
    >>> model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((2, 1))})
    >>> x = np.array([[1.0, 0.0], [-1.0, 0.0]])
    >>> y = 3 * x[:, :1]
    >>> task = MetaLearningTask(SupportSetX=x, SupportSetY=y, QuerySetX=x, QuerySetY=y, NumWays=1)
    >>> learner = MetaSGDAlgorithm(MetaSGDOptions(model, AdaptationSteps=1, InnerLearningRate=0.1))
    >>> losses = [learner.MetaTrain(TaskBatch([task])) for _ in range(100)]
    >>> learner.LearningRates.round(2)
    array([0.2, 0.1])
    """

    _options_type = MetaSGDOptions

    def __init__(self, options: MetaSGDOptions[T, TInput, TOutput, TModel_co]) -> None:
        # Set first, since the base's constructor calls `learned`.
        self._meta_sgd = options
        super().__init__(options)

    @property
    def AlgorithmType(self) -> MetaLearningAlgorithmType:
        """``MetaLearningAlgorithmType.MetaSGD``."""
        return MetaLearningAlgorithmType.MetaSGD

    @property
    def LearningRates(self) -> Array:
        """α, a vector of T like the model's parameters; a copy."""
        return self._backend.asarray(self._learned_vectors()["rates"])

    @property
    def InnerLearningRate(self) -> float:
        """The mean of the rates."""
        return float(self._host(self._learned_vectors()["rates"]).mean(dtype=float))

    def learned(self) -> Sequence[Learned]:
        """Return α."""
        options = self._meta_sgd
        bounds = float(options.MinLearningRate), float(options.MaxLearningRate)
        return [Learned("rates", float(options.InnerLearningRate), bounds=bounds)]

    def inner_rule(self, tasks: Tasks) -> InnerRule:
        """Return gradient descent at rate 1 along α ∘ ∇L_s."""
        kind = _SummingRule if self._meta_sgd.UseFirstOrder else InnerRule
        return kind(_UNIT_STEPS, _at_rates, (tasks.learned["rates"],), ("rates",))

    def meta_gradient(self, tasks: Tasks) -> tuple[Array, Mapping[str, Array]]:
        """Return v_0 and −Σ_k ∇L_s(φ_k) ∘ v_{k+1}; with UseFirstOrder, every v is v_K."""
        if self._meta_sgd.UseFirstOrder:
            g = tasks.query_gradient(tasks.adapt())
            return g, {"rates": -(tasks.memory[0] * g)}
        path = tasks.adapt_with_path(self._meta_sgd.CheckpointSegments)
        return path.pull_back(tasks.query_gradient(path.end))
