"""Loaders over arrays: what every episode holds, how classes are chosen, saved positions, and refusals."""

from __future__ import annotations

import datetime
import json
import pickle
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidotnet_py import CrossEntropyLoss, MAMLAlgorithm, MAMLOptions, NeuralNetworkModel
from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.data import (
    ArrayLoader,
    BalancedEpisodicDataLoader,
    CurriculumEpisodicDataLoader,
    DatasetLoader,
    MetaDatasetBase,
    StratifiedEpisodicDataLoader,
    UniformEpisodicDataLoader,
)
from aidotnet_py.data.draws import inclusion_probabilities
from aidotnet_py.exceptions import ArgumentException, ArgumentNullException, ArgumentOutOfRangeException
from aidotnet_py.meta_learning.contract.sources import IEpisodicDataLoader, IResumable
from aidotnet_py.nn import Dense, Sequential, Tanh

FIXED = [UniformEpisodicDataLoader, BalancedEpisodicDataLoader, StratifiedEpisodicDataLoader]
LOADERS: list[Any] = [*FIXED, CurriculumEpisodicDataLoader]
SETS = ("SupportInput", "SupportOutput", "QueryInput", "QueryOutput")
each = pytest.mark.parametrize("kind", LOADERS)


def examples(counts: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Inputs that say by their numbers which class and which example they are, shuffled; and their labels."""
    rows = np.array([[c, i] for c, n in enumerate(counts) for i in range(n)], float)
    rows = np.random.default_rng(seed).permutation(rows)
    return rows, rows[:, 0].astype(int)


def make(kind: Any, X: Any, y: Any, ways: int, shots: int, queries: int, **options: Any) -> Any:
    if kind is CurriculumEpisodicDataLoader:
        options = {"initialNWay": ways, "initialKShot": shots} | options
    return kind(X, y, ways, shots, queries, **options)


def bits(tasks: Any, backend: str = "numpy") -> list[bytes]:
    to_numpy = get_backend(backend).to_numpy
    return [to_numpy(getattr(task, which)).tobytes() for task in tasks for which in SETS]


@each
def test_it_is_the_contracts_loader(kind: Any) -> None:
    loader = make(kind, *examples([9] * 6), 3, 2, 4)
    assert isinstance(loader, IEpisodicDataLoader)
    assert isinstance(loader, IResumable)
    assert (loader.NWay, loader.KShot, loader.QueryShots, loader.AvailableClasses) == (3, 2, 4, 6)
    task = loader.GetNextTask()
    assert (task.NumWays, task.NumShots, task.NumQueryPerClass, task.Name) == (3, 2, 4, kind.__name__)


def test_defaults() -> None:
    X, y = examples([30] * 6)
    assert [(d.NWay, d.KShot, d.QueryShots) for d in (kind(X, y) for kind in FIXED)] == [(5, 5, 15)] * 3
    loader = CurriculumEpisodicDataLoader(X, y)
    assert (loader.NWay, loader.KShot, loader.QueryShots, loader.CurriculumProgress) == (2, 10, 15, 0.0)
    loader.SetProgress(1)
    assert (loader.NWay, loader.KShot) == (5, 1)


@each
@given(counts=st.lists(st.integers(3, 9), min_size=2, max_size=7), seed=st.integers(0, 2**64), data=st.data())
def test_every_episode_has_its_classes_and_no_example_twice(kind: Any, counts: list[int], seed: int, data: Any) -> None:
    ways = data.draw(st.integers(2, len(counts)))
    shots = data.draw(st.integers(1, min(counts) - 1))
    queries = data.draw(st.integers(1, min(counts) - shots))
    loader = make(kind, *examples(counts), ways, shots, queries, seed=seed)
    for task in [*loader.GetTaskBatch(2), loader.GetNextTask()]:
        names = task.Metadata["Classes"]
        assert len(set(names)) == ways
        assert task.SupportOutput.tolist() == np.repeat(range(ways), shots).tolist()
        assert task.QueryOutput.tolist() == np.repeat(range(ways), queries).tolist()
        rows = np.concatenate([task.SupportInput, task.QueryInput])
        labels = np.concatenate([task.SupportOutput, task.QueryOutput])
        assert rows[:, 0].tolist() == [names[label] for label in labels]
        assert len({tuple(row) for row in rows.tolist()}) == ways * (shots + queries)


@pytest.mark.parametrize(
    "names",
    [
        ["owl", "cat", "dog"],
        [-5, 7, 10**12],
        [True, False],
        [0.5, -1.5, 2.0],
        [b"x", b"y", b"z"],
        np.array(["owl", "a longer name", "dog"], object),
        np.array([3, 1, 2], ">i4"),
        np.array([1, 2, 3], np.uint8),
    ],
    ids=["str", "int", "bool", "float", "bytes", "object", "big-endian", "uint8"],
)
def test_labels_of_any_kind(names: Any) -> None:
    X, place = examples([6] * len(names))
    y = np.array(names)[place] if isinstance(names, list) else names[place]
    known = np.asarray(names).tolist()
    loader = UniformEpisodicDataLoader(X, y, 2, 1, 2, seed=1)
    for task in loader.GetTaskBatch(20):
        own = [known[int(c)] for c in task.SupportInput[:, 0]]
        assert own == list(task.Metadata["Classes"])
        assert [type(name) for name in task.Metadata["Classes"]] == [type(known[0])] * 2
    as_list = UniformEpisodicDataLoader(X.tolist(), list(y), 2, 1, 2, seed=1, dtype=np.float64)
    assert bits(as_list.GetTaskBatch(3)) == bits(UniformEpisodicDataLoader(X, y, 2, 1, 2, seed=1).GetTaskBatch(3))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", float("nan")], "y must hold a label for each example, got nan at 1; drop such examples"),
        (["a", None], "y must hold a label for each example, got None at 1"),
        ([1, "1"], "y must hold labels of one kind, .*, got 1 at 0, which beside the others is read as '1'; convert"),
        ([True, "True"], "y must hold labels of one kind, .*, got True at 0"),
        ([2**63, 2**63 + 1, -1], r"y must hold labels of one kind, .*, got 9223372036854775809 at 1, .*e\+18"),
        ([np.uint64(2**63), np.uint64(2**63 + 1), np.int64(-1)], "y must hold labels of one kind"),
        ([2**53 + 1, 0.5], "y must hold labels of one kind, .*, got 9007199254740993 at 0"),
    ],
)
def test_a_list_of_labels_that_one_array_would_change(names: list[Any], message: str) -> None:
    inputs, labels = np.zeros((4 * len(names), 1)), names * 4
    with pytest.raises(ArgumentException, match=f"^{message}"):
        ArrayLoader(inputs, labels, 2, 1, 1)
    with pytest.raises(ArgumentException, match=f"^{message}"):
        MetaDatasetBase("names", inputs, labels)
    with pytest.raises(ArgumentException, match=f"^{message}"):
        DatasetLoader(list(zip(inputs, labels, strict=True)), 2, 1, 1)


def test_strings_that_an_array_would_shorten() -> None:
    with pytest.raises(ArgumentException, match=r"y must hold labels of one kind, .* at 1, .* is read as 'a'; conv"):
        ArrayLoader(np.zeros((8, 1)), ["a", "a\0"] * 4, 2, 1, 1)


def test_lists_of_numbers_that_are_equal_in_one_array() -> None:
    inputs = np.zeros((8, 1))
    assert ArrayLoader(inputs, [0, 1.0] * 4, 2, 1, 1).labels == (0.0, 1.0)
    assert ArrayLoader(inputs, [2**64, 2**64 + 1] * 4, 2, 1, 1).labels == (2**64, 2**64 + 1)


@pytest.mark.parametrize("unit", ["D", "s", "us", "ns"])
def test_times_are_labels_in_any_unit(unit: str) -> None:
    labels = np.array(["2020-01-02", "2020-01-01"] * 4, f"M8[{unit}]")
    days = (datetime.date(2020, 1, 1), datetime.date(2020, 1, 2))
    expected = days if unit == "D" else tuple(datetime.datetime(day.year, day.month, day.day) for day in days)
    inputs = np.zeros((8, 1))
    assert ArrayLoader(inputs, labels, 2, 1, 1).labels == expected
    assert ArrayLoader(inputs, list(labels), 2, 1, 1).labels == expected
    assert DatasetLoader(list(zip(inputs, labels, strict=True)), 2, 1, 1).labels == expected
    with pytest.raises(
        ArgumentException,
        match=r"y must have whole microseconds .*, got .*000001; round the times",
    ):
        ArrayLoader(inputs, np.array([0, 1] * 4, "M8[ns]"), 2, 1, 1)
    with pytest.raises(ArgumentException, match="of the years 1 to 9999 as groups or classes, got 20000-01-01"):
        ArrayLoader(inputs, np.array(["2020-01-01", "20000-01-01"] * 4, "M8[D]"), 2, 1, 1)


def test_the_type_of_inputs() -> None:
    X, y = examples([6] * 3)
    task_of = lambda X, **options: UniformEpisodicDataLoader(X, y, 2, 1, 2, seed=0, **options).GetNextTask()  # noqa: E731
    assert task_of(X).QueryInput.dtype == np.float64
    assert task_of(X.astype(np.float32)).QueryInput.dtype == np.float32
    assert task_of(X.astype(np.uint8)).QueryInput.dtype == np.float32
    assert task_of(X, dtype=np.float32).QueryInput.dtype == np.float32
    swapped = task_of(X.astype(">f8")).QueryInput
    assert swapped.dtype == np.dtype(np.float64)
    assert swapped.dtype.isnative
    np.testing.assert_array_equal(swapped, task_of(X).QueryInput)
    images = np.arange(18 * 2 * 3 * 1.0).reshape(18, 2, 3, 1)
    assert task_of(images).QueryInput.shape == (4, 2, 3, 1)


@each
def test_the_same_seed_gives_the_same_bits_on_every_backend(kind: Any, backend: Backend) -> None:
    X, y = examples([9] * 6)
    here = make(kind, X, y, 3, 2, 4, seed=5, backend=backend)
    host = make(kind, X, y, 3, 2, 4, seed=5)
    for _ in range(4):
        tasks = here.GetTaskBatch(3)
        assert all(backend.owns(task.SupportInput) for task in tasks)
        assert bits(tasks, backend.name) == bits(host.GetTaskBatch(3))
        assert here.GetState() == host.GetState()


@each
def test_a_batch_is_so_many_next_tasks_and_seeds_start_anew(kind: Any) -> None:
    loader = make(kind, *examples([9] * 7), 3, 2, 4, seed=8)
    batch = bits(loader.GetTaskBatch(5))
    loader.SetSeed(8)
    assert bits(loader.GetNextTask() for _ in range(5)) == batch
    loader.SetSeed(9)
    assert bits(loader.GetTaskBatch(5)) != batch


@each
@given(calls=st.lists(st.integers(0, 3), max_size=6), seed=st.integers(0, 1000))
def test_a_saved_position_goes_through_json_and_resumes(kind: Any, calls: list[int], seed: int) -> None:
    X, y = examples([9] * 7)
    loader = make(kind, X, y, 3, 2, 4, seed=seed)
    for count in calls:
        loader.GetTaskBatch(count) if count else loader.GetNextTask()
    state = json.loads(json.dumps(loader.GetState()))
    copy = pickle.loads(pickle.dumps(loader))
    expected = bits(loader.GetTaskBatch(4))
    resumed = make(kind, X, y, 3, 2, 4, seed=1)
    resumed.SetState(state)
    assert bits(resumed.GetTaskBatch(4)) == bits(copy.GetTaskBatch(4)) == expected
    assert resumed.GetState() == copy.GetState() == loader.GetState()


@each
def test_several_threads_get_the_tasks_of_one(kind: Any) -> None:
    X, y = examples([9] * 7)
    shared, one = (make(kind, X, y, 3, 2, 4, seed=3) for _ in range(2))
    with ThreadPoolExecutor(4) as pool:
        found = [
            b
            for batch in pool.map(lambda _: shared.GetTaskBatch(5), range(12))
            for b in zip(*[iter(bits(batch))] * 4, strict=True)
        ]
    assert Counter(found) == Counter(zip(*[iter(bits(one.GetTaskBatch(60)))] * 4, strict=True))
    assert shared.GetState() == one.GetState()


class TestChoices:
    def test_uniform_classes_are_equally_frequent(self) -> None:
        loader, n = UniformEpisodicDataLoader(*examples([4, 40, 400]), 2, 1, 1, seed=0), 1000
        counts = Counter(c for task in loader.GetTaskBatch(n) for c in task.Metadata["Classes"])
        # Each class is in a task with probability 2/3; five standard deviations.
        assert max(abs(counts[c] / n - 2 / 3) for c in range(3)) <= 5 * np.sqrt(2 / 9 / n)

    @given(st.integers(2, 9).flatmap(lambda c: st.tuples(st.just(c), st.integers(2, c))), st.integers(1, 40))
    def test_balanced_classes_differ_by_one_task_at_most(self, case: tuple[int, int], tasks: int) -> None:
        classes, ways = case
        loader = BalancedEpisodicDataLoader(*examples([3] * classes), ways, 1, 2, seed=4)
        counts = Counter(c for task in loader.GetTaskBatch(tasks) for c in task.Metadata["Classes"])
        shares = {counts[c] for c in range(classes)}
        assert shares <= {tasks * ways // classes, -(-tasks * ways // classes)}
        assert loader.GetState()["counts"] == [counts[c] for c in range(classes)]

    def test_balance_goes_on_after_a_resumption_and_starts_anew_with_a_seed(self) -> None:
        first, second = (BalancedEpisodicDataLoader(*examples([3] * 5), 2, 1, 2, seed=4) for _ in range(2))
        tasks = list(first.GetTaskBatch(3))
        second.SetState(first.GetState())
        counts = Counter(c for task in [*tasks, *second.GetTaskBatch(7)] for c in task.Metadata["Classes"])
        assert set(counts.values()) == {4}
        second.SetSeed(1)
        assert second.GetState()["counts"] == [0] * 5

    def test_stratified_classes_have_their_shares(self) -> None:
        sizes, n = [50, 30, 15, 5, 5], 2000
        loader = StratifiedEpisodicDataLoader(*examples(sizes), 2, 1, 2, seed=1)
        counts = Counter(c for task in loader.GetTaskBatch(n) for c in task.Metadata["Classes"])
        wanted = 2 * np.array(sizes) / sum(sizes)
        found = np.array([counts[c] for c in range(5)]) / n
        assert (abs(found - wanted) <= 5 * np.sqrt(wanted * (1 - wanted) / n)).all()

    def test_a_stratified_class_of_more_than_its_place_is_in_every_task(self) -> None:
        sizes, n = [90, 4, 3, 3], 1000
        loader = StratifiedEpisodicDataLoader(*examples(sizes), 2, 1, 2, seed=1)
        counts = Counter(c for task in loader.GetTaskBatch(n) for c in task.Metadata["Classes"])
        assert counts[0] == n
        assert inclusion_probabilities(np.array(sizes), 2).tolist() == [1.0, 0.4, 0.3, 0.3]
        assert abs(counts[1] / n - 0.4) <= 5 * np.sqrt(0.24 / n)

    @given(
        st.tuples(st.integers(2, 6), st.integers(2, 6)).map(sorted),
        st.tuples(st.integers(1, 8), st.integers(1, 8)).map(sorted),
        st.lists(st.floats(0, 1), max_size=6).map(sorted),
    )
    def test_a_curriculum_grows_harder(self, ways: list[int], shots: list[int], path: list[float]) -> None:
        X, y = examples([10] * 6)
        loader = CurriculumEpisodicDataLoader(X, y, ways[1], shots[0], 2, ways[0], shots[1], seed=0)
        sizes = []
        for progress in (0.0, *path, 1.0):
            loader.SetProgress(progress)
            task = loader.GetNextTask()
            sizes.append((task.NumWays, task.NumShots))
            assert sizes[-1] == (loader.NWay, loader.KShot)
            assert task.SupportInput.shape == (task.NumWays * task.NumShots, 2)
        assert sizes[0] == (ways[0], shots[1])
        assert sizes[-1] == (ways[1], shots[0])
        assert [n for n, _ in sizes] == sorted(n for n, _ in sizes)
        assert [k for _, k in sizes] == sorted((k for _, k in sizes), reverse=True)

    def test_halves_are_rounded_up(self) -> None:
        loader = CurriculumEpisodicDataLoader(*examples([30] * 5), 5, 1, 15, 2, 10)
        loader.SetProgress(0.5)
        assert (loader.NWay, loader.KShot) == (4, 6)

    def test_progress_belongs_to_the_position_but_not_to_the_seed(self) -> None:
        X, y = examples([30] * 5)
        loader, other = (CurriculumEpisodicDataLoader(X, y, seed=2) for _ in range(2))
        loader.SetProgress(0.7)
        other.SetState(json.loads(json.dumps(loader.GetState())))
        assert other.CurriculumProgress == 0.7
        loader.SetSeed(3)
        assert loader.CurriculumProgress == 0.7

    @pytest.mark.parametrize("progress", [-0.1, 1.1, float("nan")])
    def test_progress_out_of_range(self, progress: float) -> None:
        loader = CurriculumEpisodicDataLoader(*examples([30] * 5))
        with pytest.raises(ArgumentOutOfRangeException, match=r"progress must be a number in \[0, 1\], got"):
            loader.SetProgress(progress)
        with pytest.raises(ArgumentException, match="progress must be a number in"):
            loader.SetProgress("half")  # type: ignore[arg-type]
        assert loader.CurriculumProgress == 0.0

    def test_a_batch_drawn_ahead_is_of_the_progress_it_is_asked_at(self) -> None:
        X, y = examples([30] * 5)
        there, here = (CurriculumEpisodicDataLoader(X, y, seed=2, backend=b) for b in ("simulated", "numpy"))
        for progress in (0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.5):
            for loader in (there, here):
                loader.SetProgress(progress)
            assert bits(there.GetTaskBatch(2), "simulated") == bits(here.GetTaskBatch(2))


class Frame:
    """What pandas, Polars and others offer."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def to_numpy(self) -> np.ndarray:
        return self.values


X, Y = examples([9] * 6)
NAN = X.copy()
NAN[3, 1] = np.nan


@pytest.mark.parametrize("kind", FIXED)
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"nWay": 1}, ArgumentOutOfRangeException, "nWay must be a whole number of at least 2, got 1"),
        ({"nWay": 7}, ArgumentOutOfRangeException, "nWay must be at most 6, the number of classes, got 7"),
        ({"nWay": 2.0}, ArgumentException, "nWay must be a whole number of at least 2, got 2.0"),
        ({"kShot": 0}, ArgumentOutOfRangeException, "kShot must be a whole number of at least 1, got 0"),
        ({"queryShots": 0}, ArgumentOutOfRangeException, "queryShots must be a whole number of at least 1, got 0"),
        ({"seed": -1}, ArgumentOutOfRangeException, "seed must be a whole number of at least 0, got -1"),
        ({"dtype": int}, ArgumentException, "dtype must be a NumPy floating type such as np.float32, got"),
        ({"backend": "abacus"}, ArgumentException, "abacus"),
        (
            {"y": np.where(Y == 2, 3, Y), "kShot": 8},
            ArgumentException,
            r"kShot \+ queryShots must be at most the examples of a class, got 8 \+ 4 = 12; classes .* are 0 \(9\)",
        ),
        ({"y": Y[:-1]}, ArgumentException, "y must have as many labels as X has examples, 54, got 53"),
        (
            {"y": np.eye(6)[Y]},
            ArgumentException,
            r"y must be 1-D, .*, got shape \(54, 6\); for one-hot labels pass y.argmax\(axis=1\)",
        ),
        ({"y": Y[:, None]}, ArgumentException, r"y must be 1-D, .*, got shape \(54, 1\); pass y.ravel\(\)"),
        ({"y": Frame(Y)}, ArgumentException, r"y must be an array, got a Frame; use y.to_numpy\(\)"),
        ({"y": None}, ArgumentNullException, "y must be an array of labels"),
        (
            {"y": np.where(Y == 2, np.nan, Y)},
            ArgumentException,
            r"y must hold a label for each example, got nan at \d+",
        ),
        ({"y": np.array([*Y[:-1], None])}, ArgumentException, "y must hold a label for each example, got None at 53"),
        ({"y": np.array([*Y[:-1], "a"], object)}, ArgumentException, "y must hold labels of one kind, such as"),
        ({"X": Frame(X)}, ArgumentException, r"X must be an array, got a Frame; use X.to_numpy\(\)"),
        ({"X": None}, ArgumentNullException, "X must be an array of real numbers"),
        ({"X": NAN}, ArgumentException, r"X must be finite, got nan at \[3, 1\]; drop or fill such examples"),
        ({"X": X + np.array([0, np.inf])}, ArgumentException, r"X must be finite, got inf at \[0, 1\]"),
        (
            {"X": X + np.array([0, 1e60]), "dtype": np.float32},
            ArgumentException,
            r"X must be finite, got 1e\+60 at \[0, 1\]; numbers as large are inf in float32; scale them",
        ),
        ({"X": X + 1j}, ArgumentException, "X must hold real numbers, got dtype complex128"),
        ({"X": X.astype(object)}, ArgumentException, "X must hold real numbers, got dtype object"),
        ({"X": [[1.0], [2.0, 3.0]]}, ArgumentException, "X must be an array of real numbers"),
        ({"X": X[:, 0]}, ArgumentException, r"X must have an axis .*, got shape \(54,\); .* pass X\[:, np.newaxis\]"),
    ],
)
def test_arguments_that_do_not_fit(kind: Any, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    fitting = {"X": X, "y": Y, "nWay": 3, "kShot": 2, "queryShots": 4}
    with pytest.raises(error, match=f"^{message}" if message != "abacus" else message):
        kind(**(fitting | arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targetNWay": 1}, "targetNWay must be a whole number of at least 2, got 1"),
        ({"targetNWay": 7}, "targetNWay must be at most 6, the number of classes, got 7"),
        ({"initialNWay": 1}, "initialNWay must be a whole number from 2 to 5, got 1"),
        ({"initialNWay": 6}, "initialNWay must be a whole number from 2 to 5, got 6"),
        ({"targetKShot": 0}, "targetKShot must be a whole number of at least 1, got 0"),
        ({"targetKShot": 3, "initialKShot": 2}, "initialKShot must be a whole number of at least 3, got 2"),
        ({"initialKShot": 8}, r"initialKShot \+ queryShots must be at most the examples of a class, got 8 \+ 4 = 12"),
    ],
)
def test_curricula_that_do_not_fit(arguments: dict[str, Any], message: str) -> None:
    fitting = {"queryShots": 4, "initialKShot": 3}
    with pytest.raises(ArgumentException, match=f"^{message}"):
        CurriculumEpisodicDataLoader(X, Y, **(fitting | arguments))


class Unread:
    """Data that must not be looked at."""

    def __array__(self, *arguments: Any, **options: Any) -> np.ndarray:
        raise AssertionError("read")


@pytest.mark.parametrize(
    "call",
    [
        lambda: UniformEpisodicDataLoader(Unread(), Unread(), 1),  # type: ignore[call-overload]
        lambda: BalancedEpisodicDataLoader(Unread(), Unread(), 5, 0),  # type: ignore[call-overload]
        lambda: StratifiedEpisodicDataLoader(Unread(), Unread(), seed=-1),  # type: ignore[call-overload]
        lambda: CurriculumEpisodicDataLoader(Unread(), Unread(), 5, 1, 15, 6),  # type: ignore[call-overload]
    ],
)
def test_sizes_and_seeds_are_refused_before_any_work(call: Any) -> None:
    with pytest.raises(ArgumentException, match="must be a whole number"):
        call()


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (BalancedEpisodicDataLoader, {"counts": [0] * 5}, r"state\['counts'\] must be a list of 6 numbers, got"),
        (BalancedEpisodicDataLoader, {"counts": [0] * 5 + [-1]}, r"state\['counts'\]\[5\] must be a whole number"),
        (BalancedEpisodicDataLoader, {"counts": [0] * 5 + [1.5]}, r"state\['counts'\]\[5\] must be a whole number"),
        (BalancedEpisodicDataLoader, {"counts": "000000"}, r"state\['counts'\] must be a list of 6 numbers"),
        (BalancedEpisodicDataLoader, {"more": 1}, "state must be a mapping with the keys stream, counts, got"),
        (BalancedEpisodicDataLoader, {"stream": {}}, "state must have the keys bit_generator"),
        (CurriculumEpisodicDataLoader, {"progress": 2.0}, r"state\['progress'\] must be a number in \[0, 1\], got 2.0"),
        (CurriculumEpisodicDataLoader, {"progress": [0.0]}, r"state\['progress'\] must be a number in \[0, 1\]"),
    ],
)
def test_states_that_do_not_fit_change_nothing(kind: Any, change: dict[str, Any], message: str) -> None:
    loader = make(kind, X, Y, 3, 2, 4, seed=1)
    loader.GetTaskBatch(2)
    before = loader.GetState()
    with pytest.raises(ArgumentException, match=message):
        loader.SetState(before | change)
    with pytest.raises(ArgumentException, match="must be a mapping"):
        loader.SetState(None)
    assert loader.GetState() == before


