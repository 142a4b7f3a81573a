"""What a learner's model normalises by: no parameters, but saved, loaded and put back with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aidotnet_py.backends import Array
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.models import FunctionModel

__all__ = ["normalized_by", "put_statistics_aside", "set_parameters", "set_statistics", "statistics_of"]


def normalized_by(model: Any, examples: Any) -> Any:
    """Return an `INormalizedModel` that the caller alone holds, normalising by the statistics of examples.

    It may be the same object: what has just been copied needs no copy.
    """
    if getattr(model.with_statistics_of, "__func__", None) is FunctionModel.with_statistics_of:
        model._keep_statistics_of(examples)
        return model
    return model.with_statistics_of(examples)


def statistics_of(model: object) -> Mapping[str, Array] | None:
    """Return copies of a model's statistics; None of a model that can hold none."""
    return model.statistics if isinstance(model, FunctionModel) else None


def set_statistics(model: object, statistics: Mapping[str, Array], parameters: Array | None = None) -> None:
    """Have a model normalise by these statistics from now on, and by no others; with the parameters, if given.

    Raises
    ------
    ArgumentException
        When they are not of the model's layers, or it can hold none.
    """
    if isinstance(model, FunctionModel):
        model.set_statistics(statistics, parameters)
    elif statistics:
        raise ArgumentException(
            f"model must be a FunctionModel to hold {', '.join(statistics):.80}, got a {type(model).__name__}"
        )


def set_parameters(model: Any, parameters: Array, statistics: Mapping[str, Array] | None) -> None:
    """Replace a model's parameters, and its statistics with them unless these are None; see `set_statistics`."""
    if statistics is None or not (statistics or statistics_of(model)):
        model.SetParameters(parameters)
    else:
        set_statistics(model, statistics, parameters)


def put_statistics_aside(model: object) -> Callable[[], None]:
    """Keep a model's statistics; return a function that puts them back."""
    kept = statistics_of(model) or {}
    return lambda: set_statistics(model, kept)
