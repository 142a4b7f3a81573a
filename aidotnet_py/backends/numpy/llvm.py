"""Kernels as machine code for this processor, through llvmlite: compiled in the background, and kept on disk."""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import importlib.util
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import threadpoolctl  # pyright: ignore[reportMissingTypeStubs] -- it has none

from aidotnet_py.backends import kernel
from aidotnet_py.backends.code_files import CodeFiles
from aidotnet_py.backends.kernel import Factor, Kernel, LoopRules, Product
from aidotnet_py.backends.numpy import assembly
from aidotnet_py.backends.numpy.assembly import BLAS, chain_text, kernel_text
from aidotnet_py.backends.numpy.object_code import can_load, load
from aidotnet_py.exceptions import InvalidOperationException

__all__ = ["LlvmCompiler", "shared_compiler"]


@cache
def shared_compiler() -> LlvmCompiler | None:
    """The compiler of this process; None where llvmlite is not installed."""
    if not all(importlib.util.find_spec(name) for name in ("llvmlite", "platformdirs")):
        return None
    compiler = LlvmCompiler()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=compiler.pause, after_in_parent=compiler.go_on, after_in_child=compiler.go_on)
    return compiler


# What becomes a function: a kernel, or what calls kernels in turn.
_CHAIN: Literal["chain"] = "chain"
_Source: TypeAlias = Kernel | Literal["chain"]
_CHAIN_ALONE: Sequence[_Source] = (_CHAIN,)


class _Compilation:
    """Sources on their way; with kernels, see `aidotnet_py.backends.Compilation`."""

    def __init__(self, sources: Sequence[_Source], wake: Callable[[], None]) -> None:
        self.sources = sources
        self._wake = wake
        self.addresses: list[int] = []
        self.error: Exception | None = None
        self.over = threading.Event()

    def result(self, *, wait: bool = False) -> list[Callable[[Sequence[int]], Callable[[], Any]]] | None:
        if not self.over.is_set():
            # A forked process has no thread but the one that forked it.
            self._wake()
            if not wait:
                return None
            self.over.wait()
        if self.error is not None:
            raise InvalidOperationException(f"kernels could not be compiled: {self.error!r}") from self.error
        kernels = cast("Sequence[Kernel]", self.sources)
        return [partial(_bound, *pair) for pair in zip(self.addresses, kernels, strict=True)]


# Looked up once: each call of CFUNCTYPE goes through a dictionary of its own.
_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_CHAINING = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


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
    """Whether NumPy multiplies such matrices by gemm, gemv or dot: no outer products, lines with a step."""
    m, k, n = product.sizes
    x, y, out = product.x, product.y, product.out
    if m == n == 1:
        return k > 1 and x.columns > 0 and y.rows > 0
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

    What is on disk already is loaded at once. One thread works through the rest, in order; most of its time is spent
    outside the interpreter's lock.
    """

    rules = LoopRules()

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[_Compilation] = deque()
        self._worker: threading.Thread | None = None
        self._paused = False
        self._library: _Library | None = None
        self._chaining = _Compilation([], self._wake)

    def can_multiply(self, product: Product) -> bool:
        """Whether NumPy hands such a product to BLAS, and where that is, is known."""
        return blas_addresses() is not None and _is_for_blas(product)

    def address_of(self, array: Any) -> int:
        """Where the first element of a NumPy array lies."""
        return int(array.__array_interface__["data"][0])

    def chain(self, calls: Sequence[Callable[[], Any]]) -> Callable[[int], Any] | None:
        """One call, without Python in between, for kernels that run in turn; None until what does that is compiled."""
        with self._lock:
            begun, self._chaining.sources = bool(self._chaining.sources), _CHAIN_ALONE
        if not begun:
            self._submit(self._chaining)
        if not self._chaining.over.is_set():
            self._wake()
        if not self._chaining.over.is_set() or self._chaining.error is not None:
            return None
        bound = cast("Sequence[partial[Any]]", calls)
        functions = [ctypes.cast(cast("Any", call.func), ctypes.c_void_p).value for call in bound]
        arguments = [ctypes.addressof(call.args[0]) for call in bound]
        pairs = (address for pair in zip(functions, arguments, strict=True) for address in pair)
        table = (ctypes.c_void_p * (2 * len(bound)))(*pairs)
        run = _CHAINING(self._chaining.addresses[0])

        def chained(times: int) -> None:
            # It is these that keep what the table points to.
            run(table, len(bound), times)

        return chained

    def submit(self, kernels: Sequence[Kernel]) -> _Compilation:
        """Begin to compile kernels; what is on disk is ready when this returns."""
        compilation = _Compilation(kernels, self._wake)
        self._submit(compilation)
        return compilation

    def _submit(self, compilation: _Compilation) -> None:
        with self._lock:
            library = self._library = self._library or _Library()
        sources = compilation.sources
        while len(compilation.addresses) < len(sources):
            found = library.found(sources[len(compilation.addresses)])
            if found is None:
                break
            compilation.addresses.append(found)
        else:
            compilation.over.set()
            return
        with self._lock:
            self._waiting.append(compilation)
        self._wake()

    def _wake(self) -> None:
        """See to it that a thread works on what waits."""
        with self._lock:
            working = self._worker is not None and self._worker.is_alive()
            if self._waiting and not working and not self._paused:
                self._worker = threading.Thread(
                    target=self._work, args=(self._library,), name="aidotnet_py compiler", daemon=False
                )
                self._worker.start()

    def pause(self) -> None:
        """Before a fork: a thread amid a kernel, or holding a lock, would leave the child with half of it for ever."""
        with self._lock:
            self._paused, worker = True, self._worker
        if worker is not None:
            worker.join()
        self._lock.acquire()
        if self._library is not None:
            self._library.lock.acquire()

    def go_on(self) -> None:
        """After it, in both processes; each compiles for itself what it still asks for."""
        if self._library is not None:
            self._library.lock.release()
        self._paused = False
        self._lock.release()

    def _work(self, library: _Library) -> None:
        while True:
            with self._lock:
                # The interpreter waits for this thread when it ends, so one kernel is the most that it may wait for.
                if not self._waiting or self._paused or not threading.main_thread().is_alive():
                    self._worker = None
                    return
                compilation = self._waiting[0]
            try:
                if len(compilation.addresses) < len(compilation.sources):
                    compilation.addresses.append(library.function(compilation.sources[len(compilation.addresses)]))
                    continue
            except Exception as error:
                compilation.error = error
            self._waiting.popleft()
            compilation.over.set()


class _Library:
    """The functions of this process, found on disk or compiled; threads may share it."""

    def __init__(self) -> None:
        import platformdirs

        self._files = CodeFiles(platformdirs.user_cache_path("aidotnet_py") / "kernels")
        self.lock = threading.Lock()
        self._functions: dict[str, int] = {}
        self._machine: _Machine | None = None
        # Known without LLVM, where code on disk can be loaded without it.
        self._kind = _kind_of_processor() if can_load() else None

    def found(self, source: _Source) -> int | None:
        """The address of a source's function, where that takes no compiling."""
        if self._kind is None:
            return None
        digest = _digest(self._kind, source)
        with self.lock:
            address = self._functions.get(digest)
            if address is None:
                code = self._files.read(digest)
                address = None if code is None else load(code, _name(digest))
                if address is not None:
                    self._functions[digest] = address
            return address

    def function(self, source: _Source) -> int:
        """The address of a source's function; by the one thread that compiles."""
        found = self.found(source)
        if found is not None:
            return found
        machine = self._machine = self._machine or _Machine()
        digest = _digest(self._kind or machine.kind, source)
        if digest not in self._functions:
            address = self._kept(machine, digest) or self._compiled(machine, digest, source)
            with self.lock:
                self._functions[digest] = address
        return self._functions[digest]

    def _kept(self, machine: _Machine, digest: str) -> int | None:
        """The address of a function that only LLVM can load from disk; None where there is none that it can."""
        # What `load` could have loaded and did not, `found` has seen.
        code = None if can_load() else self._files.read(digest)
        try:
            return None if code is None else machine.loaded(code, _name(digest))
        except (RuntimeError, LookupError):
            return None

    def _compiled(self, machine: _Machine, digest: str, source: _Source) -> int:
        code = machine.compiled(_text(source, _name(digest)))
        self._files.write(digest, code)
        return load(code, _name(digest)) or machine.loaded(code, _name(digest))


