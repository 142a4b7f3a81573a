"""A batch in chunks: some of its tasks at a time, on as many threads as compute side by side.

The results do not depend on how a batch was split: nothing that is computed for a task sees another task.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends import Array, Backend
from aidotnet_py.meta_learning.finiteness import all_finite, require_sound
from aidotnet_py.meta_learning.objectives import Lease, TaskObjective
from aidotnet_py.meta_learning.tasks import IMetaLearningTask
from aidotnet_py.meta_learning.turns import Lane
from aidotnet_py.models import IFullModel

__all__ = ["Chunk", "over_chunks"]

R = TypeVar("R")


@dataclass(frozen=True)
class Chunk:
    """Tasks of a batch that are worked on together, and their objectives.

    Attributes
    ----------
    backend : Backend
        Where their arrays are.
    model, parameters, learned : IFullModel, array of shape (P,), array or None
        What the call works with, whatever becomes of the learner's meanwhile: its model, θ, and what is learned beside
        it.
    lease : Lease
        What the objectives work in.
    tasks : sequence of task
        The tasks.
    objectives : mapping
        The objective of each role that was opened, "Support" or "Query".
    first : int
        The place in the batch of the first task.
    lane : int
        Whose buffers they use.
    """

    backend: Backend
    model: IFullModel[Any, Any, Any]
    parameters: Array
    learned: Array | None
    lease: Lease
    tasks: Sequence[IMetaLearningTask[Any, Any, Any]]
    objectives: Mapping[str, TaskObjective]
    first: int = 0
    lane: int = 0

    @property
    def support(self) -> TaskObjective:
        """The loss on the support sets."""
        return self.objectives["Support"]

    @property
    def query(self) -> TaskObjective:
        """The loss on the query sets."""
        return self.objectives["Query"]

    def require_finite(self, quantity: str, stacked: Array) -> None:
        """Raise InvalidOperationException, naming task and quantity, where a row of (tasks, …) is not finite."""
        self.require_sound(quantity, all_finite(self.backend, stacked))

    def require_sound(self, quantity: str, sound: NDArray[np.bool_]) -> None:
        """Raise InvalidOperationException, naming the first task that is not sound."""
        require_sound(quantity, sound, self.tasks, self.first)

    def on_host(self, array: Array) -> NDArray[Any]:
        """A copy of an array's values on the host."""
        return np.array(self.backend.to_numpy(array))

    def part(self, start: int, stop: int, lane: int) -> Chunk:
        """Some of these tasks, with buffers of a lane's own."""
        objectives = {role: objective.part(start, stop, lane) for role, objective in self.objectives.items()}
        return replace(self, tasks=self.tasks[start:stop], objectives=objectives, first=self.first + start, lane=lane)


def over_chunks(whole: Chunk, work: Callable[[Chunk], R]) -> list[R]:
    """What ``work`` gives for each chunk, in the order of the tasks.

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
    """Chunks of at most ``at_once`` tasks, as equal as can be, a multiple of the threads in number if more than one."""
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
