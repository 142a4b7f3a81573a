"""What must not depend on what: tasks of a batch, batches, learners, threads; and that equal seeds give equal bits."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from saved_learners import learner_on
from tanh_network import TanhNetwork, batch_of

from aidotnet_py import CrossEntropyLoss, NeuralNetworkModel, SGDOptimizer, iMAMLAlgorithm, iMAMLOptions
from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.nn import Conv2D, Dense, Flatten, ReLU, Sequential
from aidotnet_py.testing.learner_state import bits

NETWORK = TanhNetwork(outputs=3, classify=True)


def learner_for(backend: Backend, **options: Any) -> iMAMLAlgorithm[Any, Any, Any]:
    settings = {"AdaptationSteps": 3, "InnerLearningRate": 0.2, "MetaOptimizer": SGDOptimizer(1.0)}
    settings |= {"LambdaRegularization": 0.2, "InnerObjective": "proximal", "GradientClipThreshold": None}
    return iMAMLAlgorithm(iMAMLOptions(NETWORK.model(backend, NETWORK.start()), **(settings | options)))


def test_a_wild_task_leaves_the_bits_of_others_alone(backend: Backend) -> None:
    """A task whose solve ends at once, and one of another scale, leave the others' bits alone."""
    sets = NETWORK.sets(3)
    wild = [sets[0], (100 * sets[1][0], sets[1][1], 100 * sets[1][2], sets[1][3]), sets[2]]
    learner = learner_for(backend)
    evaluations = [learner._query_results(list(batch_of(backend, s)))[0] for s in (sets, wild)]
    assert evaluations[0][0] == evaluations[1][0]
    assert evaluations[0][2] == evaluations[1][2]
    assert evaluations[0][1] != evaluations[1][1]


@pytest.mark.slow
@pytest.mark.numpy_first
@pytest.mark.parametrize("calls", [8, 40])
def test_batches_of_changing_size_and_calls_in_turn(backend: Backend, calls: int) -> None:
    """Each call as by a learner that did nothing else before."""
    used = learner_for(backend)
    rng = np.random.default_rng(0)
    for _ in range(calls):
        count, support = int(rng.integers(1, 4)), int(rng.integers(3, 6))
        batch = batch_of(backend, NETWORK.sets(count, seed=int(rng.integers(100)), support=support, query=support))
        fresh = learner_for(backend)
        fresh.BaseModel.SetParameters(used.BaseModel.GetParameters())
        call = ("MetaTrain", "Evaluate", "AdaptAndEvaluate", "Adapt")[rng.integers(4)]
        results = [
            getattr(one, call)(batch if call in ("MetaTrain", "Evaluate") else batch[0]) for one in (used, fresh)
        ]
        if call in ("MetaTrain", "Evaluate"):
            assert results[0] == results[1]
        elif call == "Adapt":
            assert bits(results[0].GetParameters()) == bits(results[1].GetParameters())
        else:
            np.testing.assert_array_equal(results[0].PerStepLosses, results[1].PerStepLosses)
            assert results[0].QueryLoss == results[1].QueryLoss
        assert bits(used.BaseModel.GetParameters()) == bits(fresh.BaseModel.GetParameters())


def test_data_changed_after_a_step_is_read_anew() -> None:
    backend, sets = get_backend("numpy"), NETWORK.sets(2)
    learner, batch = learner_for(backend), batch_of(backend, sets)
    before = learner.Evaluate(batch)
    batch[0].SupportInput[...] *= 0.5
    changed = learner.Evaluate(batch)
    assert changed != before
    assert changed == learner_for(backend).Evaluate(batch)


def test_read_only_and_strided_data() -> None:
    backend, sets = get_backend("numpy"), NETWORK.sets(2)
    wide = [tuple(np.repeat(a, 2, axis=0)[::2] if a.ndim == 1 else np.asfortranarray(a) for a in s) for s in sets]
    for values in (a for s in wide for a in s):
        values.flags.writeable = False
    batches = [batch_of(backend, sets), batch_of(backend, sets)]
    for task, arrays in zip(batches[1], wide, strict=True):
        task._support, task._query = (arrays[0], arrays[1]), (arrays[2], arrays[3])  # type: ignore[attr-defined]
    losses = [learner_for(backend).MetaTrain(b) for b in batches]
    assert losses[0] == losses[1]


