"""A batch that is shared out to workers: the bits of one process, whoever works, and whoever dies meanwhile."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import pickle
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
import pytest
from amounts import rounds
from plain_models import BareModel, HandWrittenModel
from process_cases import KINDS, learner_of
from tanh_network import TanhNetwork, batch_of

from aidotnet_py import (
    ArgumentException,
    CrossEntropyLoss,
    FunctionModel,
    InvalidOperationException,
    MAMLAlgorithm,
    MAMLOptions,
    MeanSquaredErrorLoss,
    MetaLearningTask,
    NeuralNetworkModel,
    NotSupportedException,
    ReptileAlgorithm,
    ReptileOptions,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.backends import get_backend
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.meta_learning.learner import own_attributes, workers
from aidotnet_py.nn import Dense, Dropout, Sequential, Tanh, mlp


def sinusoids(seed: int = 0, **given: Any) -> Any:
    model = NeuralNetworkModel(mlp(8, 1), input_shape=(1,), dtype=np.float64, seed=seed)
    loader = SinusoidLoader(4, 6, seed=seed, dtype=np.float64)
    return iMAMLAlgorithm(iMAMLOptions(model, DataLoader=loader, AdaptationSteps=3, **given))


def dropped(**given: Any) -> Any:
    network = Sequential(Dense(8), Tanh(), Dropout(0.3), Dense(1))
    model = NeuralNetworkModel(network, input_shape=(1,), dtype=np.float64, seed=0)
    return MAMLAlgorithm(MAMLOptions(model, DataLoader=SinusoidLoader(seed=0, dtype=np.float64), RandomSeed=3, **given))


LEARNERS: dict[str, Callable[..., Any]] = {
    **{kind: (lambda kind=kind: learner_of(kind, steps=0)) for kind in KINDS},
    "learned λ": lambda: sinusoids(InnerObjective="proximal", LearnedLambda="per-parameter"),
    "warm starts": lambda: sinusoids(WarmStartSolves=True),
    "a preconditioner": lambda: sinusoids(PreconditionerProbes=2),
    "micro-batches": lambda: sinusoids(MicroBatchSize=7),
    "noise": dropped,
}


def outcome(learner: Any, tasks: int = 19) -> tuple[Any, ...]:
    """What a learner comes to, in bytes and numbers."""
    steps = [learner.MetaTrainStep(count) for count in (tasks, 3, tasks)]
    learner.Options.MetaBatchSize = tasks
    evaluation = learner.Evaluate(tasks)
    batch = learner.Options.DataLoader.GetTaskBatch(tasks)
    curve = learner.adaptation_curve(batch, 2)
    return (
        learner.BaseModel.GetParameters().tobytes(),
        *[(step.MetaLoss, step.Accuracy, step.AdditionalMetrics) for step in steps],
        evaluation.PerTaskLosses.tobytes(),
        evaluation.PerTaskAccuracies.tobytes(),
        curve.losses.tobytes(),
        learner.mean_meta_gradient(batch).parameters.tobytes(),
    )


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    """Two processes, begun anew."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        yield pool


# The others have tests of their own in threads, and all of them in processes below.
BY_DEFAULT = {"iMAML", "noise"}


@pytest.mark.costly
@pytest.mark.parametrize("count", [3, *(pytest.param(few, marks=pytest.mark.slow) for few in (1, 2, 7))])
@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in BY_DEFAULT else pytest.mark.slow) for n in LEARNERS])
def test_threads_give_the_bits_of_one(name: str, count: int) -> None:
    wanted = outcome(LEARNERS[name]())
    learner = LEARNERS[name]()
    with ThreadPoolExecutor(count) as learner.Options.Executor:
        np.testing.assert_equal(outcome(learner), wanted)


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "noise" else pytest.mark.slow) for n in LEARNERS])
def test_processes_give_the_bits_of_one(name: str, processes: ProcessPoolExecutor) -> None:
    wanted = outcome(LEARNERS[name]())
    learner = LEARNERS[name]()
    learner.Options.Executor = processes
    np.testing.assert_equal(outcome(learner), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["iMAML", "noise", "warm starts"])
def test_processes_of_loky_give_the_bits_of_one(name: str) -> None:
    # The one that joblib brings, and scikit-learn with it.
    loky = pytest.importorskip("joblib.externals.loky")
    wanted = outcome(LEARNERS[name]())
    learner = LEARNERS[name]()
    with loky.ProcessPoolExecutor(2) as learner.Options.Executor:
        np.testing.assert_equal(outcome(learner), wanted)


