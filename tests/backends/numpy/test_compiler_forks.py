"""Forks and interrupts around the compiler's thread and the locks: nothing is done twice or held for ever."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import numpy as np
import pytest
from waiting import until

from aidotnet_py.backends.kernel import Kernel, LoopNest, Number, Operand, Step
from aidotnet_py.backends.numpy import library, multiplication
from aidotnet_py.backends.numpy.blas_calls import BLAS_CALLS
from aidotnet_py.backends.numpy.library import Function, Library
from aidotnet_py.backends.numpy.llvm import LlvmCompiler, shared_compiler
from aidotnet_py.locks import HeldLocks, Lock

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shared_compiler() is None, reason="llvmlite is not installed"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks of POSIX"),
]

EVERY = Operand(0, "float64", (8, 1))


def times(number: float) -> Kernel:
    """x ← number · x."""
    step = Step("multiply", (EVERY, Number(number, "float64")), "float64")
    return Kernel((LoopNest((4, 8), (step,), ((EVERY, 0),)),), 1)


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Functions that are compiled when the event says so, and never found on disk."""
    go, compile_ = threading.Event(), Library.compile

    def compiled(self: Any, source: Any, process: Any, following: Any) -> Function:
        assert go.wait(60)
        return compile_(self, source, process, following)

    monkeypatch.setattr(Library, "compile", compiled)
    monkeypatch.setattr(Library, "look_up", lambda self, source: None)
    yield go
    go.set()


