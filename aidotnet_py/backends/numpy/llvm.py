"""Kernels as machine code for this processor, through llvmlite: compiled in the background, and stored on disk."""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import importlib
import importlib.util
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import threadpoolctl  # pyright: ignore[reportMissingTypeStubs] -- it has none

from aidotnet_py.backends import kernel, rows
from aidotnet_py.backends.code_files import CodeFiles
from aidotnet_py.backends.kernel import Factor, Kernel, LoopRules, Product
from aidotnet_py.backends.numpy import assembly, machine_code
from aidotnet_py.backends.numpy.assembly import BLAS, chain_text, kernel_text, sharing_text
from aidotnet_py.backends.numpy.blas_calls import BLAS_CALLS
from aidotnet_py.backends.numpy.blas_threads import ONE_THREAD
from aidotnet_py.backends.numpy.compiling_process import AbandonedError, CompilingProcess
from aidotnet_py.backends.numpy.machine_code import Machine
from aidotnet_py.backends.numpy.object_code import can_load, load
from aidotnet_py.backends.numpy.row_threads import RowThreads
from aidotnet_py.backends.rows import ByRows, all_apart
from aidotnet_py.cache_folder import cache_folder
from aidotnet_py.exceptions import InvalidOperationException
from aidotnet_py.locks import HeldLocks, Lock, around_fork

__all__ = ["LlvmCompiler", "shared_compiler"]


@cache
def shared_compiler() -> LlvmCompiler | None:
    """Return the compiler of this process; None if llvmlite is not installed."""
    if not all(importlib.util.find_spec(name) for name in ("llvmlite", "platformdirs")):
        return None
    compiler = LlvmCompiler()
    atexit.register(compiler.stop_helping)
    around_fork(compiler.pause, compiler.go_on, compiler.go_on_alone)
    return compiler


# The source of a function: a kernel, or a word for the functions that call kernels in order, or share them out.
_Source: TypeAlias = Kernel | Literal["chain", "sharing"]
_CHAINING: Sequence[_Source] = ("chain", "sharing")
# Seconds after which a thread that waits for kernels looks whether another one still compiles.
_WHILE = 0.1
# Seconds without work after which the compiling process ends: the start of another takes a tenth of one.
# And between two looks for work meanwhile.
_IDLE, _BETWEEN = 2.0, 0.01


class _Compilation:
    """The compilation of sources; if they are kernels, an `aidotnet_py.backends.Compilation`."""

    def __init__(self, sources: Sequence[_Source], wake: Callable[[], None]) -> None:
        self.sources = sources
        self._wake = wake
        self.addresses: list[int] = []
        self.error: Exception | None = None
        self.over = threading.Event()

    def result(self, *, wait: bool = False) -> list[Callable[[Sequence[int]], Callable[[], Any]]] | None:
        if not self.over.is_set():
            # A fork ends the compiling thread, also while this one waits.
            self._wake()
            if not wait:
                return None
            while not self.over.wait(_WHILE):
                self._wake()
        if self.error is not None:
            raise InvalidOperationException(f"kernels could not be compiled: {self.error!r}") from self.error
        kernels = cast("Sequence[Kernel]", self.sources)
        return [partial(_Call, *pair) for pair in zip(self.addresses, kernels, strict=True)]


# Made once: each call of CFUNCTYPE searches a dictionary.
_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
_CHAIN = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * 4)


class _Call:
    """The call of a kernel with its arguments, which it keeps in a table."""

    def __init__(self, function: int, kernel: Kernel, arguments: Sequence[int]) -> None:
        self._multiplies = any(isinstance(nest, Product) for nest in kernel.nests)
        pointers = [*arguments, *((blas_addresses() or ()) if self._multiplies else ())]
        self._table = (ctypes.c_void_p * len(pointers))(*pointers)
        self._run = _KERNEL(function)
        self.kernel, self.arguments = kernel, arguments
        self.addresses = function, ctypes.addressof(self._table)

    def __call__(self) -> None:
        if self._multiplies:
            with BLAS_CALLS.lock:
                self._run(self._table, 0, 1)
        else:
            self._run(self._table, 0, 1)


