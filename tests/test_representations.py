"""Representations show what differs from the defaults, on one line, and never fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aidotnet_py import FunctionModel, NeuralNetworkModel, SGDOptimizer, iMAMLAlgorithm, iMAMLOptions
from aidotnet_py.backends import get_backend
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.nn import Dense, ReLU, Sequential

MODEL = NeuralNetworkModel(Sequential(Dense(40), ReLU(), Dense(1)), input_shape=(1,))
OPTIONS = iMAMLOptions(MODEL, LambdaRegularization=2.0)
NETWORK = "NeuralNetworkModel(Sequential(Dense(40), ReLU(), Dense(1)), input_shape=(1,))"


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
        (object.__new__(Dense), "Dense()"),
        (object.__new__(NeuralNetworkModel), "NeuralNetworkModel()"),
        (object.__new__(iMAMLAlgorithm), "iMAMLAlgorithm()"),
    ],
)
def test_what_differs_from_the_defaults(value: Any, text: str) -> None:
    assert repr(value) == text


def test_bounded_length() -> None:
    assert len(repr(Sequential(*[Dense(40) for _ in range(500)]))) <= 300
