"""The meta-gradient of a batch without a step: its parts, and what stays as it was.

That it is the derivative of the query loss, and what a step follows, `check_algorithm` says of each algorithm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from plain_models import BareModel
from tanh_network import TanhNetwork, batch_of

from aidotnet_py import (
    ArgumentNullException,
    InvalidOperationException,
    MAMLAlgorithm,
    MAMLOptions,
    MetaLearningTask,
    NeuralNetworkModel,
    NewtonCGMinimizer,
    NonPositiveCurvatureWarning,
    ReptileAlgorithm,
    ReptileOptions,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.nn import Dense, Dropout, Sequential, Tanh
from aidotnet_py.testing.learner_state import bits, untouched

NUMPY = get_backend("numpy")
NETWORK = TanhNetwork(hidden=2)
PROXIMAL = {"InnerObjective": "proximal", "LambdaRegularization": 0.5}
TIGHT = {
    "InnerOptimizer": NewtonCGMinimizer(gradient_tolerance=1e-12),
    "ConjugateGradientIterations": 60,
    "ConjugateGradientTolerance": 1e-14,
}

LEARNERS: dict[str, Callable[..., Any]] = {
    "MAML": lambda m, **o: MAMLAlgorithm(MAMLOptions(m, **o)),
    "iMAML": lambda m, **o: iMAMLAlgorithm(iMAMLOptions(m, **PROXIMAL, **TIGHT, **o)),
    "iMAML, learned λ": lambda m, **o: iMAMLAlgorithm(
        iMAMLOptions(m, LearnedLambda="scalar", **PROXIMAL, **TIGHT, **o)
    ),
}


def a_batch(backend: Backend, count: int = 2) -> Any:
    rng = np.random.default_rng(0)
    sets = []
    for _ in range(count):
        x, q = rng.standard_normal((5, 2)), rng.standard_normal((7, 2))
        sets.append((x, np.sin(x[:, :1]), q, np.sin(q[:, :1])))
    return batch_of(backend, sets)


def a_learner(backend: Backend, name: str) -> Any:
    model = NETWORK.model(backend, NETWORK.start())
    return LEARNERS[name](model, GradientClipThreshold=None)


def test_the_learned_vectors_have_their_names() -> None:
    learner = a_learner(NUMPY, "iMAML, learned λ")
    result = learner.mean_meta_gradient(a_batch(NUMPY))
    (vector,) = result.learned.values()
    assert vector.shape == (1,)
    assert result.parameters.shape == (learner.ParameterCount,)
    assert list(result.learned) == [kind.name for kind in learner.learned()]


def test_the_metrics_are_those_of_the_step() -> None:
    learner, batch = a_learner(NUMPY, "iMAML"), a_batch(NUMPY)
    metrics = dict(learner.mean_meta_gradient(batch).metrics)
    learner.MetaTrain(batch)
    del learner._record.metrics["MetaGradientNorm"]
    assert metrics == learner._record.metrics


def test_it_is_not_clipped() -> None:
    batch = a_batch(NUMPY)
    free, clipped = (
        MAMLAlgorithm(MAMLOptions(NETWORK.model(NUMPY, NETWORK.start()), GradientClipThreshold=limit))
        for limit in (None, 1e-6)
    )
    assert bits(tuple(free.mean_meta_gradient(batch))) == bits(tuple(clipped.mean_meta_gradient(batch)))


def test_reptile_without_a_loss_to_descend() -> None:
    batch = a_batch(NUMPY)
    models = [NETWORK.model(NUMPY, NETWORK.start()) for _ in range(2)]
    learner, serial = (
        ReptileAlgorithm(ReptileOptions(model, UseSerialUpdate=by_one))
        for model, by_one in zip(models, (False, True), strict=True)
    )
    moved = [NETWORK.start() - learner.Adapt(task).GetParameters() for task in batch]
    np.testing.assert_allclose(learner.mean_meta_gradient(batch).parameters, np.mean(moved, axis=0), rtol=1e-12)
    assert bits(tuple(serial.mean_meta_gradient(batch))) == bits(tuple(learner.mean_meta_gradient(batch)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Dropout", "perturbed"])
def test_draws_are_put_back(kind: str) -> None:
    """Noise in training, and estimated gradients, come from the learner's own generator."""
    x = np.linspace(-1.0, 1.0, 6)[:, None]
    task = MetaLearningTask(SupportSetX=x, SupportSetY=x**2, QuerySetX=x, QuerySetY=x**2, NumWays=1)
    batch = TaskBatch([task, task])

    def make() -> Any:
        layers = Sequential(Dense(4), Tanh(), Dropout(0.5), Dense(1))
        network = NeuralNetworkModel(layers, input_shape=(1,), dtype=np.float64, seed=0)
        model: Any = network if kind == "Dropout" else BareModel(TanhNetwork(1), TanhNetwork(1).start(), NUMPY)
        return ReptileAlgorithm(ReptileOptions(model, RandomSeed=3, InnerLearningRate=0.01))

    learner, twin = make(), make()
    if kind == "perturbed":
        with pytest.warns(UserWarning, match="simultaneous perturbation"):
            first = learner.mean_meta_gradient(batch)
        with pytest.warns(UserWarning, match="simultaneous perturbation"):
            twin.MetaTrain(batch)
    else:
        first = learner.mean_meta_gradient(batch)
        twin.MetaTrain(batch)
    with untouched(learner):
        assert bits(tuple(learner.mean_meta_gradient(batch))) == bits(tuple(first))
    learner.MetaTrain(batch)
    assert bits(learner._meta_parameters()) == bits(twin._meta_parameters())


def test_the_loader_and_the_iteration_stay() -> None:
    loader = SinusoidLoader(4, 6, seed=0, dtype=np.float64)
    batch = loader.GetTaskBatch(2)
    model = NeuralNetworkModel(Sequential(Dense(3), Tanh(), Dense(1)), input_shape=(1,), dtype=np.float64, seed=0)
    learner = MAMLAlgorithm(MAMLOptions(model, DataLoader=loader))
    learner.MetaTrainStep(2)
    record = learner._record
    with untouched(learner):
        learner.mean_meta_gradient(batch)
    assert learner._record is record
    assert learner.CurrentIteration == 1


def test_what_is_not_finite_is_named_and_changes_nothing() -> None:
    batch = a_batch(NUMPY)
    batch[1].QueryOutput[0] = np.nan
    learner = a_learner(NUMPY, "MAML")
    with untouched(learner), pytest.raises(InvalidOperationException, match="query loss of task 1"):
        learner.mean_meta_gradient(batch)


def test_a_solve_that_fails_is_warned_of() -> None:
    learner = iMAMLAlgorithm(
        iMAMLOptions(NETWORK.model(NUMPY, NETWORK.start()), LambdaRegularization=1e4, AdaptationSteps=1)
    )
    with pytest.warns(NonPositiveCurvatureWarning):
        learner.mean_meta_gradient(a_batch(NUMPY))


def test_none_is_no_batch() -> None:
    with pytest.raises(ArgumentNullException, match="taskBatch"):
        a_learner(NUMPY, "MAML").mean_meta_gradient(None)
