"""Read members of an untrusted zip archive in memory, within limits; nothing is extracted to disk."""

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

# Errors of the standard library for archives that are cut, garbled, encrypted or of an unsupported kind.
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
    """Bounds on the content of a source. The defaults allow several times the largest Omniglot archive.

    Parameters
    ----------
    archive_bytes : int
        The size of the archive, which also bounds the memory for its table of contents.
    members : int
        The number of files and folders.
    member_bytes : int
        The size of a file, uncompressed.
    total_bytes : int
        The size of all files, uncompressed.
    ratio : int
        The uncompressed size of a file, relative to its compressed size.
    """

    archive_bytes: int = 1 << 24
    members: int = 60_000
    member_bytes: int = 1 << 16
    total_bytes: int = 1 << 26
    ratio: int = 100


class SafeZip:
    """The files of a zip archive, by name, as a context manager.

    The constructor checks the table of contents: sizes and counts are within the limits; each member has a plain
    relative path with forward slashes, which no other member has, and is an ordinary file or folder, not encrypted,
    stored or deflated. `read` checks sizes again, since a header may be wrong.

    Parameters
    ----------
    path : Path
        The archive.
    limits : ReadLimits
        Bounds on its content.

    Raises
    ------
    ArgumentException
        The file is no zip archive, is damaged or breaks a rule; the message names archive and member.

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
            raise ArgumentException(f"{path} must have at most {self._limits.archive_bytes} bytes, got {size}")
        try:
            self._zip = zipfile.ZipFile(path)
        except _BROKEN as error:
            raise ArgumentException(f"{path} must be a readable zip archive: {error}") from error
        try:
            self._members = self._check_contents(self._zip.infolist(), size)
        except BaseException:
            self._zip.close()
            raise

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the files, without folders, in the archive's order."""
        return tuple(self._members)

    def read(self, name: str) -> bytes:
        """Return the content of one file.

        Raises
        ------
        ArgumentException
            The file is damaged, its size differs from its header's, or it breaks a limit.
        """
        info = self._members[name]
        bound = min(self._limits.member_bytes, self._left)
        try:
            with self._zip.open(info) as member:
                data = member.read(bound + 1)
        except _BROKEN as error:
            raise self._refusal(info, f"must be readable: {error!r}") from error
        if len(data) > bound:
            raise self._refusal(info, f"must keep all files within {self._limits.total_bytes} bytes, got more")
        if len(data) != info.file_size:
            raise self._refusal(info, f"must have the {info.file_size} bytes of its header, got {len(data)}")
        self._left -= len(data)
        return data

    def __enter__(self) -> SafeZip:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    def _check_contents(self, infos: list[zipfile.ZipInfo], archive_size: int) -> dict[str, zipfile.ZipInfo]:
        limits = self._limits
        if len(infos) > limits.members:
            raise ArgumentException(f"{self._path} must have at most {limits.members} members, got {len(infos)}")
        seen: set[str] = set()
        for info in infos:
            reason = _unsafe_name(info.orig_filename) or _unsafe_kind(info) or _too_large(info, limits)
            name = info.orig_filename.rstrip("/")
            if reason is None and name in seen:
                reason = "must have another name than other members"
            if reason is not None:
                raise self._refusal(info, reason)
            seen.add(name)
        total = sum(info.file_size for info in infos)
        if total > limits.total_bytes:
            raise ArgumentException(f"{self._path} must unpack to at most {limits.total_bytes} bytes, got {total}")
        # Only members that share data have more compressed bytes than the archive.
        if sum(info.compress_size for info in infos) > archive_size:
            raise ArgumentException(f"{self._path} must have members that do not overlap")
        return {info.orig_filename: info for info in infos if not info.is_dir()}

    def _refusal(self, info: zipfile.ZipInfo, reason: str) -> ArgumentException:
        return ArgumentException(f"{self._path}: member {info.orig_filename!r:.200} {reason}")


def _unsafe_name(name: str) -> str | None:
    if "\\" in name or "\0" in name or re.match("[A-Za-z]:", name):
        return "must have a name without backslash, drive letter and null character"
    if name.startswith("/") or ".." in name.split("/"):
        return "must not lead out of the archive"
    if any(part in ("", ".") for part in name.removesuffix("/").split("/")):
        return "must have a name without empty parts"
    return None


def _unsafe_kind(info: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "must be a file or a folder, got a symbolic link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "must be a file or a folder, got something else"
    if info.flag_bits & 0x2041:
        return "must not be encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"must be stored or deflated, got compression method {info.compress_type}"
    return None


def _too_large(info: zipfile.ZipInfo, limits: ReadLimits) -> str | None:
    if info.file_size > limits.member_bytes:
        return f"must have at most {limits.member_bytes} bytes, got {info.file_size}"
    if info.file_size > limits.ratio * info.compress_size:
        return (
            f"must unpack to at most {limits.ratio} times its size, got {info.compress_size} bytes for {info.file_size}"
        )
    return None
