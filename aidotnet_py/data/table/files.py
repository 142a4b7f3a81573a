"""CSV, TSV and Parquet files as frames of Polars."""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping, Sequence
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
_YEAR_FIRST = r"^\s*\d{4}[-/]\d{1,2}[-/]\d{1,2}(\s|T|$)"
# For Polars: plain numbers and others, such as 2,5 and 1,234.5 and $5 and 10%; not 1.2.3, which may be a version.
_DIGITS = r"(\d+([.,]\d*)?|[.,]\d+|\d{1,3}(,\d{3})+(\.\d*)?|\d{1,3}(\.\d{3})+,\d*)([eE][+-]?\d+)?"
_NUMBER = rf"^\s*[+\-−]?\s*\p{{Sc}}?\s*{_DIGITS}\s*(%|\p{{Sc}})?\s*$"
# What stands for a missing value elsewhere: a mark such as ?, or a word of spreadsheets.
_NO_VALUE = r"^([^\p{L}\d]*|#N/A|#NA|<NA>|(?i:n/a|nan))$"
# Float64 may round these.
_LONG_INTEGER = r"^\s*[+-]?\d{16,}\s*$"


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
        left = [name for name in _strings(polars, frame) if name not in as_strings]
        frame = frame.with_columns([_plain_numbers(polars, frame[name]) for name in left])
        texts = _dates_with_the_year_last(polars, path, frame, options)
    # Polars raises errors of its own, OSError and others.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise _unreadable(path, argument, f"{reason}{separator_hint(names)}") from error
    check_different(names, argument)
    strings_here = [name for name in _strings(polars, frame) if name not in as_strings]
    if len(names) == len(strings_here) == 1 and (hint := separator_hint(names)):
        raise _unreadable(path, argument, f"it has one column{hint}")
    dates = {name: _unclear_date(written) for name, written in texts.items()}
    dates |= {name: _date_left(polars, frame[name]) for name in strings_here}
    numbers = {name: _number_left(polars, frame[name]) for name in strings_here}
    unclear = _unclear(argument, dates, "dates that can be read in one way", "write them as YYYY-MM-DD")
    nothing = "write them so, and nothing for missing ones"
    return frame, unclear | _unclear(argument, numbers, "numbers such as 1234.5, or strings", nothing)


def _unclear(argument: str, values: Mapping[str, str | None], wanted: str, remedy: str) -> dict[str, ArgumentException]:
    """Return the errors of columns with an unclear value."""
    return {
        name: ArgumentException(
            f"{argument}[{name!r:.80}] must have {wanted}, got {value!r:.80}; {remedy}, or read the file with pandas "
            "or Polars, and say their format there"
        )
        for name, value in values.items()
        if value is not None
    }


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


def _strings(polars: Any, frame: Any) -> list[str]:
    return [name for name, kind in frame.schema.items() if kind == polars.String]


def _plain_numbers(polars: Any, column: Any) -> Any:
    """Return a column of strings as numbers if all are, but for blanks around them and a plus, which Polars refuses."""
    # The first one tells most columns of other strings at once.
    first = column.drop_nulls()[:1]
    read = None if first.is_empty() or _numbers(polars, first) is None else _numbers(polars, column)
    return column if read is None else read


def _numbers(polars: Any, column: Any) -> Any:
    """Return a column of strings as numbers; None if one is no number, or Float64 would round it."""
    plain = column.str.strip_chars().str.replace(r"^\+([\d.])", "${1}").replace(_MISSING, None)
    kinds = (polars.Int64,) if plain.str.contains(_LONG_INTEGER).any() else (polars.Int64, polars.Float64)
    read = (plain.cast(kind, strict=False) for kind in kinds)
    return next((numbers for numbers in read if numbers.null_count() == plain.null_count()), None)


def _all(column: Any, pattern: str) -> bool:
    """Return whether a column has strings, and all fit."""
    # The first one tells most columns of other strings at once.
    return not column.is_empty() and all(part.str.contains(pattern).all() for part in (column[:1], column))


def _date_left(polars: Any, column: Any) -> str | None:
    """Return a date of a column of strings that all are dates, which Polars does not read; None for other columns.

    With the month first, it is the first one, and otherwise one that is no day, or that is written as the first is not.
    """
    written = column.drop_nulls()
    if _all(written, _MONTH_FIRST):
        return str(written[0])
    if not _all(written, _YEAR_FIRST):
        return None
    days = written.str.strip_chars().str.extract(r"^(\d+[-/]\d+[-/]\d+)").str.replace_all("/", "-")
    odd = days.str.to_date(strict=False).is_null() | (written.str.len_chars() != len(written[0]))
    return str(written.filter(odd).head(1).to_list()[0] if odd.any() else written[0])


def _number_left(polars: Any, column: Any) -> str | None:
    """Return a number of a column of strings that all are numbers or no values, which Polars does not read; or None.

    It is the first one that is not written as Polars reads it.
    """
    written = column.drop_nulls()
    if not _all(written, f"{_NUMBER}|{_NO_VALUE}") or not written.str.contains(_NUMBER).any():
        return None
    odd = written.str.strip_chars().cast(polars.Float64, strict=False).is_null()
    return str(written.filter(odd)[0] if odd.any() else written[0])


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
