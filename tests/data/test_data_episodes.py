"""Episodes, and their cache against a model of it."""

from __future__ import annotations

import os
import pickle
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from forks import forked, found_by
from hypothesis import given
from hypothesis import strategies as st

from aidotnet_py.data import Episode, EpisodeCache, SinusoidLoader
from aidotnet_py.exceptions import ArgumentException, ArgumentNullException, ArgumentOutOfRangeException
from aidotnet_py.meta_learning.contract.sources import IEpisode

TASK = SinusoidLoader(seed=0).GetNextTask()


def test_an_episode_is_the_contracts_and_holds_what_it_was_given() -> None:
    notes = {"place": "here"}
    before = time.time_ns() // 1_000_000
    episode = Episode(TASK, "waves", 0.25, notes)
    assert before <= episode.CreatedTimestamp <= time.time_ns() // 1_000_000
    assert isinstance(episode, IEpisode)
    assert (episode.Task, episode.Domain, episode.Difficulty) == (TASK, "waves", 0.25)
    assert (episode.LastLoss, episode.SampleCount) == (None, 0)
    assert episode.EpisodeMetadata == notes
    assert episode.EpisodeMetadata is not notes


def test_ids_are_different_in_all_threads() -> None:
    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(lambda _: Episode(TASK).EpisodeId, range(400)))
    assert len(set(ids)) == 400


@pytest.mark.filterwarnings("ignore:.*fork")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_episodes_of_another_process_are_others_in_a_cache(tmp_path: Path) -> None:
    path = tmp_path / "episodes"
    # The fork goes on from this process's ids, if they are counted.
    assert found_by(forked(lambda: path.write_bytes(pickle.dumps([Episode(TASK) for _ in range(4)])) > 0))
    strange, own = pickle.loads(path.read_bytes()), [Episode(TASK) for _ in range(4)]
    cache: EpisodeCache[Any, Any, Any] = EpisodeCache(8)
    cache.PutAll([*own, *strange])
    assert cache.Count == 8
    assert all(cache.TryGet(episode.EpisodeId) == (True, episode) for episode in [*own, *strange])


def test_what_is_known_may_change() -> None:
    episode = Episode(TASK)
    episode.Difficulty, episode.LastLoss, episode.SampleCount = 1.0, 3.5, 2
    assert (episode.Difficulty, episode.LastLoss, episode.SampleCount) == (1.0, 3.5, 2)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((None,), ArgumentNullException, "task must be an IMetaLearningTask, got None"),
        ((3,), ArgumentException, "task must be an IMetaLearningTask, got a int"),
        ((TASK, None, -0.1), ArgumentOutOfRangeException, r"difficulty must be a number in \[0, 1\] or None, got -0.1"),
        ((TASK, None, "hard"), ArgumentException, "difficulty must be a number"),
    ],
)
def test_what_is_no_episode(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Episode(*arguments)


EPISODES = [Episode(TASK) for _ in range(6)]


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.sampled_from(["put", "get", "put", "get", "all", "clear"]), st.integers(0, 5)), max_size=40),
)
def test_the_cache_is_bounded_and_forgets_the_least_recently_used(capacity: int, calls: list[tuple[str, int]]) -> None:
    cache: EpisodeCache[Any] = EpisodeCache(capacity)
    model: OrderedDict[int, Any] = OrderedDict()
    hits = misses = 0

    def put(episode: Any) -> None:
        model[episode.EpisodeId] = episode
        model.move_to_end(episode.EpisodeId)
        if len(model) > capacity:
            model.popitem(last=False)

    for call, number in calls:
        episode = EPISODES[number]
        if call == "put":
            cache.Put(episode)
            put(episode)
        elif call == "all":
            cache.PutAll(EPISODES[: number + 1])
            for one in EPISODES[: number + 1]:
                put(one)
        elif call == "clear":
            cache.Clear()
            model.clear()
            hits = misses = 0
        elif episode.EpisodeId in model:
            model.move_to_end(episode.EpisodeId)
            hits += 1
            assert cache.TryGet(episode.EpisodeId) == (True, episode)
        else:
            misses += 1
            assert cache.TryGet(episode.EpisodeId) == (False, None)
        assert cache.Count == len(model) <= cache.Capacity == capacity
        assert (cache.HitCount, cache.MissCount) == (hits, misses)
        assert cache.HitRate == (hits / (hits + misses) if hits + misses else 0.0)


def test_threads_share_a_cache() -> None:
    cache: EpisodeCache[Any] = EpisodeCache(3)

    def work(number: int) -> None:
        for step in range(300):
            cache.Put(EPISODES[(number + step) % 6])
            cache.TryGet(EPISODES[step % 6].EpisodeId)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert cache.Count == 3
    assert cache.HitCount + cache.MissCount == 1200


def test_defaults_and_refusals_of_the_cache() -> None:
    cache: EpisodeCache[Any] = EpisodeCache()
    assert (cache.Capacity, cache.Count, cache.HitRate) == (1000, 0, 0.0)
    with pytest.raises(ArgumentOutOfRangeException, match="capacity must be a whole number of at least 1, got 0"):
        EpisodeCache(0)
    with pytest.raises(ArgumentNullException, match="episode must be an IEpisode, got None"):
        cache.Put(None)  # type: ignore[arg-type]
    with pytest.raises(ArgumentException, match="episode must be an IEpisode, got <MetaLearningTask"):
        cache.Put(TASK)  # type: ignore[arg-type]
    with pytest.raises(ArgumentNullException, match="episodes must be an iterable of episodes, got None"):
        cache.PutAll(None)  # type: ignore[arg-type]
    assert cache.Count == 0
