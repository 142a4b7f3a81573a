"""Checks that tasks fit a model and a loss, all of them before any computation."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from aidotnet_py.arguments import array_hint, check_given
from aidotnet_py.autodiff.extend import ArrayType, Tracer, new_trace
from aidotnet_py.backends import Array, backend_of
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.losses import ILossFunction, validate_alike
from aidotnet_py.meta_learning.contract.protocols import is_differentiable
from aidotnet_py.meta_learning.contract.task_batch import TaskBatch
from aidotnet_py.meta_learning.contract.task_checks import hint_for_batch
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask, columns_of, is_batches, set_names
from aidotnet_py.models import IDifferentiableModel, IFullModel
from aidotnet_py.models.interfaces import parameter_dtype
from aidotnet_py.nn.statistics import PassStatistics, Statistics
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = [
    "Shape",
    "TracedOutput",
    "check_batches",
    "check_tasks",
    "names_of_places",
    "places_by_size",
    "require_no_more_batches",
    "trace_output",
]

Shape = tuple[int, ...]
_SHAPE, _DTYPE = map(operator.attrgetter, ("shape", "dtype"))

# Shape, dtype and backend's name, which the arrays of all tasks must share.
_Kind = tuple[Shape, np.dtype[Any], str]

# The names of a task's inputs and outputs in messages, by the task's place.
_Names = Callable[[int], tuple[str, str]]


def check_tasks(batch: TaskBatch[T, TInput, TOutput] | None) -> list[IMetaLearningTask[T, TInput, TOutput]]:
    """Return the tasks of a batch after the check that it is one."""
    check_given("taskBatch", batch, "a TaskBatch")
    if not isinstance(batch, TaskBatch):
        raise ArgumentException(f"taskBatch must be a TaskBatch, got a {type(batch).__name__}{hint_for_batch(batch)}")
    return list(batch)


def check_batches(
    role: str,
    tasks: Sequence[IMetaLearningTask[Any, Any, Any]],
    wheres: Sequence[str],
    model: IFullModel[Any, Any, Any],
    loss: ILossFunction[Any],
    shape_of: Callable[[IDifferentiableModel[Any, Any, Any], Array], Shape],
) -> list[tuple[list[Array], list[Array]]]:
    """Return the inputs and outputs of the tasks' sets of a role ("Support" or "Query"), in the order of the tasks.

    Once for each batch that the support sets come in, which is one where they are arrays. ``wheres`` name the tasks in
    messages; ``shape_of`` gives the shape of the model's output for an input, see `trace_output`.

    Raises
    ------
    ArgumentException
        If an array is missing or empty, if its shape, dtype or backend does not fit the model or the other tasks, if
        the loss cannot take the targets, or if tasks have different numbers of batches.
    """

    def names_in(suffix: str) -> _Names:
        def names(place: int) -> tuple[str, str]:
            x, y = set_names(tasks[place], role)
            return x + suffix + wheres[place], y + suffix + wheres[place]

        return names

    names = names_in("")
    columns = columns_of(tasks, role)
    data = list(zip(*columns, strict=True))
    lists = any(map(_has_lists, columns))
    if role == "Query" or not (lists and any(is_batches(x) or is_batches(y) for x, y in data)):
        return [_check_sets(names, data, model, loss, shape_of)]
    count = _count_of_batches(names, data)
    return [
        _check_sets(names_in(f"[{i}]"), [(x[i], y[i]) for x, y in data], model, loss, shape_of) for i in range(count)
    ]


def _has_lists(column: Sequence[Any]) -> bool:
    """Return whether some are lists or tuples; of all types, there are few."""
    return any(issubclass(kind, list | tuple) for kind in set(map(type, column)))


def require_no_more_batches(tasks: Sequence[IMetaLearningTask[Any, Any, Any]], first: int, steps: int) -> None:
    """Raise ArgumentException if a support set has more batches than there are inner steps.

    ``first`` is the place of the first task.
    """
    inputs = columns_of(tasks, "Support")[0]
    if not _has_lists(inputs):
        return
    for place, data in enumerate(inputs):
        if is_batches(data) and len(data) > steps:
            name = set_names(tasks[place], "Support")[0]
            raise ArgumentException(
                f"{name} of task {first + place} must have at most one batch for each of the {steps} inner steps, got "
                f"{len(data)} batches; raise AdaptationSteps or join batches"
            )


@lru_cache(maxsize=16)
def names_of_places(count: int, first: int | None = None) -> tuple[str, ...]:
    """Return the words that name each of so many tasks in a message; ``first`` if they are a part of a batch."""
    if first is None and count == 1:
        return ("",)
    return tuple(f" of task {(first or 0) + place}" for place in range(count))


def places_by_size(tasks: Sequence[IMetaLearningTask[Any, Any, Any]], roles: Sequence[str]) -> list[Sequence[int]]:
    """Return the places of the tasks whose sets have the same numbers of examples, group by group."""
    columns = [column for role in roles for column in columns_of(tasks, role)]
    if all(map(_are_of_one_shape, columns)):
        return [range(len(tasks))]
    sizes = list(zip(*[map(_size, column) for column in columns], strict=True))
    if sizes.count(sizes[0]) == len(sizes):
        return [range(len(tasks))]
    groups: dict[Any, list[int]] = {}
    for place, size in enumerate(sizes):
        groups.setdefault(size, []).append(place)
    return list(groups.values())


def _are_of_one_shape(column: Sequence[Any]) -> bool:
    """Return whether all are arrays of one shape."""
    try:
        shapes = set(map(_SHAPE, column))
    except (AttributeError, TypeError):
        return False
    return len(shapes) == 1 and isinstance(shapes.pop(), tuple)


def _size(data: Any) -> Any:
    """Return the number of examples of an array, the numbers of a list of batches; None for anything else."""
    shape = getattr(data, "shape", None)
    if isinstance(shape, tuple):
        return shape[:1]  # pyright: ignore[reportUnknownVariableType]  # any array's shape
    return tuple(map(_size, data)) if is_batches(data) else None


def _count_of_batches(names: _Names, data: Sequence[tuple[Any, Any]]) -> int:
    """Return the number of batches of each task after the check that it is the same for all tasks."""
    first: list[int | None] = []
    for place, (x, y) in enumerate(data):
        lengths = [len(value) if is_batches(value) else None for value in (x, y)]
        first = first or lengths
        if lengths[0] is None or lengths != [first[0]] * 2:
            both, beside = " and ".join(names(place)), ""
            if lengths is not first:
                beside = f" beside {_count_in_words(first)} of {' and '.join(names(0))}"
            raise ArgumentException(
                f"{both} must be lists with the same number of batches for every task, got "
                f"{_count_in_words(lengths)}{beside}"
            )
    return first[0] or 0


def _count_in_words(lengths: Sequence[int | None]) -> str:
    return " and ".join("one array" if n is None else f"a list of {n}" for n in lengths)


def _check_sets(
    names: _Names,
    data: Sequence[tuple[Any, Any]],
    model: IFullModel[Any, Any, Any],
    loss: ILossFunction[Any],
    shape_of: Callable[[IDifferentiableModel[Any, Any, Any], Array], Shape],
) -> tuple[list[Array], list[Array]]:
    """Return the inputs and outputs of one set of each task after all checks."""
    inputs, targets = [x for x, _ in data], [y for _, y in data]
    # If all arrays are alike, a check of the first is enough. Otherwise each is checked, so that the error names it.
    count = 1 if _alike(inputs) and _alike(targets) else len(data)
    kinds = [_check_pair(*data[place], *names(place)) for place in range(count)]
    # Where there is a pair of a kind for the first time.
    firsts = sorted({kind: place for place, kind in reversed(list(enumerate(kinds)))}.values())
    if is_differentiable(model):
        for place in firsts:
            model.check_input(inputs[place], names(place)[0])
    for place, pair in enumerate(kinds[1:], 1):
        for kind, first, name, of_first in zip(pair, kinds[0], names(place), names(0), strict=True):
            _check_same(kind, first, name, of_first)
    if is_differentiable(model):
        try:
            shape = shape_of(model, inputs[0])
        except ArgumentException as error:
            raise ArgumentException(
                f"{names(0)[0]} must be an input that the model takes, got shape {tuple(inputs[0].shape)}: {error}"
            ) from error
        # Before the model's check, which knows no classes: it would have labels of float64 made float32.
        validate_alike(loss, shape, targets, (names(place)[1] for place in range(len(data))))
        for place in firsts:
            model.check_array(targets[place], names(place)[1])
    return inputs, targets


def _alike(arrays: Sequence[Any]) -> bool:
    """Return whether all are arrays of one type, shape, dtype and backend; arrays of two types may still fit."""
    first = arrays[0]
    backend = backend_of(first)
    if backend is None:
        return False
    if len(set(map(type, arrays))) != 1:
        return False
    if backend.stacked(arrays) is not None:
        return True
    count = len(arrays)
    alike = all(list(map(of, arrays)).count(of(first)) == count for of in (_SHAPE, _DTYPE))
    return alike and all(map(backend.owns, arrays))


def _check_pair(x: Any, y: Any, x_name: str, y_name: str) -> tuple[_Kind, _Kind]:
    kinds = _kind(x, x_name), _kind(y, y_name)
    if not x.shape or not y.shape or x.shape[0] != y.shape[0] or x.shape[0] == 0:
        raise ArgumentException(
            f"{x_name} must have as many examples as {y_name}, at least one, got shapes {tuple(x.shape)} and "
            f"{tuple(y.shape)}"
        )
    return kinds


def _check_same(came: _Kind, wanted: _Kind, name: str, first: str) -> None:
    if came != wanted:
        raise ArgumentException(f"{name} must be {_describe(*wanted)}, like {first}, got {_describe(*came)}")


def _kind(value: Any, name: str) -> _Kind:
    check_given(name, value, "an array")
    backend = backend_of(value)
    if backend is None:
        hint = array_hint(name, value)
        if hasattr(value, "__dlpack__"):
            hint = "; make the task a MetaLearningTask, which takes it"
        raise ArgumentException(f"{name} must be an array, got a {type(value).__name__}{hint}")
    return tuple(value.shape), backend.dtype_of(value), backend.name


def _describe(shape: Shape, dtype: np.dtype[Any], backend: str) -> str:
    return f"{dtype}{shape} on backend {backend!r}"


class TracedOutput(NamedTuple):
    """The shape of a function's output, and the kinds of statistics that normalise query sets in the function.

    Attributes
    ----------
    shape : tuple of int
        The shape of the output.
    statistics : frozenset of {"batch", "support"}
        The ``statistics`` of the layers that normalised by the input.
    """

    shape: Shape
    statistics: frozenset[Statistics]


def trace_output(
    apply: Callable[[dict[str, Any], Any], Any], model: IDifferentiableModel[Any, Any, Any], x: ArrayType
) -> TracedOutput:
    """Trace a function of the model's parameters and an input; return its output's shape and its statistics."""
    dtype = parameter_dtype(model, model.backend)
    with new_trace() as trace:
        parameters = {
            key: trace.new_input(ArrayType(tuple(shape), dtype)) for key, shape in model.parameter_shapes.items()
        }
        with PassStatistics(parameters) as statistics:
            output = apply(parameters, trace.new_input(x))
    if not isinstance(output, Tracer):
        raise ArgumentException(
            f"the result of apply must be an array computed from its arguments, got a {type(output).__name__}"
        )
    return TracedOutput(output.shape, frozenset(batch.statistics for batch in statistics.batches))
