"""Reptile: θ moves by a share of φ_K − θ, once a batch or once a task, and a failed batch leaves no trace."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from imaml_reference import adam, batch_on, descent, linear_model, linear_tasks, mean_query_loss, sgd, start
from numpy_doubles import Threads
from plain_models import BareModel, HandWrittenModel
from small_learners import sinusoid_learner
from tanh_network import TanhNetwork, Values, batch_of
from task_batches import in_batches
from whole_procedure import OPTIMIZERS, adapted, meta_gradient, split

from aidotnet_py import (
    AdamOptimizer,
    ArgumentException,
    FunctionModel,
    InvalidOperationException,
    MAMLOptions,
    MetaLearningAlgorithmType,
    MetaLearningTask,
    ReptileAlgorithm,
    ReptileOptions,
    SGDOptimizer,
    TaskBatch,
)
from aidotnet_py.backends import Backend, NumPyBackend, get_backend
from aidotnet_py.testing.learner_state import untouched

NETWORK, CLASSIFICATION = TanhNetwork(), TanhNetwork(outputs=3, classify=True)


def learner_on(backend: Backend, **options: Any) -> ReptileAlgorithm[Any, Any, Any]:
    return ReptileAlgorithm(ReptileOptions(NETWORK.model(backend, NETWORK.start()), InnerLearningRate=0.1, **options))


def test_what_is_documented() -> None:
    options = ReptileOptions(NETWORK.model(get_backend("numpy"), NETWORK.start()))
    found = (options.OuterLearningRate, options.AdaptationSteps, options.MetaBatchSize, options.Interpolation)
    assert found == (1.0, 5, 5, 1.0)
    assert (options.InnerBatches, options.UseSerialUpdate, options.InnerLearningRate) == (1, False, 0.01)
    learner = ReptileAlgorithm(options)
    assert learner.AlgorithmType is MetaLearningAlgorithmType.Reptile
    assert isinstance(learner._meta_optimizer(), SGDOptimizer)
    assert learner.OuterLearningRate == 1.0
    options.OuterLearningRate = 0.25
    assert learner.OuterLearningRate == 0.25


class TestBatched:
    @pytest.mark.parametrize("name", OPTIMIZERS)
    @pytest.mark.parametrize(("steps", "inner_batches"), [(1, 1), (4, 1), (2, 3)])
    def test_the_meta_gradient_is_the_way_back(
        self, backend: Backend, steps: int, inner_batches: int, name: str
    ) -> None:
        theta, sets = NETWORK.start(), NETWORK.sets(3)
        ends = [adapted(NETWORK, theta, [(x, y)], steps * inner_batches, OPTIMIZERS[name][1]()) for x, y, *_ in sets]
        options = ReptileOptions(
            NETWORK.model(backend, theta),
            InnerLearningRate=0.1,
            AdaptationSteps=steps,
            InnerBatches=inner_batches,
            Interpolation=0.5,
            InnerOptimizer=OPTIMIZERS[name][0](),
        )
        found = meta_gradient(ReptileAlgorithm, options, batch_of(backend, sets))
        np.testing.assert_allclose(found, 0.5 * (theta - np.mean(ends, axis=0)), rtol=1e-11, atol=1e-13)

    def test_closed_form_of_least_squares(self, backend: Backend) -> None:
        """θ + ε (mean φ − θ), and the query loss at φ before it."""
        theta, tasks = start(), linear_tasks()
        model = linear_model(backend, theta)
        learner = ReptileAlgorithm(
            ReptileOptions(model, AdaptationSteps=3, InnerLearningRate=0.2, OuterLearningRate=0.3)
        )
        for _ in range(4):
            ends = [descent(theta, task.support, 3, 0.2) for task in tasks]
            loss = learner.MetaTrain(batch_on(backend, tasks))
            assert float(loss) == pytest.approx(mean_query_loss(ends, tasks), rel=1e-12)
            theta = theta + 0.3 * (np.mean(ends, axis=0) - theta)
            np.testing.assert_allclose(backend.to_numpy(model.GetParameters()), theta, rtol=1e-12)

    def test_an_optimizer_that_is_given_takes_it_for_a_gradient(self, backend: Backend) -> None:
        theta, tasks, step = start(), linear_tasks(), adam(0.05)
        model = linear_model(backend, theta)
        options = ReptileOptions(model, AdaptationSteps=3, InnerLearningRate=0.2, MetaOptimizer=AdamOptimizer(0.05))
        learner = ReptileAlgorithm(options)
        for t in range(1, 4):
            ends = [descent(theta, task.support, 3, 0.2) for task in tasks]
            learner.MetaTrain(batch_on(backend, tasks))
            theta = step(theta, theta - np.mean(ends, axis=0), t)
        np.testing.assert_allclose(backend.to_numpy(model.GetParameters()), theta, rtol=1e-12)

    def test_clipping(self, backend: Backend) -> None:
        learner = learner_on(backend, GradientClipThreshold=1e-3)
        before = backend.to_numpy(learner.BaseModel.GetParameters())
        learner.MetaTrain(batch_of(backend, NETWORK.sets(2)))
        moved = np.linalg.norm(backend.to_numpy(learner.BaseModel.GetParameters()) - before)
        assert moved == pytest.approx(1e-3, rel=1e-9)

    def test_batches_of_a_support_set(self, backend: Backend) -> None:
        theta, sets = NETWORK.start(), NETWORK.sets(2)
        ends = [adapted(NETWORK, theta, split((x, y), 3), 6, sgd(0.1)) for x, y, *_ in sets]
        options = ReptileOptions(
            NETWORK.model(backend, theta), InnerLearningRate=0.1, AdaptationSteps=2, InnerBatches=3
        )
        found = meta_gradient(ReptileAlgorithm, options, in_batches(backend, sets, 3))
        np.testing.assert_allclose(found, theta - np.mean(ends, axis=0), rtol=1e-11, atol=1e-13)
        options.AdaptationSteps, options.InnerBatches = 2, 1
        with pytest.raises(ArgumentException, match="at most one batch for each of the 2 inner steps, got 3 batches"):
            ReptileAlgorithm(options).MetaTrain(in_batches(backend, sets, 3))

    def test_every_inner_step_is_told(self) -> None:
        learner = learner_on(get_backend("numpy"), AdaptationSteps=2, InnerBatches=3)
        result = learner.AdaptAndEvaluate(batch_of(get_backend("numpy"), NETWORK.sets(1))[0])
        assert (result.AdaptationSteps, len(result.PerStepLosses)) == (6, 7)

    def test_the_split_and_the_threads_leave_the_bits_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def trained(threads: int) -> Any:
            learner = learner_on(Threads(threads))
            losses = [learner.MetaTrain(batch_of(Threads(threads), NETWORK.sets(7))) for _ in range(2)]
            return learner.BaseModel.GetParameters().tolist(), losses

        whole = trained(1)
        for flops, threads in ((1, 1), (1, 2), (100_000, 2)):
            monkeypatch.setattr(NumPyBackend, "flops_at_once", flops)
            assert trained(threads) == whole

    def test_the_query_gradient_is_not_asked_for(self) -> None:
        """The loss is finite, its gradient would not be."""
        model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((1, 1))})
        x = np.ones((2, 1))
        task = MetaLearningTask(SupportSetX=x, SupportSetY=0 * x, QuerySetX=1e200 * x, QuerySetY=1e150 * x)
        loss = ReptileAlgorithm(ReptileOptions(model)).MetaTrain(TaskBatch([task]))
        assert float(loss) == pytest.approx(1e300)


class TestSerial:
    @pytest.mark.parametrize("make", [lambda: None, lambda: AdamOptimizer(0.02)], ids=["descent", "adam"])
    def test_each_task_starts_where_the_last_one_left(self, backend: Backend, make: Any) -> None:
        theta, sets = NETWORK.start(), NETWORK.sets(3)
        learner = learner_on(backend, UseSerialUpdate=True, OuterLearningRate=0.5, MetaOptimizer=make())
        step = adam(0.02) if make() else sgd(0.5)
        t = 0
        for _ in range(2):
            losses = []
            for x, y, *query in sets:
                t += 1
                end = adapted(NETWORK, theta, [(x, y)], 5, sgd(0.1))
                losses.append(NETWORK.loss(end, *query))
                theta = step(theta, theta - end, t)
            assert float(learner.MetaTrain(batch_of(backend, sets))) == pytest.approx(np.mean(losses), rel=1e-11)
            assert learner._record is not None
            np.testing.assert_allclose(learner._record.losses, losses, rtol=1e-11)
        np.testing.assert_allclose(backend.to_numpy(learner.BaseModel.GetParameters()), theta, rtol=1e-10, atol=1e-12)

    def test_of_one_task_it_is_the_batched_one(self, backend: Backend) -> None:
        learners = [learner_on(backend, UseSerialUpdate=serial) for serial in (False, True)]
        for one in learners:
            one.MetaTrain(batch_of(backend, NETWORK.sets(1)))
        found = [backend.to_numpy(one.BaseModel.GetParameters()) for one in learners]
        np.testing.assert_array_equal(found[1], found[0])
        records = [one._record for one in learners]
        assert records[0] is not None
        assert records[1] is not None
        assert records[0].metrics == records[1].metrics

    @pytest.mark.parametrize("make", [lambda: None, lambda: AdamOptimizer(0.02)], ids=["descent", "adam"])
    @pytest.mark.parametrize("place", range(4), ids=["support x", "support y", "query x", "query y"])
    def test_a_task_that_fails_undoes_those_before_it(self, backend: Backend, place: int, make: Any) -> None:
        learner = learner_on(backend, UseSerialUpdate=True, MetaOptimizer=make())
        sets = NETWORK.sets(3)
        learner.MetaTrain(batch_of(backend, sets))
        record = learner._record
        wrong = [np.array(values) for values in sets[2]]
        wrong[place][0, 0] = np.nan
        role = "support" if place < 2 else "query"
        message = rf"^the {role} loss of task 2 \(task 2\) is not finite; nothing was changed"
        with untouched(learner), pytest.raises(InvalidOperationException, match=message):
            learner.MetaTrain(batch_of(backend, [*sets[:2], tuple(wrong)]))
        assert learner._record is record

    def test_an_update_that_overflows_undoes_those_before_it(self, backend: Backend) -> None:
        class Exploding(SGDOptimizer):
            def _step(self, backend: Backend, parameters: Any, gradient: Any) -> Any:
                return super()._step(backend, parameters, gradient) * (math.inf if self._steps == 3 else 1.0)

        learner = learner_on(backend, UseSerialUpdate=True, MetaOptimizer=Exploding(0.5))
        with untouched(learner), pytest.raises(InvalidOperationException, match="the meta-update is not finite"):
            learner.MetaTrain(batch_of(backend, NETWORK.sets(4)))

    def test_an_interruption_undoes_them_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        learner = learner_on(get_backend("numpy"), UseSerialUpdate=True)
        update, calls = learner._meta_update, []

        def interrupted(gradients: Any) -> float:
            calls.append(gradients)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return update(gradients)

        monkeypatch.setattr(learner, "_meta_update", interrupted)
        with untouched(learner), pytest.raises(KeyboardInterrupt):
            learner.MetaTrain(batch_of(get_backend("numpy"), NETWORK.sets(4)))

    def test_all_tasks_are_checked_before_the_first_moves_anything(self, backend: Backend) -> None:
        learner = learner_on(backend, UseSerialUpdate=True)
        sets = NETWORK.sets(3)
        odd: Any = (sets[2][0][:, :1], *sets[2][1:])
        steps: list[Any] = []
        learner._meta_update = lambda g: steps.append(g) or 0.0  # type: ignore[method-assign,func-returns-value]
        with pytest.raises(ArgumentException, match=r"SupportSetX of task 2 must be .*, got float64\(6, 1\)"):
            learner.MetaTrain(batch_of(backend, [*sets[:2], odd]))
        assert steps == []

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore:.*simultaneous perturbation")
    @pytest.mark.parametrize("kind", [HandWrittenModel, BareModel])
    def test_of_models_that_cannot_be_traced(self, kind: Any) -> None:
        backend, sets = get_backend("numpy"), NETWORK.sets(2)
        model = kind(NETWORK, NETWORK.start(), backend)
        learner = ReptileAlgorithm(ReptileOptions(model, InnerLearningRate=0.1, UseSerialUpdate=True))
        learner.MetaTrain(batch_of(backend, sets))
        theta: Values = NETWORK.start()
        for x, y, *_ in sets:
            theta = adapted(NETWORK, theta, [(x, y)], 5, sgd(0.1))
        np.testing.assert_allclose(model.GetParameters(), theta, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        *(("Interpolation", v, r"a number in \(0, 1\]") for v in (0, -0.5, 1.5, math.nan, True, "1")),
        *(("InnerBatches", v, "a whole number of at least 1") for v in (0, -1, 1.5, True)),
        *(("UseSerialUpdate", v, "True or False") for v in (1, None, "yes")),
    ],
)
def test_impossible_options(name: str, value: Any, wanted: str) -> None:
    options = ReptileOptions(NETWORK.model(get_backend("numpy"), NETWORK.start()))
    assert options.IsValid()
    setattr(options, name, value)
    assert not options.IsValid()
    with pytest.raises(ArgumentException, match=rf"^{name} must be {wanted}, got .*$"):
        ReptileAlgorithm(options)


def test_options_of_another_algorithm() -> None:
    options: Any = MAMLOptions(NETWORK.model(get_backend("numpy"), NETWORK.start()))
    with pytest.raises(ArgumentException, match=r"^options must be ReptileOptions, got a MAMLOptions$"):
        ReptileAlgorithm(options)


@pytest.mark.parametrize("options", [{}, {"UseSerialUpdate": True, "MetaOptimizer": AdamOptimizer(0.01)}])
def test_a_run_goes_on_bit_for_bit(options: dict[str, Any], tmp_path: Any) -> None:
    learner = sinusoid_learner(ReptileAlgorithm, ReptileOptions, **options)
    for _ in range(3):
        learner.MetaTrainStep(3)
    learner.Save(tmp_path / "run")
    expected = [learner.MetaTrainStep(3).MetaLoss for _ in range(3)]
    resumed = sinusoid_learner(ReptileAlgorithm, ReptileOptions, seed=8, **options)
    resumed.MetaTrainStep(2)
    resumed.Load(tmp_path / "run")
    assert [resumed.MetaTrainStep(3).MetaLoss for _ in range(3)] == expected


@pytest.mark.slow
def test_it_learns() -> None:
    learner = sinusoid_learner(
        ReptileAlgorithm,
        ReptileOptions,
        NumMetaIterations=150,
        OuterLearningRate=0.3,
        InnerLearningRate=0.02,
        InnerBatches=2,
    )
    history = learner.Train().LossHistory
    assert np.mean(history[-30:]) < 0.9 * np.mean(history[:30])
