"""Few-shot tasks: the protocol that learners read, its abstract base and the task that holds its data."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, SupportsIndex, cast, runtime_checkable
from uuid import uuid4

from aidotnet_py.arguments import check_given, refusal
from aidotnet_py.backends import Backend, adopt, backend_of
from aidotnet_py.exceptions import (
    ArgumentException,
    ArgumentNullException,
    ArgumentOutOfRangeException,
    InvalidOperationException,
)
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.known_attributes import KnownAttributes
from aidotnet_py.meta_learning.contract.task_markup import ShownSets, html_of_task
from aidotnet_py.type_parameters import T, T_co, TInput, TInput_co, TOutput, TOutput_co

__all__ = [
    "IMetaLearningTask",
    "MetaLearningTask",
    "MetaLearningTaskBase",
    "all_examples",
    "describe_task",
    "first_batch",
    "columns_of",
    "is_batches",
    "set_names",
    "shown_sets",
]


@runtime_checkable
class IMetaLearningTask(Protocol[T_co, TInput_co, TOutput_co]):
    """A task as learners see it: a support set to adapt on and a query set to be judged on.

    The first axis of every array counts examples. A support set may come in batches, as two lists of arrays, of which
    each inner step looks at the next; it is typed as if it were one array, as almost every task's is. ``QueryInput``
    and ``QueryOutput`` are None for a task that is only adapted to; they are typed as if they were always there, as in
    AiDotNet, since every other use needs them. ``SupportSetX``, ``SupportSetY``, ``QuerySetX`` and ``QuerySetY`` are
    the same four again.
    """

    @property
    def SupportInput(self) -> TInput_co:
        """The inputs to adapt on, (support examples, …)."""
        ...

    @property
    def SupportOutput(self) -> TOutput_co:
        """The targets of ``SupportInput``, (support examples, …)."""
        ...

    @property
    def QueryInput(self) -> TInput_co:
        """The inputs to be judged on, (query examples, …), or None."""
        ...

    @property
    def QueryOutput(self) -> TOutput_co:
        """The targets of ``QueryInput``, (query examples, …), or None."""
        ...

    @property
    def SupportSetX(self) -> TInput_co:
        """``SupportInput``."""
        ...

    @property
    def SupportSetY(self) -> TOutput_co:
        """``SupportOutput``."""
        ...

    @property
    def QuerySetX(self) -> TInput_co:
        """``QueryInput``."""
        ...

    @property
    def QuerySetY(self) -> TOutput_co:
        """``QueryOutput``."""
        ...

    @property
    def Name(self) -> str | None:
        """What people call the task, or None."""
        ...

    @property
    def Metadata(self) -> Mapping[str, Any]:
        """Whatever else is known of the task."""
        ...

    @property
    def NumWays(self) -> int:
        """How many classes the task has."""
        ...

    @property
    def NumShots(self) -> int:
        """How many support examples a class has."""
        ...

    @property
    def NumQueryPerClass(self) -> int:
        """How many query examples a class has."""
        ...

    @property
    def TaskId(self) -> int | str:
        """What tells the task from every other one."""
        ...


class MetaLearningTaskBase(KnownAttributes, IMetaLearningTask[T, TInput, TOutput], ABC):
    """All of a task but its data: a subclass says where the four arrays come from.

    Parameters
    ----------
    NumWays, NumShots, NumQueryPerClass : int
        Classes, support examples a class and query examples a class. They describe the task; the arrays are not
        held to them, so a regression task over ten points may leave them alone or say ``NumWays=1, NumShots=10``.
    Name : str, optional
        What people call the task.
    Metadata : mapping, optional
        Whatever else is known of it; copied.
    TaskId : int or str, optional
        What tells it from every other task; a random identifier where None, drawn from the operating system so
        that no seeded generator moves.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.meta_learning.contract.tasks import MetaLearningTaskBase
    >>> class Line(MetaLearningTaskBase):
    ...     SupportInput = property(lambda self: np.linspace(-1.0, 1.0, 5)[:, None])
    ...     SupportOutput = property(lambda self: 2.0 * self.SupportInput)
    ...     QueryInput = QueryOutput = property(lambda self: None)
    >>> line = Line(NumWays=1, NumShots=5, Name="y = 2x")
    >>> line.Validate()
    >>> line.SetMetadata("slope", 2.0)
    >>> line.TryGetMetadata("slope")
    (True, 2.0)
    """

    def __init__(
        self,
        *,
        NumWays: SupportsIndex = 5,
        NumShots: SupportsIndex = 1,
        NumQueryPerClass: SupportsIndex = 15,
        Name: str | None = None,
        Metadata: Mapping[str, Any] | None = None,
        TaskId: int | str | None = None,
    ) -> None:
        self._ways = _integer("NumWays", NumWays)
        self._shots = _integer("NumShots", NumShots)
        self._queries = _integer("NumQueryPerClass", NumQueryPerClass)
        self._name = Name
        self._metadata = {} if Metadata is None else _notes(Metadata)
        self._id = uuid4().hex if TaskId is None else TaskId

    @property
    @abstractmethod
    def SupportInput(self) -> TInput:
        """The inputs to adapt on, (support examples, …)."""

    @property
    @abstractmethod
    def SupportOutput(self) -> TOutput:
        """The targets of ``SupportInput``, (support examples, …)."""

    @property
    @abstractmethod
    def QueryInput(self) -> TInput:
        """The inputs to be judged on, (query examples, …), or None."""

    @property
    @abstractmethod
    def QueryOutput(self) -> TOutput:
        """The targets of ``QueryInput``, (query examples, …), or None."""

    @property
    def SupportSetX(self) -> TInput:
        """``SupportInput``."""
        return self.SupportInput

    @property
    def SupportSetY(self) -> TOutput:
        """``SupportOutput``."""
        return self.SupportOutput

    @property
    def QuerySetX(self) -> TInput:
        """``QueryInput``."""
        return self.QueryInput

    @property
    def QuerySetY(self) -> TOutput:
        """``QueryOutput``."""
        return self.QueryOutput

    @property
    def Name(self) -> str | None:
        """What people call the task, or None."""
        return self._name

    @property
    def Metadata(self) -> Mapping[str, Any]:
        """Whatever else is known of the task; written with `SetMetadata`."""
        return self._metadata

    @property
    def NumWays(self) -> int:
        """How many classes the task has."""
        return self._ways

    @property
    def NumShots(self) -> int:
        """How many support examples a class has."""
        return self._shots

    @property
    def NumQueryPerClass(self) -> int:
        """How many query examples a class has."""
        return self._queries

    @property
    def TaskId(self) -> int | str:
        """What tells the task from every other one."""
        return self._id

    def SetMetadata(self, key: str, value: Any) -> None:
        """Note a value under a key, in place of one noted before.

        Raises
        ------
        ArgumentNullException
            When the key is None.
        """
        check_given("key", key, "a string")
        self._metadata[key] = value

    def TryGetMetadata(self, key: str) -> tuple[bool, Any]:
        """Return whether a value was noted under the key, and the value (None where there is none).

        Raises
        ------
        ArgumentNullException
            When the key is None.
        """
        check_given("key", key, "a string")
        return key in self._metadata, self._metadata.get(key)

    def Validate(self) -> None:
        """Check that the task can be learned: support data of equal lengths, and query data whole or absent.

        Raises
        ------
        InvalidOperationException
            When support inputs or targets are missing, or only one half of the query set is there.
        ArgumentOutOfRangeException
            When ways, shots or queries a class are not positive.
        ArgumentException
            When a set is empty, or its inputs and targets differ in length; the message shows the shapes.
        """
        for name, count in (
            ("NumWays", self.NumWays),
            ("NumShots", self.NumShots),
            ("NumQueryPerClass", self.NumQueryPerClass),
        ):
            if count <= 0:
                raise ArgumentOutOfRangeException(f"{name} must be at least 1, got {count}")
        x, y = self.SupportInput, self.SupportOutput
        x_name, y_name = set_names(self, "Support")
        if is_batches(x) or is_batches(y):
            _check_batches(x_name, x, y_name, y)
        else:
            _check_set(x_name, x, y_name, y)
        if self.QueryInput is not None or self.QueryOutput is not None:
            x_name, y_name = set_names(self, "Query")
            _check_set(x_name, self.QueryInput, y_name, self.QueryOutput)

    def _repr_html_(self) -> str:
        return html_of_task(f"{type(self).__name__} {self.Name or self.TaskId}", shown_sets(self), describe_task(self))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.Name or self.TaskId!r}: {describe_task(self)}>"


class MetaLearningTask(MetaLearningTaskBase[T, TInput, TOutput]):
    """A task that holds its arrays.

    Parameters
    ----------
    SupportSetX, SupportSetY : array, or list of array
        Inputs and targets to adapt on, (support examples, …) each. Neither copied nor converted; tensors of PyTorch,
        arrays of JAX and whatever else has DLPack are read as arrays of NumPy or CuPy over the same memory. Lists are
        batches, which inner steps look at one after another, and again from the first when they are through.
    QuerySetX, QuerySetY : array, optional
        Inputs and targets to be judged on, (query examples, …) each; both or neither. `Adapt` does not read them.
    NumWays, NumShots, NumQueryPerClass, Name, Metadata, TaskId
        As for `MetaLearningTaskBase`.

    Raises
    ------
    ArgumentNullException
        When support inputs or targets are None, or one half of the query set.
    ArgumentException
        As `Validate`, which the constructor calls; when a tensor requires gradients, or no backend has its device.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.meta_learning.contract.tasks import MetaLearningTask
    >>> x = np.linspace(-1.0, 1.0, 6)[:, None]
    >>> task = MetaLearningTask(SupportSetX=x[::2], SupportSetY=x[::2] ** 2, NumWays=1, NumShots=3, Name="square")
    >>> task
    <MetaLearningTask 'square': support (3, 1) → (3, 1)>
    >>> task.SupportInput is task.SupportSetX
    True
    >>> MetaLearningTask(SupportSetX=x, SupportSetY=x[:4])
    Traceback (most recent call last):
    ...
    aidotnet_py.exceptions.ArgumentException: SupportSetX and SupportSetY must have first axes of one length, ...
    """

    @suggests_keywords(
        SupportInput="SupportSetX", SupportOutput="SupportSetY", QueryInput="QuerySetX", QueryOutput="QuerySetY"
    )
    def __init__(
        self,
        *,
        SupportSetX: TInput | Sequence[TInput],
        SupportSetY: TOutput | Sequence[TOutput],
        QuerySetX: TInput | None = None,
        QuerySetY: TOutput | None = None,
        NumWays: SupportsIndex = 5,
        NumShots: SupportsIndex = 1,
        NumQueryPerClass: SupportsIndex = 15,
        Name: str | None = None,
        Metadata: Mapping[str, Any] | None = None,
        TaskId: int | str | None = None,
    ) -> None:
        super().__init__(
            NumWays=NumWays,
            NumShots=NumShots,
            NumQueryPerClass=NumQueryPerClass,
            Name=Name,
            Metadata=Metadata,
            TaskId=TaskId,
        )
        query = {"QuerySetX": QuerySetX, "QuerySetY": QuerySetY}
        for name, value in {"SupportSetX": SupportSetX, "SupportSetY": SupportSetY, **query}.items():
            if value is None and (name not in query or any(other is not None for other in query.values())):
                raise ArgumentNullException(refusal(name, "an array", value))
        # As they are typed for learners; see `IMetaLearningTask`.
        self._support_input = cast(TInput, _adopt_set(SupportSetX, "SupportSetX"))
        self._support_output = cast(TOutput, _adopt_set(SupportSetY, "SupportSetY"))
        self._query_input = cast(TInput, _adopt_set(QuerySetX, "QuerySetX"))
        self._query_output = cast(TOutput, _adopt_set(QuerySetY, "QuerySetY"))
        self.Validate()

    @property
    def SupportInput(self) -> TInput:
        """The inputs to adapt on, (support examples, …)."""
        return self._support_input

    @property
    def SupportOutput(self) -> TOutput:
        """The targets of ``SupportInput``, (support examples, …)."""
        return self._support_output

    @property
    def QueryInput(self) -> TInput:
        """The inputs to be judged on, (query examples, …), or None."""
        return self._query_input

    @property
    def QueryOutput(self) -> TOutput:
        """The targets of ``QueryInput``, (query examples, …), or None."""
        return self._query_output


# Arguments and properties by role. Constants: Python's attribute cache would keep each string that a call builds.
_NAMES = {
    "Support": (("SupportSetX", "SupportSetY"), ("SupportInput", "SupportOutput")),
    "Query": (("QuerySetX", "QuerySetY"), ("QueryInput", "QueryOutput")),
}


def set_names(task: object, role: str) -> tuple[str, str]:
    """Return the names by which a task got its "Support" or "Query" set: arguments, or properties of its class."""
    arguments, properties = _NAMES[role]
    return arguments if isinstance(task, MetaLearningTask) else properties


def columns_of(tasks: Sequence[IMetaLearningTask[Any, Any, Any]], role: str) -> tuple[list[Any], list[Any]]:
    """Return the inputs and the outputs of all tasks' "Support" or "Query" sets."""
    x, y = map(operator.attrgetter, _NAMES[role][1])
    return list(map(x, tasks)), list(map(y, tasks))


