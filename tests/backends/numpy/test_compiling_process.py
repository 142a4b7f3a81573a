"""The process that compiles: what it makes, and what happens without it, or when it ends too early."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import until

from aidotnet_py.backends.numpy import compiling_process
from aidotnet_py.backends.numpy.compiling_process import AbandonedError, CompilingProcess
from aidotnet_py.backends.numpy.llvm import shared_compiler
from aidotnet_py.backends.numpy.machine_code import Machine
from aidotnet_py.backends.numpy.object_code import can_load

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shared_compiler() is None, reason="llvmlite is not installed"),
    pytest.mark.skipif(not can_load(), reason="kernels are compiled in this process"),
]

TEXT = "define double @twice(double %x) {\n  %y = fadd double %x, %x\n  ret double %y\n}\n"


@pytest.fixture
def process() -> Iterator[CompilingProcess]:
    process = CompilingProcess(lambda: True)
    yield process
    process.end()


def number_of(process: CompilingProcess) -> int:
    assert process._running is not None
    return process._running.process.pid


def test_object_files_are_those_of_this_process(process: CompilingProcess) -> None:
    # More than fits into the buffers of the line between the two.
    longer = f";{'x' * 2**21}\n{TEXT}"
    machine = Machine()
    for text, optimize in ((TEXT, False), (longer, True), (TEXT, True)):
        assert process.compile(text, optimize=optimize) == machine.compile(text, optimize=optimize)
    number = number_of(process)
    assert os.getsid(number) == number, "Ctrl-C in a terminal would reach it"
    process.end()
    assert not process.is_running
    with pytest.raises(ChildProcessError):
        os.waitpid(number, os.WNOHANG)
    assert process.compile(TEXT, optimize=True) == machine.compile(TEXT, optimize=True)


@pytest.mark.parametrize("text", ["no module", TEXT], ids=["ends", "ended"])
def test_a_process_that_ends_is_given_up(process: CompilingProcess, text: str) -> None:
    """SIGPIPE, which ends a process that does not ignore it, is not sent."""
    assert process.compile(TEXT, optimize=False)
    handler = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        if text is TEXT:
            os.kill(number_of(process), signal.SIGKILL)
            os.waitid(os.P_PID, number_of(process), os.WEXITED | os.WNOWAIT)
        assert process.compile(text, optimize=False) is None
    finally:
        signal.signal(signal.SIGPIPE, handler)
    assert not process.is_running
    assert process.compile(TEXT, optimize=False) is None


def test_what_fails_meanwhile_leaves_no_answer_for_the_next(process: CompilingProcess) -> None:
    def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        process.compile(TEXT, optimize=False, meanwhile=fail)
    assert not process.is_running
    other = TEXT.replace("twice", "again")
    assert b"again" in (process.compile(other, optimize=False) or b"")


@pytest.mark.parametrize("executable", ["", "/bin/cat", "/nowhere/python3"])
def test_without_an_interpreter_there_is_none(
    process: CompilingProcess, executable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as in an application that embeds Python, which would be started once more."""
    monkeypatch.setattr(sys, "executable", executable)
    assert process.compile(TEXT, optimize=False) is None
    assert not process.is_running


def test_a_process_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mute = tmp_path / "python-mute"
    mute.write_text("#!/bin/sh\nexec sleep 600\n")
    mute.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(mute))
    wanted = threading.Event()
    wanted.set()
    process = CompilingProcess(wanted.is_set)
    found: list[object] = []

    def compile_until_it_is_not_wanted() -> None:
        try:
            found.append(process.compile(TEXT * 50_000, optimize=False))
        except AbandonedError as error:
            found.append(error)

    thread = threading.Thread(target=compile_until_it_is_not_wanted)
    thread.start()
    until(lambda: process.is_running)
    wanted.clear()
    thread.join(60)
    assert isinstance(found[0], AbandonedError)
    assert not process.is_running
    wanted.set()
    monkeypatch.setattr(compiling_process, "_MOST", 0.0)
    assert process.compile(TEXT, optimize=False) is None
    assert not process.is_running


