"""Learners that were given the same optimizer or the same loader, and processes forked in the midst of it all."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from amounts import rounds

from aidotnet_py import (
    AdamOptimizer,
    ArgumentException,
    Episode,
    InvalidOperationException,
    MAMLAlgorithm,
    MAMLOptions,
    NeuralNetworkModel,
    SGDOptimizer,
    TaskBatch,
)
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.locks import Lock
from aidotnet_py.nn import mlp


def network(seed: int = 0) -> Any:
    return NeuralNetworkModel(mlp(4, 1), input_shape=(1,), dtype=np.float64, seed=seed)


def loader(seed: int = 0) -> Any:
    return SinusoidLoader(4, 4, seed=seed, dtype=np.float64)


def learner(seed: int = 0, **options: Any) -> Any:
    # Of first order, for which there is half as much to trace; what learners share does not depend on it.
    given = {"AdaptationSteps": 2, "UseFirstOrder": True, "DataLoader": loader(seed)}
    return MAMLAlgorithm(MAMLOptions(network(seed), **(given | options)))


def parameters(of: Any) -> bytes:
    return bytes(of.BaseModel.GetParameters().tobytes())


class Heavyball:
    """An optimizer of the user's, with settings to be changed, what it remembers, and a lock that cannot be copied."""

    def __init__(self, rate: float = 0.05, *, keeps: bool = False) -> None:
        self.rate, self.keeps = rate, keeps
        self.velocity: Any = np.zeros(0)
        self.lock, self.calls = threading.Lock(), 0

    def UpdateParameters(self, parameters: Any, gradient: Any) -> Any:
        self.calls += 1
        if not self.velocity.size:
            self.velocity = np.zeros_like(parameters)
        # Written over in place, as an optimizer may that keeps the arrays it was given.
        self.velocity *= 0.9
        self.velocity += gradient
        return parameters - self.rate * self.velocity

    def Reset(self) -> None:
        self.velocity = np.zeros(0)

    def GetCurrentLearningRate(self) -> float:
        return self.rate

    def GetState(self) -> dict[str, Any]:
        return {"velocity": self.velocity.copy()}

    def SetState(self, state: Mapping[str, Any]) -> None:
        self.velocity = state["velocity"] if self.keeps else state["velocity"].copy()


class OpenHeavyball(Heavyball):
    """One that gives out the state that it goes on to write into."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}
        super().__init__()

    @property
    def velocity(self) -> Any:
        return self.state["velocity"]

    @velocity.setter
    def velocity(self, value: Any) -> None:
        self.state["velocity"] = value

    def GetState(self) -> dict[str, Any]:
        return self.state

    def SetState(self, state: Mapping[str, Any]) -> None:
        self.state.update(state)


class OpenLoader(SinusoidLoader[Any]):
    """A loader of the user's that gives out and takes up the state that it goes on to change."""

    def __init__(self) -> None:
        super().__init__(4, 4, seed=0, dtype=np.float64)
        self.own = {"drawn": 0}

    def GetTaskBatch(self, numTasks: int) -> Any:
        self.own["drawn"] += 1
        return SinusoidLoader(4, 4, seed=self.own["drawn"], dtype=np.float64).GetTaskBatch(numTasks)

    def SetSeed(self, seed: int) -> None:
        self.own["drawn"] = 0

    def GetState(self) -> dict[str, Any]:
        return self.own

    def SetState(self, state: Mapping[str, Any]) -> None:
        self.own = state  # type: ignore[assignment]


class OpenSampler(OpenLoader):
    """A sampler of the kind."""

    NumWays, NumShots, NumQueryPerClass = 1, 4, 4

    def SampleBatch(self, batchSize: int) -> Any:
        return TaskBatch(self.GetTaskBatch(batchSize))

    def SampleOne(self) -> Any:
        return Episode(self.GetTaskBatch(1)[0])

    def UpdateWithFeedback(self, episodes: Any, losses: Any) -> None:
        pass


