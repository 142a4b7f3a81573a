"""BLAS on one thread for as long as anybody in this process wants that, and afterwards as it was."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, TypeAlias

from aidotnet_py.locks import Lock, after_fork

__all__ = ["OneThread"]

# What sets a library's number of threads, and which it was.
_Before: TypeAlias = list[tuple[Callable[[int], Any], int]]


class OneThread:
    """Gives contexts, of which threads may be in any number at the same time; the last to leave puts BLAS back.

    How many threads BLAS uses is a setting of the whole process: were each to put back what it found, the last one
    would leave what another had set. Where OpenMP works for BLAS it is a setting of each thread, and is set for each.

    Parameters
    ----------
    libraries : callable
        Gives the BLAS libraries of the process, a sequence of threadpoolctl's LibController; called at entry.
    """

    def __init__(self, libraries: Callable[[], Sequence[Any]]) -> None:
        self._libraries = libraries
        self._lock = Lock()
        # The contexts that each thread is in; what is to be put back when a thread leaves, and when the last one does.
        self._inside: dict[int, set[_Stay]] = {}
        self._of_thread: dict[int, _Before] = {}
        self._of_process: _Before = []
        after_fork(self._leave_for_others)

    def stay(self) -> AbstractContextManager[None]:
        """A context with BLAS on one thread, to be entered once; to leave it again changes nothing."""
        return _Stay(self)

    def enter(self, stay: _Stay) -> None:
        """Put BLAS on one thread."""
        with self._lock:
            me = threading.get_ident()
            if not self._inside:
                _limit((one for one in self._libraries() if not _is_of_thread(one)), self._of_process)
            if me not in self._inside:
                _limit((one for one in self._libraries() if _is_of_thread(one)), self._of_thread.setdefault(me, []))
            self._inside.setdefault(me, set()).add(stay)

    def leave(self, stay: _Stay) -> None:
        """Put BLAS back, if this was the last; whatever was left in the middle of that is made up for."""
        with self._lock:
            me = threading.get_ident()
            stays = self._inside.get(me, set())
            stays.discard(stay)
            if not stays:
                self._inside.pop(me, None)
                _put_back(self._of_thread.get(me, []))
                self._of_thread.pop(me, None)
            if not self._inside:
                _put_back(self._of_process)
                self._of_process = []

    def _leave_for_others(self) -> None:
        """After a fork: none of the threads that were inside is in the child, but for the one that forked.

        Nor is one that was about to put BLAS back: there is still what it was to put back, and nobody inside.
        """
        me = threading.get_ident()
        self._inside = {me: self._inside[me]} if me in self._inside else {}
        self._of_thread = {me: self._of_thread[me]} if me in self._of_thread else {}
        if not self._inside:
            _put_back(self._of_process)
            self._of_process = []


class _Stay:
    """One entry, that tells it from others: an interrupt at its end may leave it open, for whoever made it to leave."""

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
    """Put libraries on one thread, and note how each was before it is changed."""
    for library in libraries:
        # From 3.8 on, threadpoolctl does nothing in any thread but the first that asked it; this is for all of them.
        setter = getattr(library, "_real_set_num_threads", library.set_num_threads)
        before.append((setter, library.get_num_threads()))
        setter(1)


def _put_back(before: _Before) -> None:
    for setter, number in before:
        setter(number)
