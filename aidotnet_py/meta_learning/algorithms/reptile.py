"""Reptile: the meta-parameters move towards each task's adapted parameters; no curvature, no query gradient."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from aidotnet_py.arguments import COUNT, SWITCH, Number
from aidotnet_py.backends import Array
from aidotnet_py.meta_learning.contract.enums import MetaLearningAlgorithmType
from aidotnet_py.meta_learning.contract.options import MetaLearnerOptions, with_suggestions
from aidotnet_py.meta_learning.contract.statistics import mean_of
from aidotnet_py.meta_learning.contract.task_batch import TaskBatch
from aidotnet_py.meta_learning.learner.base import MetaLearnerBase
from aidotnet_py.meta_learning.learner.encodings import keep_encoding
from aidotnet_py.meta_learning.learner.records import StepRecord
from aidotnet_py.meta_learning.learner.tasks import Tasks
from aidotnet_py.meta_learning.objective.checks import check_tasks
from aidotnet_py.models.interfaces import TModel_co
from aidotnet_py.optimizers import ElementwiseOptimizer, SGDOptimizer
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["ReptileAlgorithm", "ReptileOptions"]


@with_suggestions
@dataclass(eq=False, kw_only=True)
class ReptileOptions(MetaLearnerOptions[T, TInput, TOutput, TModel_co]):
    """Options of `ReptileAlgorithm`: those of every learner, and Reptile's own.

    Parameters
    ----------
    MetaModel : IFullModel
        The model whose parameters are learned. Required; all others are keywords. See `MetaLearnerOptions`.
    MetaOptimizer : IGradientBasedOptimizer, optional
        The optimizer that gets θ − φ as its gradient. None: gradient descent at OuterLearningRate.
    OuterLearningRate : float
        ε of θ ← θ + ε (φ − θ), > 0.
    AdaptationSteps, InnerBatches : int
        The number of inner steps is AdaptationSteps · InnerBatches, both > 0 (AiDotNet's names, like Interpolation).
    MetaBatchSize, NumMetaIterations, EvaluationFrequency, CheckpointFrequency : int
        As for every learner, with AiDotNet's defaults for Reptile.
    Interpolation : float
        The meta-gradient's share of θ − φ, in (0, 1]. Unlike OuterLearningRate, it acts before the clipping, and with
        a MetaOptimizer of your own.
    UseSerialUpdate : bool
        True: θ moves after each task, and the next task starts from the new θ, as in the paper's Algorithm 1. False:
        θ moves once a batch, along the mean.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py import FunctionModel, ReptileOptions
    >>> model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((2, 1))})
    >>> options = ReptileOptions(model, AdaptationSteps=8, OuterLearningRate=0.1)
    >>> options.IsValid(), options.MetaBatchSize
    (True, 5)
    """

    OuterLearningRate: float = 1.0
    AdaptationSteps: int = 5
    MetaBatchSize: int = 5
    NumMetaIterations: int = 10000
    EvaluationFrequency: int = 500
    CheckpointFrequency: int = 1000
    Interpolation: float = 1.0
    InnerBatches: int = 1
    UseSerialUpdate: bool = False

    _constraints: ClassVar = {
        "Interpolation": Number(above=0, most=1),
        "InnerBatches": COUNT,
        "UseSerialUpdate": SWITCH,
    }

    @property
    def inner_steps(self) -> int:
        """AdaptationSteps · InnerBatches."""
        return self.AdaptationSteps * self.InnerBatches


class ReptileAlgorithm(MetaLearnerBase[T, TInput, TOutput, TModel_co]):
    r"""Reptile (Nichol, Achiam & Schulman 2018, Algorithm 1, and its batched form, their section 2).

    For each task, φ_K is the result of K inner steps on the support loss from θ, and

    .. math::
        \theta \leftarrow \theta + \varepsilon\, (\phi_K - \theta),

    so that θ − φ_K is the task's meta-gradient. The mean over the tasks, clipped, goes to the meta-optimizer, which is
    gradient descent at ε = OuterLearningRate by default. The query sets serve only to report the loss.

    Parameters
    ----------
    options : ReptileOptions
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
    Nichol, A., Achiam, J. & Schulman, J. (2018). On first-order meta-learning algorithms. arXiv:1803.02999.

    Examples
    --------
    One task, y = 3x, and a model y = wx from w = 0:

    >>> import numpy as np
    >>> from aidotnet_py import FunctionModel, MetaLearningTask, ReptileAlgorithm, ReptileOptions, TaskBatch
    >>> model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((1, 1))})
    >>> x = np.array([[1.0], [-1.0]])
    >>> task = MetaLearningTask(SupportSetX=x, SupportSetY=3 * x, QuerySetX=2 * x, QuerySetY=6 * x, NumWays=1)
    >>> learner = ReptileAlgorithm(ReptileOptions(model, InnerLearningRate=0.1, OuterLearningRate=0.5))
    >>> [round(float(learner.MetaTrain(TaskBatch([task]))), 3) for _ in range(3)]
    [3.865, 1.703, 0.751]
    """

    _options_type = ReptileOptions

    def __init__(self, options: ReptileOptions[T, TInput, TOutput, TModel_co]) -> None:
        super().__init__(options)
        self._reptile = options

    @property
    def AlgorithmType(self) -> MetaLearningAlgorithmType:
        """``MetaLearningAlgorithmType.Reptile``."""
        return MetaLearningAlgorithmType.Reptile

    def _new_meta_optimizer(self, rate: float) -> ElementwiseOptimizer:
        return SGDOptimizer(rate)

    def MetaTrain(self, taskBatch: TaskBatch[Any, TInput, TOutput]) -> T:
        """Do one meta-training step, or with UseSerialUpdate one step for each task in turn; see `MetaLearnerBase`.

        Returns
        -------
        T
            The mean over the tasks of the query loss at φ_K, before the update that uses the task.

        Raises
        ------
        ArgumentException
            When the batch is None or empty, or does not fit the model; nothing was computed then.
        InvalidOperationException
            When a loss or φ_K is not finite; the message names the task, and parameters, optimizer and iteration are
            as they were before the batch.
        """
        if not self._reptile.UseSerialUpdate:
            self._journal.hand_on()
            return super().MetaTrain(taskBatch)
        tasks = check_tasks(taskBatch)
        keep_encoding(self.BaseModel, tasks, learned=self._has_learned)
        # Check all tasks before the first one moves the parameters.
        self._open(tasks, "Support", "Query", training=False)
        # Each is opened anew, to start from where the task before has left the parameters.
        steps = [
            self._step([[replace(group, places=(place,)) for group in self._open([task], "Support", "Query")]])
            for place, task in enumerate(tasks)
        ]
        norm = float(mean_of(np.array([step.metrics["MetaGradientNorm"] for step in steps])))
        self._record = StepRecord(
            np.concatenate([step.losses for step in steps]),
            [accuracy for step in steps for accuracy in step.accuracies],
            {"MetaGradientNorm": norm},
        )
        return self._mean_loss(self._record)

    def meta_gradient(self, tasks: Tasks) -> Array:
        """Return θ − φ_K, or a share of it."""
        return (tasks.start - tasks.adapt()) * float(self._reptile.Interpolation)
