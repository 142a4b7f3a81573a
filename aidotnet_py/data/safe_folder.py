"""Read the files of an untrusted folder within limits, without following links."""

from __future__ import annotations

import os
from pathlib import Path

from aidotnet_py.data.safe_zip import ReadLimits
from aidotnet_py.exceptions import ArgumentException

__all__ = ["SafeFolder"]

# Folders within folders: the archive's, an alphabet's, a character's.
_DEPTH = 3


class SafeFolder:
    """The files under a folder, by their relative names with forward slashes; the counterpart of `SafeZip`.

    Parameters
    ----------
    path : Path
        The folder.
    limits : ReadLimits
        How much it may hold.
    left_out : dict, optional
        Takes the names of entries that are no files or folders, too deep, or folders that cannot be read, each with the
        reason; they are not among the files then. By default they are errors.

    Raises
    ------
    ArgumentException
        The folder holds a symbolic link, something that is neither file nor folder, a folder that cannot be read, or
        too much; the message names it.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from aidotnet_py.data.safe_folder import SafeFolder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.txt").write_text("A")
    ...     letters = SafeFolder(Path(folder))
    ...     letters.names, letters.read("a.txt")
    (('a.txt',), b'A')
    """

    def __init__(self, path: Path, limits: ReadLimits | None = None, left_out: dict[str, str] | None = None) -> None:
        self._path = path
        self._left_out = left_out
        self._limits = limits or ReadLimits()
        self._left = self._limits.total_bytes
        self._seen = 0
        self._names: list[str] = []
        self._folders: list[str] = []
        self._walk("", _DEPTH)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the files, sorted."""
        return tuple(sorted(self._names))

    @property
    def folders(self) -> tuple[str, ...]:
        """The names of the folders, sorted."""
        return tuple(sorted(self._folders))

    def read(self, name: str) -> bytes:
        """Return the content of one file.

        Raises
        ------
        ArgumentException
            The file cannot be read or breaks a limit.
        """
        bound = min(self._limits.member_bytes, self._left)
        try:
            # What was a file may be a link by now.
            descriptor = os.open(
                self._path / name, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
            )
            with os.fdopen(descriptor, "rb") as file:
                data = file.read(bound + 1)
        except OSError as error:
            raise ArgumentException(f"{self._path / name} must be readable: {error}") from error
        if len(data) > bound:
            raise ArgumentException(
                f"{self._path / name} must have at most {self._limits.member_bytes} bytes, and all files "
                f"{self._limits.total_bytes}, got more"
            )
        self._left -= len(data)
        return data

    def _walk(self, inside: str, depth: int) -> None:
        try:
            entries = os.scandir(self._path / inside)
        except OSError:
            if not inside:
                raise
            self._leave_out(inside.removesuffix("/"), "must be readable")
            return
        if inside:
            self._folders.append(inside.removesuffix("/"))
        with entries:
            for entry in entries:
                name = f"{inside}{entry.name}"
                self._count()
                if entry.is_symlink():
                    self._leave_out(name, "must be a file or a folder, got a symbolic link")
                elif entry.is_file(follow_symlinks=False):
                    self._names.append(name)
                elif not entry.is_dir(follow_symlinks=False):
                    self._leave_out(name, "must be a file or a folder, got something else")
                elif depth == 0:
                    self._leave_out(name, "must be a file, got a folder deeper than any of the data set")
                else:
                    self._walk(f"{name}/", depth - 1)

    def _leave_out(self, name: str, reason: str) -> None:
        if self._left_out is None:
            raise ArgumentException(f"{self._path / name} {reason}")
        self._left_out[name] = reason

    def _count(self) -> None:
        self._seen += 1
        if self._seen > self._limits.members:
            raise ArgumentException(
                f"{self._path} must hold at most {self._limits.members} files and folders, got more"
            )
