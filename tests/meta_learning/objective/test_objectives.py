"""Task objectives: losses, gradients and curvature of the three kinds of model, and the buffers that they share."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from plain_models import BareModel, HandWrittenModel
from tanh_network import TanhNetwork, Values, apply, batch_of

from aidotnet_py import (
    ArgumentException,
    IDifferentiableModel,
    IFullModel,
    IGradientComputable,
    InvalidOperationException,
    MeanSquaredErrorLoss,
    SGDOptimizer,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.meta_learning.objective import ObjectiveFactory
from aidotnet_py.meta_learning.objective.sets import Sets

REGRESSION, CLASSIFICATION = TanhNetwork(), TanhNetwork(outputs=3, classify=True)
NETWORKS = pytest.mark.parametrize("network", [REGRESSION, CLASSIFICATION], ids=["mse", "cross-entropy"])


def make(kind: str, network: TanhNetwork, backend: Backend, phi: Values, dtype: Any = np.float64) -> Any:
    if kind == "traced":
        return network.model(backend, phi, dtype)
    return (HandWrittenModel if kind == "computed" else BareModel)(network, phi, backend, dtype)


def objective(
    model: Any, backend: Backend, sets: list[tuple[Values, ...]], dtype: Any = np.float64, *, lease: Any = None
) -> Any:
    factory, tasks = ObjectiveFactory(np.random.default_rng(0)), list(batch_of(backend, sets, dtype))
    lease = lease or factory.lease(model, model.DefaultLossFunction)
    return factory.make("Support", Sets(tasks, [""] * len(tasks)), model, model.DefaultLossFunction, lease)


def points_for(network: TanhNetwork, count: int, seed: int = 5) -> Values:
    return np.stack([network.start(seed + t) for t in range(count)])


@contextmanager
def perturbing() -> Iterator[None]:
    with pytest.warns(UserWarning, match="simultaneous perturbation"):
        yield


class TestKindsOfModel:
    def test_protocols_tell_them_apart(self) -> None:
        phi, backend = REGRESSION.start(), get_backend("numpy")
        traced, computed, bare = (make(k, REGRESSION, backend, phi) for k in ("traced", "computed", "bare"))
        assert all(isinstance(model, IFullModel) for model in (traced, computed, bare))
        assert isinstance(traced, IDifferentiableModel)
        assert not isinstance(computed, IDifferentiableModel)
        assert isinstance(computed, IGradientComputable)
        assert not isinstance(bare, IGradientComputable)

    def test_a_traced_model_by_hand_and_what_one_lacks(self, backend: Backend) -> None:
        class Traced(BareModel):
            backend = property(lambda self: self.backend_used)
            parameter_shapes = property(lambda self: self.network.shapes)

            def apply(self, parameters: Any, x: Any) -> Any:
                return apply(parameters, x)

            def check_input(self, input: Any, name: str) -> None: ...

        class Whole(Traced):
            def check_array(self, array: Any, name: str) -> None: ...

        phi, sets = REGRESSION.start(), REGRESSION.sets(2)
        points = backend.asarray(points_for(REGRESSION, 2))
        found, ours = (
            objective(model, backend, sets).curvature(points, "hessian")[1](points)
            for model in (Whole(REGRESSION, phi, backend), REGRESSION.model(backend, phi))
        )
        np.testing.assert_array_equal(backend.to_numpy(found), backend.to_numpy(ours))
        lacking = r"Traced lacks check_array of IDifferentiableModel, and ComputeGradients of IGradientComputable; its"
        with pytest.warns(UserWarning, match=lacking):
            objective(Traced(REGRESSION, phi, backend), backend, sets)

    @NETWORKS
    @pytest.mark.parametrize("kind", ["traced", "computed"])
    def test_losses_and_gradients(self, backend: Backend, network: TanhNetwork, kind: str) -> None:
        sets, points = network.sets(3), points_for(network, 3)
        found = objective(make(kind, network, backend, network.start()), backend, sets)
        losses, gradients = (backend.to_numpy(a) for a in found.evaluate(backend.asarray(points)))
        pairs = list(zip(points, sets, strict=True))
        np.testing.assert_allclose(losses, [network.loss(p, s[0], s[1]) for p, s in pairs], rtol=1e-13)
        np.testing.assert_allclose(
            gradients, [network.gradient(p, s[0], s[1]) for p, s in pairs], rtol=1e-12, atol=1e-14
        )
        if network.classify:
            guessed = [np.argmax(network.predictions(p, s[0]), axis=1) for p, s in pairs]
            np.testing.assert_allclose(
                found.accuracies(), [np.mean(g == s[1]) for g, s in zip(guessed, sets, strict=True)]
            )
        else:
            assert np.isnan(found.accuracies()).all()

    @NETWORKS
    @pytest.mark.parametrize("kind", ["hessian", "gauss-newton"])
    def test_traced_curvature_is_exact(self, backend: Backend, network: TanhNetwork, kind: str) -> None:
        sets, points = network.sets(2), points_for(network, 2)
        found = objective(make("traced", network, backend, network.start()), backend, sets)
        gradients, product = found.curvature(backend.asarray(points), kind)
        dense = [
            (network.hessian if kind == "hessian" else network.gauss_newton)(p, s[0], s[1])
            for p, s in zip(points, sets, strict=True)
        ]
        np.testing.assert_allclose(
            backend.to_numpy(gradients),
            [network.gradient(p, s[0], s[1]) for p, s in zip(points, sets, strict=True)],
            rtol=1e-12,
            atol=1e-14,
        )
        for v in np.random.default_rng(0).standard_normal((3, *points.shape)):
            expected = [h @ row for h, row in zip(dense, v, strict=True)]
            result = backend.to_numpy(product(backend.asarray(v)))
            np.testing.assert_allclose(result, expected, rtol=1e-11, atol=1e-13)

    @NETWORKS
    @pytest.mark.parametrize("dtype", [np.float64, np.float32])
    @pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
    def test_differences_of_gradients_come_close(
        self, backend: Backend, network: TanhNetwork, dtype: Any, size: float
    ) -> None:
        """To eps^(2/3) times the scale of the problem, whatever the vector's length."""
        sets, points = network.sets(2), points_for(network, 2)
        found = objective(make("computed", network, backend, network.start(), dtype), backend, sets, dtype)
        _, product = found.curvature(backend.asarray(points, dtype), "hessian")
        v = size * np.random.default_rng(0).standard_normal(points.shape)
        result = backend.to_numpy(product(backend.asarray(v, dtype)))
        assert result.dtype == dtype
        for row, p, s, direction in zip(result, points, sets, v, strict=True):
            error = np.linalg.norm(row - network.hessian(p, s[0], s[1]) @ direction)
            assert error <= 100 * float(np.finfo(dtype).eps) ** (2 / 3) * np.linalg.norm(direction)

    @pytest.mark.parametrize(("dtype", "size"), [(np.float16, 1e-6), (np.float32, 1e-41)])
    def test_differences_along_vectors_at_the_ends_of_the_precision(
        self, backend: Backend, dtype: Any, size: float
    ) -> None:
        # The step ε/‖v‖ was infinite: the product was NaN, or 0 for a part of the vector.
        sets, points = REGRESSION.sets(1), points_for(REGRESSION, 1)
        found = objective(make("computed", REGRESSION, backend, REGRESSION.start(), dtype), backend, sets, dtype)
        _, product = found.curvature(backend.asarray(points, dtype), "hessian")
        v = size * np.sign(np.random.default_rng(0).standard_normal(points.shape))
        result = backend.to_numpy(product(backend.asarray(v, dtype))) / size
        expected = REGRESSION.hessian(points[0], *sets[0][:2]) @ (v[0] / size)
        np.testing.assert_allclose(result[0], expected, rtol=0, atol=0.2 * np.abs(expected).max())

    def test_differences_along_no_direction_are_zero(self, backend: Backend) -> None:
        found = objective(make("computed", REGRESSION, backend, REGRESSION.start()), backend, REGRESSION.sets(2))
        points = backend.asarray(points_for(REGRESSION, 2))
        _, product = found.curvature(points, "hessian")
        np.testing.assert_array_equal(backend.to_numpy(product(points - points)), 0)

    def test_computed_gradients_that_do_not_fit_are_told(self, backend: Backend) -> None:
        class Column(HandWrittenModel):
            def ComputeGradients(self, input: Any, target: Any, lossFunction: Any = None) -> Any:
                gradient = super().ComputeGradients(input, target, lossFunction)
                return backend.reshape(gradient, (*gradient.shape, 1))

        found = objective(Column(REGRESSION, REGRESSION.start(), backend), backend, REGRESSION.sets(1))
        wanted = r"ComputeGradients of Column must be float64\(13,\) on backend .*, got float64\(13, 1\) on backend "
        with pytest.raises(ArgumentException, match=wanted):
            found.evaluate(backend.asarray(points_for(REGRESSION, 1)))


