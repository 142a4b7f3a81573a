"""A sampler over given tasks, which remembers its feedback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from aidotnet_py import TaskBatch

__all__ = ["ListedSampler", "PlainEpisode"]

_IDS = count(1)


@dataclass(eq=False)
class PlainEpisode:
    """An `IEpisode`."""

    Task: Any
    EpisodeId: int
    Domain: str | None = None
    Difficulty: float | None = None
    LastLoss: float | None = None
    SampleCount: int = 0


class ListedSampler:
    """Picks the tasks of a list in turn."""

    NumWays, NumShots, NumQueryPerClass = 1, 4, 4

    def __init__(self, tasks: Sequence[Any]) -> None:
        self.tasks = list(tasks)
        self.place = 0
        self.episodes: list[PlainEpisode] = []
        self.feedback: list[tuple[Any, Any]] = []

    def SampleOne(self) -> Any:
        task = self.tasks[self.place % len(self.tasks)]
        self.place += 1
        self.episodes.append(PlainEpisode(task, next(_IDS)))
        return self.episodes[-1]

    def SampleBatch(self, batchSize: int) -> TaskBatch[Any, Any, Any]:
        return TaskBatch([self.SampleOne().Task for _ in range(batchSize)])

    def UpdateWithFeedback(self, episodes: Any, losses: Any) -> None:
        self.feedback.append((episodes, losses))

    def SetSeed(self, seed: int) -> None:
        self.place = seed
