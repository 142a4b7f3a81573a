"""A batch of tasks: what one step of meta-training works on."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import Enum
from numbers import Integral
from typing import Any, Generic, SupportsIndex, TypeVar, cast, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aidotnet_py.arguments import check_given, refusal
from aidotnet_py.backends import backend_of
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.known_attributes import KnownAttributes
from aidotnet_py.meta_learning.contract import enums
from aidotnet_py.meta_learning.contract.read_only import HoldsReadOnlyArrays
from aidotnet_py.meta_learning.contract.statistics import mean_of
from aidotnet_py.meta_learning.contract.task_checks import check_task, hint_for_batch
from aidotnet_py.meta_learning.contract.task_markup import MOST_TASKS, html_of_batch
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask, describe_task, is_batches, shown_sets
from aidotnet_py.type_parameters import T, T_co, TInput, TInput_co, TOutput, TOutput_co

__all__ = ["TaskBatch"]

E = TypeVar("E", bound=Enum)

# The average of nothing.
_NONE = np.float64(0.0)


class TaskBatch(KnownAttributes, HoldsReadOnlyArrays, Generic[T_co, TInput_co, TOutput_co]):
    """Tasks of one shape, in order, with what is known of their difficulty and kinship.

    A batch does not change, but for the notes of `SetMetadata`. It has a length, is iterated task by task, and is
    indexed as a list is: a number gives a task, a slice a list of tasks.

    Parameters
    ----------
    tasks : iterable of IMetaLearningTask
        At least one task; all agree in ways, shots and queries a class.
    batchingStrategy : BatchingStrategy
        How the tasks were chosen.
    taskDifficulties : (n,) array_like, optional
        A finite number ≥ 0 for each task, higher for harder.
    taskSimilarities : (n, n) array_like, optional
        A finite number for each pair of tasks.
    curriculumStage : CurriculumStage, optional
        The stage it belongs to; ``CurriculumStage.General`` where None.

    Raises
    ------
    ArgumentNullException
        When ``tasks``, or one of them, is None.
    ArgumentException
        When there is no task, one of them is not a task or differs from the others in ways, shots or queries a
        class (the message names it), or when difficulties or similarities do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.meta_learning.contract.task_batch import TaskBatch
    >>> from aidotnet_py.meta_learning.contract.tasks import MetaLearningTask
    >>> x = np.ones((4, 1))
    >>> tasks = [MetaLearningTask(SupportSetX=x, SupportSetY=k * x, Name=f"slope {k}") for k in range(5)]
    >>> batch = TaskBatch(tasks, taskDifficulties=[0.0, 1.0, 2.0, 3.0, 4.0])
    >>> len(batch), batch[-1].Name, float(batch.AverageDifficulty)
    (5, 'slope 4', 2.0)
    >>> [part.BatchSize for part in batch.Split(2)]
    [3, 2]
    """

    @suggests_keywords()
    def __init__(
        self,
        tasks: Iterable[IMetaLearningTask[T_co, TInput_co, TOutput_co]],
        batchingStrategy: enums.BatchingStrategy = enums.BatchingStrategy.Uniform,
        taskDifficulties: ArrayLike | None = None,
        taskSimilarities: ArrayLike | None = None,
        curriculumStage: enums.CurriculumStage | None = None,
    ) -> None:
        self._tasks = _check_tasks(tasks)
        n = len(self._tasks)
        self._strategy = _member("batchingStrategy", batchingStrategy, enums.BatchingStrategy)
        stage = enums.CurriculumStage.General if curriculumStage is None else curriculumStage
        self._stage = _member("curriculumStage", stage, enums.CurriculumStage)
        self._difficulties: NDArray[T_co] | None = _numbers("taskDifficulties", taskDifficulties, (n,))
        if self._difficulties is not None:
            _check_each("taskDifficulties", self._difficulties, self._difficulties >= 0, "at least 0")
        self._similarities: NDArray[T_co] | None = _numbers("taskSimilarities", taskSimilarities, (n, n))
        self._metadata: dict[str, Any] = {}

    @property
    def Tasks(self) -> tuple[IMetaLearningTask[T_co, TInput_co, TOutput_co], ...]:
        """The tasks, in order."""
        return self._tasks

    @property
    def BatchSize(self) -> int:
        """How many tasks there are."""
        return len(self._tasks)

    @property
    def NumWays(self) -> int:
        """How many classes each task has."""
        return self._tasks[0].NumWays

    @property
    def NumShots(self) -> int:
        """How many support examples a class has."""
        return self._tasks[0].NumShots

    @property
    def NumQueryPerClass(self) -> int:
        """How many query examples a class has."""
        return self._tasks[0].NumQueryPerClass

    @property
    def BatchingStrategy(self) -> enums.BatchingStrategy:
        """How the tasks were chosen."""
        return self._strategy

    @property
    def CurriculumStage(self) -> enums.CurriculumStage:
        """The stage of a curriculum that the batch belongs to."""
        return self._stage

    @property
    def TaskDifficulties(self) -> NDArray[T_co] | None:
        """The difficulty of each task, (n,), read-only; None where unknown."""
        return self._difficulties

    @property
    def TaskSimilarities(self) -> NDArray[T_co] | None:
        """The similarity of each pair of tasks, (n, n), read-only; None where unknown."""
        return self._similarities

    @property
    def AverageDifficulty(self) -> T_co:
        """The mean of the difficulties; 0 if they are unknown."""
        return cast(T_co, _NONE if self._difficulties is None else _mean(self._difficulties))

    @property
    def DifficultyVariance(self) -> T_co:
        """The population variance of the difficulties, Σ(dᵢ − d̄)²/n; 0 if they are unknown."""
        if self._difficulties is None:
            return cast(T_co, _NONE)
        with np.errstate(over="ignore"):
            squares = (self._difficulties - mean_of(self._difficulties)) ** 2
        return cast(T_co, _mean(squares, self._difficulties.dtype))

    @property
    def AverageTaskSimilarity(self) -> T_co:
        """The mean of the similarities above the diagonal; 0 if they are unknown, or for a single task."""
        if self._similarities is None or self.BatchSize == 1:
            return cast(T_co, _NONE)
        return cast(T_co, _mean(self._similarities[np.triu_indices(self.BatchSize, k=1)]))

    @property
    def EstimatedMemoryMB(self) -> float:
        """What the support and query arrays of all tasks take, in megabytes of 10⁶ bytes."""
        return sum(_bytes(data) for task in self._tasks for data in _data_of(task)) / 1e6

    def GetMetadata(self, key: str) -> Any:
        """Return the value noted under the key; None where there is none.

        Raises
        ------
        ArgumentNullException
            When the key is None.
        """
        check_given("key", key, "a string")
        return self._metadata.get(key)

    def SetMetadata(self, key: str, value: Any) -> None:
        """Note a value under a key, in place of one noted before.

        Raises
        ------
        ArgumentNullException
            When the key is None.
        """
        check_given("key", key, "a string")
        self._metadata[key] = value

    @suggests_keywords(start="startIndex")
    def GetRange(self, startIndex: int, count: int) -> TaskBatch[T_co, TInput_co, TOutput_co]:
        """Return ``count`` tasks from ``startIndex`` on as a batch, with their difficulties and similarities.

        Strategy and stage stay; the notes of `SetMetadata` are about the whole batch and do not come along.

        Raises
        ------
        ArgumentOutOfRangeException
            When ``startIndex`` is negative, ``count`` is not positive, or the range ends beyond the batch.
        """
        whole = all(isinstance(n, Integral) for n in (startIndex, count))  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
        # Plain ones: sums of NumPy's small integers wrap around.
        first, size = (int(startIndex), int(count)) if whole else (-1, 0)
        if first < 0 or size < 1 or first + size > self.BatchSize:
            raise ArgumentOutOfRangeException(
                f"startIndex and count must be of at least one task within the {self.BatchSize} of the batch, got "
                f"startIndex {startIndex} and count {count}"
            )
        part = slice(first, first + size)
        return TaskBatch(
            self._tasks[part],
            self._strategy,
            None if self._difficulties is None else self._difficulties[part],
            None if self._similarities is None else self._similarities[part, part],
            self._stage,
        )

    @suggests_keywords(n="numSubBatches")
    def Split(self, numSubBatches: int) -> list[TaskBatch[T_co, TInput_co, TOutput_co]]:
        """Return ``numSubBatches`` batches that together hold the tasks in order; their sizes differ by at most one.

        Raises
        ------
        ArgumentOutOfRangeException
            When ``numSubBatches`` is not between 1 and `BatchSize`.
        """
        n = numSubBatches
        if not isinstance(n, Integral) or not 1 <= n <= self.BatchSize:  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
            raise ArgumentOutOfRangeException(
                f"numSubBatches must be from 1 to the batch size, {self.BatchSize}, got {n}"
            )
        size, longer = divmod(self.BatchSize, int(n))
        return [self.GetRange(i * size + min(i, longer), size + (i < longer)) for i in range(n)]

    @overload
    def __getitem__(self, index: SupportsIndex) -> IMetaLearningTask[T_co, TInput_co, TOutput_co]: ...
    @overload
    def __getitem__(self, index: slice) -> list[IMetaLearningTask[T_co, TInput_co, TOutput_co]]: ...
    def __getitem__(
        self, index: SupportsIndex | slice
    ) -> IMetaLearningTask[T_co, TInput_co, TOutput_co] | list[IMetaLearningTask[T_co, TInput_co, TOutput_co]]:
        return list(self._tasks[index]) if isinstance(index, slice) else self._tasks[index]

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[IMetaLearningTask[T_co, TInput_co, TOutput_co]]:
        return iter(self._tasks)

    def _repr_html_(self) -> str:
        left_out = self.BatchSize - MOST_TASKS
        note = describe_task(self._tasks[0]) + (f"; {left_out} more tasks" if left_out > 0 else "")
        return html_of_batch(f"TaskBatch of {self.BatchSize}", list(map(shown_sets, self._tasks[:MOST_TASKS])), note)

    def __repr__(self) -> str:
        return f"<TaskBatch of {self.BatchSize}: {describe_task(self._tasks[0])}>"


def _check_tasks(
    tasks: Iterable[IMetaLearningTask[T, TInput, TOutput]],
) -> tuple[IMetaLearningTask[T, TInput, TOutput], ...]:
    check_given("tasks", tasks, "a sequence of tasks")
    try:
        members = tuple(tasks)
    except TypeError:
        raise ArgumentException(refusal("tasks", "a sequence of tasks", tasks) + hint_for_batch(tasks)) from None
    if not members:
        raise ArgumentException("tasks must hold at least one task, got none")
    for index, task in enumerate(members):
        check_task(task, f"tasks[{index}]")
    _check_agreement(members)
    return members


def _check_agreement(tasks: tuple[IMetaLearningTask[Any, Any, Any], ...]) -> None:
    configurations = [_configuration(task) for task in tasks]
    usual = Counter(configurations).most_common(1)[0][0]
    for index, (task, own) in enumerate(zip(tasks, configurations, strict=True)):
        if own != usual:
            name = "" if task.Name is None else f"Name {task.Name!r}, "
            raise ArgumentException(
                f"tasks[{index}] ({name}TaskId {task.TaskId!r}) must have {_describe(usual)} like the others "
                f"of the batch, got {_describe(own)}"
            )


def _configuration(task: IMetaLearningTask[Any, Any, Any]) -> tuple[int, int, int]:
    return task.NumWays, task.NumShots, task.NumQueryPerClass


def _describe(configuration: tuple[int, int, int]) -> str:
    ways, shots, queries = configuration
    return f"NumWays {ways}, NumShots {shots} and NumQueryPerClass {queries}"


def _member(name: str, value: E, kind: type[E]) -> E:
    if not isinstance(value, kind):
        near = [member for member in kind if str(member.value).lower() == str(value).lower()]
        hint = f"; use {near[0]}" if near else ""
        raise ArgumentException(refusal(name, f"a {kind.__name__}", value) + hint)
    return value


def _numbers(name: str, values: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[Any] | None:
    """Return a read-only copy in the floating dtype it came in, or float64 for integers."""
    if values is None:
        return None
    try:
        array = np.array(values)
    except (TypeError, ValueError):
        raise ArgumentException(refusal(name, f"an array of shape {shape}", values)) from None
    if array.shape != shape:
        raise ArgumentException(f"{name} must have shape {shape} for {shape[0]} tasks, got {array.shape}")
    if array.dtype.kind in "iu":
        array = array.astype(np.float64)
    if array.dtype.kind != "f":
        raise ArgumentException(f"{name} must hold real numbers, got dtype {array.dtype}")
    _check_each(name, array, np.isfinite(array), "finite")
    array.flags.writeable = False
    return array


def _mean(values: NDArray[Any], dtype: np.dtype[Any] | None = None) -> Any:
    """Return the mean, infinite where the dtype, which is that of the values by default, has none so large."""
    with np.errstate(over="ignore"):
        return (dtype or values.dtype).type(mean_of(values))


def _check_each(name: str, array: NDArray[Any], good: NDArray[np.bool], wanted: str) -> None:
    bad = np.argwhere(~good).tolist()
    if bad:
        raise ArgumentException(f"{name}{bad[0]} must be {wanted}, got {array[tuple(bad[0])]}")


def _data_of(task: IMetaLearningTask[Any, Any, Any]) -> tuple[Any, ...]:
    data = (task.SupportInput, task.SupportOutput, task.QueryInput, task.QueryOutput)
    return tuple(array for array in data if array is not None)


def _bytes(data: Any) -> int:
    if is_batches(data):
        return sum(map(_bytes, data))
    backend = backend_of(data)
    if backend is None:
        return int(getattr(data, "nbytes", sys.getsizeof(data)))
    return int(math.prod(data.shape)) * backend.dtype_of(data).itemsize
