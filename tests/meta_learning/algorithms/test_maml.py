"""MAML: its meta-gradient is the derivative of the whole procedure, whatever the inner steps are and however kept."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from imaml_reference import batch_on, linear_model, linear_tasks, sgd, start
from numpy_doubles import Threads
from plain_models import HandWrittenModel
from plain_optimizers import Decaying, Halving
from small_learners import sinusoid_learner
from tanh_network import TanhNetwork, Values, batch_of
from task_batches import in_batches
from whole_procedure import OPTIMIZERS, adapted, derivative, meta_gradient, split

import aidotnet_py
from aidotnet_py import (
    AdamOptimizer,
    ArgumentException,
    CrossEntropyLoss,
    FunctionModel,
    InvalidOperationException,
    MAMLAlgorithm,
    MAMLOptions,
    MetaLearningAlgorithmType,
    MetaLearningTask,
    NeuralNetworkModel,
    SGDOptimizer,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.autodiff.execution import Call
from aidotnet_py.backends import Backend, NumPyBackend, get_backend
from aidotnet_py.meta_learning.inner.path import InnerPath, segment_starts
from aidotnet_py.meta_learning.learner.tasks import Tasks
from aidotnet_py.nn import Conv2D, Dense, Flatten, Sequential, Tanh
from aidotnet_py.optimizers import ElementwiseOptimizer
from aidotnet_py.testing.learner_state import bits, untouched

REGRESSION, CLASSIFICATION = TanhNetwork(), TanhNetwork(outputs=3, classify=True)


def found_by(network: TanhNetwork, backend: Backend, batch: TaskBatch[Any, Any, Any], **options: Any) -> Values:
    model = network.model(backend, network.start())
    return meta_gradient(MAMLAlgorithm, MAMLOptions(model, InnerLearningRate=0.1, **options), batch)


def expected_of(
    network: TanhNetwork, sets: Sequence[tuple[Values, ...]], steps: int, name: str, strength: float = 0.0
) -> Values:
    def query_loss(theta: Values) -> Any:
        return np.mean(
            [
                network.loss(adapted(network, theta, [(x, y)], steps, OPTIMIZERS[name][1](), strength=strength), *query)
                for x, y, *query in sets
            ]
        )

    return derivative(query_loss, network.start())


@pytest.mark.numpy_first
class TestDerivativeOfTheWholeProcedure:
    @pytest.mark.costly
    @pytest.mark.parametrize("strength", [None, 1.5])
    @pytest.mark.parametrize("steps", [1, 6])
    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_by_complex_steps(self, backend: Backend, name: str, steps: int, strength: float | None) -> None:
        network, sets = REGRESSION, REGRESSION.sets(2)
        expected = expected_of(network, sets, steps, name, strength or 0.0)
        assert np.linalg.norm(expected) > 1e-2
        options: dict[str, Any] = {"AdaptationSteps": steps, "InnerOptimizer": OPTIMIZERS[name][0]()}
        if strength is not None:
            options |= {"InnerObjective": "proximal", "LambdaRegularization": 1 / strength}
        found = found_by(network, backend, batch_of(backend, sets), **options)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize("name", ["the default", "adam"])
    def test_of_a_classifier(self, backend: Backend, name: str) -> None:
        network, sets = CLASSIFICATION, CLASSIFICATION.sets(3)
        found = found_by(
            network, backend, batch_of(backend, sets), AdaptationSteps=4, InnerOptimizer=OPTIMIZERS[name][0]()
        )
        np.testing.assert_allclose(found, expected_of(network, sets, 4, name), rtol=1e-10, atol=1e-12)

    @pytest.mark.costly
    @pytest.mark.parametrize("name", ["the default", "momentum", "adam"])
    def test_of_a_convolutional_network_by_central_differences(self, backend: Backend, name: str) -> None:
        network = Sequential(Conv2D(2, 3, padding="valid"), Tanh(), Flatten(), Dense(2))
        generator = np.random.default_rng(0)
        images = [(generator.standard_normal((n, 4, 4, 1)), np.arange(n) % 2) for n in (4, 2, 4, 2)]
        batch = batch_of(backend, [(*images[0], *images[1]), (*images[2], *images[3])])
        model = NeuralNetworkModel(
            network, input_shape=(4, 4, 1), loss=CrossEntropyLoss(), dtype=np.float64, backend=backend, seed=3
        )
        options = MAMLOptions(model, AdaptationSteps=5, InnerLearningRate=0.1, InnerOptimizer=OPTIMIZERS[name][0]())
        found, learner = meta_gradient(MAMLAlgorithm, options, batch), MAMLAlgorithm(options)
        theta, h = backend.to_numpy(model.GetParameters()), 1e-5

        def procedure(point: Values) -> float:
            model.SetParameters(backend.asarray(point))
            return float(learner.Evaluate(batch))

        for direction in generator.standard_normal((2, len(theta))):
            slope = (procedure(theta + h * direction) - procedure(theta - h * direction)) / (2 * h)
            assert abs(slope - found @ direction) <= 1e-6 * np.linalg.norm(found) * np.linalg.norm(direction)
            assert abs(slope) > 1e-3 * np.linalg.norm(found)

    @pytest.mark.parametrize("steps", [1, 5])
    def test_closed_form_of_least_squares(self, backend: Backend, steps: int) -> None:
        """(I − αA)^K times the query gradient."""
        theta, tasks, rate = start(), linear_tasks(), 0.2
        expected = []
        for task in tasks:
            shrunk = np.linalg.matrix_power(np.eye(4) - rate * task.support.hessian, steps)
            optimum = np.linalg.solve(task.support.hessian, task.support.pull)
            expected.append(shrunk @ task.query.gradient(optimum + shrunk @ (theta - optimum)))
        options = MAMLOptions(linear_model(backend, theta), AdaptationSteps=steps, InnerLearningRate=rate)
        found = meta_gradient(MAMLAlgorithm, options, batch_on(backend, tasks))
        np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=1e-12, atol=1e-14)

    def test_of_a_model_with_gradients_alone(self) -> None:
        """Products are central differences there."""
        backend, network, sets = get_backend("numpy"), REGRESSION, REGRESSION.sets(2)
        model: Any = HandWrittenModel(network, network.start(), backend)
        options = MAMLOptions(model, InnerLearningRate=0.1, AdaptationSteps=3)
        learner = MAMLAlgorithm(options)
        options.MetaOptimizer, options.GradientClipThreshold = SGDOptimizer(1.0), None
        learner.MetaTrain(batch_of(backend, sets))
        found = network.start() - model.GetParameters()
        np.testing.assert_allclose(found, expected_of(network, sets, 3, "the default"), rtol=1e-6, atol=1e-8)

    def test_in_single_precision(self) -> None:
        backend, network, sets = get_backend("numpy"), REGRESSION, REGRESSION.sets(2)
        model = network.model(backend, network.start(), np.float32)
        options = MAMLOptions(model, InnerLearningRate=0.1, AdaptationSteps=3)
        found = meta_gradient(MAMLAlgorithm, options, batch_of(backend, sets, np.float32))
        expected = expected_of(network, sets, 3, "the default")
        assert found.dtype == np.float32
        assert np.linalg.norm(found - expected) <= 1e-4 * np.linalg.norm(expected)


class TestSegments:
    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["the default", "momentum", "adam"])
    @pytest.mark.parametrize("batches", [1, 3])
    def test_the_bits_are_the_same(self, name: str, batches: int) -> None:
        backend, network, steps = get_backend("numpy"), CLASSIFICATION, 5
        batch = in_batches(backend, network.sets(2), batches)
        whole = found_by(network, backend, batch, AdaptationSteps=steps, InnerOptimizer=OPTIMIZERS[name][0]())
        for segments in (*range(1, steps + 1), "sqrt", np.int64(2)):
            other = found_by(
                network,
                backend,
                batch,
                AdaptationSteps=steps,
                CheckpointSegments=segments,
                InnerOptimizer=OPTIMIZERS[name][0](),
            )
            np.testing.assert_array_equal(other, whole)

    @pytest.mark.slow
    @pytest.mark.parametrize("steps", [1, 2, 5, 16])
    def test_what_is_kept_and_what_is_made_again(self, steps: int) -> None:
        """S − 1 + ⌈K/S⌉ states, and no step twice but those of the segments before the last."""
        backend, network = NumPyBackend(compiled=False), REGRESSION
        for segments in (None, "sqrt", *range(1, steps + 1)):
            learner = MAMLAlgorithm(MAMLOptions(network.model(backend, network.start()), AdaptationSteps=steps))
            chunk = learner._open(list(batch_of(backend, network.sets(2))), "Support")[0].part(0, 2, 0)
            loop = Tasks(chunk, learner).loop()
            evaluated: list[int] = []
            evaluate = loop.work.step

            def counted(step: int, evaluated: list[int] = evaluated, evaluate: Any = evaluate) -> Call:
                return Call(lambda: (evaluated.append(step), evaluate(step).rehearse()))

            loop.work = replace(loop.work, step=counted)
            path = InnerPath(loop, segments)
            assert loop.taken == steps
            assert evaluated == list(range(steps))
            path.pull_back(backend.asarray(loop.points))
            lengths = np.diff([*segment_starts(steps, segments), steps])
            assert len(evaluated) == steps + sum(lengths[:-1] - 1)
            kept = [states.arrays[0].shape[0] for states in (path._work.segments, path._work.inside)]
            assert kept == [len(lengths) - 1, max(lengths)]

    def test_where_they_begin(self) -> None:
        assert segment_starts(9, "sqrt") == [0, 3, 6]
        assert segment_starts(10, "sqrt") == [0, 2, 5, 7]
        assert segment_starts(3, None) == [0]
        assert segment_starts(5, 1) == [0]
        for steps in range(1, 30):
            for segments in range(1, steps + 1):
                lengths = np.diff([*segment_starts(steps, segments), steps])
                assert len(lengths) == segments
                assert lengths.min() >= lengths.max() - 1 >= 0

    @pytest.mark.parametrize("segments", [0, 6, -1, "cube", 1.5, True, [2], np.arange(3)])
    def test_impossible_ones(self, segments: Any) -> None:
        options = MAMLOptions(REGRESSION.model(get_backend("numpy"), REGRESSION.start()), CheckpointSegments=segments)
        assert not options.IsValid()
        with pytest.raises(
            ArgumentException,
            match=r"^CheckpointSegments must be None, 'sqrt' or a whole number from 1 to AdaptationSteps, 5, got .*$",
        ):
            MAMLAlgorithm(options)


@pytest.mark.numpy_first
class TestSupportBatches:
    @pytest.mark.costly
    @pytest.mark.parametrize("name", ["the default", "adam"])
    @pytest.mark.parametrize("steps", [3, 5])
    def test_each_step_looks_at_the_next_and_then_from_the_first_again(
        self, backend: Backend, steps: int, name: str
    ) -> None:
        network, sets = REGRESSION, REGRESSION.sets(2)

        def query_loss(theta: Values) -> Any:
            return np.mean(
                [
                    network.loss(adapted(network, theta, split((x, y), 3), steps, OPTIMIZERS[name][1]()), *query)
                    for x, y, *query in sets
                ]
            )

        found = found_by(
            network,
            backend,
            in_batches(backend, sets, 3),
            AdaptationSteps=steps,
            InnerOptimizer=OPTIMIZERS[name][0](),
        )
        np.testing.assert_allclose(found, derivative(query_loss, network.start()), rtol=1e-10, atol=1e-12)

    def test_of_different_sizes(self, backend: Backend) -> None:
        network, (x, y, *query) = REGRESSION, REGRESSION.sets(1)[0]
        pieces = [(x[:1], y[:1]), (x[1:], y[1:])]
        task = MetaLearningTask(
            SupportSetX=[backend.asarray(p) for p, _ in pieces],
            SupportSetY=[backend.asarray(p) for _, p in pieces],
            QuerySetX=backend.asarray(query[0]),
            QuerySetY=backend.asarray(query[1]),
        )

        def query_loss(theta: Values) -> Any:
            return network.loss(adapted(network, theta, pieces, 5, OPTIMIZERS["the default"][1]()), *query)

        found = found_by(network, backend, TaskBatch([task]), AdaptationSteps=5)
        np.testing.assert_allclose(found, derivative(query_loss, network.start()), rtol=1e-10, atol=1e-12)

    def test_equal_batches_are_as_one(self) -> None:
        backend, network = get_backend("numpy"), CLASSIFICATION
        sets = network.sets(2)
        one = found_by(network, backend, batch_of(backend, sets), AdaptationSteps=4)
        doubled = [(np.tile(x, (3, 1)), np.tile(y, 3), *query) for x, y, *query in sets]
        found = found_by(network, backend, in_batches(backend, doubled, 3), AdaptationSteps=4)
        np.testing.assert_array_equal(found, one)

    def test_no_more_than_steps(self, backend: Backend) -> None:
        learner = MAMLAlgorithm(MAMLOptions(REGRESSION.model(backend, REGRESSION.start()), AdaptationSteps=2))
        batch = in_batches(backend, REGRESSION.sets(2), 3)
        wanted = r"of task 0 must have at most one batch for each of the 2 inner steps, got 3 batches"
        for call in (learner.MetaTrain, learner.Evaluate, lambda b: learner.Adapt(b[0])):
            with untouched(learner), pytest.raises(ArgumentException, match=wanted):
                call(batch)


class TestFirstOrder:
    @pytest.mark.parametrize("name", ["the default", "momentum", "adam"])
    def test_it_is_the_query_gradient_after_the_steps(self, backend: Backend, name: str) -> None:
        network, sets = REGRESSION, REGRESSION.sets(3)
        expected = [
            network.gradient(adapted(network, network.start(), [(x, y)], 6, OPTIMIZERS[name][1]()), *query)
            for x, y, *query in sets
        ]
        found = found_by(
            network,
            backend,
            batch_of(backend, sets),
            AdaptationSteps=6,
            UseFirstOrder=True,
            InnerOptimizer=OPTIMIZERS[name][0](),
        )
        np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=1e-11, atol=1e-13)

    def test_any_inner_optimizer_will_do(self) -> None:
        backend, theta, sets = get_backend("numpy"), REGRESSION.start(), REGRESSION.sets(2)
        options = MAMLOptions(REGRESSION.model(backend, theta), InnerOptimizer=Halving(), UseFirstOrder=True)
        found = meta_gradient(MAMLAlgorithm, options, batch_of(backend, sets))
        ends = [adapted(REGRESSION, theta, [(x, y)], 5, sgd(0.05)) for x, y, *_ in sets]
        expected = [REGRESSION.gradient(phi, *query) for phi, (_, _, *query) in zip(ends, sets, strict=True)]
        np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=1e-11, atol=1e-13)


@pytest.mark.slow
def test_implicit_gradients_tend_to_it_as_the_inner_problem_converges(backend: Backend) -> None:
    network, sets = REGRESSION, REGRESSION.sets(2)
    shared = {"InnerLearningRate": 0.1, "LambdaRegularization": 0.2, "InnerObjective": "proximal"}
    errors = []
    for steps in (4, 16, 120):
        batch, model = batch_of(backend, sets), network.model(backend, network.start())
        through = meta_gradient(MAMLAlgorithm, MAMLOptions(model, AdaptationSteps=steps, **shared), batch)
        options = iMAMLOptions(
            model,
            AdaptationSteps=steps,
            ConjugateGradientIterations=60,
            ConjugateGradientTolerance=1e-14,
            **shared,  # type: ignore[arg-type]  # of several types
        )
        implicit = meta_gradient(iMAMLAlgorithm, options, batch)
        errors.append(np.linalg.norm(through - implicit) / np.linalg.norm(through))
    assert errors[0] > 5 * errors[1] > 25 * errors[2]
    assert errors[2] < 1e-9


def test_units_that_were_never_active_make_no_nan_of_adam() -> None:
    """Their gradients are 0 at every step, and √ has no derivative there."""
    model = FunctionModel(
        lambda p, x: np.maximum(x @ p["w"] + p["b"], 0.0) @ p["out"],
        {"w": np.ones((1, 3)), "b": np.array([0.5, -100.0, -100.0]), "out": np.ones((3, 1))},
    )
    generator = np.random.default_rng(0)
    x = generator.uniform(-1, 1, (10, 1))
    task = MetaLearningTask(SupportSetX=x[:5], SupportSetY=x[:5] ** 2, QuerySetX=x[5:], QuerySetY=x[5:] ** 2)
    options = MAMLOptions(model, InnerOptimizer=AdamOptimizer(0.01), AdaptationSteps=4)
    found = meta_gradient(MAMLAlgorithm, options, TaskBatch([task]))
    dead = np.array([False, True, True])
    np.testing.assert_array_equal(found[np.tile(dead, 3)], 0)
    learner, theta, h = MAMLAlgorithm(options), np.array(model.GetParameters()), 1e-6

    def procedure(point: Values) -> float:
        model.SetParameters(point)
        return float(learner.Evaluate(TaskBatch([task])))

    slopes = [(procedure(theta + h * e) - procedure(theta - h * e)) / (2 * h) for e in np.eye(len(theta))]
    np.testing.assert_allclose(found, slopes, rtol=1e-6, atol=1e-9)
    assert (found[np.tile(~dead, 3)] != 0).all()


class SignDescent(ElementwiseOptimizer):
    def _step(self, backend: Backend, parameters: Any, gradient: Any) -> Any:
        return parameters - self._learning_rate * backend.elementwise("sign")(gradient)


class TestInnerOptimizers:
    @pytest.mark.parametrize("optimizer", [Halving(), SignDescent(0.1)], ids=["no base", "no formula"])
    def test_steps_that_cannot_be_differentiated(self, optimizer: Any) -> None:
        model = REGRESSION.model(get_backend("numpy"), REGRESSION.start())
        options = MAMLOptions(model, InnerOptimizer=optimizer)
        assert not options.IsValid()
        message = (
            "^InnerOptimizer must be an ElementwiseOptimizer with a formula, whose steps can be differentiated, got a "
            f"{type(optimizer).__name__}; use SGDOptimizer or AdamOptimizer, or set UseFirstOrder=True"
        )
        with pytest.raises(ArgumentException, match=message):
            MAMLAlgorithm(options)
        options.UseFirstOrder = True
        learner = MAMLAlgorithm(options)
        options.UseFirstOrder = False
        with untouched(learner), pytest.raises(ArgumentException, match=message):
            learner.MetaTrain(batch_of(get_backend("numpy"), REGRESSION.sets(1)))

    def test_one_of_the_users(self, backend: Backend) -> None:
        network, sets = REGRESSION, REGRESSION.sets(2)

        def query_loss(theta: Values) -> Any:
            losses = []
            for x, y, *query in sets:
                phi, total, last = theta, np.zeros_like(theta), np.zeros_like(theta)
                for k in range(4):
                    gradient = network.gradient(phi, x, y)
                    total = 0.9 * total + gradient * last + gradient
                    phi, last = 0.9 * phi - 0.1 / (k + 1) * total, gradient
                losses.append(network.loss(phi, *query))
            return np.mean(losses)

        found = found_by(network, backend, batch_of(backend, sets), AdaptationSteps=4, InnerOptimizer=Decaying(0.1))
        np.testing.assert_allclose(found, derivative(query_loss, network.start()), rtol=1e-10, atol=1e-12)

    @pytest.mark.slow
    def test_what_is_kept_of_one_is_not_taken_for_another(self, backend: Backend) -> None:
        """Batches of two sizes and optimizers that change between steps, in one learner."""
        network, sets = REGRESSION, REGRESSION.sets(3)
        model = network.model(backend, network.start())
        options = MAMLOptions(model, AdaptationSteps=2, MetaOptimizer=SGDOptimizer(1.0), GradientClipThreshold=None)
        learner = MAMLAlgorithm(options)
        for name, count in [("adam", 3), ("momentum", 3), ("adam", 2), ("adam with other decays", 3), ("adam", 3)]:
            options.InnerOptimizer = OPTIMIZERS[name][0]()
            for _ in range(2):
                model.SetParameters(backend.asarray(network.start()))
                learner.MetaTrain(batch_of(backend, sets[:count]))
                found = network.start() - backend.to_numpy(model.GetParameters())
                expected = expected_of(network, sets[:count], 2, name)
                np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


class TestLanes:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        "options",
        [
            {},
            pytest.param({"InnerObjective": "proximal"}, marks=pytest.mark.slow),
            {"CheckpointSegments": "sqrt"},
            pytest.param({"UseFirstOrder": True}, marks=pytest.mark.slow),
        ],
    )
    @pytest.mark.parametrize("name", ["the default", "adam"])
    def test_the_split_and_the_threads_leave_the_bits_alone(
        self, name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def trained(threads: int) -> Any:
            backend = Threads(threads)
            model = CLASSIFICATION.model(backend, CLASSIFICATION.start())
            learner = MAMLAlgorithm(
                MAMLOptions(model, AdaptationSteps=3, InnerOptimizer=OPTIMIZERS[name][0](), **options)
            )
            batch = batch_of(backend, CLASSIFICATION.sets(7))
            losses = [learner.MetaTrain(batch) for _ in range(3)]
            assert learner._record is not None
            return model.GetParameters().tolist(), losses, learner._record.metrics

        whole = trained(1)
        for flops, threads in ((1, 1), (1, 2), (1, 5), (100_000, 2)):
            monkeypatch.setattr(NumPyBackend, "flops_at_once", flops)
            assert trained(threads) == whole


class TestFailures:
    @pytest.mark.parametrize("place", range(4), ids=["support x", "support y", "query x", "query y"])
    @pytest.mark.parametrize("first_order", [False, True])
    def test_data_that_are_not_numbers(self, backend: Backend, place: int, first_order: bool) -> None:
        learner = MAMLAlgorithm(
            MAMLOptions(REGRESSION.model(backend, REGRESSION.start()), UseFirstOrder=first_order, AdaptationSteps=2)
        )
        sets = REGRESSION.sets(3)
        learner.MetaTrain(batch_of(backend, sets))
        wrong = [np.array(values) for values in sets[1]]
        wrong[place][0, 0] = np.nan
        role = "support" if place < 2 else "query"
        message = rf"^the {role} loss of task 1 \(task 1\) is not finite; nothing was changed"
        with untouched(learner), pytest.raises(InvalidOperationException, match=message):
            learner.MetaTrain(batch_of(backend, [sets[0], tuple(wrong), sets[2]]))

    def test_a_curvature_that_overflows(self) -> None:
        """Losses and gradients are finite, their products with the curvature are not."""
        model = FunctionModel(lambda p, x: np.sqrt(x @ p["w"]), {"w": np.array([[1e-250]])})
        x = np.ones((2, 1))
        task = MetaLearningTask(SupportSetX=x, SupportSetY=0 * x, QuerySetX=x, QuerySetY=x, Name="steep")
        learner = MAMLAlgorithm(MAMLOptions(model, AdaptationSteps=1, InnerLearningRate=1e-260))
        with (
            untouched(learner),
            pytest.raises(InvalidOperationException, match=r"^the meta-gradient of task 0 \(steep\) is not finite"),
        ):
            learner.MetaTrain(TaskBatch([task]))

    def test_inner_steps_that_run_away(self, backend: Backend) -> None:
        learner = MAMLAlgorithm(MAMLOptions(REGRESSION.model(backend, REGRESSION.start()), InnerLearningRate=1e200))
        with untouched(learner), pytest.raises(InvalidOperationException, match=r"adapted parameter vector of task 0"):
            learner.MetaTrain(batch_of(backend, REGRESSION.sets(2)))

    def test_options_of_another_algorithm(self) -> None:
        options: Any = iMAMLOptions(REGRESSION.model(get_backend("numpy"), REGRESSION.start()))
        with pytest.raises(ArgumentException, match=r"^options must be MAMLOptions, got a iMAMLOptions$"):
            MAMLAlgorithm(options)


class TestCheckpoints:
    @pytest.mark.parametrize("optimizer", [None, AdamOptimizer(0.01)], ids=["descent", "adam"])
    def test_a_run_goes_on_bit_for_bit(self, optimizer: Any, tmp_path: Any) -> None:
        learner = sinusoid_learner(MAMLAlgorithm, MAMLOptions, InnerOptimizer=optimizer)
        for _ in range(3):
            learner.MetaTrainStep(3)
        learner.Save(tmp_path / "run")
        expected = [learner.MetaTrainStep(3).MetaLoss for _ in range(3)]
        resumed = sinusoid_learner(MAMLAlgorithm, MAMLOptions, seed=8, InnerOptimizer=optimizer)
        resumed.MetaTrainStep(2)
        resumed.Load(tmp_path / "run")
        assert resumed.CurrentIteration == 3
        assert [resumed.MetaTrainStep(3).MetaLoss for _ in range(3)] == expected

    def test_of_another_algorithm(self, tmp_path: Any) -> None:
        sinusoid_learner(iMAMLAlgorithm, iMAMLOptions).Save(tmp_path / "run")
        learner = sinusoid_learner(MAMLAlgorithm, MAMLOptions)
        with untouched(learner), pytest.raises(ArgumentException, match="algorithm is iMAML there and MAML here"):
            learner.Load(tmp_path / "run")


def test_what_is_documented() -> None:
    learner = sinusoid_learner(MAMLAlgorithm, MAMLOptions)
    assert learner.AlgorithmType is MetaLearningAlgorithmType.MAML
    options = learner.Options
    assert (options.AdaptationSteps, options.UseFirstOrder, options.CheckpointSegments) == (5, False, None)
    assert (options.InnerObjective, options.InnerLearningRate, options.OuterLearningRate) == ("support", 0.01, 0.001)
    result = learner.AdaptAndEvaluate(options.DataLoader.GetNextTask())
    assert len(result.PerStepLosses) == 6


def test_it_learns() -> None:
    learner = sinusoid_learner(
        MAMLAlgorithm, MAMLOptions, NumMetaIterations=150, OuterLearningRate=0.01, InnerLearningRate=0.05
    )
    history = learner.Train().LossHistory
    assert np.mean(history[-30:]) < 0.8 * np.mean(history[:30])


@pytest.mark.slow
@pytest.mark.costly
@pytest.mark.parametrize("name", ["MAML", "Reptile", "MetaSGD", "ANIL", "BOIL"])
def test_a_deep_copy_goes_on_by_itself(name: str) -> None:
    """With nothing shared that a step writes to; of all the family."""
    package: Any = aidotnet_py
    inner = {} if name == "MetaSGD" else {"InnerOptimizer": AdamOptimizer(0.01)}
    learner = sinusoid_learner(getattr(package, f"{name}Algorithm"), getattr(package, f"{name}Options"), **inner)
    for _ in range(2):
        learner.MetaTrainStep(3)
    twin = copy.deepcopy(learner)
    found = [[float(one.MetaTrainStep(3).MetaLoss) for _ in range(3)] for one in (learner, twin)]
    assert found[0] == found[1]
    assert bits(learner._meta_parameters()) == bits(twin._meta_parameters())
