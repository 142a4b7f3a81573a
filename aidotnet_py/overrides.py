"""A check, as a class is defined, that the methods which it overrides take the arguments that they will get."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

__all__ = ["require_overrides"]


def require_overrides(cls: type[Any], base: type[Any], names: Iterable[str]) -> None:
    """Raise TypeError if a class has its own form of a method of a base that cannot be called as the base's.

    Parameters
    ----------
    cls : type
        The class that is being defined.
    base : type
        The class whose methods are overridden.
    names : iterable of str
        The methods, which are called with all their arguments by position.

    Examples
    --------
    >>> from aidotnet_py.losses import LossFunctionBase
    >>> class Masked(LossFunctionBase):
    ...     def formula(self, predicted, actual):
    ...         return predicted.sum()
    ...     def validate(self, predicted_shape, actual):
    ...         pass
    Traceback (most recent call last):
    TypeError: Masked.validate must take (self, predicted_shape, actual, name), got (self, predicted_shape, actual)
    """
    for name in names:
        own = vars(cls).get(name)
        # Of a static method, a descriptor or an object with __call__, a call alone can tell.
        if not inspect.isfunction(own):
            continue
        wanted = list(inspect.signature(getattr(base, name)).parameters)
        signature = inspect.signature(own)
        try:
            signature.bind(*wanted)
        except TypeError:
            got = ", ".join(signature.parameters)
            raise TypeError(f"{cls.__name__}.{name} must take ({', '.join(wanted)}), got ({got})") from None
