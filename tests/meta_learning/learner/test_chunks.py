"""Batches in chunks over threads: the same bits however they are split, errors by the task's place, BLAS put back."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import threadpoolctl
from numpy_doubles import Threads
from tanh_network import TanhNetwork, batch_of

from aidotnet_py import InvalidOperationException, MetaLearningTask, TaskBatch, iMAMLAlgorithm, iMAMLOptions
from aidotnet_py.backends import NumPyBackend, get_backend
from aidotnet_py.meta_learning.learner.parallel import over_chunks

NETWORK = TanhNetwork(outputs=3, classify=True)
TASKS = 7


def learner_on(backend: NumPyBackend, **options: Any) -> iMAMLAlgorithm[Any, Any, Any]:
    model = NETWORK.model(backend, NETWORK.start())
    return iMAMLAlgorithm(iMAMLOptions(model, AdaptationSteps=3, LambdaRegularization=0.05, **options))


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NumPyBackend, "flops_at_once", 1)


def trained(threads: int, **options: Any) -> tuple[Any, Any, dict[str, float]]:
    backend = Threads(threads)
    learner = learner_on(backend, **options)
    batch = batch_of(backend, NETWORK.sets(TASKS))
    losses = [learner.MetaTrain(batch) for _ in range(3)]
    record = learner._record
    assert record is not None
    return learner.BaseModel.GetParameters(), [*losses, learner.Evaluate(batch), *record.losses], record.metrics


@pytest.mark.costly
@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"UseFirstOrder": True}, marks=pytest.mark.slow),
        {"UseNeumannApproximation": True},
        pytest.param({"InnerObjective": "proximal"}, marks=pytest.mark.slow),
    ],
)
def test_the_split_and_the_threads_leave_the_bits_alone(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(1, **options)
    for flops, threads in ((1, 1), (1, 2), (1, 5), (100_000, 2)):
        monkeypatch.setattr(NumPyBackend, "flops_at_once", flops)
        parameters, losses, metrics = trained(threads, **options)
        np.testing.assert_array_equal(parameters, whole[0])
        assert losses == whole[1]
        assert metrics == whole[2]


@pytest.mark.usefixtures("small_chunks")
def test_chunks_go_over_all_threads_and_none_is_left() -> None:
    before = threading.active_count()
    seen: list[tuple[int, str]] = []
    barrier = threading.Barrier(2, timeout=30)
    learner = learner_on(Threads(2))
    whole = learner._open(list(batch_of(Threads(2), NETWORK.sets(4))), "Support", "Query")

    def work(chunk: Any) -> int:
        if chunk.places[0] < 2:
            barrier.wait()  # passes only where two chunks are worked on at a time
        seen.append((chunk.places[0], threading.current_thread().name))
        return chunk.places[0] + len(chunk.tasks)

    assert over_chunks(whole, work) == [1, 2, 3, 4]
    assert sorted(first for first, _ in seen) == [0, 1, 2, 3]
    assert {name for _, name in seen} == {"aidotnet_py lane 0", "aidotnet_py lane 1"}
    assert threading.active_count() == before


@pytest.mark.costly
@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_first_task_that_fails_is_named_by_its_place_in_the_batch(threads: int) -> None:
    backend = Threads(threads)
    sets = NETWORK.sets(TASKS)
    for place in (3, 5):
        x = np.array(sets[place][0])
        x[0, 0] = np.nan
        sets[place] = (x, *sets[place][1:])
    learner = learner_on(backend)
    start = np.array(learner.BaseModel.GetParameters())
    with pytest.raises(InvalidOperationException, match=r"support loss of task 3 \("):
        learner.MetaTrain(batch_of(backend, sets))
    np.testing.assert_array_equal(learner.BaseModel.GetParameters(), start)
    learner.MetaTrain(batch_of(backend, NETWORK.sets(TASKS)))


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("lanes", [1, 2])
def test_products_use_one_thread_within_and_as_many_as_before_after(lanes: int) -> None:
    def threads() -> list[int]:
        return [library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]

    learner = learner_on(Threads(lanes))
    whole = learner._open(list(batch_of(Threads(lanes), NETWORK.sets(2))), "Support")
    # Two, whatever the environment says: of one there would be nothing to see.
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = threads()
        assert before
        assert set(before) == {2}
        assert over_chunks(whole, lambda chunk: threads()) == [[1] * len(before)] * 2
        assert threads() == before
        with pytest.raises(ZeroDivisionError):
            over_chunks(whole, lambda chunk: 1 // 0)
        assert threads() == before


def test_numpy_has_as_many_threads_as_its_products_may_use() -> None:
    backend = get_backend("numpy")
    assert backend.threads >= 1
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        assert backend.threads == 1


def test_a_single_large_task_is_a_chunk_of_its_own() -> None:
    task = batch_of(Threads(2), NETWORK.sets(1))[0]
    assert isinstance(task, MetaLearningTask)
    learner = learner_on(Threads(2))
    assert np.isfinite(learner.MetaTrain(TaskBatch([task])))
