"""Episodes, which are tasks with a record of their use, and a bounded cache of them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from typing import Any, Generic

from aidotnet_py.arguments import COUNT, Number, OrNone, check_given, refusal
from aidotnet_py.caching import BoundedCache
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.known_attributes import KnownAttributes
from aidotnet_py.locks import Lock
from aidotnet_py.meta_learning.contract.protocols import missing_members
from aidotnet_py.meta_learning.contract.sources import IEpisode
from aidotnet_py.meta_learning.contract.task_checks import check_task
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask
from aidotnet_py.representations import concise_repr
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["Episode", "EpisodeCache"]

_DIFFICULTY = OrNone(Number(least=0, most=1))
# So that episodes of other processes, which come in pickles, have other ids.
_ID_BITS = 63


class Episode(KnownAttributes, Generic[T, TInput, TOutput]):
    """A task and what is known of its use in training: an `IEpisode`.

    Parameters
    ----------
    task : IMetaLearningTask
        The task.
    domain : str, optional
        The data that it comes from.
    difficulty : float, optional
        From 0 to 1.
    metadata : mapping, optional
        Whatever else is known; copied.

    Attributes
    ----------
    Difficulty : float or None
        The difficulty, or None if it is unknown.
    LastLoss : float or None
        The loss that was fed back last.
    SampleCount : int
        How often a loss was fed back.
    CreatedTimestamp : int
        Milliseconds from 1970 to the creation of the episode.
    EpisodeMetadata : dict
        A copy of ``metadata``.

    Raises
    ------
    ArgumentNullException
        ``task`` is None.
    ArgumentOutOfRangeException
        ``difficulty`` is not in [0, 1].
    ArgumentException
        ``task`` is no task, or ``difficulty`` no number.

    Examples
    --------
    >>> from aidotnet_py.data import Episode, SinusoidLoader
    >>> episode = Episode(SinusoidLoader(seed=0).GetNextTask(), domain="waves", difficulty=0.5)
    >>> episode.Task.NumShots, episode.Domain, episode.Difficulty, episode.LastLoss, episode.SampleCount
    (10, 'waves', 0.5, None, 0)
    """

    Difficulty: float | None
    LastLoss: float | None
    SampleCount: int
    EpisodeMetadata: dict[str, Any]
    CreatedTimestamp: int

    @suggests_keywords()
    def __init__(
        self,
        task: IMetaLearningTask[T, TInput, TOutput],
        domain: str | None = None,
        difficulty: float | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self._task = check_task(task)
        self._domain = domain
        self.Difficulty = _DIFFICULTY.check("difficulty", difficulty)
        self.LastLoss = None
        self.SampleCount = 0
        self.EpisodeMetadata = dict(metadata or {})
        self.CreatedTimestamp = time.time_ns() // 1_000_000
        self._id = secrets.randbits(_ID_BITS)

    @property
    def Task(self) -> IMetaLearningTask[T, TInput, TOutput]:
        """The task."""
        return self._task

    @property
    def EpisodeId(self) -> int:
        """A random number that no other episode has, of whatever process; a copy keeps it."""
        return self._id

    @property
    def Domain(self) -> str | None:
        """The data that the task comes from, or None."""
        return self._domain

    def __repr__(self) -> str:
        return f"<Episode {self._id}: {self._task!r}>"


class EpisodeCache(Generic[T, TInput, TOutput]):
    """Episodes by their ids, at most ``capacity``; the least recently used goes first. Threads may share it.

    Parameters
    ----------
    capacity : int
        The largest number of episodes.

    Raises
    ------
    ArgumentException
        ``capacity`` is no integer, or below 1 (ArgumentOutOfRangeException).

    Examples
    --------
    >>> from aidotnet_py.data import EpisodeCache, GaussianClassificationMetaDataset
    >>> first, second, third = GaussianClassificationMetaDataset(seed=0).SampleEpisodes(3, 5, 1, 15)
    >>> cache = EpisodeCache(capacity=2)
    >>> cache.PutAll([first, second])
    >>> cache.TryGet(first.EpisodeId) == (True, first)
    True
    >>> cache.Put(third)
    >>> cache.TryGet(second.EpisodeId), cache.Count, cache.HitRate
    ((False, None), 2, 0.5)
    """

    __repr__ = concise_repr

    def __init__(self, capacity: int = 1000) -> None:
        self._capacity = COUNT.check("capacity", capacity)
        self._episodes: BoundedCache[int, IEpisode[T, TInput, TOutput]] = BoundedCache(self._capacity)
        self._lock = Lock()
        self._hits = self._misses = 0

    @property
    def Capacity(self) -> int:
        """The largest number of episodes."""
        return self._capacity

    @property
    def Count(self) -> int:
        """The number of episodes in the cache."""
        return len(self._episodes)

    @property
    def HitCount(self) -> int:
        """How often `TryGet` had the episode, since the cache was made or cleared."""
        return self._hits

    @property
    def MissCount(self) -> int:
        """How often `TryGet` did not have the episode, since the cache was made or cleared."""
        return self._misses

    @property
    def HitRate(self) -> float:
        """HitCount / (HitCount + MissCount), 0 before the first `TryGet`."""
        asked = self._hits + self._misses
        return self._hits / asked if asked else 0.0

    def TryGet(self, episodeId: int) -> tuple[bool, IEpisode[T, TInput, TOutput] | None]:
        """Return whether the cache has an episode with this id, and the episode or None."""
        with self._lock:
            episode = self._episodes.get(episodeId)
            if episode is None:
                self._misses += 1
            else:
                self._hits += 1
            return episode is not None, episode

    def Put(self, episode: IEpisode[T, TInput, TOutput]) -> None:
        """Add an episode, which from now on is the one used last.

        Raises
        ------
        ArgumentNullException
            ``episode`` is None.
        ArgumentException
            ``episode`` is no `IEpisode`.
        """
        check_given("episode", episode, "an IEpisode")
        if missing_members(episode, IEpisode):
            raise ArgumentException(refusal("episode", "an IEpisode", episode))
        self._episodes.put(episode.EpisodeId, episode)

    def PutAll(self, episodes: Iterable[IEpisode[T, TInput, TOutput]]) -> None:
        """Add several episodes in turn, as `Put` does."""
        check_given("episodes", episodes, "an iterable of episodes")
        for episode in episodes:
            self.Put(episode)

    def Clear(self) -> None:
        """Forget all episodes, hits and misses."""
        with self._lock:
            self._episodes.clear()
            self._hits = self._misses = 0
