"""Learners, models, programs and loaders in several threads, and in the middle of each other: the bits of one thread.

AIDOTNET_STRESS_ROUNDS says how often the calls are mixed; the default takes seconds, a thousand an hour.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import count, cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import threadpoolctl
from amounts import rounds
from begun_again import begun_again
from numpy_doubles import Threads
from plain_models import HandWrittenModel
from tanh_network import TanhNetwork, Values, batch_of

from aidotnet_py import (
    AdamOptimizer,
    ANILAlgorithm,
    ANILOptions,
    BOILAlgorithm,
    BOILOptions,
    FunctionModel,
    MAMLAlgorithm,
    MAMLOptions,
    MeanSquaredErrorLoss,
    MetaLearningTask,
    MetaSGDAlgorithm,
    MetaSGDOptions,
    NeuralNetworkModel,
    ReptileAlgorithm,
    ReptileOptions,
    SGDOptimizer,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py import autodiff as ad
from aidotnet_py.backends import Backend, NumPyBackend, get_backend
from aidotnet_py.backends.numpy.blas_threads import OneThread
from aidotnet_py.data import DigitsLoader, SinusoidLoader
from aidotnet_py.exchange import state_dict
from aidotnet_py.implicit import implicit_diff
from aidotnet_py.meta_learning.objective import buffers
from aidotnet_py.meta_learning.objective.buffers import Workspace
from aidotnet_py.models import function_model
from aidotnet_py.nn import BatchNorm, Dense, Sequential, mlp
from aidotnet_py.optimizers import NewtonCGMinimizer
from aidotnet_py.testing.learner_state import bits

NETWORK = TanhNetwork()


@pytest.fixture(autouse=True)
def many_switches() -> Iterator[None]:
    """Have the interpreter change threads a thousand times as often as it does by itself."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


def at_once(calls: Sequence[Callable[[], Any]], threads: int = 4) -> list[Any]:
    """What the calls give, in several threads, which begin together."""
    begin = threading.Barrier(min(threads, len(calls)), timeout=60)
    with ThreadPoolExecutor(begin.parties, initializer=begin.wait) as pool:
        return [future.result(timeout=600) for future in [pool.submit(call) for call in calls]]


def network(backend: Any = "numpy", seed: int = 0) -> Any:
    return NeuralNetworkModel(mlp(6, 5, 1), input_shape=(1,), dtype=np.float64, backend=backend, seed=seed)


Make = Callable[[Any], Any]
LEARNERS: dict[str, Make] = {
    "MAML": lambda b: MAMLAlgorithm(MAMLOptions(network(b), AdaptationSteps=4)),
    "FOMAML": lambda b: MAMLAlgorithm(MAMLOptions(network(b), AdaptationSteps=4, UseFirstOrder=True)),
    "MAML by Adam": lambda b: MAMLAlgorithm(
        MAMLOptions(network(b), AdaptationSteps=3, InnerOptimizer=AdamOptimizer(0.01), CheckpointSegments="sqrt")
    ),
    "proximal MAML": lambda b: MAMLAlgorithm(MAMLOptions(network(b), AdaptationSteps=3, InnerObjective="proximal")),
    "iMAML": lambda b: iMAMLAlgorithm(iMAMLOptions.FromPaper(network(b), Lambda=2.0, AdaptationSteps=4)),
    "iMAML by Gauss-Newton, λ learned": lambda b: iMAMLAlgorithm(
        iMAMLOptions(
            network(b),
            AdaptationSteps=4,
            InnerObjective="proximal",
            LambdaRegularization=0.5,
            Curvature="gauss-newton",
            LearnedLambda="per-parameter",
            OuterLearningRate=0.1,
        )
    ),
    "iMAML by a minimiser": lambda b: iMAMLAlgorithm(
        iMAMLOptions.FromPaper(network(b), Lambda=2.0, InnerOptimizer=NewtonCGMinimizer(max_iterations=3))
    ),
    "ANIL": lambda b: ANILAlgorithm(ANILOptions(network(b), AdaptationSteps=4)),
    "BOIL": lambda b: BOILAlgorithm(BOILOptions(network(b), AdaptationSteps=3)),
    "Meta-SGD": lambda b: MetaSGDAlgorithm(MetaSGDOptions(network(b), AdaptationSteps=3, OuterLearningRate=0.01)),
    "Reptile": lambda b: ReptileAlgorithm(ReptileOptions(network(b), AdaptationSteps=4)),
    "serial Reptile": lambda b: ReptileAlgorithm(
        ReptileOptions(network(b), AdaptationSteps=3, UseSerialUpdate=True, OuterLearningRate=0.5)
    ),
}
# One of each kind: through the inner steps, of their end alone, by solves, and of what is learned beside a start.
BY_DEFAULT = {"MAML", "Reptile", "iMAML", "Meta-SGD"}
EACH = pytest.mark.parametrize(
    "make",
    [pytest.param(m, id=name, marks=() if name in BY_DEFAULT else pytest.mark.slow) for name, m in LEARNERS.items()],
)


