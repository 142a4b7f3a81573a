"""Small models, batches and learners that several test files train, and their meta-gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
from tanh_network import Values, batch_of

from aidotnet_py import (
    CrossEntropyLoss,
    NeuralNetworkModel,
    SGDOptimizer,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.backends import Backend
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.nn import BatchNorm, Conv2D, Dense, Flatten, MaxPool2D, ReLU, Residual, Sequential, Tanh, mlp

__all__ = ["EXACT", "image_model", "images", "meta_gradient", "sinusoid_learner"]


def sinusoid_learner(algorithm: Any, options: Any, seed: int = 0, **given: Any) -> Any:
    model = NeuralNetworkModel(mlp(6, 1), input_shape=(1,), dtype=np.float64, seed=seed)
    return algorithm(options(model, DataLoader=SinusoidLoader(4, 6, seed=seed, dtype=np.float64), **given))


EXACT = {"GradientClipThreshold": None, "ConjugateGradientIterations": 60, "ConjugateGradientTolerance": 1e-14}


def meta_gradient(model: Any, batch: TaskBatch[Any, Any, Any], **options: Any) -> Values:
    """What the learner hands to its meta-optimizer: the step of gradient descent at rate 1."""
    backend = model.backend
    before = backend.to_numpy(model.GetParameters())
    learner = iMAMLAlgorithm(iMAMLOptions(model, MetaOptimizer=SGDOptimizer(1.0), **(EXACT | options)))
    learner.MetaTrain(batch)
    return before - backend.to_numpy(model.GetParameters())


def image_model(backend: Backend, kind: str = "convolutions", dtype: Any = np.float64) -> Any:
    middle = Residual(Sequential(Conv2D(3, 3), Tanh()), shortcut=Conv2D(3, 1))
    network = {
        "convolutions": Sequential(Conv2D(3, 3), BatchNorm(), Tanh(), MaxPool2D(2), Flatten(), Dense(2)),
        "shortcut": Sequential(Conv2D(2, 3), middle, Flatten(), Dense(2)),
        "rectified": Sequential(Conv2D(3, 3), BatchNorm(), ReLU(), MaxPool2D(2), Flatten(), Dense(2)),
    }[kind]
    return NeuralNetworkModel(
        network, input_shape=(4, 4, 1), loss=CrossEntropyLoss(), dtype=dtype, backend=backend, seed=3
    )


def images(backend: Backend, count: int = 2, dtype: Any = np.float64) -> Any:
    generator = np.random.default_rng(0)
    sets = []
    for _ in range(count):
        pairs = [(generator.standard_normal((n, 4, 4, 1)), np.arange(n) % 2) for n in (4, 6)]
        sets.append((*pairs[0], *pairs[1]))
    return batch_of(backend, sets, dtype)
