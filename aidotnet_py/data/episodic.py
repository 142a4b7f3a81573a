"""What every loader of this package shares: checked sizes, a resumable random stream, batches and the backend."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, SupportsIndex, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.data.ahead import DrawnAhead
from aidotnet_py.data.random_stream import RandomStream
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException
from aidotnet_py.meta_learning.stacking import row_views
from aidotnet_py.meta_learning.task_batch import TaskBatch
from aidotnet_py.meta_learning.tasks import MetaLearningTask
from aidotnet_py.type_parameters import T

__all__ = ["DrawnTasks", "EpisodicLoader"]


@dataclass(frozen=True)
class DrawnTasks:
    """New arrays on the host, one entry a task, the inputs and targets of each set; and what else is known of each."""

    support: tuple[NDArray[Any], NDArray[Any]]
    query: tuple[NDArray[Any], NDArray[Any]]
    name: str
    metadata: Sequence[Mapping[str, Any]]


class EpisodicLoader(ABC, Generic[T]):
    """An `IEpisodicDataLoader` and `IResumable`; a subclass draws tasks in `_drawn`.

    All arrays are made on the host from one PCG64 stream and handed to the backend, so that the same seed gives the
    same tasks on every backend. ``GetTaskBatch(n)`` draws what ``n`` calls of ``GetNextTask`` would, and hands over
    those of all tasks at once: their arrays are parts of four large ones, which live as long as one of them. For a
    device, batches that are asked for one after another are drawn ahead, while the device is at work on the last one.

    Parameters
    ----------
    NWay, KShot, QueryShots : int
        Classes of a task, and support and query examples of a class; at least 1.
    seed : int or None
        Where the random stream starts; None takes one from the operating system.
    dtype : type
        The NumPy floating scalar type of the inputs.
    backend : str or Backend
        Where the arrays of the tasks live.

    Raises
    ------
    ArgumentOutOfRangeException
        A size below 1 or a negative seed.
    ArgumentException
        A size or seed that is no integer, a dtype that is not floating, an unknown backend.
    """

    def __init__(
        self, NWay: int, KShot: int, QueryShots: int, *, seed: int | None, dtype: type[Any], backend: str | Backend
    ) -> None:
        self._ways = _positive("NWay", NWay)
        self._shots = _positive("KShot", KShot)
        self._queries = _positive("QueryShots", QueryShots)
        self._dtype = _floating(dtype)
        self._backend = get_backend(backend)
        self._stream = RandomStream(seed)
        self._ahead: DrawnAhead[DrawnTasks] | None = None

    @property
    def NWay(self) -> int:
        """How many classes a task has."""
        return self._ways

    @property
    def KShot(self) -> int:
        """How many support examples a class has."""
        return self._shots

    @property
    def QueryShots(self) -> int:
        """How many query examples a class has."""
        return self._queries

    @property
    @abstractmethod
    def AvailableClasses(self) -> int:
        """How many classes there are to draw from."""

    def GetNextTask(self) -> MetaLearningTask[T, NDArray[Any], NDArray[Any]]:
        """Draw the next task."""
        return self._tasks(1)[0]

    def GetTaskBatch(self, n: int) -> TaskBatch[T, NDArray[Any], NDArray[Any]]:
        """Draw the next ``n`` tasks.

        Raises
        ------
        ArgumentOutOfRangeException
            ``n`` is below 1.
        ArgumentException
            ``n`` is no integer.
        """
        return TaskBatch(self._tasks(_positive("n", n)))

    def SetSeed(self, seed: int) -> None:
        """Start the random stream anew: equal seeds are followed by equal tasks.

        Raises
        ------
        ArgumentException
            ``seed`` is no integer, or is negative (ArgumentOutOfRangeException).
        """
        self._stream.reseed(seed)

    def GetState(self) -> dict[str, Any]:
        """Return the position in the random stream, in values that JSON can hold."""
        return self._stream.state()

    def SetState(self, state: Mapping[str, Any]) -> None:
        """Go on from a position that `GetState` returned: the same tasks follow, bit for bit.

        Raises
        ------
        ArgumentException
            ``state`` is not such a position; nothing changes then.
        """
        self._stream.restore(state)

    @abstractmethod
    def _drawn(self, generator: np.random.Generator, count: int) -> DrawnTasks:
        """Draw so many tasks, as many draws of one would; nothing of the loader changes."""

    def _next(self, count: int) -> DrawnTasks:
        # A host that computes by itself has no time to draw meanwhile.
        if self._backend.owns(np.empty(0)):
            return self._drawn(self._stream.generator, count)
        if self._ahead is None:
            self._ahead = DrawnAhead(self._drawn)
        return self._ahead.draw(self._stream, count)

    def _tasks(self, count: int) -> list[MetaLearningTask[T, NDArray[Any], NDArray[Any]]]:
        drawn = self._next(count)
        sets = zip(*(self._moved(stacked) for stacked in (*drawn.support, *drawn.query)), strict=True)
        return [
            MetaLearningTask(
                SupportSetX=support_x,
                SupportSetY=support_y,
                QuerySetX=query_x,
                QuerySetY=query_y,
                NumWays=self._ways,
                NumShots=self._shots,
                NumQueryPerClass=self._queries,
                Name=drawn.name,
                Metadata=metadata,
            )
            for (support_x, support_y, query_x, query_y), metadata in zip(sets, drawn.metadata, strict=True)
        ]

    def _moved(self, stacked: NDArray[Any]) -> list[NDArray[Any]]:
        """The entries along the first axis, on the backend, in one transfer."""
        stacked = np.ascontiguousarray(stacked)
        if self._backend.owns(stacked):
            return list(stacked)
        return row_views(self._backend, self._backend.asarray(stacked))


def _positive(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise ArgumentException(f"{name} is {value!r}; wanted an integer ≥ 1")
    number = operator.index(value)
    if number < 1:
        raise ArgumentOutOfRangeException(f"{name} is {number}; wanted an integer ≥ 1")
    return number


def _floating(dtype: Any) -> np.dtype[Any]:
    if not (isinstance(dtype, type) and issubclass(dtype, np.floating)):
        raise ArgumentException(f"dtype is {dtype!r}; wanted a NumPy floating type such as np.float32")
    kind: np.dtype[Any] = np.dtype(cast(Any, dtype))
    return kind
