"""Task samplers: which classes of a meta-dataset the next tasks have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Generic

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import COUNT, FINITE, POSITIVE, Number, Whole, check_given, refusal
from aidotnet_py.data.class_sampler import ClassSampler, SampledSizes, check_feedback, note_losses
from aidotnet_py.data.draws import (
    draw_classes,
    draw_least_used,
    draw_proportionally,
    inclusion_probabilities,
    whole_weights,
)
from aidotnet_py.data.meta_dataset import MetaDatasetBase
from aidotnet_py.data.random_stream import CountingStream, RandomStream, RememberingStream
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.meta_learning.contract.enums import BatchingStrategy, CurriculumStage
from aidotnet_py.meta_learning.contract.protocols import missing_members
from aidotnet_py.meta_learning.contract.sources import IEpisode, IMetaDataset, IResumable
from aidotnet_py.meta_learning.contract.task_batch import TaskBatch
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["BalancedTaskSampler", "CurriculumTaskSampler", "DynamicTaskSampler", "UniformTaskSampler"]

_SHARE = Number(least=0, most=1)
_USES = Whole(0, 2**62)


class UniformTaskSampler(SampledSizes, Generic[T, TInput, TOutput]):
    """An `ITaskSampler` that takes the episodes of a meta-dataset as they come; losses change nothing.

    It draws from the dataset's own random stream. For a `MetaDatasetBase` each of the C classes with enough examples is
    in a task with probability N / C.

    Parameters
    ----------
    dataset : IMetaDataset
        Where the episodes come from.
    numWays, numShots, numQueryPerClass : int
        N, and support and query examples of a class.

    Raises
    ------
    ArgumentNullException
        ``dataset`` is None.
    ArgumentException
        ``dataset`` is no `IMetaDataset`, or does not support the sizes; a size is no integer, or below 1.

    Examples
    --------
    >>> from aidotnet_py.data import GaussianClassificationMetaDataset, UniformTaskSampler
    >>> sampler = UniformTaskSampler(GaussianClassificationMetaDataset(seed=0), numWays=3, numShots=2)
    >>> batch = sampler.SampleBatch(4)
    >>> batch, batch[0].SupportInput.shape
    (<TaskBatch of 4: 3-way 2-shot, support (6, 20) → (6,), query (45, 20) → (45,)>, (6, 20))
    """

    @suggests_keywords()
    def __init__(
        self,
        dataset: IMetaDataset[T, TInput, TOutput],
        numWays: int = 5,
        numShots: int = 1,
        numQueryPerClass: int = 15,
    ) -> None:
        check_given("dataset", dataset, "an IMetaDataset")
        lacking = missing_members(dataset, IMetaDataset)
        if lacking:
            raise ArgumentException(
                f"dataset must be an IMetaDataset, got a {type(dataset).__name__}, which lacks {', '.join(lacking)}"
            )
        super().__init__(numWays, numShots, numQueryPerClass)
        _check_supported(dataset, numWays, numShots, numQueryPerClass)
        self._dataset = dataset

    def SampleBatch(self, batchSize: int) -> TaskBatch[T, TInput, TOutput]:
        """Sample the tasks of ``batchSize`` calls of `SampleOne`.

        Raises
        ------
        ArgumentException
            ``batchSize`` is no integer, or below 1 (ArgumentOutOfRangeException).
        """
        count = COUNT.check("batchSize", batchSize)
        episodes = self._dataset.SampleEpisodes(count, self._numWays, self._numShots, self._numQueryPerClass)
        return TaskBatch([episode.Task for episode in episodes])

    def SampleOne(self) -> IEpisode[T, TInput, TOutput]:
        """Sample an episode."""
        return self._dataset.SampleEpisode(self._numWays, self._numShots, self._numQueryPerClass)

    def UpdateWithFeedback(self, episodes: Sequence[IEpisode[T, TInput, TOutput]], losses: Sequence[float]) -> None:
        """Note on each episode its loss, and that it was used once more.

        Raises
        ------
        ArgumentException
            The losses are not finite numbers, as many as the episodes; None is refused too (ArgumentNullException).
        """
        note_losses(*check_feedback(episodes, losses))

    def SetSeed(self, seed: int) -> None:
        """Restart the dataset's random stream.

        Raises
        ------
        ArgumentException
            As for the dataset's ``SetSeed``.
        """
        self._dataset.SetSeed(seed)

    def GetState(self) -> dict[str, Any]:
        """Return the dataset's state, None if it has none, as plain JSON values."""
        return {"dataset": self._dataset.GetState() if isinstance(self._dataset, IResumable) else None}

    def SetState(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `GetState` returned.

        Raises
        ------
        ArgumentException
            ``state`` is not such a state; nothing changes then.
        """
        if not isinstance(state, Mapping) or set(state) != {"dataset"}:  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
            raise ArgumentException(refusal("state", "a mapping with the key dataset", state))
        if isinstance(self._dataset, IResumable):
            self._dataset.SetState(state["dataset"])


def _check_supported(dataset: IMetaDataset[Any, Any, Any], *sizes: int) -> None:
    if isinstance(dataset, MetaDatasetBase):
        # Its message says which size does not fit.
        dataset.feasible_classes(*sizes)
    elif not dataset.SupportsConfiguration(*sizes):
        ways, shots, queries = sizes
        raise ArgumentException(
            f"numWays, numShots and numQueryPerClass must be sizes that {dataset.Name} supports, got "
            f"{ways}, {shots} and {queries}"
        )


class BalancedTaskSampler(ClassSampler[T]):
    """An `ITaskSampler` in whose tasks all classes are equally often.

    Each task takes the N classes that were in the fewest tasks so far, ties broken at random. The counts of two classes
    never differ by more than one: after t tasks a class of C was in ⌊tN/C⌋ or ⌈tN/C⌉. The counts belong to the
    sampler's state; `SetSeed` sets them to zero. Losses change nothing.

    Parameters
    ----------
    dataset : MetaDatasetBase
        Where the episodes come from; its own random stream stays where it is.
    numWays, numShots, numQueryPerClass : int
        N, and support and query examples of a class.
    seed : int or None
        The seed of the sampler's random stream; None takes one from the operating system.

    Raises
    ------
    ArgumentNullException
        ``dataset`` is None.
    ArgumentException
        ``dataset`` is no `MetaDatasetBase`, or has too few classes or examples for the sizes; an argument is invalid.

    Examples
    --------
    >>> from collections import Counter
    >>> from aidotnet_py.data import BalancedTaskSampler, RotatedDigitsMetaDataset
    >>> sampler = BalancedTaskSampler(RotatedDigitsMetaDataset(numClasses=7, seed=0), numWays=3, seed=0)
    >>> counts = Counter(c for task in sampler.SampleBatch(14) for c in task.Metadata["Classes"])
    >>> sorted(counts.values())
    [6, 6, 6, 6, 6, 6, 6]
    """

    _strategy = BatchingStrategy.DomainBalanced

    @suggests_keywords()
    def __init__(
        self,
        dataset: MetaDatasetBase[T],
        numWays: int = 5,
        numShots: int = 1,
        numQueryPerClass: int = 15,
        seed: int | None = None,
    ) -> None:
        super().__init__(dataset, numWays, numShots, numQueryPerClass, seed)

    def _make_stream(self, seed: int | None) -> RandomStream:
        return CountingStream(seed, len(self._classes))

    def _choose(self) -> NDArray[np.intp]:
        return draw_least_used(self._stream.generator, self._stream.memory["counts"], self._numWays)


class CurriculumTaskSampler(ClassSampler[T]):
    """An `ITaskSampler` that goes from easy tasks to hard ones, faster while losses are low.

    A level ℓ in [0, 1] begins at initialDifficulty. For each task 8 sets of N classes are drawn uniformly and ordered
    by their measured difficulty, d₀ ≤ … ≤ d₇ (`MetaDatasetBase.difficulty`); the task has set number ⌊7ℓ + ½⌋. Each
    call of `UpdateWithFeedback` with mean loss L̄ raises the level: ℓ ← min(1, ℓ + paceRate / (1 + exp(L̄ − 1))).
    Batches have the difficulties of their tasks, and the stage Easy below 0.33, Medium below 0.66, Hard from there on.
    The level belongs to the sampler's state; `SetSeed` leaves it.

    Parameters
    ----------
    dataset, numWays, numShots, numQueryPerClass
        As for `BalancedTaskSampler`.
    paceRate : float
        How fast the level rises, above 0.
    initialDifficulty : float
        The first level, from 0 to 1.
    seed : int or None
        As for `BalancedTaskSampler`.

    Raises
    ------
    ArgumentNullException
        ``dataset`` is None.
    ArgumentException
        ``dataset`` is no `MetaDatasetBase`, or has too few classes or examples for the sizes; an argument is invalid.

    Examples
    --------
    >>> from aidotnet_py.data import CurriculumTaskSampler, GaussianClassificationMetaDataset
    >>> sampler = CurriculumTaskSampler(GaussianClassificationMetaDataset(seed=0), paceRate=0.5, seed=0)
    >>> easy = sampler.SampleBatch(20)
    >>> for _ in range(4):
    ...     sampler.UpdateWithFeedback([sampler.SampleOne()], [0.2])
    >>> hard = sampler.SampleBatch(20)
    >>> easy.CurriculumStage.name, hard.CurriculumStage.name, sampler.level
    ('Easy', 'Hard', 1.0)
    >>> bool(easy.AverageDifficulty < hard.AverageDifficulty)
    True
    """

    _strategy = BatchingStrategy.CurriculumAware
    _CANDIDATES = 8

    @suggests_keywords()
    def __init__(
        self,
        dataset: MetaDatasetBase[T],
        numWays: int = 5,
        numShots: int = 1,
        numQueryPerClass: int = 15,
        paceRate: float = 0.01,
        initialDifficulty: float = 0.1,
        seed: int | None = None,
    ) -> None:
        self._paceRate = POSITIVE.check("paceRate", paceRate)
        self._initialDifficulty = _SHARE.check("initialDifficulty", initialDifficulty)
        super().__init__(dataset, numWays, numShots, numQueryPerClass, seed)

    @property
    def level(self) -> float:
        """The level ℓ of the next task, from 0 to 1."""
        return float(self._stream.memory["level"])

    def _make_stream(self, seed: int | None) -> RandomStream:
        return RememberingStream(seed, {"level": np.array(self._initialDifficulty)}, {"level": _SHARE})

    def _choose(self) -> NDArray[np.intp]:
        generator, last = self._stream.generator, self._CANDIDATES - 1
        candidates = [draw_classes(generator, len(self._classes), self._numWays) for _ in range(self._CANDIDATES)]
        candidates.sort(key=self._difficulty)
        return candidates[math.floor(last * self.level + 0.5)]

    def _difficulty(self, positions: NDArray[np.intp]) -> float:
        return self._dataset.difficulty(self._classes[positions])

    def _stage(self) -> CurriculumStage:
        if self.level < 0.33:
            return CurriculumStage.Easy
        return CurriculumStage.Medium if self.level < 0.66 else CurriculumStage.Hard

    def _learn(self, positions: Sequence[Sequence[int]], losses: Sequence[float]) -> None:
        # 1 / (1 + exp(z)) without overflow.
        mean = math.fsum(loss / len(losses) for loss in losses)
        pace = 0.5 - 0.5 * math.tanh((mean - 1.0) / 2.0)
        self._stream.memory["level"] = np.array(min(1.0, self.level + self._paceRate * pace))


class DynamicTaskSampler(ClassSampler[T]):
    """An `ITaskSampler` that chooses classes by the losses on the tasks that had them.

    The n losses L₁ … Lₙ fed back for tasks with class c have the mean m_c = Σ i·Lᵢ / Σ i, in which late losses weigh
    most; a class without losses has the mean of the others' m. With w_c = max(m_c, 0), a class of C is in the next task
    with probability ε·N / C + (1 − ε)·min(1, t·w_c), with t such that the minima sum to N and the explorationRate ε.
    Before any feedback, and if all w are 0, classes are equally probable. A task's difficulty is the mean of w_c over
    its classes as a share of the largest w of all, unknown before any feedback. Losses belong to the sampler's state;
    `SetSeed` leaves them.

    Parameters
    ----------
    dataset, numWays, numShots, numQueryPerClass
        As for `BalancedTaskSampler`.
    explorationRate : float
        ε, from 0 to 1.
    seed : int or None
        As for `BalancedTaskSampler`.

    Raises
    ------
    ArgumentNullException
        ``dataset`` is None.
    ArgumentException
        ``dataset`` is no `MetaDatasetBase`, or has too few classes or examples for the sizes; an argument is invalid.

    Examples
    --------
    >>> from aidotnet_py.data import DynamicTaskSampler, RotatedDigitsMetaDataset
    >>> sampler = DynamicTaskSampler(RotatedDigitsMetaDataset(numClasses=4, seed=0), numWays=2, seed=0)
    >>> sampler.class_probabilities.tolist()
    [0.5, 0.5, 0.5, 0.5]
    >>> episodes = [sampler.SampleOne() for _ in range(20)]
    >>> losses = [3.0 if 1 in episode.Task.Metadata["Classes"] else 1.0 for episode in episodes]
    >>> sampler.UpdateWithFeedback(episodes, losses)
    >>> int(sampler.class_probabilities.argmax())
    1
    """

    _strategy = BatchingStrategy.Adaptive

    @suggests_keywords()
    def __init__(
        self,
        dataset: MetaDatasetBase[T],
        numWays: int = 5,
        numShots: int = 1,
        numQueryPerClass: int = 15,
        explorationRate: float = 0.1,
        seed: int | None = None,
    ) -> None:
        self._explorationRate = _SHARE.check("explorationRate", explorationRate)
        super().__init__(dataset, numWays, numShots, numQueryPerClass, seed)

    @property
    def class_probabilities(self) -> NDArray[np.float64]:
        """The probability of each class of the dataset to be in the next task, by the index of the class."""
        with self._lock:
            weights = self._weights()
        probabilities = np.zeros(self._dataset.TotalClasses)
        uniform = self._numWays / len(self._classes)
        chosen = inclusion_probabilities(whole_weights(weights, self._numWays), self._numWays)
        probabilities[self._classes] = self._explorationRate * uniform + (1.0 - self._explorationRate) * chosen
        return probabilities

    def _make_stream(self, seed: int | None) -> RandomStream:
        classes = len(self._classes)
        memory = {"losses": np.zeros(classes), "counts": np.zeros(classes, np.int64)}
        return RememberingStream(seed, memory, {"losses": FINITE, "counts": _USES})

    def _weights(self) -> NDArray[np.float64]:
        """Return w of each class; zeros before any feedback."""
        weights: NDArray[np.float64] = np.maximum(self._stream.memory["losses"], 0.0)
        seen = self._stream.memory["counts"] > 0
        if seen.any():
            # Of large losses, the sum of all is no float64.
            mean = float((self._stream.memory["losses"][seen] / seen.sum()).sum())
            weights[~seen] = max(mean, 0.0)
        return weights

    def _choose(self) -> NDArray[np.intp]:
        generator = self._stream.generator
        if generator.random() < self._explorationRate:
            return draw_classes(generator, len(self._classes), self._numWays)
        return draw_proportionally(generator, whole_weights(self._weights(), self._numWays), self._numWays)

    def _difficulty(self, positions: NDArray[np.intp]) -> float | None:
        if not self._stream.memory["counts"].any():
            return None
        weights = self._weights()
        # Each share is at most 1, and so is their mean, before rounding.
        return min(1.0, float((weights[positions] / (weights.max() or 1.0)).mean()))

    def _learn(self, positions: Sequence[Sequence[int]], losses: Sequence[float]) -> None:
        means, counts = self._stream.memory["losses"].copy(), self._stream.memory["counts"].copy()
        for own, loss in zip(positions, losses, strict=True):
            counts[own] += 1
            share = 2.0 / (counts[own] + 1)
            # Not by the difference of the two, which large losses may have beyond float64.
            means[own] = (1.0 - share) * means[own] + share * loss
        self._stream.memory.update(losses=means, counts=counts)
