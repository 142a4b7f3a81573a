"""BLAS on one thread for as long as anybody in this process wants that, and afterwards as it was."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, TypeAlias

from aidotnet_py.locks import Lock

__all__ = ["OneThread"]

# What sets a library's number of threads, and which it was.
_Before: TypeAlias = list[tuple[Callable[[int], Any], int]]


class OneThread:
    """A context, which threads may enter at the same time and more than once; the last to leave puts BLAS back.

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
        # How often each thread is inside; what is to be put back when a thread leaves, and when the last one does.
        self._inside: Counter[int] = Counter()
        self._of_thread: dict[int, _Before] = {}
        self._of_process: _Before = []
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._leave_for_others)

    def __enter__(self) -> None:
        with self._lock:
            me = threading.get_ident()
            if not self._inside:
                self._of_process = _limited(one for one in self._libraries() if not _is_of_thread(one))
            if me not in self._inside:
                self._of_thread[me] = _limited(one for one in self._libraries() if _is_of_thread(one))
            self._inside[me] += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            me = threading.get_ident()
            self._inside[me] -= 1
            if not self._inside[me]:
                del self._inside[me]
                _put_back(self._of_thread.pop(me))
            if not self._inside:
                _put_back(self._of_process)
                self._of_process = []

    def _leave_for_others(self) -> None:
        """After a fork: none of the threads that were inside is in the child, but for the one that forked.

        Nor is one that was about to put BLAS back: there is still what it was to put back, and nobody inside.
        """
        me = threading.get_ident()
        self._inside = Counter({me: self._inside[me]} if me in self._inside else {})
        self._of_thread = {me: self._of_thread[me]} if me in self._of_thread else {}
        if not self._inside:
            _put_back(self._of_process)
            self._of_process = []


def _is_of_thread(library: Any) -> bool:
    return getattr(library, "threading_layer", None) == "openmp" and hasattr(library, "_real_set_num_threads")


def _limited(libraries: Iterable[Any]) -> _Before:
    """The libraries on one thread, and how they were."""
    before: _Before = []
    for library in libraries:
        # From 3.8 on, threadpoolctl does nothing in any thread but the first that asked it; this is for all of them.
        setter = getattr(library, "_real_set_num_threads", library.set_num_threads)
        before.append((setter, library.get_num_threads()))
        setter(1)
    return before


def _put_back(before: _Before) -> None:
    for setter, number in before:
        setter(number)
