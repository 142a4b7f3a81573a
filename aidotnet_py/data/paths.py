"""Checks of the paths of files and folders that loaders are given."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, cast

from aidotnet_py.arguments import check_given, refusal
from aidotnet_py.exceptions import ArgumentException

__all__ = ["check_folder", "check_path"]


def check_path(name: str, value: Any, wanted: str = "a path") -> Path:
    """Return a path; ArgumentException for any other value, and for an empty text, which would be the working folder.

    Examples
    --------
    >>> from aidotnet_py.data.paths import check_path
    >>> check_path("folder", "photos").name
    'photos'
    """
    check_given(name, value, wanted)
    if not isinstance(value, (str, os.PathLike)) or value == "":
        raise ArgumentException(refusal(name, wanted, cast(object, value)))
    return Path(cast(Any, value))


def check_folder(name: str, value: Any) -> Path:
    """Return the path of an existing folder; FileNotFoundError if there is nothing."""
    path = check_path(name, value)
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, f"{name} must be an existing folder, got nothing", str(path))
    if not path.is_dir():
        raise ArgumentException(refusal(name, "a folder", str(path)))
    return path
