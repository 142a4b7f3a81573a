"""Loaders that stack: transforms and augmentations over every loader, with seeds, positions and backends as without."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from aidotnet_py import MAMLAlgorithm, MAMLOptions, NeuralNetworkModel
from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.data import (
    ArrayLoader,
    CurriculumEpisodicDataLoader,
    DigitsLoader,
    GaussianNoise,
    ImageFolderLoader,
    RandomFlip,
    RandomShift,
    SinusoidLoader,
    TableLoader,
)
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException, InvalidOperationException
from aidotnet_py.nn import mlp

SETS = ("SupportInput", "SupportOutput", "QueryInput", "QueryOutput")


def arrays(**options: Any) -> ArrayLoader[Any]:
    X, y = np.arange(140.0).reshape(70, 2), np.arange(70) % 7
    return ArrayLoader(X, y, 3, 2, 3, **({"weighting": "balanced", "seed": 1} | options))


def table(**options: Any) -> TableLoader[Any]:
    groups = np.repeat(np.arange(6), [3, 9, 4, 5, 7, 3])
    columns = {"g": groups, "x": np.arange(31.0), "y": np.arange(31.0) ** 2}
    return TableLoader(columns, task="g", target="y", **({"seed": 1} | options))


def digits(**options: Any) -> DigitsLoader[Any]:
    return DigitsLoader(2, 1, 2, **({"seed": 1} | options))


def waves(**options: Any) -> SinusoidLoader[Any]:
    return SinusoidLoader(3, 4, **({"seed": 1} | options))


each = pytest.mark.parametrize("make", [arrays, table, digits, waves])


def bits(tasks: Any, backend: str = "numpy") -> list[bytes]:
    to_numpy = get_backend(backend).to_numpy
    return [to_numpy(getattr(task, which)).tobytes() for task in tasks for which in SETS]


def stacked(loader: Any) -> Any:
    return loader.with_transform(GaussianNoise(0.1), sets="support").with_transform(lambda x, rng: 2 * x + rng.random())


class TestStacks:
    @each
    def test_the_same_seed_gives_the_same_bits_on_every_backend(self, make: Any, backend: Backend) -> None:
        host, device = stacked(make()), stacked(make(backend=backend))
        for count in (2, 2, 2, 3):
            assert bits(device.GetTaskBatch(count), backend.name) == bits(host.GetTaskBatch(count))
            assert device.GetState() == host.GetState()

    @pytest.mark.parametrize("make", [arrays, table, pytest.param(digits, marks=pytest.mark.slow), waves])
    @given(calls=st.lists(st.integers(0, 3), max_size=4))
    def test_positions_resume_and_batches_are_so_many_tasks(self, make: Any, calls: list[int]) -> None:
        loader = stacked(make())
        for count in calls:
            loader.GetTaskBatch(count) if count else loader.GetNextTask()
        state = json.loads(json.dumps(loader.GetState()))
        wanted = bits(loader.GetTaskBatch(3))
        again = stacked(make(seed=7))
        again.SetState(state)
        assert bits([again.GetNextTask() for _ in range(3)]) == wanted
        assert again.GetState() == loader.GetState()

    @each
    def test_a_function_without_draws_changes_inputs_alone(self, make: Any) -> None:
        plain, changed = make(), make().with_transform(lambda x, rng: -x)
        for before, after in zip(plain.GetTaskBatch(4), changed.GetTaskBatch(4), strict=True):
            for which in SETS:
                sign = -1 if which.endswith("Input") else 1
                assert (getattr(after, which) == sign * getattr(before, which)).all()
            assert after.Metadata == before.Metadata
        assert plain.GetState() == changed.GetState()

    @each
    def test_a_function_may_return_all_its_results_in_one_array(self, make: Any) -> None:
        buffer = np.empty(1 << 16)

        def negative(x: Any, rng: np.random.Generator) -> Any:
            results = buffer.view(x.dtype)[: x.size].reshape(x.shape)
            return np.negative(x, out=results)

        one, new = make().with_transform(negative), make().with_transform(lambda x, rng: -x)
        assert bits(one.GetTaskBatch(4)) == bits(new.GetTaskBatch(4))
        singles = [one.GetNextTask() for _ in range(3)]
        assert bits(singles) == bits([new.GetNextTask() for _ in range(3)])

    @pytest.mark.parametrize("sets", ["support", "query", "both"])
    def test_sets(self, sets: Any) -> None:
        plain, changed = arrays().GetNextTask(), arrays().with_transform(lambda x, rng: x + 1, sets).GetNextTask()
        assert (changed.SupportInput == plain.SupportInput + (sets != "query")).all()
        assert (changed.QueryInput == plain.QueryInput + (sets != "support")).all()

    def test_the_loader_beneath_stays_where_it_is(self) -> None:
        loader = arrays()
        loader.GetTaskBatch(2)
        state = loader.GetState()
        above = loader.with_transform(GaussianNoise(1.0))
        assert above.GetState() == state
        above.GetTaskBatch(3)
        assert loader.GetState() == state != above.GetState()
        assert bits(loader.GetTaskBatch(1)) == bits(arrays().GetTaskBatch(3)[2:])

    def test_split_and_transform_commute(self) -> None:
        one = arrays().with_transform(GaussianNoise(1.0)).split(4, 3)
        other = [part.with_transform(GaussianNoise(1.0)) for part in arrays().split(4, 3)]
        for first, second in zip(one, other, strict=True):
            assert bits(first.GetTaskBatch(3)) == bits(second.GetTaskBatch(3))
            assert sum(first.GetState()["counts"]) == 9

    def test_shapes_may_change(self) -> None:
        flat = digits().with_transform(lambda x, rng: x.reshape(len(x), -1))
        assert flat.GetNextTask().QueryInput.shape == (4, 64)
        assert flat.GetNextTask().QueryInput.dtype == np.float32
        halves = table().with_transform(lambda x, rng: np.concatenate([x, x**2], axis=1))
        assert {task.SupportInput.shape[1] for task in halves.GetTaskBatch(5)} == {2}

    def test_a_curriculum_keeps_its_progress(self) -> None:
        X, y = np.arange(180.0).reshape(90, 2), np.arange(90) % 6
        loader = CurriculumEpisodicDataLoader(X, y, 5, 1, 2, 2, 6, seed=0).with_transform(GaussianNoise(0.1))
        loader.SetProgress(1.0)
        assert (loader.NWay, loader.GetNextTask().SupportInput.shape) == (5, (5, 2))

    def test_a_folder_of_images(self, tmp_path: Path) -> None:
        for c in range(3):
            (tmp_path / "photos" / str(c)).mkdir(parents=True)
            for i in range(4):
                Image.effect_noise((9, 9), 50 + c).save(tmp_path / "photos" / str(c) / f"{i}.png")
        plain = ImageFolderLoader(tmp_path / "photos", 2, 1, 3, size=8, cache=tmp_path, seed=0)
        flipped = plain.with_transform(RandomFlip()).with_transform(RandomShift(2), sets="support")
        pickle.loads(pickle.dumps(flipped))
        before, after = bits(plain.GetTaskBatch(3)), bits(flipped.GetTaskBatch(3))
        assert before != after
        # What is written into is a copy.
        plain.SetSeed(0)
        assert bits(plain.GetTaskBatch(3)) == before

    @pytest.mark.slow
    def test_a_learner_resumes_from_its_checkpoint(self, tmp_path: Path) -> None:
        def learner() -> MAMLAlgorithm[Any, Any, Any]:
            model: NeuralNetworkModel[Any] = NeuralNetworkModel(mlp(4, 1), input_shape=(1,), seed=0)
            return MAMLAlgorithm(
                MAMLOptions(model, DataLoader=table().with_transform(GaussianNoise(0.1)), RandomSeed=3)
            )

        whole, first, second = learner(), learner(), learner()
        wanted = [whole.MetaTrainStep(2).MetaLoss for _ in range(5)]
        found = [first.MetaTrainStep(2).MetaLoss for _ in range(2)]
        first.Save(tmp_path / "run")
        second.Load(tmp_path / "run")
        assert found + [second.MetaTrainStep(2).MetaLoss for _ in range(3)] == wanted

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            (lambda x, rng: x[:1], "must return real inputs of 6 examples, got"),
            (lambda x, rng: None, "must return real inputs of 6 examples, got"),
            (lambda x, rng: x[:, 0], "must return real inputs of 6 examples, got"),
            (lambda x, rng: x / 0 if rng.random() else x, "must return finite inputs, got inf or NaN"),
        ],
    )
    @pytest.mark.parametrize("backend", ["numpy", "simulated"])
    def test_functions_that_fail_leave_the_position(self, function: Any, message: str, backend: str) -> None:
        loader = arrays(backend=backend).with_transform(function)
        state = loader.GetState()
        for _ in range(3):
            with np.errstate(all="ignore"), pytest.raises(InvalidOperationException, match=message):
                loader.GetTaskBatch(2)
        assert loader.GetState() == state

    def test_an_interrupt_leaves_the_position(self) -> None:
        def interrupted(x: Any, rng: Any) -> Any:
            calls.append(1)
            if len(calls) == 5:
                raise KeyboardInterrupt
            return x + rng.random()

        calls: list[int] = []
        loader = arrays().with_transform(interrupted)
        state = loader.GetState()
        with pytest.raises(KeyboardInterrupt):
            loader.GetTaskBatch(4)
        assert loader.GetState() == state

    def test_arguments_that_do_not_fit(self) -> None:
        with pytest.raises(ArgumentException, match=r"^function must be a function of inputs and a generator, got 3"):
            arrays().with_transform(3)  # type: ignore[arg-type]
        with pytest.raises(ArgumentException, match=r"^sets must be 'support', 'query' or 'both', got 'all'"):
            arrays().with_transform(GaussianNoise(1.0), sets="all")  # type: ignore[arg-type]


class TestAugmentations:
    @given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000))
    def test_a_flip_mirrors_or_leaves(self, count: int, height: int, width: int, seed: int) -> None:
        images = np.random.default_rng(0).random((count, height, width, 3))
        for before, after in zip(images, RandomFlip()(images.copy(), np.random.default_rng(seed)), strict=True):
            assert (after == before).all() or (after == before[:, ::-1]).all()

    def test_half_of_all_images_are_flipped(self) -> None:
        images = np.tile(np.arange(2.0).reshape(1, 1, 2, 1), (4000, 1, 1, 1))
        flipped = RandomFlip()(images, np.random.default_rng(0))[:, 0, 0, 0].mean()
        assert abs(flipped - 0.5) < 5 * 0.5 / np.sqrt(4000)

    def test_shifts_are_uniform_and_repeat_the_edge(self) -> None:
        images = np.tile(np.arange(9.0).reshape(1, 3, 3, 1), (4500, 1, 1, 1))
        counts = Counter(RandomShift(1)(images, np.random.default_rng(0))[:, 1, 1, 0].tolist())
        assert sorted(counts) == list(range(9))
        assert all(abs(n - 500) < 5 * np.sqrt(500) for n in counts.values())
        for image in RandomShift(1)(images[:200], np.random.default_rng(1))[..., 0]:
            down, right = 1 - int(image[1, 1]) // 3, 1 - int(image[1, 1]) % 3
            places = np.clip(np.arange(3)[:, None] - down, 0, 2) * 3 + np.clip(np.arange(3) - right, 0, 2)
            assert (image == places).all()

    def test_numbers_of_other_types_are_taken_as_plain_ones(self) -> None:
        shift, noise = RandomShift(np.uint8(3)), GaussianNoise(Fraction(1, 4))  # type: ignore[arg-type]
        assert (shift, noise) == (RandomShift(3), GaussianNoise(0.25))
        images = np.arange(50.0).reshape(2, 5, 5, 1)
        for own, plain in ((shift, RandomShift(3)), (noise, GaussianNoise(0.25))):
            found, wanted = (change(images, np.random.default_rng(0)) for change in (own, plain))
            np.testing.assert_array_equal(found, wanted, strict=True)

    def test_arguments_that_do_not_fit(self) -> None:
        with pytest.raises(ArgumentOutOfRangeException, match="pixels must be a whole number of at least 1, got 0"):
            RandomShift(0)
        with pytest.raises(ArgumentOutOfRangeException, match="deviation must be a finite number of at least 0"):
            GaussianNoise(-1.0)
        with pytest.raises(ArgumentException, match=r"images must have shape \(n, height, width, channels\), got"):
            RandomFlip()(np.zeros((2, 3)), np.random.default_rng(0))
