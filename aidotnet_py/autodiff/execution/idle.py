"""Executables between calls: each call takes one for itself, also in another thread or inside another call."""

from __future__ import annotations

from aidotnet_py.autodiff.execution.executable import Executable
from aidotnet_py.backends import Backend

__all__ = ["Idle"]

# Executables kept for each backend; if more calls run at the same time, some make new ones.
_MOST = 4


class Idle:
    """The Executables of one Program that no call uses, by backend; it has no lock that a fork could leave locked."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Executable]] = {}

    def take(self, backend: Backend) -> Executable | None:
        """Take an Executable for a call; return None if none is idle."""
        try:
            return self._waiting[backend.name].pop()
        except (KeyError, IndexError):
            return None

    def give_back(self, backend: Backend, executable: Executable) -> None:
        """Keep an Executable for another call; do not give one back after an error, which may have cut a run short."""
        waiting = self._waiting.setdefault(backend.name, [])
        if len(waiting) < _MOST:
            waiting.append(executable)
