"""Threads that compute rows of a chain of kernels beside the calling thread."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Mapping
from typing import NamedTuple

from aidotnet_py.backends.numpy.assembly import SHARED, SHARED_BYTES, SHARED_CHAIN
from aidotnet_py.backends.numpy.blas_calls import BLAS_CALLS
from aidotnet_py.locks import Lock

__all__ = ["ChainRun", "RowThreads"]

# How often a helper looks for the next chain before it sleeps: about half a millisecond. To wake it takes a tenth of
# that, and between two chains of a step there is less.
_PATIENCE = 1500
# Parts for each thread: a thread that is late computes fewer.
_PARTS = 2
# The bytes of a line of the caches.
_LINE = 64
_CALL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
_FIRST_OF_CHAIN = SHARED[SHARED_CHAIN[0]] // 8


class ChainRun(NamedTuple):
    """A run of a chain: the addresses of its function and of its table, the number of its calls, and how often."""

    chain: int
    table: int
    calls: int
    times: int


class RowThreads:
    """Helpers, started when first needed, which sleep without work; for one chain at a time.

    Its owner stops the helpers before a fork, and holds `lock` during it.

    Attributes
    ----------
    lock : Lock
        Held while a chain is computed, and by the owner during a fork.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self._functions = _functions()
        self._shared: _Shared | None = None
        self._threads: list[threading.Thread] = []
        # The system starts no more of them; it is asked again after the next stop.
        self._is_full = False

    def run(self, function: int, threads: int, rows: int, chain: ChainRun) -> bool:
        """Have this thread and helpers compute a chain; return False, having done nothing, if they cannot be had.

        While they compute another thread's chain, they cannot.

        Parameters
        ----------
        function : int
            The address of the function of `sharing_text`.
        threads : int
            How many threads, this one among them.
        rows : int
            How many rows the chain has.
        chain : ChainRun
            The chain.
        """
        others = self._shared
        if others is not None and others.is_busy:
            return False
        # In this order, as a fork takes them.
        with self.lock, BLAS_CALLS.lock:
            if not self._functions:
                return False
            if not all(thread.is_alive() for thread in self._threads):
                # An interrupt came between.
                self.stop()
            shared = self._shared = self._shared or _Shared(function, self._functions)
            while len(self._threads) < threads - 1 and not self._is_full:
                self._is_full = not self._start(shared)
            helpers = min(threads - 1, len(self._threads))
            if helpers:
                shared.compute(chain, helpers, min(rows, _PARTS * (helpers + 1)))
            return helpers > 0

    def _start(self, shared: _Shared) -> bool:
        """Start a helper; return False if no thread can be started, now or at the end of the process."""
        thread = threading.Thread(target=shared.help_out, name="aidotnet_py rows", daemon=True)
        # Noted first, so that an interrupt leaves no helper that nobody stops.
        self._threads.append(thread)
        handled = sys.exc_info()[1]
        try:
            thread.start()
        except RuntimeError as error:
            # The lock that `start` waits by may turn an interrupt into such an error; the helper runs then.
            if error.__context__ is not None and error.__context__ is not handled:
                raise error.__context__ from None
            self._threads.remove(thread)
            return False
        return True

    def stop(self) -> None:
        """Stop the helpers; the lock must be held."""
        if self._shared is not None:
            # Also for a helper whose start was interrupted, and which may begin later.
            self._shared.end()
            for thread in self._threads:
                while thread.is_alive():
                    thread.join(0.01)
                    # Another helper may have taken the post.
                    self._shared.end()
        self._shared, self._threads, self._is_full = None, [], False

    def end(self) -> None:
        """Stop the helpers for good; the lock must be held."""
        self._functions = {}
        self.stop()


class _Shared:
    """The memory of a chain, as `sharing_text` has it; it lives as long as a helper looks at it."""

    def __init__(self, function: int, functions: Mapping[str, int]) -> None:
        self._function = _CALL(function)
        self._memory = ctypes.create_string_buffer(SHARED_BYTES + _LINE)
        self._address = -(-ctypes.addressof(self._memory) // _LINE) * _LINE
        self._words = (ctypes.c_int64 * (SHARED_BYTES // 8)).from_address(self._address)
        self._semaphore = ctypes.c_void_p(self._address + SHARED["semaphore"])
        self.set(**functions, patience=_PATIENCE)
        ctypes.CDLL(None).sem_init(self._semaphore, 0, 0)

    def set(self, **fields: int) -> None:
        """Set fields."""
        for name, value in fields.items():
            self._words[SHARED[name] // 8] = value

    @property
    def is_busy(self) -> bool:
        """Whether a chain is being computed."""
        return self._words[SHARED["open"] // 8] != 0

    def compute(self, chain: ChainRun, helpers: int, parts: int) -> None:
        """Compute a chain in so many parts, with the helpers' help."""
        self._words[_FIRST_OF_CHAIN : _FIRST_OF_CHAIN + len(SHARED_CHAIN)] = [*chain, helpers, parts]
        self._function(self._address, 0)

    def help_out(self) -> None:
        """Help with one chain after another, until the end."""
        self._function(self._address, 1)

    def end(self) -> None:
        """Have a helper return, whether it looks for work or sleeps."""
        self.set(over=1)
        ctypes.CDLL(None).sem_post(self._semaphore)


def _functions() -> dict[str, int]:
    """Return the addresses of the functions of the C library that threads wait by; none on systems that differ."""
    if sys.platform != "linux":
        return {}
    library = ctypes.CDLL(None)
    names = ("sched_yield", "sem_wait", "sem_post")
    return {name: ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in names}
