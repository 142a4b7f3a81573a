"""Who works in which buffers: each call in a workspace of its own, lent to it for as long as it runs."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from aidotnet_py.autodiff.extend import Queue
from aidotnet_py.backends import Backend
from aidotnet_py.locks import Lock
from aidotnet_py.meta_learning.objective.traced import BatchedPrograms, Place, Signature, TaskPrograms

__all__ = ["Lease", "Workspace", "Workspaces"]

# In a workspace: support and query sets, in training and in evaluation, and the last, smaller chunk of each; more if
# they are small. Beyond these numbers, or the bytes of all, the oldest go, though never those that the call at hand or
# the last one worked with.
_MOST_LARGE, _MOST_SMALL, _SMALL_BYTES, _MOST_BYTES = 8, 32, 2**25, 2**30
# Workspaces that wait for a call; while one runs, there are as many as calls at the same time.
_MOST_IDLE = 4


class Workspace:
    """Ready programs with their buffers, by their places, within bounds; for one call at a time."""

    def __init__(self) -> None:
        # No OrderedDict, which makes a KeyError of an interrupt while it is walked through.
        self._ready: dict[Place, BatchedPrograms] = {}
        self._queues: dict[str, Queue] = {}
        # The places used by the call at hand, and by the one before it, whose programs stay.
        self._in_use: set[Place] = set()
        self._in_use_before: set[Place] = set()

    @property
    def places(self) -> list[Place]:
        """Those that programs are kept for, the one last asked for at the end."""
        return list(self._ready)

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(programs.nbytes for programs in self._ready.values())

    def queue(self, backend: Backend) -> Queue:
        """What the work on a backend goes through."""
        return self._queues.setdefault(backend.name, Queue(backend))

    def begin(self) -> None:
        """Begin with another call."""
        self._in_use_before, self._in_use = self._in_use, set()

    def ready(self, place: Place, programs: TaskPrograms, backend: Backend) -> BatchedPrograms:
        """The programs of a place, made when first asked for."""
        found = self._ready.pop(place, None) or BatchedPrograms(programs, place.tasks, backend, self.queue(backend))
        self._ready[place] = found
        self._in_use.add(place)
        for old in [p for p in self._ready if p not in self._in_use | self._in_use_before]:
            count, nbytes = len(self._ready), self.nbytes
            if count > _MOST_SMALL or nbytes > _MOST_BYTES or (count > _MOST_LARGE and nbytes > _SMALL_BYTES):
                del self._ready[old]
        return found


class Workspaces:
    """The workspaces of a learner that no call works in; the lock is that of their owner."""

    def __init__(self) -> None:
        self._idle: list[Workspace] = []

    def __len__(self) -> int:
        return len(self._idle)

    def take(self) -> Workspace:
        """One for a call: the one that was given back last, so that calls one after another have the same."""
        workspace = self._idle.pop() if self._idle else Workspace()
        workspace.begin()
        return workspace

    def give_back(self, workspace: Workspace) -> None:
        """Keep it for another call; beyond the bounds, the one that has waited longest goes."""
        self._idle.append(workspace)
        while len(self._idle) > 1 and (
            len(self._idle) > _MOST_IDLE or sum(one.nbytes for one in self._idle) > _MOST_BYTES
        ):
            self._idle.pop(0)


class Lease:
    """What a call has of the learner's workspaces: one, from when it is first needed until the call ends.

    A context in which the call runs. It may be entered again, for another run of the same call. A workspace in which
    something failed is not used again.

    Parameters
    ----------
    workspaces : Workspaces
        Where it comes from and goes back to.
    lock : Lock
        That of these workspaces.
    programs : callable
        Gives the programs of one task, by their signature.

    Attributes
    ----------
    run : int
        How many runs have ended: buffers that came in an earlier one are another call's by now.
    """

    def __init__(self, workspaces: Workspaces, lock: Lock, programs: Callable[[Signature], TaskPrograms]) -> None:
        self._workspaces = workspaces
        self._lock = lock
        self._workspace: Workspace | None = None
        self._programs = programs
        self.run = 0

    def programs(self, signature: Signature) -> TaskPrograms:
        """The programs of one task."""
        return self._programs(signature)

    def ready(self, place: Place, backend: Backend) -> BatchedPrograms:
        """The programs of a place, with buffers that no other call works in."""
        programs = self._programs(place.signature)
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
