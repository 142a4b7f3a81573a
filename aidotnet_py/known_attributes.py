"""Objects that refuse attributes which their class lacks, such as misspelt ones."""

from __future__ import annotations

import inspect
from functools import cache
from typing import TYPE_CHECKING, Any

from aidotnet_py.suggestions import suggest

__all__ = ["KnownAttributes"]

_LIBRARY = __name__.partition(".")[0] + "."


class KnownAttributes:
    """A base of classes whose public attributes are those of the class: another one is refused as it is set.

    An attribute that only objects have needs an annotation in the class. Classes of other packages that inherit from
    this may give their objects any attributes.

    Examples
    --------
    >>> from aidotnet_py.data import SinusoidLoader
    >>> SinusoidLoader(seed=0).Kshot = 5
    Traceback (most recent call last):
    AttributeError: SinusoidLoader has no attribute 'Kshot'; did you mean 'KShot'?
    """

    # Hidden from type checkers, which know the attributes and would take this for leave to set any other.
    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None:
            kind = type(self)
            if name[:1] != "_" and not hasattr(kind, name) and kind.__module__.startswith(_LIBRARY):
                _require_annotated(kind, name)
            super().__setattr__(name, value)


def _require_annotated(kind: type, name: str) -> None:
    """Raise AttributeError unless a class, or one that it inherits from, has an annotation for the attribute."""
    annotated = _annotated(kind)
    if name not in annotated:
        public = sorted(known for known in {*dir(kind), *annotated} if not known.startswith("_"))
        remedy = suggest(name, public) or "keep what belongs to it in an object of your own"
        raise AttributeError(f"{kind.__name__} has no attribute {name!r}; {remedy}")


@cache
def _annotated(kind: type) -> frozenset[str]:
    """Return the names that a class of this library, or one that it inherits from, has annotations for."""
    return frozenset(known for cls in kind.__mro__ for known in inspect.get_annotations(cls))
