"""Files as nobody's `pack` writes them, with the checksum that makes them whole."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

from aidotnet_py import archives


def forged(kind: str, arrays: Mapping[str, Any], description: Mapping[str, Any]) -> bytes:
    """What `pack` gives, also for arrays that are not finite."""
    with patch.object(archives, "_is_finite", return_value=True):
        return archives.pack(kind, arrays, description)


def raw(header: Any, body: bytes = b"") -> bytes:
    """A safetensors file by hand."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def signed(metadata: Mapping[str, str], tensors: Mapping[str, Any], body: bytes = b"") -> bytes:
    """A file by hand with the checksum in its place, over all else, as docs/files.md says."""
    text = json.dumps(
        {"__metadata__": {"checksum": "sha256:" + "0" * 64, **metadata}, **tensors}, separators=(",", ":")
    )
    data = raw(text.encode(), body)
    return data.replace(b"0" * 64, hashlib.sha256(data).hexdigest().encode(), 1)
