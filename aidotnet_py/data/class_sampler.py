"""What task samplers share: sizes, feedback, and the choice of a dataset's classes with a random stream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import COUNT, FINITE, check_given, entries_of, refusal
from aidotnet_py.data.episodes import Episode
from aidotnet_py.data.meta_dataset import MetaDatasetBase
from aidotnet_py.data.random_stream import RandomStream, Seeded
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.known_attributes import KnownAttributes
from aidotnet_py.meta_learning.contract.enums import BatchingStrategy, CurriculumStage
from aidotnet_py.meta_learning.contract.protocols import missing_members
from aidotnet_py.meta_learning.contract.sources import IEpisode
from aidotnet_py.meta_learning.contract.task_batch import TaskBatch
from aidotnet_py.meta_learning.contract.tasks import MetaLearningTask
from aidotnet_py.representations import concise_repr
from aidotnet_py.type_parameters import T

__all__ = ["ClassSampler", "SampledSizes", "check_feedback", "note_losses"]

E = TypeVar("E")
_Task: TypeAlias = MetaLearningTask[T, NDArray[Any], NDArray[Any]]
_Episode: TypeAlias = IEpisode[T, NDArray[Any], NDArray[Any]]


class SampledSizes(KnownAttributes):
    """The sizes of a sampler's tasks."""

    __repr__ = concise_repr

    def __init__(self, numWays: int, numShots: int, numQueryPerClass: int) -> None:
        self._numWays = COUNT.check("numWays", numWays)
        self._numShots = COUNT.check("numShots", numShots)
        self._numQueryPerClass = COUNT.check("numQueryPerClass", numQueryPerClass)

    @property
    def NumWays(self) -> int:
        """The number of classes in a task."""
        return self._numWays

    @property
    def NumShots(self) -> int:
        """The number of support examples of a class."""
        return self._numShots

    @property
    def NumQueryPerClass(self) -> int:
        """The number of query examples of a class."""
        return self._numQueryPerClass


