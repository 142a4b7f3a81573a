"""Locks that a forked process finds free, since the thread that held them is not there any more."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

__all__ = ["HeldLocks", "Lock", "after_fork", "around_fork", "free_after_fork"]

if TYPE_CHECKING:

    class _RLock:
        """What is used here of the interpreter's own, which type checkers take for final."""

        def __enter__(self) -> bool: ...
        def __exit__(self, *error: Any) -> None: ...
        def acquire(self) -> bool: ...
        def release(self) -> None: ...
        def _is_owned(self) -> bool: ...
        def _at_fork_reinit(self) -> None: ...

else:
    from _thread import RLock as _RLock


class Lock(_RLock):
    """A re-entrant lock, for ``with``; copies and pickles of it are locks of their own, and free.

    What it protects must bear to be left in the middle by a fork: a child finds what the thread that held it had done
    so far. It enters and leaves without a line of Python, in which an interrupt could come between the lock and the
    block that gives it back.

    Examples
    --------
    >>> from aidotnet_py.locks import Lock
    >>> lock = Lock()
    >>> with lock, lock:
    ...     pass
    """

    def __init__(self) -> None:
        _ALL.add(self)

    def __reduce__(self) -> tuple[type[Lock], tuple[()]]:
        return Lock, ()

    def is_owned(self) -> bool:
        """Return whether this thread holds the lock."""
        return self._is_owned()

    def renew(self) -> None:
        """Be free, unless this thread holds it; for a process that has no other thread."""
        if not self.is_owned():
            self._at_fork_reinit()


_ALL: WeakSet[Lock] = WeakSet()
_OF_OTHERS: WeakSet[Any] = WeakSet()
_AFTERWARDS: list[Callable[[], None]] = []


def free_after_fork(lock: Any) -> None:
    """Have a lock of `threading` that somebody else made, such as that of a random generator, free after a fork."""
    _OF_OTHERS.add(lock)


def after_fork(callback: Callable[[], None]) -> None:
    """Have this called in every forked process, twice, once its locks are free; see `around_fork`."""
    _AFTERWARDS.append(callback)


class HeldLocks(threading.local):
    """The locks that a thread takes before a fork, to release them after it."""

    def __init__(self) -> None:
        self._locks: list[Lock] = []

    def take(self, lock: Lock) -> None:
        """Wait for a lock and hold it."""
        # Noted first, so that an interrupt between the lines leaves no lock that nobody releases.
        self._locks.append(lock)
        lock.acquire()

    def release(self) -> None:
        """Release all that were taken; another call changes nothing."""
        while self._locks:
            lock = self._locks.pop()
            if lock.is_owned():
                lock.release()


def around_fork(before: Callable[[], None], in_parent: Callable[[], None], in_child: Callable[[], None]) -> None:
    """Have the first called before every fork, and another one after it in either process.

    After it they are called twice, and must bear that: an interrupt during the fork is raised at the beginning of the
    next call, which does nothing then.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=before)
        for _ in range(2):
            os.register_at_fork(after_in_parent=in_parent, after_in_child=in_child)


def _renew_all() -> None:
    for lock in list(_ALL):
        lock.renew()
    for other in list(_OF_OTHERS):
        # As the standard library does with its own.
        other._at_fork_reinit()
    for callback in _AFTERWARDS:
        callback()


if hasattr(os, "register_at_fork"):
    # Twice for the reason in `around_fork`.
    for _ in range(2):
        os.register_at_fork(after_in_child=_renew_all)
