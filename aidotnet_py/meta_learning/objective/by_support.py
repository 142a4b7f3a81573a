"""A model on a task's query set, normalised by the statistics of the support set, as one function of both sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning.objective.task_programs import ModelFunction
from aidotnet_py.nn.statistics import PassStatistics

__all__ = ["NormalizedBySupport"]


@dataclass(frozen=True)
class NormalizedBySupport:
    """The outputs for query examples, from the examples of both sets in one array, support examples first.

    The statistics are part of the function, so that derivatives in the parameters go through them too. They come from
    a pass without noise, and equal the statistics of the adapted model; noise is for the query examples.

    Parameters
    ----------
    apply : callable
        The model's function of parameters and examples.
    learned : tuple of str
        The names of the model's parameters; all other arrays are noise.
    support : int
        The number of support examples.
    """

    apply: ModelFunction
    learned: tuple[str, ...]
    support: int

    def __call__(self, parameters: Mapping[str, Any], x: Any) -> Any:
        """Return the outputs for the query examples."""
        with PassStatistics(parameters) as statistics:
            self.apply({name: parameters[name] for name in self.learned}, x[: self.support])
            named = statistics.named("support")
        if statistics.unnamed:
            raise ArgumentException(
                f"{statistics.unnamed[0]} must have a parameter of the model as scale, and take part once in a pass, "
                "for query sets to be normalised by its statistics of the support set"
            )
        return self.apply({**parameters, **named}, x[self.support :])
