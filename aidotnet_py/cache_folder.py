"""The folders of this user for what the package keeps between processes."""

from __future__ import annotations

from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder(name: str) -> Path:
    """Return the folder of the user's cache for one kind of files, which may not exist yet.

    Raises
    ------
    ImportError
        When platformdirs is not installed.
    """
    import platformdirs

    return platformdirs.user_cache_path("aidotnet_py") / name
