"""How a network is normalised, and whether an answer hangs on what is asked together: ``python -m benchmarks.normalization``.

Trains the 4-layer ConvNet with iMAML under each norm, on digits, photographs and, with ``--omniglot ARCHIVE``, Omniglot,
and tests all on the same tasks of unseen classes, 5-way 1-shot: with the query images of a task all together and
with one image at a time.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from aidotnet_py import BasicStats, CrossEntropyLoss, NeuralNetworkModel, iMAMLAlgorithm, iMAMLOptions
from aidotnet_py.data import DigitsLoader, OmniglotLoader
from aidotnet_py.meta_learning import IEpisodicDataLoader, TaskBatch
from aidotnet_py.nn import conv4
from benchmarks.photographs import SIDE, PhotographLoader
from benchmarks.report import table

__all__: list[str] = []

Norm: TypeAlias = Literal["batch", "support", "group", "layer"]
Loader: TypeAlias = IEpisodicDataLoader[np.float32, NDArray[Any], NDArray[Any]]
Model: TypeAlias = NeuralNetworkModel[np.float32]
Tasks: TypeAlias = TaskBatch[np.float32, NDArray[Any], NDArray[Any]]

NORMS: tuple[Norm, ...] = ("batch", "support", "group", "layer")


@dataclass(frozen=True)
class Data:
    """Tasks, and what is done on them; ``loader`` takes a split and a seed."""

    shape: tuple[int, int, int]
    loader: Callable[..., Loader]
    steps: int
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """Query accuracies of one network on every test task, by what was asked together."""

    data: str
    norm: str
    seed: int
    seconds: float
    accuracies: Mapping[str, list[float]] = field(default_factory=dict[str, list[float]])


def data_sets(archive: Path | None) -> dict[str, Data]:
    """By name; without an archive, Omniglot is not among them."""
    found = {
        "digits": Data((8, 8, 1), DigitsLoader, 300, {"Lambda": 0.5}),
        "photographs": Data((SIDE, SIDE, 3), PhotographLoader, 200, {"Lambda": 0.5}),
    }
    if archive is not None:
        options = {"Lambda": 0.1, "OuterLearningRate": 0.003}
        found["omniglot"] = Data((28, 28, 1), partial(OmniglotLoader, archive), 300, options)
    return found


def learner_of(model: Model, loader: Loader, data: Data) -> iMAMLAlgorithm[np.float32]:
    """The proximal form with Gauss–Newton curvature, as in the examples."""
    fixed: dict[str, Any] = {"InnerLearningRate": 0.1, "AdaptationSteps": 16, "ConjugateGradientIterations": 5}
    options = {**fixed, **data.options}
    return iMAMLAlgorithm(iMAMLOptions.FromPaper(model, DataLoader=loader, Curvature="gauss-newton", **options))


def measured(name: str, data: Data, norm: Norm, seed: int, filters: int, tasks: int) -> Measured:
    """Train and test one network."""
    model = NeuralNetworkModel(
        conv4(5, filters=filters, norm=norm), input_shape=data.shape, loss=CrossEntropyLoss(), seed=seed
    )
    learner = learner_of(model, data.loader(split="train", seed=seed), data)
    began = time.perf_counter()
    for _ in range(data.steps):
        learner.MetaTrainStep(8)
    seconds = time.perf_counter() - began
    return Measured(
        name, norm, seed, seconds, tested(learner, data.loader(split="test", seed=10**6).GetTaskBatch(tasks))
    )


def tested(learner: iMAMLAlgorithm[np.float32], tasks: Tasks) -> dict[str, list[float]]:
    """Accuracies on each task, of the adapted parameters and of the adapted model.

    The parameters are asked as they were before `Adapt` gave models with statistics: what is asked together is
    normalised together. The model is asked about one image at a time.
    """
    found: dict[str, list[float]] = {"all together": [], "one at a time": [], "one at a time, adapted model": []}
    for task in tasks:
        adapted: Any = learner.Adapt(task)
        plain = learner.BaseModel.WithParameters(adapted.GetParameters())
        x, y = task.QueryInput, task.QueryOutput
        for what, outputs in (
            ("all together", plain.Predict(x)),
            ("one at a time", one_at_a_time(plain, x)),
            ("one at a time, adapted model", one_at_a_time(adapted, x)),
        ):
            found[what].append(float(np.mean(np.argmax(outputs, axis=1) == y)))
    return found


def one_at_a_time(model: Any, x: NDArray[Any]) -> NDArray[Any]:
    """The outputs for each image by itself; those of a model that cannot answer are 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.concatenate([model.Predict(x[i : i + 1]) for i in range(len(x))])


if __name__ == "__main__":
    import sys
    warnings.simplefilter("ignore")
    name, norm, seed, steps, filters, tasks = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6])
    import dataclasses
    d = data_sets(Path("/work/shared/data/omniglot/images_background_small1.zip"))[name]
    opts = dict(d.options)
    for a in sys.argv[7:]:
        k, v = a.split("="); opts[k] = float(v)
    d = dataclasses.replace(d, steps=steps, options=opts)
    def tested(learner, tasks):
        ev = []; si = []; loss = learner.BaseModel.DefaultLossFunction
        ev = list(learner._query_results(list(tasks))[1])
        for t in tasks: si.append(loss.accuracy(learner.Adapt(t).Predict(t.QueryInput), t.QueryOutput))
        return dict(together=ev, single=si)
    m = measured(name, d, norm, seed, filters, tasks)
    print(sys.argv[1:], f"{m.seconds:.0f}s", {k: f"{100*np.mean(v):.2f} +- {196*np.std(v)/len(v)**.5:.2f}" for k, v in m.accuracies.items()}, flush=True)