def task_of(sets: Any, ways: int = 1) -> Any:
    return MetaLearningTask(
        **dict(zip(("SupportSetX", "SupportSetY", "QuerySetX", "QuerySetY"), sets, strict=True)), NumWays=ways
    )


def unequal() -> TaskBatch[Any, Any, Any]:
    rng = np.random.default_rng(0)
    sizes = [3, 5, 3, 8, 2, 5, 5, 3, 9, 2]
    sets = [[rng.standard_normal((n, 1)) for n in (size, size, 4, 4)] for size in sizes]
    return TaskBatch([task_of(some) for some in sets])


@pytest.mark.slow
def test_tasks_of_unequal_size() -> None:
    plain, shared = sinusoids(), sinusoids()
    with ThreadPoolExecutor(3) as shared.Options.Executor:
        for _ in range(2):
            assert plain.MetaTrain(unequal()) == shared.MetaTrain(unequal())
    np.testing.assert_array_equal(plain.GetParameters(), shared.GetParameters())


def test_each_worker_gets_a_share_and_one_answer_comes_back() -> None:
    asked: list[Any] = []

    class Counting(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            asked.append(args)
            return super().submit(fn, *args, **kwargs)

    learner = sinusoids()
    with Counting(2) as learner.Options.Executor:
        learner.MetaTrainStep(20)
        learner.MetaTrainStep(20)
    assert [len(share.tasks) for _, _, share in asked] == [10] * 4
    assert [definition is None for _, definition, _ in asked] == [False, False, True, True]


def test_a_worker_that_forgot_is_told_again() -> None:
    plain, learner = sinusoids(), sinusoids()
    with ThreadPoolExecutor(2) as learner.Options.Executor:
        for _ in range(3):
            workers._kept.clear()
            assert plain.MetaTrainStep(5).MetaLoss == learner.MetaTrainStep(5).MetaLoss


def test_options_that_change_are_heeded() -> None:
    plain, learner = sinusoids(), sinusoids()
    with ThreadPoolExecutor(2) as learner.Options.Executor:
        for rate in (0.01, 0.03):
            for each in (plain, learner):
                each.Options.InnerLearningRate = rate
            assert plain.MetaTrainStep(5).MetaLoss == learner.MetaTrainStep(5).MetaLoss


def test_the_error_of_the_first_task_is_raised_and_nothing_is_changed() -> None:
    rng = np.random.default_rng(0)
    sets = [[rng.standard_normal((n, 1)) for n in (4, 4, 6, 6)] for _ in range(6)]
    for place in (4, 1):
        sets[place][1] *= 1e200
    batch = TaskBatch([task_of(some) for some in sets])
    learner = sinusoids()
    before = learner.GetParameters()
    with ThreadPoolExecutor(3) as learner.Options.Executor, pytest.raises(InvalidOperationException, match="task 1"):
        learner.MetaTrain(batch)
    np.testing.assert_array_equal(learner.GetParameters(), before)


@pytest.mark.filterwarnings("ignore:BareModel lacks")
def test_models_with_gradients_of_their_own() -> None:
    network, numpy = TanhNetwork(), get_backend("numpy")
    rng = np.random.default_rng(0)
    sets = [(rng.random((5, 2)), rng.random((5, 1)), rng.random((6, 2)), rng.random((6, 1))) for _ in range(5)]
    steps: list[Any] = []
    with ThreadPoolExecutor(2) as pool:
        for executor in (None, pool):
            model = HandWrittenModel(network, network.start(), numpy)
            learner = MAMLAlgorithm(MAMLOptions(model, UseFirstOrder=True, Executor=executor))
            steps.append([learner.MetaTrain(batch_of(numpy, sets)) for _ in range(3)] + model.GetParameters().tolist())
        assert steps[0] == steps[1]
        with pytest.raises(NotSupportedException, match="Executor must be None for a BareModel, whose gradients are"):
            ReptileAlgorithm(ReptileOptions(BareModel(network, network.start(), numpy), Executor=pool)).MetaTrain(
                batch_of(numpy, sets)
            )


class TestLostWorkers:
    @pytest.mark.slow
    def test_their_tasks_are_worked_on_here(self) -> None:
        plain, learner = sinusoids(), sinusoids()
        pool = ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))
        learner.Options.Executor = pool
        assert plain.MetaTrainStep(5).MetaLoss == learner.MetaTrainStep(5).MetaLoss
        for process in pool._processes.values():
            process.kill()
        with pytest.warns(UserWarning, match="a worker of ProcessPoolExecutor was lost .* worked on here"):
            found = learner.MetaTrainStep(5)
        assert plain.MetaTrainStep(5).MetaLoss == found.MetaLoss
        # Warned of once.
        assert plain.MetaTrainStep(5).MetaLoss == learner.MetaTrainStep(5).MetaLoss

    def test_an_executor_that_a_function_makes_is_made_anew(self) -> None:
        made: list[Executor] = []

        class Breaking(ThreadPoolExecutor):
            def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
                if len(made) == 1:
                    raise BrokenProcessPool("a process ended")
                return super().submit(fn, *args, **kwargs)

        def make() -> Executor:
            made.append(Breaking(2))
            return made[-1]

        plain, learner = sinusoids(), sinusoids(Executor=make)
        with pytest.warns(UserWarning, match="was lost"):
            found = learner.MetaTrainStep(5)
        assert plain.MetaTrainStep(5).MetaLoss == found.MetaLoss
        assert plain.MetaTrainStep(5).MetaLoss == learner.MetaTrainStep(5).MetaLoss
        assert len(made) == 2

    @pytest.mark.filterwarnings("ignore:a worker of")
    @pytest.mark.parametrize("is_lost", [True, False])
    def test_an_executor_that_is_lost_or_replaced_is_let_go(self, is_lost: bool) -> None:
        made: list[weakref.ref[Executor]] = []

        class Breaking(ThreadPoolExecutor):
            def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
                if is_lost and len(made) == 1:
                    raise BrokenProcessPool("a process ended")
                return super().submit(fn, *args, **kwargs)

        def make() -> Executor:
            executor = Breaking(2)
            made.append(weakref.ref(executor))
            return executor

        learner = sinusoids(Executor=make)
        learner.MetaTrainStep(5)
        if not is_lost:
            learner.Options.Executor = lambda: make()
        learner.MetaTrainStep(5)
        gc.collect()
        # Until then its processes, or their pipes, would take room.
        assert [one() is None for one in made] == [True, False]

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore:a worker of")
    def test_killed_at_random(self) -> None:
        pools: list[ProcessPoolExecutor] = []

        def make() -> Executor:
            pools.append(ProcessPoolExecutor(2, multiprocessing.get_context("forkserver")))
            return pools[-1]

        rng = np.random.default_rng(0)
        plain, learner = sinusoids(), sinusoids(Executor=make)
        wanted, killed = rounds(10), 0
        while killed < wanted:
            if pools and rng.random() < 0.5:
                living = [p for p in (pools[-1]._processes or {}).values() if p.is_alive()]
                if living:
                    # Not by os.kill, which fails where the process ended a moment ago.
                    living[int(rng.integers(len(living)))].kill()
                    killed += 1
            assert plain.MetaTrainStep(6).MetaLoss == learner.MetaTrainStep(6).MetaLoss
        np.testing.assert_array_equal(plain.GetParameters(), learner.GetParameters())
        assert len(pools) > wanted / 5


