"""What every loader of this package shares: checked sizes, a resumable random stream, batches and the backend."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, SupportsIndex, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends import Array, Backend, get_backend
from aidotnet_py.data.prefetch import DrawnAhead
from aidotnet_py.data.random_stream import RandomStream
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException
from aidotnet_py.locks import Lock
from aidotnet_py.meta_learning.contract.task_batch import TaskBatch
from aidotnet_py.meta_learning.contract.tasks import MetaLearningTask
from aidotnet_py.meta_learning.objective.stacking import row_views
from aidotnet_py.type_parameters import T

__all__ = ["DrawnTasks", "EpisodicLoader"]


_Task: TypeAlias = MetaLearningTask[T, NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class DrawnTasks:
    """Support inputs and targets, query inputs and targets, one entry a task in each array; and what else is known."""

    arrays: Sequence[NDArray[Any]]
    name: str
    metadata: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class _Moved(Generic[T]):
    """Arrays on the device, and the tasks that they hold."""

    arrays: Sequence[Array]
    tasks: list[_Task[T]]


class EpisodicLoader(ABC, Generic[T]):
    """An `IEpisodicDataLoader` and `IResumable`; a subclass draws tasks in `_drawn`.

    All arrays are made on the host from one PCG64 stream and handed to the backend, so that the same seed gives the
    same tasks on every backend. Threads may draw from it at the same time, each a task or a batch of its own; together
    they draw what one would. ``GetTaskBatch(n)`` draws what ``n`` calls of ``GetNextTask`` would, and hands over
    those of all tasks at once: their arrays are parts of four large ones, which live as long as one of them. For a
    device, batches that are asked for one after another are drawn and moved while it is at work on the last one.

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
        # A task is several draws from the stream: of threads, one after another makes its own.
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        """What a copy gets: all but what is being drawn ahead."""
        return {name: value for name, value in self.__dict__.items() if name != "_ahead"}

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
        with self._lock:
            self._stream.reseed(seed)

    def GetState(self) -> dict[str, Any]:
        """Return the position in the random stream, in values that JSON can hold."""
        with self._lock:
            return self._stream.state()

    def SetState(self, state: Mapping[str, Any]) -> None:
        """Go on from a position that `GetState` returned: the same tasks follow, bit for bit.

        Raises
        ------
        ArgumentException
            ``state`` is not such a position; nothing changes then.
        """
        with self._lock:
            self._stream.restore(state)

    @abstractmethod
    def _drawn(self, generator: np.random.Generator, count: int) -> DrawnTasks:
        """Draw so many tasks on the host, as many draws of one would; new arrays, and nothing of the loader changes."""

    def _tasks(self, count: int) -> list[_Task[T]]:
        with self._lock:
            if not self._backend.owns(np.empty(0)):
                return self._ahead.draw(self._stream, count).tasks
            # It computes by itself, and has no time to draw meanwhile.
            drawn = self._drawn(self._stream.generator, count)
        return self._made(drawn, [list(np.ascontiguousarray(array)) for array in drawn.arrays])

    def _made(self, drawn: DrawnTasks, arrays: Sequence[Sequence[Array]]) -> list[_Task[T]]:
        """The tasks, of arrays that are the entries of those drawn."""
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
            for support_x, support_y, query_x, query_y, metadata in zip(*arrays, drawn.metadata, strict=True)
        ]

    @cached_property
    def _ahead(self) -> DrawnAhead[_Moved[T]]:
        def draw(generator: np.random.Generator, count: int) -> _Moved[T]:
            return self._moved(self._drawn(generator, count), lambda arrays: list(map(self._backend.asarray, arrays)))

        return DrawnAhead(draw, self._drawing_again)

    def _drawing_again(self, last: _Moved[T]) -> Callable[[np.random.Generator, int], _Moved[T]]:
        """What draws as many tasks as the last, and moves them beside the device's work."""
        transfer = self._backend.transfer_aside(last.arrays)

        def draw(generator: np.random.Generator, count: int) -> _Moved[T]:
            return self._moved(self._drawn(generator, count), transfer)

        return draw

    def _moved(self, drawn: DrawnTasks, move: Callable[[Sequence[NDArray[Any]]], Sequence[Array]]) -> _Moved[T]:
        arrays = move(drawn.arrays)
        return _Moved(arrays, self._made(drawn, [row_views(self._backend, array) for array in arrays]))


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
