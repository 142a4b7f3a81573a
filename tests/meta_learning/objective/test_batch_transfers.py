"""A batch of tasks goes to the device in one transfer of each kind of array, and to the programs in one copy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simulated_cupy
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from omniglot_files import alphabets, load, write

from aidotnet_py import MetaLearningTask, NeuralNetworkModel, TaskBatch, iMAMLAlgorithm, iMAMLOptions
from aidotnet_py.backends import Backend, available_backends, get_backend
from aidotnet_py.data import DigitsLoader, SinusoidLoader
from aidotnet_py.meta_learning.objective.stacking import row_views
from aidotnet_py.nn import Dense, Sequential, Tanh

SETS = ("SupportInput", "SupportOutput", "QueryInput", "QueryOutput")


def part(backend: Backend, array: Any, *key: slice, shape: tuple[int, ...]) -> Any:
    """A view of some of an array, of that shape."""
    return backend.reshape(backend.index(array, key), shape)


class TestStacked:
    """`Backend.stacked` on CuPy: one view of arrays that lie evenly spaced."""

    @given(
        shape=st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 3)),
        rows=st.lists(st.integers(0, 5), min_size=1, max_size=6),
        width=st.integers(1, 3),
    )
    def test_is_the_arrays_where_there_is_one(self, shape: Any, rows: list[int], width: int) -> None:
        backend = get_backend("simulated")
        host = np.arange(float(np.prod(shape))).reshape(shape)
        whole, rows, width = backend.asarray(host), [row % shape[0] for row in rows], min(width, shape[2])
        arrays = [
            part(backend, whole, slice(row, row + 1), slice(None), slice(0, width), shape=(shape[1], width))
            for row in rows
        ]
        found = backend.stacked(arrays)
        steps = set(np.diff(rows).tolist())
        if steps and (len(steps) > 1 or min(steps) < 1):
            assert found is None
            return
        assert found is not None
        assert_array_equal(backend.to_numpy(found), host[rows, :, :width], strict=True)
        backend.copyto(whole, -1.0)
        assert (backend.to_numpy(found) == -1).all()

    def test_is_one_on_a_device(self, cupy_backend: Backend) -> None:
        host = np.arange(24.0).reshape(4, 3, 2)
        found = cupy_backend.stacked(row_views(cupy_backend, cupy_backend.asarray(host)))
        assert found is not None
        assert cupy_backend.owns(found)
        assert_array_equal(cupy_backend.to_numpy(found), host, strict=True)
        assert_array_equal(cupy_backend.to_numpy(cupy_backend.stacked([cupy_backend.asarray(host)])), host[None])

    def test_keeps_the_memory(self, cupy_backend: Backend) -> None:
        host = np.arange(6.0).reshape(3, 2)
        found = cupy_backend.stacked(row_views(cupy_backend, cupy_backend.asarray(host)))
        for _ in range(3):
            cupy_backend.asarray(-host)
        assert_array_equal(cupy_backend.to_numpy(found), host)

    @pytest.mark.parametrize(
        "arrays_of",
        [
            lambda b, a: [b.asarray(a), b.asarray(a)],
            lambda b, a: [b.index(a, (slice(i, i + 2),)) for i in range(3)],
            lambda b, a: [part(b, a, slice(None), slice(i, i + 1), shape=(6,)) for i in range(4)],
            lambda b, a: [b.index(a, (slice(0, 2),)), b.index(a, (slice(2, 5),))],
            lambda b, a: [
                part(b, a, slice(0, 4, 2), slice(0, 2), shape=(2, 2)),
                part(b, a, slice(4, 6), slice(0, 2), shape=(2, 2)),
            ],
            lambda b, a: [b.index(a, (slice(i, i),)) for i in range(3)],
            lambda b, a: [a, a],
        ],
        ids=["of two allocations", "overlapping", "interlaced", "of two shapes", "of two strides", "empty", "the same"],
    )
    def test_is_none_for_arrays(self, cupy_backend: Backend, arrays_of: Callable[..., Sequence[Any]]) -> None:
        assert cupy_backend.stacked(arrays_of(cupy_backend, cupy_backend.asarray(np.ones((6, 4))))) is None

    def test_is_none_across_dtypes(self, cupy_backend: Backend) -> None:
        rows = row_views(cupy_backend, cupy_backend.asarray(np.ones((2, 3))))
        others = row_views(cupy_backend, cupy_backend.asarray(np.ones((2, 3), np.int64)))
        assert cupy_backend.stacked([rows[0], others[1]]) is None

    @pytest.mark.parametrize("name", [name for name in ("numpy", "strict") if name in available_backends()])
    def test_hosts_copy_as_fast(self, name: str) -> None:
        backend = get_backend(name)
        assert backend.stacked(row_views(backend, backend.asarray(np.ones((2, 3))))) is None


@pytest.mark.parametrize("name", ["sinusoids", "digits", "omniglot"])
@pytest.mark.parametrize("count", [1, 7])
def test_a_batch_takes_four_transfers(name: str, count: int, tmp_path: Path) -> None:
    archive = write(tmp_path / "set.zip", alphabets("A", "B")) if name == "omniglot" else tmp_path
    make: dict[str, Callable[[str], Any]] = {
        "sinusoids": lambda backend: SinusoidLoader(5, 6, seed=3, backend=backend),
        "digits": lambda backend: DigitsLoader(3, 2, 4, seed=3, backend=backend),
        "omniglot": lambda backend: load(archive, backend=backend),
    }
    there, here, backend = make[name]("simulated"), make[name]("numpy"), get_backend("simulated")
    before = simulated_cupy.transfers["to device"]
    batch = there.GetTaskBatch(count)
    assert simulated_cupy.transfers["to device"] == before + 4
    for moved, kept in zip(batch, [here.GetNextTask() for _ in range(count)], strict=True):
        for which in SETS:
            assert_array_equal(backend.to_numpy(getattr(moved, which)), getattr(kept, which), strict=True)
        assert moved.Metadata == kept.Metadata
    for which in SETS:
        assert backend.stacked([getattr(task, which) for task in batch]) is not None


@pytest.mark.parametrize("loader", [SinusoidLoader(3, 4, seed=0), DigitsLoader(2, 1, 3, seed=0)])
def test_tasks_of_a_batch_are_their_own(loader: Any) -> None:
    first, second = loader.GetTaskBatch(2)
    for which in SETS:
        mine, other = getattr(first, which), getattr(second, which).copy()
        assert mine.flags.c_contiguous
        mine[...] = 7
        assert_array_equal(getattr(second, which), other)
    assert not any((getattr(loader.GetNextTask(), which) == 7).all() for which in SETS)


def learner_on(backend: Backend) -> iMAMLAlgorithm[Any]:
    layers = Sequential(Dense(4), Tanh(), Dense(1))
    model = NeuralNetworkModel(layers, input_shape=(1,), dtype=np.float64, backend=backend, seed=0)
    return iMAMLAlgorithm(iMAMLOptions(model, AdaptationSteps=2, ConjugateGradientIterations=2))


def apart(backend: Backend, batch: Any) -> Any:
    """The same tasks, each array in memory of its own."""
    copies = ([backend.asarray(getattr(task, which)) for which in SETS] for task in batch)
    names = ("SupportSetX", "SupportSetY", "QuerySetX", "QuerySetY")
    return TaskBatch([MetaLearningTask(**dict(zip(names, arrays, strict=True))) for arrays in copies])


def test_a_step_is_the_same_wherever_its_tasks_lie(backend: Backend) -> None:
    loader = SinusoidLoader(3, 4, seed=1, dtype=np.float64, backend=backend)
    batches = [loader.GetTaskBatch(5) for _ in range(2)]
    one, other = learner_on(backend), learner_on(backend)
    for batch in batches:
        # Turned round, they lie evenly spaced the wrong way.
        turned, scattered = TaskBatch(batch[::-1]), apart(backend, batch[::-1])
        for left, right in ((batch, apart(backend, batch)), (turned, scattered)):
            assert one.MetaTrain(left) == other.MetaTrain(right)
    found, wanted = (backend.to_numpy(x.BaseModel.GetParameters()) for x in (one, other))
    assert found.tobytes() == wanted.tobytes()


def test_the_programs_take_a_batch_in_one_copy_of_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    backend, copied = get_backend("simulated"), Counter[tuple[int, ...]]()
    loader = SinusoidLoader(3, 4, seed=1, dtype=np.float64, backend=backend)
    learner = learner_on(backend)
    learner.MetaTrain(loader.GetTaskBatch(5))
    batch, copyto = loader.GetTaskBatch(5), simulated_cupy.cupy.copyto

    def counted(dst: Any, src: Any, *args: Any, **options: Any) -> None:
        copied[src.shape] += 1
        copyto(dst, src, *args, **options)

    monkeypatch.setattr(simulated_cupy.cupy, "copyto", counted)
    learner.MetaTrain(batch)
    shapes = {which: getattr(batch[0], which).shape for which in SETS}
    assert copied[5, 3, 1] == copied[5, 4, 1] == 2
    assert not any(copied[shape] for shape in shapes.values())
