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

__all__ = ["COMPILE_OPTIONS", "CudaCompiler", "Toolkit", "is_for_library", "shared_cuda_compiler"]

# Operations are rounded by IEEE 754: no contraction, denormals are kept, quotients and square roots are correctly
# rounded.
COMPILE_OPTIONS = ("--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true")

# Products with at most _SMALL multiplications per task, a few tiles each, and products with at most _THIN rows, columns
# or terms are computed by our own kernels. On an H200, cuBLAS is no faster at these, and up to twice as fast at others
# (`benchmarks.gpu_products`).
_SMALL, _THIN = 64**3, 16
# Bytes of cuBLAS's workspace: NVIDIA's recommendation for Hopper, which exceeds that for other GPUs.
_WORKSPACE = 32 * 2**20


class Toolkit(Protocol):
    """The functions of CUDA that the compiler needs; see `_CupyToolkit`."""

    def load(self, text: str) -> Callable[[str], Callable[[int, int, Sequence[int]], Any]]:
        """Compile a module, and return a look-up of its functions, called with blocks, threads and addresses.

        Raises
        ------
        CompilationFailed
            When the compiler rejects the text.
        """
        ...

    def stream(self) -> int:
        """Return the current stream."""
        ...

    def cublas(self) -> Cublas:
        """Return a handle of cuBLAS."""
        ...

    def address_of(self, array: Any) -> int:
        """Return the address of the array's first element on the device."""
        ...


class CompilationFailed(Exception):
    """The compiler rejected the text of a module; the message is the compiler's."""


def shared_cuda_compiler(*, tf32: bool = False) -> CudaCompiler | None:
    """Return the compiler of this process for the current device; None without CuPy or without a device.

    With ``tf32``, cuBLAS may multiply float32 with 10 bits of mantissa.
    """
    if importlib.util.find_spec("cupy") is None:
        return None
    cupy: Any = importlib.import_module("cupy")
    return _compiler_of(cupy, int(cupy.cuda.Device().id), tf32) if cupy.cuda.is_available() else None


@cache
def _compiler_of(cupy: Any, device: int, tf32: bool) -> CudaCompiler:
    return CudaCompiler(_CupyToolkit(cupy, device, tf32=tf32))


class _Compiled:
    """Compiled kernels; see `aidotnet_py.backends.Compilation`."""

    def __init__(self, bind: Sequence[Callable[[Sequence[int]], Callable[[], Any]]]) -> None:
        self._bind = bind

    def result(self, *, wait: bool = False) -> Sequence[Callable[[Sequence[int]], Callable[[], Any]]]:
        return self._bind


class CudaCompiler:
    """A `KernelCompiler` on CUDA.

    All kernels of a submission are compiled as one module before `submit` returns, so that results never depend on the
    time of compilation. Each function is compiled once per process. The calls do not wait, allocate or copy to the
    host, so their stream may be captured. They must not run on two streams at the same time, since sums in two passes
    and cuBLAS store intermediate results in one place each.

    Parameters
    ----------
    toolkit : Toolkit
        The compiler and runtime of CUDA.

    Raises
    ------
    InvalidOperationException
        By `submit`, when NVRTC rejects a kernel.
    """

    # Sums on a GPU never have NumPy's order. Windows are divided into tiles from 1 GiB on: smaller tiles would be too
    # little work for a GPU. Values below 1 MiB, small enough for several nests to be one call, stay apart by size.
    # Minimal filtering has not been measured on a GPU.
    rules = LoopRules(CUDA_OPERATIONS, any_sums=True, own_bits=True, room=2**8, minimal_filtering=False, apart=2**20)

    def __init__(self, toolkit: Toolkit) -> None:
        self._toolkit = toolkit
        self._functions: dict[str, Callable[[int, int, Sequence[int]], Any]] = {}
        self._cublas: Cublas | None = None
        # The calls of one kernel must not be interleaved: sums take two passes, and cuBLAS needs its stream set first.
        self._lock = threading.RLock()

    def can_multiply(self, product: Product) -> bool:
        """Return True: our own kernels compute the products that cuBLAS cannot."""
        return True

    def address_of(self, array: Any) -> int:
        """Return the address of a CuPy array's first element; raise an error if it is on another device."""
        return self._toolkit.address_of(array)

    def chain(self, calls: Sequence[Callable[[], Any]]) -> None:
        """Return None: the backend joins launches by capturing a graph of them."""

    def submit(self, kernels: Sequence[Kernel]) -> _Compiled:
        """Compile kernels."""
        work = [launches_of(kernel, is_for_library) for kernel in kernels]
        launches = [call for calls in work for call in calls if isinstance(call, Launch)]
        missing = [launch for launch in launches if launch.name not in self._functions]
        if missing:
            try:
                function = self._toolkit.load(module_text(missing))
            except CompilationFailed as error:
                first = "\n".join(str(error).splitlines()[:8])
                raise InvalidOperationException(f"kernels could not be compiled: {first}") from error
            self._functions.update({launch.name: function(launch.name) for launch in missing})
        if self._cublas is None and any(isinstance(call, Product) for calls in work for call in calls):
            self._cublas = self._toolkit.cublas()
        return _Compiled([partial(self._bind, calls) for calls in work])

    def _bind(self, work: Sequence[Launch | Product], addresses: Sequence[int]) -> Callable[[], Any]:
        calls: list[Callable[[], Any]] = []
        for task in work:
            if isinstance(task, Launch):
                pointers = tuple(addresses[argument] for argument in task.arguments)
                calls.append(partial(self._functions[task.name], task.blocks, task.threads, pointers))
            else:
                calls += self._products(task, addresses)
        return partial(_call_all, tuple(calls), self._lock)

    def _products(self, product: Product, addresses: Sequence[int]) -> list[Callable[[], Any]]:
        assert self._cublas is not None
        calls = [self._cublas.bind(gemm, addresses) for gemm in gemms(product) or ()]
        return [partial(_call_on_stream, call, self._toolkit.stream) for call in calls]


