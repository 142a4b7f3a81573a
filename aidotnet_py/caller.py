"""The stack level of warnings, which should point at the caller's line outside the package."""

from __future__ import annotations

import sys
from types import FrameType

__all__ = ["is_called_from", "level_outside"]


def is_called_from(*modules: str) -> bool:
    """Return whether a function of one of these modules, told by the last part of its name, is among the callers."""
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage] -- as below
    while frame is not None:
        if not set(modules).isdisjoint(frame.f_globals.get("__name__", "").split(".")):
            return True
        frame = frame.f_back
    return False


def level_outside() -> int:
    """Return the ``stacklevel`` for a warning of the calling function to name the first caller outside the package."""
    package = __name__.partition(".")[0]
    # The standard library walks callers in this way; inspect.stack would also read source files.
    frame, level = sys._getframe(1), 1  # pyright: ignore[reportPrivateUsage] -- documented, for all its underscore
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame, level = frame.f_back, level + 1
    return level
