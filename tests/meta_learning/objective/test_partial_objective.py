"""Objectives of some parameters: a model's function cut in two, and the part that stays worked through once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy_doubles import CountingBackend
from random_programs import a_type, random_program
from small_learners import image_model, images
from tanh_network import TanhNetwork, batch_of

from aidotnet_py import ANILAlgorithm, ANILOptions, FunctionModel, MetaLearningTask, TaskBatch
from aidotnet_py.autodiff import relu
from aidotnet_py.autodiff.execution import run_program
from aidotnet_py.autodiff.tracing.emission import inline
from aidotnet_py.autodiff.transforms.splitting import Split, split
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.backends import get_backend
from aidotnet_py.meta_learning.objective.stacking import Columns

F8 = np.dtype("f8")


def halves(function: Any, parameters: dict[str, Any], adapted: list[str], x: Any) -> Split:
    """The split, after a check that its halves make up the whole."""
    shapes = {name: value.shape for name, value in parameters.items()}
    found = split(function, shapes, adapted, ArrayType(x.shape, x.dtype), F8)
    staying = [value for name, value in parameters.items() if name not in adapted]
    (features,) = run_program(found.early, [*staying, x])
    assert features.shape == (found.features,)
    moving = [value for name, value in parameters.items() if name in adapted]
    (predictions,) = run_program(found.late, [*moving, features, x])
    np.testing.assert_allclose(predictions, FunctionModel(function, parameters).Predict(x), rtol=1e-15)
    return found


def three_layers(p: Any, x: Any) -> Any:
    return np.tanh(np.tanh(x @ p["a"]) @ p["b"]) @ p["c"]


THREE = {name: np.random.default_rng(i).normal(size=(4, 4)) for i, name in enumerate("abc")}
X = np.random.default_rng(3).normal(size=(5, 4))


class TestSplit:
    def test_before_the_last_layer_only_its_inputs(self) -> None:
        found = halves(three_layers, THREE, ["c"], X)
        assert found.features == 5 * 4
        assert found.late.count("tanh") == 0
        assert found.late.count("matmul") == 1
        assert found.early.count("matmul") == 2

    def test_before_the_first_the_parameters_of_the_others(self) -> None:
        found = halves(three_layers, THREE, ["a"], X)
        assert found.features == 2 * 16
        assert (found.early.count("matmul"), found.late.count("matmul")) == (0, 3)

    def test_in_the_middle(self) -> None:
        found = halves(three_layers, THREE, ["b"], X)
        assert found.features == 5 * 4 + 16
        assert (found.early.count("matmul"), found.late.count("matmul")) == (1, 2)

    def test_views_are_made_again_from_what_they_are_views_of(self) -> None:
        """A bias of two numbers, broadcast to every row, is two features."""
        parameters = {"w": np.ones((4, 2)), "bias": np.array([1.0, 2.0])}
        assert halves(lambda p, x: x @ p["w"] + p["bias"], parameters, ["w"], X).features == 2

    def test_values_of_another_dtype_too(self) -> None:
        """Of a mask, what it was computed from."""
        parameters = {"stays": np.ones((4, 3)), "moves": np.ones((3,))}

        def function(p: Any, x: Any) -> Any:
            return np.where(x @ p["stays"] > 0, p["moves"], -p["moves"])

        found = halves(function, parameters, ["moves"], X)
        assert found.features == 5 * 3

    def test_what_depends_on_the_examples_alone_is_no_feature(self) -> None:
        parameters = {"stays": np.ones((4, 2)), "moves": np.ones((4, 2))}
        found = halves(lambda p, x: np.exp(x) @ p["stays"] + np.exp(x) @ p["moves"], parameters, ["moves"], X)
        assert found.features == 5 * 2

    @pytest.mark.parametrize("adapted", ["used", "idle"])
    def test_a_parameter_without_effect(self, adapted: str) -> None:
        parameters = {"used": np.ones((4, 2)), "idle": np.ones(3)}
        halves(lambda p, x: x @ p["used"], parameters, [adapted], X)

    def test_integers_for_examples(self) -> None:
        parameters = {"table": np.random.default_rng(0).normal(size=(6, 3)), "w": np.ones((3, 2))}
        halves(lambda p, x: np.take(p["table"], x, axis=0) @ p["w"], parameters, ["w"], np.array([0, 5, 2]))
        halves(lambda p, x: np.take(p["table"], x, axis=0) @ p["w"], parameters, ["table"], np.array([0, 5, 2]))

    def test_arrays_that_the_function_brings(self) -> None:
        scale = np.arange(4.0)
        parameters = {"a": np.ones((4, 4)), "b": np.ones((4, 2))}
        for adapted in ("a", "b"):
            halves(lambda p, x: relu((x * scale) @ p["a"] * scale) @ p["b"], parameters, [adapted], X)


@given(st.integers(0, 2**32 - 1))
def test_random_functions(seed: int) -> None:
    """The halves do the operations of the whole, and no more: the bits are the same."""
    rng = np.random.default_rng(seed)
    program = random_program(rng, [a_type(rng) for _ in range(4)], int(rng.integers(6, 30)))
    names = ["a", "b", "c"]
    adapted = [names[i] for i in rng.choice(3, int(rng.integers(1, 3)), replace=False)]
    shapes = {name: t.shape for name, t in zip(names, program.input_types, strict=False)}
    *values, x = (rng.uniform(-2, 2, t.shape) for t in program.input_types)

    def function(p: Any, x: Any) -> Any:
        return inline(program, [*p.values(), x])[-2]

    found = split(function, shapes, adapted, ArrayType(x.shape, F8), F8)
    moving, staying = ([v for n, v in zip(names, values, strict=True) if (n in adapted) is m] for m in (True, False))
    with np.errstate(all="ignore"):
        (features,) = run_program(found.early, [*staying, x])
        (result,) = run_program(found.late, [*moving, features, x])
        expected = run_program(program, [*values, x])[-2]
    np.testing.assert_array_equal(result, expected)
    assert features.dtype == F8


def test_columns() -> None:
    backend = get_backend("numpy")
    shapes: dict[str, tuple[int, ...]] = {"a": (2,), "b": (1, 2), "c": (), "d": (1,)}
    rows = np.arange(12.0).reshape(2, 6)
    columns = Columns(backend, shapes, ["b", "c"])
    np.testing.assert_array_equal(columns.of(rows), rows[:, 2:5])
    put = columns.join(-rows[:, 2:5], columns.others_of(rows))
    np.testing.assert_array_equal(put, rows * np.array([1, 1, -1, -1, -1, 1]))
    apart = Columns(backend, shapes, ["a", "d"])
    np.testing.assert_array_equal(apart.of(rows), rows[:, [0, 1, 5]])
    np.testing.assert_array_equal(
        apart.join(apart.of(rows), apart.others_of(0 * rows)), rows * np.array([1, 1, 0, 0, 0, 1])
    )


def calls_of(steps: int, **options: Any) -> dict[str, int]:
    """How often a step and an adaptation take the windows of images and multiply matrices."""
    backend = CountingBackend()
    learner = ANILAlgorithm(ANILOptions(image_model(backend), AdaptationSteps=steps, **options))
    batch = images(backend)
    learner.MetaTrain(batch)
    backend.calls.clear()
    learner.MetaTrain(batch)
    trained = dict(backend.calls)
    learner.Adapt(batch[0])
    backend.calls.clear()
    learner.Adapt(batch[0])
    return {"patches": trained["patches"], "fold": trained.get("fold", 0), "adapting": backend.calls["patches"]}


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, pytest.param({"UseFirstOrder": True}, marks=pytest.mark.slow)])
def test_the_part_that_stays_is_worked_through_once(options: dict[str, Any]) -> None:
    """Whatever the number of inner steps."""
    assert calls_of(1, **options) == calls_of(6, **options)
    assert calls_of(3, **options)["adapting"] == 1


def test_batches_of_different_sizes_have_features_of_their_own() -> None:
    backend, network = get_backend("numpy"), TanhNetwork()
    x, y, *query = network.sets(1)[0]
    task = MetaLearningTask(
        SupportSetX=[x[:2], x[2:3], x[3:]],
        SupportSetY=[y[:2], y[2:3], y[3:]],
        QuerySetX=query[0],
        QuerySetY=query[1],
    )
    made = ANILOptions(network.model(backend, network.start()), AdaptedLayers=["w2"], AdaptationSteps=4)
    learner, theta, moving = ANILAlgorithm(made), network.start(), np.zeros(13)
    moving[9:12] = 1
    phi = theta
    for piece in (slice(0, 2), slice(2, 3), slice(3, 6), slice(0, 2)):
        phi = phi - 0.01 * moving * network.gradient(phi, x[piece], y[piece])
    adapted: Any = learner.Adapt(task)
    np.testing.assert_allclose(adapted.GetParameters(), phi, rtol=1e-12)
    np.testing.assert_array_equal(adapted.GetParameters()[moving == 0], theta[moving == 0])
    assert float(learner.MetaTrain(TaskBatch([task]))) == pytest.approx(network.loss(phi, *query), rel=1e-12)
    assert np.isfinite(learner.Evaluate(batch_of(backend, network.sets(2))))
