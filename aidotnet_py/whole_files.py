"""Files that are replaced whole or not at all; leftovers of killed processes are removed."""

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

from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.paths import check_path

try:
    import fcntl
except ImportError:  # Windows has no file locks; leftovers stay there.
    fcntl = None  # type: ignore[assignment]

__all__ = ["read_file", "replacing", "write_file"]

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
# Errors of file systems that cannot flush a folder, or do not allow this user to.
_NO_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM, errno.EBADF)


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file whole or not at all; see `replacing`."""
    with replacing(path) as file:
        file.write(data)


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a file.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ArgumentException
        It is no regular file, or it does not fit into memory.
    """
    source = check_path("filePath", path)
    if not source.exists():
        raise FileNotFoundError(errno.ENOENT, "filePath must be an existing file, got nothing", str(path))
    kind = "a folder" if source.is_dir() else _kind_of(source.stat())
    if kind is not None:
        raise ArgumentException(f"filePath must be a regular file, got {kind} at {str(path)!r}")
    try:
        return source.read_bytes()
    except MemoryError:
        size = source.stat().st_size
        raise ArgumentException(f"filePath must fit into memory, got {size} bytes at {str(path)!r}") from None


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Generator[BinaryIO]:
    """Open a new file that takes the place of ``path`` when the block ends; an error in the block removes it.

    The content goes to a hidden file in the same folder, is flushed to the disk, and then takes the name in one step,
    which is flushed too: at any time, the old file or the new one is there, whole. The new file takes over the mode of
    the old one and, where this user may set them, its owner and group; without an old one, the umask sets the mode. A
    symbolic link stays a link, and its target is replaced. Leftovers of killed processes of this machine are removed
    from the folder.

    Raises
    ------
    ArgumentNullException
        The path is None.
    ArgumentException
        There is something else than a regular file.
    OSError
        The file cannot be written, such as into a missing folder (FileNotFoundError); the error names ``path``.
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
                    _copy_owner_and_mode(before, file.fileno(), part)
                os.fsync(file.fileno())
                if fcntl is None:
                    # Windows cannot rename an open file; elsewhere the file stays open, hence locked, until then.
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


def _target(path: Any) -> tuple[Path, os.stat_result | None]:
    """Return the file that a path leads to, and its status if it exists."""
    given, before = check_path("filePath", path), None
    try:
        # A rename to the resolved path leaves a symbolic link in place.
        target = given.resolve()
        with suppress(FileNotFoundError, NotADirectoryError):
            before = target.stat()
    except (OSError, RuntimeError) as error:
        # Before Python 3.13, Path.resolve raises RuntimeError for links in a circle.
        if isinstance(error, OSError) and error.errno != errno.ELOOP:
            raise
        raise ArgumentException(f"filePath must lead to a file, got a circle of links at {str(path)!r}") from error
    if not target.parent.is_dir():
        number = errno.ENOTDIR if target.parent.exists() else errno.ENOENT
        raise OSError(number, f"filePath must lie in an existing folder; make {str(target.parent)!r}", str(path))
    if before is not None and stat.S_ISDIR(before.st_mode):
        raise ArgumentException(f"filePath must be a regular file or a new one, got a folder at {str(path)!r}")
    kind = None if before is None else _kind_of(before)
    if kind is not None:
        raise ArgumentException(f"filePath must be a regular file or a new one, got {kind} at {str(path)!r}")
    return target, before


def _kind_of(status: os.stat_result) -> str | None:
    """Name the kind of a file system's entry; None for files and folders."""
    return _KINDS.get(stat.S_IFMT(status.st_mode))


def _copy_owner_and_mode(before: os.stat_result, descriptor: int, part: Path) -> None:
    """Give a new file, until now readable for its maker alone, the owner, group and mode of the old one."""
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


# Hidden files being written. The writer holds a lock on the file, which ends with the process, however that ends. The
# name identifies the machine, since some shared file systems do not share locks between machines.


def _prefix() -> str:
    return f".aidotnet_py-{hashlib.sha256(platform.node().encode()).hexdigest()[:8]}-"


def _new_part(folder: Path, mode: int) -> tuple[Path, int]:
    """Create a hidden file and lock it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    while True:
        part = folder / f"{_prefix()}{secrets.token_hex(8)}.part"
        descriptor = os.open(part, flags, mode)
        if fcntl is not None:
            # On a file system without locks, no process can lock this file and take it for a leftover.
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Another process may have removed the file as a leftover before it was locked.
        if part.exists():
            return part, descriptor
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Remove hidden files of this machine that no process is writing."""
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
    # Some file systems lock only files that are open for writing.
    descriptor = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(part)
    finally:
        os.close(descriptor)
