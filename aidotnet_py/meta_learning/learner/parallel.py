"""A batch in chunks: some of its tasks at a time, on as many threads as compute side by side.

The results do not depend on how a batch was split: nothing that is computed for a task sees another task.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeVar

from aidotnet_py.meta_learning.learner.turns import Lane
from aidotnet_py.meta_learning.objective.chunk import Chunk

__all__ = ["over_chunks"]

R = TypeVar("R")


def over_chunks(whole: Chunk, work: Callable[[Chunk], R]) -> list[R]:
    """Return the results of ``work`` for each chunk, in the order of the tasks.

    While it runs, the backend's own operations keep to one thread each, so that threads are shared out by chunks alone
    and results do not depend on how many there are. Of several errors, that of the first tasks is raised.
    """
    backend = whole.backend
    at_once = min(objective.tasks_at_once for objective in whole.objectives.values())
    threads = backend.threads
    bounds = _bounds(len(whole.tasks), at_once, threads)
    single_threaded = backend.single_threaded()
    try:
        with single_threaded, whole.lease:
            if len(bounds) == 1 or threads == 1:
                with backend.errors_ignored():
                    return [work(whole.part(start, stop, 0)) for start, stop in bounds]
            return _Lanes(whole, work, bounds).run(min(threads, len(bounds)))
    except BaseException:
        # An interrupt that came as the context was left may have kept it open.
        single_threaded.__exit__(None, None, None)
        raise


def _bounds(tasks: int, at_once: int, threads: int) -> list[tuple[int, int]]:
    """Return bounds of chunks of at most ``at_once`` tasks, as equal as possible.

    Several chunks are a multiple of the threads in number.
    """
    count = -(-tasks // at_once)
    if count > 1:
        count = min(-(-count // threads) * threads, tasks)
    edges = [tasks * i // count for i in range(count + 1)]
    return list(pairwise(edges))


class _Lanes:
    """Threads that each take the next chunk when they are done with one."""

    def __init__(self, whole: Chunk, work: Callable[[Chunk], Any], bounds: list[tuple[int, int]]) -> None:
        self._whole = whole
        self._work = work
        self._bounds = bounds
        self._results: list[Any] = [None] * len(bounds)
        self._errors: dict[int, BaseException] = {}
        self._next = 0
        self._lock = threading.Lock()

    def run(self, lanes: int) -> list[Any]:
        """Work through all chunks."""
        threads = [Lane(self._work_through, lane) for lane in range(lanes)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            # Interrupted, it still waits until no thread writes to anything any more; one that was about to start finds
            # nothing left to do.
            with self._lock:
                self._next = len(self._bounds)
            for thread in threads:
                if thread.is_alive():
                    thread.join()
        if self._errors:
            # Chunks are taken in order, so all before one that failed were tried, and the first failure is the same
            # however threads were scheduled.
            raise self._errors[min(self._errors)]
        return self._results

    def _work_through(self, lane: int) -> None:
        backend = self._whole.backend
        with backend.errors_ignored(), backend.single_threaded():
            while not self._errors:
                with self._lock:
                    index = self._next
                    self._next += 1
                if index >= len(self._bounds):
                    return
                try:
                    self._results[index] = self._work(self._whole.part(*self._bounds[index], lane))
                except BaseException as error:
                    self._errors[index] = error
