"""The base of all loaders: sizes, a resumable random stream, batches and the backend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Generic, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import COUNT, refusal
from aidotnet_py.backends import Array, Backend, get_backend
from aidotnet_py.data.prefetch import Prefetcher
from aidotnet_py.data.random_stream import RandomStream, Seeded
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning.contract.renaming import renamed
from aidotnet_py.meta_learning.contract.task_batch import TaskBatch
from aidotnet_py.meta_learning.contract.tasks import MetaLearningTask
from aidotnet_py.meta_learning.objective.stacking import row_views
from aidotnet_py.representations import concise_repr
from aidotnet_py.type_parameters import T

__all__ = ["DrawnTasks", "EpisodicLoader", "check_dtype", "on_host"]

_Task: TypeAlias = MetaLearningTask[T, NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class DrawnTasks:
    """Arrays of support inputs and targets, query inputs and targets, with one entry a task, and what describes them.

    ``ways``, ``shots`` and ``queries`` are the classes of a task, and its support and query examples of a class.
    """

    arrays: Sequence[NDArray[Any]]
    name: str
    metadata: Sequence[Mapping[str, Any]]
    ways: int
    shots: int
    queries: int

    @classmethod
    def of_classes(
        cls, examples: NDArray[Any], shots: int, name: str, metadata: Sequence[Mapping[str, Any]]
    ) -> DrawnTasks:
        """Return tasks of examples (tasks, ways, shots + queries, …), labelled by their index among the ways."""
        count, ways, per_class = examples.shape[:3]
        shape, labels = (count, -1, *examples.shape[3:]), np.arange(ways, dtype=np.int64)
        support, query = examples[:, :, :shots].reshape(shape), examples[:, :, shots:].reshape(shape)
        queries = per_class - shots
        support_labels, query_labels = (np.tile(np.repeat(labels, n), (count, 1)) for n in (shots, queries))
        arrays = (support, support_labels, query, query_labels)
        return cls(arrays, name, metadata, ways, shots, queries)

    def with_targets(self, targets: NDArray[Any]) -> DrawnTasks:
        """Return the same tasks with targets (tasks, ways, shots + queries, …) in place of labels."""
        support, _, query, _ = self.arrays
        of_targets = DrawnTasks.of_classes(targets, self.shots, self.name, self.metadata).arrays
        return replace(self, arrays=(support, of_targets[0], query, of_targets[2]))

    def tasks(self, arrays: Sequence[Sequence[Array]]) -> list[_Task[Any]]:
        """Return the tasks over the entries of the four arrays, wherever these were moved to."""
        return [
            MetaLearningTask(
                SupportSetX=support_x,
                SupportSetY=support_y,
                QuerySetX=query_x,
                QuerySetY=query_y,
                NumWays=self.ways,
                NumShots=self.shots,
                NumQueryPerClass=self.queries,
                Name=self.name,
                Metadata=metadata,
            )
            for support_x, support_y, query_x, query_y, metadata in zip(*arrays, self.metadata, strict=True)
        ]

    def tasks_on(self, backend: Backend) -> list[_Task[Any]]:
        """Return the tasks on a backend; for a device, each of the four arrays is moved at once."""
        if on_host(backend):
            return self.tasks([list(np.ascontiguousarray(array)) for array in self.arrays])
        return self.tasks([row_views(backend, backend.asarray(array)) for array in self.arrays])


def on_host(backend: Backend) -> bool:
    """Return whether the backend's arrays are NumPy's."""
    return backend.owns(np.empty(0))


@dataclass(frozen=True)
class _DeviceTasks(Generic[T]):
    """Arrays on the device, and the tasks in them."""

    arrays: Sequence[Array]
    tasks: list[_Task[T]]


class EpisodicLoader(Seeded, ABC, Generic[T]):
    """An `IEpisodicDataLoader` and `IResumable`; a subclass draws tasks in `_draw`.

    All arrays are drawn on the host from one PCG64 stream and then moved to the backend, so the same seed gives the
    same tasks on every backend. Several threads may draw at a time; together they get the tasks that one thread would.
    ``GetTaskBatch(numTasks)`` draws the tasks of as many calls of ``GetNextTask`` and moves all at once: their arrays
    are views of four large ones, which live as long as one of the tasks. For a device, the next batch is drawn and
    moved while the device works on the last one.

    Parameters
    ----------
    NWay, KShot, QueryShots : int
        Classes of a task, and support and query examples of a class; at least 1.
    seed : int or None
        The seed of the random stream; None takes one from the operating system.
    dtype : type
        The NumPy floating scalar type of the inputs.
    backend : str or Backend
        The backend of the tasks' arrays.

    Raises
    ------
    ArgumentOutOfRangeException
        A size is below 1, or the seed is negative.
    ArgumentException
        A size or the seed is no integer, the dtype is not floating, or the backend is unknown.
    """

    __repr__ = concise_repr

    def __init__(
        self, NWay: int, KShot: int, QueryShots: int, *, seed: int | None, dtype: type[Any], backend: str | Backend
    ) -> None:
        self._ways = COUNT.check("NWay", NWay)
        self._shots = COUNT.check("KShot", KShot)
        self._queries = COUNT.check("QueryShots", QueryShots)
        self._dtype = check_dtype(dtype)
        self._backend = get_backend(backend)
        super().__init__(RandomStream(seed))

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy, without tasks that are drawn in advance."""
        return {name: value for name, value in self.__dict__.items() if name != "_prefetcher"}

    @property
    def NWay(self) -> int:
        """The number of classes in a task."""
        return self._ways

    @property
    def KShot(self) -> int:
        """The number of support examples of a class."""
        return self._shots

    @property
    def QueryShots(self) -> int:
        """The number of query examples of a class."""
        return self._queries

    @property
    @abstractmethod
    def AvailableClasses(self) -> int:
        """The number of classes in the data."""

    def GetNextTask(self) -> MetaLearningTask[T, NDArray[Any], NDArray[Any]]:
        """Draw the next task."""
        return self._tasks(1)[0]

    @renamed(n="numTasks")
    def GetTaskBatch(self, numTasks: int) -> TaskBatch[T, NDArray[Any], NDArray[Any]]:
        """Draw the next ``numTasks`` tasks.

        Raises
        ------
        ArgumentOutOfRangeException
            ``numTasks`` is below 1.
        ArgumentException
            ``numTasks`` is no integer.
        """
        return TaskBatch(self._tasks(COUNT.check("numTasks", numTasks)))

    @abstractmethod
    def _draw(self, stream: RandomStream, count: int) -> DrawnTasks:
        """Draw the tasks of ``count`` single draws into new arrays on the host; only the stream changes."""

    def _tasks(self, count: int) -> list[_Task[T]]:
        with self._lock:
            if not on_host(self._backend):
                return self._prefetcher.draw(self._stream, count).tasks
            # The host computes the steps itself, so that a draw in advance would save no time.
            drawn = self._draw(self._stream, count)
        return drawn.tasks_on(self._backend)

    @cached_property
    def _prefetcher(self) -> Prefetcher[_DeviceTasks[T]]:
        def draw(stream: RandomStream, count: int) -> _DeviceTasks[T]:
            return self._move(self._draw(stream, count), lambda arrays: list(map(self._backend.asarray, arrays)))

        return Prefetcher(draw, self._draw_aside)

    def _draw_aside(self, last: _DeviceTasks[T]) -> Callable[[RandomStream, int], _DeviceTasks[T]]:
        """Return a function that draws as many tasks as the last, and moves them while the device works."""
        transfer = self._backend.transfer_aside(last.arrays)

        def draw(stream: RandomStream, count: int) -> _DeviceTasks[T]:
            return self._move(self._draw(stream, count), transfer)

        return draw

    def _move(self, drawn: DrawnTasks, move: Callable[[Sequence[NDArray[Any]]], Sequence[Array]]) -> _DeviceTasks[T]:
        arrays = move(drawn.arrays)
        return _DeviceTasks(arrays, drawn.tasks([row_views(self._backend, array) for array in arrays]))


def check_dtype(dtype: Any) -> np.dtype[Any]:
    """Return the dtype of a NumPy floating scalar type; ArgumentException for anything else."""
    if not (isinstance(dtype, type) and issubclass(dtype, np.floating)):
        raise ArgumentException(refusal("dtype", "a NumPy floating type such as np.float32", dtype))  # pyright: ignore[reportUnknownArgumentType] -- of any type
    kind: np.dtype[Any] = np.dtype(cast(Any, dtype))
    return kind
