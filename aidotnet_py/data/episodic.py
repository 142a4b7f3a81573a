"""The base of all loaders: sizes, a resumable random stream, batches and the backend."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import COUNT, Choice, refusal
from aidotnet_py.backends import Array, Backend, get_backend
from aidotnet_py.data.drawn_tasks import DrawnTasks, on_host
from aidotnet_py.data.prefetch import Prefetcher
from aidotnet_py.data.random_stream import RandomStream, Seeded
from aidotnet_py.data.transforms import SETS, Transform
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.locks import Lock
from aidotnet_py.meta_learning.contract.task_batch import TaskBatch
from aidotnet_py.meta_learning.contract.tasks import MetaLearningTask
from aidotnet_py.representations import concise_repr
from aidotnet_py.type_parameters import T

__all__ = ["DTYPE_NAME", "EpisodicLoader", "check_dtype"]

# As models have them.
_TYPES = (np.float16, np.float32, np.float64)
# As settings have them, which are files' and may hold anything.
DTYPE_NAME = Choice(*(kind.__name__ for kind in _TYPES))

_Task: TypeAlias = MetaLearningTask[T, NDArray[Any], NDArray[Any]]


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

    _transforms: tuple[Transform, ...] = ()
    # Whether the next batch is drawn in advance for a device: its memory is set aside before, so sizes must be known.
    _draws_ahead = True

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

    @suggests_keywords(n="numTasks")
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

    def with_transform(
        self,
        function: Callable[[NDArray[Any], np.random.Generator], NDArray[Any]],
        sets: Literal["support", "query", "both"] = "both",
    ) -> Self:
        """Return a loader of the same tasks whose inputs go through a function: a transform or an augmentation.

        The function is called once for each set of each task, on the host, with the inputs (examples, …), which it may
        write into, and the loader's random generator. What it draws belongs to the loader's state: a seed gives the
        same tasks on every backend, and a saved position goes on with them. Functions of several calls apply one after
        the other; `split` keeps them. This loader stays as it is, and the new one starts at its position.

        Parameters
        ----------
        function : callable
            Takes inputs and a ``Generator``, and returns inputs of as many examples.
        sets : {"support", "query", "both"}
            The sets that it is for.

        Raises
        ------
        ArgumentException
            ``function`` cannot be called, or ``sets`` is none of these. A draw raises InvalidOperationException if the
            function returns something else than as many finite inputs; the loader keeps its position then.

        Examples
        --------
        >>> from aidotnet_py.data import DigitsLoader, RandomShift
        >>> digits = DigitsLoader(NWay=2, KShot=1, QueryShots=3, seed=0)
        >>> shifted = digits.with_transform(RandomShift(1), sets="support").with_transform(lambda x, rng: 1 - x)
        >>> bool((shifted.GetNextTask().QueryInput == 1 - digits.GetNextTask().QueryInput).all())
        True
        """
        if not callable(function):
            raise ArgumentException(refusal("function", "a function of inputs and a generator", function))
        transform = Transform(function, SETS.check("sets", sets))
        changed = copy.copy(self)
        changed._transforms = (*self._transforms, transform)
        changed._lock = Lock()
        with self._lock:
            changed._stream = copy.deepcopy(self._stream)
        return changed

    @abstractmethod
    def _draw(self, stream: RandomStream, count: int) -> DrawnTasks:
        """Draw the tasks of ``count`` single draws into new arrays on the host; only the stream changes."""

    def _tasks(self, count: int) -> list[_Task[T]]:
        with self._lock:
            if self._draws_ahead and not on_host(self._backend):
                return self._prefetcher.draw(self._stream, count).tasks
            # The host computes the steps itself, so that a draw in advance would save no time.
            drawn = self._draw_transformed(self._stream, count)
        return drawn.tasks_on(self._backend)

    def _draw_transformed(self, stream: RandomStream, count: int) -> DrawnTasks:
        if not self._transforms:
            return self._draw(stream, count)
        begin = stream.state()
        try:
            return DrawnTasks.join([self._draw_one_transformed(stream) for _ in range(count)])
        except BaseException:
            # A function of others may fail; a task of which half is drawn would move the next one.
            stream.restore(begin)
            raise

    def _draw_one_transformed(self, stream: RandomStream) -> DrawnTasks:
        drawn = self._draw(stream, 1)
        for transform in self._transforms:
            drawn = transform.apply(drawn, stream.generator, self._dtype)
        return drawn

    @cached_property
    def _prefetcher(self) -> Prefetcher[_DeviceTasks[T]]:
        def draw(stream: RandomStream, count: int) -> _DeviceTasks[T]:
            return self._move(
                self._draw_transformed(stream, count), lambda arrays: list(map(self._backend.asarray, arrays))
            )

        return Prefetcher(draw, self._draw_aside)

    def _draw_aside(self, last: _DeviceTasks[T]) -> Callable[[RandomStream, int], _DeviceTasks[T]]:
        """Return a function that draws as many tasks as the last, and moves them while the device works."""
        transfer = self._backend.transfer_aside(last.arrays)

        def draw(stream: RandomStream, count: int) -> _DeviceTasks[T]:
            return self._move(self._draw_transformed(stream, count), transfer)

        return draw

    def _move(self, drawn: DrawnTasks, move: Callable[[Sequence[NDArray[Any]]], Sequence[Array]]) -> _DeviceTasks[T]:
        arrays = move(drawn.arrays)
        return _DeviceTasks(arrays, drawn.tasks(self._backend, arrays))


def _hint(dtype: Any) -> str:
    """Return the end of the message for a type that is told in another way, or that is too wide for models."""
    if dtype is np.longdouble:
        return "; models have at most np.float64"
    try:
        kind = np.dtype(dtype).type
    except TypeError:
        return ""
    return f"; use np.{kind.__name__}" if kind in _TYPES else ""


def check_dtype(dtype: Any) -> np.dtype[Any]:
    """Return the dtype of a NumPy floating scalar type that models have too; ArgumentException for anything else."""
    # By identity: a dtype equals its type.
    if not any(dtype is kind for kind in _TYPES):
        raise ArgumentException(refusal("dtype", "a NumPy floating type such as np.float32", dtype) + _hint(dtype))
    kind: np.dtype[Any] = np.dtype(dtype)
    return kind
