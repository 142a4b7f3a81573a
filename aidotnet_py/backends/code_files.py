"""Compiled code kept on disk from one process to the next, where nobody else can put any."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import weakref
from contextlib import suppress
from pathlib import Path

__all__ = ["CodeFiles"]

# A file takes a few kilobytes; with more files than the first number, those not used for longest go.
_MOST_FILES, _MOST_BYTES = 4096, 2**26

# Folders can be opened, and files named relative to them: on POSIX systems. Elsewhere, under Windows, the folder lies
# in the user's profile, which others cannot write to.
_HAS_FOLDER_DESCRIPTORS = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")
_FOLDER = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
# A FIFO must not be waited for.
_FILE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)

_DIGEST_BYTES = 32


class CodeFiles:
    """Machine code in files of a folder, each under the digest of what it was made from.

    What such a file holds is run, so it must come from this user. The folder is opened once, without following links,
    and used only if nobody else may write to it, or could put another in its place: every folder above belongs to this
    user or to root, and others may write to it only where the sticky bit keeps them from moving what is not theirs.
    Files are read and written relative to the open folder; one that is no regular file, belongs to somebody else or may
    be written to by others is not read. A file begins with the digest of its name and content, so that one cut short,
    changed or renamed is not run.

    Parameters
    ----------
    folder : Path
        Made, with mode 0700, where it is missing. Where it cannot be used, nothing is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder: Path | None = None
        self._descriptor: int | None = None
        # Without a cache all works, only later.
        with suppress(OSError):
            if _HAS_FOLDER_DESCRIPTORS:
                self._descriptor = _open_private(folder)
                weakref.finalize(self, os.close, self._descriptor)
            else:
                folder.mkdir(parents=True, exist_ok=True)
            self._folder = folder
        self._has_written = False

    def read(self, digest: str) -> bytes | None:
        """The code that was kept under a digest; None where there is none, or none that is whole and one's own."""
        if self._folder is None:
            return None
        try:
            with open(digest, "rb", opener=self._open) as file:
                if not _is_own_file(os.fstat(file.fileno())):
                    return None
                data = file.read(_MOST_BYTES)
            os.utime(self._path(digest), dir_fd=self._descriptor)
        except OSError:
            return None
        check, code = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        return code if check == _check(digest, code) else None

    def write(self, digest: str, code: bytes) -> None:
        """Keep code under a digest."""
        if self._folder is None:
            return
        temporary = f"{digest}.{secrets.token_hex(8)}"
        with suppress(OSError):
            if not self._has_written:
                self._has_written = True
                self._forget_oldest()
            try:
                with open(temporary, "xb", opener=self._open) as file:
                    file.write(_check(digest, code) + code)
                names = self._path(temporary), self._path(digest)
                os.replace(*names, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
            except BaseException:
                # It may not be there, or not any more, when an interrupt comes.
                with suppress(OSError):
                    os.unlink(self._path(temporary), dir_fd=self._descriptor)
                raise

    def _forget_oldest(self) -> None:
        assert self._folder is not None
        with os.scandir(self._folder if self._descriptor is None else self._descriptor) as entries:
            files = sorted((entry.stat(follow_symlinks=False).st_mtime, entry.name) for entry in entries)
        for _, name in files[: max(len(files) - _MOST_FILES, 0)]:
            with suppress(OSError):
                os.unlink(self._path(name), dir_fd=self._descriptor)

    def _path(self, name: str) -> str:
        """A file's name for calls that take the folder's descriptor beside it."""
        return name if self._folder is None or self._descriptor is not None else str(self._folder / name)

    def _open(self, name: str, flags: int) -> int:
        return os.open(self._path(name), flags | _FILE, 0o600, dir_fd=self._descriptor)


def _check(digest: str, code: bytes) -> bytes:
    return hashlib.sha256(digest.encode() + b"\n" + code).digest()


def _is_own_file(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and _is_own(status)


def _is_own(status: os.stat_result) -> bool:
    """Whether it belongs to this user, and nobody else may write to it."""
    if not hasattr(os, "getuid"):
        return True
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _open_private(folder: Path) -> int:
    """A descriptor of the folder, made where it is missing; OSError where others could write to it, or replace it."""
    # Links that are there now are followed here, and none after that.
    root, *names = Path(os.path.realpath(folder)).parts
    descriptor = os.open(root, os.O_RDONLY | _FOLDER)
    try:
        for name in names:
            if not _keeps_names(os.fstat(descriptor)):
                raise PermissionError(f"others could replace {name} on the way to {folder}")
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=descriptor)
            above, descriptor = descriptor, os.open(name, os.O_RDONLY | _FOLDER, dir_fd=descriptor)
            os.close(above)
        if not _is_own(os.fstat(descriptor)):
            raise PermissionError(f"others could write to {folder}")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _keeps_names(status: os.stat_result) -> bool:
    """Whether nobody but this user and root can put another folder in the place of one within."""
    shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return status.st_uid in (0, os.getuid()) and (not shared or bool(status.st_mode & stat.S_ISVTX))
