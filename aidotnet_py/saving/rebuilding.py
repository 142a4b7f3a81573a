"""Objects from their descriptions: the way back from `aidotnet_py.descriptions.describe`.

A file names classes and functions, and never says where to import them from: names are looked up in this package, and
in modules that the caller names.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import ModuleType, NoneType
from typing import Any, cast

import numpy as np

from aidotnet_py import losses, nn, optimizers
from aidotnet_py.arguments import refusal
from aidotnet_py.constructors import parameters_of
from aidotnet_py.descriptions import describe, differences, join_clauses, settings_of
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning import ProblemConstants
from aidotnet_py.meta_learning.algorithms.prototypes import Scores

__all__ = ["Rebuilder", "require_same"]


def _own() -> dict[str, type[Any]]:
    """Return the classes of this package that descriptions may name."""
    named: dict[str, Any] = {name: getattr(room, name) for room in (nn, losses, optimizers) for name in room.__all__}
    classes = {name: value for name, value in named.items() if isinstance(value, type)}
    return {**classes, "ProblemConstants": ProblemConstants}


_OWN = _own()
# Objects of this package that are functions made of functions: all their settings are functions.
_FUNCTIONS: Mapping[str, type[Any]] = {"Scores": Scores}


class Rebuilder:
    """Makes objects from descriptions: layers, losses, optimizers, schedules; and finds functions by their names.

    Parameters
    ----------
    trust : sequence of str
        Names of modules whose classes and functions may be used; they are imported. No other code runs.

    Raises
    ------
    ArgumentException
        When ``trust`` is no sequence of names of modules.
    ImportError
        When there is no such module.

    Examples
    --------
    >>> from aidotnet_py.descriptions import describe
    >>> from aidotnet_py.nn import mlp
    >>> from aidotnet_py.saving import Rebuilder
    >>> Rebuilder().object(describe(mlp(8, 1)), "network")
    Sequential(Dense(8), ReLU(), Dense(1))
    """

    def __init__(self, trust: Sequence[str] = ()) -> None:
        given: Any = trust
        if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(n, str) for n in trust):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
            raise ArgumentException(refusal("trust", "a list of names of modules, such as ['my_models']", trust))
        self._modules: list[ModuleType] = [sys.modules.get(name) or import_module(name) for name in trust]

    def object(self, description: Any, place: str) -> Any:
        """Return the object that a description tells of; plain values are themselves.

        Raises
        ------
        ArgumentException
            When it names a class that is not there, or does not hold all that the object needs; ``place`` names it.
        """
        if isinstance(description, list):
            return tuple(self.object(item, f"{place}[{i}]") for i, item in enumerate(description))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] -- of any JSON
        if not isinstance(description, dict):
            return description
        held = cast("dict[str, Any]", description)
        kind = held.get("type")
        if not isinstance(kind, str):
            raise ArgumentException(f"{place} must be of a named type to be made again, got {held!r:.80}")
        cls = _OWN.get(kind) or self._named(kind, place, "class")
        if not isinstance(cls, type):
            raise ArgumentException(f"{place} must be an object of a class, got {kind:.80}, which is no class")
        made = self._make(cls, {name: value for name, value in held.items() if name != "type"}, place)
        clauses = list(differences(held, describe(made), place))
        if clauses:
            raise ArgumentException(f"{place} must be as its description when made again, got {join_clauses(clauses)}")
        return made

    def _make(self, cls: type[Any], settings: Mapping[str, Any], place: str) -> Any:
        positional: list[Any] = []
        keywords: dict[str, Any] = {}
        for name, parameter in parameters_of(cls).items():
            key = "type_" if name == "type" else name
            if key not in settings:
                continue
            value = self.object(settings[key], f"{place}.{name}")
            if parameter.kind is parameter.VAR_POSITIONAL:
                positional += value
            else:
                keywords[name] = value
        try:
            return cls(*positional, **keywords)
        # Settings from a file may be of any kind, and a class may fail on them in any way.
        except Exception as error:
            raise ArgumentException(
                f"{place} must be a {cls.__name__} with valid settings, got others: {error}"
            ) from error

    def function(self, description: Any, place: str) -> Any:
        """Return a function of a trusted module by its name, or one of this package that is made of such functions.

        Raises
        ------
        ArgumentException
            When no trusted module defines it, or it is no description of a function; ``place`` names what it is for.
        """
        if isinstance(description, str):
            return self._named(description, place, "function")
        held = cast("dict[str, Any]", description) if isinstance(description, dict) else {}
        cls = _FUNCTIONS.get(str(held.get("type")))
        if cls is None or held.keys() != {"type", *parameters_of(cls)}:
            raise ArgumentException(refusal(place, "the name of a function", cast(object, description)))
        return cls(**{name: self.function(held[name], place) for name in parameters_of(cls)})

    def _named(self, name: str, place: str, kind: str) -> Any:
        for module in self._modules:
            value: Any = module
            for part in name.split("."):
                value = getattr(value, part, None)
            # Defined there, not only imported there.
            where = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
            if where == (module.__name__, name) and callable(value):
                return value
        known = ", ".join(repr(module.__name__) for module in self._modules) or "none"
        raise ArgumentException(
            f"{place} must be of this package or of a trusted module ({known}), got the {kind} {name:.80}; if you "
            "trust the module that defines it, name it in trust=[…]"
        )


def require_same(made: Any, given: Any, place: str) -> None:
    """Raise ArgumentException unless an object that was made again has the classes of the one that was described.

    Files name classes without their modules, and have text in the place of what JSON lacks, such as functions.

    Examples
    --------
    >>> from aidotnet_py.nn import mlp
    >>> from aidotnet_py.saving.rebuilding import require_same
    >>> require_same(mlp(8, 1), mlp(8, 1), "network")
    """
    here, there = type(cast(object, given)), type(cast(object, made))
    if issubclass(here, (list, tuple)) and issubclass(there, (list, tuple)):
        for i, (one, other) in enumerate(zip(made, given, strict=True)):
            require_same(one, other, f"{place}[{i}]")
    elif issubclass(here, (bool, int, float, str, np.generic, NoneType)):
        # Made again from themselves.
        return
    elif here is not there:
        remedy = (
            "give the class another name"
            if here.__name__ == there.__name__
            else "describe it by numbers, text or lists"
        )
        raise ArgumentException(
            f"{place} must be what load makes of its description, {there.__module__}.{there.__qualname__}, got "
            f"{here.__module__}.{here.__qualname__}; {remedy}"
        )
    else:
        settings = settings_of(made)
        for name, value in settings_of(given).items():
            require_same(settings[name], value, f"{place}.{name}")
