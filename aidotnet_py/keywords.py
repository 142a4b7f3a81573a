"""Errors for keywords that a function lacks, which name those that it has."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from aidotnet_py.suggestions import suggest_or_list

__all__ = ["refuses_other_keywords", "suggests_keywords"]

# A function, or a class.
F = TypeVar("F", bound=Callable[..., Any])


def suggests_keywords(**meanings: str) -> Callable[[F], F]:
    """Return a decorator by which a function, or a class, answers a keyword that it lacks with the one that it has.

    Parameters
    ----------
    **meanings : str
        For earlier names, and those of other libraries, the names here; several are separated by spaces. Other keywords
        get a suggestion by spelling and meaning; see `suggest`.

    Examples
    --------
    >>> from aidotnet_py.keywords import suggests_keywords
    >>> @suggests_keywords(n="numTasks")
    ... def draw(numTasks, repeat=True):
    ...     return numTasks
    >>> draw(n=3)
    Traceback (most recent call last):
    TypeError: draw has no argument 'n'; it is 'numTasks'
    >>> draw(num_tasks=3)
    Traceback (most recent call last):
    TypeError: draw has no argument 'num_tasks'; did you mean 'numTasks'?
    """

    def decorate(function: F) -> F:
        if isinstance(function, type):
            kind: Any = function
            kind.__init__ = decorate(kind.__init__)
            return cast(F, kind)
        parameters = inspect.signature(function).parameters.values()
        names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "self"]

        def message(slip: str, arguments: tuple[Any, ...]) -> str:
            owner = _owner(function, arguments[0] if arguments else None)
            return f"{owner} has no argument {slip!r}; {_remedy(slip, names, meanings)}"

        return refuses_other_keywords(function, names, message)

    return decorate


def refuses_other_keywords(function: F, names: Sequence[str], message: Callable[[str, tuple[Any, ...]], str]) -> F:
    """Return a function that raises TypeError for keywords other than these names.

    ``message`` makes the text of the error, from the first such keyword and the positional arguments.
    """
    known = frozenset(names)

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        if not options.keys() <= known:
            raise TypeError(message(next(name for name in options if name not in known), arguments))
        return function(*arguments, **options)

    return cast(F, call)


def _owner(function: Callable[..., Any], first: object) -> str:
    """Return the name of a function, or of the class that a constructor is of: a subclass may have more arguments."""
    if function.__name__ != "__init__":
        return function.__name__
    kind = type(first)
    inherits = getattr(kind.__init__, "__wrapped__", None) is function
    return kind.__name__ if inherits else function.__qualname__.split(".")[-2]


def _remedy(slip: str, names: list[str], meanings: dict[str, str]) -> str:
    if slip in meanings:
        return f"it is {' and '.join(map(repr, meanings[slip].split()))}"
    return suggest_or_list(slip, names)
