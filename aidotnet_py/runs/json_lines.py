"""A file of JSON objects, one a line, that is appended to in order and survives kills and repeated calls."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, cast

from aidotnet_py.arguments import COUNT_OR_ZERO
from aidotnet_py.exceptions import ArgumentException

__all__ = ["JsonLines", "open_for_both", "read_lines"]


def read_lines(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Read the whole lines of a file, and how many bytes each takes; a line that is still being written is left out.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ArgumentException
        When a line is not a JSON object with an ``Iteration``, a whole number of at least 0.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                continue
            try:
                record: Any = json.loads(line)
                COUNT_OR_ZERO.check("Iteration", record["Iteration"])
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise ArgumentException(
                    f"{path} must hold a JSON object with an Iteration in line {number}, got {line!r:.60}"
                ) from error
            yield cast("dict[str, Any]", record), len(line)


class JsonLines:
    """Lines with a rising order, each written by one call at a known place of the file.

    An interrupted `append` may be called again with the same line: it writes the same bytes at the same place, or
    nothing if they are there. `cut` drops a line that a kill cut off, and what a loss of power left of later lines.

    Parameters
    ----------
    path : Path
        The file; made if it is missing.

    Raises
    ------
    OSError
        When it cannot be written; the error names it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # An object of the interpreter's own: it may be closed twice, and closes itself if an interrupt leaves it open.
        self._file = open_for_both(path)
        # The order of the last line and the file's length, in one assignment, which no interrupt divides.
        self._end: tuple[int, int] = (-1, 0)

    def read(self, first: int, last: int) -> list[dict[str, Any]]:
        """Return the lines of the steps after the first iteration, up to the last; the next line is to follow them.

        Raises
        ------
        ArgumentException
            When one of these is no such line.
        """
        lines: list[dict[str, Any]] = []
        end, order, reached = 0, -1, first
        try:
            for record, length in read_lines(self._path):
                if record["Iteration"] > last:
                    break
                lines.append(record)
                end, order, reached = end + length, max(order, _order(record)), max(reached, record["Iteration"])
        except ArgumentException:
            # A loss of power may leave zeros in place of the lines that were not flushed.
            if reached < last:
                raise
        self._end = order, end
        return lines

    def cut(self) -> None:
        """Cut off the lines after those that were read."""
        with self._named_errors():
            self._file.truncate(self._end[1])

    def holds(self, record: Mapping[str, Any]) -> bool:
        """Return whether this line, or a later one, is there."""
        return _order(record) <= self._end[0]

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a line, unless it or a later one is there; numbers that are not finite become null."""
        order, end = _order(record), self._end[1]
        if self.holds(record):
            return
        text = json.dumps({name: _finite(value) for name, value in record.items()}, allow_nan=False)
        data = text.encode() + b"\n"
        with self._named_errors():
            written = 0
            while written < len(data):
                written += _write_at(self._file.fileno(), data[written:], end + written)
        self._end = order, end + len(data)

    def is_in_place(self) -> bool:
        """Return whether the file that the lines go to is still the one of its path."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), os.stat(self._path))
        except FileNotFoundError:
            return False

    def flush(self) -> None:
        """Have all lines on the disk."""
        with self._named_errors():
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; it may be closed already."""
        self._file.close()

    @contextmanager
    def _named_errors(self) -> Generator[None]:
        """Have errors of the system name the file."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error


def open_for_both(path: Path) -> FileIO:
    """Open a file to read and write, without buffer; make it if it is missing."""

    def opener(name: str, _: int) -> int:
        return os.open(name, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)

    return open(path, "r+b", buffering=0, opener=opener)


def _write_at(file: int, data: bytes, place: int) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(file, data, place)
    os.lseek(file, place, os.SEEK_SET)
    return os.write(file, data)


def _order(record: Mapping[str, Any]) -> int:
    """Return the place of a line among others: an evaluation comes after the step of its iteration."""
    return 2 * int(record["Iteration"]) + ("EvaluationLoss" in record)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