@pytest.mark.costly
@pytest.mark.parametrize("kind", LOADERS)
def test_a_learner_resumes_from_its_checkpoint_with_the_same_tasks(kind: Any, tmp_path: Path) -> None:
    def learner() -> MAMLAlgorithm[Any, Any, Any]:
        model: NeuralNetworkModel[Any] = NeuralNetworkModel(
            Sequential(Dense(6), Tanh(), Dense(3)),
            input_shape=(2,),
            loss=CrossEntropyLoss(),
            dtype=np.float64,
            seed=0,
        )
        loader = make(kind, X, Y, 3, 2, 4, seed=1)
        settings = {"MetaBatchSize": 2, "RandomSeed": 3, "AdaptationSteps": 2, "UseFirstOrder": True}
        return MAMLAlgorithm(MAMLOptions(model, DataLoader=loader, **settings))

    whole, first, second = learner(), learner(), learner()
    wanted = [whole.MetaTrainStep(2).MetaLoss for _ in range(6)]
    found = [first.MetaTrainStep(2).MetaLoss for _ in range(3)]
    first.Save(tmp_path / "run")
    second.Load(tmp_path / "run")
    assert found + [second.MetaTrainStep(2).MetaLoss for _ in range(3)] == wanted
    assert second.BaseModel.GetParameters().tobytes() == whole.BaseModel.GetParameters().tobytes()
