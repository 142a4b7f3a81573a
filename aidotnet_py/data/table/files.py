"""CSV, TSV and Parquet files as frames of Polars."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aidotnet_py.arguments import shown
from aidotnet_py.data.table.columns import separator_hint
from aidotnet_py.exceptions import ArgumentException

__all__ = ["NEEDS", "check_different", "read_frame"]

NEEDS = 'pip install "aidotnet-py[table]"'
# How CSV files write that a value is missing.
_MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_PARQUET = (".parquet", ".pq")
# For Python and for Polars.
_YEAR_LAST = r"^\s*(\d{1,2})[-/.](\d{1,2})[-/.](\d+)"
# For Polars. A year of two digits needs slashes: 1.13.24 may be a version.
_MONTH_FIRST = r"^\s*(0?[1-9]|1[0-2])([-/.](0?[1-9]|[12]\d|3[01])[-/.]\d{4}|/(0?[1-9]|[12]\d|3[01])/\d{2})(\s|T|$)"


def read_frame(path: Path, argument: str, strings: Sequence[str]) -> tuple[Any, dict[str, str]]:
    """Return the frame of a file, and its columns of dates that can be read in several ways, each with such a date.

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
        if suffix in _PARQUET:
            return polars.read_parquet(path, glob=False), {}
        separator = _SEPARATORS[suffix]
        names = _header(polars, path, separator)
        options: dict[str, Any] = {
            "separator": separator,
            "null_values": _MISSING,
            "infer_schema_length": None,
            "glob": False,
        }
        as_strings = {name: polars.String for name in strings if name in names}
        frame = polars.read_csv(path, schema_overrides=as_strings, try_parse_dates=True, **options)
        texts = _dates_with_the_year_last(polars, path, frame, options)
    # Polars raises errors of its own, OSError and others.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise _unreadable(path, argument, f"{reason}{separator_hint(names)}") from error
    check_different(names, argument)
    strings_here = [name for name, kind in frame.schema.items() if kind == polars.String and name not in as_strings]
    if len(names) == len(strings_here) == 1 and (hint := separator_hint(names)):
        raise _unreadable(path, argument, f"it has one column{hint}")
    unclear = {name: _unclear_date(written) for name, written in texts.items()}
    unclear |= {name: _month_first(frame[name]) for name in strings_here}
    return frame, {name: date for name, date in unclear.items() if date is not None}


def _unreadable(path: Path, argument: str, reason: str) -> ArgumentException:
    return ArgumentException(
        f"{argument} must be a readable {path.suffix.lower()} file, got {str(path)!r:.200}: {reason}"
    )


def _header(polars: Any, path: Path, separator: str) -> list[str]:
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
        names = polars.read_csv(path, separator=separator, skip_rows=blank, **options).row(0)
        blank += 1
    return [name or "" for name in names]


def _dates_with_the_year_last(polars: Any, path: Path, frame: Any, options: dict[str, Any]) -> dict[str, list[str]]:
    """Return the different dates of this order, as they are written, in each column of times.

    Polars reads 01/02/2024 as the first of February, and 01/02/24 as that of the year 24.
    """
    dated = [name for name, kind in frame.schema.items() if kind in (polars.Date, polars.Datetime)]
    if not dated:
        return {}
    # Polars takes names such as ^a$ for regular expressions.
    places = [frame.columns.index(name) for name in dated]
    texts = polars.read_csv(path, columns=places, schema_overrides=dict.fromkeys(dated, polars.String), **options)
    columns = {name: texts[name].alias("texts") for name in dated}
    return {
        name: column.filter(column.str.contains(_YEAR_LAST)).unique(maintain_order=True).to_list()
        for name, column in columns.items()
    }


def _month_first(column: Any) -> str | None:
    """Return a date of a column of strings that all are dates, month first, which Polars does not read; or None."""
    written = column.drop_nulls()
    # The first one tells most columns of other strings at once.
    are_dates = not written.is_empty() and all(part.str.contains(_MONTH_FIRST).all() for part in (written[:1], written))
    return str(written[0]) if are_dates else None


def check_different(names: list[str], argument: str) -> None:
    """Raise ArgumentException if two columns have one name."""
    if len(set(names)) < len(names):
        raise ArgumentException(f"{argument} must have columns of different names, got {shown(names)}")


def _unclear_date(texts: Sequence[str]) -> str | None:
    """Return a date that another order of day and month, or another century, makes another one; None if none does."""
    dates = [match for text in texts if (match := re.match(_YEAR_LAST, text))]
    short = next((date.string for date in dates if len(date[3]) < 4), None)
    # One day beyond 12 tells the order of the column.
    if short is not None or any(max(int(date[1]), int(date[2])) > 12 for date in dates):
        return short
    return next((date.string for date in dates if int(date[1]) != int(date[2])), None)
