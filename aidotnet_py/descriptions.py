"""What files say of objects in JSON, such as a network's layers, and how two such descriptions differ."""

# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# The values here are of any type, and whatever JSON holds.

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np

__all__ = ["Described", "describe", "differences", "listed"]

# Longer sequences are told apart by a digest.
_LONGEST = 100
# Objects within objects within objects are told by their types alone; layers may lie deeper.
_DEEPEST = 2
_MOST_LISTED = 20
# What JSON has no form for, and a text tells.
_TOLD_BY_TEXT = (complex, bytes, np.dtype, np.generic)


class Described:
    """A class whose settings files describe whole, to any depth."""

    def settings(self) -> dict[str, Any]:
        """Return what tells this object from another one of its class, by name.

        Here: its public attributes, and what the constructor was given and is kept with an underscore before its name.
        A class whose attributes are no settings, such as counters, writes its own.
        """
        public = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return {**_given_to_constructor(self), **public}


class _Settings(dict[str, Any]):
    """An object's description, which knows what of it is as the constructor has it by default."""

    defaults: frozenset[str] = frozenset()


def describe(value: Any, depth: int = 0, within: frozenset[int] = frozenset()) -> Any:
    """Return the JSON that says what a value is.

    Numbers, strings, lists and mappings are themselves; arrays are told by type and digest; functions by their
    qualified names; sets, bytes, complex numbers and dtypes by texts; an object is ``{"type": …}`` with its settings,
    which for objects other than `Described` are what the constructor was given and the object keeps under the same
    name, with an underscore or without. An object within itself is told by its type.

    Examples
    --------
    >>> from aidotnet_py import SGDOptimizer
    >>> from aidotnet_py.descriptions import describe
    >>> describe(SGDOptimizer(0.5))
    {'type': 'SGDOptimizer', 'learning_rate': 0.5, 'momentum': 0.0}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, _TOLD_BY_TEXT):
        return repr(value)
    if isinstance(value, (set, frozenset)):
        return {"set": sorted(repr(describe(item, depth, within)) for item in value)}
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            # Their bytes are addresses.
            return {"array": f"{value.dtype}{value.shape}", "items": describe(value.ravel().tolist(), depth, within)}
        return {"array": f"{value.dtype}{value.shape}", "sha256": hashlib.sha256(value.tobytes()).hexdigest()}
    if isinstance(value, Mapping):
        return {str(key): describe(item, depth, within) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return _sequence([describe(item, depth, within) for item in value])
    name = getattr(value, "__qualname__", None)
    return _object(value, depth, within) if name is None else str(name)


def _sequence(items: list[Any]) -> Any:
    if len(items) <= _LONGEST or any(isinstance(item, dict) for item in items):
        return items
    return {"length": len(items), "sha256": hashlib.sha256(repr(items).encode()).hexdigest()}


def _object(value: Any, depth: int, within: frozenset[int]) -> _Settings:
    found = _Settings(type=type(value).__name__)
    if id(value) in within:
        return found
    within |= {id(value)}
    if isinstance(value, Described):
        settings = value.settings()
    elif depth < _DEEPEST:
        settings, depth = _given_to_constructor(value), depth + 1
    else:
        return found
    found.update({_key(name): describe(item, depth, within) for name, item in settings.items()})
    defaults = {name: parameter.default for name, parameter in _parameters(type(value)).items()}
    found.defaults = frozenset(
        _key(name)
        for name in settings
        if name in defaults and found[_key(name)] == describe(defaults[name], depth, within)
    )
    return found


def _key(name: str) -> str:
    """The name of a setting in a description, in which the class has the name ``type``."""
    return "type_" if name == "type" else name


def _given_to_constructor(value: Any) -> dict[str, Any]:
    kept = getattr(value, "__dict__", {})
    names = {name: name if name in kept else f"_{name}" for name in _parameters(type(value))}
    return {name: kept[place] for name, place in names.items() if place in kept}


def _parameters(kind: type[Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(kind).parameters
    # Of classes in C, and of those with a signature that cannot be read.
    except (ValueError, TypeError):
        return {}


def differences(held: Any, own: Any, place: str = "") -> Iterator[str]:
    """Yield one clause for each difference between a description in a file and one that `describe` gave.

    A setting that the file does not have, since the library did not have it then, differs unless it is at its default.

    Parameters
    ----------
    held : object
        From a file; it may be anything that JSON can hold.
    own : object
        From `describe`.
    place : str
        The name of what is described.

    Examples
    --------
    >>> from aidotnet_py.descriptions import describe, differences
    >>> from aidotnet_py.nn import mlp
    >>> list(differences(describe(mlp(8, 1)), describe(mlp(9, 1)), "network"))
    ['network.layers[0].units is 8 there and 9 here']
    """
    if isinstance(own, dict) and isinstance(held, dict):
        yield from _of_mappings(held, own, place)
    elif isinstance(own, list) and isinstance(held, list):
        if len(held) != len(own):
            yield f"{place} has length {len(held)} there and {len(own)} here"
        for i, (one, other) in enumerate(zip(held, own, strict=False)):
            yield from differences(one, other, f"{place}[{i}]")
    elif held != own and not (held != held and own != own):
        yield f"{place} is {_shown(held)} there and {_shown(own)} here"


def _of_mappings(held: dict[str, Any], own: dict[str, Any], place: str) -> Iterator[str]:
    if held.get("type") != own.get("type"):
        yield f"{place} is {_shown(held)} there and {_shown(own)} here"
        return
    defaults = own.defaults if isinstance(own, _Settings) else frozenset[str]()
    for name in [*own, *(name for name in held if name not in own)]:
        where = f"{place}.{name}" if place else name
        if name in held and name in own:
            yield from differences(held[name], own[name], where)
        elif name in held:
            yield f"{where} is {_shown(held[name])} there and unknown here"
        elif name not in defaults:
            yield f"{where} is unknown there and {_shown(own[name])} here"


def _shown(value: Any) -> str:
    """A short text of a value, which may be huge or nested deeply."""
    if isinstance(value, dict):
        kind = value.get("type")
        return f"{kind:.80}" if isinstance(kind, str) else "a mapping"
    if isinstance(value, list):
        plain = len(value) <= 4 and all(isinstance(item, (int, float)) for item in value)
        return f"{tuple(value)!s:.80}" if plain else f"a list of {len(value)}"
    return f"{value!r:.80}"


def listed(clauses: Sequence[str]) -> str:
    """Join the first few of some clauses, and count the others.

    Examples
    --------
    >>> from aidotnet_py.descriptions import listed
    >>> listed(["a", "b"])
    'a; b'
    """
    more = len(clauses) - _MOST_LISTED
    return "; ".join(clauses[:_MOST_LISTED]) + (f"; and {more} more" if more > 0 else "")
