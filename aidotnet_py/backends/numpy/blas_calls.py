"""Calls that a fork waits for: BLAS and imports hold locks for moments, and a child would wait for them for ever."""

from __future__ import annotations

import threading
from weakref import WeakSet

from aidotnet_py.locks import HeldLocks, Lock, around_fork

__all__ = ["BLAS_CALLS"]


class _Calls(threading.local):
    """The lock of each thread, which it holds during a call of BLAS and within which it takes none of the package's.

    Threads call BLAS at the same time, since each has a lock of its own; a fork takes them all. Without, while two
    threads multiplied matrices of 4 × 4 by OpenBLAS's kernels for Haswell, 21 of 4,000 children waited for ever. A
    thread also holds its lock while it sets BLAS's number of threads, and while it looks for BLAS or for the compiler
    and so imports modules: in a child, Python's locks of modules stay taken.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        with _BIRTHS:
            _ALL.add(self.lock)


_BIRTHS = Lock()
_ALL: WeakSet[Lock] = WeakSet()
_HELD = HeldLocks()
BLAS_CALLS = _Calls()


def _hold_all() -> None:
    _HELD.take(_BIRTHS)
    for lock in list(_ALL):
        _HELD.take(lock)


around_fork(_hold_all, _HELD.release, _HELD.release)
