"""Compile every kernel of a step with NVRTC, without a GPU: ``python -m benchmarks.gpu_registers WORKLOAD``.

Prints how long that takes, and the registers, spills and shared memory of the largest kernels, for the architecture
given. Needs ``pip install nvidia-cuda-nvrtc``. The step runs on NumPy's arrays, and its kernels do nothing.
"""

from __future__ import annotations

import argparse
import ctypes
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aidotnet_py import InvalidOperationException
from aidotnet_py.backends import CuPyBackend, NumPyBackend, register_backend
from aidotnet_py.backends.cuda.compiler import COMPILE_OPTIONS, CudaCompiler, is_for_library
from aidotnet_py.backends.cuda.launch import Launch
from aidotnet_py.backends.cuda.source import launches_of, module_text
from aidotnet_py.backends.kernel import Kernel
from benchmarks.contestants.ours import Contestant
from benchmarks.workloads import workload

__all__: list[str] = []

_REPORT = re.compile(
    r"entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers"
    r"(?:, used \d+ barriers)?(?:, (\d+) bytes smem)?",
    re.DOTALL,
)


class _Nothing:
    """A toolkit and a cuBLAS whose functions do nothing."""

    def load(self, text: str) -> Callable[[str], Callable[[int, int, Sequence[int]], Any]]:
        return lambda name: lambda blocks, threads, addresses: None

    def stream(self) -> int:
        return 0

    def cublas(self) -> Any:
        return self

    def bind(self, gemm: Any, addresses: Sequence[int]) -> Callable[[int], None]:
        return lambda stream: None

    def address_of(self, array: Any) -> int:
        return int(array.__array_interface__["data"][0])


class _Recorder(NumPyBackend):
    """NumPy under CuPy's name, whose compiler keeps the kernels that it is given."""

    name, threads, flops_at_once = "cupy", CuPyBackend.threads, CuPyBackend.flops_at_once

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[Kernel] = []
        self._cuda = CudaCompiler(_Nothing())
        submit = self._cuda.submit

        def recording(kernels: Sequence[Kernel]) -> Any:
            self.kernels += kernels
            return submit(kernels)

        self._cuda.submit = recording  # type: ignore[method-assign]  # a benchmark may look inside

    @property
    def compiler(self) -> Any:
        return self._cuda


def _launches(name: str) -> dict[str, Launch]:
    """The calls of a step by the names of their functions."""
    backend = _Recorder()
    register_backend(backend)
    # Kernels that do nothing leave numbers behind that a step refuses, but only after all were compiled.
    with suppress(InvalidOperationException):
        Contestant(workload(name), "default", "cuda").step()

    calls = [call for kernel in backend.kernels for call in launches_of(kernel, is_for_library)]
    return {call.name: call for call in calls if isinstance(call, Launch)}


def _nvrtc() -> Any:
    """NVRTC of the wheel."""
    spec = find_spec("nvidia")
    folders = [] if spec is None else [Path(place) for place in spec.submodule_search_locations or ()]
    found = [path for folder in folders for path in folder.rglob("libnvrtc*.so*") if "alt" not in path.name]
    if not found:
        raise SystemExit("NVRTC is not installed: pip install nvidia-cuda-nvrtc")
    # The library looks for its built-in functions among what is loaded.
    for path in (path for path in found if "builtins" in path.name):
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(next(path for path in found if "builtins" not in path.name)))


def _compiled(library: Any, text: str, architecture: str) -> tuple[float, str]:
    """The seconds of a compilation, and its log."""
    program = ctypes.c_void_p()
    library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernels.cu", 0, None, None)
    options = [*COMPILE_OPTIONS, f"--gpu-architecture={architecture}", "--ptxas-options=-v"]
    began = time.perf_counter()
    status = library.nvrtcCompileProgram(
        program, len(options), (ctypes.c_char_p * len(options))(*map(str.encode, options))
    )
    seconds = time.perf_counter() - began
    size = ctypes.c_size_t()
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    if status:
        raise SystemExit(log.value.decode())
    return seconds, log.value.decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="+", metavar="FAMILY-TASKS")
    parser.add_argument("--architecture", default="sm_90")
    options = parser.parse_args()
    library = _nvrtc()
    for name in options.workloads:
        launches = _launches(name)
        seconds, log = _compiled(library, module_text(launches.values()), options.architecture)
        rows = sorted(
            ((int(used), int(stored) + int(loaded), int(shared or 0), function)
             for function, stored, loaded, used, shared in _REPORT.findall(log)),
            reverse=True,
        )  # fmt: skip
        print(f"{name}: {len(rows)} kernels for {options.architecture} in {seconds:.2f} s")
        print(f"  {sum(spilled > 0 for _, spilled, _, _ in rows)} spill registers")
        print("  registers  spilled bytes  shared bytes  blocks × threads")
        for used, spilled, shared, function in rows[:5]:
            call = launches[function]
            print(f"  {used:9}  {spilled:13}  {shared:12}  {call.blocks} × {call.threads}")


if __name__ == "__main__":
    main()