@pytest.mark.numpy_first
class TestPerturbation:
    def test_few_parameters_have_gradients_without_noise(self, backend: Backend) -> None:
        network = TanhNetwork(1, 2)  # 7 parameters
        sets, points = network.sets(2), points_for(network, 2)
        with perturbing():
            found = objective(make("bare", network, backend, network.start()), backend, sets)
        losses, gradients = (backend.to_numpy(a) for a in found.evaluate(backend.asarray(points)))
        expected = [network.gradient(p, s[0], s[1]) for p, s in zip(points, sets, strict=True)]
        np.testing.assert_allclose(gradients, expected, atol=1e-8)
        np.testing.assert_allclose(losses, [network.loss(p, *s[:2]) for p, s in zip(points, sets, strict=True)])

    @pytest.mark.slow
    @pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-6), (np.float32, 2e-2)])
    def test_and_curvature(self, backend: Backend, dtype: Any, bound: float) -> None:
        network = TanhNetwork(1, 2)
        sets, points = network.sets(2), points_for(network, 2)
        with perturbing():
            found = objective(make("bare", network, backend, network.start(), dtype), backend, sets, dtype)
        _, product = found.curvature(backend.asarray(points, dtype), "hessian")
        v = np.random.default_rng(0).standard_normal(points.shape)
        expected = [network.hessian(p, s[0], s[1]) @ row for p, s, row in zip(points, sets, v, strict=True)]
        np.testing.assert_allclose(backend.to_numpy(product(backend.asarray(v, dtype))), expected, atol=bound)

    @pytest.mark.slow
    def test_many_parameters_have_gradients_right_on_average(self) -> None:
        network, backend = TanhNetwork(2, 8, 2), get_backend("numpy")  # 42 parameters
        sets, points = network.sets(1), points_for(network, 1)
        with perturbing():
            found = objective(make("bare", network, backend, network.start()), backend, sets)
        exact = network.gradient(points[0], sets[0][0], sets[0][1])
        draws = np.stack([found.evaluate(points).gradients[0] for _ in range(150)])
        relative = np.linalg.norm(draws - exact, axis=1) / np.linalg.norm(exact)
        # The squared error of one draw is (P/M − 1)‖g‖² on average.
        assert np.mean(relative**2) == pytest.approx(42 / 16 - 1, rel=0.15)
        assert np.linalg.norm(draws.mean(axis=0) - exact) < 0.25 * np.linalg.norm(exact)

    @pytest.mark.slow
    def test_its_curvature_is_one_symmetric_operator_for_a_solve(self) -> None:
        network, backend = TanhNetwork(2, 8, 2), get_backend("numpy")
        sets, points = network.sets(1), points_for(network, 1)
        with perturbing():
            found = objective(make("bare", network, backend, network.start()), backend, sets)
        _, product = found.curvature(points, "hessian")
        matrix = np.stack([product(e[None])[0] for e in np.eye(points.shape[1])])
        assert np.abs(matrix - matrix.T).max() < 1e-5 * np.abs(matrix).max()
        assert np.linalg.matrix_rank(matrix, tol=1e-4 * np.abs(matrix).max()) <= 16

    def test_equal_generators_draw_equal_directions(self, backend: Backend) -> None:
        network = TanhNetwork(3, 4)

        def gradients() -> Values:
            with perturbing():
                found = objective(make("bare", network, backend, network.start()), backend, network.sets(1))
            return backend.to_numpy(found.evaluate(backend.asarray(points_for(network, 1))).gradients)

        np.testing.assert_array_equal(gradients(), gradients())


