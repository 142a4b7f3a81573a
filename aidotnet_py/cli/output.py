"""What all commands print: warnings in a line each, and a standard output that may take no more."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO, cast

__all__ = ["OutputError", "both_streams", "checked_output", "discard_output", "warnings_in_lines"]

# The exit code of shells for a program that SIGPIPE ended.
_CLOSED_PIPE = 141


class OutputError(Exception):
    """An error of standard output; no OSError, which would be taken for one of a file that the command was given.

    Parameters
    ----------
    error : OSError
        What writing raised.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output must take what is printed, got {error}")
        self.is_closed_pipe = isinstance(error, BrokenPipeError)
        self.exit_code = _CLOSED_PIPE if self.is_closed_pipe else 1


class _Output:
    """Standard output whose errors are OutputError, and which escapes characters that it lacks, as stderr does."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with _as_output_error():
            try:
                return self._stream.write(text)
            except UnicodeEncodeError as error:
                return self._stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))

    def flush(self) -> None:
        with _as_output_error():
            self._stream.flush()


@contextmanager
def _as_output_error() -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(error) from error


@contextmanager
def both_streams() -> Generator[None]:
    """Give a process that was started without standard output, or without standard error, one that leads nowhere.

    What is for the one must not come out of the other, which is where `print` writes instead.
    """
    with ExitStack() as stack:
        # The streams' stub leaves None out.
        if cast("TextIO | None", sys.stdout) is None:
            stack.enter_context(redirect_stdout(stack.enter_context(_nowhere())))
        if cast("TextIO | None", sys.stderr) is None:
            stack.enter_context(redirect_stderr(stack.enter_context(_nowhere())))
        yield


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


@contextmanager
def checked_output() -> Generator[None]:
    """Raise OutputError for errors of standard output, also for those that only the last flush would have."""
    before = sys.stdout
    sys.stdout = cast(TextIO, _Output(before))
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout = before


def discard_output() -> None:
    """Send what is left for standard output nowhere: at the end of the process it would fail once more."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def warnings_in_lines() -> Generator[None]:
    """Show each warning in one line, without the place in the code."""
    before = warnings.showwarning
    warnings.showwarning = _show_warning
    try:
        yield
    finally:
        warnings.showwarning = before


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"aidotnet-py: {' '.join(str(message).split())}", file=sys.stderr)