class TestRefusals:
    @pytest.mark.parametrize("bad", [2, "processes", []])
    def test_no_executor(self, bad: Any) -> None:
        with pytest.raises(ArgumentException, match=r"Executor must be a concurrent\.futures\.Executor, or a function"):
            sinusoids(Executor=bad)

    def test_a_function_that_makes_none(self) -> None:
        with pytest.raises(InvalidOperationException, match=r"Executor must make a concurrent\.futures\.Executor"):
            sinusoids(Executor=lambda: 3).MetaTrainStep(2)

    def test_one_that_gives_no_future(self) -> None:
        class AtOnce(ThreadPoolExecutor):
            def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
                return fn(*args, **kwargs)

        learner = sinusoids(Executor=AtOnce(1))
        with pytest.raises(InvalidOperationException, match=r"AtOnce\.submit must return a concurrent.*, got a _Con"):
            learner.MetaTrainStep(2)

    def test_one_that_is_closed(self) -> None:
        pool = ThreadPoolExecutor(1)
        pool.shutdown()
        learner = sinusoids(Executor=pool)
        with pytest.raises(InvalidOperationException, match="Executor must be open"):
            learner.MetaTrainStep(2)
        assert learner.CurrentIteration == 0

    def test_a_model_of_a_nameless_function(self) -> None:
        model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((1, 1))})
        options = MAMLOptions(model, DataLoader=SinusoidLoader(seed=0, dtype=np.float64))
        with (
            ThreadPoolExecutor(1) as options.Executor,
            pytest.raises(InvalidOperationException, match="imported by its name"),
        ):
            MAMLAlgorithm(options).MetaTrainStep(2)

    @pytest.mark.parametrize("what", ["LossFunction", "class"])
    def test_local_classes(self, what: str) -> None:
        class Loss(MeanSquaredErrorLoss):
            pass

        class Local(MAMLAlgorithm[Any, Any, Any, Any]):
            pass

        kind, loss = (Local, None) if what == "class" else (MAMLAlgorithm, Loss())
        with (
            ThreadPoolExecutor(1) as pool,
            pytest.raises(InvalidOperationException, match=rf"{what} must be something that pickle can take, since"),
        ):
            weighted(kind, Executor=pool, LossFunction=loss).MetaTrainStep(2)

    def test_metadata_that_other_processes_cannot_get(self, processes: ProcessPoolExecutor) -> None:
        learner = sinusoids()
        batch = SinusoidLoader(4, 6, seed=0, dtype=np.float64).GetTaskBatch(3)
        batch[1].SetMetadata("f", lambda: 1)
        learner.Options.Executor = processes
        with pytest.raises(
            InvalidOperationException, match=r"Metadata\['f'\] of the tasks must be something that pickle"
        ):
            learner.MetaTrain(batch)
        with ThreadPoolExecutor(2) as learner.Options.Executor:
            assert learner.MetaTrain(batch) == sinusoids().MetaTrain(batch)

    def test_the_pool_that_the_learner_runs_on(self) -> None:
        class Late(set[threading.Thread]):
            """A pool's threads; each comes in well after its start, as on a busy machine."""

            def add(self, thread: threading.Thread) -> None:
                time.sleep(0.3)
                super().add(thread)

        with ThreadPoolExecutor(1) as pool:
            pool._threads = Late()
            learner = sinusoids(Executor=pool)
            try:
                with pytest.raises(InvalidOperationException, match="Executor must not be the pool whose worker this"):
                    pool.submit(learner.MetaTrainStep, 2).result(timeout=30)
                learner.MetaTrainStep(2)
            finally:
                pool.shutdown(cancel_futures=True)

    def test_another_backend(self) -> None:
        model = NeuralNetworkModel(mlp(4, 1), input_shape=(1,), dtype=np.float64, backend="simulated", seed=0)
        loader = SinusoidLoader(seed=0, dtype=np.float64, backend="simulated")
        learner = MAMLAlgorithm(MAMLOptions(model, DataLoader=loader))
        with (
            ThreadPoolExecutor(1) as learner.Options.Executor,
            pytest.raises(NotSupportedException, match="Executor must be None for a model on backend 'simulated'"),
        ):
            learner.MetaTrainStep(2)


