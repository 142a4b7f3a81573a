"""Data sets of pairs, PyTorch's among them, as sources of tasks: the tasks of their arrays, and clear refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aidotnet_py import (
    ArgumentException,
    ArgumentNullException,
    ArgumentOutOfRangeException,
    CrossEntropyLoss,
    MAMLAlgorithm,
    MAMLOptions,
    NeuralNetworkModel,
)
from aidotnet_py.data import ArrayLoader, DatasetLoader
from aidotnet_py.nn import conv4

IMAGES = np.random.default_rng(0).random((24, 2, 6, 5)).astype(np.float32)
LABELS = np.repeat([7, 3, 11, 5], 6)


def torch_dataset(images: Any = IMAGES, labels: Any = LABELS) -> Any:
    torch = pytest.importorskip("torch")

    class Photographs(torch.utils.data.Dataset):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.reads: list[int] = []

        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            self.reads.append(index)
            return torch.tensor(images[index]), torch.tensor(labels[index])

    return Photographs()


class TestTasks:
    def test_are_those_of_the_arrays(self) -> None:
        ours = ArrayLoader(np.moveaxis(IMAGES, 1, -1), LABELS, 3, 1, 4, weighting="balanced", seed=5)
        theirs = DatasetLoader(torch_dataset(), 3, 1, 4, channels_first=True, weighting="balanced", seed=5)
        for _ in range(4):
            one, other = ours.GetNextTask(), theirs.GetNextTask()
            assert other.SupportInput.shape == (3, 6, 5, 2)
            np.testing.assert_array_equal(other.SupportInput, one.SupportInput)
            np.testing.assert_array_equal(other.QueryInput, one.QueryInput)
            assert other.Metadata["Classes"] == one.Metadata["Classes"]

    def test_each_example_is_read_once(self) -> None:
        dataset = torch_dataset()
        DatasetLoader(dataset, 2, 1, 2, seed=0).GetTaskBatch(20)
        assert dataset.reads == list(range(24))

    def test_of_pytorchs_own_data_sets(self) -> None:
        torch = pytest.importorskip("torch")
        whole = torch.utils.data.TensorDataset(torch.tensor(IMAGES), torch.tensor(LABELS))
        some = torch.utils.data.Subset(whole, range(0, 24, 2))
        loader = DatasetLoader(some, 2, 1, 2, seed=0)
        assert loader.labels == (3, 5, 7, 11)
        # Every image of a task is one of the subset's, with its label.
        task = loader.GetNextTask()
        for x, y in zip(task.QueryInput, task.QueryOutput, strict=True):
            (place,) = np.flatnonzero((x == IMAGES).all(axis=(1, 2, 3)))
            assert place % 2 == 0
            assert LABELS[place] == task.Metadata["Classes"][y]

    def test_of_a_list(self) -> None:
        names = np.array(["a", "b", "c", "d"])[np.searchsorted([3, 5, 7, 11], LABELS)]
        pairs = [((255 * image).astype(np.uint8), name) for image, name in zip(IMAGES, names, strict=True)]
        loader = DatasetLoader(pairs, 2, 1, 2, seed=0)
        task = loader.GetNextTask()
        assert task.SupportInput.dtype == np.float32
        assert 1 < task.SupportInput.max() <= 255
        assert set(task.Metadata["Classes"]) < {"a", "b", "c", "d"}
        assert DatasetLoader(pairs, 2, 1, 2, dtype=np.float64).GetNextTask().QueryInput.dtype == np.float64

    def test_of_pictures(self) -> None:
        image = pytest.importorskip("PIL.Image")
        pairs = [(image.new("RGB", (5, 4), (shade, 0, 9)), shade // 4) for shade in range(12)]
        task = DatasetLoader(pairs, 2, 1, 2, seed=0).GetNextTask()
        assert task.QueryInput.shape == (4, 4, 5, 3)
        assert (task.QueryInput[..., 2] == 9).all()
        np.testing.assert_array_equal(task.QueryInput[:, 0, 0, 0] // 4, np.repeat(task.Metadata["Classes"], 2))

    def test_split_and_state(self) -> None:
        train, test = DatasetLoader(torch_dataset(), 2, 1, 2, channels_first=True, seed=0).split(2, 2, seed=0)
        assert set(train.labels).isdisjoint(test.labels)
        state = train.GetState()
        first = train.GetNextTask()
        train.SetState(state)
        np.testing.assert_array_equal(train.GetNextTask().QueryInput, first.QueryInput)

    @pytest.mark.slow
    def test_a_learner_trains_on_them(self) -> None:
        loader = DatasetLoader(torch_dataset(), 2, 1, 2, channels_first=True, seed=0)
        model = NeuralNetworkModel(
            conv4(2, filters=4, reduction="stride"), input_shape=(6, 5, 2), loss=CrossEntropyLoss(), seed=0
        )
        learner = MAMLAlgorithm(MAMLOptions(model, DataLoader=loader, AdaptationSteps=2))
        before = learner.GetParameters().copy()
        assert np.isfinite(learner.MetaTrainStep(2).MetaLoss)
        assert (learner.GetParameters() != before).any()


PAIRS = [(image, int(label)) for image, label in zip(IMAGES, LABELS, strict=True)]


class TestRefusals:
    @pytest.mark.parametrize(
        ("dataset", "message"),
        [
            ([], "dataset must have at least one example, got none"),
            (iter(PAIRS), "dataset must be a data set with len and an example at each place, got <list_iterator"),
            ([*PAIRS, IMAGES[0]], "dataset must have pairs of input and label, got ndarray of shape .* at 24"),
            (
                [*PAIRS, (IMAGES[0, :1], 3)],
                r"must have one shape, got \(2, 6, 5\) at 0 and \(1, 6, 5\) at 24; give .*resizes",
            ),
            (
                [*PAIRS, (IMAGES[0].astype(np.float64), 3)],
                "inputs of dataset must have one dtype, got float32 at 0 and float64 at 24; pass dtype",
            ),
            (
                [*PAIRS, ((255 * IMAGES[0]).astype(np.uint8), 3)],
                "inputs of dataset must have one dtype, got float32 at 0 and uint8 at 24; pass dtype",
            ),
            ([*PAIRS, ("x", 3)], "inputs of dataset must be arrays of real numbers, got 'x' at 24"),
            ([*PAIRS, (1.0, 3)], "inputs of dataset must be arrays of real numbers, got 1.0 at 24"),
            ([*PAIRS, (IMAGES[0], np.eye(3)[0])], "labels of dataset must be single values, got ndarray .* at 24"),
            ([*PAIRS, (IMAGES[0] + np.nan, 3)], r"must be finite, got nan at \[24, 0, 0, 0\]"),
            ([*PAIRS, (IMAGES[0], None)], "must hold a label for each example, got None at 24"),
            (PAIRS[:7], "must be at most the examples of a class, got 1 . 2 = 3; .* are 3 .1."),
        ],
    )
    def test_what_is_no_such_data_set(self, dataset: Any, message: str) -> None:
        with pytest.raises(ArgumentException, match=message):
            DatasetLoader(dataset, 2, 1, 2)

    def test_other_arguments(self) -> None:
        with pytest.raises(ArgumentNullException, match="dataset must be"):
            DatasetLoader(None)  # type: ignore[arg-type]
        with pytest.raises(ArgumentOutOfRangeException, match="NWay"):
            DatasetLoader(PAIRS, 1)
        with pytest.raises(ArgumentException, match=r"channels_first must be False for .*, got \(5,\)"):
            DatasetLoader([(np.zeros(5), i % 2) for i in range(8)], 2, 1, 2, channels_first=True)
        with pytest.raises(ArgumentException, match="channels_first must be True or False"):
            DatasetLoader(PAIRS, channels_first=1)  # type: ignore[arg-type]
        with pytest.raises(ArgumentException, match="weighting must be"):
            DatasetLoader(PAIRS, weighting="even")  # type: ignore[arg-type]

    def test_pytorchs_loaders_and_streams(self) -> None:
        torch = pytest.importorskip("torch")
        with pytest.raises(ArgumentException, match=r"got <torch.*; pass its data set: dataset\.dataset"):
            DatasetLoader(torch.utils.data.DataLoader(torch_dataset()))

    def test_a_tensor_that_requires_gradients(self) -> None:
        torch = pytest.importorskip("torch")
        with pytest.raises(ArgumentException, match=r"dataset\[0\]\[0\] must not require gradients"):
            DatasetLoader([(torch.zeros(2, requires_grad=True), 0)], 2, 1, 2)

    @pytest.mark.parametrize("mode", ["P", "PA"])
    def test_pictures_of_a_palette(self, mode: str) -> None:
        """Their bytes are places of colours, which differ between images that look the same."""
        image = pytest.importorskip("PIL.Image")
        picture = image.new("RGB", (5, 4), (200, 0, 9)).convert("P").convert(mode)
        with pytest.raises(
            ArgumentException, match=rf'without a palette, got .* of mode \'{mode}\' at 24; .*image.convert\("RGB"\)'
        ):
            DatasetLoader([*PAIRS, (picture, 3)], 2, 1, 2)

    @pytest.mark.parametrize(("first", "other"), [("L", "1"), ("RGBA", "CMYK"), ("RGB", "L")])
    def test_pictures_of_several_modes(self, first: str, other: str) -> None:
        """Their numbers mean different colours, even if they have one shape."""
        image = pytest.importorskip("PIL.Image")
        picture = image.new("RGB", (5, 4), (200, 0, 9))
        pairs = [(picture.convert(first), i % 2) for i in range(6)]
        assert DatasetLoader(pairs, 2, 1, 2, seed=0).GetNextTask().SupportInput.shape[:3] == (2, 4, 5)
        pairs[4] = (picture.convert(other), 0)
        with pytest.raises(
            ArgumentException, match=rf"images of one mode, got '{first}' at 0 and '{other}' at 4; .*convert"
        ):
            DatasetLoader(pairs, 2, 1, 2, seed=0, dtype=np.float64)

    def test_errors_of_the_data_set_are_its_own(self) -> None:
        class Broken(list[Any]):
            def __getitem__(self, index: Any) -> Any:
                raise OSError("the disk is gone")

        with pytest.raises(OSError, match="the disk is gone"):
            DatasetLoader(Broken(PAIRS), 2, 1, 2)
