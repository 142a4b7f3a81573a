"""Compiled code kept on disk from one process to the next."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

__all__ = ["CodeFiles"]

# A file takes a few kilobytes; with more files than that, those not used for longest go.
_MOST_FILES = 4096


class CodeFiles:
    """Machine code in files of a folder, each under the digest of what it was made from.

    A file begins with the digest of its content, so that one cut short is not run. A folder that others may write to
    is not used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder: Path | None = folder
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _is_private(self._folder):
                self._folder = None
        except OSError:
            self._folder = None
        self._has_written = False

    def _forget_oldest(self, folder: Path) -> None:
        files = sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime)
        for file in files[: max(len(files) - _MOST_FILES, 0)]:
            file.unlink(missing_ok=True)

    def read(self, digest: str) -> bytes | None:
        """The code that was kept under a digest; None where there is none, or none that is whole."""
        if self._folder is None:
            return None
        try:
            data = (self._folder / digest).read_bytes()
            os.utime(self._folder / digest)
        except OSError:
            return None
        check, code = data[:32], data[32:]
        return code if hashlib.sha256(code).digest() == check else None

    def write(self, digest: str, code: bytes) -> None:
        """Keep code under a digest."""
        if self._folder is None:
            return
        # Without a cache all works, only later.
        if not self._has_written:
            self._has_written = True
            with suppress(OSError):
                self._forget_oldest(self._folder)
        with suppress(OSError), tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
            file.write(hashlib.sha256(code).digest() + code)
            file.close()
            os.replace(file.name, self._folder / digest)


def _is_private(folder: Path) -> bool:
    if not hasattr(os, "getuid"):
        return True
    status = folder.stat()
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