def _call_all(calls: Sequence[Callable[[], Any]], lock: AbstractContextManager[Any]) -> None:
    with lock:
        for call in calls:
            call()


def _call_on_stream(call: Callable[[int], None], stream: Callable[[], int]) -> None:
    call(stream())


def is_for_library(product: Product) -> bool:
    """Return whether cuBLAS computes a product."""
    return math.prod(product.sizes) > _SMALL and min(product.sizes) > _THIN and gemms(product) is not None


class _CupyToolkit:
    """CUDA through CuPy; the device is current at every call.

    CuPy's `RawModule` adds an option that flushes denormals to zero, so NVRTC is called directly, and its code is
    stored here.
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
            code = self._compile(text)
            self._files.write(digest, code)
            module = self._cupy.cuda.function.Module()
            module.load(code)

        def look_up(name: str) -> Callable[[int, int, Sequence[int]], Any]:
            function = module.get_function(name)
            return lambda blocks, threads, addresses: function((blocks,), (threads,), addresses)

        return look_up

    def _module(self, code: bytes | None) -> Any | None:
        """Return the module of stored code; None if there is none, or the driver cannot load it."""
        if code is None:
            return None
        module = self._cupy.cuda.function.Module()
        try:
            module.load(code)
        except self._cupy.cuda.driver.CUDADriverError:
            return None
        return module

    def _compile(self, text: str) -> bytes:
        compiler = self._cupy.cuda.compiler
        try:
            code, _ = compiler.compile_using_nvrtc(text, options=COMPILE_OPTIONS, cache_in_memory=True)
        except compiler.CompileException as error:
            raise CompilationFailed(error.get_message()) from error
        return bytes(code)

    def stream(self) -> int:
        return int(self._cupy.cuda.get_current_stream().ptr)

    def cublas(self) -> Cublas:
        # CuPy loads its libraries on access to this attribute, not on import. ctypes then finds cuBLAS by name among
        # them.
        self._cupy.cuda.cublas  # noqa: B018
        library = ctypes.CDLL(_cublas_name(self._cupy.cuda.runtime.runtimeGetVersion() // 1000))
        self._workspace = self._cupy.cuda.alloc(_WORKSPACE)
        return Cublas(library, (int(self._workspace.ptr), _WORKSPACE), tf32=self._tf32)

    def address_of(self, array: Any) -> int:
        if array.device.id != self._device:
            raise InvalidOperationException(
                f"arrays must be on device {self._device}, for which kernels are compiled, got one on device "
                f"{array.device.id}"
            )
        return int(array.data.ptr)


def _cublas_name(version: int) -> str:
    return f"cublas64_{version}.dll" if sys.platform == "win32" else f"libcublas.so.{version}"
