"""Fetch a published file once, and keep it only if its size and SHA-256 are the published ones."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from aidotnet_py.exceptions import InvalidOperationException
from aidotnet_py.whole_files import replacing

__all__ = ["PublishedFile", "download"]

_TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class PublishedFile:
    """The address of a published file, its size in bytes and its SHA-256."""

    url: str
    size: int
    sha256: str


def download(file: PublishedFile, destination: Path) -> None:
    """Fetch a file to ``destination``, which appears only once the content is checked.

    pooch fetches into a folder of its own; a copy then replaces ``destination`` as `replacing` does. No more than
    the published size is kept.

    Raises
    ------
    InvalidOperationException
        The transfer failed, or size or checksum differ; ``destination`` is then as it was before.
    ImportError
        pooch is not installed.
    """
    try:
        # By name, since pooch has no type hints.
        pooch: Any = import_module("pooch")
    except ImportError as error:
        raise ImportError('A download needs pooch: pip install "aidotnet-py[data]"') from error

    def fetch(url: str, path: str, caller: object) -> None:
        with open(path, "wb") as target:
            bounded = _Bounded(target, file)
            pooch.HTTPDownloader(timeout=_TIMEOUT_SECONDS, chunk_size=1 << 16)(url, bounded, caller)
        bounded.check_complete()

    with replacing(destination) as target, TemporaryDirectory() as folder:
        try:
            fetched = pooch.retrieve(file.url, f"sha256:{file.sha256}", destination.name, folder, downloader=fetch)
        # What requests raises is an OSError; a checksum that differs is a ValueError.
        except (OSError, ValueError) as error:
            raise InvalidOperationException(f"download of {file.url} failed: {error}") from error
        with open(fetched, "rb") as source:
            shutil.copyfileobj(source, target)


class _Bounded:
    """A file for writing that takes the published number of bytes, no more and no fewer."""

    def __init__(self, target: BinaryIO, file: PublishedFile) -> None:
        self._target = target
        self._file = file
        self._received = 0

    def write(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > self._file.size:
            raise self._wrong_size(f"more than {self._file.size}")
        self._target.write(data)

    def flush(self) -> None:
        self._target.flush()

    def check_complete(self) -> None:
        if self._received != self._file.size:
            raise self._wrong_size(str(self._received))

    def _wrong_size(self, received: str) -> InvalidOperationException:
        return InvalidOperationException(
            f"download of {self._file.url} must have {self._file.size} bytes, got {received}"
        )
