"""Copies of an optimizer, which may be anybody's, each for steps of its own."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, TypeVar

from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.optimizers.elementwise import TracedFormulas
from aidotnet_py.optimizers.protocol import IGradientBasedOptimizer

__all__ = ["copies_without_past"]

OptimizerT = TypeVar("OptimizerT", bound=IGradientBasedOptimizer)


def copies_without_past(optimizer: OptimizerT, count: int) -> list[OptimizerT]:
    """Return deep copies with no past, which share the traced formulas and attributes that have no copy, such as locks.

    Raises
    ------
    ArgumentException
        When the optimizer cannot be copied even so.
    """
    shared = {id(part): part for part in _shared_parts(optimizer)}
    try:
        copies = [copy.deepcopy(optimizer, shared.copy()) for _ in range(count)]
    except Exception as error:
        raise ArgumentException(
            f"an optimizer without a formula must be an object that copy.deepcopy copies, a copy for each task, got a "
            f"{type(optimizer).__name__}: {error}; give the class a method __deepcopy__(self, memo)"
        ) from error
    for other in copies:
        other.Reset()
    return copies


def _shared_parts(optimizer: object) -> Iterator[Any]:
    for value in getattr(optimizer, "__dict__", {}).values():
        try:
            copy.deepcopy(value, {id(optimizer): optimizer})
        # Locks and open files raise TypeError, other classes what they like.
        except Exception:
            yield value
        else:
            if isinstance(value, TracedFormulas):
                yield value