class Weighted(MAMLAlgorithm[Any, Any, Any, Any]):
    """Attributes of its own decide what it computes."""

    weight = 1.0

    def __init__(self, options: Any, factor: float = 1.0) -> None:
        super().__init__(options)
        self.factor = factor

    def meta_gradient(self, tasks: Any) -> Any:
        gradients, learned = super().meta_gradient(tasks)
        return gradients * (self.weight * self.factor), learned


def weighted(kind: Any = Weighted, *extra: Any, **given: Any) -> Any:
    model = NeuralNetworkModel(mlp(8, 1), input_shape=(1,), dtype=np.float64, seed=0)
    return kind(MAMLOptions(model, DataLoader=SinusoidLoader(seed=0, dtype=np.float64), **given), *extra)


class TestAttributesOfTheClass:
    def test_workers_get_them_as_they_are_at_the_step(self) -> None:
        with ThreadPoolExecutor(2) as pool:
            norms = []
            for executor in (None, pool):
                learner = weighted(Weighted, 2.0, Executor=executor, GradientClipThreshold=None)
                for learner.weight in (1.0, 3.0):
                    norms.append(learner.MetaTrainStep(5).AdditionalMetrics["MetaGradientNorm"])
                norms.append(learner.GetParameters().tobytes())
        assert norms[:3] == norms[3:]

    @pytest.mark.slow
    def test_processes_get_them(self, processes: ProcessPoolExecutor) -> None:
        plain, shared = weighted(), weighted(Executor=processes)
        plain.weight = shared.weight = 3.0
        for _ in range(2):
            assert plain.MetaTrainStep(5).AdditionalMetrics == shared.MetaTrainStep(5).AdditionalMetrics

    def test_one_that_pickle_does_not_take(self) -> None:
        with ThreadPoolExecutor(1) as pool:
            learner = weighted(Executor=pool)
            learner.weight = lambda: 1.0
            with pytest.raises(InvalidOperationException, match=r"Weighted\.weight must be something that pickle can"):
                learner.MetaTrainStep(2)

    def test_one_that_changes_on_a_worker(self) -> None:
        with ThreadPoolExecutor(1) as pool:
            for begun in (False, True):
                learner = weighted(Counting, Executor=pool)
                if begun:
                    learner.seen = 0
                with pytest.raises(InvalidOperationException, match=r"Counting\.seen must stay as it is while workers"):
                    learner.MetaTrainStep(2)

    def test_a_class_that_is_not_made_of_options_alone(self) -> None:
        with (
            ThreadPoolExecutor(1) as pool,
            pytest.raises(InvalidOperationException, match=r"Two must be made of its options alone.*\(options.*, two"),
        ):
            weighted(Two, 2, Executor=pool).MetaTrainStep(2)

    @pytest.mark.parametrize("kind", KINDS)
    def test_classes_of_the_package_have_none(self, kind: str) -> None:
        learner = learner_of(kind, steps=2)
        learner.Evaluate(2)
        assert (
            own_attributes.own_attributes(learner, own_attributes.those_of_library(type(learner), learner.Options))
            == {}
        )


