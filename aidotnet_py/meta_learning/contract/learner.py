"""What every meta-learner offers, as a protocol."""

from __future__ import annotations

import os
from typing import Any, Protocol, overload, runtime_checkable

from aidotnet_py.meta_learning.contract.enums import MetaLearningAlgorithmType
from aidotnet_py.meta_learning.contract.options import MetaLearnerOptions
from aidotnet_py.meta_learning.contract.results import (
    MetaAdaptationResult,
    MetaEvaluationResult,
    MetaTrainingResult,
    MetaTrainingStepResult,
)
from aidotnet_py.meta_learning.contract.sources import ITaskSampler
from aidotnet_py.meta_learning.contract.task_batch import TaskBatch
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask
from aidotnet_py.models import IFullModel
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["IMetaLearner"]


@runtime_checkable
class IMetaLearner(Protocol[T, TInput, TOutput]):
    """A learner of starting points; see `MetaLearnerBase` for what each member does."""

    @property
    def BaseModel(self) -> IFullModel[T, TInput, TOutput]:
        """The model whose parameters are learned."""
        ...

    @property
    def Options(self) -> MetaLearnerOptions[T, TInput, TOutput]:
        """The options, as given."""
        ...

    @property
    def CurrentIteration(self) -> int:
        """Steps taken so far."""
        ...

    @property
    def AlgorithmType(self) -> MetaLearningAlgorithmType:
        """Which algorithm this is."""
        ...

    @property
    def AdaptationSteps(self) -> int:
        """K, the number of inner steps."""
        ...

    @property
    def InnerLearningRate(self) -> float:
        """The rate of the inner steps."""
        ...

    @property
    def OuterLearningRate(self) -> float:
        """The rate of the meta-updates."""
        ...

    def MetaTrain(self, taskBatch: TaskBatch[Any, TInput, TOutput]) -> T:
        """Take one meta-training step; return the mean query loss before it."""
        ...

    def Adapt(self, task: IMetaLearningTask[Any, TInput, TOutput]) -> IFullModel[T, TInput, TOutput]:
        """Return a new model, adapted to a task."""
        ...

    @overload
    def Evaluate(self, taskBatch: TaskBatch[Any, TInput, TOutput]) -> T: ...

    @overload
    def Evaluate(self, numTasks: int, /) -> MetaEvaluationResult[T]: ...

    @overload
    def Evaluate(self, *, numTasks: int) -> MetaEvaluationResult[T]: ...

    @overload
    def MetaTrainStep(self, batchSize: int, /) -> MetaTrainingStepResult[T]: ...

    @overload
    def MetaTrainStep(self, *, batchSize: int) -> MetaTrainingStepResult[T]: ...

    @overload
    def MetaTrainStep(
        self, sampler: ITaskSampler[Any, TInput, TOutput], batchSize: int
    ) -> MetaTrainingStepResult[T]: ...

    @overload
    def Train(self) -> MetaTrainingResult[T]: ...

    @overload
    def Train(self, sampler: ITaskSampler[Any, TInput, TOutput], /) -> MetaTrainingResult[T]: ...

    def AdaptAndEvaluate(self, task: IMetaLearningTask[Any, TInput, TOutput]) -> MetaAdaptationResult[T]:
        """Adapt to a task and measure the result."""
        ...

    def GetMetaModel(self) -> IFullModel[T, TInput, TOutput]:
        """Return the model whose parameters are learned."""
        ...

    def SetMetaModel(self, model: IFullModel[T, TInput, TOutput]) -> None:
        """Learn another model's parameters from now on."""
        ...

    def Save(self, filePath: str | os.PathLike[str]) -> None:
        """Write everything needed to go on bit for bit."""
        ...

    def Load(self, filePath: str | os.PathLike[str]) -> None:
        """Take up what `Save` wrote."""
        ...

    def Reset(self) -> None:
        """Return to iteration 0, optimizers without memory and the random state of the construction."""
        ...
