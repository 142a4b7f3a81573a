"""A process that compiles modules, so that LLVM takes its memory and the interpreter's lock elsewhere."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from aidotnet_py.backends.numpy import machine_code
from aidotnet_py.backends.numpy.machine_code import LENGTH_BYTES, OPTIMIZE

__all__ = ["AbandonedError", "CompilingProcess"]

R = TypeVar("R")

# Seconds between looks whether the work is still wanted; and for one module, of which the longest take a few.
_WHILE, _MOST = 0.05, 60.0


def _nothing() -> None:
    """Do nothing."""


class AbandonedError(Exception):
    """The work is not wanted any more."""


class _Running(NamedTuple):
    process: subprocess.Popen[bytes]
    line: socket.socket


class CompilingProcess:
    """A process that the first module starts, and that serves one thread.

    It has a session of its own, so that Ctrl-C in a terminal leaves it alone, and ends with its input, whatever ends
    this process.

    Parameters
    ----------
    is_wanted : callable
        Whether the work is still wanted; asked while it goes on.
    """

    def __init__(self, is_wanted: Callable[[], bool]) -> None:
        self._is_wanted = is_wanted
        self._running: _Running | None = None
        # Whether one failed; then none is started any more.
        self._failed = False

    @property
    def is_running(self) -> bool:
        """Whether the process has been started, and not ended."""
        return self._running is not None

    def compile(self, text: str, *, optimize: bool, meanwhile: Callable[[], None] = _nothing) -> bytes | None:
        """Return the object file of a module; None if there is no such process, or it failed.

        The call of ``meanwhile`` is made while the process compiles.

        Raises
        ------
        AbandonedError
            When the work is not wanted any more; the process has ended then.
        """
        if self._failed:
            return None
        try:
            self._running = self._running or _started()
            return self._answer(self._running.line, OPTIMIZE if optimize else b"\0", text.encode(), meanwhile)
        # RuntimeError: the interpreter ends, and starts no process.
        except (OSError, RuntimeError, subprocess.SubprocessError):
            self._failed = True
            self.end()
            return None
        except BaseException:
            # Its answer would be taken for that to the next module.
            self.end()
            raise

    def end(self) -> None:
        """End the process; the next module starts another one."""
        running, self._running = self._running, None
        if running is not None:
            running.line.close()
            running.process.kill()
            running.process.wait()

    def _answer(self, line: socket.socket, level: bytes, module: bytes, meanwhile: Callable[[], None]) -> bytes:
        """Send a module, and return its object file; each comes after its length."""
        end, request = time.monotonic() + _MOST, len(module).to_bytes(LENGTH_BYTES, "little") + level + module
        while request:
            # No signal if the process has ended, since the signal would end this process where SIGPIPE is not ignored.
            request = request[self._wait(partial(line.send, request, socket.MSG_NOSIGNAL), end) :]
        meanwhile()
        return self._receive(line, int.from_bytes(self._receive(line, LENGTH_BYTES, end), "little"), end)

    def _receive(self, line: socket.socket, count: int, end: float) -> bytes:
        received = bytearray()
        while len(received) < count:
            came = self._wait(partial(line.recv, count - len(received)), end)
            if not came:
                raise ConnectionError("the compiling process has ended")
            received += came
        return bytes(received)

    def _wait(self, attempt: Callable[[], R], end: float) -> R:
        """Return what an attempt returns, repeated after each timeout while the work is wanted and there is time."""
        while True:
            if not self._is_wanted():
                raise AbandonedError
            try:
                return attempt()
            except TimeoutError:
                if time.monotonic() > end:
                    raise


def _started() -> _Running:
    """Start the program; raise OSError where this process has no interpreter to run it, or lacks LLVM."""
    program, library = machine_code.__file__, importlib.util.find_spec("llvmlite")
    # Of an application that embeds Python, the executable is the application.
    is_python = Path(sys.executable or "").name.startswith("python") and not hasattr(sys, "frozen")
    if not (is_python and program and library is not None and library.origin):
        raise OSError("there must be an interpreter and llvmlite for a compiling process")
    folder = str(Path(library.origin).parent.parent)
    line, other = socket.socketpair()
    with other:
        line.settimeout(_WHILE)
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", program, folder],
                stdin=other.fileno(),
                stdout=other.fileno(),
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            line.close()
            raise
    return _Running(process, line)
