"""Reads members of an untrusted zip archive in memory, within limits; nothing is ever extracted to disk."""

from __future__ import annotations

import re
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from aidotnet_py.exceptions import ArgumentException

__all__ = ["ReadLimits", "SafeZip"]

# What the standard library raises on archives that are cut, garbled, encrypted or of a kind that it cannot read.
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    IndexError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)


@dataclass(frozen=True)
class ReadLimits:
    """How much a source may hold. The defaults have room for several times the largest Omniglot archive.

    Parameters
    ----------
    archive_bytes : int
        The size of the archive itself; it also bounds the memory that its table of contents takes.
    members : int
        Files and folders in all.
    member_bytes : int
        One file, uncompressed.
    total_bytes : int
        All files, uncompressed.
    ratio : int
        How many times larger than its compressed form a file may be.
    """

    archive_bytes: int = 1 << 24
    members: int = 60_000
    member_bytes: int = 1 << 16
    total_bytes: int = 1 << 26
    ratio: int = 100


class SafeZip:
    """The files of a zip archive, by name, as a context manager.

    The table of contents is checked when opened: sizes and counts against the limits, and for every member that its
    name is a plain relative path with forward slashes, given once, and that it is an ordinary file or folder, not
    encrypted, stored or deflated. Sizes are checked again while reading, since a header can lie.

    Parameters
    ----------
    path : Path
        The archive.
    limits : ReadLimits
        How much it may hold.

    Raises
    ------
    ArgumentException
        The file is no zip archive, is damaged, or breaks a rule; the message names archive and member.

    Examples
    --------
    >>> import tempfile, zipfile
    >>> from pathlib import Path
    >>> from aidotnet_py.data.safe_zip import SafeZip
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "letters.zip")
    ...     with zipfile.ZipFile(path, "w") as archive:
    ...         archive.writestr("latin/a.txt", "A")
    ...     with SafeZip(path) as letters:
    ...         letters.names, letters.read("latin/a.txt")
    (('latin/a.txt',), b'A')
    """

    def __init__(self, path: Path, limits: ReadLimits | None = None) -> None:
        self._path = path
        self._limits = limits or ReadLimits()
        self._left = self._limits.total_bytes
        size = path.stat().st_size
        if size > self._limits.archive_bytes:
            raise ArgumentException(f"{path} has {size} bytes; at most {self._limits.archive_bytes} are read")
        try:
            self._zip = zipfile.ZipFile(path)
        except _BROKEN as error:
            raise ArgumentException(f"{path} is not a readable zip archive: {error}") from error
        try:
            self._members = self._checked(self._zip.infolist(), size)
        except BaseException:
            self._zip.close()
            raise

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the files, folders left out, in the archive's order."""
        return tuple(self._members)

    def read(self, name: str) -> bytes:
        """Return the content of one file.

        Raises
        ------
        ArgumentException
            The file is damaged, has not the size that its header says, or breaks a limit.
        """
        info = self._members[name]
        bound = min(self._limits.member_bytes, self._left)
        try:
            with self._zip.open(info) as member:
                data = member.read(bound + 1)
        except _BROKEN as error:
            raise self._refused(info, f"cannot be read: {error!r}") from error
        if len(data) > bound:
            raise self._refused(info, f"goes beyond {self._limits.total_bytes} bytes in all")
        if len(data) != info.file_size:
            raise self._refused(info, f"has {len(data)} bytes where its header says {info.file_size}")
        self._left -= len(data)
        return data

    def __enter__(self) -> SafeZip:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    def _checked(self, infos: list[zipfile.ZipInfo], archive_size: int) -> dict[str, zipfile.ZipInfo]:
        limits = self._limits
        if len(infos) > limits.members:
            raise ArgumentException(f"{self._path} has {len(infos)} members; at most {limits.members} are read")
        seen: set[str] = set()
        for info in infos:
            reason = _unsafe_name(info.orig_filename) or _unsafe_kind(info) or _too_large(info, limits)
            name = info.orig_filename.rstrip("/")
            if reason is None and name in seen:
                reason = "is there twice"
            if reason is not None:
                raise self._refused(info, reason)
            seen.add(name)
        total = sum(info.file_size for info in infos)
        if total > limits.total_bytes:
            raise ArgumentException(f"{self._path} unpacks to {total} bytes; at most {limits.total_bytes} are read")
        # More compressed bytes than the archive has can only be told by members that share their data.
        if sum(info.compress_size for info in infos) > archive_size:
            raise ArgumentException(f"{self._path} has members that overlap")
        return {info.orig_filename: info for info in infos if not info.is_dir()}

    def _refused(self, info: zipfile.ZipInfo, reason: str) -> ArgumentException:
        return ArgumentException(f"{self._path}: member {info.orig_filename!r:.200} {reason}")


def _unsafe_name(name: str) -> str | None:
    if "\\" in name or "\0" in name or re.match("[A-Za-z]:", name):
        return "has a backslash, a drive letter or a null character in its name"
    if name.startswith("/") or ".." in name.split("/"):
        return "leads out of the archive"
    if any(part in ("", ".") for part in name.removesuffix("/").split("/")):
        return "has an empty part in its name"
    return None


def _unsafe_kind(info: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "is a symbolic link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is neither a file nor a folder"
    if info.flag_bits & 0x2041:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"has compression method {info.compress_type}; only stored and deflated members are read"
    return None


def _too_large(info: zipfile.ZipInfo, limits: ReadLimits) -> str | None:
    if info.file_size > limits.member_bytes:
        return f"has {info.file_size} bytes; at most {limits.member_bytes} are read"
    if info.file_size > limits.ratio * info.compress_size:
        return f"unpacks {info.compress_size} bytes to {info.file_size}; at most {limits.ratio} times as many are read"
    return None
