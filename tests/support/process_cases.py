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
    FunctionModel,
    MAMLAlgorithm,
    MAMLOptions,
    MetaSGDAlgorithm,
    MetaSGDOptions,
    NeuralNetworkModel,
    ReptileAlgorithm,
    ReptileOptions,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.nn import mlp

__all__ = ["KINDS", "answer", "learner_of", "line", "line_learner"]

KINDS: dict[str, tuple[Any, Any]] = {
    "iMAML": (iMAMLAlgorithm, iMAMLOptions),
    "MAML": (MAMLAlgorithm, MAMLOptions),
    "Meta-SGD": (MetaSGDAlgorithm, MetaSGDOptions),
    "Reptile": (ReptileAlgorithm, ReptileOptions),
    "ANIL": (ANILAlgorithm, ANILOptions),
    "BOIL": (BOILAlgorithm, BOILOptions),
}


def learner_of(kind: str, *, steps: int) -> Any:
    """Return a learner on sinusoids after so many steps."""
    algorithm, options = KINDS[kind]
    model = NeuralNetworkModel(mlp(8, 1), input_shape=(1,), dtype=np.float64, seed=0)
    learner = algorithm(options(model, DataLoader=SinusoidLoader(seed=0, dtype=np.float64)))
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
