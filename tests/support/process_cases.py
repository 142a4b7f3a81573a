"""What other processes are asked for: here, and not in a test, so that a new process can import it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from aidotnet_py import (
    ANILAlgorithm,
    ANILOptions,
    BOILAlgorithm,
    BOILOptions,
    CrossEntropyLoss,
    FunctionModel,
    MAMLAlgorithm,
    MAMLOptions,
    MetaSGDAlgorithm,
    MetaSGDOptions,
    NeuralNetworkModel,
    ProtoNetsAlgorithm,
    ProtoNetsOptions,
    ReptileAlgorithm,
    ReptileOptions,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.data import ArrayLoader, SinusoidLoader
from aidotnet_py.nn import mlp

__all__ = ["KINDS", "answer", "learner_of", "line", "line_learner"]

KINDS: dict[str, tuple[Any, Any]] = {
    "iMAML": (iMAMLAlgorithm, iMAMLOptions),
    "MAML": (MAMLAlgorithm, MAMLOptions),
    "Meta-SGD": (MetaSGDAlgorithm, MetaSGDOptions),
    "Reptile": (ReptileAlgorithm, ReptileOptions),
    "ANIL": (ANILAlgorithm, ANILOptions),
    "BOIL": (BOILAlgorithm, BOILOptions),
    "ProtoNets": (ProtoNetsAlgorithm, ProtoNetsOptions),
}


def learner_of(kind: str, *, steps: int) -> Any:
    """Return a learner after so many steps on sinusoids, or on classes if it needs these."""
    algorithm, options = KINDS[kind]
    model: Any = NeuralNetworkModel(mlp(8, 1), input_shape=(1,), dtype=np.float64, seed=0)
    loader: Any = SinusoidLoader(seed=0, dtype=np.float64)
    if kind == "ProtoNets":
        rng = np.random.default_rng(0)
        loader = ArrayLoader(rng.normal(size=(60, 3)), np.repeat(range(6), 10), NWay=3, QueryShots=4, seed=0)
        model = NeuralNetworkModel(mlp(8, 4), input_shape=(3,), dtype=np.float64, loss=CrossEntropyLoss(), seed=0)
    learner = algorithm(options(model, DataLoader=loader))
    for _ in range(steps):
        learner.MetaTrainStep(2)
    return learner


def line(parameters: Any, x: Any) -> Any:
    """Return a line through zero."""
    return x @ parameters["w"]


def line_learner() -> Any:
    """Return a learner of a model by a function."""
    model = FunctionModel(line, {"w": np.ones((1, 1))})
    return MAMLAlgorithm(MAMLOptions(model, DataLoader=SinusoidLoader(seed=0, dtype=np.float64)))


def answer(learner: Any) -> tuple[bytes, bytes, bytes]:
    """Go on with a learner: its parameters after two steps, an adapted model's predictions, a loader's next task."""
    learner = copy.deepcopy(learner)
    for _ in range(2):
        learner.MetaTrainStep(2)
    task = learner.Options.DataLoader.GetNextTask()
    predictions = learner.Adapt(task).Predict(task.QueryInput)
    return learner.BaseModel.GetParameters().tobytes(), predictions.tobytes(), task.QueryInput.tobytes()