def note_of(task: IMetaLearningTask[Any, Any, Any], name: str) -> Any:
    """Return an entry of a task's metadata; None where it has none, or anything but a mapping for these."""
    notes: Any = task.Metadata
    # A dict first: to ask for a protocol takes long, and every step asks each task.
    return notes.get(name) if isinstance(notes, (dict, Mapping)) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # of anything


def name_in_batch(task: IMetaLearningTask[Any, Any, Any], place: int) -> str:
    """Return what messages call a task: its place in the batch, and its name or else its TaskId."""
    return f"task {place} ({task.Name or task.TaskId})"


def describe_task(task: IMetaLearningTask[Any, Any, Any]) -> str:
    """Return ways and shots of a task of classes, and the shapes of its sets."""
    sets = f"support {_describe(task.SupportInput)} → {_describe(task.SupportOutput)}"
    if task.QueryInput is not None:
        sets += f", query {_describe(task.QueryInput)} → {_describe(task.QueryOutput)}"
    return f"{task.NumWays}-way {task.NumShots}-shot, {sets}" if _has_classes(task) else sets


def shown_sets(task: IMetaLearningTask[Any, Any, Any]) -> ShownSets:
    """Return the support and the query set for a notebook; of batches, the first."""
    sets = {"support": (first_batch(task.SupportInput), first_batch(task.SupportOutput))}
    if task.QueryInput is not None:
        sets["query"] = (first_batch(task.QueryInput), first_batch(task.QueryOutput))
    return ShownSets(sets, note_of(task, "Ink") is True)


