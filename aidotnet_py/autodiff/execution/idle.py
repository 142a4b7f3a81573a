"""Executables between calls: each call takes one for itself, also in another thread or inside another call."""

from __future__ import annotations

from aidotnet_py.autodiff.execution.executable import Executable
from aidotnet_py.backends import Backend

__all__ = ["Idle"]

# Executables kept for each backend; if more calls run at the same time, some make new ones.
_MOST = 4


class Idle:
    """The Executables of one Program that no call uses, by backend; it has no lock that a fork could leave locked.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff import trace
    >>> from aidotnet_py.autodiff.extend import Executable, Idle
    >>> from aidotnet_py.backends import get_backend
    >>> numpy, idle, program = get_backend("numpy"), Idle(), trace(np.sin, np.ones(3))
    >>> executable = idle.take(numpy) or Executable(program, numpy)
    >>> executable.run()
    >>> idle.give_back(numpy, executable)
    >>> idle.take(numpy) is executable
    True
    """

    def __init__(self) -> None:
        self._waiting: dict[str, list[Executable]] = {}

    def __reduce__(self) -> tuple[type[Idle], tuple[()]]:
        """Make copies and pickles empty."""
        return Idle, ()

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
