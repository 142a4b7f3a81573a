"""Named arrays and a JSON description in one safetensors file, with a checksum: a format that cannot run code."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from aidotnet_py.caller import level_outside
from aidotnet_py.exceptions import ArgumentException, InvalidOperationException
from aidotnet_py.version import __version__
from aidotnet_py.whole_files import read_file, write_file

__all__ = ["pack", "read_file", "unpack", "write_file"]

Arrays = dict[str, NDArray[Any]]

_FORMAT = "2"
# What the metadata of files were before that.
_OLD_METADATA = {"kind", "description"}
# A file of ours begins with the length of its header in eight bytes, this, and the SHA-256 of the whole file, in which
# these 64 digits count as zeros.
_BEGINNING = b'{"__metadata__":{"checksum":"sha256:'
_START = 8 + len(_BEGINNING)
_END = _START + 64
_NO_DIGITS = b"0" * 64
# JSON takes some twenty times its own size in memory.
_MOST_HEADER = 2**24


def pack(kind: str, arrays: Mapping[str, NDArray[Any]], description: Mapping[str, Any]) -> bytes:
    """Return the arrays and the description as bytes; ``kind`` says what they are, and is asked for again by `unpack`.

    Equal arguments give equal bytes.

    Raises
    ------
    InvalidOperationException
        When an array holds NaN or infinity, which `unpack` would refuse.
    ArgumentException
        When an array or the description holds what safetensors or JSON cannot, or the latter is too long.

    Examples
    --------
    >>> import numpy as np
    >>> unpack("model", pack("model", {"w": np.zeros(2)}, {"name": "line"}))
    ({'w': array([0., 0.])}, {'name': 'line'})
    """
    if "__metadata__" in arrays:
        raise ArgumentException("an array must have another name than '__metadata__', which the format keeps to itself")
    try:
        # Not ascontiguousarray, which gives 0-d arrays an axis.
        contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        infinite = [name for name, array in contiguous.items() if not _is_finite(array)]
        plain, told = save(contiguous), json.dumps(dict(description))
    except (SafetensorError, TypeError, ValueError, KeyError, RecursionError) as error:
        raise ArgumentException(
            f"a file must be of arrays of numbers, and of numbers, strings, lists and mappings beside them: {error}"
        ) from error
    if infinite:
        raise InvalidOperationException(f"{infinite[0]} must be finite to be saved, got NaN or infinity in it")
    begin = 8 + int.from_bytes(plain[:8], "little")
    # The checksum first, so that it has a place of its own.
    metadata = {
        "checksum": f"sha256:{_NO_DIGITS.decode()}",
        "format": _FORMAT,
        "library": f"aidotnet_py {__version__}",
        "kind": kind,
        "description": told,
    }
    text = json.dumps({"__metadata__": metadata, **json.loads(plain[8:begin])}, separators=(",", ":")).encode()
    # The arrays begin at a multiple of eight bytes.
    text += b" " * (-len(text) % 8)
    if len(text) > _MOST_HEADER:
        raise ArgumentException(f"the description must take at most {_MOST_HEADER} bytes, got {len(text)}")
    head, body = bytearray(len(text).to_bytes(8, "little") + text), memoryview(plain)[begin:]
    digest = hashlib.sha256(head)
    digest.update(body)
    head[_START:_END] = digest.hexdigest().encode()
    return b"".join((head, body))


def unpack(kind: str, data: bytes, source: str = "data") -> tuple[Arrays, dict[str, Any]]:
    """Return the arrays and the description that `pack` put together.

    Raises
    ------
    ArgumentException
        When the bytes are not a safetensors file of that kind, are not those that `pack` gave, or an array holds NaN or
        infinity; the message names ``source``.

    Warns
    -----
    UserWarning
        When a version wrote them that did not write checksums yet.
    """
    header = _header(data, source)
    try:
        metadata = _json(header).get("__metadata__", {})
        description = _json(metadata.get("description", "null"))
        found, form, old = metadata.get("kind"), metadata.get("format"), metadata.keys() == _OLD_METADATA
        arrays = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArgumentException(f"{source} is not a safetensors file: {error!s:.200}") from error
    if found != kind or not isinstance(description, dict):
        raise ArgumentException(f"{source} holds {found or 'something else'!r:.80}; {kind!r} is wanted")
    if not old and form != _FORMAT:
        writer = metadata.get("library")
        raise ArgumentException(f"{source} must have format {_FORMAT}, got {form!r:.80} by {writer!r:.80}, a later one")
    if not old and not data.startswith(_BEGINNING, 8):
        raise ArgumentException(
            f"{source} is damaged or was written by another program: it has no checksum in its place"
        )
    for name, array in arrays.items():
        if not _is_finite(array):
            raise ArgumentException(f"{source} holds {name} that are not finite")
    if old:
        warnings.warn(
            f"{source} was written by aidotnet_py 0.1.0, without checksum, layers and options: damage and another "
            "network of the same size go unnoticed. A file that is saved anew has them",
            UserWarning,
            stacklevel=level_outside(),
        )
    return arrays, description  # pyright: ignore[reportUnknownVariableType] -- its values are whatever JSON holds


def _header(data: bytes, source: str) -> bytes:
    """The header, once its length holds and, if the file has one in its place, the checksum."""
    if not isinstance(data, bytes):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
        raise ArgumentException(f"{source} is not a safetensors file: bytes are wanted, got a {type(data).__name__}")
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(len(data) - 8, _MOST_HEADER):
        raise ArgumentException(f"{source} is not a safetensors file: its header is cut off, or too long")
    if data.startswith(_BEGINNING, 8) and _checksum(data) != data[_START:_END]:
        raise ArgumentException(f"{source} is damaged: it does not have the SHA-256 that it tells")
    return data[8 : 8 + length]


def _checksum(data: bytes) -> bytes:
    view = memoryview(data)
    digest = hashlib.sha256(view[:_START])
    digest.update(_NO_DIGITS)
    digest.update(view[_END:])
    return digest.hexdigest().encode()


def _json(text: str | bytes) -> Any:
    return json.loads(text, object_pairs_hook=_each_once)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _is_finite(array: NDArray[Any]) -> bool:
    return bool(np.isfinite(array).all())
