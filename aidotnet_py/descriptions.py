"""Descriptions of objects in JSON for files, such as a network's layers, and the differences of two descriptions."""

# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# Values here are of any type, or whatever JSON holds.

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np

from aidotnet_py.constructors import parameters_of

__all__ = ["Described", "describe", "differences", "join_clauses", "settings_of"]

# Longer sequences are described by a digest.
_LONGEST = 100
# Objects that are nested deeper are described by their types alone; `Described` objects may lie deeper.
_DEEPEST = 2
_MOST_LISTED = 20
# Types without a form in JSON, described by their representation.
_BY_REPRESENTATION = (complex, bytes, np.dtype, np.generic)


class Described:
    """A base of classes whose settings are described at any depth of nesting."""

    def settings(self) -> dict[str, Any]:
        """Return the settings that distinguish this object from others of its class, by name.

        These are its public attributes, and arguments of the constructor that it keeps under an underscored name. A
        class with other attributes, such as counters, overrides this method.
        """
        public = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return {**_constructor_arguments(self), **public}


class _Settings(dict[str, Any]):
    """An object's description, with the names of settings that have the constructor's default."""

    defaults: frozenset[str] = frozenset()


def describe(value: Any, depth: int = 0, within: frozenset[int] = frozenset()) -> Any:
    """Return a description of a value in JSON.

    Numbers, strings, lists and mappings describe themselves. Arrays are described by type and digest; functions by
    their qualified names; sets, bytes, complex numbers and dtypes by their representations; an object by
    ``{"type": …}`` with its settings. The settings of an object other than `Described` are the arguments of its
    constructor that it keeps under the same name, with or without an underscore. An object within itself is described
    by its type.

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
    if isinstance(value, _BY_REPRESENTATION):
        return repr(value)
    if isinstance(value, (set, frozenset)):
        return {"set": sorted(repr(describe(item, depth, within)) for item in value)}
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            # The bytes of such arrays are addresses.
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
    description = _Settings(type=type(value).__name__)
    if id(value) in within:
        return description
    within |= {id(value)}
    if not isinstance(value, Described):
        if depth >= _DEEPEST:
            return description
        depth += 1
    settings = settings_of(value)
    description.update({_key(name): describe(item, depth, within) for name, item in settings.items()})
    defaults = {name: parameter.default for name, parameter in parameters_of(type(value)).items()}
    description.defaults = frozenset(
        _key(name)
        for name in settings
        if name in defaults and description[_key(name)] == describe(defaults[name], depth, within)
    )
    return description


def settings_of(value: Any) -> dict[str, Any]:
    """Return the settings by which an object is described, by name.

    Examples
    --------
    >>> from aidotnet_py import SGDOptimizer
    >>> from aidotnet_py.descriptions import settings_of
    >>> settings_of(SGDOptimizer(0.5))
    {'learning_rate': 0.5, 'momentum': 0.0}
    """
    return value.settings() if isinstance(value, Described) else _constructor_arguments(value)


def _key(name: str) -> str:
    """Return the key of a setting in a description, where ``type`` is the key of the class."""
    return "type_" if name == "type" else name


def _constructor_arguments(value: Any) -> dict[str, Any]:
    kept = getattr(value, "__dict__", {})
    names = {name: name if name in kept else f"_{name}" for name in parameters_of(type(value))}
    return {name: kept[place] for name, place in names.items() if place in kept}


def differences(held: Any, own: Any, place: str = "") -> Iterator[str]:
    """Yield a clause for each difference between a description in a file and one from `describe`.

    A setting that is missing in the file, since it is newer than the file, differs unless it has its default.

    Parameters
    ----------
    held : object
        A description from a file, which may be any JSON.
    own : object
        A description from `describe`.
    place : str
        The name of the described object.

    Examples
    --------
    >>> from aidotnet_py.descriptions import describe, differences
    >>> from aidotnet_py.nn import mlp
    >>> list(differences(describe(mlp(8, 1)), describe(mlp(9, 1)), "network"))
    ['network.layers[0].units is 8 there and 9 here']
    """
    if isinstance(own, dict) and isinstance(held, dict):
        yield from _mapping_differences(held, own, place)
    elif isinstance(own, list) and isinstance(held, list):
        if len(held) != len(own):
            yield f"{place} has length {len(held)} there and {len(own)} here"
        for i, (one, other) in enumerate(zip(held, own, strict=False)):
            yield from differences(one, other, f"{place}[{i}]")
    elif held != own and not (held != held and own != own):
        yield f"{place} is {_short(held)} there and {_short(own)} here"


def _mapping_differences(held: dict[str, Any], own: dict[str, Any], place: str) -> Iterator[str]:
    if held.get("type") != own.get("type"):
        yield f"{place} is {_short(held)} there and {_short(own)} here"
        return
    defaults = own.defaults if isinstance(own, _Settings) else frozenset[str]()
    for name in [*own, *(name for name in held if name not in own)]:
        where = f"{place}.{name}" if place else name
        if name in held and name in own:
            yield from differences(held[name], own[name], where)
        elif name in held:
            yield f"{where} is {_short(held[name])} there and unknown here"
        elif name not in defaults:
            yield f"{where} is unknown there and {_short(own[name])} here"


def _short(value: Any) -> str:
    """Return a short text for a value of any size and depth."""
    if isinstance(value, dict):
        kind = value.get("type")
        return f"{kind:.80}" if isinstance(kind, str) else "a mapping"
    if isinstance(value, list):
        plain = len(value) <= 4 and all(isinstance(item, (int, float)) for item in value)
        return f"{tuple(value)!s:.80}" if plain else f"a list of {len(value)}"
    return f"{value!r:.80}"


def join_clauses(clauses: Sequence[str]) -> str:
    """Join the first clauses, and count the others.

    Examples
    --------
    >>> from aidotnet_py.descriptions import join_clauses
    >>> join_clauses(["a", "b"])
    'a; b'
    """
    more = len(clauses) - _MOST_LISTED
    return "; ".join(clauses[:_MOST_LISTED]) + (f"; and {more} more" if more > 0 else "")
