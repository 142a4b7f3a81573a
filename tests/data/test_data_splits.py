"""Loaders of one's own arrays divided by class: disjoint parts that depend on the seed alone, each a loader."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.data import (
    ArrayLoader,
    BalancedEpisodicDataLoader,
    CurriculumEpisodicDataLoader,
    StratifiedEpisodicDataLoader,
    UniformEpisodicDataLoader,
)
from aidotnet_py.data.splitting import part_sizes
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException
from aidotnet_py.meta_learning.contract.sources import IEpisodicDataLoader, IResumable

SETS = ("SupportInput", "SupportOutput", "QueryInput", "QueryOutput")


def examples(classes: int, each: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Inputs that say which class and example they are, and text labels of which the order is not that of numbers."""
    rows = np.array([[c, i] for c in range(classes) for i in range(each)], float)
    rows = np.random.default_rng(0).permutation(rows)
    return rows, np.array([f"bird {c * 7 % 100:02d}" for c in rows[:, 0].astype(int)])


def bits(tasks: Any, backend: str = "numpy") -> list[bytes]:
    to_numpy = get_backend(backend).to_numpy
    return [to_numpy(getattr(task, which)).tobytes() for task in tasks for which in SETS]


def classes_of(loader: Any) -> set[Any]:
    return {c for task in loader.GetTaskBatch(200) for c in task.Metadata["Classes"]}


