"""MAML: the exact gradient of the query loss through all inner steps, and FOMAML, which ignores the steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from aidotnet_py.arguments import SWITCH
from aidotnet_py.backends import Array
from aidotnet_py.meta_learning.contract.enums import MetaLearningAlgorithmType
from aidotnet_py.meta_learning.contract.options import ProximalOptions, with_suggestions
from aidotnet_py.meta_learning.inner.path import Segments, invalid_segments
from aidotnet_py.meta_learning.learner.base import MetaLearnerBase
from aidotnet_py.meta_learning.learner.tasks import Tasks
from aidotnet_py.models.interfaces import TModel_co
from aidotnet_py.optimizers import ElementwiseOptimizer
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["MAMLAlgorithm", "MAMLOptions"]


@with_suggestions
@dataclass(eq=False, kw_only=True)
class MAMLOptions(ProximalOptions[T, TInput, TOutput, TModel_co]):
    """Options of `MAMLAlgorithm`: those of every learner, and MAML's own.

    Parameters
    ----------
    MetaModel : IFullModel
        The model whose parameters are learned. Required; all others are keywords. See `MetaLearnerOptions`.
    AdaptationSteps : int
        K, the number of inner steps, > 0.
    UseFirstOrder : bool
        Take the query gradient at φ_K itself as meta-gradient: FOMAML.
    CheckpointSegments : int, "sqrt" or None
        S, the number of segments of the inner loop: None for 1, "sqrt" for ⌈√K⌉, at most K. The φ_k of one segment at
        a time are in memory, computed again from the segment's start: S + K/S vectors instead of K, for at most one
        more pass through the steps. The bits of the meta-gradient are the same.
    InnerObjective, LambdaRegularization
        "proximal" holds the inner steps near θ; see `ProximalOptions`.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py import FunctionModel, MAMLOptions
    >>> model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((2, 1))})
    >>> options = MAMLOptions(model, AdaptationSteps=100, CheckpointSegments="sqrt")
    >>> options.IsValid(), options.UseFirstOrder
    (True, False)
    """

    AdaptationSteps: int = 5
    UseFirstOrder: bool = False
    CheckpointSegments: Segments = None

    _constraints: ClassVar = {"UseFirstOrder": SWITCH}

    def invalid(self) -> Iterator[str]:
        """Yield a message for each problem."""
        yield from super().invalid()
        yield from invalid_segments(self.CheckpointSegments, self.AdaptationSteps)
        optimizer = self.InnerOptimizer
        exact = optimizer is None or (isinstance(optimizer, ElementwiseOptimizer) and optimizer.has_formula)
        if not (exact or self.UseFirstOrder):
            yield (
                "InnerOptimizer must be an ElementwiseOptimizer with a formula, whose steps can be differentiated, got "
                f"a {type(optimizer).__name__}; use SGDOptimizer or AdamOptimizer, or set UseFirstOrder=True"
            )


class MAMLAlgorithm(MetaLearnerBase[T, TInput, TOutput, TModel_co]):
    r"""MAML (Finn, Abbeel & Levine 2017, Algorithms 1 and 2), exact, and FOMAML (their section 5.2).

    For each task, with θ the meta-parameters and α the rate of the inner steps,

    .. math::
        \phi_0 = \theta, \quad \phi_{k+1} = \phi_k - \alpha \nabla L_s(\phi_k), \quad v_K = \nabla L_q(\phi_K), \quad
        v_k = v_{k+1} - \alpha H(\phi_k)\, v_{k+1},

    with H the Hessian of the support loss. v_0 is the gradient of L_q(φ_K(θ)) in θ. It takes K exact curvature products
    at the φ_k of the inner loop, and no graph of the loop. Other inner optimizers use the vjp of their formula in the
    same way. A model with ComputeSecondOrderGradients (`ISecondOrderGradientComputable`) is asked for v_0 if the steps
    are plain descent. The mean of v_0 over the tasks, clipped, goes to the meta-optimizer.

    Parameters
    ----------
    options : MAMLOptions
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
    Finn, C., Abbeel, P. & Levine, S. (2017). Model-agnostic meta-learning for fast adaptation of deep networks. ICML.
    For the checkpoints: Griewank, A. & Walther, A. (2000). Algorithm 799: revolve. ACM Trans. Math. Softw. 26.

    Examples
    --------
    One task, y = 3x, and a model y = wx from w = 0:

    >>> import numpy as np
    >>> from aidotnet_py import FunctionModel, MAMLAlgorithm, MAMLOptions, MetaLearningTask, SGDOptimizer, TaskBatch
    >>> model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((1, 1))})
    >>> x = np.array([[1.0], [-1.0]])
    >>> task = MetaLearningTask(SupportSetX=x, SupportSetY=3 * x, QuerySetX=2 * x, QuerySetY=6 * x, NumWays=1)
    >>> learner = MAMLAlgorithm(MAMLOptions(model, InnerLearningRate=0.1, MetaOptimizer=SGDOptimizer(0.1)))
    >>> [round(float(learner.MetaTrain(TaskBatch([task]))), 3) for _ in range(3)]
    [3.865, 3.23, 2.699]
    """

    _options_type = MAMLOptions

    def __init__(self, options: MAMLOptions[T, TInput, TOutput, TModel_co]) -> None:
        super().__init__(options)
        self._maml = options

    @property
    def AlgorithmType(self) -> MetaLearningAlgorithmType:
        """``MetaLearningAlgorithmType.MAML``, FOMAML included."""
        return MetaLearningAlgorithmType.MAML

    def meta_gradient(self, tasks: Tasks) -> Array | tuple[Array, Mapping[str, Array]]:
        """Return v_0, or for FOMAML v_K."""
        if self._maml.UseFirstOrder:
            return tasks.query_gradient(tasks.adapt())
        if tasks.is_second_order_computable:
            # For the query losses, which are measured where the steps end.
            tasks.adapt()
            return self._second_order_gradients(tasks)
        path = tasks.adapt_with_path(self._maml.CheckpointSegments)
        return path.pull_back(tasks.query_gradient(path.end))
