"""The state that a traced function reads beside its arguments, to detect changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set
from enum import Enum
from functools import lru_cache, partial
from operator import is_
from types import CellType, CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np

from aidotnet_py.autodiff.tracing.libraries import (
    file_of_class,
    file_of_module,
    installed_files_of,
    is_large,
    library_of,
)

__all__ = ["CapturedState"]

# Types compared by value; other objects are compared by identity, and their contents one by one.
_PLAIN = (int, float, complex, str, bytes, type(None), np.generic, np.dtype, Enum, frozenset)
# Larger containers are compared by length alone.
_MOST_MEMBERS = 1000
# No more objects are searched; what hangs on them goes unnoticed.
_MOST_HOLDERS = 10_000
# With modules of large packages open, no more is remembered.
_MOST_READS = 20_000
# Packages whose objects are not settings of a model.
_WITHOUT_SETTINGS = (
    *("aidotnet_py.autodiff", "aidotnet_py.backends", "aidotnet_py.implicit", "aidotnet_py.solvers"),
    *("numpy", "scipy"),
)
# The flag of classes defined in Python.
_HEAP_TYPE = 1 << 9
# The attributes that hold their functions and arguments.
_WRAPPERS = (MethodType, staticmethod, classmethod, property, partial)
_WRAPPED = ("__func__", "__self__", "fget", "func", "args", "keywords")
_MISSING = object()
# What takes the names of variables and attributes as strings.
_READERS_BY_STRING = {"getattr", "hasattr", "vars", "__dict__", "globals"}

Get: TypeAlias = Callable[[Any, Any], Any]
Container: TypeAlias = list[Any] | tuple[Any, ...] | dict[Any, Any] | set[Any]


class CapturedState:
    """The state that functions refer to: closures, defaults, global variables, and attributes of objects among these.

    The names that code uses select the attributes and global variables to remember, with their contents to any depth:
    numbers, strings and containers of them by value, NumPy arrays by their types and bytes, everything else by
    identity. Names that are found nowhere are remembered where code may do without them: as strings, and in functions
    with ``try``. Other state goes unnoticed: attributes under computed names, files, the state of extension types, the
    elements of arrays on a device, and what only code of libraries reads. The libraries are the standard one and large
    packages that were installed, except for the modules that the functions, or the parts of our models, come from.

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
        search = _Search.of(functions)
        own = id(getattr(getattr(functions[0], "__self__", None), "__dict__", None))
        self._reads = [(get, name, value, place == own) for (place, name), (get, value) in search.reads.items()]
        self._containers = [(of, _members(of)) for of in search.containers]
        self._arrays = [(array, array.shape, array.dtype, array.tobytes()) for array in search.arrays]

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
        return any(
            array.shape != shape or array.dtype != dtype or array.tobytes() != data
            for array, shape, dtype, data in self._arrays
        )


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


def _names_in(code: CodeType) -> Iterator[tuple[str, bool]]:
    """Yield the global variables and attributes that code, or a function in it, uses; and whether it can miss them."""
    has_try = bool(code.co_exceptiontable)
    for name in code.co_names:
        yield name, has_try
    reads_by_string = not _READERS_BY_STRING.isdisjoint(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)
        elif reads_by_string and isinstance(constant, str):
            yield constant, True


