"""Learners that are saved and loaded, the contents of their files, and files that they refuse."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

from aidotnet_py import (
    ArgumentException,
    NeuralNetworkModel,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.backends import Backend
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.nn import Dense, Sequential, Tanh
from aidotnet_py.testing.learner_state import untouched

__all__ = ["learner_on", "opened", "refused"]


def learner_on(backend: Backend | str = "numpy", *, seed: int = 0, **options: Any) -> iMAMLAlgorithm[Any, Any, Any]:
    model = NeuralNetworkModel(
        Sequential(Dense(6), Tanh(), Dense(1)), input_shape=(1,), dtype=np.float64, backend=backend, seed=seed
    )
    loader = SinusoidLoader(4, 6, seed=seed, dtype=np.float64, backend=backend)
    settings: dict[str, Any] = {"AdaptationSteps": 2, "MetaBatchSize": 3, "ConjugateGradientIterations": 3}
    return iMAMLAlgorithm(iMAMLOptions(model, **(settings | {"DataLoader": loader} | options)))


def opened(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return load(data), json.loads(header["__metadata__"]["description"])


@cache
def _in_training() -> iMAMLAlgorithm[Any, Any, Any]:
    """Return one learner for all files that are refused: they leave it as it was."""
    learner = learner_on(seed=5, RandomSeed=7)
    learner.MetaTrainStep(2)
    return learner


def refused(path: Path, message: str, **options: Any) -> None:
    learner = _in_training()
    if options:
        learner = learner_on(seed=5, RandomSeed=7, **options)
        learner.MetaTrainStep(2)
    with untouched(learner), pytest.raises(ArgumentException, match=message):
        learner.Load(path)
    learner.MetaTrainStep(2)
