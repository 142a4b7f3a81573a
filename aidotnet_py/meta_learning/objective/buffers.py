"""Buffers of calls: each call borrows a workspace of its own until the call ends."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from aidotnet_py.autodiff.extend import Queue
from aidotnet_py.backends import Backend
from aidotnet_py.locks import Lock
from aidotnet_py.meta_learning.objective.batched_programs import BatchedPrograms
from aidotnet_py.meta_learning.objective.task_programs import Signature, TaskPrograms
from aidotnet_py.meta_learning.objective.traced import Place

__all__ = ["Lease", "Workspace", "Workspaces"]

# In a workspace: support and query sets, in training and in evaluation, and the last, smaller chunk of each; more if
# they are small. Beyond these numbers, or the bytes of all, the oldest go, though never those that the call at hand or
# the last one worked with.
_MOST_LARGE, _MOST_SMALL, _SMALL_BYTES, _MOST_BYTES = 8, 32, 2**24, 2**30
# Workspaces that wait for a call; while one runs, there are as many as calls at the same time.
_MOST_IDLE = 4


class Workspace:
    """Programs with their buffers, by place, within bounds; for one call at a time."""

    def __init__(self) -> None:
        # No OrderedDict: it turns an interrupt during an iteration into a KeyError.
        self._ready: dict[Place, BatchedPrograms] = {}
        self._queues: dict[str, Queue] = {}
        # The places of this call and of the call before; their programs stay.
        self._in_use: set[Place] = set()
        self._in_use_before: set[Place] = set()

    @property
    def places(self) -> list[Place]:
        """The places of all programs, the place used last at the end."""
        return list(self._ready)

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(programs.nbytes for programs in self._ready.values())

    def queue(self, backend: Backend) -> Queue:
        """Return the queue of the work on a backend."""
        return self._queues.setdefault(backend.name, Queue(backend))

    def begin(self) -> None:
        """Begin another call."""
        self._in_use_before, self._in_use = self._in_use, set()

    def ready(self, place: Place, programs: TaskPrograms, backend: Backend) -> BatchedPrograms:
        """Return the programs of a place, made at their first use."""
        batched = self._ready.pop(place, None)
        is_new = batched is None
        batched = batched or BatchedPrograms(programs, place.tasks, backend, self.queue(backend))
        self._ready[place] = batched
        self._in_use.add(place)
        if is_new:
            self._drop_oldest()
        return batched

    def _drop_oldest(self) -> None:
        count, nbytes = len(self._ready), self.nbytes
        for old in [p for p in self._ready if p not in self._in_use | self._in_use_before]:
            if count <= _MOST_SMALL and nbytes <= _MOST_BYTES and (count <= _MOST_LARGE or nbytes <= _SMALL_BYTES):
                return
            nbytes -= self._ready.pop(old).nbytes
            count -= 1


class Workspaces:
    """The workspaces of a learner that no call uses; their owner holds its lock around each method."""

    def __init__(self) -> None:
        self._idle: list[Workspace] = []

    def __len__(self) -> int:
        return len(self._idle)

    def take(self) -> Workspace:
        """Return a workspace for a call: the one given back last, so that consecutive calls use the same one."""
        workspace = self._idle.pop() if self._idle else Workspace()
        workspace.begin()
        return workspace

    def give_back(self, workspace: Workspace) -> None:
        """Keep a workspace for another call; beyond the bounds, drop the workspace that was idle longest."""
        self._idle.append(workspace)
        while len(self._idle) > 1 and (
            len(self._idle) > _MOST_IDLE or sum(one.nbytes for one in self._idle) > _MOST_BYTES
        ):
            self._idle.pop(0)


class Lease:
    """The workspace of one call, borrowed at its first use and returned when the call ends.

    A lease is the context in which the call runs. A second run of the same call may enter it again. After an error,
    the workspace is not returned.

    Parameters
    ----------
    workspaces : Workspaces
        The workspaces to borrow from.
    lock : Lock
        The lock of these workspaces.
    programs : callable
        Returns the programs of one task, by their signature.

    Attributes
    ----------
    run : int
        The number of runs that have ended; buffers of an earlier run belong to another call by now.
    """

    def __init__(self, workspaces: Workspaces, lock: Lock, programs: Callable[[Signature], TaskPrograms]) -> None:
        self._workspaces = workspaces
        self._lock = lock
        self._workspace: Workspace | None = None
        self._programs = programs
        self.run = 0

    def programs(self, signature: Signature) -> TaskPrograms:
        """Return the programs of one task."""
        return self._programs(signature)

    def ready(self, place: Place, programs: TaskPrograms, backend: Backend) -> BatchedPrograms:
        """Return the programs of a place, with buffers that no other call uses."""
        with self._lock:
            if self._workspace is None:
                self._workspace = self._workspaces.take()
            return self._workspace.ready(place, programs, backend)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            workspace, self._workspace, self.run = self._workspace, None, self.run + 1
            if workspace is not None and error is None:
                self._workspaces.give_back(workspace)
