"""The BLAS libraries of the process, and contexts with BLAS on one thread; afterwards its earlier setting."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from importlib import import_module
from types import TracebackType
from typing import Any, TypeAlias

from aidotnet_py.backends.numpy.blas_calls import BLAS_CALLS
from aidotnet_py.locks import Lock, after_fork

__all__ = ["ONE_THREAD", "OneThread", "blas_libraries", "threads_allowed"]


def blas_libraries() -> Any:
    """Return a controller of the BLAS libraries of this process: NumPy's, and those of other modules."""
    # A fork waits: a child would wait for ever for a module that another thread was importing.
    with BLAS_CALLS.lock:
        return _blas_beside(len(sys.modules))


@lru_cache(maxsize=1)
def _blas_beside(modules: int) -> Any:
    # The search takes a millisecond. It is repeated when modules were imported since, such as SciPy.
    controller: Any = import_module("threadpoolctl").ThreadpoolController()
    return controller.select(user_api="blas")


def threads_allowed() -> int:
    """Return the number of threads that BLAS may use now, at most one for each core."""
    return _within_cores(library.num_threads for library in blas_libraries().lib_controllers)


def _within_cores(numbers: Iterable[int]) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([cores, *map(int, numbers)])


# For each library, the setter of its number of threads, and the earlier number.
_Before: TypeAlias = list[tuple[Callable[[int], Any], int]]


class OneThread:
    """Contexts with BLAS on one thread; the exit from the last one restores BLAS. Threads may be in several at a time.

    The number of threads of BLAS belongs to the whole process. If each context restored the number at its entry, the
    last exit could restore 1. With OpenMP, the number belongs to each thread, and is set for each.

    Parameters
    ----------
    libraries : callable
        Returns the BLAS libraries of the process, a sequence of threadpoolctl's LibController; called at entry.
    """

    def __init__(self, libraries: Callable[[], Sequence[Any]]) -> None:
        self._libraries = libraries
        self._lock = Lock()
        # The open contexts of each thread; the settings to restore when a thread leaves, and when the last one does.
        self._inside: dict[int, set[_Stay]] = {}
        self._of_thread: dict[int, _Before] = {}
        self._of_process: _Before = []
        # The number of threads that BLAS had before, for each thread that is inside.
        self._allowed: dict[int, int] = {}
        after_fork(self._leave_for_others)

    def stay(self) -> AbstractContextManager[None]:
        """Return a context with BLAS on one thread, to be entered once; a second exit changes nothing."""
        return _Stay(self)

    @property
    def share(self) -> int:
        """The number of threads that BLAS had before, divided by the threads inside; 1 for threads that are outside."""
        # Without the lock: other threads change no entry of this one, which is itself among those inside.
        allowed = self._allowed.get(threading.get_ident())
        return 1 if allowed is None else max(1, allowed // len(self._inside))

    def enter(self, stay: _Stay) -> None:
        """Put BLAS on one thread."""
        with self._lock:
            me = threading.get_ident()
            if not self._inside:
                _limit((one for one in self._libraries() if not _is_of_thread(one)), self._of_process)
            if me not in self._inside:
                _limit((one for one in self._libraries() if _is_of_thread(one)), self._of_thread.setdefault(me, []))
                self._allowed[me] = _within_cores(number for _, number in [*self._of_process, *self._of_thread[me]])
            self._inside.setdefault(me, set()).add(stay)

    def leave(self, stay: _Stay) -> None:
        """Restore BLAS after the last stay; also complete a restoration that was interrupted."""
        with self._lock:
            me = threading.get_ident()
            stays = self._inside.get(me, set())
            stays.discard(stay)
            if not stays:
                self._inside.pop(me, None)
                self._allowed.pop(me, None)
                _restore(self._of_thread.get(me, []))
                self._of_thread.pop(me, None)
            if not self._inside:
                _restore(self._of_process)
                self._of_process = []

    def _leave_for_others(self) -> None:
        """Leave in a forked child for all threads but the calling one, which alone exists there.

        A thread that was about to restore BLAS is missing too: if no thread is inside, BLAS is restored here.
        """
        me = threading.get_ident()
        self._inside = {me: self._inside[me]} if me in self._inside else {}
        self._of_thread = {me: self._of_thread[me]} if me in self._of_thread else {}
        self._allowed = {me: self._allowed[me]} if me in self._allowed else {}
        if not self._inside:
            _restore(self._of_process)
            self._of_process = []


class _Stay:
    """One entry. After an interrupt in its exit it may still be open, and its owner can leave it again."""

    def __init__(self, one: OneThread) -> None:
        self._one = one

    def __enter__(self) -> None:
        self._one.enter(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._one.leave(self)


def _is_of_thread(library: Any) -> bool:
    return getattr(library, "threading_layer", None) == "openmp" and hasattr(library, "_real_set_num_threads")


def _limit(libraries: Iterable[Any], before: _Before) -> None:
    """Put libraries on one thread, and note the earlier number of threads of each before its change."""
    for library in libraries:
        # Since threadpoolctl 3.8, only the first thread that calls the public setter changes anything.
        setter = getattr(library, "_real_set_num_threads", library.set_num_threads)
        before.append((setter, library.get_num_threads()))
        _set(setter, 1)


def _restore(before: _Before) -> None:
    for setter, number in before:
        _set(setter, number)


def _set(setter: Callable[[int], Any], number: int) -> None:
    # OpenBLAS holds a lock meanwhile. A child that is forked then would wait for it at its own first call.
    with BLAS_CALLS.lock:
        setter(number)


# Created on import, so that two threads never create one each.
ONE_THREAD = OneThread(lambda: blas_libraries().lib_controllers)
