"""Tasks drawn ahead for a device: always those that would be drawn now, with the loader always where it would be."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import simulated_cupy
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from aidotnet_py import MAMLAlgorithm, MAMLOptions, NeuralNetworkModel
from aidotnet_py.backends import available_backends, get_backend
from aidotnet_py.data import BalancedEpisodicDataLoader, DigitsLoader, SinusoidLoader
from aidotnet_py.data.prefetch import Prefetcher
from aidotnet_py.data.random_stream import RandomStream
from aidotnet_py.exceptions import InvalidOperationException
from aidotnet_py.nn import Dense, Sequential, Tanh

SETS = ("SupportInput", "SupportOutput", "QueryInput", "QueryOutput")


def bits(loader: Any, tasks: Any) -> list[bytes]:
    to_numpy = loader._backend.to_numpy
    return [to_numpy(getattr(task, which)).tobytes() for task in tasks for which in SETS]


def balanced(shots: int, queries: int, **options: Any) -> BalancedEpisodicDataLoader[Any]:
    x = np.arange(70.0).reshape(35, 2)
    return BalancedEpisodicDataLoader(x, np.arange(35) % 7, 3, shots, queries, **options)


@pytest.mark.slow
@pytest.mark.parametrize("make", [SinusoidLoader, DigitsLoader, balanced])
@given(
    calls=st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["batch"] * 4 + ["aside"]), st.sampled_from([2, 2, 2, 3])),
            st.tuples(st.sampled_from(["next", "back", "seed"]), st.integers(0, 2)),
        ),
        max_size=12,
    )
)
def test_whatever_is_asked_for_the_tasks_are_the_hosts(make: Any, calls: list[tuple[str, int]]) -> None:
    there, here = make(2, 2, seed=5, backend="simulated"), make(2, 2, seed=5)
    places = [here.GetState()]
    for call, number in calls:
        for loader in (there, here):
            place = loader.GetState()
            if call == "seed":
                loader.SetSeed(number)
            elif call == "back":
                loader.SetState(places[number % len(places)])
        if call in ("batch", "aside"):
            assert bits(there, there.GetTaskBatch(number)) == bits(here, here.GetTaskBatch(number))
        elif call == "next":
            assert bits(there, [there.GetNextTask()]) == bits(here, [here.GetNextTask()])
        if call == "aside":
            there.SetState(place)
            here.SetState(place)
        assert there.GetState() == here.GetState()
        places.append(here.GetState())


class Recorded:
    """A draw that notes which thread it is done in, and can fail."""

    def __init__(self) -> None:
        self.threads: list[bool] = []
        self.failing = False

    def __call__(self, stream: RandomStream, count: int) -> list[float]:
        self.threads.append(threading.current_thread() is threading.main_thread())
        if self.failing:
            raise OSError("no more images")
        return stream.generator.random(count).tolist()


def test_what_is_asked_for_again_and_again_is_drawn_elsewhere() -> None:
    draw, stream = Recorded(), RandomStream(0)
    ahead = Prefetcher(draw, lambda last: draw)
    found = [x for _ in range(6) for x in ahead.draw(stream, 3)]
    assert found == RandomStream(0).generator.random(18).tolist()
    # The first two show that there may be a third.
    assert draw.threads[:2] == [True, True]
    assert draw.threads.count(True) == 2


def test_single_requests_draw_nothing_ahead() -> None:
    draw, stream = Recorded(), RandomStream(0)
    ahead = Prefetcher(draw, lambda last: draw)
    for count in (1, 2, 3, 4):
        ahead.draw(stream, count)
    assert draw.threads == [True] * 4


@pytest.mark.parametrize("lasting", [True, False])
def test_an_error_comes_with_the_batch_that_it_is_of(lasting: bool) -> None:
    draw, stream, same = Recorded(), RandomStream(0), RandomStream(0)
    ahead, gate = Prefetcher(draw, lambda last: draw), threading.Event()
    ahead.draw(stream, 2)
    ahead._worker.submit(gate.wait)
    ahead.draw(stream, 2)
    draw.failing = True
    gate.set()
    ahead._worker.submit(int).result()
    assert draw.threads == [True, True, False]
    place = stream.state()
    if lasting:
        with pytest.raises(OSError, match="no more images"):
            ahead.draw(stream, 2)
    assert stream.state() == place
    draw.failing = False
    assert ahead.draw(stream, 2) == same.generator.random(6).tolist()[4:]


def test_nothing_is_drawn_ahead_where_there_is_no_room() -> None:
    def again(last: object) -> Any:
        raise MemoryError

    draw, stream = Recorded(), RandomStream(0)
    ahead = Prefetcher(draw, again)
    found = [x for _ in range(4) for x in ahead.draw(stream, 3)]
    assert found == RandomStream(0).generator.random(12).tolist()
    assert draw.threads == [True] * 4


def test_nothing_is_drawn_ahead_when_the_interpreter_ends() -> None:
    draw, stream = Recorded(), RandomStream(0)
    ahead = Prefetcher(draw, lambda last: draw)
    # As the interpreter does when the main thread has ended: other threads go on.
    ahead._worker.shutdown()
    found = [x for _ in range(4) for x in ahead.draw(stream, 3)]
    assert found == RandomStream(0).generator.random(12).tolist()


def learner_on(backend: str, **options: Any) -> MAMLAlgorithm[Any]:
    model: NeuralNetworkModel[Any] = NeuralNetworkModel(
        Sequential(Dense(4), Tanh(), Dense(1)), input_shape=(1,), dtype=np.float64, backend=backend, seed=0
    )
    loader = SinusoidLoader(3, 4, seed=1, dtype=np.float64, backend=backend)
    settings = {"MetaBatchSize": 3, "EvaluationTasks": 7, "UseFirstOrder": True}
    return MAMLAlgorithm(MAMLOptions(model, DataLoader=loader, **(settings | options)))


def test_a_run_interrupted_while_tasks_are_drawn_ahead_goes_on_as_it_would_have(tmp_path: Any) -> None:
    whole, broken = (learner_on("simulated", NumMetaIterations=9, EvaluationFrequency=4) for _ in range(2))
    wanted = whole.Train().LossHistory
    broken.Options.NumMetaIterations = 6
    first = broken.Train().LossHistory
    assert broken.Options.DataLoader.GetState() == _after(18)
    broken.Save(tmp_path / "run")
    resumed = learner_on("simulated", NumMetaIterations=3, EvaluationFrequency=4)
    resumed.Load(tmp_path / "run")
    assert [*first, *resumed.Train().LossHistory] == list(wanted)
    assert get_backend("simulated").owns(resumed.BaseModel.GetParameters())


def _after(tasks: int) -> dict[str, Any]:
    loader = SinusoidLoader(3, 4, seed=1, dtype=np.float64)
    loader.GetTaskBatch(tasks)
    return loader.GetState()


@pytest.mark.parametrize("name", ["numpy", "strict", "simulated", "cupy"])
def test_data_goes_over_beside_the_work(name: str) -> None:
    available = available_backends()
    if name not in available:
        pytest.skip(available.missing.get(name, "array-api-strict is not installed"))
    backend, values = get_backend(name), [np.arange(6.0).reshape(2, 3), np.arange(4)]
    transfer = backend.transfer_aside([backend.asarray(np.zeros_like(value)) for value in values])
    with ThreadPoolExecutor(1) as worker:
        found = worker.submit(transfer, values).result()
    for array, value in zip(found, values, strict=True):
        assert backend.owns(array)
        assert_array_equal(backend.to_numpy(array), value, strict=True)


def test_batches_drawn_ahead_go_over_beside_the_work() -> None:
    loader, transfers = SinusoidLoader(3, 4, seed=1, backend="simulated"), simulated_cupy.transfers
    for _ in range(2):
        loader.GetTaskBatch(5)
    before = transfers["to device"], transfers["to device, aside"]
    for _ in range(3):
        loader.GetTaskBatch(5)
    loader._prefetcher._worker.shutdown()
    # Three that were asked for, of which the first had begun before, and the one after them.
    assert transfers["to device"] == before[0]
    assert transfers["to device, aside"] - before[1] in (12, 16)


def test_no_transfer_beside_captured_work() -> None:
    backend = get_backend("simulated")
    array = backend.asarray(np.zeros(3))
    with pytest.raises(InvalidOperationException, match="a transfer to the device cannot be part of captured work"):
        backend.capture(lambda: backend.transfer_aside([array]))
