"""Ctrl-C, failures and forks at any moment: a step is whole or was never begun, and a run that goes on has its bits.

AIDOTNET_STRESS_ROUNDS says how often each is tried at random; the default takes seconds, a thousand two hours.
"""

from __future__ import annotations

import _weakrefset
import gc
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from amounts import TIMES, groups, rounds
from begun_again import begun_again
from forks import forked, found_by
from numpy_doubles import Threads
from plain_models import BareModel
from samplers import PlainEpisode
from tanh_network import TanhNetwork
from threadpoolctl import threadpool_limits
from waiting import until_all_is_compiled

from aidotnet_py import (
    AdamOptimizer,
    ANILAlgorithm,
    ANILOptions,
    FunctionModel,
    InvalidOperationException,
    MAMLAlgorithm,
    MAMLOptions,
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
from aidotnet_py import locks as every_lock
from aidotnet_py.autodiff import grad as gradient_of
from aidotnet_py.autodiff.tracing.recording import active_trace
from aidotnet_py.backends import NumPyBackend, get_backend
from aidotnet_py.backends.numpy import blas_threads
from aidotnet_py.backends.numpy.blas_threads import OneThread
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.data.random_stream import RandomStream
from aidotnet_py.meta_learning.contract.training_run import TrainingHistory
from aidotnet_py.meta_learning.learner.journal import Journal
from aidotnet_py.nn import mlp
from aidotnet_py.testing.learner_state import bits, state_of

WEAK_CONTAINERS = (weakref.__file__, _weakrefset.__file__)
TASKS = list(SinusoidLoader(4, 4, seed=5, dtype=np.float64).GetTaskBatch(6))


class FewTasks:
    """A loader of tasks that come again, so that solutions are found to start from; draws one after another."""

    NWay, KShot, QueryShots, AvailableClasses = 1, 4, 4, 1

    def __init__(self) -> None:
        self.stream = RandomStream(0)

    def GetNextTask(self) -> Any:
        return TASKS[int(self.stream.generator.integers(len(TASKS)))]

    def GetTaskBatch(self, n: int) -> TaskBatch[Any, Any, Any]:
        return TaskBatch([self.GetNextTask() for _ in range(n)])

    def SetSeed(self, seed: int) -> None:
        self.stream.reseed(seed)

    def GetState(self) -> dict[str, Any]:
        return self.stream.state()

    def SetState(self, state: Mapping[str, Any]) -> None:
        self.stream.restore(state)


def made(kind: Any, options: Any, *, loader: Any = None, **more: Any) -> Any:
    model = NeuralNetworkModel(mlp(4, 1), input_shape=(1,), dtype=np.float64, seed=0)
    settings = {"AdaptationSteps": 2, "MetaBatchSize": 2, "RandomSeed": 0} | more
    return kind(options(model, DataLoader=loader or FewTasks(), **settings))


LEARNERS: dict[str, Callable[..., Any]] = {
    "MAML": lambda **o: made(MAMLAlgorithm, MAMLOptions, **o),
    "iMAML, all that is kept": lambda **o: made(
        iMAMLAlgorithm,
        iMAMLOptions,
        InnerObjective="proximal",
        LearnedLambda="per-parameter",
        WarmStartSolves=True,
        PreconditionerProbes=2,
        Curvature="gauss-newton",
        MetaOptimizer=SGDOptimizer(1e-3, momentum=0.9),
        **o,
    ),
    "Meta-SGD": lambda **o: made(MetaSGDAlgorithm, MetaSGDOptions, **o),
    "serial Reptile by Adam": lambda **o: made(
        ReptileAlgorithm, ReptileOptions, UseSerialUpdate=True, MetaOptimizer=AdamOptimizer(0.01), **o
    ),
    "ANIL": lambda **o: made(ANILAlgorithm, ANILOptions, **o),
}
EACH = pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS)
# Where each takes a second or more. A test of signals and one of samplers have all of them by default.
MAML = pytest.mark.parametrize(
    "make", [pytest.param(m, id=name, marks=() if name == "MAML" else pytest.mark.slow) for name, m in LEARNERS.items()]
)


