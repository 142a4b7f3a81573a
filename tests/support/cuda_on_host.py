"""CUDA C++ on a CPU: modules are compiled by g++, each thread of a block is a fiber, and cuBLAS is played by NumPy.

What is run is the text that a GPU would get, after definitions that stand for CUDA's own words.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aidotnet_py.backends import NumPyBackend
from aidotnet_py.backends.cuda.compiler import CompilationFailed, CudaCompiler
from aidotnet_py.backends.cuda.cublas import Cublas

__all__ = ["FakeCublas", "HostBackend", "HostToolkit", "needs_gxx"]

needs_gxx = pytest.mark.skipif(
    shutil.which("g++") is None, reason="g++ is not installed: CUDA C++ cannot run on the CPU"
)

_HEADER = r"""
#include <cmath>
#include <cstring>
#include <vector>
#include <ucontext.h>
using std::fabs; using std::sqrt; using std::exp; using std::expm1; using std::log; using std::log1p;
using std::sin; using std::cos; using std::tanh; using std::pow; using std::fma;
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(n)
#define __restrict__ __restrict
#define __shared__ static
static float __int_as_float(int i) { float f; std::memcpy(&f, &i, 4); return f; }
static double __longlong_as_double(long long i) { double f; std::memcpy(&f, &i, 8); return f; }
static struct { unsigned x; } threadIdx, blockIdx;

// Threads of a block that wait for each other: each has a stack, and goes on when all have come to the same place.
static ucontext_t scheduler;
static std::vector<ucontext_t> fibers;
static std::vector<char> over;
static void (*body)(void **);
static void **body_arguments;
static void __syncthreads() {
  unsigned t = threadIdx.x;
  swapcontext(&fibers[t], &scheduler);
}
static void enter() {
  body(body_arguments);
  over[threadIdx.x] = 1;
  swapcontext(&fibers[threadIdx.x], &scheduler);
}
static void run(void (*function)(void **), unsigned blocks, unsigned threads, void **arguments, bool waits) {
  static std::vector<char> stacks;
  const size_t size = 32768;
  for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
    if (!waits) {
      for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) function(arguments);
      continue;
    }
    body = function; body_arguments = arguments;
    stacks.resize(size * threads); fibers.resize(threads); over.assign(threads, 0);
    for (unsigned t = 0; t < threads; ++t) {
      getcontext(&fibers[t]);
      fibers[t].uc_stack.ss_sp = &stacks[size * t];
      fibers[t].uc_stack.ss_size = size;
      makecontext(&fibers[t], enter, 0);
    }
    for (bool left = true; left;) {
      left = false;
      for (unsigned t = 0; t < threads; ++t)
        if (!over[t]) {
          threadIdx.x = t;
          swapcontext(&scheduler, &fibers[t]);
          left = left || !over[t];
        }
    }
  }
}
"""

_FUNCTION = re.compile(r'extern "C" __global__ void \S+ (\w+)\((.*?)\) \{(.*?)^\}', re.DOTALL | re.MULTILINE)


def _with_entries(text: str) -> str:
    """The text, and for each function one that takes its grid and a table of its arguments."""
    entries: list[str] = []
    for name, parameters, body in _FUNCTION.findall(text):
        kinds = [re.sub(r"\*.*", "*", p).strip() for p in parameters.split(",") if p.strip()]
        given = ", ".join(f"({kind})a[{i}]" for i, kind in enumerate(kinds))
        waits = "true" if "__syncthreads" in body else "false"
        entries.append(
            f"static void {name}_body(void **a) {{ {name}({given}); }}\n"
            f'extern "C" void {name}_run(unsigned blocks, unsigned threads, void **a) '
            f"{{ run({name}_body, blocks, threads, a, {waits}); }}\n"
        )
    return '#include "header.hpp"\n' + text + "".join(entries)


# The same for the header and the modules: a compiled header serves its own flags alone. Most modules run once, and
# take longer to optimize than to run as they are.
_FLAGS = ["-std=c++17", "-O0", "-w", "-ffp-contract=off", "-march=native", "-fPIC"]
_kept: list[tempfile.TemporaryDirectory[str]] = []


@cache
def _folder() -> Path:
    """A folder with the header, compiled: most modules are small beside what it includes."""
    _kept.append(tempfile.TemporaryDirectory(prefix="cuda_on_host"))
    folder = Path(_kept[-1].name)
    (folder / "header.hpp").write_text(_HEADER)
    subprocess.run(["g++", *_FLAGS, "-x", "c++-header", "header.hpp"], cwd=folder, check=True, capture_output=True)
    return folder


class HostToolkit:
    """A `Toolkit` on NumPy's memory."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.fake = FakeCublas()

    def load(self, text: str) -> Callable[[str], Callable[[int, int, Sequence[int]], Any]]:
        self.texts.append(text)
        place = Path(tempfile.mkdtemp(dir=_folder()))
        (place / "module.cpp").write_text(_with_entries(text))
        command = ["g++", *_FLAGS, "-I", str(_folder()), "-shared", "module.cpp", "-o", "module.so"]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CompilationFailed(done.stderr)
        library = ctypes.CDLL(str(place / "module.so"))
        return lambda name: _entry(library, name)

    def stream(self) -> int:
        return 7

    def cublas(self) -> Cublas:
        return Cublas(self.fake, (4096, 1024))

    def address_of(self, array: Any) -> int:
        return int(array.__array_interface__["data"][0])


