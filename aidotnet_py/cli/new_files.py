"""The files that a command writes: checked before the work, and none of those that it reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from aidotnet_py.arguments import refusal
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.runs.folder import is_run_file
from aidotnet_py.whole_files import replacing

__all__ = ["require_new_files"]


def require_new_files(outputs: Mapping[str, Path], run: Path, inputs: Iterable[Path]) -> None:
    """Raise unless each file can be written, without the loss of another one, of the run, or of an input.

    Parameters
    ----------
    outputs : mapping of str to Path
        The files by their options.
    run : Path
        The folder of the run that is read.
    inputs : iterable of Path
        The other files that are read.

    Raises
    ------
    ArgumentException
        When a file is one of those, or there is something else than a file.
    OSError
        When a file cannot be written.
    """
    # Not Path.resolve, which raises RuntimeError for links in a circle before Python 3.13.
    taken = {os.path.realpath(file): "one of the inputs" for file in inputs}
    for option, path in outputs.items():
        place = os.path.realpath(path)
        folder, name = os.path.split(place)
        if folder == os.path.realpath(run) and is_run_file(name):
            taken[place] = "a file of the run"
        if place in taken:
            raise ArgumentException(f"{refusal(option, 'a file of its own', str(path))}, {taken[place]}")
        taken[place] = f"the file of {option}"
        _try_to_write(path)


class _TriedError(Exception):
    pass


def _try_to_write(path: Path) -> None:
    """Raise what writing a file would raise at its beginning, and leave all as it is."""
    with suppress(_TriedError), replacing(path):
        raise _TriedError
