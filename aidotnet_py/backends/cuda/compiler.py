"""Kernels as CUDA functions, through CuPy and NVRTC."""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import importlib.util
import math
import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

from aidotnet_py.backends.code_files import CodeFiles
from aidotnet_py.backends.cuda.cublas import Cublas, gemms
from aidotnet_py.backends.cuda.launch import Launch
from aidotnet_py.backends.cuda.source import launches_of, module_text
from aidotnet_py.backends.cuda.steps import CUDA_OPERATIONS
from aidotnet_py.backends.kernel import Kernel, LoopRules, Product
from aidotnet_py.exceptions import InvalidOperationException

__all__ = ["COMPILE_OPTIONS", "CudaCompiler", "Toolkit", "shared_cuda_compiler"]

# Operations are rounded as IEEE 754 says: nothing is contracted, denormals are kept, quotients and square roots are the
# nearest ones.
COMPILE_OPTIONS = ("--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true")

# Products of no more multiplications than that, for one task, are for kernels of our own: a tile or a few each. So are
# those with few rows, columns or terms. On an H200, cuBLAS is no faster at these, and up to twice as fast at others
# (`benchmarks.gpu_products`).
_SMALL, _THIN = 64**3, 16
# Bytes that cuBLAS may use: what NVIDIA recommends for Hopper, and more than for the others.
_WORKSPACE = 32 * 2**20


class Toolkit(Protocol):
    """What the compiler needs of CUDA; see `_CupyToolkit`."""

    def load(self, text: str) -> Callable[[str], Callable[[int, int, Sequence[int]], Any]]:
        """Compile a module: what gives its functions by name, to be called with blocks, threads and addresses.

        CompilationFailed where the compiler objects.
        """
        ...

    def stream(self) -> int:
        """The stream that functions are called on now."""
        ...

    def cublas(self) -> Cublas:
        """A handle on cuBLAS."""
        ...

    def address_of(self, array: Any) -> int:
        """Where the array's first element lies on the device."""
        ...


class CompilationFailed(Exception):
    """The text of a module is not what the compiler wants; its words say why."""


def shared_cuda_compiler(*, tf32: bool = False) -> CudaCompiler | None:
    """The compiler of this process for the current device; None without CuPy or without a device.

    With ``tf32``, cuBLAS may multiply float32 with 10 bits of the mantissa.
    """
    if importlib.util.find_spec("cupy") is None:
        return None
    cupy: Any = importlib.import_module("cupy")
    return _compiler_of(cupy, int(cupy.cuda.Device().id), tf32) if cupy.cuda.is_available() else None


@cache
def _compiler_of(cupy: Any, device: int, tf32: bool) -> CudaCompiler:
    return CudaCompiler(_CupyToolkit(cupy, device, tf32=tf32))


class _Compiled:
    """Kernels that are ready; see `aidotnet_py.backends.Compilation`."""

    def __init__(self, bind: Sequence[Callable[[Sequence[int]], Callable[[], Any]]]) -> None:
        self._bind = bind

    def result(self, *, wait: bool = False) -> Sequence[Callable[[Sequence[int]], Callable[[], Any]]]:
        return self._bind


class CudaCompiler:
    """A `KernelCompiler` on CUDA.

    All kernels of a submission are compiled as one module, before `submit` returns: when compiling ends never decides
    what is run. A function is compiled once in a process. The calls wait for nothing, allocate nothing and copy
    nothing to the host, so that a stream that they are made on may be captured. They may not run on two streams at one
    time, since sums in two passes and cuBLAS have one place each for what they keep in between.

    Parameters
    ----------
    toolkit : Toolkit
        What compiles and runs.

    Raises
    ------
    InvalidOperationException
        By `submit`, where NVRTC objects.
    """

    # A GPU's sums have an order of their own in any case. Windows are taken in tiles from 1 GiB on: of fewer, each tile
    # would be too little work for a GPU.
    rules = LoopRules(CUDA_OPERATIONS, any_sums=True, own_bits=True, room=2**8)

    def __init__(self, toolkit: Toolkit) -> None:
        self._toolkit = toolkit
        self._functions: dict[str, Callable[[int, int, Sequence[int]], Any]] = {}
        self._cublas: Cublas | None = None
        # What a kernel calls belongs together: sums in two passes, and cuBLAS and the stream that it is told of.
        self._lock = threading.RLock()

    def can_multiply(self, product: Product) -> bool:
        """Always: what cuBLAS does not take, kernels do."""
        return True

    def address_of(self, array: Any) -> int:
        """Where the first element of a CuPy array lies; an error where that is on another device."""
        return self._toolkit.address_of(array)

    def chain(self, calls: Sequence[Callable[[], Any]]) -> None:
        """None: launches are told apart by nobody but the device, and a graph of them is the backend's to capture."""

    def submit(self, kernels: Sequence[Kernel]) -> _Compiled:
        """Compile kernels."""
        work = [launches_of(kernel, _is_for_library) for kernel in kernels]
        launches = [one for calls in work for one in calls if isinstance(one, Launch)]
        missing = [one for one in launches if one.name not in self._functions]
        if missing:
            try:
                function = self._toolkit.load(module_text(missing))
            except CompilationFailed as error:
                first = "\n".join(str(error).splitlines()[:8])
                raise InvalidOperationException(f"kernels could not be compiled: {first}") from error
            self._functions.update({one.name: function(one.name) for one in missing})
        if self._cublas is None and any(isinstance(one, Product) for calls in work for one in calls):
            self._cublas = self._toolkit.cublas()
        return _Compiled([partial(self._bound, calls) for calls in work])

    def _bound(self, work: Sequence[Launch | Product], addresses: Sequence[int]) -> Callable[[], Any]:
        calls: list[Callable[[], Any]] = []
        for one in work:
            if isinstance(one, Launch):
                places = tuple(addresses[argument] for argument in one.arguments)
                calls.append(partial(self._functions[one.name], one.blocks, one.threads, places))
            else:
                calls += self._products(one, addresses)
        return partial(_all, tuple(calls), self._lock)

    def _products(self, product: Product, addresses: Sequence[int]) -> list[Callable[[], Any]]:
        assert self._cublas is not None
        bound = [self._cublas.bound(gemm, addresses) for gemm in gemms(product) or ()]
        return [partial(_on_stream, call, self._toolkit.stream) for call in bound]