class _Search:
    """A search through everything that functions reach by the names in their code.

    Code of libraries is left out: it leads through all of them. ``open_files`` are files of theirs that are searched.
    """

    def __init__(self, open_files: Set[str] = frozenset()) -> None:
        self._open_files = open_files
        # The files of what is handed to us.
        self._given_files = set[str]()
        self._are_large = dict[str, bool]()
        self.reads: dict[tuple[int, str], tuple[Get, Any]] = {}
        self.containers: list[Container] = []
        self.arrays: list[np.ndarray[Any, Any]] = []
        # By identity; the references keep ids from being reused.
        self._seen: dict[int, Any] = {}
        # Objects, with the number of names that were looked up in each.
        self._holders: list[tuple[Any, int]] = []
        # Names in the order that they appear in, at first those that are read without being named. One that code turns
        # out to do without appears once more.
        self._names = ["__call__", "__wrapped__"]
        self._may_miss = dict.fromkeys(self._names, False)
        self._reads_super = False

    @classmethod
    def of(cls, functions: Iterable[object]) -> _Search:
        """Return the search from functions, open for the modules that these, and what our objects hold, come from.

        Modules from which the search would go too far stay closed.
        """
        closed = search = cls()
        while True:
            for function in functions:
                search.visit(function, is_given=True)
            search._finish()
            if search is not closed and len(search.reads) > _MOST_READS:
                return closed
            if search._given_files <= search._open_files:
                return search
            search = cls(search._given_files | search._open_files)

    def _finish(self) -> None:
        """Look up every name in every object until no new ones appear."""
        before = -1
        while before != (before := len(self._names) + len(self._holders)):
            if "super" in self._may_miss and not self._reads_super:
                # What a class overrides is read too; objects that were searched before have more to find.
                self._reads_super = True
                self._holders = [(holder, 0) for holder, _ in self._holders]
            for i, (holder, done) in enumerate(self._holders[:]):
                if self._open_files and len(self.reads) > _MOST_READS:
                    return
                self._holders[i] = holder, len(self._names)
                self._look_up(holder, set(self._names[done:]))

    def _learn(self, names: Iterable[tuple[str, bool]]) -> None:
        for name, may_miss in names:
            if name not in self._may_miss or (may_miss and not self._may_miss[name]):
                self._may_miss[name] = may_miss
                self._names.append(name)

    def visit(self, value: Any, *, is_given: bool = False) -> None:
        """Note a value and search its contents; if it was given to us, its module is open."""
        if is_given:
            files = installed_files_of(value)
            self._given_files.update(file for file in files if library_of(file) not in _WITHOUT_SETTINGS)
        if id(value) in self._seen or _is_one(value, (*_PLAIN, CodeType)):
            return
        self._seen[id(value)] = value
        if _is_one(value, np.ndarray):
            if value.flags.writeable or value.base is not None:
                self.arrays.append(value)
        elif _is_one(value, FunctionType):
            self._visit_function(value)
        elif _is_one(value, (list, tuple, dict, set)):
            self._visit_container(value, is_given)
        elif _is_one(value, _WRAPPERS):
            self._visit_each((getattr(value, name, None) for name in _WRAPPED), is_given)
        else:
            self._hold(value)

    def _visit_each(self, values: Iterable[Any], is_given: bool) -> None:
        for value in values:
            self.visit(value, is_given=is_given)

    def _visit_container(self, value: Container, is_given: bool) -> None:
        if not isinstance(value, tuple):
            self.containers.append(value)
        if len(value) <= _MOST_MEMBERS:
            self._visit_each(value.values() if isinstance(value, dict) else value, is_given)

    def _visit_function(self, function: FunctionType) -> None:
        for name in ("__defaults__", "__kwdefaults__"):
            self._note(partial(getattr, function), name, id(function), getattr(function, name))
        self._hold(function)
        for cell in function.__closure__ or ():
            get = partial(_content, cell)
            self._note(get, "cell_contents", id(cell), get("cell_contents", _MISSING))
        # A library's code leads through the library; what it wraps and holds may be the caller's.
        if self._is_closed(function.__code__.co_filename):
            return
        names = list(_names_in(function.__code__))
        self._learn(names)
        if not _is_of(function.__module__, ("aidotnet_py",)):
            self._note(partial(getattr, function), "__code__", id(function), function.__code__)
            variables = function.__globals__
            for name, may_miss in names:
                if may_miss or name in variables:
                    self._note(variables.get, name, id(variables), variables.get(name, _MISSING))

    def _hold(self, value: Any) -> None:
        """Add an object, a class or a module to look up names in."""
        module = value.__name__ if isinstance(value, ModuleType) else _module_of(value)
        if _is_of(module, _WITHOUT_SETTINGS) or len(self._holders) >= _MOST_HOLDERS:
            return
        self._holders.append((value, 0))
        line = _places_in(value if isinstance(value, type) else type(value))
        if any(self._is_closed(place.file) for place in line):
            # Methods of a library call by names that are not searched for.
            for place in line:
                for name in () if self._is_closed(place.file) else place.names:
                    if _is_one(method := place.get(name, None), FunctionType):
                        self._note(place.get, name, place.identity, method)

    def _look_up(self, holder: Any, names: set[str]) -> None:
        is_given = _is_of(_module_of(holder), ("aidotnet_py",))
        nearer = list[_Place]()
        missing = {name for name in names if self._may_miss[name]}
        found = set[str]()
        for place in _places(holder):
            for name in names & place.names:
                # A value added later to a nearer place would hide this one.
                for empty in nearer if name not in found else ():
                    self._note(empty.get, name, empty.identity, _MISSING)
                self._note(place.get, name, place.identity, place.get(name, _MISSING), is_given=is_given)
            found |= names & place.names
            if not self._reads_super:
                names = names - place.names
            if place.grows and not self._is_closed(place.file):
                nearer.append(place)
        for name in missing - found:
            for empty in nearer:
                self._note(empty.get, name, empty.identity, _MISSING)

    def _note(self, get: Get, name: str, identity: int, value: Any, *, is_given: bool = False) -> None:
        self.reads[identity, name] = get, value
        if value is not _MISSING:
            self.visit(value, is_given=is_given)

    def _is_closed(self, file: str | None) -> bool:
        library = None if file is None or file in self._open_files else library_of(file)
        if library is None:
            return False
        if library not in self._are_large:
            self._are_large[library] = is_large(library)
        return self._are_large[library]


