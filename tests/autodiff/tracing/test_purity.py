"""Functions that are not pure: randomness, counters and clocks in them are refused, whatever traces them."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tanh_network import TanhNetwork, apply, batch_of

from aidotnet_py import (
    ANILAlgorithm,
    ANILOptions,
    FunctionModel,
    InvalidOperationException,
    MAMLAlgorithm,
    MAMLOptions,
    NeuralNetworkModel,
    SGDOptimizer,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py import autodiff as ad
from aidotnet_py.autodiff.traced_program import trace_once
from aidotnet_py.autodiff.tracing.purity import difference
from aidotnet_py.backends import get_backend
from aidotnet_py.implicit import implicit_diff
from aidotnet_py.losses import LossFunctionBase
from aidotnet_py.nn import Dense, Layer, Sequential
from aidotnet_py.optimizers import ElementwiseOptimizer

NETWORK = TanhNetwork()
GENERATOR = np.random.default_rng(0)
COUNT = itertools.count()
IMPURE: dict[str, Callable[[Any], Any]] = {
    "np.random": lambda x: x * np.random.rand(*x.shape),  # noqa: NPY002 -- what people write
    # Few masks would be alike twice by chance.
    "a generator": lambda x: np.where(GENERATOR.random((x.shape[0], 64)) < 0.5, x, 0.0).mean(axis=1, keepdims=True),
    "a scaled one": lambda x: x + 0.1 * GENERATOR.standard_normal(),
    "a new generator": lambda x: x * np.random.default_rng().random(x.shape),
    "random": lambda x: x * random.random(),
    "a counter": lambda x: x * next(COUNT),
    "a clock": lambda x: x + time.perf_counter(),
    "a permutation": lambda x: x[:, GENERATOR.permutation(1000)[:1] * 0] * np.float64(GENERATOR.permutation(1000)[0]),
    "a length": lambda x: np.concatenate([x] * (1 + next(COUNT)))[: x.shape[0]],
    "integers": lambda x: np.take(np.repeat(x, 99, axis=0), GENERATOR.integers(0, 99, x.shape[0]), axis=0),
}
EACH = pytest.mark.parametrize("name", IMPURE)
refused = pytest.raises(
    InvalidOperationException, match="must be a pure function of its arguments, got another Program"
)


def model_of(spoil: Callable[[Any], Any], loss: Any = None) -> Any:
    return FunctionModel(lambda p, x: spoil(apply(p, x)), NETWORK.parts(NETWORK.start()), loss)


@EACH
class TestAreRefused:
    def test_by_trace(self, name: str) -> None:
        with refused:
            ad.trace(IMPURE[name], np.ones((6, 1)))

    def test_in_models(self, name: str) -> None:
        x, y, *_ = NETWORK.sets(1)[0]
        model = model_of(IMPURE[name])
        before = model.GetParameters()
        # The second time as well: nothing of what was refused is kept.
        for _ in range(2):
            for use in (
                lambda: model.Predict(x),
                lambda: model.ComputeGradients(x, y),
                lambda: model.Train(x, y),
            ):
                with pytest.raises(InvalidOperationException, match="the model's function must be a pure function"):
                    use()
        assert (model.GetParameters() == before).all()

    @pytest.mark.parametrize("kind", [MAMLAlgorithm, iMAMLAlgorithm, ANILAlgorithm])
    def test_in_learners(self, name: str, kind: Any) -> None:
        options: Any = {MAMLAlgorithm: MAMLOptions, iMAMLAlgorithm: iMAMLOptions, ANILAlgorithm: ANILOptions}[kind]
        own = {"AdaptedLayers": ["w2"]} if kind is ANILAlgorithm else {}
        batch = batch_of(get_backend("numpy"), NETWORK.sets(2))
        learner = kind(options(model_of(IMPURE[name]), **own))
        before = learner.BaseModel.GetParameters()
        for _ in range(2):
            for use in (learner.MetaTrain, learner.Evaluate, lambda tasks: learner.Adapt(tasks[0])):
                with pytest.raises(InvalidOperationException, match=r"aidotnet_py\.nn\.Dropout"):
                    use(batch)
        assert (learner.BaseModel.GetParameters() == before).all()

    def test_in_losses(self, name: str) -> None:
        class Noisy(LossFunctionBase):
            def formula(self, predicted: Any, actual: Any) -> Any:
                return np.mean(IMPURE[name]((predicted - actual) ** 2))

        x, y, *_ = NETWORK.sets(1)[0]
        model = model_of(lambda y: y, Noisy())
        model.Predict(x)
        learner = MAMLAlgorithm(MAMLOptions(model))
        batch = batch_of(get_backend("numpy"), NETWORK.sets(2))
        for use in (lambda: model.ComputeGradients(x, y), lambda: model.Train(x, y), lambda: learner.MetaTrain(batch)):
            with pytest.raises(InvalidOperationException, match="with the loss's formula, must be a pure function"):
                use()
        # It is traced anew whenever it is asked for a number, so that there each call has its own.
        assert np.isfinite(Noisy().CalculateLoss(np.ones((6, 1)), np.zeros((6, 1))))

    def test_in_optimizers(self, name: str) -> None:
        class Noisy(ElementwiseOptimizer):
            """Steps with noise, as of Langevin dynamics."""

            def formula(self, parameters: Any, gradient: Any, memory: Any, coefficients: Any) -> Any:
                flat = parameters.reshape((-1, 1))
                return parameters - coefficients[0] * gradient + IMPURE[name](flat).reshape(parameters.shape), []

        with pytest.raises(InvalidOperationException, match=r"Noisy\.formula must be a pure function"):
            Noisy(0.1).UpdateParameters(np.ones(6), np.ones(6))
        learner = MAMLAlgorithm(MAMLOptions(model_of(lambda y: y), InnerOptimizer=Noisy(0.1)))
        with refused:
            learner.MetaTrain(batch_of(get_backend("numpy"), NETWORK.sets(2)))

    def test_but_not_where_each_call_traces_anew(self, name: str) -> None:
        x = np.ones((6, 1))
        assert np.isfinite(ad.grad(lambda a: np.sum(IMPURE[name](a)))(x)).all()


def test_a_layer_with_a_generator_of_its_own_is_refused() -> None:
    class Noise(Layer):
        def initialize(self, generator: Any, shape: Any) -> Any:
            return {}, shape

        def apply(self, parameters: Any, x: Any) -> Any:
            return x + GENERATOR.standard_normal(x.shape)

    model: Any = NeuralNetworkModel(Sequential(Dense(3), Noise()), input_shape=(2,), dtype=np.float64, seed=0)
    with refused:
        model.Predict(np.ones((4, 2)))


def test_the_message_says_what_differs() -> None:
    for f, wanted in (
        (IMPURE["a generator"], r"a constant of type bool\[2,64\] has other values"),
        (lambda x: x + (COUNT.__next__() + 0.25), r"equation 0, add, has \d+\.25, then \d+\.25"),
        (lambda x: np.concatenate([x] * (1 + next(COUNT))), r"equation 0, concatenate, is another one"),
        (lambda x: x if next(COUNT) % 2 else -x, r"0 equations with 0 constants, then 1 with 0|1 equations.*then 0"),
    ):
        with pytest.raises(InvalidOperationException, match=wanted):
            ad.trace(f, np.ones((2, 1)))


TABLE = np.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x * np.random.default_rng(3).random(x.shape),
        lambda x: x @ TABLE * np.nan + np.array([0.0, -0.0, np.inf]),
        lambda x: x[[0, 1]] + x[np.array([1, 0])],
        lambda x: ad.grad(lambda a: np.sum(np.sin(a) ** 2))(x),
        lambda x: ad.vmap(lambda row: ad.softmax(row) - 0.0)(x),
        lambda x: ad.hvp(lambda a: np.sum(a**3), x, np.ones_like(x)),
        lambda x: {"a": x.sum(), "b": [x, 1.0]},
    ],
)
def test_pure_functions_are_taken(f: Callable[[Any], Any]) -> None:
    x = np.ones((2, 2))
    first, second = trace_once(f, x), trace_once(f, x)
    assert difference(first, second) is None
    ad.trace(f, x)


def test_solutions_are_pure_though_their_equations_hold_objects(backend: Any) -> None:
    @implicit_diff(lambda y, a: y**3 + y - a)
    def root(start: Any, a: Any) -> Any:
        y = start
        for _ in range(40):
            y = y - (y**3 + y - a) / (3 * y**2 + 1)
        return y

    found = ad.trace(lambda a: root(a * 0, a), backend.asarray([2.0, 10.0]))(backend.asarray([2.0, 10.0]))
    np.testing.assert_allclose(backend.to_numpy(found), [1.0, 2.0], rtol=1e-12)


def test_programs_that_differ_are_told_apart() -> None:
    x = np.ones((2, 3))
    pairs: list[tuple[Callable[[Any], Any], Callable[[Any], Any]]] = [
        (lambda a: a + 0.0, lambda a: a - 0.0),
        (lambda a: a * 0.0, lambda a: a * -0.0),
        (lambda a: a.sum(0), lambda a: a.sum(1)),
        (lambda a: a[:, [0, 1]], lambda a: a[:, [0, 2]]),
        (lambda a: a + np.zeros(3), lambda a: a + np.zeros(3, np.float32)),
        (lambda a: a + np.zeros((1, 3)), lambda a: a + np.zeros(3)),
        (lambda a: a + np.zeros(3), lambda a: a - np.zeros(3)),
        (lambda a: (np.sin(a), np.cos(a)), lambda a: (np.cos(a), np.sin(a))),
        (lambda a: (np.sin(a), np.sin(a)), lambda a: (np.sin(a), a)),
        (lambda a: np.sin(a) - np.cos(a), lambda a: np.cos(a) - np.sin(a)),
        (lambda a: a * np.array([1.0, np.nan, 3.0]), lambda a: a * np.array([1.0, 2.0, np.nan])),
    ]
    for place, (one, other) in enumerate(pairs):
        assert difference(trace_once(one, x), trace_once(other, x)) is not None, place
        for same in (one, other):
            assert difference(trace_once(same, x), trace_once(same, x)) is None, place


def test_nothing_was_stepped_when_the_inner_optimizer_is_refused() -> None:
    class Noisy(SGDOptimizer):
        def formula(self, parameters: Any, gradient: Any, memory: Any, coefficients: Any) -> Any:
            return parameters - gradient * GENERATOR.random(), []

    learner = MAMLAlgorithm(MAMLOptions(model_of(lambda y: y), InnerOptimizer=Noisy(0.1)))
    before = learner.BaseModel.GetParameters()
    with refused:
        learner.MetaTrain(batch_of(get_backend("numpy"), NETWORK.sets(2)))
    assert (learner.BaseModel.GetParameters() == before).all()
