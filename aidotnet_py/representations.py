"""Representations that show the constructor's arguments that differ from their defaults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from aidotnet_py.arguments import shown
from aidotnet_py.constructors import parameters_of

__all__ = ["concise_repr"]

_LONGEST = 300
_MISSING: Any = object()


def concise_repr(self: Any) -> str:
    """Return the call that makes an object, without defaults: one line of bounded length, also of half-built objects.

    Examples
    --------
    >>> from aidotnet_py import SGDOptimizer
    >>> SGDOptimizer(0.1, momentum=0.9)
    SGDOptimizer(0.1, momentum=0.9)
    """
    name: str = type(self).__name__
    try:
        text = " ".join(f"{name}({', '.join(_arguments(self))})".split())
    except Exception:  # attributes of others, which may fail in any way
        return f"{name}(…)"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 2]}…)"


def _arguments(value: Any) -> Iterator[str]:
    kind = cast(Any, type(value))
    for name, parameter in parameters_of(kind).items():
        own = getattr(value, f"_{name}", _MISSING)
        own = getattr(value, name, _MISSING) if own is _MISSING else own
        if own is _MISSING or type(own) is getattr(value, "_implied", {}).get(name):
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            yield from map(_text, cast("dict[str, Any]", own).values() if isinstance(own, dict) else own)
        elif parameter.default is parameter.empty and parameter.kind is not parameter.KEYWORD_ONLY:
            yield _text(own)
        elif not _is_default(own, parameter.default):
            yield f"{name}={_text(own)}"


def _is_default(own: Any, default: Any) -> bool:
    kind: Any = type(cast(object, own))
    if kind is tuple and isinstance(default, int):
        # A window that was given by one length.
        return all(length == default for length in own)
    if isinstance(default, (str, int)) and default in (getattr(own, "name", None), getattr(own, "id", None)):
        # A backend that was given by its name, or a device by its number.
        return True
    # Whether arrays are equal is an array.
    return own is default or (own == default) is True


def _text(value: Any) -> str:
    kind = cast(Any, type(value))
    if kind.__repr__ is concise_repr:
        return str(concise_repr(value))
    return str(getattr(value, "__qualname__", None) or shown(value))
