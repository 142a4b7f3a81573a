"""Tasks drawn ahead for a device: always those that would be drawn now, with the loader always where it would be."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidotnet_py import MAMLAlgorithm, MAMLOptions, NeuralNetworkModel
from aidotnet_py.backends import get_backend
from aidotnet_py.data import DigitsLoader, SinusoidLoader
from aidotnet_py.data.ahead import DrawnAhead
from aidotnet_py.data.random_stream import RandomStream
from aidotnet_py.nn import Dense, Sequential, Tanh

SETS = ("SupportInput", "SupportOutput", "QueryInput", "QueryOutput")


def bits(loader: Any, tasks: Any) -> list[bytes]:
    to_numpy = loader._backend.to_numpy
    return [to_numpy(getattr(task, which)).tobytes() for task in tasks for which in SETS]


@pytest.mark.parametrize("make", [SinusoidLoader, DigitsLoader])
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
    there, here = make(1, 2, seed=5, backend="simulated"), make(1, 2, seed=5)
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

    def __call__(self, generator: np.random.Generator, count: int) -> list[float]:
        self.threads.append(threading.current_thread() is threading.main_thread())
        if self.failing:
            raise OSError("no more images")
        return generator.random(count).tolist()


def test_what_is_asked_for_again_and_again_is_drawn_elsewhere() -> None:
    draw, stream = Recorded(), RandomStream(0)
    ahead = DrawnAhead(draw)
    found = [x for _ in range(6) for x in ahead.draw(stream, 3)]
    assert found == RandomStream(0).generator.random(18).tolist()
    # The first two show that there may be a third.
    assert draw.threads[:2] == [True, True]
    assert draw.threads.count(True) == 2


def test_single_requests_draw_nothing_ahead() -> None:
    draw, stream = Recorded(), RandomStream(0)
    ahead = DrawnAhead(draw)
    for count in (1, 2, 3, 4):
        ahead.draw(stream, count)
    assert draw.threads == [True] * 4


@pytest.mark.parametrize("lasting", [True, False])
def test_an_error_comes_with_the_batch_that_it_is_of(lasting: bool) -> None:
    draw, stream, same = Recorded(), RandomStream(0), RandomStream(0)
    ahead, gate = DrawnAhead(draw), threading.Event()
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


def learner_on(backend: str, **options: Any) -> MAMLAlgorithm[Any]:
    model: NeuralNetworkModel[Any] = NeuralNetworkModel(
        Sequential(Dense(4), Tanh(), Dense(1)), input_shape=(1,), dtype=np.float64, backend=backend, seed=0
    )
    loader = SinusoidLoader(3, 4, seed=1, dtype=np.float64, backend=backend)
    return MAMLAlgorithm(MAMLOptions(model, DataLoader=loader, MetaBatchSize=3, EvaluationTasks=7, **options))


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