class Counting(MAMLAlgorithm[Any, Any, Any, Any]):
    def meta_gradient(self, tasks: Any) -> Any:
        self.seen = getattr(self, "seen", 0) + len(tasks)
        return super().meta_gradient(tasks)


class Two(MAMLAlgorithm[Any, Any, Any, Any]):
    def __init__(self, options: Any, two: int) -> None:
        super().__init__(options)
        self.two = two


def test_copies_have_it_and_those_of_another_process_have_none() -> None:
    learner = learner_of("MAML", steps=0)
    with ThreadPoolExecutor(1) as learner.Options.Executor:
        options = [each(learner.Options) for each in (copy.copy, copy.deepcopy, lambda options: options.Clone())]
        assert all(copied.Executor is learner.Options.Executor for copied in options)
        copies = [learner.Clone(), copy.deepcopy(learner), learner.WithParameters(learner.GetParameters())]
        assert all(copied.Options.Executor is learner.Options.Executor for copied in copies)
        copies.append(pickle.loads(pickle.dumps(learner)))
        assert copies[-1].Options.Executor is None
        wanted = learner.MetaTrainStep(2).MetaLoss
        assert [copied.MetaTrainStep(2).MetaLoss for copied in copies] == [wanted] * 4


def test_an_executor_that_was_made_ends_with_its_learner() -> None:
    made: list[ThreadPoolExecutor] = []

    def make() -> Executor:
        made.append(ThreadPoolExecutor(1))
        return made[-1]

    learner = sinusoids(Executor=make)
    learner.MetaTrainStep(2)
    del learner
    with pytest.raises(RuntimeError, match="after shutdown"):
        made[0].submit(len, [])


@pytest.mark.slow
def test_classes() -> None:
    """Accuracies come back too."""
    rng = np.random.default_rng(0)
    model = NeuralNetworkModel(mlp(8, 3), input_shape=(2,), loss=CrossEntropyLoss(), dtype=np.float64, seed=0)
    sets = [(rng.standard_normal((6, 2)), np.arange(6) % 3, rng.standard_normal((9, 2)), np.arange(9) % 3)] * 5
    batch = TaskBatch([task_of(some, 3) for some in sets])
    learner = MAMLAlgorithm(MAMLOptions(model))
    wanted = learner.adaptation_curve(batch)
    with ThreadPoolExecutor(2) as learner.Options.Executor:
        np.testing.assert_equal(learner.adaptation_curve(batch), wanted)
