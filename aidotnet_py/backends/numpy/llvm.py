"""Kernels as machine code for this processor, through llvmlite: compiled in the background, and stored on disk."""

from __future__ import annotations

import atexit
import importlib.util
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from typing import Any, cast

from aidotnet_py.backends.kernel import Kernel, LoopRules, Product
from aidotnet_py.backends.numpy.assembly import SMALL_PRODUCTS, SmallDtype
from aidotnet_py.backends.numpy.blas_calls import BLAS_CALLS
from aidotnet_py.backends.numpy.compiling_process import AbandonedError, CompilingProcess
from aidotnet_py.backends.numpy.kernel_calls import KernelCall, KernelChain
from aidotnet_py.backends.numpy.library import Function, Library, Source
from aidotnet_py.backends.numpy.multiplication import can_multiply, multiplies_small
from aidotnet_py.backends.numpy.row_threads import RowThreads
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
    around_fork(compiler.pause, compiler.resume, compiler.go_on_alone)
    return compiler


_CHAINING: Sequence[Source] = ("chain", "sharing")
# Seconds without work after which the compiling process ends: the start of another takes a tenth of one.
# Seconds after which it may optimize what it compiled. And between two looks for work meanwhile.
_IDLE, _QUIET, _BETWEEN = 2.0, 1.0, 0.01


class _Compilation:
    """The compilation of sources, an `aidotnet_py.backends.Compilation` of the kernels among them."""

    def __init__(self, sources: Sequence[Source], wake: Callable[[], None]) -> None:
        self.sources = sources
        self._wake = wake
        self.functions: list[Function] = []
        self.error: Exception | None = None
        # No event: threads wait for it in Python's own code, whose lock an interrupt or a fork may leave taken.
        self.over = False

    def result(self, *, wait: bool = False) -> list[Callable[[Sequence[int]], Callable[[], Any]]] | None:
        if not self.over:
            # A fork ends the compiling thread, also while this one waits.
            self._wake()
            if not wait:
                return None
            while not self.over:
                if not threading.main_thread().is_alive():
                    # No thread compiles any more, and other threads may still compute.
                    return None
                time.sleep(_BETWEEN)
                self._wake()
        if self.error is not None:
            raise InvalidOperationException(f"kernels could not be compiled: {self.error!r}") from self.error
        addresses: dict[Source, int] = {function.source: function.address for function in self.functions}
        small_products = [addresses.get(dtype, 0) for dtype in SMALL_PRODUCTS]
        kernels = (function for function in self.functions if isinstance(function.source, Kernel))
        return [partial(KernelCall, kernel, small_products=small_products) for kernel in kernels]


# A step of small tasks is done in several threads by rows. One of large tasks has a lane for each thread.
_RULES = LoopRules(apart=2**20, apart_within=6 * 2**20)
_SMALL_BY_US = replace(_RULES, small_products=True)