def run(program: str, folder: Path, **variables: str) -> list[str]:
    """Run a program with no kernel on disk, which must not say anything but its output."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder), **variables}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=120, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


PROGRAM = """
import os, sys, threading, time
import numpy as np
from aidotnet_py import autodiff as ad
from aidotnet_py.autodiff.execution import Executable
from aidotnet_py.backends import get_backend
from aidotnet_py.backends.numpy import llvm

llvm._IDLE = 0.1
executable = Executable(ad.trace(lambda x: x * {factor} + 1.0, np.ones(9)), get_backend("numpy"), compile_at=1)
executable.inputs[0][...] = np.arange(9.0)
{between}
executable.compile()
executable.run()
assert executable.outputs[0].tolist() == [{factor} * i + 1.0 for i in range(9)]
while any(thread.name == "aidotnet_py compiler" for thread in threading.enumerate()):
    time.sleep(0.01)
print("llvmlite" in sys.modules)
"""


def test_llvm_stays_out_of_a_process_and_leaves_no_child(tmp_path: Path) -> None:
    program = PROGRAM + "try: os.waitpid(-1, os.WNOHANG)\nexcept ChildProcessError: print('alone')"
    assert run(program.format(factor=2.5, between=""), tmp_path) == ["False", "alone"]


def test_one_process_compiles_what_comes_soon_after(tmp_path: Path) -> None:
    program = """
import subprocess, threading, time
import numpy as np
from aidotnet_py import autodiff as ad
from aidotnet_py.autodiff.execution import Executable
from aidotnet_py.backends import get_backend

class Counted(subprocess.Popen):
    started = 0
    def __init__(self, *args, **options):
        Counted.started += 1
        super().__init__(*args, **options)

subprocess.Popen = Counted
for factor in (2.0, 3.0, 4.0):
    Executable(ad.trace(lambda x: np.exp(x * factor), np.ones(9)), get_backend("numpy"), compile_at=1).compile()
    time.sleep(0.1)
print(Counted.started)
"""
    assert run(program, tmp_path) == ["1"]


def test_a_thread_that_outlives_the_main_one_waits_for_no_kernels(tmp_path: Path) -> None:
    """Nothing is compiled any more then."""
    program = """
import threading
import numpy as np
from aidotnet_py import autodiff as ad
from aidotnet_py.autodiff.execution import Executable
from aidotnet_py.backends import get_backend

def work():
    threading.main_thread().join()
    executable = Executable(ad.trace(lambda x: x * 2.0, np.ones(9)), get_backend("numpy"))
    executable.inputs[0][...] = 3.0
    executable.compile()
    executable.run()
    print(set(executable.outputs[0].tolist()))

threading.Thread(target=work).start()
"""
    assert run(program, tmp_path) == ["{6.0}"]


@pytest.mark.parametrize("between", ["sys.executable = None", "sys.frozen = True"])
def test_without_a_process_llvm_compiles_here(tmp_path: Path, between: str) -> None:
    assert run(PROGRAM.format(factor=2.5, between=between), tmp_path) == ["True"]


def test_a_fork_and_the_end_while_kernels_are_compiled(tmp_path: Path) -> None:
    """A forked process compiles by a process of its own; the end waits for no kernel that nobody uses."""
    program = """
import os
import numpy as np
from aidotnet_py.backends.kernel import Kernel, LoopNest, Number, Operand, Step
from aidotnet_py.backends.numpy.llvm import shared_compiler

every = Operand(0, "float64", (8, 1))
def times(number):
    step = Step("multiply", (every, Number(number, "float64")), "float64")
    return Kernel((LoopNest((4, 8), (step,), ((every, 0),)),), 1)

compiler = shared_compiler()
many = compiler.submit([times(1.0 + i / 64) for i in range(30)])
child = os.fork()
if not child:
    os._exit(7 if compiler.submit([times(5.0)]).result(wait=True) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run(program, tmp_path) == ["7"]
