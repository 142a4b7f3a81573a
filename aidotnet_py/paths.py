"""Checks of the paths of files and folders that callers give."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, cast

from aidotnet_py.arguments import check_given, refusal
from aidotnet_py.exceptions import ArgumentException

__all__ = ["check_folder", "check_path"]


def check_path(name: str, value: object, wanted: str = "a path") -> Path:
    """Return a path; ArgumentException for any other value, and for an empty text, which would be the working folder.

    Examples
    --------
    >>> from aidotnet_py.paths import check_path
    >>> check_path("folder", "photos").name
    'photos'
    """
    check_given(name, value, wanted)
    given: Any = value
    text = cast(object, os.fspath(given)) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text:
        raise ArgumentException(refusal(name, wanted, given))
    if "\0" in text:
        raise ArgumentException(refusal(name, f"{wanted} without null characters", given))
    return Path(text)


def check_folder(name: str, value: object) -> Path:
    """Return the path of an existing folder; FileNotFoundError if there is nothing."""
    path = check_path(name, value)
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, f"{name} must be an existing folder, got nothing", str(path))
    if not path.is_dir():
        raise ArgumentException(refusal(name, "a folder", str(path)))
    return path
