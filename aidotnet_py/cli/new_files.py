"""The files that a command writes: checked before the work, and none of those that it reads."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from aidotnet_py.arguments import refusal
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.runs.run_files import is_run_file
from aidotnet_py.whole_files import replacing, write_file

__all__ = ["require_new_files", "write_output"]

# Written beside each file to test for free space.
_PROBE = bytes(2**16)


def require_new_files(
    outputs: Mapping[str, Path],
    inputs: Iterable[Path] = (),
    run: Path | None = None,
    streams: Collection[str] = (),
) -> None:
    """Raise unless each file can be written, without the loss of another one, of the run, or of an input.

    Parameters
    ----------
    outputs : mapping of str to Path
        The files by their options.
    inputs : iterable of Path
        The files that are read.
    run : Path, optional
        The folder of the run that is read.
    streams : collection of str
        The options that may be a device or a pipe too; see `write_output`.

    Raises
    ------
    ArgumentException
        When a file is one of those, or there is something else than a file.
    OSError
        When a file cannot be written.
    """
    taken = {_identity(file): "one of the inputs" for file in inputs}
    for option, path in outputs.items():
        identity, (folder, name) = _identity(path), os.path.split(os.path.realpath(path))
        if run is not None and folder == os.path.realpath(run) and is_run_file(name):
            taken[identity] = "a file of the run"
        if identity in taken:
            raise ArgumentException(f"{refusal(option, 'a file of its own', str(path))}, {taken[identity]}")
        taken[identity] = f"the file of {option}"
        if option not in streams or not _is_stream(path):
            _try_to_write(path)
        # The reader of a pipe would take a first writer that leaves for the end.
        elif not path.is_fifo():
            _write_to_stream(path, b"")


def write_output(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, or write to a device or a pipe."""
    if _is_stream(path):
        _write_to_stream(path, data)
    else:
        write_file(path, data)


def _identity(path: Path) -> object:
    """Return what all spellings of a path and all links to its file share."""
    try:
        status = path.stat()
    except OSError:
        # Not Path.resolve, which raises RuntimeError for links in a circle before Python 3.13.
        return os.path.realpath(path)
    return status.st_dev, status.st_ino


def _is_stream(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def _write_to_stream(path: Path, data: bytes) -> None:
    # Unbuffered: a device that refuses all data refuses even empty data.
    with path.open("ab", buffering=0) as stream:
        try:
            while (written := stream.write(data)) < len(data):
                data = data[written:]
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error


class _TriedError(Exception):
    pass


def _try_to_write(path: Path) -> None:
    """Raise what writing a file would raise at its beginning, and leave all as it is."""
    with suppress(_TriedError), replacing(path) as file:
        file.write(_PROBE)
        file.flush()
        raise _TriedError
