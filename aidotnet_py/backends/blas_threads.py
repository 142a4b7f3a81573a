"""BLAS on one thread for as long as anybody in this process wants that, and afterwards as it was."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any

from aidotnet_py.locks import Lock

__all__ = ["OneThread"]


class OneThread:
    """A context, which threads may enter at the same time and more than once; the last to leave puts BLAS back.

    How many threads BLAS uses is a setting of the whole process: were each to put back what it found, the last one
    would leave what another had set.

    Parameters
    ----------
    libraries : callable
        Gives the BLAS libraries of the process, a sequence of threadpoolctl's LibController; called at each first
        entry.
    """

    def __init__(self, libraries: Callable[[], Any]) -> None:
        self._find = libraries
        self._lock = Lock()
        self._inside: Counter[int] = Counter()
        # The libraries, and how many threads each used before the first came in.
        self._before: list[tuple[Any, int]] = []
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._leave_for_others)

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = [(library, library.get_num_threads()) for library in self._find()]
                for library, _ in self._before:
                    library.set_num_threads(1)
            self._inside[threading.get_ident()] += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            me = threading.get_ident()
            self._inside[me] -= 1
            if not self._inside[me]:
                del self._inside[me]
            self._put_back_if_empty()

    def _put_back_if_empty(self) -> None:
        if not self._inside:
            for library, before in self._before:
                library.set_num_threads(before)

    def _leave_for_others(self) -> None:
        """After a fork: none of the threads that were inside is in the child, but for the one that forked."""
        me = threading.get_ident()
        if self._inside:
            self._inside = Counter({me: self._inside[me]} if self._inside[me] else {})
            self._put_back_if_empty()
