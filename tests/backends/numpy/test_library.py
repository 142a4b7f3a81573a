"""Functions are compiled at once, and optimized while they are in use; both compute the same bits."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from waiting import until

from aidotnet_py.backends.code_files import CodeFiles
from aidotnet_py.backends.kernel import Kernel, LoopNest, Number, Operand, Step
from aidotnet_py.backends.numpy import llvm
from aidotnet_py.backends.numpy.compiling_process import CompilingProcess
from aidotnet_py.backends.numpy.kernel_calls import KernelCall
from aidotnet_py.backends.numpy.library import Function, Library
from aidotnet_py.backends.numpy.llvm import LlvmCompiler, shared_compiler
from aidotnet_py.backends.numpy.machine_code import OPTIMIZE

pytestmark = pytest.mark.skipif(shared_compiler() is None, reason="llvmlite is not installed")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / name)
    return tmp_path / "aidotnet_py" / "kernels"


@pytest.fixture
def process() -> Iterator[CompilingProcess]:
    process = CompilingProcess(lambda: True)
    yield process
    process.end()


def kernel(factor: float) -> Kernel:
    """Square roots of the elements, times a factor."""
    place = Operand(0, "float32", (16, 1))
    steps = Step("sqrt", (place,), "float32"), Step("multiply", (0, Number(factor, "float32")), "float32")
    return Kernel((LoopNest((50, 16), steps, ((place, 1),)),), 1)


def levels(folder: Path) -> list[bytes]:
    """Whether the code in each whole file is optimized, behind the digest with which the file begins."""
    return sorted(file.read_bytes()[32:33] for file in folder.iterdir() if "." not in file.name)


def compiled(library: Library, process: CompilingProcess, factor: float) -> Function:
    function = library.compile(kernel(factor), process, [])
    write_all(library)
    return function


def optimize_all(library: Library, process: CompilingProcess) -> None:
    while library.can_optimize():
        library.optimize(process)
    write_all(library)


def write_all(library: Library) -> None:
    while library.has_to_write():
        library.write()


def wait_for_the_compiler() -> None:
    until(lambda: not any(thread.name == "aidotnet_py compiler" for thread in threading.enumerate()))


def test_optimized_code_takes_the_place_of_early_code(folder: Path, process: CompilingProcess) -> None:
    library, array = Library(), np.arange(800, dtype=np.float32)
    function = compiled(library, process, 3.0)
    early, expected = function.address, np.sqrt(array) * np.float32(3.0)
    call = KernelCall(function, [array.ctypes.data])
    for address_is_early in (True, False):
        assert (function.address == early) is address_is_early
        array[:] = np.arange(800)
        call()
        np.testing.assert_array_equal(array, expected)
        assert levels(folder) == [b"\0" if address_is_early else OPTIMIZE]
        assert library.can_optimize() is address_is_early
        optimize_all(library, process)


def test_functions_that_nobody_has_any_more_are_not_optimized(folder: Path, process: CompilingProcess) -> None:
    library = Library()
    functions = [compiled(library, process, float(i)) for i in range(3)]
    assert compiled(library, process, 2.0) is functions[2]
    del functions[0]
    gc.collect()
    optimize_all(library, process)
    assert levels(folder) == [b"\0", OPTIMIZE, OPTIMIZE]
    # One that comes back is.
    functions.append(compiled(library, process, 0.0))
    assert library.can_optimize()


def test_early_code_that_an_ended_process_left_is_optimized(folder: Path, process: CompilingProcess) -> None:
    compiled(Library(), process, 5.0)
    assert levels(folder) == [b"\0"]
    for is_left in (True, False):
        later = Library()
        function = compiled(later, process, 5.0)
        assert later.can_optimize() is is_left
        optimize_all(later, process)
        assert levels(folder) == [OPTIMIZE]
        assert function.address


def test_what_cannot_be_optimized_stays_as_it_is(process: CompilingProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    function = compiled(library, process, 7.0)
    early = function.address

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(library, "_compile", fail)
    with pytest.raises(RuntimeError):
        library.optimize(process)
    assert function.address == early
    assert not library.can_optimize()


@pytest.mark.slow
def test_a_chain_runs_while_its_kernels_are_optimized(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llvm, "_QUIET", 0.1)
    monkeypatch.setattr(llvm, "_IDLE", 0.0)
    compiler, arrays = LlvmCompiler(), [np.empty(800, np.float32) for _ in range(20)]
    makers = compiler.submit([kernel(1.0 + i / 8) for i in range(20)]).result(wait=True) or []
    calls = [make([array.ctypes.data]) for make, array in zip(makers, arrays, strict=True)]
    until(lambda: compiler.chain(calls) is not None)
    chain = compiler.chain(calls)
    assert chain is not None
    expected = [np.sqrt(np.arange(800, dtype=np.float32)) * np.float32(1.0 + i / 8) for i in range(20)]

    def run() -> bool:
        for array in arrays:
            array[:] = np.arange(800)
        chain(1)
        for array, value in zip(arrays, expected, strict=True):
            np.testing.assert_array_equal(array, value)
        return set(levels(folder)) == {OPTIMIZE}

    until(run)
    wait_for_the_compiler()
    assert run()


def test_code_that_cannot_be_written_keeps_no_other_from_being_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler, tried = LlvmCompiler(), threading.Event()

    def fail(*_: Any) -> None:
        tried.set()
        raise MemoryError

    monkeypatch.setattr(CodeFiles, "write", fail)
    assert compiler.submit([kernel(11.0)]).result(wait=True)
    assert tried.wait(10)
    later = compiler.submit([kernel(12.0)])
    until(lambda: later.over)
    compiler.pause()
    compiler.go_on()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_does_not_end_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llvm, "_QUIET", 0.3)
    monkeypatch.setattr(llvm, "_IDLE", 0.0)
    compiler = LlvmCompiler()
    makers = compiler.submit([kernel(9.0)]).result(wait=True)
    assert makers
    call: Any = makers[0]([0])
    compiler.pause()
    assert call._function.address
    assert OPTIMIZE not in levels(folder)
    compiler.resume()
    until(lambda: levels(folder) == [OPTIMIZE])
    wait_for_the_compiler()
    assert call.kernel == kernel(9.0)
