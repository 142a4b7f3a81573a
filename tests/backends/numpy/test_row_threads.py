"""Chains whose rows several threads compute: the bits of one thread; forks, ends of processes, threads that lack."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from amounts import many
from random_programs import a_type, random_program
from threadpoolctl import threadpool_limits
from waiting import until

from aidotnet_py import (
    ANILAlgorithm,
    ANILOptions,
    MAMLAlgorithm,
    MAMLOptions,
    NeuralNetworkModel,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.autodiff.execution import Executable
from aidotnet_py.autodiff.extend import vmap_program
from aidotnet_py.backends import NumPyBackend
from aidotnet_py.backends.kernel import Kernel, LoopNest, Number, Operand, Step
from aidotnet_py.backends.numpy import kernel_calls, row_threads
from aidotnet_py.backends.numpy.blas_threads import ONE_THREAD, OneThread
from aidotnet_py.backends.numpy.llvm import LlvmCompiler, shared_compiler
from aidotnet_py.backends.numpy.row_threads import ChainRun, RowThreads
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.locks import Lock
from aidotnet_py.nn import mlp

pytestmark = [
    pytest.mark.skipif(shared_compiler() is None, reason="llvmlite is not installed"),
    pytest.mark.skipif(sys.platform != "linux", reason="threads help on Linux alone"),
]

ROWS, COLUMNS, TIMES = 23, 3000, 40


@pytest.fixture
def compiler() -> Iterator[LlvmCompiler]:
    """A compiler with helpers of its own."""
    compiler = LlvmCompiler()
    yield compiler
    compiler.stop_helping()


def chain_of(compiler: LlvmCompiler, x: Any) -> Callable[[int], Any]:
    """x ← 1.5x − 1 in place."""
    every = Operand(0, "float64", (COLUMNS, 1))
    steps = (
        Step("multiply", (every, Number(1.5, "float64")), "float64"),
        Step("subtract", (0, Number(1.0, "float64")), "float64"),
    )
    kernel = Kernel((LoopNest((ROWS, COLUMNS), steps, ((every, 1),)),), 1)
    (bind,) = compiler.submit([kernel]).result(wait=True) or ()
    run = None
    while run is None:
        run = compiler.chain([bind([compiler.address_of(x)])])
    return run


@pytest.fixture
def x() -> Any:
    return np.random.default_rng(0).uniform(-1, 1, (ROWS, COLUMNS))


def iterated(x: Any) -> Any:
    x = x.copy()
    for _ in range(TIMES):
        x = x * 1.5 - 1
    return x


def helpers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "aidotnet_py rows"]


@pytest.mark.parametrize("threads", [1, 2, 3, 40])
def test_bits(compiler: LlvmCompiler, x: Any, threads: int) -> None:
    run, expected, before = chain_of(compiler, x), iterated(x), len(helpers())
    with threadpool_limits(threads, "blas"), ONE_THREAD.stay():
        share = ONE_THREAD.share
        run(TIMES)
    np.testing.assert_array_equal(x, expected)
    assert len(helpers()) - before == share - 1 == min(threads, os.cpu_count() or 1) - 1


class Parts:
    """A chain whose parts are noted: who computed them; each goes on when told to."""

    def __init__(self) -> None:
        self.computed: list[tuple[int, int]] = []
        self.go_on = threading.Event()
        self.go_on.set()
        # Kept, since the address is that of this object.
        self._callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * 4)(self._compute)
        address = ctypes.cast(self._callback, ctypes.c_void_p).value or 0
        self.chain = ChainRun(address, table=0, calls=1, times=1)

    def _compute(self, table: int, count: int, times: int, part: int, parts: int) -> None:
        self.computed.append((threading.get_ident(), part))
        assert self.go_on.wait(60)

    @property
    def threads(self) -> set[int]:
        return {thread for thread, _ in self.computed}

    @property
    def numbers(self) -> list[int]:
        return sorted(part for _, part in self.computed)


@pytest.fixture
def team(compiler: LlvmCompiler, x: Any) -> Iterator[Callable[[int, Parts], bool]]:
    """Run a chain by some threads, by helpers of the test."""
    chain_of(compiler, x)
    sharing = compiler._chaining.functions[1].address
    threads = RowThreads()
    yield lambda count, parts: threads.run(sharing, count, ROWS, parts.chain)
    threads.stop()


@pytest.mark.parametrize("threads", [2, 3])
def test_each_part_is_computed_once_and_helpers_compute_some(team: Callable[[int, Parts], bool], threads: int) -> None:
    assert computed_by_all(team, threads).numbers == list(range(2 * threads))


def computed_by_all(team: Callable[[int, Parts], bool], threads: int) -> Parts:
    """Have the calling thread stay in its first part until all helpers have one."""
    parts, results = Parts(), list[bool]()
    parts.go_on.clear()
    caller = threading.Thread(target=lambda: results.append(team(threads, parts)))
    caller.start()
    until(lambda: len(parts.threads) == threads)
    parts.go_on.set()
    caller.join(60)
    assert results == [True]
    return parts


@pytest.mark.parametrize("asleep", [True, False])
def test_no_more_helpers_than_a_chain_asks_for(team: Callable[[int, Parts], bool], asleep: bool) -> None:
    """Whether the helpers that are there sleep, or look for work."""
    before, first = len(helpers()), Parts()
    assert team(6, first)
    assert len(helpers()) == before + 5
    for _ in range(10):
        time.sleep(0.02 if asleep else 0)
        parts = Parts()
        parts.go_on.clear()
        releaser = threading.Timer(0.05, parts.go_on.set)
        releaser.start()
        assert team(3, parts)
        releaser.join()
        assert parts.numbers == list(range(6))
        assert len(parts.threads) <= 3


def test_a_thread_computes_alone_while_helpers_have_another_ones_chain(team: Callable[[int, Parts], bool]) -> None:
    parts, results = Parts(), list[bool]()
    parts.go_on.clear()
    other = threading.Thread(target=lambda: results.append(team(2, parts)))
    other.start()
    until(lambda: len(parts.computed) == 2)
    assert not team(2, refused := Parts())
    assert not refused.computed
    parts.go_on.set()
    other.join(60)
    assert results == [True]
    assert team(2, later := Parts())
    assert later.numbers == list(range(4))


def test_helpers_that_end_before_a_thread_has_the_lock(compiler: LlvmCompiler, x: Any) -> None:
    """At the end of the process a thread may be about to compute."""
    chain_of(compiler, x)
    sharing = compiler._chaining.functions[1].address
    threads = RowThreads()

    class Ending(Lock):
        def __enter__(self) -> bool:
            threads.lock = Lock()
            threads.end()
            return super().__enter__()

    threads.lock = Ending()
    assert not threads.run(sharing, 2, ROWS, Parts().chain)


def test_where_no_thread_can_be_started_while_an_interrupt_is_handled(
    team: Callable[[int, Parts], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(row_threads.threading.Thread, "start", start)
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert not team(2, Parts())


def test_a_helper_that_begins_after_the_stop(compiler: LlvmCompiler, x: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted start, which the thread is not yet known to have survived: it ends by itself."""
    chain_of(compiler, x)
    sharing = compiler._chaining.functions[1].address
    late: list[threading.Thread] = []

    def start(self: threading.Thread) -> None:
        late.append(self)
        raise KeyboardInterrupt

    threads = RowThreads()
    with monkeypatch.context() as patches:
        patches.setattr(row_threads.threading.Thread, "start", start)
        with pytest.raises(KeyboardInterrupt):
            threads.run(sharing, 2, ROWS, Parts().chain)
    threads.stop()
    late[0].start()
    late[0].join(60)
    assert not late[0].is_alive()