def tasks_of(backend: Any, shots: int, count: int, seed: int = 1) -> list[Any]:
    loader = SinusoidLoader(shots, shots + 1, seed=seed, dtype=np.float64, backend=backend)
    return list(loader.GetTaskBatch(count))


def in_batches(task: Any, parts: int = 2) -> Any:
    """The same task, its support set in batches."""
    size = task.SupportInput.shape[0] // parts
    x, y = ([a[k * size : (k + 1) * size, :] for k in range(parts)] for a in (task.SupportInput, task.SupportOutput))
    return MetaLearningTask(
        SupportSetX=x, SupportSetY=y, QuerySetX=task.QueryInput, QuerySetY=task.QueryOutput, NumWays=1
    )


def questions(learner: Any, backend: Backend) -> list[Callable[[], Any]]:
    """Calls that leave the learner as it is, on tasks of several shapes, each giving what can be compared."""

    def predicted(task: Any) -> Any:
        return backend.to_numpy(learner.Adapt(task).Predict(task.QueryInput))

    def measured(task: Any) -> Any:
        found = learner.AdaptAndEvaluate(task)
        return [found.QueryLoss, found.SupportLoss, found.PerStepLosses]

    calls: list[Callable[[], Any]] = []
    for shots in (4, 6):
        tasks = tasks_of(backend, shots, 3)
        for task in tasks:
            calls.append(lambda t=task: predicted(t))
            calls.append(lambda t=task: learner.Evaluate(TaskBatch([t])))
        batch = TaskBatch(tasks)
        calls += [lambda b=batch: learner.Evaluate(b), lambda t=tasks[0]: measured(t)]
        calls.append(lambda b=batch: tuple(learner.mean_meta_gradient(b)))
    divided = in_batches(tasks[0])
    calls += [lambda: predicted(divided), lambda: learner.Evaluate(TaskBatch([divided]))]
    if not isinstance(learner.Options.InnerOptimizer, NewtonCGMinimizer):
        calls.append(lambda: list(learner.adaptation_curve(batch, 2)))
    return calls