def _entry(library: Any, name: str) -> Callable[[int, int, Sequence[int]], Any]:
    function = getattr(library, f"{name}_run")

    def run(blocks: int, threads: int, addresses: Sequence[int]) -> None:
        assert 0 < blocks < 2**31
        assert 0 < threads <= 1024
        function(ctypes.c_uint(blocks), ctypes.c_uint(threads), (ctypes.c_void_p * len(addresses))(*addresses))

    return run


class HostBackend(NumPyBackend):
    """NumPy, with what is compiled for CUDA run on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.toolkit = HostToolkit()
        self._cuda = CudaCompiler(self.toolkit)

    @property
    def compiler(self) -> Any:
        return self._cuda


class FakeCublas:
    """cuBLAS's functions on NumPy's memory, strict about what they are given."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.workspace: int | None = None
        self.math: int | None = None

    def cublasCreate_v2(self, handle: Any) -> int:
        handle._obj.value = 42
        return 0

    def cublasSetMathMode(self, handle: Any, mode: Any) -> int:
        assert handle.value == 42
        self.math = mode.value
        return 0

    def cublasSetStream_v2(self, handle: Any, stream: Any) -> int:
        self.workspace = None
        return 0

    def cublasSetWorkspace_v2(self, handle: Any, workspace: Any, size: Any) -> int:
        assert workspace.value % 256 == 0
        self.workspace = size.value
        return 0

    def cublasSgemmStridedBatched(self, *arguments: Any) -> int:
        return self._gemm(np.float32, *arguments)

    def cublasDgemmStridedBatched(self, *arguments: Any) -> int:
        return self._gemm(np.float64, *arguments)

    def _gemm(self, dtype: Any, handle: Any, opa: Any, opb: Any, m: Any, n: Any, k: Any, alpha: Any, *rest: Any) -> int:
        a, lda, sa, b, ldb, sb, beta, c, ldc, sc, count = rest
        assert self.workspace, "the workspace must be set anew for each stream"
        assert handle.value == 42
        assert alpha._obj.value == 1
        assert beta._obj.value == 0
        self.calls.append(dtype.__name__)
        m, n, k, count = m.value, n.value, k.value, count.value

        def matrices(place: Any, line: Any, step: Any, rows: int, columns: int) -> Any:
            if line.value < max(1, rows):
                return None
            size = (count - 1) * step.value + (columns - 1) * line.value + rows
            kind = ctypes.c_float if dtype is np.float32 else ctypes.c_double
            flat = np.ctypeslib.as_array((kind * size).from_address(place.value))
            item = flat.itemsize
            return np.lib.stride_tricks.as_strided(
                flat, (count, rows, columns), (step.value * item, item, line.value * item)
            )

        x = matrices(a, lda, sa, *((k, m) if opa.value else (m, k)))
        y = matrices(b, ldb, sb, *((n, k) if opb.value else (k, n)))
        z = matrices(c, ldc, sc, m, n)
        if x is None or y is None or z is None or min(m, n, k, count) < 1:
            return 7
        x, y = (np.swapaxes(v, 1, 2) if op.value else v for v, op in ((x, opa), (y, opb)))
        z[...] = np.matmul(x, y)
        return 0
