"""Few-shot tasks on scanned digits, and the drawing of episodes from classes of images."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.datasets import load_digits

from aidotnet_py.backends import Backend
from aidotnet_py.data import DigitsLoader
from aidotnet_py.data.class_pool import ClassPool
from aidotnet_py.data.draws import check_classes, draw_classes
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException
from aidotnet_py.meta_learning.contract.sources import IEpisodicDataLoader, IResumable


def turned(image: np.ndarray, degrees: int) -> np.ndarray:
    # A counter-clockwise quarter turn: what was the last column becomes the first row.
    for _ in range(degrees // 90):
        image = np.stack([image[:, column] for column in range(image.shape[1] - 1, -1, -1)])
    return image


def scans() -> dict[tuple[bytes, int], int]:
    digits = load_digits()
    return {
        (turned(image, degrees).astype(np.uint8).tobytes(), degrees): int(digit)
        for image, digit in zip(digits.images, digits.target, strict=True)
        for degrees in (0, 90, 180, 270)
    }


def parse(name: str) -> tuple[int, int]:
    digit, _, degrees = name.partition("@")
    return int(digit), int(degrees or 0)


def test_no_image_is_in_support_and_query_both() -> None:
    for task in DigitsLoader(NWay=3, KShot=80, QueryShots=90, rotations=False, seed=1).GetTaskBatch(5):
        images = np.concatenate([task.SupportInput, task.QueryInput])
        # No two scans are equal, so as many must differ as were drawn.
        assert len({image.tobytes() for image in images}) == 3 * 170


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_image_is_a_scan_of_the_class_that_the_task_names(split: Any) -> None:
    known = scans()
    loader = DigitsLoader(NWay=6, KShot=2, QueryShots=3, split=split, seed=1)
    for task in loader.GetTaskBatch(20):
        names = task.Metadata["Classes"]
        assert len(set(names)) == 6
        for images, labels in ((task.SupportInput, task.SupportOutput), (task.QueryInput, task.QueryOutput)):
            for image, label in zip(images[..., 0], labels, strict=True):
                digit, degrees = parse(names[label])
                assert known[(image * 16).astype(np.uint8).tobytes(), degrees] == digit


def test_shapes_dtypes_range_and_order_of_rows(backend: Backend) -> None:
    task = DigitsLoader(NWay=5, KShot=2, QueryShots=3, seed=0, backend=backend).GetNextTask()
    x, y, qx, qy = (
        backend.to_numpy(a) for a in (task.SupportInput, task.SupportOutput, task.QueryInput, task.QueryOutput)
    )
    assert (x.shape, y.shape, qx.shape, qy.shape) == ((10, 8, 8, 1), (10,), (15, 8, 8, 1), (15,))
    assert (x.dtype, y.dtype, qx.dtype, qy.dtype) == (np.float32, np.int64, np.float32, np.int64)
    assert y.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert qy.tolist() == np.repeat(range(5), 3).tolist()
    assert x.min() == 0
    assert x.max() == 1
    assert (task.NumWays, task.NumShots, task.NumQueryPerClass, task.Name) == (5, 2, 3, "digits")


def test_the_same_seed_gives_the_same_bits_on_every_backend(backend: Backend) -> None:
    here = DigitsLoader(seed=5, backend=backend).GetNextTask()
    host = DigitsLoader(seed=5).GetNextTask()
    np.testing.assert_array_equal(backend.to_numpy(here.QueryInput), host.QueryInput, strict=True)
    assert here.Metadata == host.Metadata


def test_precision_changes_the_dtype_alone() -> None:
    single, double = (DigitsLoader(seed=2, dtype=dtype).GetNextTask() for dtype in (np.float32, np.float64))
    assert double.SupportInput.dtype == np.float64
    # Sixteenths are exact in both.
    np.testing.assert_array_equal(single.SupportInput, double.SupportInput)


def test_splits_share_no_digit_and_have_five_each() -> None:
    seen = {}
    for split in ("train", "test"):
        loader = DigitsLoader(NWay=20, KShot=1, QueryShots=1, split=split, seed=0)  # type: ignore[arg-type]
        assert loader.AvailableClasses == 20
        names = loader.GetNextTask().Metadata["Classes"]
        seen[split] = {parse(name)[0] for name in names}
        assert {parse(name) for name in names} == {(d, r) for d in seen[split] for r in (0, 90, 180, 270)}
    assert seen["train"] == {0, 1, 6, 8, 9}
    assert seen["test"] == {2, 3, 4, 5, 7}


def test_without_rotations_there_are_the_digits_alone() -> None:
    loader = DigitsLoader(KShot=10, split="test", rotations=False, seed=0)
    assert loader.AvailableClasses == 5
    assert sorted(loader.GetNextTask().Metadata["Classes"]) == ["2", "3", "4", "5", "7"]


def test_a_class_has_every_label_equally_often() -> None:
    batch = DigitsLoader(split="test", rotations=False, seed=3, QueryShots=1).GetTaskBatch(1000)
    labels = [task.Metadata["Classes"].index("7") for task in batch]
    assert stats.chisquare(np.bincount(labels, minlength=5)).pvalue > 0.01


def test_the_nearest_support_mean_is_usually_right() -> None:
    right = []
    for task in DigitsLoader(KShot=10, QueryShots=10, split="test", seed=6).GetTaskBatch(30):
        means = task.SupportInput.reshape(5, 10, 64).mean(axis=1)
        distances = ((task.QueryInput.reshape(-1, 1, 64) - means) ** 2).sum(axis=-1)
        right.append(np.mean(distances.argmin(axis=1) == task.QueryOutput))
    # Chance is 0.2; images and labels that had come apart would show here.
    assert np.mean(right) > 0.85


def test_it_resumes() -> None:
    loader = DigitsLoader(seed=1)
    assert isinstance(loader, IEpisodicDataLoader)
    assert isinstance(loader, IResumable)
    loader.GetTaskBatch(2)
    state = loader.GetState()
    expected = loader.GetNextTask()
    loader.SetSeed(0)
    loader.SetState(state)
    np.testing.assert_array_equal(loader.GetNextTask().QueryInput, expected.QueryInput)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"NWay": 1}, ArgumentOutOfRangeException, "NWay must be a whole number of at least 2, got 1"),
        ({"NWay": 21}, ArgumentOutOfRangeException, "NWay must be at most 20, the number of classes, got 21"),
        (
            {"NWay": 6, "rotations": False},
            ArgumentOutOfRangeException,
            "NWay must be at most 5, the number of classes, got 6",
        ),
        ({"KShot": 0}, ArgumentOutOfRangeException, "KShot must be a whole number of at least 1, got 0"),
        ({"QueryShots": 0}, ArgumentOutOfRangeException, "QueryShots must be a whole number of at least 1, got 0"),
        (
            {"KShot": 100, "QueryShots": 78},
            ArgumentException,
            r"KShot \+ QueryShots must be .*, got 100 \+ 78 = 178; .* fewer examples are '8' \(174\)$",
        ),
        ({"split": "valid"}, ArgumentException, "split must be 'train' or 'test', got 'valid'"),
        ({"rotations": 1}, ArgumentException, "rotations must be True or False, got 1"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DigitsLoader(**arguments)


def test_bad_arguments_are_refused_before_the_data_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ArgumentException, match="split"):
        DigitsLoader(split="valid")  # type: ignore[call-overload]


def test_a_missing_scikit_learn_is_answered_with_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r'scikit-learn: pip install "aidotnet-py\[data\]"'):
        DigitsLoader()


@given(
    counts=st.lists(st.integers(3, 9), min_size=1, max_size=6),
    rotations=st.booleans(),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_episodes_repeat_neither_class_nor_image(counts: list[int], rotations: bool, seed: int, data: Any) -> None:
    # Each image says by its pixels which class and which image it is, and how it is turned.
    images_of = {str(c): np.array([[[c, i], [0, 1]] for i in range(n)], dtype=np.uint8) for c, n in enumerate(counts)}
    pool = ClassPool.of(images_of, rotations=rotations, scale=1, dtype=np.dtype(np.float32))
    ways = data.draw(st.integers(1, len(pool.counts)))
    examples = data.draw(st.integers(1, min(counts)))
    generator = np.random.default_rng(seed)
    choose = lambda: draw_classes(generator, len(pool.counts), ways)  # noqa: E731
    drawn = pool.draw(generator, 1, choose, shots=examples, queries=0, name="pool")
    classes = drawn.metadata[0]["Classes"]
    assert len(set(classes)) == ways
    for name, images in zip(classes, drawn.arrays[0].reshape(ways, examples, 2, 2), strict=True):
        base, degrees = parse(name)
        upright = [turned(image, (360 - degrees) % 360) for image in images]
        assert {int(image[0, 0]) for image in upright} == {base}
        numbers = [int(image[0, 1]) for image in upright]
        assert len(set(numbers)) == examples
        assert max(numbers) < counts[base]


def test_all_images_of_a_class_are_drawn_equally_often_in_every_place() -> None:
    images_of = {"few": np.arange(4, dtype=np.uint8).reshape(4, 1, 1), "many": np.full((9, 1, 1), 9, np.uint8)}
    pool = ClassPool.of(images_of, rotations=False, scale=1, dtype=np.dtype(np.float32))
    generator = np.random.default_rng(7)
    table = np.zeros((3, 4), int)
    for _ in range(2000):
        drawn = pool.draw(generator, 1, lambda: draw_classes(generator, 2, 2), shots=3, queries=0, name="pool")
        images = drawn.arrays[0].reshape(2, 3).astype(int)
        table[np.arange(3), images[drawn.metadata[0]["Classes"].index("few")]] += 1
    assert stats.chisquare(table.ravel()).pvalue > 0.01


def test_many_small_classes_are_named_in_part() -> None:
    counts = {f"c{i}": 2 for i in range(8)}
    with pytest.raises(ArgumentException, match=r"'c0' \(2\), .*'c4' \(2\) and 3 more$"):
        check_classes(counts, 2, 1, 2)
