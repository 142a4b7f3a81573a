"""Whether tasks fit a model and a loss: checked whole before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

import numpy as np

from aidotnet_py.autodiff.extend import ArrayType, Tracer, new_trace
from aidotnet_py.backends import Array, backend_of
from aidotnet_py.exceptions import ArgumentException, ArgumentNullException
from aidotnet_py.losses import ILossFunction, validate_alike
from aidotnet_py.meta_learning.contract.protocols import is_differentiable, missing_members
from aidotnet_py.meta_learning.contract.task_batch import TaskBatch
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask, is_batches
from aidotnet_py.models import IDifferentiableModel, IFullModel
from aidotnet_py.models.interfaces import parameter_dtype
from aidotnet_py.nn.statistics import PassStatistics, Statistics
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = [
    "Shape",
    "TracedOutput",
    "check_batches",
    "check_task",
    "check_tasks",
    "names_of_places",
    "places_by_size",
    "sets_of",
    "require_no_more_batches",
    "traced_output",
]

Shape = tuple[int, ...]

# What all arrays of a set must share: shape, dtype and the backend's name.
_Kind = tuple[Shape, np.dtype[Any], str]

# By role; written out, because Python's attribute cache keeps every string made anew to ask for an attribute.
_NAMES = {"Support": ("SupportInput", "SupportOutput"), "Query": ("QueryInput", "QueryOutput")}


def check_task(task: IMetaLearningTask[T, TInput, TOutput] | None) -> IMetaLearningTask[T, TInput, TOutput]:
    """The task, once it is one."""
    if task is None:
        raise ArgumentNullException("task is None; a task is wanted")
    missing = missing_members(task, IMetaLearningTask)
    if missing:
        raise ArgumentException(
            f"task is a {type(task).__name__}, which lacks {', '.join(missing)} of IMetaLearningTask"
        )
    return task


def check_tasks(batch: TaskBatch[T, TInput, TOutput] | None) -> list[IMetaLearningTask[T, TInput, TOutput]]:
    """The tasks of a batch, once it is one."""
    if not isinstance(batch, TaskBatch):
        came = "None" if batch is None else f"a {type(batch).__name__}"
        raise ArgumentException(f"taskBatch is {came}; a TaskBatch is wanted")
    return list(batch)


def check_batches(
    role: str,
    tasks: Sequence[IMetaLearningTask[Any, Any, Any]],
    wheres: Sequence[str],
    model: IFullModel[Any, Any, Any],
    loss: ILossFunction[Any],
    shape_of: Callable[[IDifferentiableModel[Any, Any, Any], Array], Shape],
) -> list[tuple[list[Array], list[Array]]]:
    """The inputs and outputs of the tasks' sets of that role ("Support" or "Query"), in the order of the tasks.

    Once for each batch that the support sets come in, which is one where they are arrays. ``wheres`` name the tasks in
    messages; ``shape_of`` gives the shape of the model's output for an input, see `traced_output`.

    Raises
    ------
    ArgumentException
        When one is missing, empty, of another shape, dtype or backend than the others or the model want, or holds
        targets that the loss cannot take; when tasks come in different numbers of batches.
    """
    names = _NAMES[role]
    data = [sets_of(task, role) for task in tasks]
    if role == "Query" or not any(is_batches(x) or is_batches(y) for x, y in data):
        return [_checked_sets(names, wheres, data, model, loss, shape_of)]
    count = _count_of_batches(names, wheres, data)
    return [
        _checked_sets(
            (f"{names[0]}[{i}]", f"{names[1]}[{i}]"), wheres, [(x[i], y[i]) for x, y in data], model, loss, shape_of
        )
        for i in range(count)
    ]


def require_no_more_batches(task: IMetaLearningTask[Any, Any, Any], place: int, steps: int) -> None:
    """Raise ArgumentException when a support set has batches that no inner step would come to."""
    data = task.SupportInput
    if is_batches(data) and len(data) > steps:
        raise ArgumentException(
            f"SupportInput of task {place} is a list of {len(data)} batches, and there are {steps} inner steps "
            "(AdaptationSteps), one a batch; at most as many batches as steps are wanted"
        )


@lru_cache(maxsize=16)
def names_of_places(count: int) -> tuple[str, ...]:
    """Return the words that name each of so many tasks in a message."""
    return tuple(f" of task {place}" for place in range(count)) if count > 1 else ("",)


def sets_of(task: IMetaLearningTask[Any, Any, Any], role: str) -> tuple[Any, Any]:
    """Return the inputs and outputs of a task's set."""
    x, y = _NAMES[role]
    return getattr(task, x), getattr(task, y)


def places_by_size(tasks: Sequence[IMetaLearningTask[Any, Any, Any]], roles: Sequence[str]) -> list[Sequence[int]]:
    """Return the places of the tasks whose sets have the same numbers of examples, group by group."""
    names = [name for role in roles for name in _NAMES[role]]
    sizes = [tuple([_size(getattr(task, name)) for name in names]) for task in tasks]
    if sizes.count(sizes[0]) == len(sizes):
        return [range(len(tasks))]
    groups: dict[Any, list[int]] = {}
    for place, size in enumerate(sizes):
        groups.setdefault(size, []).append(place)
    return list(groups.values())


def _size(data: Any) -> Any:
    """Return the number of examples of an array, the numbers of a list of batches; None for anything else."""
    shape = getattr(data, "shape", None)
    if isinstance(shape, tuple):
        return cast("Shape", shape)[:1]
    return tuple(map(_size, data)) if is_batches(data) else None


