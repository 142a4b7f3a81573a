"""Files that are replaced whole or not at all, and what a killed process left of such a replacement."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import secrets
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from aidotnet_py.exceptions import ArgumentException, ArgumentNullException

try:
    import fcntl
except ImportError:  # Windows has none; there, leftovers stay.
    fcntl = None  # type: ignore[assignment]

__all__ = ["read_file", "replacing", "write_file"]

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
# What file systems answer that cannot flush a folder, or do not let this user.
_NO_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM, errno.EBADF)


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file whole or not at all; see `replacing`."""
    with replacing(path) as file:
        file.write(data)


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a file.

    Raises
    ------
    ArgumentException
        When there is no such file, it is no regular one, or does not fit into memory.
    """
    source = _checked(path)
    kind = None if not source.exists() else _kind_of(source.stat())
    if kind is not None:
        raise ArgumentException(f"filePath must be a regular file, got {kind} at {str(path)!r}")
    if not source.is_file():
        raise ArgumentException(f"filePath is {str(path)!r}; there is no such file")
    try:
        return source.read_bytes()
    except MemoryError:
        size = source.stat().st_size
        raise ArgumentException(f"filePath is {str(path)!r}; memory has no room for its {size} bytes") from None


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Generator[BinaryIO]:
    """Open a new file that takes the place of ``path`` when the block ends, and is gone if that fails.

    The content goes to a hidden file in the same folder, is flushed to the disk, and then takes the name in one step,
    which is flushed too: at any time there is the old file or the new one, whole. A file that is replaced hands down
    its mode and, where this user may, its owner and group; a new one has the mode that the umask gives. A symbolic link
    stays one, and the file that it points to is replaced. What killed processes of this machine left in the folder is
    removed.

    Raises
    ------
    ArgumentException
        When the path is none, lies in no folder that exists, or is something else than a regular file.
    OSError
        When the file cannot be written; it names ``path``.
    """
    try:
        target, before = _target(path)
        _sweep(target.parent)
        part, descriptor = _new_part(target.parent, 0o666 if before is None else 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                if before is not None:
                    _hand_down(before, file.fileno(), part)
                os.fsync(file.fileno())
                if fcntl is None:
                    # Windows renames no open file; elsewhere it stays open, and with it locked, until it has its name.
                    file.close()
                os.replace(part, target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        _flush_folder(target.parent)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _checked(path: Any) -> Path:
    if path is None:
        raise ArgumentNullException("filePath is None; a path is wanted")
    try:
        checked = Path(path)
    except TypeError:
        raise ArgumentException(f"filePath is {path!r}; a path is wanted") from None
    if "\0" in str(checked):
        raise ArgumentException(f"filePath is {path!r}; a path without null characters is wanted")
    return checked


def _target(path: Any) -> tuple[Path, os.stat_result | None]:
    """The file that a path leads to, and what it is now."""
    given, before = _checked(path), None
    try:
        # Resolved, so that a symbolic link stays one.
        target = given.resolve()
        with suppress(FileNotFoundError, NotADirectoryError):
            before = target.stat()
    except (OSError, RuntimeError) as error:
        # Before Python 3.13 a RuntimeError tells of links in a circle.
        if isinstance(error, OSError) and error.errno != errno.ELOOP:
            raise
        raise ArgumentException(f"filePath is {str(path)!r}, a symbolic link that leads back to itself") from error
    if not target.parent.is_dir():
        raise ArgumentException(f"filePath is {str(path)!r}; there is no folder {str(target.parent)!r}")
    if before is not None and stat.S_ISDIR(before.st_mode):
        raise ArgumentException(f"filePath is {str(path)!r}, a folder; a file is wanted")
    kind = None if before is None else _kind_of(before)
    if kind is not None:
        raise ArgumentException(f"filePath must be a regular file or a new one, got {kind} at {str(path)!r}")
    return target, before


def _kind_of(status: os.stat_result) -> str | None:
    """What it is, where it is neither a file nor a folder."""
    return _KINDS.get(stat.S_IFMT(status.st_mode))


def _hand_down(before: os.stat_result, descriptor: int, part: Path) -> None:
    """Give a new file the owner, group and mode of the old one; until now nobody else could read it."""
    now = os.fstat(descriptor)
    if (before.st_uid, before.st_gid) != (now.st_uid, now.st_gid):
        with suppress(PermissionError):
            os.fchown(descriptor, before.st_uid, before.st_gid)
    os.chmod(descriptor if os.chmod in os.supports_fd else part, before.st_mode & 0o777)


def _flush_folder(folder: Path) -> None:
    if fcntl is None:
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FLUSH:
            raise


# Files in the making. Who writes one holds a lock on it, which ends with the process however that ends. The name tells
# the machine, since some file systems that machines share know nothing of each other's locks.


def _prefix() -> str:
    return f".aidotnet_py-{hashlib.sha256(platform.node().encode()).hexdigest()[:8]}-"


def _new_part(folder: Path, mode: int) -> tuple[Path, int]:
    """Make a new file with a lock on it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    while True:
        part = folder / f"{_prefix()}{secrets.token_hex(8)}.part"
        descriptor = os.open(part, flags, mode)
        if fcntl is not None:
            # Where a file system has no locks, nobody can take this for a leftover either.
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Between its making and its lock it may have been taken for one.
        if part.exists():
            return part, descriptor
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Remove files of this machine that nobody is writing any more."""
    if fcntl is None:
        return
    prefix = _prefix()
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and entry.name.endswith(".part"):
                with suppress(OSError):
                    _remove_if_left(entry.path)


def _remove_if_left(part: str) -> None:
    assert fcntl is not None
    # Opened for writing, since some file systems lock nothing else.
    descriptor = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(part)
    finally:
        os.close(descriptor)
