"""Which library code is of: the standard one, or an installed package, by the file that it stands in."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import PurePath
from types import FunctionType, ModuleType

__all__ = ["file_of_class", "file_of_module", "installed_files_of", "is_large", "library_of"]

# An installed package of more loaded modules is large.
_MOST_MODULES = 30
_PACKAGE = PurePath(__file__).parents[2]
_STANDARD_LIBRARY = PurePath(os.__file__).parent
_STANDARD = "<standard library>"
# How the files of modules begin that are part of the interpreter.
_BUILT_IN = "<frozen "


@lru_cache(maxsize=4096)
def library_of(file: str) -> str | None:
    """Return the package that a file was installed with, or a name for the standard library; None for others."""
    path = PurePath(file)
    if _PACKAGE in path.parents:
        return None
    for place, part in enumerate(path.parts[:-1]):
        if part in ("site-packages", "dist-packages"):
            return path.parts[place + 1].partition(".")[0]
    is_built_in = file.startswith(_BUILT_IN) or file.endswith(tuple(EXTENSION_SUFFIXES))
    return _STANDARD if is_built_in or _STANDARD_LIBRARY in path.parents else None


def is_large(library: str) -> bool:
    """Return whether a library is the standard one, or has many modules loaded by now."""
    modules = (name.partition(".")[0] for name in list(sys.modules))
    return library == _STANDARD or sum(package == library for package in modules) > _MOST_MODULES


def installed_files_of(value: object) -> set[str]:
    """Return the files of a function, or of an object's classes, that belong to installed packages."""
    files: list[str | None] = []
    if isinstance(value, FunctionType):
        files = [value.__code__.co_filename]
    elif not isinstance(value, ModuleType):
        files = [file_of_class(kind) for kind in type(value).__mro__]
    return {file for file in files if file and library_of(file) not in (None, _STANDARD)}


def file_of_class(kind: type) -> str | None:
    """Return the file of a class's module; see `file_of_module`."""
    return file_of_module(sys.modules.get(kind.__module__))


def file_of_module(value: object) -> str | None:
    """Return the file of a module; None for other objects, and for modules of no file that are not Python's own."""
    # What exec runs is put down to builtins, and what a tool runs to its __main__.
    if not isinstance(value, ModuleType) or value.__name__ in ("builtins", "__main__"):
        return None
    known = vars(value)
    file = known.get("__file__") or next(iter(known.get("__path__") or ()), None)
    if file:
        return str(file)
    return _BUILT_IN if value.__name__.partition(".")[0] in sys.stdlib_module_names else None