def _has_classes(task: IMetaLearningTask[Any, Any, Any]) -> bool:
    """Whether the type of a task's targets is that of classes: indices, or a row of as many numbers as ways."""
    targets = first_batch(task.SupportOutput)
    backend = backend_of(targets)
    if backend is None:
        return not isinstance(next(iter(targets), None), float)
    if backend.dtype_of(targets).kind != "f":
        return True
    return len(targets.shape) > 1 and 1 < task.NumWays == targets.shape[-1]


def _notes(given: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return dict(given)
    except (TypeError, ValueError):
        raise ArgumentException(refusal("Metadata", "a mapping", given)) from None


def _integer(name: str, value: SupportsIndex) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise ArgumentException(refusal(name, "a whole number", value)) from None


def _adopt_set(data: Any, name: str) -> Any:
    """Return a set, or each of its batches, as arrays of a backend if another library's have DLPack."""
    if not isinstance(data, (list, tuple)):
        return adopt(data, name)
    batches: list[Any] = [adopt(batch, f"{name}[{i}]") for i, batch in enumerate(cast("Sequence[Any]", data))]
    # The caller's own list, unless a batch is another library's.
    return data if all(map(operator.is_, batches, cast("Sequence[Any]", data))) else batches  # pyright: ignore[reportUnknownVariableType] -- of anything


def is_batches(data: object) -> bool:
    """Whether a support set comes as a list of arrays, one a batch."""
    # Arrays first: they are by far the most, and asking a library about each is what takes time.
    return (
        isinstance(data, (list, tuple))
        and len(data) > 0  # pyright: ignore[reportUnknownArgumentType] -- of anything
        and all(backend_of(batch) is not None for batch in data)  # pyright: ignore[reportUnknownVariableType]
    )


def first_batch(data: Any) -> Any:
    """Return a set that comes as one array, or the first of its batches."""
    return data[0] if is_batches(data) else data


def all_examples(backend: Backend, data: Any) -> Any:
    """Return the examples of a set in one array, whether it comes in batches or not."""
    return backend.concat(data, 0) if is_batches(data) else data


def _check_batches(x_name: str, x: Any, y_name: str, y: Any) -> None:
    if not (is_batches(x) and is_batches(y) and len(x) == len(y)):
        raise ArgumentException(
            f"{x_name} and {y_name} must be lists of one length for a set in batches, got {_describe(x)} and "
            f"{_describe(y)}; put several inputs of an example side by side in one array"
        )
    for i, (x_batch, y_batch) in enumerate(zip(x, y, strict=True)):
        _check_set(f"{x_name}[{i}]", x_batch, f"{y_name}[{i}]", y_batch)


def _check_set(x_name: str, x: object, y_name: str, y: object) -> None:
    for name, value in ((x_name, x), (y_name, y)):
        if value is None:
            raise InvalidOperationException(refusal(name, "an array", value))
    lengths = _length(x_name, x), _length(y_name, y)
    if lengths[0] != lengths[1]:
        raise ArgumentException(
            f"{x_name} and {y_name} must have first axes of one length, one entry an example, got shapes "
            f"{_describe(x)} and {_describe(y)}{_length_hint(x_name, x, lengths[1])}"
        )
    if lengths[0] == 0:
        raise ArgumentException(f"{x_name} must hold at least one example, got shape {_describe(x)}")


def _length_hint(name: str, data: Any, length: int) -> str:
    """Return the end of a message for a table whose columns are the examples."""
    shape: Any = getattr(data, "shape", ())
    return f"; use {name}.T" if len(shape) == 2 and shape[1] == length else ""


def _length(name: str, data: Any) -> int:
    shape = getattr(data, "shape", None)
    if isinstance(data, Mapping):
        wanted = "an array whose first axis counts the examples"
        raise ArgumentException(
            refusal(name, wanted, cast(object, data)) + "; put the inputs side by side in one array"
        )
    try:
        return int(len(data) if shape is None else shape[0])
    except (IndexError, TypeError):
        raise ArgumentException(refusal(name, "an array whose first axis counts the examples", data)) from None


def _describe(data: Any) -> str:
    if is_batches(data):
        return f"[{', '.join(_describe(batch) for batch in data)}]"
    shape = getattr(data, "shape", None)
    return f"({len(data)}, …)" if shape is None else str(tuple(shape))
