"""The parameters of constructors, looked up once for each class: Python takes a tenth of a millisecond each time."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

__all__ = ["parameters_of"]


def parameters_of(kind: type[Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a class's constructor, by name; none where it has no readable signature.

    Examples
    --------
    >>> from aidotnet_py import SGDOptimizer
    >>> from aidotnet_py.constructors import parameters_of
    >>> list(parameters_of(SGDOptimizer))
    ['learning_rate', 'momentum']
    """
    return _parameters_of(kind)  # type: ignore[arg-type]  # classes have hashes


@lru_cache(maxsize=1024)
def _parameters_of(kind: type[Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(kind).parameters
    # Some classes in C have none, and protocols in some versions of Python.
    except (ValueError, TypeError):
        return {}