MAKERS: dict[str, Callable[[], Any]] = {
    "Adam": lambda: AdamOptimizer(0.01),
    "momentum": lambda: SGDOptimizer(0.01, momentum=0.9),
    "the user's": Heavyball,
    "the user's, which keeps arrays": lambda: Heavyball(keeps=True),
    "the user's, which gives its state out": OpenHeavyball,
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
class TestOptimizers:
    def alone(self, make: Any, steps: int = 4, seed: int = 0) -> Any:
        one = learner(seed, MetaOptimizer=make())
        for _ in range(steps):
            one.MetaTrainStep(2)
        return one

    @pytest.mark.costly
    def test_two_learners_do_not_mix_their_past(self, make: Any) -> None:
        shared = make()
        first, second = (learner(seed, MetaOptimizer=shared) for seed in (0, 1))
        for _ in range(4):
            first.MetaTrainStep(2)
            second.MetaTrainStep(2)
        for seed, one in enumerate((first, second)):
            assert parameters(one) == parameters(self.alone(make, seed=seed))
            assert one.Options.MetaOptimizer is shared

    @pytest.mark.costly
    def test_nor_do_those_of_cloned_options(self, make: Any) -> None:
        first = learner(MetaOptimizer=make())
        options = first.Options.Clone()
        options.MetaModel, options.DataLoader = network(1), loader(1)
        second = MAMLAlgorithm(options)
        for _ in range(4):
            first.MetaTrainStep(2)
            second.MetaTrainStep(2)
        assert parameters(first) == parameters(self.alone(make))
        assert parameters(second) == parameters(self.alone(make, seed=1))

    def test_the_object_given_is_as_it_was(self, make: Any) -> None:
        given, untouched = make(), make()
        one = learner(MetaOptimizer=given)
        one.MetaTrainStep(2)
        one.Reset()
        one.MetaTrainStep(2)
        assert {n: np.asarray(v).tolist() for n, v in given.GetState().items()} == {
            n: np.asarray(v).tolist() for n, v in untouched.GetState().items()
        }

    @pytest.mark.parametrize("act", ["Reset", "SetMetaModel"])
    def test_a_past_is_forgotten_before_the_first_step_too(self, make: Any, act: str) -> None:
        used = make()
        used.UpdateParameters(np.ones(3), np.ones(3))
        one = learner(MetaOptimizer=used)
        if act == "Reset":
            one.Reset()
        else:
            one.SetMetaModel(network())
        one.MetaTrainStep(2)
        assert parameters(one) == parameters(self.alone(make, 1))

    @pytest.mark.parametrize("act", ["Reset", "SetMetaModel", "Load"])
    def test_what_one_learner_does_leaves_the_other_alone(self, make: Any, act: str, tmp_path: Path) -> None:
        shared = make()
        first, second = learner(0, MetaOptimizer=shared), learner(1, MetaOptimizer=shared)
        for _ in range(2):
            first.MetaTrainStep(2)
            second.MetaTrainStep(2)
        if act == "Reset":
            second.Reset()
        elif act == "SetMetaModel":
            second.SetMetaModel(NeuralNetworkModel(mlp(7, 1), input_shape=(1,), dtype=np.float64, seed=2))
        else:
            self.alone(make, 3, seed=1).Save(tmp_path / "run.safetensors")
            second.Load(tmp_path / "run.safetensors")
            second.MetaTrainStep(2)
            assert parameters(second) == parameters(self.alone(make, 4, seed=1))
        for _ in range(2):
            first.MetaTrainStep(2)
        assert parameters(first) == parameters(self.alone(make))

    def test_the_past_that_it_is_given_with_counts(self, make: Any) -> None:
        batch = loader(9).GetTaskBatch(2)
        first = learner(MetaOptimizer=make())
        first.MetaTrain(batch)
        given = make()
        given.SetState(first._meta_optimizer().GetState())
        second = learner(MetaOptimizer=given)
        second.BaseModel.SetParameters(first.BaseModel.GetParameters())
        for one in (first, second):
            one.MetaTrain(batch)
        assert parameters(first) == parameters(second)

    def test_one_that_comes_back_into_the_options_goes_on(self, make: Any) -> None:
        given, batch = make(), loader(9).GetTaskBatch(2)
        one = learner(MetaOptimizer=given)
        one.MetaTrain(batch)
        theta, past = one.BaseModel.GetParameters(), one._meta_optimizer().GetState()
        one.Options.MetaOptimizer = SGDOptimizer(0.1)
        one.MetaTrain(batch)
        one.Options.MetaOptimizer = given
        one.BaseModel.SetParameters(theta)
        one.MetaTrain(batch)
        again = make()
        again.SetState(past)
        other = learner(MetaOptimizer=again)
        other.BaseModel.SetParameters(theta)
        other.MetaTrain(batch)
        assert parameters(one) == parameters(other)

    def test_a_failed_update_is_undone(self, make: Any) -> None:
        one, batch = learner(MetaOptimizer=make()), loader(9).GetTaskBatch(2)
        one.MetaTrain(batch)
        before, set_parameters = parameters(one), one.BaseModel.SetParameters
        failing = [True]

        def refuse(values: Any) -> None:
            if failing.pop() if failing else False:
                raise TimeoutError
            set_parameters(values)

        one.BaseModel.SetParameters = refuse
        with pytest.raises(TimeoutError):
            one.MetaTrain(batch)
        del one.BaseModel.SetParameters
        assert parameters(one) == before
        one.MetaTrain(batch)
        twice = learner(MetaOptimizer=make())
        for _ in range(2):
            twice.MetaTrain(batch)
        assert parameters(one) == parameters(twice)


def test_settings_of_an_optimizer_are_read_when_used() -> None:
    given, batch = Heavyball(0.05), loader(9).GetTaskBatch(2)
    one = learner(MetaOptimizer=given)
    one.MetaTrain(batch)
    given.rate = 0.0
    assert one.OuterLearningRate == 0.0
    before = parameters(one)
    one.MetaTrain(batch)
    assert parameters(one) == before
    assert given.calls == 2


def test_a_state_that_the_optimizer_refuses_is_refused(tmp_path: Path) -> None:
    learner(MetaOptimizer=AdamOptimizer(0.1)).Save(tmp_path / "run.safetensors")
    one = learner(1, MetaOptimizer=AdamOptimizer(0.1))
    one.MetaTrainStep(2)
    before = parameters(one), one._meta_optimizer().GetState()
    with pytest.raises(ArgumentException):
        one._meta_optimizer().SetState({"steps": -1})
    assert (parameters(one), one._meta_optimizer().GetState()) == before


class TestLoaders:
    @pytest.mark.parametrize("seed", [None, 3])
    @pytest.mark.parametrize("does", ["nothing", "draws", "resets", "trains", "saves"])
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_another_learner_over_it_does_not_move_the_draws(
        self, seed: int | None, does: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def run(other: bool) -> list[Any]:
            shared = loader()
            first = learner(DataLoader=shared, RandomSeed=seed)
            losses = [first.MetaTrainStep(2).MetaLoss]
            for _ in range(2):
                if other:
                    second = learner(1, DataLoader=shared, RandomSeed=3, NumMetaIterations=3, EvaluationFrequency=2)
                    second.Options.EvaluationTasks = 5
                    if does == "draws":
                        second.Evaluate(3)
                    elif does == "resets":
                        second.Reset()
                    elif does == "trains":
                        second.Train()
                    elif does == "saves":
                        second.Save(tmp_path / "run.safetensors")
                        second.Load(tmp_path / "run.safetensors")
                    del second
                losses.append(first.MetaTrainStep(2).MetaLoss)
            return losses

        assert run(other=True) == run(other=False)

    def test_evaluations_do_not_move_one_that_gives_its_state_out(self) -> None:
        often, never = (
            learner(DataLoader=OpenLoader(), NumMetaIterations=4, EvaluationTasks=2, EvaluationFrequency=frequency)
            for frequency in (1, 0)
        )
        assert often.Train().LossHistory.tolist() == never.Train().LossHistory.tolist()
        assert often.Options.DataLoader.own == {"drawn": 4}
        held_out = OpenLoader()
        learner(ValidationLoader=held_out, NumMetaIterations=2, EvaluationTasks=2, EvaluationFrequency=1).Train()
        assert held_out.own == {"drawn": 0}

    @pytest.mark.parametrize("source", ["loader", "sampler", "sampler of a run"])
    def test_a_failed_step_puts_one_back_that_gives_its_state_out(self, source: str) -> None:
        given = OpenSampler()
        one = learner(**({"DataLoader": given} if source == "loader" else {}))
        draw: dict[str, Callable[[], Any]] = {
            "loader": lambda: one.MetaTrainStep(2),
            "sampler": lambda: one.MetaTrainStep(given, 2),
            "sampler of a run": lambda: one.Train(given),
        }
        one.Options.NumMetaIterations, one.Options.MetaBatchSize = 1, 1
        draw[source]()
        one.Options.InnerLearningRate = 1e200
        for _ in range(2):
            with pytest.raises(InvalidOperationException):
                draw[source]()
            assert given.own == {"drawn": 1}

    def test_reset_rewinds_one_that_gives_its_state_out(self) -> None:
        one = learner(DataLoader=OpenLoader())
        for _ in range(2):
            one.MetaTrainStep(2)
            one.MetaTrainStep(2)
            one.Reset()
            assert one.Options.DataLoader.own == {"drawn": 0}

    def test_each_learner_has_the_draws_that_it_would_have_alone(self) -> None:
        shared = loader()
        seeds = (3, 4)
        pair = [learner(k, DataLoader=shared, RandomSeed=seed) for k, seed in enumerate(seeds)]
        found = [[one.MetaTrainStep(2).MetaLoss for one in pair] for _ in range(4)]
        for k, seed in enumerate(seeds):
            alone = learner(k, DataLoader=loader(), RandomSeed=seed)
            assert [row[k] for row in found] == [alone.MetaTrainStep(2).MetaLoss for _ in range(4)]

    def test_one_that_has_drawn_nothing_begins_where_the_loader_is(self) -> None:
        shared, twin = loader(), loader()
        first, second = learner(DataLoader=shared), learner(DataLoader=shared)
        first.MetaTrainStep(3)
        twin.GetTaskBatch(3)
        later = learner(DataLoader=twin)
        assert second.MetaTrainStep(2).MetaLoss == later.MetaTrainStep(2).MetaLoss

    def test_a_loader_that_the_user_moves_is_taken_from_there(self) -> None:
        shared = loader()
        first, second = learner(DataLoader=shared), learner(DataLoader=shared)
        first.MetaTrainStep(2)
        second.MetaTrainStep(2)
        shared.SetSeed(8)
        first.BaseModel.SetParameters(network().GetParameters())
        twin = learner(DataLoader=loader(8))
        assert first.MetaTrainStep(2).TaskLoss == twin.MetaTrainStep(2).TaskLoss

    def test_a_saved_learner_knows_its_own_place(self, tmp_path: Path) -> None:
        shared = loader()
        first, second = learner(0, DataLoader=shared), learner(1, DataLoader=shared)
        first.MetaTrainStep(2)
        second.MetaTrainStep(5)
        first.Save(tmp_path / "run.safetensors")
        resumed = learner(2, DataLoader=loader(9))
        resumed.Load(tmp_path / "run.safetensors")
        assert resumed.MetaTrainStep(2).MetaLoss == first.MetaTrainStep(2).MetaLoss

    @pytest.mark.parametrize("kept", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
    @pytest.mark.parametrize("others", [0, 1])
    @pytest.mark.parametrize("held_out", [False, True])
    def test_a_copy_with_its_loader_knows_its_own_place(
        self, kept: Callable[[Any], Any], others: int, held_out: bool
    ) -> None:
        shared = loader()
        given: dict[str, Any] = {"ValidationLoader": shared} if held_out else {}
        first = learner(0, DataLoader=shared, NumMetaIterations=2, EvaluationFrequency=1, EvaluationTasks=2, **given)
        second = learner(1, DataLoader=shared)
        first.Train()
        for _ in range(others):
            second.MetaTrainStep(2)
        copied = kept(first)
        results = [one.Train() for one in (copied, first)]
        metrics = [list(result.LossHistory) + list(result.AdditionalMetrics.values()) for result in results]
        np.testing.assert_array_equal(*metrics)

    def test_evaluations_of_a_run_do_not_move_another_learner(self) -> None:
        def run(other: bool) -> Any:
            shared = loader()
            first = learner(0, DataLoader=shared, NumMetaIterations=6, EvaluationFrequency=2, EvaluationTasks=3)
            second = learner(1, DataLoader=shared, RandomSeed=5)
            evaluate = first.Evaluate

            def in_between(count: int) -> Any:
                if other:
                    second.MetaTrainStep(2)
                return evaluate(count)

            first.Evaluate = in_between  # type: ignore[method-assign]
            return first.Train().LossHistory.tolist()

        assert run(other=True) == run(other=False)

    def test_threads_that_draw_for_learners_of_one_loader(self) -> None:
        shared = loader()
        learners = [learner(k, DataLoader=shared, RandomSeed=k) for k in range(3)]
        threads = [
            threading.Thread(target=lambda one=one: [one.MetaTrainStep(2) for _ in range(10)]) for one in learners
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        for k, one in enumerate(learners):
            alone = learner(k, DataLoader=loader(), RandomSeed=k)
            for _ in range(10):
                alone.MetaTrainStep(2)
            assert parameters(one) == parameters(alone)


FORKS = """
import faulthandler, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import numpy as np
import threadpoolctl
from forks import forked, found_by
from aidotnet_py import MAMLAlgorithm, MAMLOptions, NeuralNetworkModel, TaskBatch
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.nn import mlp

rounds = int(sys.argv[1])
model = NeuralNetworkModel(mlp(6, 1), input_shape=(1,), dtype=np.float64, seed=0)
loader = SinusoidLoader(4, 4, seed=0, dtype=np.float64)
learner = MAMLAlgorithm(MAMLOptions(model, AdaptationSteps=2, DataLoader=loader))
tasks = list(loader.GetTaskBatch(4))
# A fork in the midst of a module's first import leaves Python's own lock of it held in the child.
learner.MetaTrainStep(2)
learner.Adapt(tasks[0]).Predict(tasks[0].QueryInput)
learner.Save(sys.argv[2] + "/child.safetensors")
blas = lambda: [one["num_threads"] for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"]
before = blas()
over = threading.Event()

def busy(number):
    rng = np.random.default_rng(number)
    while not over.is_set():
        # Shapes that were never seen are traced and planned, under locks of many kinds.
        shots = int(rng.integers(2, 60))
        task = SinusoidLoader(shots, shots, seed=number, dtype=np.float64).GetNextTask()
        if number % 2:
            learner.MetaTrainStep(2)
        learner.Adapt(task).Predict(task.QueryInput)

faulthandler.enable()
threads = [threading.Thread(target=busy, args=(k,)) for k in range(3)]
for thread in threads:
    thread.start()

def works():
    theta = learner.BaseModel.GetParameters()
    adapted = learner.Adapt(tasks[0])
    alone = MAMLAlgorithm(MAMLOptions(model.Clone(), AdaptationSteps=2))
    same = np.array_equal(adapted.GetParameters(), alone.Adapt(tasks[0]).GetParameters())
    learner.MetaTrainStep(2)
    learner.Save(sys.argv[2] + "/child.safetensors")
    adapted.Predict(tasks[1].QueryInput)
    model.Train(tasks[0].SupportInput, tasks[0].SupportOutput)
    return same and blas() == before

failed = 0
for turn in range(rounds):
    time.sleep(0.01)
    failed += found_by(forked(works)) is not True
over.set()
for thread in threads:
    thread.join()
print("failed", failed, blas() == before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_forked_while_threads_work_can_work_too(tmp_path: Path) -> None:
    forks = rounds(5)
    run = subprocess.run(
        [sys.executable, "-c", FORKS, str(forks), str(tmp_path)],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120 + 30 * forks,
    )
    assert run.stdout == "failed 0 True\n", run.stdout + run.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_lock_that_another_thread_holds_is_free_in_a_forked_process() -> None:
    lock, own, held, over = Lock(), Lock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            over.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    try:
        # That of the thread which forks stays with it, and is left in the ordinary way.
        with own:
            child = os.fork()
            if child == 0:
                signal.alarm(30)
                with lock, own:
                    pass
        if child == 0:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        over.set()
        thread.join(60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork")
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_a_copied_loader_that_draws_can_draw_in_a_forked_process(copied: Callable[[Any], Any]) -> None:
    other = copied(SinusoidLoader(4, 4, seed=0))
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with other._stream.generator.bit_generator.lock:
            held.set()
            over.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    try:
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            other.GetNextTask()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        over.set()
        thread.join(60)


def test_a_copied_lock_is_another_one_and_free() -> None:
    lock = Lock()
    with lock:
        for other in (copy.deepcopy(lock), pickle.loads(pickle.dumps(lock))):
            thread = threading.Thread(target=other.__enter__)
            thread.start()
            thread.join(60)
            assert not thread.is_alive()