class Moments:
    """Counts the moments at which a signal may interrupt Python, and raises at one of them.

    These are where a function begins and where a call of C comes back: the interpreter looks for signals there, and in
    loops of lines that have no calls. Not where a generator is closed or an object deleted, since Python drops what is
    raised there; nor in Python's own threading, which may make another error of it; nor between ``__enter__`` and its
    block, where Python 3.14 looks, and no program can give back what it entered.
    """

    def __init__(self, which: int = 0, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.count, self._which, self._error = 0, which, error

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        generator, own = frame.f_code.co_flags & 0x20, frame.f_code.co_filename == threading.__file__
        entering = sys.version_info >= (3, 14) and getattr(argument, "__name__", None) == "__enter__"
        if not own and not entering and (event == "c_return" or (event == "call" and not generator)):
            self.count += 1
            if 0 < self._which <= self.count and not _is_within_deletion(frame):
                sys.setprofile(None)
                raise self._error(f"at {frame.f_code.co_filename}:{frame.f_lineno}")


def _is_within_deletion(frame: FrameType | None) -> bool:
    """Whether Python would drop an interrupt, and print it: in a deletion, and where weak containers note one."""
    while frame is not None and frame.f_code.co_name != "__del__":
        if frame.f_code.co_filename in WEAK_CONTAINERS and frame.f_code.co_name in ("remove", "_remove", "__call__"):
            return True
        frame = frame.f_back
    return frame is not None


@contextmanager
def watched_by(moments: Moments) -> Iterator[None]:
    sys.setprofile(moments)
    try:
        yield
    finally:
        sys.setprofile(None)


def moments_of(work: Callable[[], Any]) -> int:
    moments = Moments()
    with watched_by(moments):
        work()
    return moments.count


def locks_held() -> list[Any]:
    """Locks of the package that another thread cannot have, however long it waits for those that compile."""
    held: list[Any] = []

    def look() -> None:
        for lock in list(every_lock._ALL):
            if lock.acquire(timeout=10):  # type: ignore[attr-defined]  # an RLock is what it is
                lock.release()  # type: ignore[attr-defined]
            else:
                held.append(lock)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return held


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    """An error inside a callback of the garbage collector is lost, and so would be an interrupt there."""
    gc.disable()
    yield
    gc.enable()


def interrupted_everywhere(make: Callable[..., Any], moments: list[int], error: type[BaseException]) -> None:
    """Steps that are stopped at these moments, compared with those of a learner that nothing stops."""
    broken, straight = make(), make()
    for _ in range(3):
        broken.MetaTrainStep(2)
        straight.MetaTrainStep(2)
    for moment in moments:
        where = ""
        try:
            with watched_by(Moments(moment, error)):
                broken.MetaTrainStep(2)
        except error as stopped:
            where = str(stopped)
        if broken.CurrentIteration > straight.CurrentIteration:
            straight.MetaTrainStep(2)
        assert state_of(broken) == state_of(straight), where
        assert not locks_held(), where
        assert not blas_threads.ONE_THREAD._inside, where
        # A step that makes the plans anew which were thrown away has other moments than one that goes on.
        for _ in range(2):
            assert broken.MetaTrainStep(2).MetaLoss == straight.MetaTrainStep(2).MetaLoss, where
    assert state_of(broken) == state_of(straight)


def moments_in_a_later_step(make: Callable[..., Any]) -> int:
    learner = make()
    for _ in range(3):
        learner.MetaTrainStep(2)
    return moments_of(lambda: learner.MetaTrainStep(2))


@pytest.mark.costly
@MAML
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_step_is_whole_wherever_it_is_stopped(make: Callable[..., Any], error: type[BaseException]) -> None:
    """Some moments of all, and more of the last tenth, in which everything is changed."""
    count = moments_in_a_later_step(make)
    draw = np.random.default_rng(rounds())
    for some in groups(rounds(24), 24):
        half = some // 2
        chosen = [*draw.integers(1, count, half), *draw.integers(count - count // 10, count, some - half)]
        interrupted_everywhere(make, sorted(int(k) for k in chosen), error)


@pytest.mark.slow
@EACH
def test_a_step_is_whole_at_every_moment(make: Callable[..., Any]) -> None:
    """At each twentieth of them, but for the deep profile."""
    every = list(range(1, moments_in_a_later_step(make) + 1, 20 if TIMES == 1 else 1))
    for first in range(0, len(every), 400):
        interrupted_everywhere(make, every[first : first + 400], KeyboardInterrupt)


@pytest.mark.slow
@MAML
def test_the_first_step_is_whole_too(make: Callable[..., Any]) -> None:
    """In which functions are traced and programs planned, that later steps and other learners use."""
    straight = make()
    states = [state_of(straight)]
    for _ in range(3):
        straight.MetaTrainStep(2)
        states.append(state_of(straight))
    count = moments_of(lambda: make().MetaTrainStep(2))
    for moment in np.random.default_rng(rounds()).integers(1, count, rounds(3)):
        broken = make()
        # What other threads compile meanwhile may leave it fewer moments than there were.
        with suppress(KeyboardInterrupt), watched_by(Moments(int(moment))):
            broken.MetaTrainStep(2)
        assert state_of(broken) == states[broken.CurrentIteration]
        while broken.CurrentIteration < 3:
            broken.MetaTrainStep(2)
        assert state_of(broken) == states[3]


@pytest.mark.slow
def test_a_models_own_training_is_whole_too() -> None:
    def made() -> Any:
        return NeuralNetworkModel(mlp(4, 1), input_shape=(1,), dtype=np.float64, seed=0)

    def state(model: Any) -> Any:
        return bits(model.GetParameters()), bits(model._optimizer.GetState())

    x = np.linspace(-1, 1, 6)[:, None]
    broken, straight = made(), made()
    # All is compiled then: a step that looks whether it is has twice the moments, and the last third of those are none.
    for steps in (13, 3):
        for model in (broken, straight):
            for _ in range(steps):
                model.Train(x, x**2)
        until_all_is_compiled()
    count = moments_of(lambda: broken.Train(x, x**2))
    straight.Train(x, x**2)
    # The last third, in which they are moved.
    for moment in range(2 * count // 3, count + 1):
        try:
            with watched_by(Moments(moment)):
                broken.Train(x, x**2)
        except KeyboardInterrupt:
            pass
        if state(broken) != state(straight):
            straight.Train(x, x**2)
        assert state(broken) == state(straight), moment
        # Until the plans that were thrown away are made anew.
        for model in (broken, straight):
            for _ in range(3):
                model.Train(x, x**2)


@pytest.mark.slow
def test_a_trace_is_closed_whenever_it_is_interrupted() -> None:
    """Also while the error is at hand, as an interactive session keeps the last one."""

    def function(x: Any) -> Any:
        return np.sum(np.tanh(x) * x)

    x, made_once = np.arange(3.0), gradient_of(function)
    expected, kept = made_once(x), []
    count = moments_of(lambda: gradient_of(function)(x))
    for moment in range(1, count + 1, 13):
        try:
            with watched_by(Moments(moment)):
                gradient_of(function)(x)
        except KeyboardInterrupt as stopped:
            kept.append(stopped)
        assert active_trace() is None
        assert bits(made_once(x)) == bits(expected)
    assert len(kept) > count // 26


class TestTrain:
    OPTIONS: Mapping[str, Any] = {
        "NumMetaIterations": 6,
        "EvaluationFrequency": 2,
        "EvaluationTasks": 3,
        "EnableCheckpointing": True,
        "CheckpointFrequency": 3,
    }

    @pytest.mark.slow
    @MAML
    def test_a_run_that_is_stopped_again_and_again(
        self, make: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ends as one that was not, with the same histories, evaluations and files."""
        for name in ("whole", "broken"):
            (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / "whole")
        whole = next(begun_again(lambda: make(**self.OPTIONS)))
        wanted = whole.Train()
        monkeypatch.chdir(tmp_path / "broken")
        draw = np.random.default_rng(rounds())
        for broken in begun_again(lambda: make(**self.OPTIONS)):
            losses: list[float] = []
            accuracies: list[float] = []
            left = stops = 6
            while left:
                broken.Options.NumMetaIterations = left
                before, earlier = broken.CurrentIteration, broken.training_result
                try:
                    # In the end, so that there is one, without.
                    with watched_by(Moments(int(draw.integers(1, 40_000)) if stops else 0)):
                        broken.Train()
                except KeyboardInterrupt as stopped:
                    stops -= 1
                    notes = getattr(stopped, "__notes__", [])
                else:
                    notes = []
                done = broken.CurrentIteration - before
                if notes:
                    assert f"after {done} of {left} steps" in notes[0]
                    assert f"NumMetaIterations to {left - done}" in notes[0]
                result = broken.training_result
                if done:
                    losses += list(result.LossHistory)
                    accuracies += list(result.AccuracyHistory)
                elif result is not None:
                    # The run before, where this one was stopped at its first lines.
                    np.testing.assert_array_equal(result.LossHistory, earlier.LossHistory)
                left = 6 - broken.CurrentIteration
            np.testing.assert_array_equal(losses, wanted.LossHistory)
            np.testing.assert_array_equal(accuracies, wanted.AccuracyHistory)
            assert state_of(broken) == state_of(whole)

    def test_a_failure_keeps_the_history(self) -> None:
        class Loader(FewTasks):
            def GetTaskBatch(self, n: int) -> TaskBatch[Any, Any, Any]:
                batch = super().GetTaskBatch(n)
                self.left -= 1
                if not self.left:
                    raise EOFError("no more tasks")
                return batch

        straight, loader = LEARNERS["MAML"](NumMetaIterations=3), Loader()
        wanted = straight.Train()
        loader.left = 4
        learner = LEARNERS["MAML"](NumMetaIterations=8, EvaluationFrequency=100, loader=loader)
        assert learner.training_result is None
        with pytest.raises(EOFError, match="no more tasks") as stopped:
            learner.Train()
        assert stopped.value.__notes__ == [
            "Train was stopped after 3 of 8 steps, all of them whole; training_result has their histories. To go on, "
            "set NumMetaIterations to 5 and call Train again"
        ]
        np.testing.assert_array_equal(learner.training_result.LossHistory, wanted.LossHistory)
        assert learner.training_result.TrainingTime.total_seconds() > 0
        assert state_of(learner) == state_of(straight)
        loader.left = -1
        learner.Options.NumMetaIterations = 5
        assert learner.Train().TotalIterations == 5
        learner.Reset()
        assert learner.training_result is None

    def test_a_step_and_its_note_are_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stopped between the two, a step was not taken, and is not in the history."""
        learner, straight = (LEARNERS["MAML"](NumMetaIterations=3) for _ in range(2))
        wanted, note = straight.Train(), TrainingHistory.note

        def stopped(history: Any, step: Any) -> None:
            note(history, step)
            if step.Iteration == 2:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(TrainingHistory, "note", stopped)
            with pytest.raises(KeyboardInterrupt):
                learner.Train()
        early = learner.training_result.LossHistory
        assert len(early) == learner.CurrentIteration == 1
        learner.Options.NumMetaIterations = 2
        assert [*early, *learner.Train().LossHistory] == list(wanted.LossHistory)

    def test_an_evaluation_that_fails_puts_its_draws_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        straight = LEARNERS["MAML"](NumMetaIterations=4, EvaluationFrequency=2)
        straight.Train()
        learner = LEARNERS["MAML"](NumMetaIterations=4, EvaluationFrequency=2)

        def evaluated(count: int) -> Any:
            learner.Options.DataLoader.GetTaskBatch(3)
            raise InvalidOperationException("a query loss is not finite")

        monkeypatch.setattr(learner, "Evaluate", evaluated)
        with pytest.raises(InvalidOperationException):
            learner.Train()
        learner.Options.EvaluationFrequency, learner.Options.NumMetaIterations = 100, 2
        learner.Train()
        assert state_of(learner) == state_of(straight)

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore:.*simultaneous perturbation")
    def test_evaluations_do_not_move_the_learners_own_generator(self) -> None:
        """Gradients that are estimated from random directions are those of a run without evaluations."""
        network = TanhNetwork(1, 3)

        def losses(frequency: int) -> Any:
            model = BareModel(network, network.start(), get_backend("numpy"))
            few = {"UseFirstOrder": True, "AdaptationSteps": 1, "MetaBatchSize": 1, "NumMetaIterations": 2}
            options = MAMLOptions(
                model, DataLoader=FewTasks(), RandomSeed=0, EvaluationTasks=1, EvaluationFrequency=frequency, **few
            )
            return MAMLAlgorithm(options).Train().LossHistory

        np.testing.assert_array_equal(losses(1), losses(100))


class Sampler:
    """Picks tasks by the losses that it was told."""

    NumWays, NumShots, NumQueryPerClass = 1, 4, 4

    def __init__(self) -> None:
        self.place = 0

    def SampleOne(self) -> Any:
        self.place += 1
        return PlainEpisode(TASKS[self.place % len(TASKS)], self.place)

    def SampleBatch(self, batchSize: int) -> TaskBatch[Any, Any, Any]:
        return TaskBatch([self.SampleOne().Task for _ in range(batchSize)])

    def UpdateWithFeedback(self, episodes: Any, losses: Any) -> None:
        self.place += int(1000 * sum(losses)) % 3
        if getattr(self, "failing", False):
            raise LookupError("the sampler's own")

    def SetSeed(self, seed: int) -> None:
        self.place = seed


class ResumableSampler(Sampler):
    def GetState(self) -> dict[str, Any]:
        return {"place": self.place}

    def SetState(self, state: Mapping[str, Any]) -> None:
        self.place = state["place"]


class TestSamplers:
    @EACH
    def test_that_fails_when_it_is_told_the_losses(self, make: Callable[..., Any]) -> None:
        """After all else was done: it is undone."""
        learner, sampler = make(), ResumableSampler()
        learner.Options.NumMetaIterations = learner.Options.MetaBatchSize = 2
        learner.Train(sampler)
        before, place = state_of(learner), sampler.place
        sampler.failing = True
        with pytest.raises(LookupError):
            learner.Train(sampler)
        assert (state_of(learner), sampler.place) == (before, place)

    def test_of_a_step_that_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        learner, sampler = LEARNERS["MAML"](), ResumableSampler()
        monkeypatch.setattr(learner, "_meta_update", lambda gradients: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            learner.MetaTrainStep(sampler, 2)
        assert sampler.place == 0

    def test_without_a_state_loses_its_draws_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        learner, sampler = LEARNERS["MAML"](), Sampler()
        before = state_of(learner)
        monkeypatch.setattr(learner, "_meta_update", lambda gradients: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            learner.MetaTrainStep(sampler, 2)
        assert state_of(learner) == before
        assert sampler.place == 2


def test_an_optimizer_that_fails_keeps_its_own_memory() -> None:
    """The one in the options, which others may use: not that of the learner that was stepping with it."""

    class Failing(AdamOptimizer):
        failing = False

        def UpdateParameters(self, parameters: Any, gradient: Any) -> Any:
            updated = super().UpdateParameters(parameters, gradient)
            if self.failing:
                raise KeyboardInterrupt
            return updated

    optimizer = Failing(0.01)
    optimizer.UpdateParameters(np.zeros(3), np.ones(3))
    learner = LEARNERS["MAML"](MetaOptimizer=optimizer)
    learner._meta_optimizer().Reset()
    learner.MetaTrainStep(2)
    optimizer.UpdateParameters(np.zeros(3), np.ones(3))
    before, optimizer.failing = state_of(learner), True
    with pytest.raises(KeyboardInterrupt):
        learner.MetaTrainStep(2)
    assert state_of(learner) == before


class Changing:
    """Something with a past in a journal."""

    def __init__(self) -> None:
        self.journal, self.values, self.undone = Journal(), [1], 0
        self.faults: list[BaseException] = []

    def aside(self) -> Callable[[], None]:
        kept = list(self.values)

        def put_back() -> None:
            self.undone += 1
            self.values = []
            if self.faults:
                raise self.faults.pop()
            self.values = list(kept)

        return put_back

    def change(self) -> None:
        self.values.append(2)
        raise LookupError("in the middle")


class TestJournal:
    def test_a_change_within_a_change_is_undone_with_it(self) -> None:
        it = Changing()

        def outer() -> None:
            it.values.append(2)
            it.journal.run(it.aside, lambda: it.values.append(3))
            raise LookupError

        with pytest.raises(LookupError):
            it.journal.run(it.aside, outer)
        assert it.values == [1]

    def test_an_inner_change_that_fails_is_undone_for_itself(self) -> None:
        it = Changing()

        def outer() -> None:
            it.values.append(3)
            with pytest.raises(LookupError):
                it.journal.run(it.aside, it.change)
            assert it.values == [1, 3]
            it.values.append(4)

        it.journal.run(it.aside, outer)
        assert it.values == [1, 3, 4]

    def test_the_end_of_a_change_is_undone_with_it_alone(self) -> None:
        it = Changing()

        def outer() -> None:
            it.journal.hand_on()
            it.journal.run(it.aside, it.change)

        with pytest.raises(LookupError):
            it.journal.run(it.aside, outer)
        assert (it.values, it.undone) == ([1], 1)

    def test_what_fails_after_handing_on_hands_nothing_to_the_next(self) -> None:
        it = Changing()

        def failing() -> None:
            it.journal.hand_on()
            raise ValueError

        def outer() -> None:
            with pytest.raises(ValueError):  # noqa: PT011 -- the one above
                it.journal.run(it.aside, failing)
            with pytest.raises(LookupError):
                it.journal.run(it.aside, it.change)
            assert it.values == [1]

        it.journal.run(it.aside, outer)

    def test_pressed_again_while_it_is_undone(self) -> None:
        """First all is put back, then the interrupt goes on its way."""
        it = Changing()
        it.faults = [KeyboardInterrupt(), KeyboardInterrupt()]
        with pytest.raises(KeyboardInterrupt) as stopped:
            it.journal.run(it.aside, it.change)
        assert isinstance(stopped.value.__cause__, LookupError)
        assert (it.values, it.undone) == ([1], 3)
        it.journal.run(it.aside, lambda: it.values.append(4))
        assert it.values == [1, 4]

    def test_undoing_that_fails_leaves_it_closed(self) -> None:
        it = Changing()
        it.faults = [OSError()]
        with pytest.raises(OSError):  # noqa: PT011 -- the one above
            it.journal.run(it.aside, it.change)
        it.values = [5]
        with pytest.raises(LookupError):
            it.journal.run(it.aside, it.change)
        assert it.values == [5]

    def test_also_is_undone_first(self) -> None:
        it = Changing()

        def change() -> None:
            it.journal.also(lambda: it.values.append(9))
            it.journal.also(lambda: order.append(list(it.values)))
            it.change()

        order: list[list[int]] = []
        with pytest.raises(LookupError):
            it.journal.run(it.aside, change)
        assert (order, it.values) == ([[1, 2]], [1])


@contextmanager
def signals(draw: np.random.Generator, longest: float) -> Iterator[None]:
    """A signal at a random moment of the block; never after it."""
    armed = True

    def interrupt(number: int, frame: FrameType | None) -> None:
        if armed:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-5, longest))
        yield
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


needs_signals = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="signals of POSIX")


# Python drops what is raised where an object is forgotten, such as in a WeakSet.
@needs_signals
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestSignals:
    def both(self, make: Callable[..., Any]) -> None:
        # New learners now and then: a long training may diverge in the end.
        draw = np.random.default_rng(rounds())
        for some in groups(rounds(20), 20):
            self.interrupted(make(), make(), some, draw)

    def interrupted(self, broken: Any, straight: Any, times: int, draw: np.random.Generator) -> None:
        for _ in range(3):
            broken.MetaTrainStep(2)
            straight.MetaTrainStep(2)
        began = time.perf_counter()
        straight.MetaTrainStep(2)
        broken.MetaTrainStep(2)
        a_step = (time.perf_counter() - began) / 2
        for _ in range(times):
            try:
                with signals(draw, 2 * a_step):
                    broken.MetaTrainStep(2)
            except KeyboardInterrupt:
                pass
            except RuntimeError as error:
                # What Python's own threading makes of one that comes while it waits.
                if not isinstance(error.__context__, KeyboardInterrupt):
                    raise
            while straight.CurrentIteration < broken.CurrentIteration:
                straight.MetaTrainStep(2)
            assert state_of(broken) == state_of(straight)
        assert not locks_held()
        assert not blas_threads.ONE_THREAD._inside
        # Python keeps threads on its list that an interrupt kept from starting.
        for thread in threading.enumerate():
            if "lane" in thread.name and thread.is_alive():
                thread.join(10)
                assert not thread.is_alive()

    @pytest.mark.slow
    @EACH
    def test_at_random_moments(self, make: Callable[..., Any]) -> None:
        self.both(make)

    def test_while_lanes_are_at_work(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(NumPyBackend, "flops_at_once", 1)
        network = TanhNetwork(1, 6)

        def make() -> Any:
            model = network.model(Threads(3), network.start())
            return MAMLAlgorithm(MAMLOptions(model, DataLoader=FewTasks(), AdaptationSteps=3, RandomSeed=0))

        self.both(make)

    def test_while_tasks_are_drawn_ahead(self) -> None:
        def make() -> Any:
            model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.ones((1, 1))}, backend="simulated")
            loader = SinusoidLoader(4, 4, seed=1, dtype=np.float64, backend="simulated")
            return MAMLAlgorithm(MAMLOptions(model, DataLoader=loader, AdaptationSteps=1, RandomSeed=0))

        self.both(make)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks of POSIX")
@pytest.mark.filterwarnings("ignore:.*fork")
class TestForks:
    @pytest.mark.slow
    @pytest.mark.parametrize("threads", [1, 2])
    @MAML
    def test_in_the_middle_of_a_step(self, make: Callable[..., Any], threads: int) -> None:
        """What a child of another thread finds is the learner before a step or after it; it adapts and trains."""
        with threadpool_limits(threads, "blas"):
            draw = np.random.default_rng(rounds())
            for some in groups(rounds(4), 4):
                self.fork_in_the_middle_of_a_step(make, some, draw)

    def fork_in_the_middle_of_a_step(self, make: Callable[..., Any], times: int, draw: np.random.Generator) -> None:
        learner, straight, going, over = make(), make(), threading.Event(), threading.Event()
        learner.MetaTrainStep(2)

        def train() -> None:
            while not over.is_set():
                learner.MetaTrainStep(2)
                going.wait()

        def catch_up() -> None:
            while straight.CurrentIteration < learner.CurrentIteration:
                straight.MetaTrainStep(2)

        def sound() -> bool:
            catch_up()
            alike = state_of(learner) == state_of(straight) and not locks_held()
            adapted, losses = (
                [bits(one.Adapt(TASKS[0]).GetParameters()) for one in (learner, straight)],
                [one.MetaTrainStep(2).MetaLoss for one in (learner, straight)],
            )
            return alike and adapted[0] == adapted[1] and losses[0] == losses[1]

        thread = threading.Thread(target=train)
        thread.start()
        try:
            for _ in range(times):
                going.set()
                time.sleep(draw.uniform(0, 0.01))
                child = forked(sound)
                going.clear()
                assert found_by(child) is True
                # So that the next child has only this round to catch up with.
                catch_up()
        finally:
            over.set()
            going.set()
            thread.join()

    def test_by_the_thread_that_is_in_the_step(self) -> None:
        """The child goes on with the step, as the parent does."""

        class Forking(MAMLAlgorithm[Any, Any, Any]):
            def _end_step(self, details: Any) -> None:
                self.child = os.fork()

        learner = made(Forking, MAMLOptions)
        learner.MetaTrainStep(2)
        if not learner.child:
            os._exit(0 if learner.CurrentIteration == 1 and learner._journal._undo is None else 1)
        assert found_by(learner.child) is True

    def test_while_another_thread_imports(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """In a child, Python's lock of a module that another thread was importing stays taken."""
        begun = threading.Event()

        class Slowly:
            def find_spec(self, name: str, path: object = None, target: object = None) -> None:
                if name == "threadpoolctl":
                    begun.set()
                    time.sleep(0.3)

        monkeypatch.delitem(sys.modules, "threadpoolctl", raising=False)
        monkeypatch.setattr(sys, "meta_path", [Slowly(), *sys.meta_path])
        blas_threads._blas_beside.cache_clear()
        thread = threading.Thread(target=blas_threads.blas_libraries)
        thread.start()
        assert begun.wait(10)
        child = forked(lambda: blas_threads.blas_libraries() is not None)
        thread.join()
        assert found_by(child) is True

    @pytest.mark.slow
    def test_while_another_thread_limits_blas(self) -> None:
        """OpenBLAS holds a lock of its own while its number of threads is set, as this library does."""
        begun, own = threading.Event(), threading.Lock()

        class Library:
            def get_num_threads(self) -> int:
                return 2

            def set_num_threads(self, number: int) -> None:
                with own:
                    begun.set()
                    time.sleep(0.3)

        one = OneThread(lambda: [Library()])

        def stay() -> bool:
            with one.stay():
                return True

        thread = threading.Thread(target=stay)
        thread.start()
        assert begun.wait(10)
        child = forked(stay)
        thread.join()
        assert found_by(child) is True

    def test_while_tasks_are_drawn_ahead(self) -> None:
        """A child has no thread that draws, and waits for none."""
        loader, same = (SinusoidLoader(4, 4, seed=1, dtype=np.float64, backend=b) for b in ("simulated", "numpy"))
        to_numpy = get_backend("simulated").to_numpy

        def alike() -> bool:
            pairs = zip(loader.GetTaskBatch(2), same.GetTaskBatch(2), strict=True)
            return all(bits(to_numpy(a.SupportInput)) == bits(b.SupportInput) for a, b in pairs)

        assert all(alike() for _ in range(3))
        assert found_by(forked(lambda: all(alike() for _ in range(4)))) is True
        assert all(alike() for _ in range(2))