def _name(digest: str) -> str:
    """Every function has a name of its own, since one engine may hold all."""
    return f"kernel_{digest}"


def _text(source: _Source, name: str) -> str:
    return kernel_text(source, name) if isinstance(source, Kernel) else chain_text(name)


def _digest(kind: str, source: _Source) -> str:
    """What tells the machine code of a source from any other: for whom it is, what wrote it, and what of."""
    writers = _writers()
    # A description stands for its text, which takes longer to write, only together with what would write it.
    content = f"{writers}\n{source!r}" if writers else _text(source, "kernel")
    return hashlib.sha256(f"{kind}\n{content}".encode()).hexdigest()


@cache
def _writers() -> str | None:
    """A digest of the modules that make code of a kernel; None where their source is not at hand."""
    try:
        sources = [Path(file or "").read_bytes() for file in (kernel.__file__, assembly.__file__, __file__)]
    except OSError:
        return None
    return hashlib.sha256(b"".join(sources)).hexdigest()


def _kind_of_processor() -> str | None:
    """Which LLVM would compile for which processor, found out without LLVM; None where that is not possible."""
    try:
        package = importlib.util.find_spec("llvmlite")
        origin = None if package is None else package.origin
        version = Path(origin or "").with_name("_version.py").read_text()
        processor = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0]
    except (OSError, ValueError):
        return None
    lines = [line for line in processor.splitlines() if line.startswith(_PROCESSOR_LINES)]
    return "\n".join([version, *lines]) if len(lines) == len(_PROCESSOR_LINES) else None


# Those that LLVM looks at to name a processor and what it can do.
_PROCESSOR_LINES = ("vendor_id", "cpu family", "model\t", "stepping", "flags")


class _Machine:
    """LLVM set up for this processor."""

    def __init__(self) -> None:
        # Imported here, by a thread in the background: it takes a tenth of a second, and has no types.
        llvm: Any = importlib.import_module("llvmlite.binding")

        self._llvm = llvm
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        processor, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
        target = llvm.Target.from_default_triple()
        self._target = target.create_target_machine(cpu=processor, features=features, opt=3, jit=True)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), self._target)
        self.kind = f"{llvm.llvm_version_info} {llvm.get_default_triple()} {processor} {features}"

    def loaded(self, code: bytes, name: str) -> int:
        """The address of a function of an object file; RuntimeError or LookupError where it has none."""
        self._engine.add_object_file(self._llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        address = int(self._engine.get_function_address(name))
        if not address:
            raise LookupError(f"the object file has no function {name}")
        return address

    def compiled(self, text: str) -> bytes:
        """The object file of a module."""
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
