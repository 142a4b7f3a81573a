"""Whether tasks fit a model and a loss: checked whole before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aidotnet_py.autodiff.program import ArrayType
from aidotnet_py.autodiff.tracing import new_trace
from aidotnet_py.backends import Array, backend_of
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.losses import ILossFunction
from aidotnet_py.meta_learning.tasks import IMetaLearningTask
from aidotnet_py.models import IDifferentiableModel, IFullModel

__all__ = ["checked_sets"]

Sets = tuple[list[Array], list[Array]]


def checked_sets(
    role: str,
    tasks: Sequence[IMetaLearningTask[Any, Any, Any]],
    model: IFullModel[Any, Any, Any],
    loss: ILossFunction[Any],
) -> Sets:
    """The inputs and outputs of the tasks' sets of that role ("Support" or "Query"), in order.

    Raises
    ------
    ArgumentException
        When one is missing, empty, of another shape, dtype or backend than the others or the model want, or holds
        targets that the loss cannot take.
    """
    x_name, y_name = f"{role}Input", f"{role}Output"
    inputs = [getattr(task, x_name) for task in tasks]
    targets = [getattr(task, y_name) for task in tasks]
    for place, (x, y) in enumerate(zip(inputs, targets, strict=True)):
        where = f" of task {place}" if len(tasks) > 1 else ""
        _check_pair(x, y, x_name + where, y_name + where)
        _check_same(x, inputs[0], x_name + where)
        _check_same(y, targets[0], y_name + where)
        if isinstance(model, IDifferentiableModel):
            model.check_input(x, x_name + where)
            model.check_array(y, y_name + where)
    if isinstance(model, IDifferentiableModel):
        shape = _output_shape(model, inputs[0], x_name)
        for place, y in enumerate(targets):
            loss.validate(shape, y, y_name + (f" of task {place}" if len(tasks) > 1 else ""))
    return inputs, targets


def _check_pair(x: Any, y: Any, x_name: str, y_name: str) -> None:
    for value, name in ((x, x_name), (y, y_name)):
        if value is None:
            raise ArgumentException(f"{name} is None; an array is wanted")
        if backend_of(value) is None:
            raise ArgumentException(f"{name} is a {type(value).__name__}; an array is wanted")
    if not x.shape or not y.shape or x.shape[0] != y.shape[0] or x.shape[0] == 0:
        raise ArgumentException(
            f"{x_name} has shape {tuple(x.shape)} and {y_name} {tuple(y.shape)}; as many inputs as outputs, at least "
            "one, are wanted"
        )


def _check_same(array: Array, first: Array, name: str) -> None:
    if tuple(array.shape) != tuple(first.shape) or array.dtype != first.dtype:
        raise ArgumentException(
            f"{name} is {array.dtype}{tuple(array.shape)}; task 0 has {first.dtype}{tuple(first.shape)}, and the tasks "
            "of a batch are to be alike"
        )


def _output_shape(model: IDifferentiableModel[Any, Any, Any], x: Array, name: str) -> tuple[int, ...]:
    backend = model.backend
    dtype = backend.dtype_of(model.GetParameters())
    with new_trace() as trace:
        parameters = {
            key: trace.new_input(ArrayType(tuple(shape), dtype)) for key, shape in model.parameter_shapes.items()
        }
        traced = trace.new_input(ArrayType(tuple(x.shape), backend.dtype_of(x)))
        try:
            output = model.apply(parameters, traced)
        except ArgumentException as error:
            raise ArgumentException(f"{name} has shape {tuple(x.shape)}; the model cannot take it: {error}") from error
    return tuple(output.shape)
