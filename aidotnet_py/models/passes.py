"""The passes of a model, traced: predictions, the statistics of its layers, and the loss of a set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from aidotnet_py.autodiff.extend import TracedProgram, trace_pure
from aidotnet_py.backends import Array
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.losses import ILossFunction
from aidotnet_py.losses.interface import checked_loss
from aidotnet_py.models.interfaces import IDifferentiableModel
from aidotnet_py.models.named_arrays import unravel_arrays
from aidotnet_py.nn.statistics import PassStatistics

__all__ = ["LayerStatistics", "Prediction", "loss_of", "trace_prediction", "trace_statistics"]

Model = IDifferentiableModel[Any, Any, Any]


class Prediction(NamedTuple):
    """The program of (parameters, input, *statistics), and the layers that normalise by the input."""

    program: TracedProgram
    layers: list[str]


class LayerStatistics(NamedTuple):
    """The program of (parameters, input) that computes statistics, their names, and the layers without any."""

    program: TracedProgram
    names: list[str]
    unnamed: list[str]


def trace_prediction(model: Model, parameters: Array, input: Any, statistics: Mapping[str, Array]) -> Prediction:
    """Trace the outputs of a model that normalises by these statistics.

    Raises
    ------
    ArgumentException
        When the model cannot take the input.
    """
    names, layers = tuple(statistics), list[str]()

    def predict(vector: Array, x: Array, *values: Array) -> Array:
        named = _by_name(model, vector, names, values)
        with PassStatistics(named) as passed:
            output = model.apply(named, x)
        # Assigned again in the second of two traces.
        layers[:] = passed.layers
        return output

    return Prediction(_trace(predict, parameters, input, *statistics.values()), layers)


def trace_statistics(model: Model, parameters: Array, input: Any) -> LayerStatistics:
    """Trace the statistics of the layers that normalise by the input.

    Raises
    ------
    ArgumentException
        When the model cannot take the input.
    """
    names: list[str] = []
    unnamed: list[str] = []

    def statistics_of(vector: Array, x: Array) -> list[Array]:
        named = unravel_arrays(vector, model.parameter_shapes)
        with PassStatistics(named) as passed:
            model.apply(named, x)
        statistics = passed.named()
        # Assigned again in the second of two traces.
        names[:], unnamed[:] = statistics, passed.unnamed
        return list(statistics.values())

    return LayerStatistics(_trace(statistics_of, parameters, input), names, unnamed)


def loss_of(model: Model, loss: ILossFunction[Any], beside: Iterable[str]) -> Callable[..., Array]:
    """Return the loss as a function of (parameters, x, y, *values), the values those that `apply` takes beside."""

    def cost(vector: Array, x: Array, y: Array, *values: Array) -> Array:
        return checked_loss(loss, model.apply(_by_name(model, vector, beside, values), x), y)

    return cost


def _by_name(model: Model, vector: Array, beside: Iterable[str], values: Sequence[Array]) -> dict[str, Array]:
    """Return the parameters by name, and the arrays that `apply` takes beside them."""
    return {**unravel_arrays(vector, model.parameter_shapes), **dict(zip(beside, values, strict=True))}


def _trace(function: Callable[..., Any], parameters: Array, input: Any, *others: Array) -> TracedProgram:
    """Trace a function of the parameters, an input and other arrays."""
    try:
        return trace_pure("the model's function", function, parameters, input, *others)
    except ArgumentException as error:
        raise ArgumentException(
            f"the model must take an input of shape {tuple(input.shape)}, got an error in its function: {error}"
        ) from error
