"""Object files are loaded without LLVM to the same machine code; what is none, or of another system, is left alone."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from aidotnet_py.backends.kernel import Kernel, LoopNest, Number, Operand, Step
from aidotnet_py.backends.numpy import library, object_code
from aidotnet_py.backends.numpy.llvm import LlvmCompiler, shared_compiler
from aidotnet_py.backends.numpy.machine_code import Machine

pytestmark = [
    pytest.mark.skipif(shared_compiler() is None, reason="llvmlite is not installed"),
    pytest.mark.skipif(not object_code.can_load(), reason="object files of this system are left to LLVM"),
]

# Constants in sections of their own, and a jump between functions.
TEXT = """
define internal double @scaled(double %x) noinline nounwind {
  %y = fmul double %x, 0x400921FB54442D18
  ret double %y
}
define void @kernel(ptr %table) nounwind {
  %out = load ptr, ptr %table
  %y = call double @scaled(double 2.0)
  store double %y, ptr %out
  ret void
}
"""


@pytest.fixture(scope="module", params=[False, True], ids=["early", "optimized"])
def code(request: pytest.FixtureRequest) -> bytes:
    return Machine().compile(TEXT, optimize=request.param)


def run(address: int) -> np.ndarray:
    out = np.full(3, 7.0)
    table = (ctypes.c_void_p * 1)(out.ctypes.data)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)(table)
    return out


def test_a_function_runs_where_it_was_put(code: bytes) -> None:
    first, second = (object_code.load(code, "kernel") for _ in range(2))
    assert first is not None
    assert second is not None
    assert first != second
    for address in (first, second):
        assert run(address).tolist() == [2 * np.pi, 7.0, 7.0]


def test_only_functions_that_are_there_are_found(code: bytes) -> None:
    assert object_code.load(code, "other") is None


def test_code_that_calls_another_library_is_refused() -> None:
    text = "declare double @cos(double)" + TEXT.replace("call double @scaled", "call double @cos")
    assert object_code.load(Machine().compile(text, optimize=True), "kernel") is None


def _relocation_of_another_kind(code: bytes) -> bytes:
    file = object_code._Object(code)
    section = next(s for s in file.sections if s.kind == object_code._RELOCATIONS and s.size)
    changed = bytearray(code)
    (info,) = struct.unpack_from("<Q", code, section.offset + 8)
    struct.pack_into("<Q", changed, section.offset + 8, info & ~0xFFFFFFFF | 2)
    return bytes(changed)


def _with_sizes_of(code: bytes, kind: int, size: int) -> bytes:
    (start,) = struct.unpack_from("<Q", code, 0x28)
    changed = bytearray(code)
    for place, section in enumerate(object_code._Object(code).sections):
        if section.kind == kind:
            struct.pack_into("<Q", changed, start + 64 * place + 32, size)
    return bytes(changed)


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b"",
        lambda b: b[:40],
        lambda b: b[:-100],
        lambda b: b"MZ" + b[2:],
        lambda b: b[:18] + struct.pack("<H", 183) + b[20:],  # for another processor
        lambda b: b[:16] + struct.pack("<H", 3) + b[18:],  # a shared library
        _relocation_of_another_kind,
        lambda b: _with_sizes_of(b, object_code._PROGBITS, 2**63),
        lambda b: _with_sizes_of(b, 3, 1),  # names without an end
    ],
)
def test_what_is_not_known_is_refused(code: bytes, damage: object) -> None:
    assert callable(damage)
    assert object_code.load(damage(code), "kernel") is None


def _kernel(factor: float) -> Kernel:
    place = Operand(0, "float64", (1,))
    return Kernel(
        (LoopNest((6,), (Step("multiply", (place, Number(factor, "float64")), "float64"),), ((place, 0),)),), 1
    )


def run_on(compiler: LlvmCompiler, kernel: Kernel, array: np.ndarray) -> None:
    functions = compiler.submit([kernel]).result(wait=True)
    assert functions is not None
    functions[0]([array.ctypes.data])()


def test_kernels_that_differ_in_the_sign_of_a_zero_are_told_apart() -> None:
    digests = {library._digest("some processor", _kernel(factor)) for factor in (0.0, -0.0, 1.0)}
    assert len(digests) == 3


def test_digests_hang_on_the_processor_and_on_what_writes_code(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = {library._digest(kind, _kernel(2.0)) for kind in ("one", "another")}
    for writers in ("changed", None):
        monkeypatch.setattr(library, "_writers", lambda writers=writers: writers)
        digests.add(library._digest("one", _kernel(2.0)))
    assert len(digests) == 4


def test_without_a_description_of_the_processor_llvm_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / name)
    monkeypatch.setattr(library, "_kind_of_processor", lambda: None)
    array = np.arange(6.0)
    for _ in range(2):
        run_on(LlvmCompiler(), _kernel(2.0), array)
    np.testing.assert_array_equal(array, 4 * np.arange(6.0))
    assert len(list((tmp_path / "aidotnet_py" / "kernels").iterdir())) == 1


def test_llvm_loads_what_cannot_be_loaded_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / name)
    monkeypatch.setattr(library, "load", lambda code, function: None)
    array = np.arange(6.0)
    for _ in range(2):
        run_on(LlvmCompiler(), _kernel(3.0), array)
    np.testing.assert_array_equal(array, 9 * np.arange(6.0))


@pytest.mark.slow
def test_what_is_on_disk_is_ready_at_once_and_never_needs_llvm_here(tmp_path: Path) -> None:
    script = tmp_path / "again.py"
    script.write_text(
        f"""
