"""Calls of BLAS that a fork waits for: OpenBLAS holds a lock for moments of a call, and a child would wait for it."""

from __future__ import annotations

import os
import threading
from weakref import WeakSet

from aidotnet_py.locks import Lock

__all__ = ["BLAS_CALLS"]


class _Calls(threading.local):
    """The lock of each thread, which it holds during a call of BLAS and within which it takes no other.

    Threads call BLAS at the same time, since each has a lock of its own; a fork takes them all. Without, while two
    threads multiplied matrices of 4 × 4 by OpenBLAS's kernels for Haswell, 21 of 4,000 children waited for ever.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        with _BIRTHS:
            _ALL.add(self.lock)


_BIRTHS = Lock()
_ALL: WeakSet[Lock] = WeakSet()
_HELD: list[Lock] = []
BLAS_CALLS = _Calls()


def _hold_all() -> None:
    _hold(_BIRTHS)
    for lock in list(_ALL):
        _hold(lock)


def _hold(lock: Lock) -> None:
    # Noted first: after an interrupt between the two lines, a lock that was not taken is not released either.
    _HELD.append(lock)
    lock.acquire()


def _release_all() -> None:
    while _HELD:
        lock = _HELD.pop()
        if lock.is_owned():
            lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_all, after_in_parent=_release_all, after_in_child=_release_all)