class TestOwnArrays:
    def test_it_is_the_contracts_loader(self) -> None:
        loader = ArrayLoader(*examples(6, 20), seed=0)
        assert isinstance(loader, IEpisodicDataLoader)
        assert isinstance(loader, IResumable)
        assert (loader.NWay, loader.KShot, loader.QueryShots, loader.AvailableClasses) == (5, 1, 15, 6)
        assert repr(ArrayLoader(*examples(6), 3, 1, 2, weighting="balanced")) == (
            "ArrayLoader(ndarray of shape (36, 2), ndarray of shape (36,), NWay=3, QueryShots=2, weighting='balanced')"
        )

    @pytest.mark.parametrize(
        ("weighting", "named"),
        [
            ("uniform", UniformEpisodicDataLoader),
            ("balanced", BalancedEpisodicDataLoader),
            ("proportional", StratifiedEpisodicDataLoader),
        ],
    )
    def test_its_weightings_are_the_loaders_with_aidotnets_names(self, weighting: Any, named: Any) -> None:
        X, y = examples(7)
        own = ArrayLoader(X, y, 3, 2, 3, weighting=weighting, seed=4)
        theirs = named(X, y, 3, 2, 3, seed=4)
        assert bits(own.GetTaskBatch(5)) == bits(theirs.GetTaskBatch(5))
        assert own.GetState() == theirs.GetState()

    def test_classes_of_unequal_size_and_text_labels(self) -> None:
        y = np.repeat(["owl", "cat", "ox"], [4, 9, 30])
        loader = ArrayLoader(np.arange(86.0).reshape(43, 2), y, 2, 1, 3, seed=0)
        for task in loader.GetTaskBatch(30):
            rows = np.concatenate([task.SupportInput, task.QueryInput])[:, 0].astype(int) // 2
            labels = np.concatenate([task.SupportOutput, task.QueryOutput])
            assert y[rows].tolist() == [task.Metadata["Classes"][label] for label in labels]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"NWay": 1}, "NWay must be a whole number of at least 2, got 1"),
            ({"NWay": 9}, "NWay must be at most 6, the number of classes, got 9"),
            ({"KShot": 5}, r"KShot \+ QueryShots must be at most the examples of a class, got 5 \+ 3 = 8; .*'bird 00'"),
            ({"weighting": "equal"}, "weighting must be 'uniform', 'balanced' or 'proportional', got 'equal'"),
        ],
    )
    def test_arguments_that_do_not_fit(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(ArgumentException, match=f"^{message}"):
            ArrayLoader(*examples(6), **({"NWay": 3, "KShot": 1, "QueryShots": 3} | arguments))


class TestSplit:
    @given(
        shares=st.lists(st.integers(1, 20), min_size=1, max_size=4).filter(lambda parts: len(parts) > 1),
        total=st.integers(1, 200),
    )
    def test_shares_are_rounded_to_whole_classes(self, shares: list[int], total: int) -> None:
        exact = np.array(shares) / sum(shares)
        sizes = part_sizes(tuple(exact.tolist()), total)
        assert sum(sizes) == total
        assert (abs(np.array(sizes) - exact * total) < 1).all()

    @given(classes=st.integers(4, 30), seed=st.integers(0, 2**64), data=st.data())
    def test_parts_are_disjoint_and_whole(self, classes: int, seed: int, data: Any) -> None:
        first = data.draw(st.integers(2, classes - 2))
        loader = ArrayLoader(*examples(classes), 2, 1, 2, seed=1)
        before = loader.GetState()
        parts = loader.split(first, classes - first, seed=seed)
        own = [set(part.labels) for part in parts]
        assert [len(labels) for labels in own] == [part.AvailableClasses for part in parts] == [first, classes - first]
        assert own[0] | own[1] == set(loader.labels)
        assert not own[0] & own[1]
        for part, labels in zip(parts, own, strict=True):
            for task in part.GetTaskBatch(3):
                assert set(task.Metadata["Classes"]) <= labels
                rows = np.concatenate([task.SupportInput, task.QueryInput])
                numbers = np.concatenate([task.SupportOutput, task.QueryOutput])
                names = [f"bird {int(c) * 7 % 100:02d}" for c in rows[:, 0]]
                assert names == [task.Metadata["Classes"][number] for number in numbers]
        assert loader.GetState() == before

    @pytest.mark.parametrize("kind", [ArrayLoader, UniformEpisodicDataLoader, StratifiedEpisodicDataLoader])
    def test_depend_on_labels_and_seed_alone(self, kind: Any, backend: Backend) -> None:
        X, y = examples(12)
        order = np.random.default_rng(3).permutation(len(y))
        here = kind(X, y, 2, 1, 2, seed=1).split(0.5, 0.25, 0.25, seed=5)
        there = kind(X[order], y[order], 3, 1, 2, backend=backend).split(0.5, 0.25, 0.25, seed=5)
        assert [p.labels for p in here] == [p.labels for p in there]
        others = kind(X, y, 2, 1, 2).split(0.5, 0.25, 0.25, seed=6)
        assert [p.labels for p in here] != [p.labels for p in others]

    def test_give_the_same_tasks_on_every_backend_and_resume(self, backend: Backend) -> None:
        make = lambda **options: ArrayLoader(*examples(12), 2, 1, 2, weighting="balanced", **options)  # noqa: E731
        here, there = make(seed=1).split(0.5, 0.5), make(backend=backend).split(0.5, 0.5)
        for host, device in zip(here, there, strict=True):
            for _ in range(3):
                assert bits(host.GetTaskBatch(4)) == bits(device.GetTaskBatch(4), backend.name)
            state = json.loads(json.dumps(host.GetState()))
            wanted = bits(host.GetTaskBatch(5))
            device.SetState(state)
            assert bits(device.GetTaskBatch(5), backend.name) == wanted
        assert bits(here[0].GetTaskBatch(1)) != bits(here[1].GetTaskBatch(1))

    def test_keep_the_weighting_and_the_curriculum(self) -> None:
        X, y = examples(8)
        train, test = BalancedEpisodicDataLoader(X, y, 2, 1, 2).split(5, 3)
        counts = Counter(c for task in train.GetTaskBatch(10) for c in task.Metadata["Classes"])
        assert sorted(counts.values()) == [4] * 5
        assert len(test.GetState()["counts"]) == 3
        hard, easy = CurriculumEpisodicDataLoader(X, y, 4, 1, 2, 2, 3, seed=0).split(4, 4)
        hard.SetProgress(1)
        assert (hard.NWay, easy.NWay) == (4, 2)

    def test_shares_may_be_of_single_precision(self) -> None:
        thirds = np.float32(1 / 3), np.float32(2 / 3)
        wanted = [part.labels for part in ArrayLoader(*examples(12), 2, 1, 2).split(1 / 3, 2 / 3)]
        assert [part.labels for part in ArrayLoader(*examples(12), 2, 1, 2).split(*thirds)] == wanted

    def test_share_the_examples(self) -> None:
        X, y = examples(8)
        for part in ArrayLoader(X, y, 2, 1, 2).split(0.5, 0.5):
            assert part._pool.inputs is X
        first, second = ArrayLoader(X, y, 2, 1, 2).split(0.5, 0.5)[0].split(0.5, 0.5)
        assert not set(first.labels) & set(second.labels)

    @pytest.mark.parametrize(
        ("shares", "error", "message"),
        [
            ((), ArgumentException, "parts must be one or more numbers, got none; pass for example 0.8, 0.2"),
            ((0.5, 0.4), ArgumentException, "parts must sum to 1, got 0.9"),
            ((0.5, 0.500005), ArgumentException, "parts must sum to 1, got 1.000005"),
            (
                (0.9, 0.1),
                ArgumentOutOfRangeException,
                r"parts must have at least 2 .*, got 1 of 12 in parts\[1\]",
            ),
            ((8, 5), ArgumentOutOfRangeException, "parts must sum to at most 12, the classes, got 13"),
            ((8, 0.5), ArgumentException, r"parts\[1\] must be a whole number from 1 to 12, got 0.5"),
            ((1.0,), ArgumentOutOfRangeException, r"parts\[0\] must be a number in \(0, 1\), got 1.0"),
            ((0.5, float("nan")), ArgumentOutOfRangeException, r"parts\[1\] must be a number in \(0, 1\), got nan"),
            (("half", 0.5), ArgumentException, r"parts\[0\] must be a number in \(0, 1\), got 'half'"),
        ],
    )
    def test_shares_that_do_not_fit(self, shares: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=f"^{message}"):
            ArrayLoader(*examples(12), 2, 1, 2).split(*shares)

    def test_seeds_that_do_not_fit(self) -> None:
        with pytest.raises(ArgumentException, match="seed must be a whole number of at least 0, got None"):
            ArrayLoader(*examples(12), 2, 1, 2).split(0.5, 0.5, seed=None)  # type: ignore[arg-type]


class TestNamedParts:
    def test_have_the_classes_that_are_named(self) -> None:
        loader = ArrayLoader(*examples(12), 2, 1, 2, seed=4)
        first, second = loader.split(["bird 14", "bird 00", "bird 07"], np.array(["bird 21", "bird 28"]))
        assert (first.AvailableClasses, second.AvailableClasses) == (3, 2)
        assert classes_of(first) == {"bird 14", "bird 00", "bird 07"}
        assert classes_of(second) == {"bird 21", "bird 28"}

    @pytest.mark.parametrize("unit", ["D", "us", "ns"])
    def test_may_be_times_of_any_unit(self, unit: str) -> None:
        days = np.datetime64("2024-01-01", unit) + np.arange(4) * np.timedelta64(1, "D")
        loader = ArrayLoader(np.arange(12.0).reshape(12, 1), np.repeat(days, 3), 2, 1, 2, seed=0)
        first, second = loader.split(days[:2], days[2:])
        assert first.labels + second.labels == loader.labels

    @pytest.mark.parametrize(
        ("parts", "error", "message"),
        [
            (("bird 00",), ArgumentException, r"parts\[0\] must be a number in \(0, 1\), got 'bird 00'"),
            (
                (["bird 00", "ox"],),
                ArgumentException,
                r"parts\[0\] must hold labels of the data, got 'ox'; there",
            ),
            (([["bird 00"]],), ArgumentException, r"parts\[0\] must hold labels of the data, got \['bird 00'\]"),
            (([None, 3],), ArgumentException, r"parts\[0\] must hold labels of the data, got None"),
            (
                (["bird 00", "bird 07"], ["bird 00", "bird 14"]),
                ArgumentException,
                r"parts must have no label twice, got 'bird 00' again in parts\[1\]",
            ),
            ((["bird 00"],), ArgumentOutOfRangeException, r"parts must have at least 2 .*, got 1 of 12 in parts\[0\]"),
            ((["bird 00", "bird 07"], 0.5), ArgumentException, r"parts\[0\] must be a number in \(0, 1\), got \["),
        ],
    )
    def test_parts_that_do_not_fit(self, parts: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=f"^{message}"):
            ArrayLoader(*examples(12), 2, 1, 2).split(*parts)