@pytest.mark.slow
@pytest.mark.numpy_first
def test_two_learners_share_a_model(backend: Backend) -> None:
    """They take turns on the same parameters, each with its own options and programs."""
    shared, batch = NETWORK.model(backend, NETWORK.start()), batch_of(backend, NETWORK.sets(2))
    options = [{"AdaptationSteps": 2}, {"AdaptationSteps": 5, "InnerObjective": "support"}]
    pair = [iMAMLAlgorithm(iMAMLOptions(shared, MetaOptimizer=SGDOptimizer(0.5), **o)) for o in options]
    alone = NETWORK.model(backend, NETWORK.start())
    for turn in range(4):
        found = pair[turn % 2].MetaTrain(batch)
        fresh = iMAMLAlgorithm(iMAMLOptions(alone, MetaOptimizer=SGDOptimizer(0.5), **options[turn % 2]))
        assert found == fresh.MetaTrain(batch)
        assert bits(shared.GetParameters()) == bits(alone.GetParameters())


def images(seed: int) -> Any:
    generator = np.random.default_rng(seed)
    labels = np.array([0, 1, 0, 1])
    return [
        (generator.standard_normal((4, 8, 8, 1)), labels, generator.standard_normal((4, 8, 8, 1)), labels)
        for _ in range(3)
    ]


def image_learner(dtype: Any = np.float64) -> iMAMLAlgorithm[Any, Any, Any]:
    model = NeuralNetworkModel(
        Sequential(Conv2D(4, 3), ReLU(), Flatten(), Dense(2)),
        input_shape=(8, 8, 1),
        loss=CrossEntropyLoss(),
        dtype=dtype,
        seed=0,
    )
    return iMAMLAlgorithm(iMAMLOptions.FromPaper(model, AdaptationSteps=3))


@pytest.mark.slow
def test_two_learners_in_two_threads() -> None:
    def run(seed: int) -> list[float]:
        learner = image_learner()
        batches = [batch_of(get_backend("numpy"), images(seed + i)) for i in range(15)]
        return [float(learner.MetaTrain(b)) for b in batches]

    alone = [run(0), run(100)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(run, (0, 100)))
    assert together == alone


def test_two_learners_of_one_model_evaluate_in_two_threads() -> None:
    shared = image_learner().BaseModel
    batches = [batch_of(get_backend("numpy"), images(i)) for i in range(10)]

    def run(_: int) -> list[float]:
        learner = iMAMLAlgorithm(iMAMLOptions.FromPaper(shared, AdaptationSteps=3))
        adapted = [learner.Adapt(b[0]).Predict(b[0].QueryInput) for b in batches]
        return [float(learner.Evaluate(b)) for b in batches] + [float(a.sum()) for a in adapted]

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(run, range(2))
    assert first == second == run(0)


@pytest.mark.numpy_first
def test_a_deep_copy_goes_on_for_itself(backend: Backend) -> None:
    learner, batch = learner_for(backend, MetaOptimizer=SGDOptimizer(0.1, 0.9)), batch_of(backend, NETWORK.sets(2))
    learner.MetaTrain(batch)
    twin = copy.deepcopy(learner)
    losses = [learner.MetaTrain(batch) for _ in range(3)]
    assert twin.BaseModel is not learner.BaseModel
    assert [twin.MetaTrain(batch) for _ in range(3)] == losses


def test_a_pickle_goes_on_for_itself() -> None:
    learner = learner_on(RandomSeed=3)
    learner.MetaTrainStep(2)
    twin = pickle.loads(pickle.dumps(learner))
    losses = [learner.MetaTrainStep(2).MetaLoss for _ in range(3)]
    assert [twin.MetaTrainStep(2).MetaLoss for _ in range(3)] == losses
    assert bits(twin.BaseModel.GetParameters()) == bits(learner.BaseModel.GetParameters())


@pytest.mark.numpy_first
class TestDeterminism:
    def test_equal_seeds_equal_bits(self, backend: Backend) -> None:
        def run() -> Any:
            learner = learner_on(backend, RandomSeed=11, NumMetaIterations=5, EvaluationFrequency=2, EvaluationTasks=3)
            result = learner.Train()
            return result.LossHistory.tobytes(), bits(learner.BaseModel.GetParameters())

        assert run() == run()

    @pytest.mark.slow
    def test_other_seeds_other_tasks(self) -> None:
        losses = [learner_on(RandomSeed=seed).MetaTrainStep(2).MetaLoss for seed in (1, 2)]
        assert losses[0] != losses[1]

    def test_no_seed_leaves_the_loader_as_it_is(self) -> None:
        first, second = learner_on(), learner_on()
        assert first.MetaTrainStep(2).MetaLoss == second.MetaTrainStep(2).MetaLoss

    def test_numpys_global_state_is_not_touched(self) -> None:
        state = np.random.get_state()  # noqa: NPY002 -- that it stays as it was is the point
        learner = learner_on(RandomSeed=1)
        learner.MetaTrainStep(2)
        after = np.random.get_state()  # noqa: NPY002
        assert all(np.array_equal(a, b) for a, b in zip(state, after, strict=True))
