"""Expected errors as one line, and the exit codes of the command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Annotated

import typer

from aidotnet_py.exceptions import ArgumentException, InvalidOperationException

__all__ = ["INTERRUPTED", "Debug", "refusals"]

# The exit code of shells for a program that Ctrl-C ended.
INTERRUPTED = 130

# TypeError and others are errors of this package, whose traceback is wanted.
_EXPECTED = (ArgumentException, ImportError, OSError, InvalidOperationException, MemoryError)

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def _as_it_is(message: str) -> str:
    return message


def _is_working_folder_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


@contextmanager
def refusals(command: str, *, debug: bool = False, spell: Callable[[str], str] = _as_it_is) -> Generator[None]:
    """Print expected errors as one line, and exit with 2 for wrong arguments, 1 for failures of the run.

    ``spell`` puts the command line's own names into messages about arguments.
    """
    try:
        yield
    except _EXPECTED as error:
        if debug:
            raise
        message = str(error)
        if isinstance(error, FileNotFoundError) and error.filename is not None:
            # Without the number of the error, which tells nobody anything.
            message = f"{error.strerror}: {error.filename!r}"
        elif isinstance(error, FileNotFoundError) and _is_working_folder_gone():
            message = "the working folder must exist, got one that was removed; change to another folder"
        if isinstance(error, (ArgumentException, FileNotFoundError)):
            message = spell(message)
        if isinstance(error, MemoryError):
            message = "this machine has too little memory for the run; use fewer tasks or shots"
        notes = [note for note in getattr(error, "__notes__", []) if isinstance(note, str)]
        # Line by line, since names of files may have any spaces.
        lines = [line.strip() for line in ". ".join([message, *notes]).splitlines()]
        print(f"aidotnet-py {command}: {' '.join(line for line in lines if line)}", file=sys.stderr)
        raise typer.Exit(1 if isinstance(error, (InvalidOperationException, MemoryError)) else 2) from error