@pytest.mark.numpy_first
class TestQuestions:
    """Adapt, Evaluate and the others in any number of threads."""

    @pytest.mark.slow
    @EACH
    def test_mixed_calls(self, make: Make) -> None:
        learner = make("numpy")
        calls = questions(learner, get_backend("numpy"))
        expected = [bits(call()) for call in calls]
        order = np.random.default_rng(0)
        for _ in range(rounds()):
            places = [int(i) for _ in range(2) for i in order.permutation(len(calls))]
            found = at_once([calls[i] for i in places])
            assert [bits(one) for one in found] == [expected[i] for i in places]

    @pytest.mark.parametrize("name", ["MAML", "iMAML", "ANIL"])
    def test_on_every_backend(self, backend: Backend, name: str) -> None:
        learner = LEARNERS[name](backend.name)
        calls = questions(learner, backend)[:6]
        expected = [bits(call()) for call in calls]
        assert [bits(one) for one in at_once(calls * 2)] == expected * 2

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["MAML", "iMAML", "BOIL", "Meta-SGD"])
    def test_calls_that_work_in_lanes_themselves(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(NumPyBackend, "flops_at_once", 1)
        backend = Threads(2)
        learner = LEARNERS[name](backend)
        batches = [TaskBatch(tasks_of(backend, shots, 5)) for shots in (4, 5)]
        calls = [lambda b=batch: learner.Evaluate(b) for batch in batches] * 4
        expected = [bits(call()) for call in calls]
        for _ in range(rounds()):
            assert [bits(one) for one in at_once(calls)] == expected

    @pytest.mark.slow
    def test_several_learners_of_one_model(self) -> None:
        model = network()
        learners = [MAMLAlgorithm(MAMLOptions(model)), ReptileAlgorithm(ReptileOptions(model))]
        calls = [call for learner in learners for call in questions(learner, get_backend("numpy"))]
        expected = [bits(call()) for call in calls]
        for _ in range(rounds()):
            assert [bits(one) for one in at_once(calls)] == expected

    @pytest.mark.slow
    def test_models_with_gradients_of_their_own(self) -> None:
        backend = get_backend("numpy")
        learner = MAMLAlgorithm(
            MAMLOptions(HandWrittenModel(NETWORK, NETWORK.start(), backend), UseFirstOrder=True, AdaptationSteps=2)
        )
        batches = [batch_of(backend, NETWORK.sets(2, seed)) for seed in range(4)]
        calls = [lambda b=batch: learner.Evaluate(b) for batch in batches] * 3
        expected = [bits(call()) for call in calls]
        for _ in range(rounds(5)):
            assert [bits(one) for one in at_once(calls)] == expected


class TestTraining:
    """Steps take turns; who reads meanwhile sees the learner before or after one, and never in between."""

    @pytest.mark.slow
    @EACH
    def test_evaluated_meanwhile(self, make: Make) -> None:
        batch, probe = TaskBatch(tasks_of("numpy", 4, 3)), TaskBatch(tasks_of("numpy", 5, 2, seed=3))
        one_by_one = make("numpy")
        possible = [bits(one_by_one.Evaluate(probe))]
        # Where each task moves the parameters, each is a step.
        parts = batch.Split(3) if getattr(one_by_one.Options, "UseSerialUpdate", False) else [batch]
        for part in parts * 6:
            one_by_one.MetaTrain(part)
            possible.append(bits(one_by_one.Evaluate(probe)))
        assert len(set(possible)) == len(possible)
        for together in begun_again(lambda: make("numpy")):
            seen = self.evaluations_beside_training(together, batch, probe)
            assert seen
            assert set(seen) <= set(possible)
            assert bits(together.BaseModel.GetParameters()) == bits(one_by_one.BaseModel.GetParameters())
            assert bits(together.Evaluate(probe)) == possible[-1]

    def evaluations_beside_training(self, learner: Any, batch: Any, probe: Any) -> list[Any]:
        over = threading.Event()
        seen: list[Any] = []

        def train() -> None:
            try:
                for _ in range(6):
                    learner.MetaTrain(batch)
            finally:
                over.set()

        def watch() -> None:
            while not over.is_set():
                seen.append(bits(learner.Evaluate(probe)))

        at_once([train, watch, watch])
        return seen

    @pytest.mark.costly
    @EACH
    def test_in_several_threads(self, make: Make) -> None:
        def new() -> Any:
            learner = make("numpy")
            learner.Options.DataLoader = SinusoidLoader(4, 4, seed=5, dtype=np.float64)
            return learner

        one_by_one = next(begun_again(new))
        expected = [one_by_one.MetaTrainStep(2) for _ in range(8)]
        for together in begun_again(new):
            found = at_once([lambda it=together: it.MetaTrainStep(2)] * 8)
            found.sort(key=lambda step: step.Iteration)
            assert [step.Iteration for step in found] == [step.Iteration for step in expected]
            for one, other in zip(found, expected, strict=True):
                assert bits([one.MetaLoss, one.TaskLoss]) == bits([other.MetaLoss, other.TaskLoss])
                assert one.AdditionalMetrics == other.AdditionalMetrics
            for state in (lambda it: it.BaseModel.GetParameters(), lambda it: dict(it._meta_optimizer().GetState())):
                assert bits(state(together)) == bits(state(one_by_one))

    @pytest.mark.parametrize("name", ["Meta-SGD", "iMAML by Gauss-Newton, λ learned"])
    def test_asked_while_a_step_sets_what_it_learned(self, name: str) -> None:
        """The parameters and what is learned beside them change together, however long a model takes to set its own."""
        batch, alone, learner = TaskBatch(tasks_of("numpy", 4, 2)), LEARNERS[name]("numpy"), LEARNERS[name]("numpy")
        possible = [bits(alone.Evaluate(batch))]
        alone.MetaTrain(batch)
        possible.append(bits(alone.Evaluate(batch)))
        learner.Evaluate(batch)
        set_parameters, setting = learner.BaseModel.SetParameters, threading.Event()

        def slowly(parameters: Any) -> None:
            setting.set()
            time.sleep(0.2)
            set_parameters(parameters)

        def ask() -> Any:
            setting.wait(60)
            return bits(learner.Evaluate(batch))

        learner.BaseModel.SetParameters = slowly
        _, found = at_once([lambda: learner.MetaTrain(batch), ask])
        assert found in possible

    def test_saved_meanwhile(self, tmp_path: Path) -> None:
        """Every file holds the learner after some step, whole."""
        batch = TaskBatch(tasks_of("numpy", 4, 2))
        one_by_one, together = LEARNERS["Meta-SGD"]("numpy"), LEARNERS["Meta-SGD"]("numpy")

        def state(learner: Any) -> Any:
            return bits([learner._meta_parameters(), sorted(bits(dict(learner._meta_optimizer().GetState())).items())])

        possible = [state(one_by_one)]
        for _ in range(10):
            one_by_one.MetaTrain(batch)
            possible.append(state(one_by_one))
        calls = [lambda: together.MetaTrain(batch)] * 10
        calls[2::3] = [lambda i=i: together.Save(tmp_path / f"{i}.safetensors") for i in range(len(calls[2::3]))]
        at_once(calls)
        files = list(tmp_path.iterdir())
        assert len(files) == 3
        for file in files:
            loaded = LEARNERS["Meta-SGD"]("numpy")
            loaded.Load(file)
            assert state(loaded) in possible

    def test_another_model_meanwhile(self) -> None:
        """A call works with the model that it began with, of whatever size."""
        sizes = [NeuralNetworkModel(mlp(n, 1), input_shape=(1,), dtype=np.float64, seed=n) for n in (3, 5)]
        learner, alone = (MetaSGDAlgorithm(MetaSGDOptions(sizes[0], AdaptationSteps=2)) for _ in range(2))
        task = tasks_of("numpy", 4, 1)[0]
        possible = []
        for model in sizes:
            alone.SetMetaModel(model)
            possible.append(bits(alone.Adapt(task).Predict(task.QueryInput)))

        def exchange(model: Any) -> None:
            learner.SetMetaModel(model)

        calls: list[Callable[[], Any]] = []
        for _ in range(rounds(10)):
            calls += [lambda m=model: exchange(m) for model in sizes]
            calls += [lambda: learner.Adapt(task).Predict(task.QueryInput)] * 4
        found = [bits(one) for one in at_once(calls) if one is not None]
        assert set(found) <= set(possible)

    @pytest.mark.slow
    def test_adapted_while_layers_are_exchanged(self) -> None:
        """ANIL names the adapted layers of the model that the call began with."""
        sizes = [NeuralNetworkModel(mlp(n, 1), input_shape=(1,), dtype=np.float64, seed=n) for n in (3, 5)]
        learner = ANILAlgorithm(ANILOptions(sizes[0], AdaptationSteps=2))
        task = tasks_of("numpy", 4, 1)[0]
        possible = [
            bits(ANILAlgorithm(ANILOptions(model, AdaptationSteps=2)).Adapt(task).GetParameters()) for model in sizes
        ]
        calls: list[Callable[[], Any]] = []
        for turn in range(rounds(10)):
            calls += [lambda m=sizes[turn % 2]: learner.SetMetaModel(m)]
            calls += [lambda: learner.Adapt(task).GetParameters()] * 4
        found = [bits(one) for one in at_once(calls) if one is not None]
        assert set(found) <= set(possible)


def line_task(slope: float) -> MetaLearningTask[Any, Any, Any]:
    x = np.linspace(-1, 1, 6)[:, None]
    return MetaLearningTask(SupportSetX=x, SupportSetY=slope * x, QuerySetX=x, QuerySetY=slope * x + 0.1, NumWays=1)


class TestNested:
    """A solver of the user's that asks the learner for something in the middle of its own step."""

    def trained(self, disturb: Callable[[Any], Any], backend: Any = "numpy", tasks: int = 2) -> Values:
        model = FunctionModel(
            lambda p, x: np.tanh(x @ p["a"]) @ p["b"],
            {"a": np.full((1, 3), 0.3), "b": np.full((3, 1), 0.2)},
            backend=backend,
        )

        def solver(objective: Any, theta: Any) -> Any:
            phi = theta.copy()
            for step in range(4):
                if step == 2 and not busy.is_set():
                    busy.set()
                    disturb(learner)
                    busy.clear()
                phi = phi - 0.1 * objective(phi)[1]
            return phi

        busy = threading.Event()
        learner = iMAMLAlgorithm(iMAMLOptions.FromPaper(model, Lambda=1.0, InnerOptimizer=solver))
        learner.MetaTrain(TaskBatch([line_task(1.0 + k) for k in range(tasks)]))
        return np.array(learner.BaseModel.GetParameters())

    @pytest.mark.costly
    @pytest.mark.parametrize("lanes", [False, True])
    def test_what_it_asks_leaves_the_step_as_it_was(
        self, lanes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backend: Any = "numpy"
        if lanes:
            monkeypatch.setattr(NumPyBackend, "flops_at_once", 1)
            backend = Threads(2)
        # Of the same shapes as the step's own, so that it would work in the same buffers.
        probe = TaskBatch([line_task(5.0), line_task(6.0)])
        plain = self.trained(lambda learner: None, backend)
        for disturb in (
            lambda learner: learner.Evaluate(probe),
            lambda learner: learner.Adapt(probe[0]),
            lambda learner: learner.Save(tmp_path / "learner.safetensors"),
            lambda learner: at_once([lambda: learner.Evaluate(probe)] * 3),
        ):
            assert bits(self.trained(disturb, backend)) == bits(plain)

    def test_an_objective_that_outlives_its_call_has_buffers_of_its_own(self) -> None:
        kept: list[Any] = []

        def solver(objective: Any, theta: Any) -> Any:
            kept.append((objective, theta.copy()))
            return theta - 0.1 * objective(theta)[1]

        learner = iMAMLAlgorithm(iMAMLOptions.FromPaper(network(), Lambda=1.0, InnerOptimizer=solver))
        first, second = (TaskBatch([task]) for task in tasks_of("numpy", 4, 2))
        learner.Evaluate(first)
        (objective, theta), expected = kept[0], kept[0][0](kept[0][1])
        learner.Options.InnerOptimizer = None
        alone = bits(learner.Evaluate(second))

        def ask() -> Any:
            return [bits(objective(theta)) for _ in range(30)]

        found = at_once([ask, lambda: [bits(learner.Evaluate(second)) for _ in range(30)]], threads=2)
        assert found == [[bits(expected)] * 30, [alone] * 30]


class TestWorkspaces:
    @pytest.mark.slow
    def test_threads_that_end_leave_few_behind(self) -> None:
        learner = LEARNERS["MAML"]("numpy")
        tasks = tasks_of("numpy", 4, 8)
        before = self.alive()
        for _ in range(3):
            at_once([lambda t=task: learner.Adapt(t) for task in tasks * 3], threads=8)
            assert 1 <= len(learner._objectives._workspaces) <= buffers._MOST_IDLE
            assert self.alive() - before == len(learner._objectives._workspaces)

    def alive(self) -> int:
        gc.collect()
        return sum(type(one) is Workspace for one in gc.get_objects())

    @pytest.mark.slow
    def test_beyond_the_bound_of_bytes_only_the_last_one_stays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(buffers, "_MOST_BYTES", 1)
        learner = LEARNERS["MAML"]("numpy")
        at_once([lambda t=task: learner.Adapt(t) for task in tasks_of("numpy", 4, 16)], threads=8)
        assert len(learner._objectives._workspaces) == 1

    def test_calls_one_after_another_have_the_same_one(self) -> None:
        learner, task = LEARNERS["MAML"]("numpy"), tasks_of("numpy", 4, 1)[0]
        seen = set()
        for _ in range(5):
            learner.Adapt(task)
            seen.add(id(learner._objectives._workspaces._idle[0]))
        assert len(seen) == len(learner._objectives._workspaces) == 1

    def test_one_in_which_something_failed_is_let_go(self) -> None:
        def fail(objective: Any, theta: Any) -> Any:
            objective(theta)
            raise TimeoutError

        learner = iMAMLAlgorithm(iMAMLOptions.FromPaper(network(), Lambda=1.0, InnerOptimizer=fail))
        with pytest.raises(TimeoutError):
            learner.Adapt(tasks_of("numpy", 4, 1)[0])
        assert len(learner._objectives._workspaces) == 0

    @pytest.mark.slow
    def test_one_of_another_model_is_let_go(self) -> None:
        learner, task = LEARNERS["MAML"]("numpy"), tasks_of("numpy", 4, 1)[0]
        learner.Adapt(task)
        old = weakref.ref(learner._objectives._workspaces._idle[0])
        learner.SetMetaModel(network(seed=1))
        learner.Adapt(task)
        gc.collect()
        assert old() is None


X, Y = np.random.default_rng(0).standard_normal((2, 5, 3))


def with_another_at_each_line(one: Callable[[], Any], another: Callable[[], Any]) -> list[tuple[Any, Any]]:
    """What both give, for each line of the model's module that the one comes to while another thread does the other.

    Where the thread waits for a lock, the line goes on.
    """
    results: list[tuple[Any, Any]] = []
    with ThreadPoolExecutor(1) as pool:
        while True:
            lines, place, meanwhile = count(), len(results), list[Future[Any]]()

            def trace(
                frame: Any,
                event: str,
                _: Any,
                lines: Iterator[int] = lines,
                place: int = place,
                meanwhile: list[Future[Any]] = meanwhile,
            ) -> Any:
                if frame.f_code.co_filename != function_model.__file__:
                    return None
                if event == "line" and next(lines) == place:
                    meanwhile.append(pool.submit(another))
                    wait(meanwhile, 0.01)
                return trace

            before = sys.gettrace()
            sys.settrace(trace)
            try:
                result = one()
            finally:
                sys.settrace(before)
            if not meanwhile:
                return results
            results.append((result, meanwhile[0].result()))


@pytest.mark.numpy_first
class TestModels:
    def test_predictions_and_gradients(self, backend: Backend) -> None:
        model = network(backend.name)
        rng = np.random.default_rng(0)
        inputs = [backend.asarray(rng.standard_normal((3, 1))) for _ in range(6)]
        calls: list[Callable[[], Any]] = [lambda x=x: backend.to_numpy(model.Predict(x)) for x in inputs]
        calls += [lambda x=x: backend.to_numpy(model.ComputeGradients(x, x)) for x in inputs]
        expected = [bits(call()) for call in calls]
        for _ in range(rounds()):
            assert [bits(one) for one in at_once(calls * 4)] == expected * 4

    def test_training_loses_no_step(self) -> None:
        one_by_one, together = network(), network()
        x = np.linspace(-1, 1, 8)[:, None]
        for _ in range(40):
            one_by_one.Train(x, x**2)
        at_once([lambda: together.Train(x, x**2)] * 40)
        assert bits(together.GetParameters()) == bits(one_by_one.GetParameters())

    def test_a_clone_made_meanwhile_is_whole(self) -> None:
        """Parameters and Adam's memory are of the same step, so that it goes on as the original would have."""
        x = np.linspace(-1, 1, 8)[:, None]
        one_by_one, together = network(), network()
        possible = []
        for _ in range(30):
            one_by_one.Train(x, x**2)
            ahead = one_by_one.Clone()
            ahead.Train(x, x**2)
            possible.append(bits(ahead.GetParameters()))
        first = network()
        first.Train(x, x**2)

        def cloned() -> Any:
            clone = together.Clone()
            clone.Train(x, x**2)
            return bits(clone.GetParameters())

        found = at_once([lambda: together.Train(x, x**2), cloned] * 30)
        assert {one for one in found if one is not None} <= {bits(first.GetParameters()), *possible}

    @pytest.mark.slow
    def test_asked_while_its_learner_loads_files(self, tmp_path: Path) -> None:
        """Parameters and statistics are those of one file."""
        rng = np.random.default_rng(0)
        x, files, expected = rng.standard_normal((5, 3)), [tmp_path / f"{seed}.safetensors" for seed in range(2)], set()
        for seed, file in enumerate(files):
            layers = Sequential(Dense(4), BatchNorm(), Dense(3))
            model = NeuralNetworkModel(layers, input_shape=(3,), dtype=np.float64, seed=seed)
            examples = rng.standard_normal((20, 3)) * (1 + 10 * seed)
            learner = MAMLAlgorithm(MAMLOptions(model.with_statistics_of(examples)))
            learner.Save(file)
            expected.add(bits(learner.Predict(x)))
        stop, interval = threading.Event(), sys.getswitchinterval()

        def load() -> None:
            while not stop.is_set():
                for file in files:
                    learner.Load(file)

        loading = threading.Thread(target=load)
        sys.setswitchinterval(1e-6)
        loading.start()
        try:
            assert {bits(learner.Predict(x)) for _ in range(3000)} <= expected
        finally:
            stop.set()
            loading.join()
            sys.setswitchinterval(interval)

    @pytest.mark.parametrize(
        "ask",
        [
            lambda model: model.Predict(X),
            lambda model: model.ComputeGradients(X, Y),
            lambda model: np.frombuffer(model.Serialize(), np.uint8),
            lambda model: np.concatenate([value.ravel() for value in state_dict(model).values()]),
        ],
        ids=["outputs", "gradients", "files", "arrays"],
    )
    def test_asked_while_files_are_loaded(self, ask: Callable[[Any], Any]) -> None:
        """Parameters and statistics are those of one file, wherever one thread stands when the other one runs."""
        rng = np.random.default_rng(0)
        layers = Sequential(Dense(4), BatchNorm(), Dense(3))
        models = [
            NeuralNetworkModel(layers, input_shape=(3,), dtype=np.float64, seed=seed).with_statistics_of(
                rng.standard_normal((20, 3)) * (1 + 10 * seed)
            )
            for seed in range(2)
        ]
        shared, files = models[0].Clone(), cycle([model.Serialize() for model in reversed(models)])
        expected = {bits(ask(model)) for model in models}

        def answer() -> bytes:
            return bits(ask(shared))

        def load() -> None:
            shared.Deserialize(next(files))

        for asked, loaded in [*with_another_at_each_line(answer, load), *with_another_at_each_line(load, answer)]:
            assert {asked, loaded} - {None} <= expected


@pytest.mark.numpy_first
class TestPrograms:
    def test_of_any_kind(self, backend: Backend) -> None:
        rng = np.random.default_rng(0)
        points = [backend.asarray(rng.standard_normal(5)) for _ in range(6)]

        def f(x: Any) -> Any:
            return (x * x * x).sum()

        program = ad.trace(lambda x: np.exp(x) * x, points[0])
        _, pullback = ad.vjp(lambda x: np.sin(x) * x, points[0])
        _, linear = ad.linearize(lambda x: np.tanh(x), points[0])
        calls: list[Callable[[], Any]] = []
        for x in points:
            calls += [lambda x=x: program(x), lambda x=x: pullback(x)[0], lambda x=x: linear(x)]
            calls += [lambda x=x: ad.grad(f)(x), lambda x=x: ad.hvp(f, x, points[1])]
        expected = [bits(backend.to_numpy(call())) for call in calls]
        for _ in range(rounds()):
            assert [bits(backend.to_numpy(one)) for one in at_once(calls * 3)] == expected * 3

    def test_implicit_functions(self) -> None:
        matrix = np.diag([2.0, 3.0, 4.0]) + 0.1

        @implicit_diff(lambda phi, theta: matrix @ phi + phi**3 - theta)
        def root(initial: Any, theta: Any) -> Any:
            phi = np.array(initial)
            for _ in range(50):
                phi = phi - np.linalg.solve(matrix + np.diag(3 * phi**2), matrix @ phi + phi**3 - theta)
            return phi

        slope = ad.trace(ad.grad(lambda theta: (root(np.zeros(3), theta) ** 2).sum()), np.ones(3))
        points = [np.full(3, 0.5 + k) for k in range(5)]
        expected = [bits(slope(point)) for point in points]
        assert [bits(one) for one in at_once([lambda p=p: slope(p) for p in points] * 6)] == expected * 6

    def test_one_that_runs_in_the_middle_of_itself(self) -> None:
        """What an implicit function's solver calls may be the very program that called it."""

        @implicit_diff(lambda phi, theta: phi - 2.0 * theta)
        def doubled(initial: Any, theta: Any) -> Any:
            if float(theta) > 1.0:
                inner.append(float(program(np.asarray(1.0))))
            return np.asarray(2.0 * float(theta))

        inner: list[float] = []
        program = ad.trace(lambda theta: theta * 10.0 + doubled(0.0, theta), np.asarray(1.0))
        assert float(program(np.asarray(3.0))) == 36.0
        assert inner == [12.0]

    def test_few_of_them_wait(self) -> None:
        program = ad.trace(lambda x: np.exp(x) * x, np.ones(5))
        at_once([lambda: program(np.ones(5))] * 64, threads=16)
        assert 1 <= len(program._idle._waiting["numpy"]) <= 4


class TestLoaders:
    @pytest.mark.parametrize("kind", [DigitsLoader, SinusoidLoader])
    def test_threads_draw_what_one_would(self, backend: Backend, kind: Any) -> None:
        def key(task: Any) -> Any:
            return bits([backend.to_numpy(a) for a in (task.SupportInput, task.QueryInput, task.QueryOutput)])

        one, shared = (kind(seed=3, backend=backend.name) for _ in range(2))
        expected = Counter(str(key(task)) for task in one.GetTaskBatch(60))
        drawn = at_once([shared.GetNextTask] * 30 + [lambda: list(shared.GetTaskBatch(3))] * 10)
        tasks = [task for some in drawn for task in (some if isinstance(some, list) else [some])]
        assert Counter(str(key(task)) for task in tasks) == expected
        assert shared.GetState() == one.GetState()

    def test_the_tasks_of_a_batch_follow_each_other(self) -> None:
        one, shared = (SinusoidLoader(seed=3) for _ in range(2))
        row = [task.Metadata["Phase"] for task in one.GetTaskBatch(40)]
        for batch in at_once([lambda: shared.GetTaskBatch(4)] * 10):
            phases = [task.Metadata["Phase"] for task in batch]
            first = row.index(phases[0])
            assert first % 4 == 0
            assert phases == row[first : first + 4]


class TestBlasThreads:
    class Library:
        def __init__(self) -> None:
            self.threads = 7

        def get_num_threads(self) -> int:
            return self.threads

        def set_num_threads(self, number: int) -> None:
            self.threads = number

    def test_the_last_to_leave_puts_them_back(self) -> None:
        library = self.Library()
        one = OneThread(lambda: [library])
        first, second = (threading.Event() for _ in range(2))
        seen: list[int] = []

        def early() -> None:
            with one.stay():
                first.set()
                second.wait(30)

        def late() -> None:
            first.wait(30)
            with one.stay(), one.stay():
                second.set()
                thread.join(30)
                seen.append(library.threads)

        thread = threading.Thread(target=early)
        thread.start()
        late()
        assert seen == [1]
        assert library.threads == 7

    def test_as_before_however_threads_overlap(self) -> None:
        library = self.Library()
        one = OneThread(lambda: [library])

        def work() -> int:
            with one.stay():
                return library.threads

        assert set(at_once([work] * 400, threads=8)) == {1}
        assert library.threads == 7

    def test_of_this_process(self) -> None:
        def threads() -> list[int]:
            info = threadpoolctl.threadpool_info()
            return [library["num_threads"] for library in info if library["user_api"] == "blas"]

        learner = LEARNERS["MAML"]("numpy")
        calls = questions(learner, get_backend("numpy"))
        with threadpoolctl.threadpool_limits(2, user_api="blas"):
            before = threads()
            assert at_once([lambda: self.within(threads)] * 4) == [[1] * len(before)] * 4
            at_once(calls * 2)
            assert threads() == before

    @pytest.mark.slow
    def test_of_a_library_that_was_loaded_later(self) -> None:
        pytest.importorskip("scipy")
        script = """
import threadpoolctl
from aidotnet_py.backends import get_backend
with get_backend("numpy").single_threaded():
    pass
import scipy.linalg
blas = lambda: {one["num_threads"] for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"}
before = blas()
with get_backend("numpy").single_threaded():
    print(blas(), end=" ")
print(before == blas())
"""
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(sys.path)}
        run = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120
        )
        assert run.stdout == "{1} True\n", run.stdout + run.stderr

    def within(self, threads: Callable[[], Any]) -> Any:
        with get_backend("numpy").single_threaded():
            return threads()


