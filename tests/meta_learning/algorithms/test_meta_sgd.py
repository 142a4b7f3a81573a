"""Meta-SGD: exact gradients of the start and of the rates, rates within their bounds, saved and put back with θ."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy_doubles import Threads
from plain_models import HandWrittenModel
from small_learners import sinusoid_learner
from tanh_network import TanhNetwork, Values, batch_of
from task_batches import in_batches
from whole_procedure import adapted, derivative, meta_gradient, split

from aidotnet_py import (
    AdamOptimizer,
    ArgumentException,
    InvalidOperationException,
    MAMLAlgorithm,
    MAMLOptions,
    MetaLearningAlgorithmType,
    MetaSGDAlgorithm,
    MetaSGDOptions,
    NeuralNetworkModel,
    SGDOptimizer,
)
from aidotnet_py.backends import Backend, NumPyBackend, get_backend
from aidotnet_py.nn import mlp
from aidotnet_py.testing.learner_state import bits, untouched

REGRESSION, CLASSIFICATION = TanhNetwork(), TanhNetwork(outputs=3, classify=True)
NUMPY = get_backend("numpy")


def rates_of(network: TanhNetwork) -> Values:
    """Rates that differ from parameter to parameter."""
    return np.random.default_rng(7).uniform(0.02, 0.2, len(network.start()))


def with_rates(
    network: TanhNetwork, backend: Backend, dtype: Any = np.float64, **options: Any
) -> MetaSGDAlgorithm[Any, Any, Any]:
    settings = {"MetaOptimizer": SGDOptimizer(1.0), "GradientClipThreshold": None, "MinLearningRate": 1e-300}
    settings |= {"MaxLearningRate": 1e300} | options
    learner = MetaSGDAlgorithm(MetaSGDOptions(network.model(backend, network.start(), dtype), **settings))  # type: ignore[arg-type]  # of several types
    learner._values._vectors = {"rates": backend.asarray(rates_of(network), dtype)}
    return learner


def gradients_of(learner: MetaSGDAlgorithm[Any, Any, Any], batch: Any) -> Values:
    """Of θ and α, one after another; the bounds must not have been met."""
    backend: Backend = learner._backend
    seen: list[Any] = []
    update = learner._meta_update
    learner._meta_update = lambda mean: seen.append(backend.to_numpy(mean)) or update(mean)  # type: ignore[method-assign,func-returns-value]
    learner.MetaTrain(batch)
    return np.asarray(seen[0])


def procedure(network: TanhNetwork, sets: Any, steps: int, batches: int = 1) -> Any:
    """θ and α one after another ↦ the mean query loss."""

    def query_loss(both: Values) -> Any:
        theta, rates = np.split(both, 2)

        def descend(phi: Values, gradient: Values, t: int) -> Values:
            return phi - rates * gradient

        return np.mean(
            [
                network.loss(adapted(network, theta, split((x, y), batches), steps, descend), *query)
                for x, y, *query in sets
            ]
        )

    return query_loss


@pytest.mark.numpy_first
class TestDerivatives:
    @pytest.mark.costly
    @pytest.mark.parametrize("steps", [1, 2, 6])
    @pytest.mark.parametrize("network", [REGRESSION, CLASSIFICATION], ids=["mse", "cross-entropy"])
    def test_by_complex_steps(self, backend: Backend, network: TanhNetwork, steps: int) -> None:
        sets = network.sets(2)
        learner = with_rates(network, backend, AdaptationSteps=steps)
        found = gradients_of(learner, batch_of(backend, sets))
        expected = derivative(procedure(network, sets, steps), np.concatenate([network.start(), rates_of(network)]))
        assert np.linalg.norm(np.split(expected, 2)[1]) > 1e-2
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)

    def test_batches_of_a_support_set(self, backend: Backend) -> None:
        sets = REGRESSION.sets(2)
        learner = with_rates(REGRESSION, backend, AdaptationSteps=4)
        found = gradients_of(learner, in_batches(backend, sets, 3))
        start = np.concatenate([REGRESSION.start(), rates_of(REGRESSION)])
        expected = derivative(procedure(REGRESSION, sets, 4, batches=3), start)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize("batches", [1, 3])
    def test_first_order(self, backend: Backend, batches: int) -> None:
        """v = g throughout: dL/dα is −Σ ∇L_s(φ_k) ∘ g."""
        sets, rates, steps = REGRESSION.sets(2), rates_of(REGRESSION), 4
        expected = []
        for x, y, *query in sets:
            phi, total = REGRESSION.start(), np.zeros_like(rates)
            pieces = split((x, y), batches)
            for k in range(steps):
                gradient = REGRESSION.gradient(phi, *pieces[k % batches])
                phi, total = phi - rates * gradient, total + gradient
            g = REGRESSION.gradient(phi, *query)
            expected.append(np.concatenate([g, -total * g]))
        learner = with_rates(REGRESSION, backend, AdaptationSteps=steps, UseFirstOrder=True)
        found = gradients_of(learner, in_batches(backend, sets, batches))
        np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=1e-11, atol=1e-13)

    def test_of_a_model_with_gradients_alone(self) -> None:
        sets = REGRESSION.sets(2)
        learner = MetaSGDAlgorithm(
            MetaSGDOptions(HandWrittenModel(REGRESSION, REGRESSION.start(), NUMPY), AdaptationSteps=3)
        )
        learner._values._vectors = {"rates": rates_of(REGRESSION)}
        found = gradients_of(learner, batch_of(NUMPY, sets))
        start = np.concatenate([REGRESSION.start(), rates_of(REGRESSION)])
        np.testing.assert_allclose(found, derivative(procedure(REGRESSION, sets, 3), start), rtol=1e-6, atol=1e-8)

    def test_with_equal_rates_the_start_has_the_gradient_of_maml(self, backend: Backend) -> None:
        model, batch = REGRESSION.model(backend, REGRESSION.start()), batch_of(backend, REGRESSION.sets(2))
        options = {"InnerLearningRate": 0.1, "AdaptationSteps": 4}
        through = meta_gradient(MAMLAlgorithm, MAMLOptions(model, **options), batch)  # type: ignore[arg-type]  # of several types
        found = meta_gradient(MetaSGDAlgorithm, MetaSGDOptions(model, MaxLearningRate=9.0, **options), batch)  # type: ignore[arg-type]  # of several types
        np.testing.assert_allclose(np.split(found, 2)[0], through, rtol=1e-11, atol=1e-13)

    def test_segments_leave_the_bits_alone(self) -> None:
        batch = batch_of(NUMPY, CLASSIFICATION.sets(2))
        found = [
            gradients_of(with_rates(CLASSIFICATION, NUMPY, AdaptationSteps=5, CheckpointSegments=segments), batch)
            for segments in (None, 1, 2, 5, "sqrt")
        ]
        for other in found[1:]:
            np.testing.assert_array_equal(other, found[0])

    @pytest.mark.costly
    @pytest.mark.parametrize("first_order", [False, True])
    def test_the_split_and_the_threads_leave_the_bits_alone(
        self, first_order: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def trained(threads: int) -> Any:
            backend = Threads(threads)
            learner = with_rates(CLASSIFICATION, backend, AdaptationSteps=3, UseFirstOrder=first_order)
            learner.Options.MetaOptimizer = AdamOptimizer(0.01)
            losses = [learner.MetaTrain(batch_of(backend, CLASSIFICATION.sets(7))) for _ in range(3)]
            return bits(learner._meta_parameters()), losses

        whole = trained(1)
        for flops, threads in ((1, 1), (1, 2), (100_000, 2)):
            monkeypatch.setattr(NumPyBackend, "flops_at_once", flops)
            assert trained(threads) == whole


class TestAdapting:
    def test_each_parameter_at_its_own_rate(self, backend: Backend) -> None:
        rates, sets = rates_of(REGRESSION), REGRESSION.sets(2)
        learner = with_rates(REGRESSION, backend, AdaptationSteps=3)

        def descend(phi: Values, gradient: Values, t: int) -> Values:
            return phi - rates * gradient

        ends = [adapted(REGRESSION, REGRESSION.start(), [(x, y)], 3, descend) for x, y, *_ in sets]
        batch = batch_of(backend, sets)
        model: Any = learner.Adapt(batch[1])
        np.testing.assert_allclose(backend.to_numpy(model.GetParameters()), ends[1], rtol=1e-11, atol=1e-13)
        losses = [REGRESSION.loss(end, *query) for end, (_, _, *query) in zip(ends, sets, strict=True)]
        assert float(learner.Evaluate(batch)) == pytest.approx(np.mean(losses), rel=1e-11)
        assert float(learner.AdaptAndEvaluate(batch[0]).QueryLoss) == pytest.approx(losses[0], rel=1e-11)

    def test_in_single_precision(self) -> None:
        learner = with_rates(REGRESSION, NUMPY, np.float32, AdaptationSteps=2)
        learner.Options.MetaOptimizer = None
        assert isinstance(learner.MetaTrain(batch_of(NUMPY, REGRESSION.sets(2), np.float32)), np.float32)
        assert learner.LearningRates.dtype == np.float32


class TestRates:
    def test_where_they_start(self, backend: Backend) -> None:
        learner = MetaSGDAlgorithm(
            MetaSGDOptions(REGRESSION.model(backend, REGRESSION.start()), InnerLearningRate=0.03)
        )
        assert backend.owns(learner.LearningRates)
        np.testing.assert_array_equal(backend.to_numpy(learner.LearningRates), np.full(13, 0.03))
        assert learner.InnerLearningRate == pytest.approx(0.03)
        backend.copyto(learner.LearningRates, 5.0)
        assert backend.to_numpy(learner.LearningRates)[0] == 0.03

    def test_they_stay_within_their_bounds(self, backend: Backend) -> None:
        """Steps so long that every rate meets one of them."""
        learner = with_rates(
            REGRESSION, backend, MinLearningRate=0.01, MaxLearningRate=0.3, MetaOptimizer=AdamOptimizer(10.0)
        )
        learner.MetaTrain(batch_of(backend, REGRESSION.sets(2)))
        rates = backend.to_numpy(learner.LearningRates)
        assert set(rates) == {0.01, 0.3}

    def test_tighter_bounds_hold_from_the_next_update_on(self) -> None:
        """A step that fails before it leaves the rates as they are, and workers compute with these."""

        def learner(**given: Any) -> Any:
            made = with_rates(REGRESSION, NUMPY, MetaOptimizer=SGDOptimizer(0.01), InnerLearningRate=0.1, **given)
            made.MetaTrain(batch_of(NUMPY, sets))
            made.Options.MinLearningRate = made.Options.MaxLearningRate = 0.1
            return made

        sets = REGRESSION.sets(2)
        alone = learner()
        wrong = [*sets[1][:3], np.full_like(sets[1][3], np.nan)]
        with untouched(alone), pytest.raises(InvalidOperationException, match="query loss of task 1"):
            alone.MetaTrain(batch_of(NUMPY, [sets[0], tuple(wrong)]))
        assert set(alone.LearningRates) != {0.1}
        with ThreadPoolExecutor(2) as threads:
            shared = learner(Executor=threads)
            assert shared.MetaTrain(batch_of(NUMPY, sets)) == alone.MetaTrain(batch_of(NUMPY, sets))
        assert bits(shared.GetParameters()) == bits(alone.GetParameters())
        assert set(alone.LearningRates) == set(shared.LearningRates) == {0.1}

    def test_the_update_is_the_optimizers(self, backend: Backend) -> None:
        learner = with_rates(REGRESSION, backend, MetaOptimizer=AdamOptimizer(1e-3))
        before = rates_of(REGRESSION)
        learner.MetaTrain(batch_of(backend, REGRESSION.sets(2)))
        moved = np.abs(backend.to_numpy(learner.LearningRates) - before)
        np.testing.assert_allclose(moved, 1e-3, rtol=1e-4)

    def test_start_and_rates_are_clipped_together(self, backend: Backend) -> None:
        learner = with_rates(REGRESSION, backend, GradientClipThreshold=1e-4)
        before = backend.to_numpy(learner._meta_parameters())
        learner.MetaTrain(batch_of(backend, REGRESSION.sets(2)))
        after = backend.to_numpy(learner._meta_parameters())
        assert np.linalg.norm(after - before) == pytest.approx(1e-4, rel=1e-9)

    def test_another_model_and_reset_start_anew(self) -> None:
        learner = sinusoid_learner(MetaSGDAlgorithm, MetaSGDOptions)
        learner.MetaTrainStep(2)
        assert len(set(learner.LearningRates)) > 1
        kept = bits(learner.BaseModel.GetParameters())
        learner.Reset()
        np.testing.assert_array_equal(learner.LearningRates, np.full(19, 0.01))
        assert bits(learner.BaseModel.GetParameters()) == kept
        learner.MetaTrainStep(2)
        learner.SetMetaModel(NeuralNetworkModel(mlp(3, 1), input_shape=(1,), dtype=np.float64, seed=0))
        np.testing.assert_array_equal(learner.LearningRates, np.full(10, 0.01))
        learner.MetaTrainStep(2)
        before = bits(learner.LearningRates)
        with pytest.raises(ArgumentException):
            learner.SetMetaModel(object())
        assert bits(learner.LearningRates) == before

    def test_a_model_put_in_through_the_options_is_told(self) -> None:
        learner = sinusoid_learner(MetaSGDAlgorithm, MetaSGDOptions)
        learner.Options.MetaModel = NeuralNetworkModel(mlp(3, 1), input_shape=(1,), dtype=np.float64)
        with pytest.raises(
            InvalidOperationException,
            match=r"^MetaModel must be the model .* float64\(19,\), got another with float64\(10,\); use SetMetaModel",
        ):
            learner.MetaTrainStep(2)


class TestFailures:
    @pytest.mark.parametrize("place", range(4), ids=["support x", "support y", "query x", "query y"])
    @pytest.mark.parametrize("first_order", [False, True])
    def test_data_that_are_not_numbers(self, backend: Backend, place: int, first_order: bool) -> None:
        learner = with_rates(REGRESSION, backend, UseFirstOrder=first_order, MetaOptimizer=AdamOptimizer(0.01))
        sets = REGRESSION.sets(3)
        learner.MetaTrain(batch_of(backend, sets))
        wrong = [np.array(values) for values in sets[1]]
        wrong[place][0, 0] = np.nan
        role, rates = ("support" if place < 2 else "query"), bits(learner.LearningRates)
        message = rf"^the {role} loss of task 1 \(task 1\) is not finite; nothing was changed"
        with untouched(learner), pytest.raises(InvalidOperationException, match=message):
            learner.MetaTrain(batch_of(backend, [sets[0], tuple(wrong), sets[2]]))
        assert bits(learner.LearningRates) == rates

    def test_an_update_that_overflows(self, backend: Backend) -> None:
        learner = with_rates(REGRESSION, backend, MetaOptimizer=SGDOptimizer(1e308), MaxLearningRate=0.5)
        rates = bits(learner.LearningRates)
        sets = [(x, 1e3 * y, qx, 1e3 * qy) for x, y, qx, qy in REGRESSION.sets(2)]
        with untouched(learner), pytest.raises(InvalidOperationException, match="the meta-update is not finite"):
            learner.MetaTrain(batch_of(backend, sets))
        assert bits(learner.LearningRates) == rates


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            ({"MinLearningRate": v}, r"^MinLearningRate must be a finite number above 0, got .*$")
            for v in (0, -1.0, math.nan, math.inf, True)
        ),
        *(
            (
                {"MinLearningRate": 0.005, "MaxLearningRate": v},
                rf"^MaxLearningRate must be {wanted}, got .*$",
            )
            for v, wanted in (
                (0.004, "at least MinLearningRate, 0.005"),
                *((wrong, "a finite number above 0") for wrong in (math.inf, math.nan, "1")),
            )
        ),
        (
            {"InnerLearningRate": 2.0},
            r"^InnerLearningRate must lie in \[MinLearningRate, MaxLearningRate\] = \[1e-06, 1.0\], got 2.0$",
        ),
        ({"InnerLearningRate": 1e-7}, r"^InnerLearningRate must lie in .*, got 1e-07$"),
        ({"InnerLearningRate": -1.0}, r"^InnerLearningRate must be a finite number above 0, got -1.0$"),
        (
            {"InnerOptimizer": SGDOptimizer(0.1)},
            r"^InnerOptimizer must be None, as Meta-SGD learns .*, got a SGDOptimizer$",
        ),
        ({"UseFirstOrder": 1}, r"^UseFirstOrder must be True or False, got 1$"),
        ({"CheckpointSegments": 6}, r"^CheckpointSegments must be None, 'sqrt' or .*, got 6$"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    made = MetaSGDOptions(REGRESSION.model(NUMPY, REGRESSION.start()), **options)
    assert not made.IsValid()
    with pytest.raises(ArgumentException, match=message):
        MetaSGDAlgorithm(made)


def test_options_of_another_algorithm() -> None:
    options: Any = MAMLOptions(REGRESSION.model(NUMPY, REGRESSION.start()))
    with pytest.raises(ArgumentException, match=r"^options must be MetaSGDOptions, got a MAMLOptions$"):
        MetaSGDAlgorithm(options)


class TestCheckpoints:
    @pytest.mark.parametrize("first_order", [False, True])
    def test_a_run_goes_on_bit_for_bit(self, first_order: bool, tmp_path: Any) -> None:
        learner = sinusoid_learner(MetaSGDAlgorithm, MetaSGDOptions, UseFirstOrder=first_order)
        for _ in range(3):
            learner.MetaTrainStep(3)
        learner.Save(tmp_path / "run")
        saved = bits(learner.LearningRates)
        expected = [learner.MetaTrainStep(3).MetaLoss for _ in range(3)]
        resumed = sinusoid_learner(MetaSGDAlgorithm, MetaSGDOptions, seed=8, UseFirstOrder=first_order)
        resumed.MetaTrainStep(2)
        resumed.Load(tmp_path / "run")
        assert bits(resumed.LearningRates) == saved
        assert [resumed.MetaTrainStep(3).MetaLoss for _ in range(3)] == expected
        assert bits(resumed.LearningRates) == bits(learner.LearningRates)

    def test_of_another_algorithm(self, tmp_path: Any) -> None:
        sinusoid_learner(MAMLAlgorithm, MAMLOptions).Save(tmp_path / "run")
        learner = sinusoid_learner(MetaSGDAlgorithm, MetaSGDOptions)
        learner.MetaTrainStep(2)
        rates = bits(learner.LearningRates)
        with untouched(learner), pytest.raises(ArgumentException, match="algorithm is MAML there and MetaSGD here"):
            learner.Load(tmp_path / "run")
        assert bits(learner.LearningRates) == rates

    def test_of_a_model_of_another_size(self, tmp_path: Any) -> None:
        learner = sinusoid_learner(MetaSGDAlgorithm, MetaSGDOptions)
        learner.Save(tmp_path / "run")
        learner.SetMetaModel(NeuralNetworkModel(mlp(3, 1), input_shape=(1,), dtype=np.float64, seed=0))
        with (
            untouched(learner),
            pytest.raises(
                ArgumentException,
                match=r"vector is float64\(38,\) there and float64\(20,\) here; parameter '0_dense.w",
            ),
        ):
            learner.Load(tmp_path / "run")


def test_what_is_documented() -> None:
    options = MetaSGDOptions(REGRESSION.model(NUMPY, REGRESSION.start()))
    assert (options.MinLearningRate, options.MaxLearningRate) == (1e-6, 1.0)
    assert (options.UseFirstOrder, options.AdaptationSteps, options.CheckpointSegments) == (False, 5, None)
    assert MetaSGDAlgorithm(options).AlgorithmType is MetaLearningAlgorithmType.MetaSGD


@pytest.mark.slow
def test_it_learns() -> None:
    learner = sinusoid_learner(
        MetaSGDAlgorithm, MetaSGDOptions, NumMetaIterations=150, OuterLearningRate=0.01, InnerLearningRate=0.05
    )
    history = learner.Train().LossHistory
    assert np.mean(history[-30:]) < 0.8 * np.mean(history[:30])
