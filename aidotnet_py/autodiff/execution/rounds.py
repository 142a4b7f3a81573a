"""Stages of several Executables run in turn, over and over: in one call, once all of them are compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from aidotnet_py.autodiff.execution.executable import Executable
from aidotnet_py.backends import Backend
from aidotnet_py.exceptions import InvalidOperationException

__all__ = ["Rounds"]

# So many rounds at most are captured as one: more would take longer to capture, and save next to nothing.
_MOST_CAPTURED = 32


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
        self._many: Callable[[int], Any] | None = None
        self._is_capturable = True

    def run(self, times: int) -> None:
        """Run that many rounds, at least 0."""
        if self._backend.capturing:
            self._call(times)
            return
        while times and self._many is None:
            for executable, stage in self._turns:
                executable.run(stage)
            times -= 1
            self._many = self._chained() or self._captured()
        if times and self._many is not None:
            self._many(times)

    def _call(self, times: int) -> None:
        for _ in range(times):
            for executable, stage in self._turns:
                executable.call(stage)

    def _chained(self) -> Callable[[int], Any] | None:
        """One call of compiled code."""
        compiler = self._backend.compiler
        kernels = [executable.kernels(stage) for executable, stage in self._turns]
        if compiler is None or not all(kernels):
            return None
        return compiler.chain([call for calls in kernels for call in calls or ()])

    def _captured(self) -> Callable[[int], Any] | None:
        """One call for all that the device is to do."""
        if not self._is_capturable or not all(executable.is_settled for executable, _ in self._turns):
            return None
        once = self._captured_as_one(1)
        self._is_capturable = once is not None
        if once is None:
            return None
        found: dict[int, Callable[[], Any] | None] = {1: once}

        def replay(times: int) -> None:
            while times:
                some = min(times, _MOST_CAPTURED)
                if some not in found:
                    found[some] = self._captured_as_one(some)
                again = found[some] or partial(self._call, some)
                again()
                times -= some

        return replay

    def _captured_as_one(self, times: int) -> Callable[[], None] | None:
        """So many rounds; None where the backend has no such thing, or no room for it."""
        try:
            return self._backend.capture(partial(self._call, times))
        except InvalidOperationException:
            return None
