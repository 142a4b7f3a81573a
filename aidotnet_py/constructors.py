"""The parameters of constructors, looked up once for each class: Python takes a tenth of a millisecond each time."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

__all__ = ["parameters_of", "readable_parameters_of"]


@lru_cache(maxsize=1024)
def parameters_of(kind: type[Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a class's constructor, by name.

    Raises
    ------
    ValueError or TypeError
        When the class has no readable signature: some in C, and protocols in some versions of Python.

    Examples
    --------
    >>> from aidotnet_py import SGDOptimizer
    >>> from aidotnet_py.constructors import parameters_of
    >>> list(parameters_of(SGDOptimizer))
    ['learning_rate', 'momentum']
    """
    return inspect.signature(kind).parameters


def readable_parameters_of(kind: type[Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a class's constructor, none where it has no readable signature.

    Examples
    --------
    >>> from aidotnet_py import SGDOptimizer
    >>> from aidotnet_py.constructors import readable_parameters_of
    >>> list(readable_parameters_of(SGDOptimizer))
    ['learning_rate', 'momentum']
    """
    try:
        return parameters_of(cast(Any, kind))
    except (ValueError, TypeError):
        return {}
