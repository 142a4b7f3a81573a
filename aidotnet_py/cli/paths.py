"""The paths that options and arguments give."""

from __future__ import annotations

from pathlib import Path

import typer

__all__ = ["path_of"]


def path_of(text: str) -> Path:
    """Return a path; an empty text, such as a shell's variable that is not set, would be the working folder."""
    if not text:
        raise typer.BadParameter("must be a path, got ''")
    return Path(text)
