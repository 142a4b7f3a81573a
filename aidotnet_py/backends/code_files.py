"""Compiled code kept on disk between processes, in files that only this user can write."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import weakref
from contextlib import suppress
from pathlib import Path

__all__ = ["CodeFiles"]

# A file takes a few kilobytes. Beyond the first number of files, the least recently used ones are deleted.
_MOST_FILES, _MOST_BYTES = 4096, 2**26

# On POSIX systems a folder can be opened, and files be named relative to it. On Windows the folder lies in the user's
# profile, to which other users cannot write.
_HAS_FOLDER_DESCRIPTORS = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")
_FOLDER = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
# O_NONBLOCK: opening a FIFO must not wait for its other end.
_FILE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)

_DIGEST_BYTES = 32


class CodeFiles:
    """Machine code in files of a folder, each under the digest of its source.

    The code is executed, so it must come from this user. The folder is opened once, without following links, and used
    only if no other user can write to it or replace it: every folder above belongs to this user or to root, and is
    writable by others only under the sticky bit, which keeps them from renaming other users' files. Files are read and
    written relative to the open folder. A file is read only if it is a regular file of this user, writable by nobody
    else. A file begins with a digest of its name and content, so truncated, changed or renamed files are not executed.

    Parameters
    ----------
    folder : Path
        Created with mode 0700 if it is missing. If it cannot be used, nothing is stored.
    """

    def __init__(self, folder: Path) -> None:
        self._folder: Path | None = None
        self._descriptor: int | None = None
        # Without the folder, each process compiles its kernels itself.
        with suppress(OSError):
            if _HAS_FOLDER_DESCRIPTORS:
                self._descriptor = _open_private(folder)
                weakref.finalize(self, os.close, self._descriptor)
            else:
                folder.mkdir(parents=True, exist_ok=True)
            self._folder = folder
        self._has_written = False

    def read(self, digest: str) -> bytes | None:
        """Return the code stored under a digest; None if there is no intact file of this user."""
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
        """Store code under a digest."""
        if self._folder is None:
            return
        if not self._has_written:
            self._has_written = True
            # Old files that cannot be listed do not keep new ones from being written.
            with suppress(OSError):
                self._forget_oldest()
        temporary = f"{digest}.{secrets.token_hex(8)}"
        with suppress(OSError):
            try:
                with open(temporary, "xb", opener=self._open) as file:
                    file.write(_check(digest, code) + code)
                names = self._path(temporary), self._path(digest)
                os.replace(*names, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
            except BaseException:
                # An interrupt may come before the file exists, or after it was renamed.
                with suppress(OSError):
                    os.unlink(self._path(temporary), dir_fd=self._descriptor)
                raise

    def _forget_oldest(self) -> None:
        assert self._folder is not None
        files: list[tuple[float, str]] = []
        with os.scandir(self._folder if self._descriptor is None else self._descriptor) as entries:
            for entry in entries:
                # Other threads and processes rename and delete files meanwhile.
                with suppress(FileNotFoundError):
                    files.append((entry.stat(follow_symlinks=False).st_mtime, entry.name))
        files.sort()
        for _, name in files[: max(len(files) - _MOST_FILES, 0)]:
            with suppress(OSError):
                os.unlink(self._path(name), dir_fd=self._descriptor)

    def _path(self, name: str) -> str:
        """Return a file's name for calls that also take the folder's descriptor."""
        return name if self._folder is None or self._descriptor is not None else str(self._folder / name)

    def _open(self, name: str, flags: int) -> int:
        return os.open(self._path(name), flags | _FILE, 0o600, dir_fd=self._descriptor)


def _check(digest: str, code: bytes) -> bytes:
    return hashlib.sha256(digest.encode() + b"\n" + code).digest()


def _is_own_file(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and _is_own(status)


def _is_own(status: os.stat_result) -> bool:
    """Return whether a file belongs to this user and is writable by nobody else."""
    if not hasattr(os, "getuid"):
        return True
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _open_private(folder: Path) -> int:
    """Open a folder, creating it if missing; raise OSError if other users could write to it or replace it."""
    # Existing links are resolved here, once; none is followed afterwards.
    root, *names = Path(os.path.realpath(folder)).parts
    descriptor = os.open(root, os.O_RDONLY | _FOLDER)
    try:
        for name in names:
            if not _keeps_names(os.fstat(descriptor)):
                raise PermissionError(
                    f"{folder} must be safe from other users, got {name} on the way, which they could replace"
                )
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=descriptor)
            above, descriptor = descriptor, os.open(name, os.O_RDONLY | _FOLDER, dir_fd=descriptor)
            os.close(above)
        if not _is_own(os.fstat(descriptor)):
            raise PermissionError(f"{folder} must be writable by this user alone, got one that others could write to")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _keeps_names(status: os.stat_result) -> bool:
    """Return whether only this user and root can replace entries of a folder."""
    shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return status.st_uid in (0, os.getuid()) and (not shared or bool(status.st_mode & stat.S_ISVTX))
