"""Fetches a published file once, and keeps it only when its size and SHA-256 are the published ones."""

from __future__ import annotations

import hashlib
import http.client
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from aidotnet_py.exceptions import InvalidOperationException
from aidotnet_py.whole_files import replacing

__all__ = ["PublishedFile", "download"]

_CHUNK = 1 << 16
_TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class PublishedFile:
    """Where a file is published, and what tells that it arrived whole: its size in bytes and its SHA-256."""

    url: str
    size: int
    sha256: str


def download(file: PublishedFile, destination: Path) -> None:
    """Fetch a file to ``destination``, which appears only once the content is checked.

    Until then the content goes to a hidden file beside it; see `replacing`. No more than the published size is ever
    read.

    Raises
    ------
    InvalidOperationException
        The transfer failed, or size or checksum differ; there is no file at ``destination`` then, or still the old one.
    """
    with replacing(destination) as target:
        _transfer(file, target)


def _transfer(file: PublishedFile, target: BinaryIO) -> None:
    digest = hashlib.sha256()
    received = 0
    try:
        with urllib.request.urlopen(file.url, timeout=_TIMEOUT_SECONDS) as response:
            while received <= file.size and (block := response.read(min(_CHUNK, file.size + 1 - received))):
                digest.update(block)
                target.write(block)
                received += len(block)
    except (OSError, http.client.HTTPException) as error:
        raise InvalidOperationException(f"download of {file.url} failed: {error}") from error
    if received != file.size:
        more = "more than " if received > file.size else ""
        raise InvalidOperationException(
            f"download of {file.url} gave {more}{min(received, file.size)} bytes; the published file has {file.size}"
        )
    if digest.hexdigest() != file.sha256:
        raise InvalidOperationException(
            f"download of {file.url} has SHA-256 {digest.hexdigest()}; the published file has {file.sha256}"
        )