class LlvmCompiler:
    """A `KernelCompiler` on LLVM.

    Kernels on disk are loaded at once. One thread compiles the rest, in order, mostly outside the interpreter's lock.
    When nothing waits, it optimizes them.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiting: deque[_Compilation] = deque()
        self._worker: threading.Thread | None = None
        # Whether a thread compiles, as this thread says itself: an interrupted `join` takes a living one for dead.
        self._working = False
        self._paused = False
        self._held = HeldLocks()
        self._library: Library | None = None
        self._chaining = _Compilation([], self._wake)
        self._small_products: dict[SmallDtype, int | None] = {}
        self._row_threads = RowThreads()

    @property
    def rules(self) -> LoopRules:
        """The operations that it accepts as loops, and how products are computed."""
        return _SMALL_BY_US if multiplies_small() else _RULES

    def can_multiply(self, product: Product) -> bool:
        """Return whether a function of ours computes such a product, or BLAS as NumPy calls it, at a known address."""
        return can_multiply(product)

    def small_product(self, dtype: SmallDtype) -> int | None:
        """Return the address of the function for products by a small matrix, or None if they are left to BLAS.

        If the function is not on disk, the call waits for it: with another product, results would depend on the time.
        """
        if dtype not in self._small_products and self.rules.small_products:
            compilation, address = self._begin([dtype]), None
            # What fails, or comes at the end of the interpreter, is not tried again: kernels with such products are not
            # compiled either.
            with suppress(InvalidOperationException):
                if compilation.result(wait=True) is not None:
                    address = compilation.functions[0].address
            self._small_products.setdefault(dtype, address)
        return self._small_products.get(dtype)

    def address_of(self, array: Any) -> int:
        """Return the address of a NumPy array's first element."""
        return int(array.__array_interface__["data"][0])

    def chain(self, calls: Sequence[Callable[[], Any]]) -> Callable[[int], Any] | None:
        """Join kernels into one call, without Python in between; None until the joining function is compiled."""
        with self._lock:
            is_submitted, self._chaining.sources = bool(self._chaining.sources), _CHAINING
        if not is_submitted:
            self._submit(self._chaining)
        if not self._chaining.over:
            self._wake()
        if not self._chaining.over or self._chaining.error is not None:
            return None
        chain, sharing = (function.address for function in self._chaining.functions)
        return KernelChain(cast("Sequence[KernelCall]", calls), chain, sharing, self._row_threads)

    def submit(self, kernels: Sequence[Kernel]) -> _Compilation:
        """Start to compile kernels; kernels on disk are ready on return."""
        products = [nest for kernel in kernels for nest in kernel.nests if isinstance(nest, Product) and nest.small]
        dtypes = {product.out.operand.dtype for product in products}
        return self._begin([*(dtype for dtype in SMALL_PRODUCTS if dtype in dtypes), *kernels])

    def _begin(self, sources: Sequence[Source]) -> _Compilation:
        compilation = _Compilation(sources, self._wake)
        self._submit(compilation)
        return compilation

    def _submit(self, compilation: _Compilation) -> None:
        # The first one imports modules.
        with self._lock, BLAS_CALLS.lock:
            library = self._library = self._library or Library()
        sources = compilation.sources
        while len(compilation.functions) < len(sources):
            function = library.look_up(sources[len(compilation.functions)])
            if function is None:
                break
            compilation.functions.append(function)
        else:
            compilation.over = True
        if not compilation.over:
            with self._lock:
                self._waiting.append(compilation)
        self._wake()

    def _wake(self) -> None:
        """Start the compiling thread if there is work for it and none runs."""
        with self._lock:
            started = self._worker is not None and self._worker.is_alive()
            library = self._library
            is_work = self._waiting or (library is not None and (library.has_to_write() or library.can_optimize()))
            # At its end, the interpreter starts no thread.
            may_start = not self._working and not self._paused and threading.main_thread().is_alive()
            if is_work and not started and may_start:
                self._worker = threading.Thread(
                    target=self._work, args=(library,), name="aidotnet_py compiler", daemon=False
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

    def resume(self) -> None:
        """Go on after a fork in the process that forked."""
        self.go_on()
        self._wake()

    def go_on_alone(self) -> None:
        """Release the locks in a forked process, in which no thread compiles."""
        self._working = False
        self.go_on()

    def stop_helping(self) -> None:
        """Stop the threads that compute rows, before the end of the process takes their memory away."""
        with self._row_threads.lock:
            self._row_threads.end()

    def _work(self, library: Library) -> None:
        with self._lock:
            if self._working:
                # An interrupted start was taken for none.
                return
            self._working = True
        # A fork waits for the present kernel, lest forks in quick turn leave none done. The end of the interpreter does
        # not.
        process = CompilingProcess(threading.main_thread().is_alive)
        try:
            self._work_through(library, process)
        except BaseException:
            # What another thread raised in this one. A fork would wait for ever for a thread that is gone.
            process.end()
            with self._lock:
                self._worker, self._working = None, False
            raise

    def _work_through(self, library: Library, process: CompilingProcess) -> None:
        """Compile what waits; then, when nothing does, write and optimize what was compiled."""
        asked = worked = time.monotonic()
        while True:
            with self._lock:
                goes_on = not self._paused and threading.main_thread().is_alive()
                compilation = self._waiting[0] if goes_on and self._waiting else None
                can_optimize = goes_on and library.can_optimize()
                # The end of the interpreter waits for the disk, lest short programs compile all anew each time.
                writes = not self._paused and library.has_to_write()
                if compilation is None and not (can_optimize or writes or process.is_running):
                    self._worker, self._working = None, False
                    return
            if compilation is not None:
                self._advance(compilation, library, process)
                asked = worked = time.monotonic()
            elif writes:
                # What cannot be written is compiled anew by later processes.
                with suppress(Exception):
                    library.write()
            elif can_optimize and time.monotonic() - asked >= _QUIET:
                # What fails leaves the code as it is.
                with suppress(Exception):
                    library.optimize(process)
                worked = time.monotonic()
            elif goes_on and (can_optimize or time.monotonic() - worked < _IDLE):
                # No event: an interrupt of the thread that sets one could leave its lock taken.
                time.sleep(_BETWEEN)
            else:
                process.end()

    def _advance(self, compilation: _Compilation, library: Library, process: CompilingProcess) -> None:
        """Compile the next source of a compilation, or end it."""
        try:
            if len(compilation.functions) < len(compilation.sources):
                source, *following = compilation.sources[len(compilation.functions) :][:2]
                compilation.functions.append(library.compile(source, process, following))
                return
        except AbandonedError:
            return
        except Exception as error:
            compilation.error = error
        self._waiting.popleft()
        compilation.over = True