def test_where_one_more_thread_cannot_be_started(
    team: Callable[[int, Parts], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The helpers that there are help, and the system is not asked at each chain."""
    assert team(2, Parts())
    asked = list[threading.Thread]()

    def start(self: threading.Thread) -> None:
        asked.append(self)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(row_threads.threading.Thread, "start", start)
    for _ in range(3):
        assert team(4, parts := Parts())
        assert parts.numbers == list(range(4))
    assert len(asked) == 1


def test_a_wait_that_a_signal_ends(team: Callable[[int, Parts], bool]) -> None:
    """A helper whose sleep a signal ends sleeps again, and misses no chain afterwards."""
    before = {thread.ident for thread in helpers()}
    assert team(2, Parts())
    (helper,) = [thread for thread in helpers() if thread.ident not in before]
    with handled_signal() as number:
        for _ in range(20):
            time.sleep(0.002)
            signal.pthread_kill(helper.ident or 0, number)
    for _ in range(20):
        time.sleep(0.002)
        computed_by_all(team, 2)


@contextmanager
def handled_signal() -> Iterator[int]:
    """A signal whose handler does nothing, but ends waits."""
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        yield signal.SIGUSR1
    finally:
        # Discards those on their way.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, before)


def test_a_helper_sleeps_without_work(compiler: LlvmCompiler, x: Any) -> None:
    run, expected = chain_of(compiler, x), iterated(x)
    with threadpool_limits(2, "blas"), ONE_THREAD.stay():
        run(TIMES - 1)
        time.sleep(0.3)
        before = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - before < 0.1
        run(1)
    np.testing.assert_array_equal(x, expected)


def test_several_threads_run_chains(compiler: LlvmCompiler) -> None:
    arrays = [np.random.default_rng(seed).uniform(-1, 1, (ROWS, COLUMNS)) for seed in range(4)]
    runs, expected = [chain_of(compiler, x) for x in arrays], [iterated(x) for x in arrays]

    def work(run: Callable[[int], Any]) -> None:
        for _ in range(TIMES):
            run(1)

    with threadpool_limits(8, "blas"), ONE_THREAD.stay():
        threads = [threading.Thread(target=work, args=(run,)) for run in runs[1:]]
        for thread in threads:
            thread.start()
        work(runs[0])
        for thread in threads:
            thread.join()
    for x, wanted in zip(arrays, expected, strict=True):
        np.testing.assert_array_equal(x, wanted)


def test_where_no_thread_can_be_started(compiler: LlvmCompiler, x: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    run, expected = chain_of(compiler, x), iterated(x)
    monkeypatch.setattr(row_threads.threading.Thread, "start", start)
    with threadpool_limits(2, "blas"), ONE_THREAD.stay():
        run(TIMES)
    np.testing.assert_array_equal(x, expected)


def test_an_interrupt_while_a_helper_starts(compiler: LlvmCompiler, x: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is raised, also where a lock makes another error of it; then the helper is stopped, and another one helps."""
    start = threading.Thread.start

    def interrupted(self: threading.Thread) -> None:
        start(self)
        try:
            raise KeyboardInterrupt
        finally:
            threading.Lock().release()

    run, before = chain_of(compiler, x), len(helpers())
    with threadpool_limits(2, "blas"), ONE_THREAD.stay():
        if ONE_THREAD.share < 2:
            pytest.skip("there is one core")
        monkeypatch.setattr(row_threads.threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(1)
        monkeypatch.undo()
        expected = iterated(x)
        run(TIMES)
    np.testing.assert_array_equal(x, expected)
    assert len(helpers()) == before + 1
    compiler.stop_helping()
    assert len(helpers()) == before
    run(1)
    assert len(helpers()) == before


def test_where_threads_have_nothing_to_wait_by(x: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_threads, "_functions", dict)
    compiler = LlvmCompiler()
    run, expected, before = chain_of(compiler, x), iterated(x), len(helpers())
    with threadpool_limits(2, "blas"), ONE_THREAD.stay():
        run(TIMES)
    np.testing.assert_array_equal(x, expected)
    assert len(helpers()) == before


class PartsInAnyOrder(RowThreads):
    """Computes the parts one after another, the later ones first or in a random order, each through the whole chain."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        self._rng = rng
        self.chains = 0

    def run(self, function: int, threads: int, rows: int, chain: ChainRun) -> bool:
        compute = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * 4)(chain.chain)
        for part in self._rng.permutation(rows)[::-1]:
            compute(chain.table, chain.calls, chain.times, int(part), rows)
        self.chains += 1
        return True


@pytest.fixture
def in_any_order(compiler: LlvmCompiler, x: Any, monkeypatch: pytest.MonkeyPatch) -> PartsInAnyOrder:
    """All chains whose rows are apart are computed by their parts, small ones too."""
    chain_of(compiler, x)
    threads = PartsInAnyOrder(np.random.default_rng(0))
    monkeypatch.setattr(compiler, "_row_threads", threads)
    monkeypatch.setattr(kernel_calls, "_WORTH_A_THREAD", 1)
    monkeypatch.setattr(OneThread, "share", property(lambda self: 8))
    return threads


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [None, 5])
def test_parts_of_random_programs(tasks: int | None, in_any_order: PartsInAnyOrder, compiler: LlvmCompiler) -> None:
    """With several tasks, and of one, where rows are whatever axis comes first and many nests mix them."""

    class Backend(NumPyBackend):
        @property
        def compiler(self) -> Any:
            return compiler

    rng = np.random.default_rng(tasks or 0)
    for _ in range(many(300)):
        program = random_program(rng, [a_type(rng) for _ in range(3)], int(rng.integers(3, 15)))
        if tasks is not None:
            program = vmap_program(program, [True] * 3, tasks)
        inputs = [rng.standard_normal(t.shape) for t in program.input_types]
        plain, compiled = (
            Executable(program, backend, inputs=inputs) for backend in (NumPyBackend(compiled=False), Backend())
        )
        compiled.compile()
        for _ in range(3):
            for array in inputs:
                array[...] = rng.standard_normal(array.shape)
            plain.run()
            compiled.run()
            for found, right in zip(compiled.outputs, plain.outputs, strict=True):
                np.testing.assert_array_equal(found, right)
    assert in_any_order.chains > 5


@pytest.mark.slow
def test_parts_of_kernels_that_meet_in_memory(in_any_order: PartsInAnyOrder, compiler: LlvmCompiler) -> None:
    """Chains of two, on one buffer, at places and with strides that may keep rows apart or not."""
    rng, rows = np.random.default_rng(1), 4
    memory = np.zeros(200)
    outcomes = set[bool]()
    for _ in range(many(60)):
        calls: list[Any] = []
        for _ in range(2):
            columns = int(rng.integers(1, 4))
            strides = [(int(stride), 1) for stride in rng.choice([columns, 6, 8], 2)]
            if rng.random() < 0.3:
                strides[0] = strides[1] = (1, rows)
            out, read = (Operand(i, "float64", s) for i, s in enumerate(strides))
            step = Step("add", (read, Number(float(rng.integers(1, 9)), "float64")), "float64")
            kernel = Kernel((LoopNest((rows, columns), (step,), ((out, 0),)),), 2)
            (bind,) = compiler.submit([kernel]).result(wait=True) or ()
            # A kernel's own arguments never overlap.
            places = rng.permutation([int(rng.integers(0, 24)), 40 + int(rng.integers(0, 24))])
            calls.append(bind([compiler.address_of(memory[int(place) :]) for place in places]))
        start = rng.standard_normal(memory.shape)
        memory[:] = start
        for _ in range(2):
            for call in calls:
                call()
        expected, before = memory.copy(), in_any_order.chains
        memory[:] = start
        run = compiler.chain(calls)
        assert run is not None
        run(2)
        np.testing.assert_array_equal(memory, expected)
        outcomes.add(in_any_order.chains > before)
    assert outcomes == {True, False}


STEP = """
import os, sys
import numpy as np
from aidotnet_py import MAMLAlgorithm, MAMLOptions, NeuralNetworkModel
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.locks import Lock
from aidotnet_py.nn import mlp
from threadpoolctl import threadpool_limits
threadpool_limits(2, "blas")
model = NeuralNetworkModel(mlp(40, 40, 1), input_shape=(1,), seed=0)
learner = MAMLAlgorithm(MAMLOptions(model, DataLoader=SinusoidLoader(seed=0), InnerLearningRate=0.001))
for _ in range(40):
    learner.MetaTrainStep(20)
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize(
    "end",
    [
        pytest.param("", id="at once"),
        pytest.param("import time; time.sleep(0.2)", id="while helpers sleep", marks=pytest.mark.slow),
        pytest.param("os.kill(os.getpid(), 15)", id="by a signal", marks=pytest.mark.slow),
        pytest.param("sys.exit(3)", id="by an exit", marks=pytest.mark.slow),
        pytest.param("raise SystemExit(3)", id="by an exception", marks=pytest.mark.slow),
    ],
)
def test_a_process_ends(end: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", STEP + end], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == {"os": -15, "sy": 3, "ra": 3}.get(end[:2], 0), done.stderr
    assert not done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks of POSIX")
def test_children_have_helpers_of_their_own() -> None:
    """Also where warnings of forks beside threads are errors: there are none at that moment."""
    forked = """
for _ in range(20):
    expected = learner.BaseModel.GetParameters()
    child = os.fork()
    if not child:
        learner.MetaTrainStep(20)
        os._exit(0 if np.isfinite(learner.BaseModel.GetParameters()).all() else 1)
    learner.MetaTrainStep(20)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    done = run(STEP + forked)
    assert (done.returncode, done.stderr) == (0, "")


LEARNERS: dict[str, Callable[[Any], Any]] = {
    "iMAML": lambda model: iMAMLAlgorithm(
        iMAMLOptions(model, AdaptationSteps=8, InnerLearningRate=0.001, Curvature="gauss-newton")
    ),
    "MAML": lambda model: MAMLAlgorithm(MAMLOptions(model, AdaptationSteps=3)),
    "ANIL": lambda model: ANILAlgorithm(ANILOptions(model, AdaptationSteps=3)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("tasks", [5, 25])
def test_learners_learn_the_same(name: str, tasks: int) -> None:
    found: list[Any] = []
    for threads in (1, 2):
        learner = LEARNERS[name](NeuralNetworkModel(mlp(40, 40, 1), input_shape=(1,), seed=0))
        sampler = SinusoidLoader(seed=0)
        with threadpool_limits(threads, "blas"):
            losses = [learner.MetaTrain(sampler.GetTaskBatch(tasks)) for _ in range(30)]
        found.append((losses, learner.BaseModel.GetParameters()))
    (losses, parameters), (others, changed) = found
    assert losses == others
    np.testing.assert_array_equal(parameters, changed)
