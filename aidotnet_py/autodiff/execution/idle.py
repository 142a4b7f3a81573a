"""Executables that wait for the next call: each call has one to itself, in whichever thread or call it is made."""

from __future__ import annotations

from aidotnet_py.autodiff.execution.executable import Executable
from aidotnet_py.backends import Backend

__all__ = ["Idle"]

# Of each backend; if more calls run at the same time than that, some plan their buffers anew.
_MOST = 4


class Idle:
    """Those of one Program that no call runs, by backend. Nothing in it waits, so that a fork leaves nothing locked."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Executable]] = {}

    def take(self, backend: Backend) -> Executable | None:
        """One for a call; None where none waits."""
        try:
            return self._waiting[backend.name].pop()
        except (KeyError, IndexError):
            return None

    def give_back(self, backend: Backend, executable: Executable) -> None:
        """Keep it for another call; not after an error, when it may be in the middle of something."""
        waiting = self._waiting.setdefault(backend.name, [])
        if len(waiting) < _MOST:
            waiting.append(executable)
