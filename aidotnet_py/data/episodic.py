"""What every loader of this package shares: checked sizes, a resumable random stream, batches and the backend."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, SupportsIndex, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.data.random_stream import RandomStream
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException
from aidotnet_py.meta_learning.task_batch import TaskBatch
from aidotnet_py.meta_learning.tasks import MetaLearningTask
from aidotnet_py.type_parameters import T

__all__ = ["EpisodicLoader"]


class EpisodicLoader(ABC, Generic[T]):
    """An `IEpisodicDataLoader` and `IResumable`; a subclass draws one task in `GetNextTask`.

    All arrays are made on the host from one PCG64 stream and handed to the backend, so that the same seed gives the
    same tasks on every backend. ``GetTaskBatch(n)`` draws what ``n`` calls of ``GetNextTask`` would.

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

    @abstractmethod
    def GetNextTask(self) -> MetaLearningTask[T, NDArray[Any], NDArray[Any]]:
        """Draw the next task."""

    def GetTaskBatch(self, n: int) -> TaskBatch[T, NDArray[Any], NDArray[Any]]:
        """Draw the next ``n`` tasks.

        Raises
        ------
        ArgumentOutOfRangeException
            ``n`` is below 1.
        ArgumentException
            ``n`` is no integer.
        """
        return TaskBatch([self.GetNextTask() for _ in range(_positive("n", n))])

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

    def _task(
        self,
        support: tuple[NDArray[Any], NDArray[Any]],
        query: tuple[NDArray[Any], NDArray[Any]],
        name: str,
        metadata: Mapping[str, Any],
    ) -> MetaLearningTask[T, NDArray[Any], NDArray[Any]]:
        move = self._backend.asarray
        return MetaLearningTask(
            SupportSetX=move(support[0]),
            SupportSetY=move(support[1]),
            QuerySetX=move(query[0]),
            QuerySetY=move(query[1]),
            NumWays=self._ways,
            NumShots=self._shots,
            NumQueryPerClass=self._queries,
            Name=name,
            Metadata=metadata,
        )


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
