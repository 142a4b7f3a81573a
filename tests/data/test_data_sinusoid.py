"""Sinusoid tasks, and what all loaders share: sizes, seeds, saved positions, batches and backends."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy import stats

from aidotnet_py.backends import Backend
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.exceptions import ArgumentException, ArgumentNullException, ArgumentOutOfRangeException
from aidotnet_py.meta_learning.contract.sources import IEpisodicDataLoader, IResumable
from aidotnet_py.meta_learning.contract.tasks import MetaLearningTask


def arrays(task: MetaLearningTask[Any, Any, Any], backend: Backend | None = None) -> list[np.ndarray]:
    data = [task.SupportInput, task.SupportOutput, task.QueryInput, task.QueryOutput]
    return data if backend is None else [backend.to_numpy(array) for array in data]


def same(left: MetaLearningTask[Any, Any, Any], right: MetaLearningTask[Any, Any, Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(arrays(left), arrays(right), strict=True))


def test_it_is_the_contracts_loader() -> None:
    loader = SinusoidLoader(KShot=7, QueryShots=3)
    assert isinstance(loader, IEpisodicDataLoader)
    assert isinstance(loader, IResumable)
    assert (loader.NWay, loader.KShot, loader.QueryShots, loader.AvailableClasses) == (1, 7, 3, 1)
    task = loader.GetNextTask()
    assert (task.NumWays, task.NumShots, task.NumQueryPerClass, task.Name) == (1, 7, 3, "sinusoid")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_targets_are_the_sine_at_the_stored_inputs(backend: Backend, dtype: Any) -> None:
    task = SinusoidLoader(KShot=50, QueryShots=30, seed=3, dtype=dtype, backend=backend).GetNextTask()
    assert backend.owns(task.SupportInput)
    sx, sy, qx, qy = arrays(task, backend)
    assert [a.shape for a in (sx, sy, qx, qy)] == [(50, 1), (50, 1), (30, 1), (30, 1)]
    assert {a.dtype for a in (sx, sy, qx, qy)} == {np.dtype(dtype)}
    amplitude, phase = task.Metadata["Amplitude"], task.Metadata["Phase"]
    for x, y in ((sx, sy), (qx, qy)):
        truth = [[amplitude * math.sin(float(v) - phase)] for v in x[:, 0]]
        # Half a unit in the last place of the target, and a float64 rounding or two of the sine itself.
        np.testing.assert_allclose(y, truth, rtol=np.finfo(dtype).eps / 2 + 4e-16, atol=1e-15)


def test_amplitude_phase_and_inputs_have_the_papers_distributions() -> None:
    batch = SinusoidLoader(KShot=2, QueryShots=1, seed=11, dtype=np.float64).GetTaskBatch(2000)
    found = {
        "amplitude": ([task.Metadata["Amplitude"] for task in batch], (0.1, 5.0)),
        "phase": ([task.Metadata["Phase"] for task in batch], (0.0, math.pi)),
        "x": (np.concatenate([task.SupportInput[:, 0] for task in batch]), (-5.0, 5.0)),
    }
    for name, (values, (low, high)) in found.items():
        assert low <= min(values) <= max(values) <= high, name
        assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 0.01, name


def test_the_same_seed_gives_the_same_bits_on_every_backend(backend: Backend) -> None:
    here = SinusoidLoader(seed=5, backend=backend).GetTaskBatch(3)
    host = SinusoidLoader(seed=5).GetTaskBatch(3)
    for a, b in zip(here, host, strict=True):
        for left, right in zip(arrays(a, backend), arrays(b), strict=True):
            np.testing.assert_array_equal(left, right, strict=True)


def test_a_batch_is_so_many_next_tasks_and_seeds_start_anew() -> None:
    loader = SinusoidLoader(seed=8)
    batch = loader.GetTaskBatch(4)
    loader.SetSeed(8)
    assert all(same(task, loader.GetNextTask()) for task in batch)
    loader.SetSeed(9)
    assert not same(batch[0], loader.GetNextTask())
    assert len({task.TaskId for task in batch}) == 4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tasks_are_those_of_one_draw_after_another(dtype: Any) -> None:
    generator = np.random.Generator(np.random.PCG64(11))
    for task in SinusoidLoader(7, 6, seed=11, dtype=dtype).GetTaskBatch(20):
        amplitude, phase = generator.uniform(0.1, 5.0), generator.uniform(0.0, np.pi)
        x = generator.uniform(-5.0, 5.0, (13, 1)).astype(dtype)
        y = (amplitude * np.sin(x.astype(np.float64) - phase)).astype(dtype)
        assert task.Metadata == {"Amplitude": amplitude, "Phase": phase}
        assert_array_equal(np.concatenate([task.SupportInput, task.QueryInput]), x, strict=True)
        assert_array_equal(np.concatenate([task.SupportOutput, task.QueryOutput]), y, strict=True)


def test_without_a_seed_loaders_differ() -> None:
    assert not same(SinusoidLoader().GetNextTask(), SinusoidLoader().GetNextTask())


def test_both_precisions_draw_the_same_functions() -> None:
    single, double = (SinusoidLoader(seed=2, dtype=dtype).GetNextTask() for dtype in (np.float32, np.float64))
    assert single.Metadata == double.Metadata
    np.testing.assert_array_equal(single.SupportInput, double.SupportInput.astype(np.float32))


@given(drawn=st.integers(0, 5), seed=st.integers(0, 2**64))
def test_a_saved_position_goes_through_json_and_resumes(drawn: int, seed: int) -> None:
    loader = SinusoidLoader(seed=seed)
    for _ in range(drawn):
        loader.GetNextTask()
    state = json.loads(json.dumps(loader.GetState()))
    expected = loader.GetTaskBatch(3)
    resumed = SinusoidLoader(seed=1)
    resumed.SetState(state)
    assert all(same(a, b) for a, b in zip(expected, resumed.GetTaskBatch(3), strict=True))
    assert resumed.GetState() == loader.GetState()


def test_a_saved_position_is_a_copy() -> None:
    loader = SinusoidLoader(seed=1)
    state = loader.GetState()
    text = json.dumps(state)
    loader.GetNextTask()
    assert json.dumps(state) == text


def changed(path: tuple[str, ...], value: object) -> dict[str, Any]:
    state = SinusoidLoader(seed=1).GetState()
    inner = state
    for key in path[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, "state must be a mapping with bit_generator, .* got a NoneType"),
        ([1], "state must be a mapping with bit_generator, .* got a list"),
        ({}, r"state must have the keys bit_generator, .* got \[\]"),
        (changed(("uinteger",), ...), r"state must have the keys bit_generator, .*, got \["),
        (changed(("more",), 1), r"state must have the keys bit_generator, .*, got \["),
        (changed(("bit_generator",), "MT19937"), r"state\['bit_generator'\] must be 'PCG64', got 'MT19937'"),
        (changed(("state",), 3), r"state\['state'\] must be a mapping with inc, state, got a int"),
        (changed(("state", "inc"), ...), r"state\['state'\] must have the keys inc, state, got \['state'\]"),
        (changed(("state", "inc"), 4), r"inc'\] must be odd, got 4"),
        (
            changed(("state", "state"), 1 << 128),
            r"state\['state'\]\['state'\] must be an integer of at most 128 bits, got 34",
        ),
        (changed(("state", "state"), -1), "of at most 128 bits"),
        (changed(("state", "state"), "1"), "of at most 128 bits"),
        (changed(("state", "state"), 1.0), "of at most 128 bits"),
        (changed(("has_uint32",), 2), "of at most 1 bits"),
        (changed(("has_uint32",), True), "of at most 1 bits"),
        (changed(("uinteger",), 1 << 32), "of at most 32 bits"),
    ],
)
def test_a_wrong_position_is_refused_and_changes_nothing(state: Any, message: str) -> None:
    loader = SinusoidLoader(seed=4)
    loader.GetNextTask()
    before = loader.GetState()
    with pytest.raises(ArgumentException, match=message):
        loader.SetState(state)
    assert loader.GetState() == before


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**130), 2**130) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.sampled_from([("state",), ("state", "state"), ("state", "inc"), ("uinteger",), ("bit_generator",)]), json_values
)
def test_any_json_is_taken_or_refused_whole(path: tuple[str, ...], value: object) -> None:
    loader = SinusoidLoader(seed=4)
    before = loader.GetState()
    state = changed(path, value)
    try:
        loader.SetState(state)
    except ArgumentException:
        assert loader.GetState() == before
    else:
        assert loader.GetState() == state
    assert np.isfinite(loader.GetNextTask().SupportOutput).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"KShot": 0}, ArgumentOutOfRangeException, "KShot must be a whole number of at least 1, got 0"),
        ({"QueryShots": -2}, ArgumentOutOfRangeException, "QueryShots must be a whole number of at least 1, got -2"),
        ({"KShot": 1.5}, ArgumentException, "KShot must be a whole number of at least 1, got 1.5"),
        ({"KShot": True}, ArgumentException, "KShot must be a whole number of at least 1, got True"),
        ({"QueryShots": None}, ArgumentException, "QueryShots must be a whole number of at least 1, got None"),
        ({"seed": -1}, ArgumentOutOfRangeException, "seed must be a whole number of at least 0, got -1"),
        ({"seed": "a"}, ArgumentException, "seed must be a whole number of at least 0, got 'a'"),
        ({"seed": False}, ArgumentException, "seed must be a whole number of at least 0, got False"),
        ({"dtype": np.int32}, ArgumentException, "dtype must be a NumPy floating type such as np.float32, got .*int32"),
        (
            {"dtype": np.complex128},
            ArgumentException,
            "dtype must be a NumPy floating type such as np.float32, got .*complex128",
        ),
        ({"dtype": float}, ArgumentException, "dtype must be a NumPy floating type such as np.float32, got .*float"),
        (
            {"dtype": "float32"},
            ArgumentException,
            "dtype must be a NumPy floating type such as np.float32, got 'float32'",
        ),
        ({"backend": "abacus"}, ArgumentException, "backend must be a Backend or one of .*, got 'abacus'"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SinusoidLoader(**arguments)


def test_bad_batch_sizes_and_seeds_are_named_and_draw_nothing() -> None:
    loader = SinusoidLoader(seed=1)
    before = loader.GetState()
    for n, error in ((0, ArgumentOutOfRangeException), (-1, ArgumentOutOfRangeException), (2.0, ArgumentException)):
        with pytest.raises(error, match=f"numTasks must be a whole number of at least 1, got {n}"):
            loader.GetTaskBatch(n)  # type: ignore[arg-type]
    with pytest.raises(ArgumentNullException, match="seed must be a whole number of at least 0, got None"):
        loader.SetSeed(None)  # type: ignore[arg-type]
    with pytest.raises(ArgumentOutOfRangeException, match="seed must be a whole number of at least 0, got -5"):
        loader.SetSeed(-5)
    assert loader.GetState() == before


def test_numpy_integers_are_integers() -> None:
    loader = SinusoidLoader(KShot=np.int64(4), seed=np.uint8(3))  # type: ignore[arg-type]
    assert same(loader.GetNextTask(), SinusoidLoader(KShot=4, seed=3).GetNextTask())