def _is_one(value: object, kinds: type | tuple[type, ...]) -> bool:
    # A function, because isinstance would narrow Any to types with unknown parameters.
    return isinstance(value, kinds)


class _Place(NamedTuple):
    """A place of attributes: their names, the function that reads one, whether it can grow, and its module's file."""

    names: Set[str]
    get: Get
    identity: int
    grows: bool = True
    file: str | None = None


def _places(holder: Any) -> Iterator[_Place]:
    """Yield the places where Python looks for an object's attributes, the nearest first."""
    kind = holder if isinstance(holder, type) else type(holder)
    slots = _slots_of(kind)
    if slots and holder is not kind:
        yield _Place(slots, partial(getattr, holder), id(holder), False)
    own = getattr(holder, "__dict__", None)
    if isinstance(own, dict):
        attributes = cast("dict[str, Any]", own)
        yield _Place(attributes.keys(), attributes.get, id(attributes), file=file_of_module(holder))
    yield from _places_in(kind)


@lru_cache(maxsize=256)
def _slots_of(kind: type) -> set[str]:
    """Return the names of the attributes that objects of a class have in slots."""
    return {name for c in kind.__mro__ for name, value in vars(c).items() if isinstance(value, MemberDescriptorType)}


@lru_cache(maxsize=256)
def _places_in(kind: type) -> list[_Place]:
    """Return the classes that attributes may come from."""
    line = [c for c in kind.__mro__ if c.__flags__ & _HEAP_TYPE and not _is_of(c.__module__, ("abc", "typing"))]
    return [_Place(vars(c).keys(), vars(c).get, id(c), file=file_of_class(c)) for c in line]


def _content(cell: CellType, _: str, default: object) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # the variable has no value yet
        return default


def _module_of(value: Any) -> str:
    return str((value if isinstance(value, type) else type(value)).__module__)


def _is_of(module: str | None, names: tuple[str, ...]) -> bool:
    return any(module == name or str(module).startswith(name + ".") for name in names)
