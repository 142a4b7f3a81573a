"""The lock of a run's folder: one run at a time works in it, of this process or another."""

from __future__ import annotations

from io import FileIO
from pathlib import Path

from aidotnet_py.exceptions import InvalidOperationException
from aidotnet_py.runs.json_lines import open_for_both

try:
    import fcntl
except ImportError:  # Windows has no such locks; there, nothing keeps two processes out of one folder.
    fcntl = None  # type: ignore[assignment]

__all__ = ["LOCK", "in_use", "locked"]

LOCK = ".lock"


def locked(folder: Path) -> FileIO | None:
    """Return the open file that locks a folder as long as it is open; None where there are no locks.

    Raises
    ------
    InvalidOperationException
        When the folder is locked already, by this process or another.
    OSError
        When the folder is not writable.
    """
    if fcntl is None:
        return None
    try:
        file = open_for_both(folder / LOCK)
    except OSError as error:
        raise OSError(error.errno, f"path must be a writable folder: {error.strerror}", str(folder)) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise in_use(folder) from None
    except OSError:
        # Some file systems have no locks; what cannot be kept out there is left to the user.
        return file
    except BaseException:
        file.close()
        raise
    return file


def in_use(folder: Path) -> InvalidOperationException:
    """Return the error for a folder that a run is going on in."""
    return InvalidOperationException(
        f"{str(folder)!r} must be in use by no other run, got one that trains in it; wait for its end"
    )