def _count_of_batches(names: tuple[str, str], wheres: Sequence[str], data: Sequence[tuple[Any, Any]]) -> int:
    """How many batches each task has, once all have as many."""
    first: list[int | None] = []
    for where, (x, y) in zip(wheres, data, strict=True):
        lengths = [len(value) if is_batches(value) else None for value in (x, y)]
        first = first or lengths
        if lengths[0] is None or lengths != [first[0]] * 2:
            came, others = (
                " and ".join(
                    f"{name}{of} {'one array' if n is None else f'a list of {n}'}"
                    for name, n in zip(names, found, strict=True)
                )
                for found, of in ((lengths, where + " is"), (first, wheres[0] + " is"))
            )
            more = "" if lengths is first else f", and {others}"
            raise ArgumentException(f"{came}{more}; lists of as many batches, the same for every task, are wanted")
    return first[0] or 0


def _checked_sets(
    names: tuple[str, str],
    wheres: Sequence[str],
    data: Sequence[tuple[Any, Any]],
    model: IFullModel[Any, Any, Any],
    loss: ILossFunction[Any],
    shape_of: Callable[[IDifferentiableModel[Any, Any, Any], Array], Shape],
) -> tuple[list[Array], list[Array]]:
    """Inputs and outputs of one set of each task."""
    x_name, y_name = names
    inputs, targets = [x for x, _ in data], [y for _, y in data]
    # What one array may be, so may the next that is all that it is; which of those that differ is wrong, and in which
    # words it is said, is found one by one.
    count = 1 if _alike(inputs) and _alike(targets) else len(data)
    kinds = [_check_pair(*data[place], x_name + wheres[place], y_name + wheres[place]) for place in range(count)]
    if is_differentiable(model):
        firsts = {kind: place for place, kind in reversed(list(enumerate(kinds)))}
        for place in sorted(firsts.values()):
            model.check_input(inputs[place], x_name + wheres[place])
            model.check_array(targets[place], y_name + wheres[place])
    for (x_kind, y_kind), where in zip(kinds, wheres, strict=False):
        _check_same(x_kind, kinds[0][0], x_name + where, x_name + wheres[0])
        _check_same(y_kind, kinds[0][1], y_name + where, y_name + wheres[0])
    if is_differentiable(model):
        try:
            shape = shape_of(model, inputs[0])
        except ArgumentException as error:
            raise ArgumentException(
                f"{x_name + wheres[0]} has shape {tuple(inputs[0].shape)}; the model cannot take it: {error}"
            ) from error
        validate_alike(loss, shape, targets, (y_name + where for where in wheres))
    return inputs, targets


def _alike(arrays: Sequence[Any]) -> bool:
    """Whether all are arrays of one type, shape, dtype and backend; where they are not, they may still be of a kind."""
    first = arrays[0]
    backend = backend_of(first)
    if backend is None:
        return False
    shape, dtype, owns = first.shape, first.dtype, backend.owns
    return len(set(map(type, arrays))) == 1 and all(
        a.shape == shape and a.dtype == dtype and owns(a) for a in arrays[1:]
    )


def _check_pair(x: Any, y: Any, x_name: str, y_name: str) -> tuple[_Kind, _Kind]:
    kinds = _kind(x, x_name), _kind(y, y_name)
    if not x.shape or not y.shape or x.shape[0] != y.shape[0] or x.shape[0] == 0:
        raise ArgumentException(
            f"{x_name} has shape {tuple(x.shape)} and {y_name} {tuple(y.shape)}; as many inputs as outputs, at least "
            "one, are wanted"
        )
    return kinds


def _check_same(came: _Kind, wanted: _Kind, name: str, first: str) -> None:
    if came != wanted:
        raise ArgumentException(f"{name} must be {_shown(*wanted)}, like {first}, got {_shown(*came)}")


def _kind(value: Any, name: str) -> _Kind:
    if value is None:
        raise ArgumentException(f"{name} is None; an array is wanted")
    backend = backend_of(value)
    if backend is None:
        raise ArgumentException(f"{name} is a {type(value).__name__}; an array is wanted")
    return tuple(value.shape), backend.dtype_of(value), backend.name


def _shown(shape: Shape, dtype: np.dtype[Any], backend: str) -> str:
    return f"{dtype}{shape} on backend {backend!r}"


class TracedOutput(NamedTuple):
    """The output's shape of a function of parameters and an input, and how its BatchNorm layers normalise query sets.

    Attributes
    ----------
    shape : tuple of int
        Of the output.
    statistics : frozenset of {"batch", "support"}
        The ``statistics`` of the layers that normalised by the input.
    """

    shape: Shape
    statistics: frozenset[Statistics]


def traced_output(
    apply: Callable[[dict[str, Any], Any], Any], model: IDifferentiableModel[Any, Any, Any], x: ArrayType
) -> TracedOutput:
    """What a function of the model's parameters returns for an input of a type, by tracing alone."""
    dtype = parameter_dtype(model, model.backend)
    with new_trace() as trace:
        parameters = {
            key: trace.new_input(ArrayType(tuple(shape), dtype)) for key, shape in model.parameter_shapes.items()
        }
        with PassStatistics(parameters) as statistics:
            output = apply(parameters, trace.new_input(x))
    if not isinstance(output, Tracer):
        raise ArgumentException(
            f"apply returned a {type(output).__name__}; an array computed from its arguments is wanted"
        )
    return TracedOutput(output.shape, frozenset(batch.statistics for batch in statistics.batches))