def test_a_warning_that_is_given_once_is_given_once() -> None:
    from plain_models import BareModel

    backend = get_backend("numpy")
    model = BareModel(NETWORK, NETWORK.start(), backend)
    learner = MAMLAlgorithm(MAMLOptions(model, UseFirstOrder=True, AdaptationSteps=1))
    batch = batch_of(backend, NETWORK.sets(1))
    with pytest.warns(UserWarning, match="simultaneous perturbation") as caught:
        at_once([lambda: learner.Evaluate(batch)] * 8)
    assert len(caught) == 1


@pytest.mark.slow
def test_losses_and_optimizers_shared_by_learners_in_threads() -> None:
    """Learners of their own, one a thread, with one loss, one meta-optimizer and one inner optimizer for all."""
    loss, meta, inner = MeanSquaredErrorLoss[Any](), AdamOptimizer(0.01), SGDOptimizer(0.01, momentum=0.5)
    batch = TaskBatch(tasks_of("numpy", 4, 2))

    def trained(k: int) -> Any:
        options = MAMLOptions(network(seed=k), LossFunction=loss, MetaOptimizer=meta, InnerOptimizer=inner)
        learner = MAMLAlgorithm(options)
        for _ in range(5):
            learner.MetaTrain(batch)
        return bits(learner.BaseModel.GetParameters())

    expected = [trained(k) for k in range(4)]
    for _ in range(rounds()):
        assert at_once([lambda k=k: trained(k) for k in range(4)]) == expected
    assert meta.GetState() == {"steps": 0}