# One step of each kind is taken by the test below.
@pytest.mark.numpy_first
@pytest.mark.parametrize("kind", ["traced", "computed", pytest.param("bare", marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_every_kind_trains(backend: Backend, kind: str, dtype: Any) -> None:
    network = TanhNetwork(1, 2)
    model = make(kind, network, backend, network.start(), dtype)
    batch = batch_of(backend, network.sets(2), dtype)
    options = iMAMLOptions.FromPaper(
        model,
        Lambda=4.0,
        AdaptationSteps=2,
        InnerLearningRate=0.05,
        MetaOptimizer=SGDOptimizer(0.1),
        ConjugateGradientIterations=2,
        RandomSeed=1,
    )
    learner = iMAMLAlgorithm(options)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        before = learner.Evaluate(batch)
        losses = [learner.MetaTrain(batch) for _ in range(6)]
        adapted = learner.Adapt(batch[0])
    assert [w.category for w in told] == ([UserWarning] if kind == "bare" else [])
    assert losses[-1] < 0.9 * before
    assert isinstance(losses[-1], dtype)
    assert type(adapted) is type(model)
    assert learner.AdaptAndEvaluate(batch[0]).SupportLoss < 1.1 * learner.AdaptAndEvaluate(batch[0]).PerStepLosses[0]


@pytest.mark.slow
@pytest.mark.numpy_first
def test_the_three_kinds_agree_where_gradients_have_no_noise(backend: Backend) -> None:
    network, found = TanhNetwork(1, 2), {}
    for kind in ("traced", "computed", "bare"):
        model = make(kind, network, backend, network.start())
        learner = iMAMLAlgorithm(
            iMAMLOptions.FromPaper(model, Lambda=4.0, AdaptationSteps=3, MetaOptimizer=SGDOptimizer(0.1))
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            learner.MetaTrain(batch_of(backend, network.sets(2)))
        found[kind] = backend.to_numpy(model.GetParameters())
    np.testing.assert_allclose(found["computed"], found["traced"], atol=1e-8)
    np.testing.assert_allclose(found["bare"], found["traced"], atol=1e-6)


class TestSharedBuffers:
    """Objectives of one signature share programs; none may see another's examples, points or results."""

    def two(self, backend: Backend) -> tuple[Any, Any, list[Any]]:
        model = CLASSIFICATION.model(backend, CLASSIFICATION.start())
        lease = ObjectiveFactory(np.random.default_rng(0)).lease(model, model.DefaultLossFunction)
        sets = [CLASSIFICATION.sets(2, seed) for seed in (1, 2)]
        first, second = (objective(model, backend, s, lease=lease) for s in sets)
        return first, second, sets

    def expected(self, points: Values, sets: list[Any]) -> Values:
        return np.array([CLASSIFICATION.gradient(p, s[0], s[1]) for p, s in zip(points, sets, strict=True)])

    def test_evaluations_in_turn(self, backend: Backend) -> None:
        first, second, sets = self.two(backend)
        points = points_for(CLASSIFICATION, 2)
        for _ in range(2):
            for found, own in ((first, sets[0]), (second, sets[1])):
                gradients = backend.to_numpy(found.evaluate(backend.asarray(points)).gradients)
                np.testing.assert_allclose(gradients, self.expected(points, own), rtol=1e-11, atol=1e-13)

    def test_accuracies_are_of_the_objective_asked_or_refused(self, backend: Backend) -> None:
        first, second, _ = self.two(backend)
        near, far = (backend.asarray(points_for(CLASSIFICATION, 2, seed)) for seed in (5, 41))
        first.evaluate(near)
        expected = first.accuracies()
        second.evaluate(far)
        assert second.accuracies() != expected
        with pytest.raises(InvalidOperationException, match="got other work on its buffers in between"):
            first.accuracies()
        first.evaluate(near)
        assert first.accuracies() == expected

    @pytest.mark.parametrize(
        "disturbance", ["evaluate", "curvature", "other evaluate", "other curvature", "other kind"]
    )
    def test_products_in_turn_with_anything_else(self, backend: Backend, disturbance: str) -> None:
        first, second, _ = self.two(backend)
        here, there = (backend.asarray(points_for(CLASSIFICATION, 2, seed)) for seed in (5, 50))
        v = backend.asarray(np.random.default_rng(1).standard_normal(points_for(CLASSIFICATION, 2).shape))
        _, product = first.curvature(here, "hessian")
        expected = np.array(backend.to_numpy(product(v)))
        if disturbance == "evaluate":
            first.evaluate(there)
        elif disturbance == "curvature":
            moved = first.curvature(there, "hessian")[1](v)
            alone = self.two(backend)[0].curvature(there, "hessian")[1](v)
            np.testing.assert_array_equal(backend.to_numpy(moved), backend.to_numpy(alone))
        elif disturbance == "other evaluate":
            second.evaluate(there)
        elif disturbance == "other curvature":
            second.curvature(there, "hessian")[1](v)
        else:
            first.curvature(there, "gauss-newton")[1](v)
        np.testing.assert_array_equal(backend.to_numpy(product(v)), expected)

    def test_support_and_query_sets_of_one_shape(self, backend: Backend) -> None:
        model = CLASSIFICATION.model(backend, CLASSIFICATION.start())
        sets = [(x[:4], y[:4], qx, qy) for x, y, qx, qy in CLASSIFICATION.sets(2)]
        factory, tasks = ObjectiveFactory(np.random.default_rng(0)), list(batch_of(backend, sets))
        loss = model.DefaultLossFunction
        lease = factory.lease(model, loss)
        support, query = (
            factory.make(role, Sets(tasks, [""] * len(tasks)), model, loss, lease) for role in ("Support", "Query")
        )
        points = points_for(CLASSIFICATION, 2)
        gradients = support.evaluate(backend.asarray(points)).gradients
        query.evaluate(backend.asarray(points))
        np.testing.assert_allclose(backend.to_numpy(gradients), self.expected(points, sets), rtol=1e-11, atol=1e-13)

    def test_losses_without_a_hash_and_equal_losses_of_different_formula(self, backend: Backend) -> None:
        @dataclass
        class Scaled(MeanSquaredErrorLoss[Any]):
            factor: float

            def formula(self, predicted: Any, actual: Any) -> Any:
                return self.factor * super().formula(predicted, actual)

            def __eq__(self, other: object) -> bool:
                return isinstance(other, Scaled)

        assert Scaled.__hash__ is None
        model = REGRESSION.model(backend, REGRESSION.start())
        factory, tasks = ObjectiveFactory(np.random.default_rng(0)), list(batch_of(backend, REGRESSION.sets(2)))
        points = backend.asarray(points_for(REGRESSION, 2))
        lease = factory.lease(model, model.DefaultLossFunction)
        once, thrice = (
            np.array(
                backend.to_numpy(
                    factory.make("Support", Sets(tasks, [""] * len(tasks)), model, loss, lease).evaluate(points).losses
                )
            )
            for loss in (Scaled(1.0), Scaled(3.0))
        )
        np.testing.assert_allclose(thrice, 3 * once)

    def evaluate(self, factory: ObjectiveFactory, count: int = 2, model: Any = None) -> None:
        """One call with so many tasks."""
        model = model or REGRESSION.model(get_backend("numpy"), REGRESSION.start())
        lease = factory.lease(model, model.DefaultLossFunction)
        with lease:
            found = objective(model, get_backend("numpy"), REGRESSION.sets(count), lease=lease)
            found.evaluate(points_for(REGRESSION, count))

    def test_an_objective_that_outlives_its_call_gets_other_buffers(self) -> None:
        backend = get_backend("numpy")
        factory, model = ObjectiveFactory(np.random.default_rng(0)), REGRESSION.model(backend, REGRESSION.start())
        lease, points = factory.lease(model, model.DefaultLossFunction), points_for(REGRESSION, 2)
        with lease:
            found = objective(model, backend, REGRESSION.sets(2), lease=lease)
            expected = found.evaluate(points).gradients.copy()
            lent = found.bind()
        later = factory.lease(model, model.DefaultLossFunction)
        with later:
            assert objective(model, backend, REGRESSION.sets(2), lease=later).bind() is lent
            with pytest.raises(InvalidOperationException, match="got other work on its buffers in between"):
                found.accuracies()
            np.testing.assert_array_equal(found.evaluate(points).gradients, expected)
            assert found.bind() is not lent

    def test_programs_of_a_model_do_not_outlive_its_use(self) -> None:
        factory = ObjectiveFactory(np.random.default_rng(0))
        model = REGRESSION.model(get_backend("numpy"), REGRESSION.start())
        self.evaluate(factory, model=model)
        gone = weakref.ref(model)
        del model
        self.evaluate(factory)
        gc.collect()
        assert gone() is None

    def kept(self, factory: ObjectiveFactory) -> list[int]:
        (workspace,) = factory._workspaces._idle
        return [place.tasks for place in workspace.places]

    @pytest.mark.slow
    def test_few_programs_are_kept(self) -> None:
        factory = ObjectiveFactory(np.random.default_rng(0))
        model = REGRESSION.model(get_backend("numpy"), REGRESSION.start())
        for count in range(1, 40):
            self.evaluate(factory, count, model)
        assert self.kept(factory) == list(range(8, 40))

    def test_fewer_that_are_not_small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("aidotnet_py.meta_learning.objective.buffers._SMALL_BYTES", 1)
        factory = ObjectiveFactory(np.random.default_rng(0))
        model = REGRESSION.model(get_backend("numpy"), REGRESSION.start())
        for count in range(1, 15):
            self.evaluate(factory, count, model)
        assert self.kept(factory) == list(range(7, 15))

    def test_fewer_of_large_ones(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("aidotnet_py.meta_learning.objective.buffers._MOST_BYTES", 1)
        factory = ObjectiveFactory(np.random.default_rng(0))
        model = REGRESSION.model(get_backend("numpy"), REGRESSION.start())
        for count in range(1, 6):
            self.evaluate(factory, count, model)
        assert self.kept(factory) == [4, 5]


def test_padded_sets_keep_their_loss_when_another_call_has_another() -> None:
    class Doubled(MeanSquaredErrorLoss[Any]):
        def formula(self, predicted: Any, actual: Any) -> Any:
            return 2 * super().formula(predicted, actual)

    backend = get_backend("numpy")
    model, tasks = REGRESSION.model(backend, REGRESSION.start()), list(batch_of(backend, REGRESSION.sets(2)))
    factory, points = ObjectiveFactory(np.random.default_rng(0)), points_for(REGRESSION, 2)
    plain, doubled = MeanSquaredErrorLoss[Any](), Doubled()

    def losses(size: int | None, between: Any = None) -> Any:
        lease = factory.lease(model, plain)
        if between is not None:
            # As a thread does that evaluates by the loss that the options have by now.
            factory.lease(model, between)
        made = factory.make("Support", Sets(tasks, ["", ""]), model, plain, lease, size=size)
        return np.array(made.part(0, 2, 0).evaluate(points).losses)

    np.testing.assert_allclose(losses(64, doubled), losses(None), rtol=1e-12)
