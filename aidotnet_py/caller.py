"""Where a warning should point: at the line outside the package that led to it."""

from __future__ import annotations

import sys

__all__ = ["level_outside"]


def level_outside() -> int:
    """The ``stacklevel`` with which a warning of the calling function names the first caller outside the package."""
    package = __name__.partition(".")[0]
    # The standard library's own way to walk callers; inspect.stack reads source files to do the same.
    frame, level = sys._getframe(1), 1  # pyright: ignore[reportPrivateUsage] -- documented, for all its underscore
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame, level = frame.f_back, level + 1
    return level