def test_a_thread_that_a_join_takes_for_dead_compiles_alone(
    slowly: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Python 3.11's does, if it is interrupted."""
    compiler = LlvmCompiler()
    compilation = compiler.submit([times(1.25), times(2.5)])
    worker = compiler._worker
    assert worker is not None
    until(lambda: compiler._working)

    def interrupted(self: threading.Thread, timeout: float | None = None) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patches:
        patches.setattr(threading.Thread, "join", interrupted)
        patches.setattr(threading.Thread, "is_alive", lambda self: self is not worker)
        with pytest.raises(KeyboardInterrupt):
            compiler.pause()
        compiler.go_on()
        before = threading.active_count()
        compiler._wake()
        assert threading.active_count() == before
        slowly.set()
        binds = compilation.result(wait=True)
    assert binds is not None
    x = np.ones((4, 8))
    binds[1]([compiler.address_of(x)])()
    np.testing.assert_array_equal(x, 2.5)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_thread_that_another_one_ends_is_replaced(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `PyThreadState_SetAsyncExc`, say. Forks would wait for it for ever."""
    compiler = LlvmCompiler()

    def end(*_: Any) -> None:
        raise error

    with monkeypatch.context() as patches:
        patches.setattr(Library, "compile", end)
        compilation = compiler.submit([times(1.75)])
        until(lambda: compiler._worker is None)

    def fork() -> None:
        compiler.pause()
        compiler.resume()

    forking = threading.Thread(target=fork, daemon=True)
    forking.start()
    forking.join(30)
    assert not forking.is_alive()
    assert compilation.result(wait=True) is not None


def test_no_fork_comes_while_the_compiler_imports_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that began before there was a compiler; its child would wait for the lock of a module for ever."""
    held: list[bool] = []

    def noted(find: Callable[..., Any]) -> Callable[..., Any]:
        def found(*arguments: Any) -> Any:
            held.append(BLAS_CALLS.lock.is_owned())
            return find(*arguments)

        return found

    monkeypatch.setattr(library, "cache_folder", noted(library.cache_folder))
    controller = multiplication.threadpoolctl.ThreadpoolController
    monkeypatch.setattr(multiplication.threadpoolctl, "ThreadpoolController", noted(controller))
    LlvmCompiler().submit([times(4.5)])
    multiplication._openblas.__wrapped__()
    assert held == [True, True]


def test_what_a_waiting_thread_is_interrupted_in_stops_no_compilation(slowly: threading.Event) -> None:
    """Wherever it is stopped: Python's own classes of `threading` may keep their lock then, also in a fork's child."""
    compiler = LlvmCompiler()
    compilation = compiler.submit([times(3.25)])
    locks: list[Any] = []

    def entered(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename == threading.__file__:
            locks.append(frame.f_code.co_name)

    def wait() -> None:
        sys.setprofile(entered)
        compilation.result(wait=True)
        sys.setprofile(None)

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.1)
    slowly.set()
    waiting.join(60)
    assert not set(locks) & {"wait", "__enter__", "__exit__"}


def test_two_pauses_at_once(slowly: threading.Event) -> None:
    """The end of one lets no thread compile in the middle of another one."""
    slowly.set()
    compiler, over = LlvmCompiler(), threading.Event()
    found: list[bool] = []

    def pause() -> None:
        while not over.is_set():
            compiler.pause()
            time.sleep(0)
            found.append(compiler._working)
            compiler.go_on()

    pausing = [threading.Thread(target=pause) for _ in range(2)]
    for thread in pausing:
        thread.start()
    for number in range(6):
        assert compiler.submit([times(number + 0.5)]).result(wait=True) is not None
    over.set()
    for thread in pausing:
        thread.join(60)
    assert not any(found)
    assert found


def test_locks_are_those_of_the_thread_that_took_them() -> None:
    """Of two threads that take the same ones, neither forgets or releases the other one's."""
    locks, held = [Lock() for _ in range(3)], HeldLocks()

    def take() -> None:
        for _ in range(300):
            for lock in locks:
                held.take(lock)
            time.sleep(0)
            held.release()
            held.release()

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for lock in locks:
        assert lock.acquire(blocking=False)
        lock.release()


def test_two_threads_fork() -> None:
    done = run(
        """
import os, threading
import numpy as np
from aidotnet_py.backends.numpy.blas_calls import BLAS_CALLS, _BIRTHS
from aidotnet_py.backends.numpy.llvm import shared_compiler
shared_compiler()
def fork():
    for _ in range(100):
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
threads = [threading.Thread(target=fork) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
take = lambda: print(BLAS_CALLS.lock.acquire() and shared_compiler()._lock.acquire())
later = threading.Thread(target=take, daemon=True)
later.start()
later.join(30)
"""
    )
    assert done.stdout == "True\n", done.stderr


def test_an_interrupt_at_the_first_line_after_a_fork() -> None:
    """It is raised in the first function that Python calls there; the locks are released all the same."""
    done = run(
        """
import ctypes, functools, os, signal, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
interrupt = functools.partial(getattr(ctypes.CDLL(None), "raise"), int(signal.SIGINT))
os.register_at_fork(after_in_parent=interrupt)
from aidotnet_py.backends.numpy.blas_calls import BLAS_CALLS
os.register_at_fork(after_in_parent=interrupt)
from aidotnet_py.backends.numpy.llvm import shared_compiler
compiler = shared_compiler()
try:
    child = os.fork()
    if not child:
        os._exit(0)
except KeyboardInterrupt:
    pass
def others():
    locks = BLAS_CALLS.lock, compiler._lock, compiler._row_threads.lock
    print([lock.acquire(timeout=5) and (lock.release() or True) for lock in locks], compiler._paused)
thread = threading.Thread(target=others)
thread.start()
thread.join()
"""
    )
    assert done.stdout == "[True, True, True] False\n", done.stderr
    assert "KeyboardInterrupt" in done.stderr


def test_an_interrupt_at_the_first_line_of_a_child() -> None:
    done = run(
        """
import ctypes, functools, os, signal, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
interrupt = functools.partial(getattr(ctypes.CDLL(None), "raise"), int(signal.SIGINT))
os.register_at_fork(after_in_child=interrupt)
from aidotnet_py.locks import Lock
lock, go_on = Lock(), threading.Event()
def hold():
    with lock:
        go_on.wait()
thread = threading.Thread(target=hold)
thread.start()
while lock.acquire(blocking=False):
    lock.release()
try:
    child = os.fork()
except KeyboardInterrupt:
    child = 0
if not child:
    os._exit(0 if lock.acquire(blocking=False) else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
go_on.set()
thread.join()
"""
    )
    assert done.stdout == "0\n", done.stderr
    assert "KeyboardInterrupt" in done.stderr


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
