"""Representations show what differs from the defaults, on one line, and never fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import omniglot_files
import pytest

from aidotnet_py import (
    AdamOptimizer,
    ANILOptions,
    CrossEntropyLoss,
    FunctionModel,
    NeuralNetworkModel,
    SGDOptimizer,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.backends import NumPyBackend, get_backend
from aidotnet_py.data import (
    BalancedEpisodicDataLoader,
    CurriculumTaskSampler,
    DigitsLoader,
    EpisodeCache,
    GaussianClassificationMetaDataset,
    OmniglotLoader,
    RotatedDigitsMetaDataset,
    SinusoidLoader,
)
from aidotnet_py.nn import BatchNorm, Conv2D, Dense, Layer, MaxPool2D, ReLU, Residual, Sequential
from aidotnet_py.optimizers import ElementwiseOptimizer, LBFGSMinimizer, NewtonCGMinimizer

MODEL = NeuralNetworkModel(Sequential(Dense(40), ReLU(), Dense(1)), input_shape=(1,))
OPTIONS = iMAMLOptions(MODEL, LambdaRegularization=2.0)
NETWORK = "NeuralNetworkModel(Sequential(Dense(40), ReLU(), Dense(1)), input_shape=(1,))"


class Scaled(Layer):
    """A layer of one's own, with an argument that it does not keep."""

    def __init__(self, factor: float, comment: str = "", *, weights: Any = None) -> None:
        self.factor, self.weights = factor, weights

    def initialize(self, generator: Any, shape: Any) -> Any:
        return {}, shape

    def apply(self, parameters: Any, x: Any) -> Any:
        return self.factor * x


class SignDescent(ElementwiseOptimizer):
    def formula(self, parameters: Any, gradient: Any, memory: Any, coefficients: Any) -> Any:
        return parameters - coefficients[0] * np.sign(gradient), []


class Unreadable:
    def __repr__(self) -> str:
        raise RuntimeError("not now")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (MODEL, NETWORK),
        (OPTIONS, f"iMAMLOptions({NETWORK}, LambdaRegularization=2.0)"),
        (iMAMLAlgorithm(OPTIONS), f"iMAMLAlgorithm(iMAMLOptions({NETWORK}, LambdaRegularization=2.0))"),
        (SGDOptimizer(0.1, momentum=0.9), "SGDOptimizer(0.1, momentum=0.9)"),
        (SinusoidLoader(KShot=5), "SinusoidLoader(KShot=5)"),
        (get_backend("numpy"), "NumPyBackend()"),
        (FunctionModel(np.dot, {"w": np.zeros(999)}), "FunctionModel(dot, ndarray of shape (999,))"),
        (
            NeuralNetworkModel(Dense(1), input_shape=(4,), loss=CrossEntropyLoss(), dtype=np.float64),
            "NeuralNetworkModel(Dense(1), input_shape=(4,), loss=CrossEntropyLoss(), dtype=dtype('float64'))",
        ),
        (ANILOptions(MODEL, AdaptedLayers=["2_dense"]), f"ANILOptions({NETWORK}, AdaptedLayers=['2_dense'])"),
        (AdamOptimizer(0.1, epsilon=1e-6), "AdamOptimizer(0.1, epsilon=1e-06)"),
        (SignDescent(0.5), "SignDescent(0.5)"),
        (LBFGSMinimizer(history=5), "LBFGSMinimizer(history=5)"),
        (NewtonCGMinimizer(), "NewtonCGMinimizer()"),
        (CrossEntropyLoss(), "CrossEntropyLoss()"),
        (NumPyBackend(compiled=False), "NumPyBackend(compiled=False)"),
        (DigitsLoader(split="test", rotations=False), "DigitsLoader(split='test', rotations=False)"),
        (
            BalancedEpisodicDataLoader(np.zeros((40, 2)), np.arange(40) % 4, nWay=3, queryShots=4),
            "BalancedEpisodicDataLoader(ndarray of shape (40, 2), ndarray of shape (40,), nWay=3, queryShots=4)",
        ),
        (
            CurriculumTaskSampler(RotatedDigitsMetaDataset(featureDim=4), numWays=3, paceRate=0.5),
            "CurriculumTaskSampler(RotatedDigitsMetaDataset(featureDim=4), numWays=3, paceRate=0.5)",
        ),
        (GaussianClassificationMetaDataset(20), "GaussianClassificationMetaDataset(numClasses=20)"),
        (EpisodeCache(5), "EpisodeCache(capacity=5)"),
        (BatchNorm(), "BatchNorm()"),
        (BatchNorm(statistics="support"), "BatchNorm(statistics='support')"),
        (Conv2D(8, bias=False), "Conv2D(8, bias=False)"),
        (Conv2D(8, (3, 5)), "Conv2D(8, kernel=(3, 5))"),
        (MaxPool2D(3), "MaxPool2D(window=3)"),
        (Residual(Dense(3), Dense(3)), "Residual(Dense(3), shortcut=Dense(3))"),
        (Scaled(2.0), "Scaled(2.0)"),
        (Scaled(2.0, weights=np.zeros((9, 9))), "Scaled(2.0, weights=ndarray of shape (9, 9))"),
        (Scaled(10**5000), "Scaled(an integer of 16610 bits)"),
        (object.__new__(Dense), "Dense()"),
        (object.__new__(NeuralNetworkModel), "NeuralNetworkModel()"),
        (object.__new__(iMAMLAlgorithm), "iMAMLAlgorithm()"),
    ],
)
def test_what_differs_from_the_defaults(value: Any, text: str) -> None:
    assert repr(value) == text


def test_bounded_length() -> None:
    assert len(repr(Sequential(*[Dense(40) for _ in range(500)]))) <= 300


def test_an_archive(tmp_path: Path) -> None:
    path = omniglot_files.write(tmp_path / "o.zip", omniglot_files.alphabets("Latin", images=16))
    text = repr(OmniglotLoader(path, NWay=2, alphabets=["Latin"]))
    assert text.endswith("o.zip', NWay=2, alphabets=['Latin'])") or len(str(path)) > 70
    assert text.startswith("OmniglotLoader('/")


@pytest.mark.parametrize(
    "weights", ["x" * 10**6, [[list(range(1000))] * 1000] * 1000, {n: "y" * n for n in range(999)}]
)
def test_values_of_bounded_length(weights: Any) -> None:
    assert len(repr(Scaled(1.0, weights=weights))) <= 120


def test_an_object_within_itself() -> None:
    layer = Scaled(1.0)
    layer.weights = layer
    assert len(repr(layer)) <= 300


def test_values_that_have_no_representation() -> None:
    assert repr(Scaled(1.0, weights=Unreadable())).startswith("Scaled(1.0, weights=<Unreadable ")


def test_a_representation_of_ones_own_is_kept() -> None:
    class Named(Dense):
        def __repr__(self) -> str:
            return "mine"

    assert repr(Sequential(Named(3), ReLU())) == "Sequential(mine, ReLU())"
