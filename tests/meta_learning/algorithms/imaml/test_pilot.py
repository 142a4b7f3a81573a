"""The curvature after a short training: against dense matrices, and what the training leaves alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aidotnet_py import (
    CrossEntropyLoss,
    FunctionModel,
    InvalidOperationException,
    MeanSquaredErrorLoss,
    MetaLearningTask,
    NeuralNetworkModel,
    iMAMLOptions,
)
from aidotnet_py.backends import Backend
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.meta_learning.algorithms.imaml.pilot import largest_eigenvalue, shortly_trained
from aidotnet_py.nn import mlp


def regression(x: Any, y: Any) -> MetaLearningTask[Any, Any, Any]:
    return MetaLearningTask(SupportSetX=x, SupportSetY=y, QuerySetX=x, QuerySetY=y, NumWays=1, NumShots=x.shape[0])


def test_of_linear_regressions(backend: Backend) -> None:
    """(2/n) XᵀX, by NumPy's eigenvalues; the mean over tasks."""
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(6, 4)) * scale for scale in (1.0, 3.0)]
    tasks = [regression(backend.asarray(x), backend.asarray(rng.normal(size=(6, 1)))) for x in inputs]
    model: Any = FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((4, 1))}, backend=backend)
    expected = np.mean([np.linalg.eigvalsh(2 / 6 * x.T @ x)[-1] for x in inputs])
    # Thirty iterations leave a share of (λ₂/λ₁)⁶⁰ of the error.
    assert largest_eigenvalue(model, MeanSquaredErrorLoss(), tasks) == pytest.approx(expected, rel=1e-3)


def test_of_a_network_with_classes() -> None:
    """JᵀHJ with H = diag(p) − ppᵀ of the softmax, over n, by dense matrices."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(5, 3)), rng.integers(0, 4, 5)
    model: Any = NeuralNetworkModel(mlp(6, 4), input_shape=(3,), loss=CrossEntropyLoss(), seed=0, dtype=np.float64)
    theta = model.GetParameters()

    def logits(parameters: Any) -> Any:
        return model.WithParameters(parameters).Predict(x)

    steps = 1e-6 * np.eye(len(theta))
    jacobian = np.stack([(logits(theta + e) - logits(theta - e)) / 2e-6 for e in steps], axis=-1)
    p = np.exp(logits(theta))
    p /= p.sum(axis=1, keepdims=True)
    matrix = np.zeros((len(theta), len(theta)))
    for row, probabilities in zip(jacobian, p, strict=True):
        matrix += row.T @ (np.diag(probabilities) - np.outer(probabilities, probabilities)) @ row / len(x)
    found = largest_eigenvalue(model, CrossEntropyLoss(), [regression(x, y)])
    assert found == pytest.approx(np.linalg.eigvalsh(matrix)[-1], rel=1e-3)


def test_without_curvature() -> None:
    model: Any = FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((2, 1))})
    assert largest_eigenvalue(model, MeanSquaredErrorLoss(), [regression(np.zeros((3, 2)), np.zeros((3, 1)))]) == 0


def test_a_short_training_leaves_model_and_loader_alone() -> None:
    model = NeuralNetworkModel(mlp(8, 1), input_shape=(1,), seed=0)
    loader, other = SinusoidLoader(seed=0), SinusoidLoader(seed=0)
    before = model.GetParameters().copy()
    options = iMAMLOptions(model, DataLoader=loader, NumMetaIterations=3, MetaBatchSize=2, OuterLearningRate=0.01)
    trained = shortly_trained(options, 0.001, 1)
    assert not np.array_equal(trained.GetParameters(), before)
    np.testing.assert_array_equal(model.GetParameters(), before)
    np.testing.assert_array_equal(loader.GetNextTask().SupportInput, other.GetNextTask().SupportInput)


def test_beyond_the_numbers_of_the_model() -> None:
    x = np.full((4, 2), 1e25, np.float32)
    model: Any = FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((2, 1), np.float32)})
    found = largest_eigenvalue(model, MeanSquaredErrorLoss(), [regression(x, np.zeros((4, 1), np.float32))])
    assert not np.isfinite(found)


def test_float16_has_the_eigenvalue_of_float64() -> None:
    rng = np.random.default_rng(0)
    x = 30 * rng.normal(size=(6, 4))
    model: Any = FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((4, 1), np.float16)})
    task = regression(x.astype(np.float16), np.zeros((6, 1), np.float16))
    expected = np.linalg.eigvalsh(2 / 6 * x.T @ x)[-1]
    assert expected > 256
    assert largest_eigenvalue(model, MeanSquaredErrorLoss(), [task]) == pytest.approx(expected, rel=0.02)


def test_a_loaders_own_error_is_not_taken_for_a_step_that_fails() -> None:
    class Ending(SinusoidLoader[np.float32]):
        def GetTaskBatch(self, numTasks: int) -> Any:
            raise InvalidOperationException("the source has ended")

    model = NeuralNetworkModel(mlp(8, 1), input_shape=(1,), seed=0)
    with pytest.raises(InvalidOperationException, match="the source has ended"):
        shortly_trained(iMAMLOptions(model, DataLoader=Ending(seed=0)), 0.001, 1)
