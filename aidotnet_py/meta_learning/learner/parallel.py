"""A batch in chunks: some of its tasks at a time, on as many threads as compute side by side.

The results do not depend on how a batch was split: nothing that is computed for a task sees another task.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

from aidotnet_py.backends import Backend
from aidotnet_py.meta_learning.learner.turns import Lane
from aidotnet_py.meta_learning.objective.chunk import Chunk

__all__ = ["in_order", "over_chunks"]

R = TypeVar("R")


def over_chunks(groups: Sequence[Chunk], work: Callable[[Chunk], R]) -> list[R]:
    """Return the results of ``work`` for each chunk of each group, in their order; see `in_order`.

    While it runs, the backend's own operations keep to one thread each, so that threads are shared out by chunks alone
    and results do not depend on how many there are. Of several errors, that of the first tasks is raised.
    """
    backend, lease = groups[0].backend, groups[0].lease
    threads = backend.threads
    parts = [_Part(group, *edges) for group in groups for edges in _bounds(group, threads)]
    single_threaded = backend.single_threaded()
    try:
        with single_threaded, lease:
            if len(parts) == 1 or threads == 1:
                with backend.errors_ignored():
                    return [work(part.in_lane(0)) for part in parts]
            return _Lanes(backend, work, parts).run(min(threads, len(parts)))
    except BaseException:
        # An interrupt that came as the context was left may have kept it open.
        single_threaded.__exit__(None, None, None)
        raise


def in_order(groups: Sequence[Chunk], of_tasks: Sequence[R]) -> list[R]:
    """Return values of tasks, which came group by group, in the order of the batch."""
    places = [place for group in groups for place in group.places]
    return [of_tasks[i] for i in sorted(range(len(places)), key=places.__getitem__)]


class _Part(NamedTuple):
    """Some tasks of a group."""

    group: Chunk
    start: int
    stop: int

    def in_lane(self, lane: int) -> Chunk:
        """Return them with the buffers of a lane."""
        return self.group.part(self.start, self.stop, lane)


def _bounds(group: Chunk, threads: int) -> list[tuple[int, int]]:
    """Return chunks of few enough tasks, as equal as can be, a multiple of the threads in number if more than one."""
    tasks, at_once = len(group.tasks), min(objective.tasks_at_once for objective in group.objectives.values())
    count = -(-tasks // at_once)
    if count > 1:
        count = min(-(-count // threads) * threads, tasks)
    edges = [tasks * i // count for i in range(count + 1)]
    return list(pairwise(edges))


class _Lanes:
    """Threads that each take the next chunk when they are done with one."""

    def __init__(self, backend: Backend, work: Callable[[Chunk], Any], parts: Sequence[_Part]) -> None:
        self._backend = backend
        self._work = work
        self._parts = parts
        self._results: list[Any] = [None] * len(parts)
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
                self._next = len(self._parts)
            for thread in threads:
                thread.finish()
        if self._errors:
            # Chunks are taken in order, so all before one that failed were tried, and the first failure is the same
            # however threads were scheduled.
            raise self._errors[min(self._errors)]
        return self._results

    def _work_through(self, lane: int) -> None:
        backend = self._backend
        with backend.errors_ignored(), backend.single_threaded():
            while not self._errors:
                with self._lock:
                    index = self._next
                    self._next += 1
                if index >= len(self._parts):
                    return
                try:
                    self._results[index] = self._work(self._parts[index].in_lane(lane))
                except BaseException as error:
                    self._errors[index] = error
