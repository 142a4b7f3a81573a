"""CSV, TSV and Parquet files as frames of Polars."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aidotnet_py.arguments import shown
from aidotnet_py.data.table.columns import separator_hint
from aidotnet_py.data.table.forms import by_no_pattern, errors_of_forms, plain_numbers, strings_in, with_times
from aidotnet_py.exceptions import ArgumentException

__all__ = ["NEEDS", "check_different", "read_frame"]

NEEDS = 'pip install "aidotnet-py[table]"'
# How CSV files write that a value is missing.
_MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_PARQUET = (".parquet", ".pq")
# Bytes of blank lines at the end of a file.
_MOST_BLANK = 2**20


def read_frame(path: Path, argument: str, strings: Sequence[str]) -> tuple[Any, dict[str, ArgumentException]]:
    """Return the frame of a file, and the errors of its columns that can be read in several ways.

    Raises
    ------
    FileNotFoundError
        There is no file at the path.
    ArgumentException
        It is no such file, cannot be read, or has two columns of one name.
    ImportError
        Polars is not installed.
    """
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, f"{argument} must be an existing file, got nothing", str(path))
    suffix = path.suffix.lower()
    if path.is_dir() or suffix not in (*_SEPARATORS, *_PARQUET):
        raise ArgumentException(f"{argument} must be a .csv, .tsv or .parquet file, got {str(path)!r:.200}")
    try:
        import polars
    except ImportError as error:
        raise ImportError(f"reading {suffix} files needs Polars: {NEEDS}") from error
    names = list[str]()
    try:
        source = _source(path)
        if suffix in _PARQUET:
            return polars.read_parquet(source, glob=False), {}
        separator = _SEPARATORS[suffix]
        names = _header(polars, source, separator)
        as_strings = [name for name in strings if name in names]
        frame, texts, mixed, long = _read_text(polars, source, separator, as_strings)
    # Polars raises errors of its own, OSError and others.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise _unreadable(path, argument, f"{reason}{separator_hint(names)}") from error
    check_different(names, argument)
    left = [name for name in strings_in(polars, frame) if name not in as_strings]
    # A name in quotes may have the separator itself.
    if len(names) == len(left) == 1 and separator not in names[0] and (hint := separator_hint(names)):
        raise _unreadable(path, argument, f"it has one column{hint}")
    return frame, errors_of_forms(polars, argument, frame, texts, left, mixed, long)


def _unreadable(path: Path, argument: str, reason: str) -> ArgumentException:
    return ArgumentException(
        f"{argument} must be a readable {path.suffix.lower()} file, got {str(path)!r:.200}: {reason}"
    )


def _source(path: Path) -> Path | bytes:
    """Return what Polars reads a file from: its path, or its bytes where the path is none in UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return path.read_bytes()
    return path


def _header(polars: Any, source: Path | bytes, separator: str) -> list[str]:
    """Return the names in a file's first line that is not blank. Polars renames columns whose name another one has."""
    options = {
        "has_header": False,
        "n_rows": 1,
        "infer_schema_length": 0,
        "truncate_ragged_lines": True,
        "glob": False,
    }
    names, blank = (None,), 0
    while names == (None,):
        names = polars.read_csv(source, separator=separator, skip_rows=blank, **options).row(0)
        blank += 1
    return [name or "" for name in names]


def _read_text(
    polars: Any, source: Path | bytes, separator: str, as_strings: Sequence[str]
) -> tuple[Any, dict[str, Any], list[str], dict[str, str]]:
    """Return the frame of a file, its columns of times as they are written, and the names of those of no one form.

    Last is an integer beyond all of Polars' types from each column that has one.
    """
    options: dict[str, Any] = {
        "separator": separator,
        "null_values": _MISSING,
        "infer_schema_length": None,
        "glob": False,
    }
    types = dict.fromkeys(as_strings, polars.String)
    try:
        frame, long = polars.read_csv(source, schema_overrides=types, **options), dict[str, str]()
    except polars.exceptions.ComputeError:
        frame, long = _read_long_integers(polars, source, types, options)
    # Polars takes blank lines for rows.
    frame = frame.head(frame.height - _blank_lines_at_the_end(source))
    left = [name for name in strings_in(polars, frame) if name not in as_strings]
    timed = {name: with_times(polars, frame[name]) for name in left}
    mixed = [name for name, column in timed.items() if column is None]
    read = {name: frame[name] if column is None else column for name, column in timed.items()}
    texts = {name: frame[name] for name, column in read.items() if column.dtype in (polars.Date, polars.Datetime)}
    read |= {name: plain_numbers(polars, read[name], _MISSING) for name in left if read[name].dtype == polars.String}
    return frame.with_columns(list(read.values())), texts, mixed, long


def _read_long_integers(
    polars: Any, source: Path | bytes, types: dict[str, Any], options: dict[str, Any]
) -> tuple[Any, dict[str, str]]:
    """Return the frame of a file with nothing for integers beyond all types, and the first one of each such column.

    Raises
    ------
    polars.exceptions.ComputeError
        It cannot be read for another reason.
    """
    lenient = polars.read_csv(source, schema_overrides=types, ignore_errors=True, **options)
    whole = {name: polars.String for name, kind in lenient.schema.items() if kind.is_integer()}
    strict = polars.read_csv(source, schema_overrides=types | whole, **options)
    missing = {name: by_no_pattern(lenient[name]).is_null() for name in whole}
    lost = {name: by_no_pattern(strict[name]).filter(rows).drop_nulls()[:1] for name, rows in missing.items()}
    return lenient, {name: integers[0] for name, integers in lost.items() if len(integers)}


def _blank_lines_at_the_end(source: Path | bytes) -> int:
    """Return the number of blank lines after the last row of a file."""
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - _MOST_BLANK, 0))
        end = file.read()
    return max(end[len(end.rstrip(b"\r\n")) :].count(b"\n") - 1, 0)


def check_different(names: list[str], argument: str) -> None:
    """Raise ArgumentException if two columns have one name."""
    if len(set(names)) < len(names):
        raise ArgumentException(f"{argument} must have columns of different names, got {shown(names)}")
