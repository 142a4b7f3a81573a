"""Compiled kernels as calls from Python: of one kernel, or of a chain of kernels whose rows threads may share."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import cast

from aidotnet_py.backends.kernel import Kernel, Product
from aidotnet_py.backends.numpy.blas_calls import BLAS_CALLS
from aidotnet_py.backends.numpy.blas_threads import ONE_THREAD
from aidotnet_py.backends.numpy.library import Function
from aidotnet_py.backends.numpy.multiplication import blas_addresses
from aidotnet_py.backends.numpy.row_threads import ChainRun, RowThreads
from aidotnet_py.backends.rows import ByRows, all_apart

__all__ = ["KernelCall", "KernelChain"]

# Made once: each call of CFUNCTYPE searches a dictionary.
_CHAIN = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * 4)


class KernelCall:
    """The call of a kernel with its arguments, which it keeps in a table."""

    def __init__(self, function: Function, arguments: Sequence[int], small_products: Sequence[int] = ()) -> None:
        self.kernel, self.arguments = cast("Kernel", function.source), arguments
        self._multiplies = any(isinstance(nest, Product) for nest in self.kernel.nests)
        pointers = [*arguments, *((*(blas_addresses() or ()), *small_products) if self._multiplies else ())]
        self._table = (ctypes.c_void_p * len(pointers))(*pointers)
        self._function = function
        self.addresses = function.entry, ctypes.addressof(self._table)

    def __call__(self) -> None:
        """Run the kernel, all of its rows, in this thread."""
        if self._multiplies:
            with BLAS_CALLS.lock:
                self._function.run(self._table, 0, 1)
        else:
            self._function.run(self._table, 0, 1)


# Less work for a thread than this many steps on elements would be done before it has begun.
_WORTH_A_THREAD = 20_000


class KernelChain:
    """Kernels as one call, without Python in between; if they go by rows, other threads may compute some of these."""

    def __init__(self, calls: Sequence[KernelCall], chain: int, sharing: int, threads: RowThreads) -> None:
        # The calls keep the arguments of the table.
        self._calls = calls
        addresses = [address for call in calls for address in call.addresses]
        self._table = (ctypes.c_void_p * len(addresses))(*addresses)
        self._run, self._sharing, self._threads = _CHAIN(chain), sharing, threads
        self._chain = chain, ctypes.addressof(self._table), len(calls)
        self._found: tuple[int, int] | None = None

    def __call__(self, times: int) -> None:
        """Run all kernels in turn, ``times`` times."""
        share = ONE_THREAD.share
        rows, work = self._rows_and_work() if share > 1 else (0, 0)
        threads = min(share, rows, times * work // _WORTH_A_THREAD)
        if threads > 1 and self._threads.run(self._sharing, threads, rows, ChainRun(*self._chain, times)):
            return
        with BLAS_CALLS.lock:
            self._run(self._table, len(self._calls), times, 0, 1)

    def _rows_and_work(self) -> tuple[int, int]:
        """Return the rows that can be shared out, and the work on all; zeros if rows meet each other in memory."""
        # No cached_property: Python 3.11's has a lock, which a forked process would find taken.
        if self._found is None:
            # Repetitions are the same calls again.
            calls = list(dict.fromkeys(self._calls))
            by_rows = {call: found for call in calls if (found := ByRows.of(call.kernel))}
            if len(by_rows) == len(calls) and all_apart([(by_rows[call], call.arguments) for call in calls]):
                self._found = by_rows[calls[0]].length, sum(by_rows[call].work for call in self._calls)
            else:
                self._found = 0, 0
        return self._found