def _all(calls: Sequence[Callable[[], Any]], lock: AbstractContextManager[Any]) -> None:
    with lock:
        for call in calls:
            call()


def _on_stream(call: Callable[[int], None], stream: Callable[[], int]) -> None:
    call(stream())


def _is_for_library(product: Product) -> bool:
    return math.prod(product.sizes) > _SMALL and min(product.sizes) > _THIN and gemms(product) is not None


class _CupyToolkit:
    """CUDA through CuPy, on a device that is current whenever it is used.

    CuPy's `RawModule` adds an option of its own that makes denormals zero, so NVRTC is called beneath it, and what it
    gives is kept here.
    """

    def __init__(self, cupy: Any, device: int, *, tf32: bool) -> None:
        self._cupy = cupy
        self._device = device
        self._tf32 = tf32
        capability = cupy.cuda.Device(device).compute_capability
        self._kind = f"{cupy.cuda.nvrtc.getVersion()} {capability} {COMPILE_OPTIONS}"
        folder = os.environ.get("CUPY_CACHE_DIR") or Path.home() / ".cupy" / "kernel_cache"
        self._files = CodeFiles(Path(folder) / "aidotnet_py")
        self._workspace: Any = None

    def load(self, text: str) -> Callable[[str], Callable[[int, int, Sequence[int]], Any]]:
        digest = hashlib.sha256(f"{self._kind}\n{text}".encode()).hexdigest()
        module = self._module(self._files.read(digest))
        if module is None:
            code = self._compiled(text)
            self._files.write(digest, code)
            module = self._cupy.cuda.function.Module()
            module.load(code)

        def found(name: str) -> Callable[[int, int, Sequence[int]], Any]:
            function = module.get_function(name)
            return lambda blocks, threads, addresses: function((blocks,), (threads,), addresses)

        return found

    def _module(self, code: bytes | None) -> Any | None:
        """The module of code that was kept; None where there is none, or none that this driver loads."""
        if code is None:
            return None
        module = self._cupy.cuda.function.Module()
        try:
            module.load(code)
        except self._cupy.cuda.driver.CUDADriverError:
            return None
        return module

    def _compiled(self, text: str) -> bytes:
        compiler = self._cupy.cuda.compiler
        try:
            code, _ = compiler.compile_using_nvrtc(text, options=COMPILE_OPTIONS, cache_in_memory=True)
        except compiler.CompileException as error:
            raise CompilationFailed(error.get_message()) from error
        return bytes(code)

    def stream(self) -> int:
        return int(self._cupy.cuda.get_current_stream().ptr)

    def cublas(self) -> Cublas:
        # CuPy finds its libraries and loads them when one looks at this, and not when the module beneath it is
        # imported; by name it is then found among those loaded.
        self._cupy.cuda.cublas  # noqa: B018
        library = ctypes.CDLL(_cublas_name(self._cupy.cuda.runtime.runtimeGetVersion() // 1000))
        self._workspace = self._cupy.cuda.alloc(_WORKSPACE)
        return Cublas(library, (int(self._workspace.ptr), _WORKSPACE), tf32=self._tf32)

    def address_of(self, array: Any) -> int:
        if array.device.id != self._device:
            raise InvalidOperationException(
                f"an array lies on device {array.device.id}; kernels are compiled for device {self._device}"
            )
        return int(array.data.ptr)


def _cublas_name(version: int) -> str:
    return f"cublas64_{version}.dll" if sys.platform == "win32" else f"libcublas.so.{version}"
