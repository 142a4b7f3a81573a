"""Checks that tasks fit a model and a loss, all of them before any computation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask, is_batches, set_names
from aidotnet_py.meta_learning.objective.sets import Names, Sets, are_alike
from aidotnet_py.models import IDifferentiableModel, IFullModel
from aidotnet_py.models.interfaces import parameter_dtype
from aidotnet_py.nn.statistics import PassStatistics, Statistics
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = [
    "Shape",
    "TracedOutput",
    "check_batches",
    "check_tasks",
    "places_by_size",
    "require_no_more_batches",
    "trace_output",
]

Shape = tuple[int, ...]

# Shape, dtype and backend's name, which the arrays of all tasks must share.
_Kind = tuple[Shape, np.dtype[Any], str]


def check_tasks(batch: TaskBatch[T, TInput, TOutput] | None) -> list[IMetaLearningTask[T, TInput, TOutput]]:
    """Return the tasks of a batch after the check that it is one."""
    check_given("taskBatch", batch, "a TaskBatch")
    if not isinstance(batch, TaskBatch):
        raise ArgumentException(f"taskBatch must be a TaskBatch, got a {type(batch).__name__}{hint_for_batch(batch)}")
    return list(batch)


def check_batches(
    role: str,
    sets: Sets,
    model: IFullModel[Any, Any, Any],
    loss: ILossFunction[Any],
    shape_of: Callable[[IDifferentiableModel[Any, Any, Any], Array], Shape],
) -> list[tuple[list[Array], list[Array]]]:
    """Return the inputs and outputs of the sets of a role ("Support" or "Query"), in the order of the tasks.

    Once for each batch that the support sets come in, which is one where they are arrays. ``shape_of`` gives the shape
    of the model's output for an input, see `trace_output`.

    Raises
    ------
    ArgumentException
        If an array is missing or empty, if its shape, dtype or backend does not fit the model or the other tasks, if
        the loss cannot take the targets, or if tasks have different numbers of batches.
    """
    names, columns = sets.names(role), sets.columns(role)
    if role == "Query" or not _has_batches(sets, role):
        return [_check_sets(names, *columns, sets.are_alike(role), model, loss, shape_of)]
    data = sets.pairs(role)
    checked: list[tuple[list[Array], list[Array]]] = []
    for i in range(_count_of_batches(names, data)):
        inputs, targets = [x[i] for x, _ in data], [y[i] for _, y in data]
        alike = are_alike(inputs) and are_alike(targets)
        checked.append(_check_sets(sets.names(role, f"[{i}]"), inputs, targets, alike, model, loss, shape_of))
    return checked


def _has_batches(sets: Sets, role: str) -> bool:
    """Return whether some sets are lists of batches."""
    return not sets.are_alike(role) and any(any(map(is_batches, column)) for column in sets.columns(role))


def require_no_more_batches(sets: Sets, first: int, steps: int) -> None:
    """Raise ArgumentException if a support set has more batches than there are inner steps.

    ``first`` is the place of the first task.
    """
    if sets.are_alike("Support"):
        return
    for place, data in enumerate(sets.columns("Support")[0]):
        if is_batches(data) and len(data) > steps:
            name = set_names(sets.tasks[place], "Support")[0]
            raise ArgumentException(
                f"{name} of task {first + place} must have at most one batch for each of the {steps} inner steps, got "
                f"{len(data)} batches; raise AdaptationSteps or join batches"
            )


def places_by_size(sets: Sets, roles: Sequence[str]) -> list[Sequence[int]]:
    """Return the places of the tasks whose sets have the same numbers of examples, group by group."""
    if all(map(sets.are_alike, roles)):
        return [range(len(sets))]
    sizes = list(zip(*[map(_size, column) for role in roles for column in sets.columns(role)], strict=True))
    if sizes.count(sizes[0]) == len(sizes):
        return [range(len(sets))]
    groups: dict[Any, list[int]] = {}
    for place, size in enumerate(sizes):
        groups.setdefault(size, []).append(place)
    return list(groups.values())


def _size(data: Any) -> Any:
    """Return the number of examples of an array, the numbers of a list of batches; None for anything else."""
    shape = getattr(data, "shape", None)
    if isinstance(shape, tuple):
        return shape[:1]  # pyright: ignore[reportUnknownVariableType]  # any array's shape
    return tuple(map(_size, data)) if is_batches(data) else None


def _count_of_batches(names: Names, data: Sequence[tuple[Any, Any]]) -> int:
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
    names: Names,
    inputs: list[Any],
    targets: list[Any],
    alike: bool,
    model: IFullModel[Any, Any, Any],
    loss: ILossFunction[Any],
    shape_of: Callable[[IDifferentiableModel[Any, Any, Any], Array], Shape],
) -> tuple[list[Array], list[Array]]:
    """Return the inputs and outputs of one set of each task after all checks."""
    # If all arrays are alike, a check of the first is enough. Otherwise each is checked, so that the error names it.
    count = 1 if alike else len(inputs)
    kinds = [_check_pair(inputs[place], targets[place], *names(place)) for place in range(count)]
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
        validate_alike(loss, shape, targets, (names(place)[1] for place in range(len(inputs))))
        for place in firsts:
            model.check_array(targets[place], names(place)[1])
    return inputs, targets


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
        if not hint and hasattr(value, "__dlpack__"):
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
