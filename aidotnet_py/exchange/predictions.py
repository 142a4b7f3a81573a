"""A model's prediction as a Program for any number of examples, and the arrays that it computes with."""

from __future__ import annotations

from collections.abc import Container
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import check_given, refusal
from aidotnet_py.autodiff.extend import Program, trace_pure
from aidotnet_py.backends import to_host
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.exchange.any_size import AnySizeProgram
from aidotnet_py.exchange.batch_sizes import trace_any_size
from aidotnet_py.models import FunctionModel
from aidotnet_py.models.named_arrays import unravel_arrays

__all__ = ["check_model", "example_of", "repeats_of_operators", "trace_prediction"]


def check_model(model: Any) -> None:
    """Raise ArgumentException unless the model's function can be traced."""
    check_given("model", model, "a FunctionModel or NeuralNetworkModel")
    if not isinstance(model, FunctionModel):
        hint = "; use its BaseModel" if hasattr(model, "BaseModel") else ""
        raise ArgumentException(refusal("model", "a FunctionModel or NeuralNetworkModel", cast(object, model)) + hint)


def example_of(model: FunctionModel[Any, Any, Any], example: Any) -> NDArray[Any]:
    """Return an array of the type of the model's inputs: the example, or one of its ``input_shape``."""
    shape = cast("tuple[int, ...] | None", model.settings().get("input_shape"))
    if example is None:
        if shape is None:
            raise ArgumentException(
                "example must be given for a FunctionModel, an array like its inputs, (n, …), got None"
            )
        return np.broadcast_to(np.zeros((), model.dtype), (1, *shape))
    host = to_host(example, "example")
    model.check_input(model.backend.asarray(host), "example")
    if host.ndim == 0:
        raise ArgumentException("example must have an axis of examples, (n, …), got a number")
    return host


def trace_prediction(
    model: FunctionModel[Any, Any, Any], example: NDArray[Any]
) -> tuple[AnySizeProgram, dict[str, NDArray[Any]]]:
    """Return the Program, whose inputs are parameters, statistics and examples, and the first two by name."""
    arrays = _arrays(model)

    def trace_at(size: int) -> Program:
        x = np.broadcast_to(np.zeros((), example.dtype), (size, *example.shape[1:]))
        return trace_pure("the model's function", model.apply, arrays, x)

    return trace_any_size(trace_at, len(example)), arrays


def _arrays(model: FunctionModel[Any, Any, Any]) -> dict[str, NDArray[Any]]:
    # Of one moment, whatever other threads load into the model.
    model = model.Clone()
    arrays = unravel_arrays(model.backend.to_numpy(model.GetParameters()), model.parameter_shapes)
    return arrays | {name: model.backend.to_numpy(value) for name, value in model.statistics.items()}


def repeats_of_operators(program: AnySizeProgram, elementwise: Container[str]) -> set[int]:
    """Return the places of repeated arrays that elementwise operators repeat by themselves.

    One is not needed in full if each operator that reads it has another operand of the full shape.
    """
    first = len(program.inputs) + len(program.constants)
    repeated = {
        place for place, e in enumerate(program.equations, start=first) if e.primitive == "broadcast_to"
    }  # fmt: skip
    needed = {program.output}
    for equation in program.equations:
        variables = [atom for atom in equation.inputs if isinstance(atom, int)]
        if equation.primitive not in elementwise or repeated.issuperset(variables):
            needed.update(variables)
    return repeated - needed
