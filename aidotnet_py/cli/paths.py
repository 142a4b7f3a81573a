"""The paths that options and arguments give."""

from __future__ import annotations

from pathlib import Path

import typer

from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.paths import check_path

__all__ = ["path_of"]


def path_of(text: str) -> Path:
    """Return a path; Typer puts the name of the option before what is wrong with it."""
    try:
        return check_path("path", text)
    except ArgumentException as error:
        raise typer.BadParameter(str(error).removeprefix("path ")) from error
