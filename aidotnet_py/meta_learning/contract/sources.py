"""Where tasks come from: the protocols of episodic data loaders and task samplers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from aidotnet_py.meta_learning.contract.task_batch import TaskBatch
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask
from aidotnet_py.type_parameters import T, T_co, TInput, TInput_co, TOutput, TOutput_co

__all__ = ["IEpisodicDataLoader", "IResumable", "ITaskSampler"]


@runtime_checkable
class IEpisodicDataLoader(Protocol[T_co, TInput_co, TOutput_co]):
    """A source of N-way K-shot tasks over one set of classes: the ``DataLoader`` of the options."""

    @property
    def NWay(self) -> int:
        """How many classes a task has."""
        ...

    @property
    def KShot(self) -> int:
        """How many support examples a class has."""
        ...

    @property
    def QueryShots(self) -> int:
        """How many query examples a class has."""
        ...

    @property
    def AvailableClasses(self) -> int:
        """How many classes there are to draw from."""
        ...

    def GetNextTask(self) -> IMetaLearningTask[T_co, TInput_co, TOutput_co]:
        """Draw the next task."""
        ...

    def GetTaskBatch(self, n: int) -> TaskBatch[T_co, TInput_co, TOutput_co]:
        """Draw the next ``n`` tasks."""
        ...

    def SetSeed(self, seed: int) -> None:
        """Start the random draws anew: equal seeds are followed by equal tasks."""
        ...


@runtime_checkable
class ITaskSampler(Protocol[T, TInput, TOutput]):
    """A strategy that picks tasks, and may learn from the losses on them which to pick next."""

    @property
    def NumWays(self) -> int:
        """How many classes a task has."""
        ...

    @property
    def NumShots(self) -> int:
        """How many support examples a class has."""
        ...

    @property
    def NumQueryPerClass(self) -> int:
        """How many query examples a class has."""
        ...

    def SampleBatch(self, batchSize: int) -> TaskBatch[T, TInput, TOutput]:
        """Pick ``batchSize`` tasks."""
        ...

    def SampleOne(self) -> IMetaLearningTask[T, TInput, TOutput]:
        """Pick one task."""
        ...

    def UpdateWithFeedback(
        self, episodes: Sequence[IMetaLearningTask[T, TInput, TOutput]], losses: Sequence[T]
    ) -> None:
        """Take note of the loss on each of the tasks; a sampler whose picks do not depend on losses ignores it."""
        ...

    def SetSeed(self, seed: int) -> None:
        """Start the random picks anew: equal seeds and equal feedback are followed by equal tasks."""
        ...


@runtime_checkable
class IResumable(Protocol):
    """A loader whose state is saved with the learner, so that a resumed run draws the same tasks."""

    def GetState(self) -> dict[str, Any]:
        """Return all that the next draws depend on, in values that JSON can hold."""
        ...

    def SetState(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `GetState` returned, read back from JSON."""
        ...