class ClassSampler(SampledSizes, Seeded, ABC, Generic[T]):
    """A sampler that chooses the classes of a `MetaDatasetBase`, with a random stream of its own.

    Classes are those with enough examples, by their positions in `_classes`. A subclass makes the stream, chooses, and
    may learn from losses. ``SampleBatch(n)`` draws the tasks of ``n`` calls of ``SampleOne`` and moves them at once.
    """

    _strategy: BatchingStrategy

    def __init__(
        self, dataset: MetaDatasetBase[T], numWays: int, numShots: int, numQueryPerClass: int, seed: int | None
    ) -> None:
        check_given("dataset", dataset, "a MetaDatasetBase")
        if not isinstance(dataset, MetaDatasetBase):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
            raise ArgumentException(refusal("dataset", "a MetaDatasetBase, whose classes can be chosen", dataset))
        SampledSizes.__init__(self, numWays, numShots, numQueryPerClass)
        self._dataset = dataset
        self._classes = dataset.feasible_classes(numWays, numShots, numQueryPerClass)
        # Once: those of images are made anew, with their turns, at each look.
        labels = dataset.labels
        self._positions = {labels[c]: position for position, c in enumerate(self._classes.tolist())}
        Seeded.__init__(self, self._make_stream(seed))

    @abstractmethod
    def _make_stream(self, seed: int | None) -> RandomStream:
        """Return the stream, with whatever the choice remembers."""

    @abstractmethod
    def _choose(self) -> NDArray[np.intp]:
        """Choose the positions of the classes of the next task."""

    def _difficulty(self, positions: NDArray[np.intp]) -> float | None:
        """Return the difficulty of a task of these classes, None if it is unknown."""
        return None

    def _stage(self) -> CurriculumStage:
        """Return the stage of the next batch."""
        return CurriculumStage.General

    def _learn(self, positions: Sequence[Sequence[int]], losses: Sequence[float]) -> None:
        """Take note of the losses on tasks of these classes; nothing changes by default."""

    def _draw(self, count: int) -> tuple[list[_Task[T]], list[float | None], CurriculumStage]:
        difficulties: list[float | None] = []

        def choose() -> NDArray[np.intp]:
            positions = self._choose()
            difficulties.append(self._difficulty(positions))
            return self._classes[positions]

        with self._lock:
            stage = self._stage()
            drawn = self._dataset.draw(self._stream.generator, count, choose, self._numShots, self._numQueryPerClass)
        return drawn.tasks_on(self._dataset.backend), difficulties, stage

    def SampleBatch(self, batchSize: int) -> TaskBatch[T, NDArray[Any], NDArray[Any]]:
        """Sample the tasks of ``batchSize`` calls of `SampleOne`.

        Raises
        ------
        ArgumentException
            ``batchSize`` is no integer, or below 1 (ArgumentOutOfRangeException).
        """
        tasks, difficulties, stage = self._draw(COUNT.check("batchSize", batchSize))
        known = None if None in difficulties else np.array(difficulties, np.float64)
        return TaskBatch(tasks, self._strategy, taskDifficulties=known, curriculumStage=stage)

    def SampleOne(self) -> Episode[T, NDArray[Any], NDArray[Any]]:
        """Sample an episode."""
        (task,), (difficulty,), _ = self._draw(1)
        return Episode(task, self._dataset.Name, difficulty)

    def UpdateWithFeedback(self, episodes: Sequence[_Episode[T]], losses: Sequence[float]) -> None:
        """Note on each episode its loss, and that it was used once more; take note of the losses for the next choices.

        Raises
        ------
        ArgumentException
            The losses are not finite numbers, as many as the episodes, or an episode is not of this sampler's dataset,
            by its classes and its Domain; None is refused too (ArgumentNullException). Nothing changes then.
        """
        known, checked = check_feedback(episodes, losses)
        positions = [self._positions_of(index, episode) for index, episode in enumerate(known)]
        with self._lock:
            self._learn(positions, checked)
        note_losses(known, checked)

    def _positions_of(self, index: int, episode: _Episode[T]) -> list[int]:
        labels = episode.Task.Metadata.get("Classes", ())
        try:
            positions = [self._positions[label] for label in labels]
        # Other labels, or none that could be labels, in an episode of the caller's own.
        except (KeyError, TypeError):
            positions = []
        if len(positions) != self._numWays:
            raise ArgumentException(
                f"episodes[{index}] must have {self._numWays} classes of {self._dataset.Name}, got {labels!r:.200}"
            )
        # Labels such as 0, 1, 2 are those of many data sets. An episode of the caller's own may have no domain.
        if episode.Domain not in (None, self._dataset.Name):
            raise ArgumentException(
                f"episodes[{index}] must be of {self._dataset.Name}, as its Domain says, got {episode.Domain!r:.100}"
            )
        return positions


def check_feedback(episodes: Sequence[E], losses: Sequence[float]) -> tuple[list[E], list[float]]:
    """Return episodes, and their losses as floats."""
    known = entries_of("episodes", "a sequence of episodes", episodes)
    given = entries_of("losses", "a sequence of numbers", losses)
    for index, episode in enumerate(known):
        if missing_members(episode, IEpisode):
            raise ArgumentException(refusal(f"episodes[{index}]", "an IEpisode", episode))
    if len(given) != len(known) or not given:
        raise ArgumentException(
            f"losses must be as many as the episodes, at least one, got {len(given)} and {len(known)}"
        )
    return known, [FINITE.check(f"losses[{index}]", loss) for index, loss in enumerate(given)]


def note_losses(episodes: Sequence[IEpisode[Any, Any, Any]], losses: Sequence[float]) -> None:
    """Note on each episode its loss, and that it was used once more."""
    for episode, loss in zip(episodes, losses, strict=True):
        episode.LastLoss = loss
        episode.SampleCount += 1
