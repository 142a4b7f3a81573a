"""One image at a time against all together, under every norm of a network: ``python -m benchmarks.normalization``.

Trains the 4-layer ConvNet with iMAML on digits, on places of photographs and, with ``--omniglot ARCHIVE``, on Omniglot,
and tests all networks of a data set on the same tasks of unseen classes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from tqdm import trange

from aidotnet_py import CrossEntropyLoss, NeuralNetworkModel, iMAMLAlgorithm, iMAMLOptions
from aidotnet_py.data import DigitsLoader, OmniglotLoader
from aidotnet_py.meta_learning import IEpisodicDataLoader, TaskBatch
from aidotnet_py.nn import conv4
from benchmarks.photographs import SIDE, PhotographLoader
from benchmarks.report import mean_of, table

__all__: list[str] = []

Norm: TypeAlias = Literal["batch", "support", "group", "layer"]
Loader: TypeAlias = IEpisodicDataLoader[np.float32, NDArray[Any], NDArray[Any]]
Model: TypeAlias = NeuralNetworkModel[np.float32]
Tasks: TypeAlias = TaskBatch[np.float32, NDArray[Any], NDArray[Any]]
Accuracies: TypeAlias = dict[str, list[float]]


@dataclass(frozen=True)
class Data:
    """Tasks, and what is done on them; ``loader`` takes KShot, a split and a seed."""

    shape: tuple[int, int, int]
    loader: Callable[..., Loader]
    steps: int
    options: Mapping[str, Any]
    # For the norms that look at one image by itself, whose parameters have farther to go in a task.
    per_image: Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """One network: its query accuracy on every test task, by what was asked together."""

    data: str
    shots: int
    norm: Norm
    seed: int
    seconds: float
    accuracies: Accuracies


def data_sets(archive: Path | None) -> dict[str, Data]:
    """By name; Omniglot is among them where its archive is given."""
    found = {
        "digits": Data((8, 8, 1), DigitsLoader, 300, {"Lambda": 0.5}, {"Lambda": 0.1}),
        "photographs": Data(
            (SIDE, SIDE, 3), PhotographLoader, 200, {"Lambda": 0.5}, {"Lambda": 0.1, "OuterLearningRate": 0.003}
        ),
    }
    if archive is not None:
        options = {"Lambda": 0.1, "OuterLearningRate": 0.003}
        found["omniglot"] = Data((28, 28, 1), partial(OmniglotLoader, archive), 200, options, options)
    return found


def measured(name: str, data: Data, shots: int, norm: Norm, seed: int, filters: int, tasks: int) -> Measured:
    """Train and test one network."""
    model: Model = NeuralNetworkModel(
        conv4(5, filters=filters, norm=norm), input_shape=data.shape, loss=CrossEntropyLoss(), seed=seed
    )
    # The proximal form with Gauss–Newton curvature, as in the examples.
    options: iMAMLOptions[np.float32] = iMAMLOptions.FromPaper(
        model,
        DataLoader=data.loader(KShot=shots, split="train", seed=seed),
        InnerLearningRate=0.1,
        AdaptationSteps=16,
        ConjugateGradientIterations=5,
        Curvature="gauss-newton",
        **(data.per_image if norm in ("group", "layer") else data.options),
    )
    learner = iMAMLAlgorithm(options)
    began = time.perf_counter()
    for _ in trange(data.steps, desc=f"{name}, {shots}-shot, {norm}, seed {seed}", mininterval=1, disable=None):
        learner.MetaTrainStep(8)
    seconds = time.perf_counter() - began
    test = TaskBatch(data.loader(KShot=shots, split="test", seed=10**6).GetTaskBatch(tasks))
    return Measured(name, shots, norm, seed, seconds, tested(learner, test, norm))


def tested(learner: iMAMLAlgorithm[np.float32], tasks: Tasks, norm: Norm) -> Accuracies:
    """Accuracies on each task.

    Under the convention of the literature, what is asked together is normalised together, by the adapted parameters
    alone; one image at a time is asked of the adapted model, which has the statistics of the support set.
    """
    found: Accuracies = {"all together": [], "in tens": [], "one at a time": []}
    for task in tasks:
        adapted: Any = learner.Adapt(task)
        together = learner.BaseModel.WithParameters(adapted.GetParameters()) if norm == "batch" else adapted
        images, labels = task.QueryInput, task.QueryOutput
        # In an order in which a ten has images of several classes.
        order = np.random.default_rng(0).permutation(len(images))
        for what, model, count in zip(found, (together, together, adapted), (len(images), 10, 1), strict=True):
            outputs = np.concatenate([model.Predict(images[some]) for some in pieces(order, count)])
            found[what].append(float(np.mean(np.argmax(outputs, axis=1) == labels[order])))
    return found


def pieces(order: NDArray[Any], count: int) -> Sequence[NDArray[Any]]:
    """So many at a time, the last few together with those before them where they are less than half of it."""
    return np.array_split(order, max(1, round(len(order) / count)))


def report(console: Console, measurements: Sequence[Measured]) -> None:
    """A table for each data set and number of shots."""
    for name, shots in dict.fromkeys((one.data, one.shots) for one in measurements):
        of_data = [one for one in measurements if (one.data, one.shots) == (name, shots)]
        tasks = len(next(iter(of_data[0].accuracies.values())))
        rows = []
        for one in of_data:
            found = (mean_of(values, "{:.1%} ± {:.1%}") for values in one.accuracies.values())
            rows.append([one.norm, str(one.seed), *found, f"{one.seconds:.0f} s"])
        columns = ["norm", "seed", *of_data[0].accuracies, "training"]
        table(console, f"{name}, 5-way {shots}-shot: accuracy on {tasks} tasks of unseen classes", columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--omniglot", type=Path, help="an archive of Omniglot, or its unpacked folder")
    parser.add_argument(
        "--data", action="append", help="digits, photographs or omniglot; again for more (default: all)"
    )
    parser.add_argument("--norm", action="append", choices=get_args(Norm), help="again for more (default: all)")
    parser.add_argument("--shots", action="append", type=int, help="support images a class (default: 1)")
    parser.add_argument("--seed", action="append", type=int, help="of weights and training tasks (default: 0)")
    parser.add_argument("--filters", type=int, default=32, help="filters of each convolution (default: 32)")
    parser.add_argument("--tasks", type=int, default=200, help="test tasks (default: 200)")
    parser.add_argument("--json", type=Path, help="where every accuracy is written")
    arguments = parser.parse_args()
    sets = data_sets(arguments.omniglot)
    unknown = [name for name in arguments.data or sets if name not in sets]
    if unknown:
        parser.error(
            f"--data must be one of {', '.join(sets)}, got {unknown[0]}; omniglot wants --omniglot ARCHIVE too"
        )
    found = [
        measured(name, sets[name], shots, norm, seed, arguments.filters, arguments.tasks)
        for name in arguments.data or sets
        for shots in arguments.shots or [1]
        for seed in arguments.seed or [0]
        for norm in arguments.norm or get_args(Norm)
    ]
    report(Console(width=120), found)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(one) for one in found], indent=1))


if __name__ == "__main__":
    main()