# Less work for a thread than this many steps on elements would be done before it has begun.
_WORTH_A_THREAD = 20_000


class _Chain:
    """Kernels as one call, without Python in between; if they go by rows, other threads may compute some of these."""

    def __init__(self, calls: Sequence[_Call], chain: int, sharing: int, threads: RowThreads) -> None:
        # The calls keep the arguments of the table.
        self._calls = calls
        addresses = [address for call in calls for address in call.addresses]
        self._table = (ctypes.c_void_p * len(addresses))(*addresses)
        self._run, self._sharing, self._threads = _CHAIN(chain), sharing, threads
        self._fields = {"chain": chain, "table": ctypes.addressof(self._table), "count": len(calls)}
        self._found: tuple[int, int] | None = None

    def __call__(self, times: int) -> None:
        share = ONE_THREAD.share
        rows, work = self._rows_and_work() if share > 1 else (0, 0)
        threads = min(share, rows, times * work // _WORTH_A_THREAD)
        if threads > 1 and self._threads.run(self._sharing, threads, rows, {**self._fields, "times": times}):
            return
        with BLAS_CALLS.lock:
            self._run(self._table, len(self._calls), times, 0, 1)

    def _rows_and_work(self) -> tuple[int, int]:
        """Return the rows that can be shared out, and the work on all; zeros if rows meet each other in memory."""
        # No cached_property: Python 3.11's has a lock, which a forked process would find taken.
        if self._found is None:
            by_rows = [found for call in self._calls if (found := ByRows.of(call.kernel))]
            arguments = [call.arguments for call in self._calls]
            if len(by_rows) == len(arguments) and all_apart(list(zip(by_rows, arguments, strict=True))):
                self._found = by_rows[0].length, sum(kernel.work for kernel in by_rows)
            else:
                self._found = 0, 0
        return self._found


@cache
def blas_addresses() -> tuple[int, ...] | None:
    """Return the addresses of the functions of `BLAS` in NumPy's own OpenBLAS; None for other builds of NumPy."""
    controller: Any = threadpoolctl.ThreadpoolController()
    libraries = [lib for lib in controller.info() if lib["prefix"] == "libscipy_openblas" and "64_" in lib["filepath"]]
    if not libraries:
        return None
    library = ctypes.CDLL(libraries[0]["filepath"])
    try:
        functions = [getattr(library, f"scipy_cblas_{name}64_") for name in BLAS]
    except AttributeError:
        return None
    return tuple(ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions)


def _is_for_blas(product: Product) -> bool:
    """Return whether NumPy multiplies such matrices by gemm, gemv or dot; not so outer products and strided lines."""
    m, k, n = product.sizes
    x, y, out = product.x, product.y, product.out
    if m == n == 1:
        return k > 1 and x.columns > 0 and y.rows > 0
    if n == 1:
        return min(m, k) > 1 and _fits(x, m, k) and y.rows > 0
    if m == 1:
        return min(n, k) > 1 and _fits(y, k, n) and x.columns > 0
    lines = _fits(x, m, k) and _fits(y, k, n) and out.columns == 1 and out.rows >= n
    # NumPy multiplies a matrix by its own transpose with syrk.
    return k > 1 and lines and x.operand != y.operand


def _fits(factor: Factor, rows: int, columns: int) -> bool:
    return (factor.columns == 1 and factor.rows >= columns) or (factor.rows == 1 and factor.columns >= rows)


class LlvmCompiler:
    """A `KernelCompiler` on LLVM.

    Kernels on disk are loaded at once. One thread compiles the rest, in order, mostly outside the interpreter's lock.
    """

    # A step of small tasks is done in several threads by rows. One of large tasks has a lane for each thread.
    rules = LoopRules(apart=2**20, apart_within=6 * 2**20)

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiting: deque[_Compilation] = deque()
        self._worker: threading.Thread | None = None
        # Whether a thread compiles, as this thread says itself: an interrupted `join` takes a living one for dead.
        self._working = False
        self._paused = False
        self._held = HeldLocks()
        self._library: _Library | None = None
        self._chaining = _Compilation([], self._wake)
        self._row_threads = RowThreads()

    def can_multiply(self, product: Product) -> bool:
        """Return whether NumPy computes such a product by BLAS, at a known address."""
        return blas_addresses() is not None and _is_for_blas(product)

    def address_of(self, array: Any) -> int:
        """Return the address of a NumPy array's first element."""
        return int(array.__array_interface__["data"][0])

    def chain(self, calls: Sequence[Callable[[], Any]]) -> Callable[[int], Any] | None:
        """Join kernels into one call, without Python in between; None until the joining function is compiled."""
        with self._lock:
            is_submitted, self._chaining.sources = bool(self._chaining.sources), _CHAINING
        if not is_submitted:
            self._submit(self._chaining)
        if not self._chaining.over.is_set():
            self._wake()
        if not self._chaining.over.is_set() or self._chaining.error is not None:
            return None
        chain, sharing = self._chaining.addresses
        return _Chain(cast("Sequence[_Call]", calls), chain, sharing, self._row_threads)

    def submit(self, kernels: Sequence[Kernel]) -> _Compilation:
        """Start to compile kernels; kernels on disk are ready on return."""
        compilation = _Compilation(kernels, self._wake)
        self._submit(compilation)
        return compilation

    def _submit(self, compilation: _Compilation) -> None:
        with self._lock:
            library = self._library = self._library or _Library()
        sources = compilation.sources
        while len(compilation.addresses) < len(sources):
            address = library.look_up(sources[len(compilation.addresses)])
            if address is None:
                break
            compilation.addresses.append(address)
        else:
            compilation.over.set()
            return
        with self._lock:
            self._waiting.append(compilation)
        self._wake()

    def _wake(self) -> None:
        """Start the compiling thread if compilations wait and none runs."""
        with self._lock:
            started = self._worker is not None and self._worker.is_alive()
            if self._waiting and not started and not self._working and not self._paused:
                self._worker = threading.Thread(
                    target=self._work, args=(self._library,), name="aidotnet_py compiler", daemon=False
                )
                self._worker.start()

    def pause(self) -> None:
        """Stop the threads and take the locks before a fork: a child must not inherit half a kernel or a held lock."""
        while True:
            with self._lock:
                self._paused, worker = True, self._worker
            if worker is not None:
                worker.join()
            self._held.take(self._row_threads.lock)
            self._row_threads.stop()
            self._held.take(self._lock)
            if self._library is not None:
                self._held.take(self._library.lock)
            if self._paused and not self._working:
                return
            # Another thread's fork has ended meanwhile, or an earlier `join` was interrupted.
            self.go_on()
            time.sleep(0.001)

    def go_on(self) -> None:
        """Release the locks after a fork; another call changes nothing."""
        self._paused = False
        self._held.release()

    def go_on_alone(self) -> None:
        """Release the locks in a forked process, in which no thread compiles."""
        self._working = False
        self.go_on()

    def stop_helping(self) -> None:
        """Stop the threads that compute rows, before the end of the process takes their memory away."""
        with self._row_threads.lock:
            self._row_threads.end()

    def _work(self, library: _Library) -> None:
        with self._lock:
            if self._working:
                # An interrupted start was taken for none.
                return
            self._working = True
        # A fork waits for the present kernel, lest forks in quick turn leave none done. The end of the interpreter does
        # not.
        process = CompilingProcess(threading.main_thread().is_alive)
        end = time.monotonic()
        while True:
            with self._lock:
                goes_on = not self._paused and threading.main_thread().is_alive()
                compilation = self._waiting[0] if goes_on and self._waiting else None
                if compilation is None and not process.is_running:
                    self._worker, self._working = None, False
                    return
            if compilation is None:
                if goes_on and time.monotonic() < end:
                    # No event: an interrupt of the thread that sets one could leave its lock taken.
                    time.sleep(_BETWEEN)
                else:
                    process.end()
                continue
            end = time.monotonic() + _IDLE
            try:
                if len(compilation.addresses) < len(compilation.sources):
                    source = compilation.sources[len(compilation.addresses)]
                    compilation.addresses.append(library.function(source, process))
                    continue
            except AbandonedError:
                continue
            except Exception as error:
                compilation.error = error
            self._waiting.popleft()
            compilation.over.set()


class _Library:
    """The functions of this process, loaded from disk or compiled; threads may share it."""

    def __init__(self) -> None:
        self._files = CodeFiles(cache_folder("kernels"))
        self.lock = Lock()
        self._functions: dict[str, int] = {}
        self._machine: Machine | None = None
        # Needed only if code on disk can be loaded without LLVM.
        self._kind = _kind_of_processor() if can_load() else None

    def look_up(self, source: _Source) -> int | None:
        """Return the address of a source's function; None if the function must be compiled."""
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

    def function(self, source: _Source, process: CompilingProcess) -> int:
        """Return the address of a source's function; called by the compiling thread alone.

        Raises
        ------
        AbandonedError
            When the process gave up, since nobody wants the function any more.
        """
        known = self.look_up(source)
        if known is not None:
            return known
        digest = _digest(self._kind or self._own_machine().kind, source)
        if digest not in self._functions:
            address = self._load_from_disk(digest) or self._compile(digest, source, process)
            with self.lock:
                self._functions[digest] = address
        return self._functions[digest]

    def _own_machine(self) -> Machine:
        """Return LLVM in this process, which takes 100 MB of memory."""
        self._machine = self._machine or Machine()
        return self._machine

    def _load_from_disk(self, digest: str) -> int | None:
        """Load a function from disk with LLVM and return its address; None if this fails."""
        # If `load` can read files of this system, `look_up` has tried it already.
        code = None if can_load() else self._files.read(digest)
        try:
            return None if code is None else self._own_machine().load(code, _name(digest))
        except (RuntimeError, LookupError):
            return None

    def _compile(self, digest: str, source: _Source, process: CompilingProcess) -> int:
        text = _text(source, _name(digest))
        # What cannot be loaded without LLVM needs it here in any case.
        code = (process.compile(text) if can_load() else None) or self._own_machine().compile(text)
        self._files.write(digest, code)
        return load(code, _name(digest)) or self._own_machine().load(code, _name(digest))


def _name(digest: str) -> str:
    """Return a function's name, unique because one engine may hold all functions."""
    return f"kernel_{digest}"


def _text(source: _Source, name: str) -> str:
    if isinstance(source, Kernel):
        return kernel_text(source, name)
    return {"chain": chain_text, "sharing": sharing_text}[source](name)


def _digest(kind: str, source: _Source) -> str:
    """Return the key of a source's machine code: a digest of processor, writing modules and source."""
    writers = _writers()
    # The representation of a kernel is faster to make than its text, but identifies the text only for these writers.
    content = f"{writers}\n{source!r}" if writers else _text(source, "kernel")
    return hashlib.sha256(f"{kind}\n{content}".encode()).hexdigest()


@cache
def _writers() -> str | None:
    """Return a digest of the modules that translate kernels; None if their source files cannot be read."""
    try:
        modules = (kernel.__file__, rows.__file__, assembly.__file__, machine_code.__file__, __file__)
        files = [Path(file or "") for file in modules]
        files += sorted(Path(assembly.__file__ or "").parent.glob("*.py"))
        sources = [file.read_bytes() for file in files]
    except OSError:
        return None
    return hashlib.sha256(b"".join(sources)).hexdigest()


def _kind_of_processor() -> str | None:
    """Return the versions of LLVM and the processor, without loading LLVM; None if they cannot be read."""
    try:
        package = importlib.util.find_spec("llvmlite")
        origin = None if package is None else package.origin
        version = Path(origin or "").with_name("_version.py").read_text()
        processor = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0]
    except (OSError, ValueError):
        return None
    lines = [line for line in processor.splitlines() if line.startswith(_PROCESSOR_LINES)]
    return "\n".join([version, *lines]) if len(lines) == len(_PROCESSOR_LINES) else None


# The lines from which LLVM derives a processor's name and features.
_PROCESSOR_LINES = ("vendor_id", "cpu family", "model\t", "stepping", "flags")
