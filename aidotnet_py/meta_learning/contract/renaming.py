"""Errors for earlier names of arguments, which name the present ones."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

__all__ = ["renamed"]

F = TypeVar("F", bound=Callable[..., Any])


def renamed(**names: str) -> Callable[[F], F]:
    """Return a decorator by which a function refuses arguments under their earlier names.

    Parameters
    ----------
    **names : str
        The present name for each earlier one.

    Examples
    --------
    >>> from aidotnet_py.meta_learning.contract.renaming import renamed
    >>> @renamed(n="numTasks")
    ... def draw(numTasks):
    ...     return numTasks
    >>> draw(n=3)
    Traceback (most recent call last):
    TypeError: draw has no argument 'n'; it is 'numTasks'
    """

    def decorate(function: F) -> F:
        owner = function.__qualname__.removesuffix(".__init__").split(".")[-1]

        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            for earlier, present in names.items():
                if earlier in options:
                    raise TypeError(f"{owner} has no argument {earlier!r}; it is {present!r}")
            return function(*args, **options)

        return cast(F, call)

    return decorate
