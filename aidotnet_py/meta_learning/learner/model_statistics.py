"""What a learner's model normalises by: no parameters, but saved, loaded and put back with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aidotnet_py.backends import Array
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.models import FunctionModel

__all__ = ["put_statistics_aside", "set_statistics", "statistics_of"]


def statistics_of(model: object) -> Mapping[str, Array] | None:
    """Return copies of a model's statistics; None of a model that can hold none."""
    return model.statistics if isinstance(model, FunctionModel) else None


def set_statistics(model: object, statistics: Mapping[str, Array]) -> None:
    """Have a model normalise by these statistics from now on, and by no others.

    Raises
    ------
    ArgumentException
        When they are not of the model's layers, or it can hold none.
    """
    if isinstance(model, FunctionModel):
        model.set_statistics(statistics)
    elif statistics:
        raise ArgumentException(
            f"model must be a FunctionModel to hold {', '.join(statistics):.80}, got a {type(model).__name__}"
        )


def put_statistics_aside(model: object) -> Callable[[], None]:
    """Keep a model's statistics; return a function that puts them back."""
    kept = statistics_of(model) or {}
    return lambda: set_statistics(model, kept)
