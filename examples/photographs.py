"""Recognise places on photographs from one or five crops of each, and compare with two simpler methods.

The other methods are nearest neighbours and a pooled network. The script cuts scikit-learn's two photographs into 96
places, one folder each; 48 places are for training, the 48 places beside them for the test. With FOLDER, the script
uses its class folders instead, three quarters of them for training.

python examples/photographs.py [FOLDER]    # the extra data
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images
from tqdm import trange

from aidotnet_py import (
    AdamOptimizer,
    CrossEntropyLoss,
    MAMLAlgorithm,
    MAMLOptions,
    MetaLearningTask,
    NeuralNetworkModel,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.data import ImageFolderLoader
from aidotnet_py.nn import conv4

ROWS, COLUMNS, SIDE, CROPS = 6, 8, 16, 24
Images: TypeAlias = NDArray[np.float32]
# Maps support images, support labels and query images to query labels.
Classify: TypeAlias = Callable[[Images, NDArray[np.int64], Images], NDArray[np.int64]]


def cut_places(folder: Path, seed: int) -> tuple[list[str], list[str]]:
    """Write one folder of crops per place; return the names of the training places and the test places."""
    rng = np.random.default_rng(seed)
    train, test = list[str](), list[str]()
    for number, photograph in enumerate(load_sample_images().images):
        half = Image.fromarray(photograph).reduce(2)
        width, height = half.width // COLUMNS, half.height // ROWS
        for row in range(ROWS):
            for column in range(COLUMNS):
                name = f"photograph {number}, place {row} {column}"
                (folder / name).mkdir()
                (test if column % 2 else train).append(name)
                for crop in range(CROPS):
                    left = column * width + int(rng.integers(0, width - SIDE + 1))
                    top = row * height + int(rng.integers(0, height - SIDE + 1))
                    half.crop((left, top, left + SIDE, top + SIDE)).save(folder / name / f"{crop}.png")
    return train, test


def nearest_mean(features: Callable[[Images], NDArray[np.floating[Any]]]) -> Classify:
    """The class with the nearest mean of support features."""

    def classify(x: Images, y: NDArray[np.int64], query: Images) -> NDArray[np.int64]:
        known, asked = features(x), features(query)
        means = np.stack([known[y == label].mean(0) for label in np.unique(y)])
        nearest: NDArray[np.int64] = ((asked[:, None] - means) ** 2).sum(-1).argmin(1)
        return nearest

    return classify


def pixels(images: Images) -> Images:
    return images.reshape(len(images), -1)


def nearest_neighbour(x: Images, y: NDArray[np.int64], query: Images) -> NDArray[np.int64]:
    distances = ((pixels(query)[:, None] - pixels(x)) ** 2).sum(-1)
    return y[distances.argmin(1)]


def network(
    outputs: int, shape: tuple[int, ...], norm: Literal["batch", "layer"], seed: int
) -> NeuralNetworkModel[np.float32]:
    """The ConvNet with 32 filters."""
    layers = conv4(outputs, filters=32, norm=norm)
    return NeuralNetworkModel(layers, input_shape=shape, loss=CrossEntropyLoss(), seed=seed)


def pooled(loader: ImageFolderLoader[np.float32], folder: Path, steps: int, seed: int) -> Classify:
    """A network that classifies all training classes, then the nearest mean of its normalised outputs."""
    files = [sorted((folder / str(name)).iterdir()) for name in loader.labels]
    x = loader.encoding.inputs([file for own in files for file in own])
    y = np.repeat(np.arange(len(files)), [len(own) for own in files])
    # With layer norm, the prediction for an image does not depend on the other images.
    model = network(len(files), loader.encoding.input_shape, "layer", seed)
    optimizer, rng = AdamOptimizer(0.001), np.random.default_rng(seed)
    for _ in trange(steps, desc="pooled network", leave=False, disable=None):
        rows = rng.integers(0, len(x), 64)
        gradient = model.ComputeGradients(x[rows], y[rows])
        model.SetParameters(optimizer.UpdateParameters(model.GetParameters(), gradient))

    def features(images: Images) -> NDArray[np.floating[Any]]:
        outputs = model.Predict(images)
        outputs = outputs - outputs.mean(1, keepdims=True)
        directions: NDArray[np.floating[Any]] = outputs / np.linalg.norm(outputs, axis=1, keepdims=True)
        return directions

    return nearest_mean(features)


def meta_learned(name: str, loader: ImageFolderLoader[np.float32], steps: int, seed: int) -> Classify:
    # The model from `Adapt` normalises by the support set, so it can predict for one image at a time.
    model = network(loader.NWay, loader.encoding.input_shape, "batch", seed)
    shared: dict[str, Any] = {"DataLoader": loader, "OuterLearningRate": 0.002}
    learner: Any = (
        MAMLAlgorithm(MAMLOptions(model, AdaptationSteps=5, InnerLearningRate=0.1, **shared))
        if name == "MAML"
        else iMAMLAlgorithm(
            iMAMLOptions.FromPaper(
                model, Lambda=0.5, AdaptationSteps=10, InnerLearningRate=0.1, Curvature="gauss-newton", **shared
            )
        )
    )
    for _ in trange(steps, desc=name, leave=False, disable=None):
        learner.MetaTrainStep(4)

    def classify(x: Images, y: NDArray[np.int64], query: Images) -> NDArray[np.int64]:
        adapted = learner.Adapt(MetaLearningTask(SupportSetX=x, SupportSetY=y, NumWays=loader.NWay))
        labels: NDArray[np.int64] = adapted.Predict(query).argmax(1)
        return labels

    return classify


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="class folders of one's own, of at least 20 images each")
    parser.add_argument("--steps", type=int, default=80, help="meta-training steps (default: 80)")
    parser.add_argument("--tasks", type=int, default=100, help="test tasks (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and training tasks (default: 0)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        if arguments.folder is None:
            run(Path(made), cut_places(Path(made), seed=0), arguments)
        else:
            run(arguments.folder, None, arguments)


def run(folder: Path, parts: tuple[list[str], list[str]] | None, arguments: argparse.Namespace) -> None:
    steps, seed = arguments.steps, arguments.seed
    print(f"5-way accuracy on classes that were not trained on, one image at a time, {arguments.tasks} tasks, ± 95 %")
    for shots in (1, 5):
        whole = ImageFolderLoader(folder, KShot=shots, size=SIDE, seed=0)
        train, test = whole.split(*(parts or (0.75, 0.25)), seed=seed)
        methods: dict[str, Classify] = {
            "nearest neighbour on pixels": nearest_neighbour,
            "nearest mean of pixels": nearest_mean(pixels),
            "nearest mean of a pooled network": pooled(train, folder, 4 * steps, seed),
            "MAML": meta_learned("MAML", train, steps, seed),
            "iMAML": meta_learned("iMAML", train, steps, seed),
        }
        tasks = test.GetTaskBatch(arguments.tasks)
        for name, classify in methods.items():
            hits = [classify(t.SupportInput, t.SupportOutput, t.QueryInput) == t.QueryOutput for t in tasks]
            of_tasks = np.mean(hits, axis=1)
            half = 1.96 * of_tasks.std(ddof=1) / np.sqrt(len(tasks))
            print(f"  {shots}-shot  {name:<34} {of_tasks.mean():6.1%} ± {half:.1%}")


if __name__ == "__main__":
    main()
