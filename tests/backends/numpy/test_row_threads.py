"""Chains whose rows several threads compute: the bits of one thread; forks, ends of processes, threads that lack."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from aidotnet_py import (
    ANILAlgorithm,
    ANILOptions,
    MAMLAlgorithm,
    MAMLOptions,
    NeuralNetworkModel,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.backends.kernel import Kernel, LoopNest, Number, Operand, Step
from aidotnet_py.backends.numpy import row_threads
from aidotnet_py.backends.numpy.blas_threads import ONE_THREAD
from aidotnet_py.backends.numpy.llvm import LlvmCompiler, shared_compiler
from aidotnet_py.backends.numpy.row_threads import RowThreads
from aidotnet_py.data import SinusoidLoader
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


@pytest.mark.parametrize("threads", [2, 3])
def test_each_part_is_computed_once_and_helpers_compute_some(compiler: LlvmCompiler, x: Any, threads: int) -> None:
    """The calling thread stays in its first part until all helpers have one."""
    chain_of(compiler, x)
    _, sharing = compiler._chaining.addresses
    computed: dict[int, list[int]] = {}
    all_there = threading.Event()

    def compute(table: int, count: int, times: int, part: int, parts: int) -> None:
        computed.setdefault(threading.get_ident(), []).append(part)
        if len(computed) == threads:
            all_there.set()
        all_there.wait(60)

    callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * 4)(compute)
    chain = {"chain": ctypes.cast(callback, ctypes.c_void_p).value or 0, "table": 0, "count": 1, "times": 1}
    team = RowThreads()
    try:
        assert team.run(sharing, threads, ROWS, chain)
    finally:
        team.stop()
    assert len(computed) == threads
    assert sorted(part for parts in computed.values() for part in parts) == list(range(2 * threads))


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


def test_where_threads_have_nothing_to_wait_by(x: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_threads, "_functions", dict)
    compiler = LlvmCompiler()
    run, expected, before = chain_of(compiler, x), iterated(x), len(helpers())
    with threadpool_limits(2, "blas"), ONE_THREAD.stay():
        run(TIMES)
    np.testing.assert_array_equal(x, expected)
    assert len(helpers()) == before


STEP = """
import os, sys
import numpy as np
from aidotnet_py import MAMLAlgorithm, MAMLOptions, NeuralNetworkModel
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.nn import mlp
from threadpoolctl import threadpool_limits
threadpool_limits(2, "blas")
model = NeuralNetworkModel(mlp(40, 40, 1), input_shape=(1,), seed=0)
learner = MAMLAlgorithm(MAMLOptions(model, DataLoader=SinusoidLoader(seed=0), AdaptationSteps=5))
for _ in range(40):
    learner.MetaTrainStep(20)
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    "end",
    ["", "import time; time.sleep(0.2)", "os.kill(os.getpid(), 15)", "sys.exit(3)", "raise SystemExit(3)"],
    ids=["at once", "while helpers sleep", "by a signal", "by an exit", "by an exception"],
)
def test_a_process_ends(end: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", STEP + end], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == {"os": -15, "sy": 3, "ra": 3}.get(end[:2], 0), done.stderr
    assert not done.stderr


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
