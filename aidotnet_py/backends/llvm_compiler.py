"""Kernels as machine code for this processor, through llvmlite: compiled in the background, and kept on disk."""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import importlib.util
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import threadpoolctl  # pyright: ignore[reportMissingTypeStubs] -- it has none

from aidotnet_py.backends.code_files import CodeFiles
from aidotnet_py.backends.loop_assembly import BLAS, kernel_text
from aidotnet_py.backends.loops import Factor, Kernel, LoopRules, Product
from aidotnet_py.exceptions import InvalidOperationException

__all__ = ["LlvmCompiler", "shared_compiler"]

_ENTRY = "kernel"


@cache
def shared_compiler() -> LlvmCompiler | None:
    """The compiler of this process; None where llvmlite is not installed."""
    found = all(importlib.util.find_spec(name) for name in ("llvmlite", "platformdirs"))
    return LlvmCompiler() if found else None


class _Compilation:
    """Kernels on their way; see `aidotnet_py.backends.Compilation`."""

    def __init__(self, kernels: Sequence[Kernel]) -> None:
        self.kernels = kernels
        self.addresses: list[int] = []
        self.error: Exception | None = None
        self.over = threading.Event()

    def result(self, *, wait: bool = False) -> list[Callable[[Sequence[int]], Callable[[], Any]]] | None:
        if wait:
            self.over.wait()
        elif not self.over.is_set():
            return None
        if self.error is not None:
            raise InvalidOperationException(f"kernels could not be compiled: {self.error!r}") from self.error
        return [partial(_bound, *pair) for pair in zip(self.addresses, self.kernels, strict=True)]


# Looked up once: each call of CFUNCTYPE goes through a dictionary of its own.
_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _bound(function: int, kernel: Kernel, arguments: Sequence[int]) -> Callable[[], Any]:
    multiplies = any(isinstance(nest, Product) for nest in kernel.nests)
    pointers = [*arguments, *((blas_addresses() or ()) if multiplies else ())]
    table = (ctypes.c_void_p * len(pointers))(*pointers)
    return partial(_FUNCTION(function), table)


@cache
def blas_addresses() -> tuple[int, ...] | None:
    """Where the functions that `BLAS` names are in NumPy's own OpenBLAS; None for other builds of NumPy."""
    controller: Any = threadpoolctl.ThreadpoolController()
    found = [lib for lib in controller.info() if lib["prefix"] == "libscipy_openblas" and "64_" in lib["filepath"]]
    if not found:
        return None
    library = ctypes.CDLL(found[0]["filepath"])
    try:
        functions = [getattr(library, f"scipy_cblas_{name}64_") for name in BLAS]
    except AttributeError:
        return None
    return tuple(ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions)


def _is_for_blas(product: Product) -> bool:
    """Whether NumPy multiplies such matrices by gemm or gemv: neither inner nor outer products, lines with a step."""
    m, k, n = product.sizes
    x, y, out = product.x, product.y, product.out
    if n == 1:
        return min(m, k) > 1 and _fits(x, m, k) and y.rows > 0
    if m == 1:
        return min(n, k) > 1 and _fits(y, k, n) and x.columns > 0
    lines = _fits(x, m, k) and _fits(y, k, n) and out.columns == 1 and out.rows >= n
    # A matrix times its own transpose goes another way.
    return k > 1 and lines and x.operand != y.operand


def _fits(factor: Factor, rows: int, columns: int) -> bool:
    return (factor.columns == 1 and factor.rows >= columns) or (factor.rows == 1 and factor.columns >= rows)


class LlvmCompiler:
    """A `KernelCompiler` on LLVM.

    One thread works through what is submitted, in order; most of its time is spent outside the interpreter's lock.
    """

    rules = LoopRules()

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[_Compilation] = deque()
        self._worker: threading.Thread | None = None
        self._machine: _Machine | None = None

    def can_multiply(self, product: Product) -> bool:
        """Whether NumPy hands such a product to BLAS, and where that is, is known."""
        return blas_addresses() is not None and _is_for_blas(product)

    def address_of(self, array: Any) -> int:
        """Where the first element of a NumPy array lies."""
        return int(array.__array_interface__["data"][0])

    def submit(self, kernels: Sequence[Kernel]) -> _Compilation:
        """Begin to compile kernels."""
        compilation = _Compilation(kernels)
        with self._lock:
            self._waiting.append(compilation)
            if self._worker is None or not self._worker.is_alive():
                self._worker = threading.Thread(target=self._work, name="aidotnet_py compiler", daemon=False)
                self._worker.start()
        return compilation

    def _work(self) -> None:
        while True:
            with self._lock:
                # The interpreter waits for this thread when it ends, so one kernel is the most that it may wait for.
                if not self._waiting or not threading.main_thread().is_alive():
                    self._worker = None
                    return
                compilation = self._waiting[0]
            try:
                if len(compilation.addresses) < len(compilation.kernels):
                    self._machine = self._machine or _Machine()
                    kernel = compilation.kernels[len(compilation.addresses)]
                    compilation.addresses.append(self._machine.function(kernel))
                    continue
            except Exception as error:
                compilation.error = error
            self._waiting.popleft()
            compilation.over.set()


class _Machine:
    """LLVM set up for this processor, and the functions it has loaded."""

    def __init__(self) -> None:
        # Imported here, by a thread in the background: it takes a tenth of a second, and has no types.
        llvm: Any = importlib.import_module("llvmlite.binding")
        import platformdirs

        self._llvm = llvm
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        processor, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
        target = llvm.Target.from_default_triple()
        self._target = target.create_target_machine(cpu=processor, features=features, opt=3, jit=True)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), self._target)
        self._kind = f"{llvm.llvm_version_info} {llvm.get_default_triple()} {processor} {features}"
        self._functions: dict[str, int] = {}
        self._files = CodeFiles(platformdirs.user_cache_path("aidotnet_py") / "kernels")

    def function(self, kernel: Kernel) -> int:
        """The address of the kernel's function."""
        text = kernel_text(kernel, _ENTRY)
        digest = hashlib.sha256(f"{self._kind}\n{text}".encode()).hexdigest()
        if digest not in self._functions:
            self._functions[digest] = self._load(digest, text)
        return self._functions[digest]

    def _load(self, digest: str, text: str) -> int:
        # Every function needs a name of its own, since all are loaded into one engine.
        name = f"{_ENTRY}_{digest}"
        code = self._files.read(digest)
        if code is None:
            code = self._compiled(text.replace(f"@{_ENTRY}", f"@{name}"))
            self._files.write(digest, code)
        self._engine.add_object_file(self._llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        return int(self._engine.get_function_address(name))

    def _compiled(self, text: str) -> bytes:
        module = self._llvm.parse_assembly(text)
        module.triple = self._llvm.get_default_triple()
        module.data_layout = str(self._target.target_data)
        # Unrolled and interleaved loops are 3 % faster, and take three times as long to compile.
        tuning = self._llvm.create_pipeline_tuning_options(speed_level=2)
        tuning.loop_vectorization = True
        tuning.loop_unrolling = tuning.loop_interleaving = False
        builder = self._llvm.create_pass_builder(self._target, tuning)
        builder.getModulePassManager().run(module, builder)
        return bytes(self._target.emit_object(module))
