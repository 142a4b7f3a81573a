"""The state that a traced function reads beside its arguments, to detect changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from enum import Enum
from functools import lru_cache, partial
from operator import is_
from types import CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np

__all__ = ["CapturedState"]

# Types compared by value; other objects are compared by identity, and their contents one by one.
_PLAIN = (int, float, complex, str, bytes, type(None), np.generic, np.dtype, Enum, frozenset)
# Larger containers are compared by length alone.
_MOST_MEMBERS = 1000
# Packages whose global variables and objects are not settings of a model.
_LIBRARIES = ("aidotnet_py.autodiff", "aidotnet_py.backends", "aidotnet_py.implicit", "aidotnet_py.solvers")
_PACKAGES = ("aidotnet_py", "numpy", "scipy")
# The flag of classes defined in Python.
_HEAP_TYPE = 1 << 9
# The attributes that hold their functions and arguments.
_WRAPPERS = (MethodType, staticmethod, classmethod, property, partial)
_WRAPPED = ("__func__", "__self__", "fget", "func", "args", "keywords")
_MISSING = object()

Get: TypeAlias = Callable[[Any, Any], Any]
Container: TypeAlias = list[Any] | tuple[Any, ...] | dict[Any, Any] | set[Any]


class CapturedState:
    """The state that functions refer to: closures, defaults, global variables, and attributes of objects among these.

    The names that code uses select the attributes and global variables to remember, with their contents to any depth:
    numbers, strings and containers of them by value, NumPy arrays by their bytes, everything else by identity. Other
    state goes unnoticed: attributes under computed names, files, the state of extension types, the elements of arrays
    on a device.

    Parameters
    ----------
    *functions : callable or None
        Functions, bound methods, or objects with ``__call__``.

    Examples
    --------
    >>> def scaled_by(settings):
    ...     return lambda x: settings["factor"] * x
    >>> settings = {"factor": 2.0}
    >>> state = CapturedState(scaled_by(settings))
    >>> state.changed()
    False
    >>> settings["factor"] = 3.0
    >>> state.changed()
    True
    """

    def __init__(self, *functions: Callable[..., Any] | None) -> None:
        search = _Search()
        for function in functions:
            search.visit(function)
        search.finish()
        own = id(getattr(getattr(functions[0], "__self__", None), "__dict__", None))
        self._reads = [(get, name, value, place == own) for (place, name), (get, value) in search.reads.items()]
        self._containers = [(of, _members(of)) for of in search.containers]
        self._arrays = [(array, array.tobytes()) for array in search.arrays]

    def changed(self, twin: object = None) -> bool:
        """Whether any of the state changed.

        A ``twin`` is a copy of the object whose method the first function is; its attributes are compared instead.
        """
        of_twin = None if twin is None else vars(twin).get
        for get, name, value, own in self._reads:
            now = (of_twin if own and of_twin is not None else get)(name, _MISSING)
            if now is not value and not _same(now, value):
                return True
        for container, members in self._containers:
            now = _members(container)
            if len(now) != len(members):
                return True
            # Mostly, nothing has changed.
            if not all(map(is_, now, members)) and not all(map(_same, now, members)):
                return True
        return any(array.tobytes() != data for array, data in self._arrays)


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if type(one) is not type(other) or not isinstance(one, _PLAIN):
        return False
    if isinstance(one, (float, complex, np.inexact)):
        # 0.0 is not −0.0, and NaN is NaN.
        return repr(one) == repr(other)  # pyright: ignore[reportUnknownArgumentType] -- of any precision
    return bool(one == other) or bool(one != one and other != other)


def _members(container: Container) -> tuple[Any, ...]:
    if len(container) > _MOST_MEMBERS:
        return (len(container),)
    if isinstance(container, dict):
        return (*container, *container.values())
    return (frozenset(container),) if isinstance(container, set) else tuple(container)


def _names_in(code: CodeType) -> Iterator[str]:
    """Yield the global variables and attributes that code, or a function defined in it, uses."""
    yield from code.co_names
    reads_by_string = "getattr" in code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)
        elif reads_by_string and isinstance(constant, str):
            yield constant


class _Search:
    """A search through everything that functions reach by the names in their code."""

    def __init__(self) -> None:
        self.reads: dict[tuple[int, str], tuple[Get, Any]] = {}
        self.containers: list[Container] = []
        self.arrays: list[np.ndarray[Any, Any]] = []
        # By identity; the references keep ids from being reused.
        self._seen: dict[int, Any] = {}
        self._holders: list[tuple[Any, set[str]]] = []
        # Attributes that are read without being named.
        self._names = {"__call__", "__wrapped__"}
        self._reads_super = False

    def finish(self) -> None:
        """Look up every name in every object until no new ones appear."""
        before = -1
        while before != (before := len(self._names) + len(self._holders)):
            if "super" in self._names and not self._reads_super:
                # What a class overrides is read too; objects that were searched before have more to find.
                self._reads_super = True
                for _, done in self._holders:
                    done.clear()
            for holder, done in list(self._holders):
                names = self._names - done
                done |= names
                self._look_up(holder, names)

    def visit(self, value: Any) -> None:
        """Note a value and search its contents."""
        if id(value) in self._seen or _is_one(value, (*_PLAIN, CodeType)):
            return
        self._seen[id(value)] = value
        if _is_one(value, np.ndarray):
            if value.flags.writeable or value.base is not None:
                self.arrays.append(value)
        elif _is_one(value, FunctionType):
            self._visit_function(value)
        elif _is_one(value, (list, tuple, dict, set)):
            self._visit_container(value)
        elif _is_one(value, _WRAPPERS):
            self._visit_each(*(getattr(value, name, None) for name in _WRAPPED))
        else:
            self._hold(value)

    def _visit_each(self, *values: Any) -> None:
        for value in values:
            self.visit(value)

    def _visit_container(self, value: Container) -> None:
        if not isinstance(value, tuple):
            self.containers.append(value)
        if len(value) <= _MOST_MEMBERS:
            self._visit_each(*(value.values() if isinstance(value, dict) else value))

    def _visit_function(self, function: FunctionType) -> None:
        names = set(_names_in(function.__code__))
        self._names |= names
        for name in ("__defaults__", "__kwdefaults__"):
            self._note(partial(getattr, function), name, id(function), getattr(function, name))
        self._holders.append((function, set()))
        for cell in function.__closure__ or ():
            self._note(partial(getattr, cell), "cell_contents", id(cell), getattr(cell, "cell_contents", _MISSING))
        if not _is_of(function.__module__, _PACKAGES):
            for name in names & function.__globals__.keys():
                self._note(function.__globals__.get, name, id(function.__globals__), function.__globals__[name])

    def _hold(self, value: Any) -> None:
        """Add an object, a class or a module to look up names in."""
        module = value.__name__ if isinstance(value, ModuleType) else _module_of(value)
        if not _is_of(module, (*_LIBRARIES, "numpy", "scipy")):
            self._holders.append((value, set()))

    def _look_up(self, holder: Any, names: set[str]) -> None:
        nearer, found = list[_Place](), set[str]()
        for place in _places(holder):
            for name in names & place.names:
                # A value added later to a nearer place would hide this one.
                for empty in nearer if name not in found else ():
                    self._note(empty.get, name, empty.identity, _MISSING)
                self._note(place.get, name, place.identity, place.get(name, _MISSING))
            found |= names & place.names
            if not self._reads_super:
                names = names - place.names
            if place.grows:
                nearer.append(place)

    def _note(self, get: Get, name: str, identity: int, value: Any) -> None:
        self.reads[identity, name] = get, value
        if value is not _MISSING:
            self.visit(value)


def _is_one(value: object, kinds: type | tuple[type, ...]) -> bool:
    # A function, because isinstance would narrow Any to types with unknown parameters.
    return isinstance(value, kinds)


class _Place(NamedTuple):
    """A place of attributes: their names, the function that reads one, and whether the place can grow."""

    names: Set[str]
    get: Get
    identity: int
    grows: bool = True


def _places(holder: Any) -> Iterator[_Place]:
    """Yield the places where Python looks for an object's attributes, the nearest first."""
    kind = holder if isinstance(holder, type) else type(holder)
    slots = _slots_of(kind)
    if slots and holder is not kind:
        yield _Place({name for name in slots if hasattr(holder, name)}, partial(getattr, holder), id(holder), False)
    own = getattr(holder, "__dict__", None)
    if isinstance(own, dict):
        attributes = cast("dict[str, Any]", own)
        yield _Place(attributes.keys(), attributes.get, id(attributes))
    yield from _places_in(kind)


@lru_cache(maxsize=256)
def _slots_of(kind: type) -> list[str]:
    """Return the names of the attributes that objects of a class have in slots."""
    return [name for c in kind.__mro__ for name, value in vars(c).items() if isinstance(value, MemberDescriptorType)]


@lru_cache(maxsize=256)
def _places_in(kind: type) -> list[_Place]:
    """Return the classes that attributes may come from."""
    line = [c for c in kind.__mro__ if c.__flags__ & _HEAP_TYPE and not _is_of(c.__module__, ("abc", "typing"))]
    return [_Place(vars(c).keys(), vars(c).get, id(c)) for c in line]


def _module_of(value: Any) -> str:
    return str((value if isinstance(value, type) else type(value)).__module__)


def _is_of(module: str | None, names: tuple[str, ...]) -> bool:
    return any(module == name or str(module).startswith(name + ".") for name in names)
