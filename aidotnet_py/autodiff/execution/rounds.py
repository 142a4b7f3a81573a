"""Stages of several Executables run in turn, over and over: as one call, once all of them are compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aidotnet_py.autodiff.execution.executable import Executable
from aidotnet_py.backends import Backend

__all__ = ["Rounds"]


class Rounds:
    """Runs stages in turn, so many times over; what is computed is what the runs one by one compute, bit for bit.

    Parameters
    ----------
    backend : Backend
        That of the Executables.
    turns : sequence of (Executable, int)
        What a round is: these stages of these, one after another.
    """

    def __init__(self, backend: Backend, turns: Sequence[tuple[Executable, int]]) -> None:
        self._backend = backend
        self._turns = turns
        self._chained: Callable[[int], Any] | None = None

    def run(self, times: int) -> None:
        """Run that many rounds, at least 0."""
        while times and self._chained is None:
            for executable, stage in self._turns:
                executable.run(stage)
            times -= 1
            self._chained = self._chain()
        if times and self._chained is not None:
            self._chained(times)

    def _chain(self) -> Callable[[int], Any] | None:
        compiler = self._backend.compiler
        kernels = [executable.kernels(stage) for executable, stage in self._turns]
        if compiler is None or not all(kernels):
            return None
        return compiler.chain([call for calls in kernels for call in calls or ()])
