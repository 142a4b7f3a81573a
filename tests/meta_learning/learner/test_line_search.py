"""`adapt_with_line_search`: φ where the inner steps fit the support set, and shorter steps where they do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from imaml_reference import LeastSquares, linear_model, linear_tasks, start
from tanh_network import TanhNetwork, batch_of

from aidotnet_py import (
    ANILAlgorithm,
    ANILOptions,
    CrossEntropyLoss,
    FunctionModel,
    InvalidOperationException,
    MAMLAlgorithm,
    MAMLOptions,
    MetaLearnerBase,
    MetaLearningTask,
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
from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.nn import BatchNorm, Dense, ReLU, Sequential, mlp
from aidotnet_py.testing.learner_state import bits, untouched

NUMPY = get_backend("numpy")
SETS = TanhNetwork().sets(8)
ALGORITHMS = (
    (MAMLAlgorithm, MAMLOptions),
    (ANILAlgorithm, ANILOptions),
    (MetaSGDAlgorithm, MetaSGDOptions),
    (ReptileAlgorithm, ReptileOptions),
    (iMAMLAlgorithm, iMAMLOptions),
)


def line(backend: Backend, rate: float, steps: int) -> tuple[Any, Any]:
    """A learner of y = wx from w = 0, where each step multiplies the distance to w = 3 by 1 − 2 rate; and its task."""
    x = backend.asarray(np.array([[1.0], [-1.0]]))
    model: Any = FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((1, 1))}, backend=backend)
    task = MetaLearningTask(SupportSetX=x, SupportSetY=3.0 * x, NumWays=1)
    return MAMLAlgorithm(MAMLOptions(model, InnerLearningRate=rate, AdaptationSteps=steps)), task


@pytest.mark.parametrize(
    ("rate", "steps", "expected"),
    [
        (0.2, 1, 1.2),
        # To 7.2, farther than 0 is from 3, and half as far.
        (1.2, 1, 3.6),
        # To −2.88; by steps of half the length to 3.6, then 2.88.
        (1.2, 2, 2.88),
        # No step is short enough.
        (3000.0, 1, 0.0),
    ],
)
def test_halves_the_steps_until_they_fit_better_than_the_start(
    backend: Backend, rate: float, steps: int, expected: float
) -> None:
    learner, task = line(backend, rate, steps)
    with untouched(learner):
        adapted = learner.adapt_with_line_search(task)
    np.testing.assert_allclose(backend.to_numpy(adapted.GetParameters()), [expected], rtol=1e-12)


def network() -> Any:
    return NeuralNetworkModel(mlp(8, 1), input_shape=(2,), dtype=np.float64, seed=0)


@pytest.mark.parametrize(("algorithm", "options"), ALGORITHMS)
def test_steps_that_fit_are_those_of_adapt_bit_for_bit(algorithm: Any, options: Any) -> None:
    learner = algorithm(options(network(), InnerLearningRate=0.02))
    for task in batch_of(NUMPY, SETS[:3]):
        assert bits(learner.adapt_with_line_search(task).GetParameters()) == bits(learner.Adapt(task).GetParameters())


@pytest.mark.parametrize(("algorithm", "options"), ALGORITHMS)
def test_no_task_is_fitted_worse_than_by_the_start(algorithm: Any, options: Any) -> None:
    learner, fitted_worse = algorithm(options(network(), InnerLearningRate=0.5, AdaptationSteps=2)), 0
    # Inputs that are larger than others ask for shorter steps.
    for task in batch_of(NUMPY, [(5 * x, y, *query) for x, y, *query in SETS]):
        of_start, plain, searched = (
            float(np.mean((model.Predict(task.SupportInput) - task.SupportOutput) ** 2))
            for model in (network(), learner.Adapt(task), learner.adapt_with_line_search(task))
        )
        fitted_worse += plain > of_start
        assert searched <= of_start * (1 + 1e-12)
    assert fitted_worse


def test_steps_to_infinity_are_halved_too() -> None:
    x = np.array([[1.0], [-1.0]], np.float32)
    model: Any = FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((1, 1), np.float32)}, dtype=np.float32)
    learner: Any = MAMLAlgorithm(MAMLOptions(model, InnerLearningRate=3.0, AdaptationSteps=70))
    task = MetaLearningTask(SupportSetX=x, SupportSetY=3 * x, NumWays=1)
    with pytest.raises(InvalidOperationException, match="adapted parameter vector of task 0"):
        learner.Adapt(task)
    np.testing.assert_allclose(learner.adapt_with_line_search(task).GetParameters(), [3.0], rtol=1e-6)


@pytest.mark.parametrize(("factor", "quantity"), [(1e200, "support loss"), (1e150, "support gradient")])
def test_a_start_that_is_not_finite_is_an_error_as_in_adapt(factor: float, quantity: str) -> None:
    learner, _ = line(NUMPY, 0.2, 1)
    x = np.array([[1.0], [1e170]])
    task = MetaLearningTask(SupportSetX=x, SupportSetY=factor * np.ones((2, 1)), NumWays=1)
    for adapt in (learner.Adapt, learner.adapt_with_line_search):
        with pytest.raises(InvalidOperationException, match=rf"{quantity} of task 0 \(.*\) is not finite"):
            adapt(task)


def test_normalises_by_the_support_set_at_the_parameters_in_the_end() -> None:
    network = Sequential(Dense(4), BatchNorm(), ReLU(), Dense(1))
    model: Any = NeuralNetworkModel(network, input_shape=(2,), seed=0, dtype=np.float64)
    x = np.random.default_rng(0).standard_normal((6, 2))
    task: Any = MetaLearningTask(SupportSetX=x, SupportSetY=x[:, :1], NumWays=1)
    learner: Any = MAMLAlgorithm(MAMLOptions(model, InnerLearningRate=20.0, AdaptationSteps=2))
    adapted = learner.adapt_with_line_search(task)
    assert bits(adapted.GetParameters()) != bits(learner.Adapt(task).GetParameters())
    expected = model.WithParameters(adapted.GetParameters()).with_statistics_of(x)
    np.testing.assert_array_equal(adapted.Predict(x[:2]), expected.Predict(x[:2]))


def test_support_sets_in_batches_count_as_a_whole() -> None:
    data = linear_tasks(1)[0].support
    halves = [slice(0, 2), slice(2, None)]
    batches = [[data.x[part] for part in halves], [data.y[part] for part in halves]]
    options: dict[str, Any] = {"InnerLearningRate": 2.0, "AdaptationSteps": 2}
    learner: Any = MAMLAlgorithm(MAMLOptions(linear_model(NUMPY, start()), **options))
    adapted = learner.adapt_with_line_search(MetaLearningTask(SupportSetX=batches[0], SupportSetY=batches[1]))

    def loss(parameters: Any) -> float:
        both: list[float] = []
        for part in halves:
            rows = LeastSquares(data.x[part], data.y[part])
            both.append(float(np.mean((rows.z @ parameters - rows.y[:, 0]) ** 2)))
        return float(np.mean(both))

    assert (
        loss(adapted.GetParameters())
        <= loss(start())
        < loss(learner.Adapt(MetaLearningTask(SupportSetX=batches[0], SupportSetY=batches[1])).GetParameters())
    )


def test_an_adapt_of_ones_own_is_kept() -> None:
    class Own(MAMLAlgorithm[Any, Any, Any, Any]):
        def Adapt(self, task: Any) -> Any:
            return self.BaseModel.WithParameters(np.array([5.0]))

    learner, task = line(NUMPY, 0.2, 1)
    own: MetaLearnerBase[Any, Any, Any, Any] = Own(learner.Options)
    assert own.adapt_with_line_search(task).GetParameters().tolist() == [5.0]


def test_prototypes_are_those_of_adapt() -> None:
    (task,) = batch_of(NUMPY, TanhNetwork(outputs=3, classify=True).sets(1, support=12))
    model: Any = NeuralNetworkModel(mlp(8, 3), input_shape=(2,), loss=CrossEntropyLoss(), dtype=np.float64, seed=0)
    learner: Any = ProtoNetsAlgorithm(ProtoNetsOptions(model))
    found, expected = (
        adapt(task).Predict(task.QueryInput) for adapt in (learner.adapt_with_line_search, learner.Adapt)
    )
    np.testing.assert_array_equal(found, expected)