import sys
from pathlib import Path
import numpy as np
import platformdirs
platformdirs.user_cache_path = lambda name: Path({str(tmp_path)!r}) / name
from aidotnet_py import autodiff as ad
from aidotnet_py.autodiff.execution import Executable
from aidotnet_py.backends import get_backend

executable = Executable(ad.trace(lambda x: x * 2.0 + 1.0, np.ones(9)), get_backend("numpy"), compile_at=1)
executable.inputs[0][...] = np.arange(9.0)
executable.run()
ready = executable._compiling is None
executable.compile()
executable.run()
assert executable.outputs[0].tolist() == [2.0 * i + 1.0 for i in range(9)]
print(ready, "llvmlite" in sys.modules)
"""
    )
    said = [
        subprocess.run([sys.executable, str(script)], check=True, capture_output=True, text=True).stdout.split()
        for _ in range(2)
    ]
    assert said == [["False", "False"], ["True", "False"]]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_process_forked_while_kernels_are_compiled_compiles_its_own(tmp_path: Path) -> None:
    script = tmp_path / "forks.py"
    script.write_text(
        f"""
import os, signal, threading, time
from pathlib import Path
import numpy as np
import platformdirs
platformdirs.user_cache_path = lambda name: Path({str(tmp_path)!r}) / name
from aidotnet_py import autodiff as ad
from aidotnet_py.autodiff.execution import Executable
from aidotnet_py.backends import NumPyBackend

def executable(k):
    return Executable(ad.trace(lambda x: [x * float(k) + 1.0], np.ones(9 + k)), NumPyBackend(), compile_at=1)

def check(one, k):
    one.compile()
    one.inputs[0][...] = 2.0
    one.run()
    assert one.outputs[0][0] == 2.0 * k + 1.0

waiting = [executable(k) for k in range(16)]
for one in waiting:
    one.run()
for turn in range(6):
    time.sleep(0.02 * turn)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        check(executable(100 + turn), 100 + turn)
        check(waiting[-1], 15)
        threading._shutdown()  # as a process of multiprocessing ends
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, turn
for k, one in enumerate(waiting):
    check(one, k)
"""
    )
    subprocess.run([sys.executable, str(script)], check=True, capture_output=True, timeout=100)
