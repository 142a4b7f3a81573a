"""Named arrays and a JSON description in one safetensors file, with a checksum: a format that cannot run code."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from aidotnet_py.arguments import check_given
from aidotnet_py.caller import level_outside
from aidotnet_py.exceptions import ArgumentException, InvalidOperationException
from aidotnet_py.json_text import json_text
from aidotnet_py.version import __version__
from aidotnet_py.whole_files import read_file, write_file

__all__ = ["check_file_name", "kind_of", "pack", "read_file", "unpack", "write_file"]

Arrays = dict[str, NDArray[Any]]

_FORMAT = "2"
# Version 0.1.0 wrote these metadata alone.
_OLD_METADATA = {"kind", "description"}
# A file begins with the length of its header in eight bytes, this text, and the SHA-256 of the whole file, in which
# its own 64 digits count as zeros.
_BEGINNING = b'{"__metadata__":{"checksum":"sha256:'
_START = 8 + len(_BEGINNING)
_END = _START + 64
_NO_DIGITS = b"0" * 64
# Parsed JSON takes about twenty times its size in memory.
_MOST_HEADER = 2**24


# The endings of formats: what has them, and for some what writes them.
_FORMATS = {
    ".safetensors": ("safetensors", "; SaveModel writes safetensors"),
    **dict.fromkeys((".pkl", ".pickle", ".joblib"), ("pickle", "")),
    **dict.fromkeys((".pt", ".pth"), ("PyTorch", "; aidotnet_py.exchange.save_state_dict writes weights for PyTorch")),
    ".onnx": ("ONNX", "; aidotnet_py.exchange.export_onnx writes ONNX"),
    ".py": ("Python", "; aidotnet_py.exchange.export_numpy writes a module"),
    **dict.fromkeys((".npy", ".npz"), ("NumPy", "")),
    **dict.fromkeys((".h5", ".hdf5", ".keras"), ("HDF5", "")),
    ".json": ("JSON", ""),
    ".csv": ("CSV", ""),
    ".tsv": ("TSV", ""),
    **dict.fromkeys((".parquet", ".pq"), ("Parquet", "")),
}


def check_file_name(name: str, path: str | os.PathLike[str], ending: str = ".safetensors") -> None:
    """Refuse a path whose ending is that of another format than what has ``ending``; ``name`` is the argument's.

    Raises
    ------
    ArgumentException
        It is; the message says what writes such files.

    Examples
    --------
    >>> from aidotnet_py.archives import check_file_name
    >>> check_file_name("filePath", "model.safetensors")
    """
    if not isinstance(path, (str, os.PathLike)):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
        return
    given = Path(os.fsdecode(path))
    (own, _), (kind, other) = _FORMATS[ending], _FORMATS.get(given.suffix.lower(), _FORMATS[ending])
    if kind != own:
        raise ArgumentException(
            f"{name} must be the name of a file of {own}, got {given.name!r}, which is one of {kind}; use "
            f"{given.with_suffix(ending).name!r}{other}"
        )


def pack(kind: str, arrays: Mapping[str, NDArray[Any]], description: Mapping[str, Any]) -> bytes:
    """Return arrays and a description as the bytes of a file; equal arguments give equal bytes.

    ``kind`` names the sort of content; `unpack` refuses a file of another kind.

    Raises
    ------
    InvalidOperationException
        An array holds NaN or infinity, which `unpack` would refuse.
    ArgumentException
        An array or the description holds a value that safetensors or JSON cannot hold, or the description is too long.

    Examples
    --------
    >>> import numpy as np
    >>> unpack("model", pack("model", {"w": np.zeros(2)}, {"name": "line"}))
    ({'w': array([0., 0.])}, {'name': 'line'})
    """
    if "__metadata__" in arrays:
        raise ArgumentException("names of arrays must not be '__metadata__', which safetensors reserves")
    try:
        # Not ascontiguousarray, which gives 0-d arrays an axis.
        contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        infinite = [name for name, array in contiguous.items() if not _is_finite(array)]
        plain, described = save(contiguous), json_text(dict(description))
    except (SafetensorError, TypeError, ValueError, KeyError, RecursionError) as error:
        raise ArgumentException(
            f"a file must hold arrays of numbers, and a description of numbers, strings, lists and mappings: {error}"
        ) from error
    if infinite:
        raise InvalidOperationException(f"{infinite[0]} must be finite to be saved, got NaN or infinity in it")
    begin = 8 + int.from_bytes(plain[:8], "little")
    # The checksum comes first, so that its place is fixed.
    metadata = {
        "checksum": f"sha256:{_NO_DIGITS.decode()}",
        "format": _FORMAT,
        "library": f"aidotnet_py {__version__}",
        "kind": kind,
        "description": described,
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
    """Return the arrays and the description of a file that `pack` made.

    Raises
    ------
    ArgumentException
        The bytes are no safetensors file of this kind, differ from those that `pack` returned, or an array holds NaN or
        infinity; the message names ``source``.

    Warns
    -----
    UserWarning
        Version 0.1.0 wrote the file, without a checksum.
    """
    header = _read_header(data, source)
    try:
        metadata = _parse(header).get("__metadata__", {})
        description = _parse(metadata.get("description", "null"))
        held, form, old = metadata.get("kind"), metadata.get("format"), metadata.keys() == _OLD_METADATA
        arrays = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArgumentException(f"{source} must be a safetensors file: {error!s:.200}") from error
    if held != kind:
        raise ArgumentException(f"{source} must hold {kind!r}, got {held or 'another content'!r:.80}")
    if not isinstance(description, dict):
        raise ArgumentException(f"{source} must hold a mapping as its description, got {description!r:.80}")
    if not old and form != _FORMAT:
        writer = metadata.get("library")
        raise ArgumentException(f"{source} must have format {_FORMAT}, got {form!r:.80} by {writer!r:.80}, a later one")
    if not old and not data.startswith(_BEGINNING, 8):
        raise ArgumentException(
            f"{source} must have its checksum at the beginning, got none: it is damaged, or another program wrote it"
        )
    for name, array in arrays.items():
        if not _is_finite(array):
            raise ArgumentException(f"{source} must hold finite numbers, got NaN or infinity in {name}")
    if old:
        warnings.warn(
            f"{source} was written by aidotnet_py 0.1.0, without checksum, layers and options: damage and another "
            "network of the same size go unnoticed; save it again to add them",
            UserWarning,
            stacklevel=level_outside(),
        )
    return arrays, description  # pyright: ignore[reportUnknownVariableType] -- its values are whatever JSON holds


def kind_of(data: bytes, source: str = "data") -> str:
    """Return the kind that `pack` was given for a file.

    Raises
    ------
    ArgumentException
        The bytes are no such file, or damaged; the message names ``source``.

    Examples
    --------
    >>> kind_of(pack("model", {}, {}))
    'model'
    """
    try:
        kind = _parse(_read_header(data, source))["__metadata__"]["kind"]
    except ArgumentException:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArgumentException(f"{source} must be a safetensors file of this package: {error!s:.200}") from error
    return str(kind)


def _read_header(data: bytes, source: str) -> bytes:
    """Return the header, after checks of its length and of the checksum if the file has one in its place."""
    check_given(source, data, "the bytes of a safetensors file")
    if not isinstance(data, bytes):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
        raise ArgumentException(f"{source} must be the bytes of a safetensors file, got a {type(data).__name__}")
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(len(data) - 8, _MOST_HEADER):
        raise ArgumentException(f"{source} must be a safetensors file, got a header that is cut off or too long")
    if data.startswith(_BEGINNING, 8) and _checksum(data) != data[_START:_END]:
        raise ArgumentException(f"{source} is damaged: its SHA-256 differs from the one that it holds")
    return data[8 : 8 + length]


def _checksum(data: bytes) -> bytes:
    view = memoryview(data)
    digest = hashlib.sha256(view[:_START])
    digest.update(_NO_DIGITS)
    digest.update(view[_END:])
    return digest.hexdigest().encode()


def _parse(text: str | bytes) -> Any:
    return json.loads(text, object_pairs_hook=_mapping_of_different_names)


def _mapping_of_different_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("names must differ, got one of them twice")
    return mapping


def _is_finite(array: NDArray[Any]) -> bool:
    return bool(np.isfinite(array).all())
