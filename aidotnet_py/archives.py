"""Named arrays and a JSON description in one safetensors file: a format that cannot run code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from aidotnet_py.exceptions import ArgumentException, ArgumentNullException

__all__ = ["pack", "read_file", "unpack", "write_file"]

Arrays = dict[str, NDArray[Any]]


def pack(kind: str, arrays: Mapping[str, NDArray[Any]], description: Mapping[str, Any]) -> bytes:
    """The arrays and the description as bytes; ``kind`` says what they are, and is asked for again by `unpack`.

    Examples
    --------
    >>> import numpy as np
    >>> unpack("model", pack("model", {"w": np.zeros(2)}, {"name": "line"}))
    ({'w': array([0., 0.])}, {'name': 'line'})
    """
    # Not ascontiguousarray, which gives 0-d arrays an axis.
    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    return save(contiguous, {"kind": kind, "description": json.dumps(dict(description))})


def unpack(kind: str, data: bytes, source: str = "data") -> tuple[Arrays, dict[str, Any]]:
    """The arrays and the description that `pack` put together.

    Raises
    ------
    ArgumentException
        When the bytes are not a safetensors file of that kind; the message names ``source``.
    """
    try:
        arrays = load(data)
        # The header: eight bytes of length, then JSON; `load` has checked that it is well formed.
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
        description = json.loads(metadata.get("description", "null"))
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArgumentException(f"{source} is not a safetensors file: {error}") from error
    found = metadata.get("kind")
    if found != kind or not isinstance(description, dict):
        raise ArgumentException(f"{source} holds {found or 'something else'!r}; {kind!r} is wanted")
    return arrays, description  # pyright: ignore[reportUnknownVariableType] -- its values are whatever JSON holds


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file whole or not at all: into a temporary one beside it, which then takes its name.

    Raises
    ------
    ArgumentException
        When the path is a folder, or lies in none that exists.
    """
    # Resolved, so that a symbolic link stays one.
    target = _checked(path).resolve()
    if not target.parent.is_dir():
        raise ArgumentException(f"filePath is {str(path)!r}; there is no folder {str(target.parent)!r}")
    if target.is_dir():
        raise ArgumentException(f"filePath is {str(path)!r}, a folder; a file is wanted")
    temporary = target.with_name(f".{uuid4().hex}.part")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file.

    Raises
    ------
    ArgumentException
        When there is no such file.
    """
    source = _checked(path)
    if not source.is_file():
        raise ArgumentException(f"filePath is {str(path)!r}; there is no such file")
    return source.read_bytes()


def _checked(path: Any) -> Path:
    if path is None:
        raise ArgumentNullException("filePath is None; a path is wanted")
    try:
        return Path(path)
    except TypeError:
        raise ArgumentException(f"filePath is {path!r}; a path is wanted") from None
