"""The protocols of episodic data loaders and task samplers, the sources of tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from aidotnet_py.meta_learning.contract.task_batch import TaskBatch
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask
from aidotnet_py.type_parameters import T, T_co, TInput, TInput_co, TOutput, TOutput_co

__all__ = ["IEncoding", "IEpisode", "IEpisodicDataLoader", "IMetaDataset", "IResumable", "ITaskSampler"]


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

    def GetTaskBatch(
        self, numTasks: int
    ) -> TaskBatch[T_co, TInput_co, TOutput_co] | Sequence[IMetaLearningTask[T_co, TInput_co, TOutput_co]]:
        """Draw the next ``numTasks`` tasks, as a batch or a list of exactly as many."""
        ...

    def SetSeed(self, seed: int) -> None:
        """Start the random draws anew: equal seeds are followed by equal tasks."""
        ...


@runtime_checkable
class IEncoding(Protocol):
    """How raw data became inputs: a loader has it as ``encoding``, and its tasks as ``Metadata["Encoding"]``."""

    def settings(self) -> dict[str, Any]:
        """Return all of it in values that JSON can hold, with its ``"kind"``."""
        ...


@runtime_checkable
class IEpisode(Protocol[T_co, TInput_co, TOutput_co]):
    """A task and what is known of its use in training."""

    Difficulty: float | None
    """The difficulty, from 0 to 1, or None if it is unknown."""

    LastLoss: float | None
    """The loss that was fed back last, or None."""

    SampleCount: int
    """How often a loss was fed back."""

    @property
    def Task(self) -> IMetaLearningTask[T_co, TInput_co, TOutput_co]:
        """The task."""
        ...

    @property
    def EpisodeId(self) -> int:
        """A number that no other episode has."""
        ...

    @property
    def Domain(self) -> str | None:
        """The data that the task comes from, or None."""
        ...


@runtime_checkable
class IMetaDataset(Protocol[T_co, TInput_co, TOutput_co]):
    """A set of classes that episodes of any size are sampled from."""

    @property
    def Name(self) -> str:
        """The name of the data."""
        ...

    @property
    def TotalClasses(self) -> int:
        """The number of classes."""
        ...

    @property
    def TotalExamples(self) -> int:
        """The number of examples of all classes."""
        ...

    @property
    def ClassExampleCounts(self) -> Mapping[int, int]:
        """The number of examples of each class, by the index of the class."""
        ...

    def SampleEpisode(
        self, numWays: int, numShots: int, numQueryPerClass: int
    ) -> IEpisode[T_co, TInput_co, TOutput_co]:
        """Sample an episode."""
        ...

    def SampleEpisodes(
        self, count: int, numWays: int, numShots: int, numQueryPerClass: int
    ) -> Sequence[IEpisode[T_co, TInput_co, TOutput_co]]:
        """Sample several episodes."""
        ...

    def SetSeed(self, seed: int) -> None:
        """Restart the random draws; equal seeds give equal episodes."""
        ...

    def SupportsConfiguration(self, numWays: int, numShots: int, numQueryPerClass: int) -> bool:
        """Return whether episodes of this size can be sampled."""
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
        """Pick exactly ``batchSize`` tasks."""
        ...

    def SampleOne(self) -> IEpisode[T, TInput, TOutput]:
        """Pick one task."""
        ...

    def UpdateWithFeedback(self, episodes: Sequence[IEpisode[T, TInput, TOutput]], losses: Sequence[float]) -> None:
        """Take note of the loss on each episode; a sampler whose picks do not depend on losses ignores it."""
        ...

    def SetSeed(self, seed: int) -> None:
        """Start the random picks anew: equal seeds and equal feedback are followed by equal tasks."""
        ...


@runtime_checkable
class IResumable(Protocol):
    """A loader whose state is saved with the learner, so that a resumed run draws the same tasks."""

    def GetState(self) -> dict[str, Any]:
        """Return all that the next draws depend on, in values that JSON can hold, with strings as keys of mappings."""
        ...

    def SetState(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `GetState` returned, read back from JSON."""
        ...
