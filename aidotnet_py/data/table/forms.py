"""Forms of numbers, times and durations in CSV files that Polars leaves strings, cuts, or reads as one of several."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from aidotnet_py.exceptions import ArgumentException

__all__ = ["by_no_pattern", "errors_of_forms", "plain_numbers", "strings_in", "with_times"]

# For Python and for Polars.
_YEAR_LAST = r"^\s*(\d{1,2})[-/.](\d{1,2})[-/.](\d+)"
# For Polars. A year of two digits needs slashes: 1.13.24 may be a version.
_MONTH_FIRST = r"^\s*(0?[1-9]|1[0-2])([-/.](0?[1-9]|[12]\d|3[01])[-/.]\d{4}|/(0?[1-9]|[12]\d|3[01])/\d{2})(\s|T|$)"
_YEAR_FIRST = r"^\s*\d{4}[-/]\d{1,2}[-/]\d{1,2}(\s|T|$)"
# For Polars: plain numbers and others, such as 2,5 and 1,234.5 and 1 234 and $5 and 10%; not 1.2.3, maybe a version.
_GROUPS = r"\d{1,3}(,\d{3})+(\.\d*)?|\d{1,3}(\.\d{3})+,\d*|\d{1,3}([ \u{a0}\u{202f}'’]\d{3})+([.,]\d*)?"
_DIGITS = rf"(\d+([.,]\d*)?|[.,]\d+|{_GROUPS})([eE][+-]?\d+)?"
_NUMBER = rf"^\s*[+\-−]?\s*\p{{Sc}}?\s*{_DIGITS}\s*(%|\p{{Sc}})?\s*$"
# What stands for a missing value elsewhere: a mark such as ?, or a word of spreadsheets.
_NO_VALUE = r"^([^\p{L}\d]*|#N/A|#NA|<NA>|(?i:n/a|nan))$"
# Float64 may round these.
_LONG_INTEGER = r"^\s*[+-]?\d{16,}\s*$"
# As pandas writes durations, and as Polars does.
_DURATION = r"^\s*(-?\d+ days?( [+-]?\d+:\d\d:\d\d(\.\d+)?)?|-?P(\d+D)?T([\d.]+[HMS])+|-?P\d+D)\s*$"
# Of a time, beyond the microseconds that Polars keeps, and beyond nanoseconds.
_FINER, _TOO_FINE = r"\.\d{6}\d*[1-9]", r"\.\d{9}\d*[1-9]"
# NumPy has nanoseconds in all of these years.
_YEARS = 1678, 2261


def by_no_pattern(column: Any) -> Any:
    """Return a column under another name: Polars finds it by that, and takes names such as ^a$ for patterns."""
    return column.alias("values")


def strings_in(polars: Any, frame: Any) -> list[str]:
    """Return the names of the columns of strings."""
    return [name for name, kind in frame.schema.items() if kind == polars.String]


def with_times(polars: Any, column: Any) -> Any:
    """Return a column of strings as times, to the nanosecond, if all are; None if they are of no one form."""
    # Polars tries every form of a time on every value, which would take ten times as long as all else.
    strings = by_no_pattern(column)
    written = strings.drop_nulls().unique(maintain_order=True)
    if not written[:1].str.contains(r"^\s*[+-]?\d").any():
        return column
    options: dict[str, Any] = {"infer_schema_length": None, "try_parse_dates": True}
    try:
        read = polars.read_csv(written.to_frame().write_csv().encode(), **options)["values"]
    # Times of several forms, or of one that Polars knows and cannot read, such as 20240101T000000.
    except polars.exceptions.ComputeError:
        return None
    if read.dtype == polars.String:
        return column
    times = _finer_times(polars, read, written)
    return strings.replace_strict(written, times, default=None, return_dtype=times.dtype).alias(column.name)


def plain_numbers(polars: Any, column: Any, missing: Sequence[str]) -> Any:
    """Return a column of strings as numbers if all are, but for blanks around them and a plus, which Polars refuses."""
    strings = by_no_pattern(column)
    # The first one tells most columns of other strings at once.
    first = strings.drop_nulls()[:1]
    read = None if first.is_empty() or _numbers(polars, first, missing) is None else _numbers(polars, strings, missing)
    return column if read is None else read.alias(column.name)


def _numbers(polars: Any, column: Any, missing: Sequence[str]) -> Any:
    """Return a column of strings as numbers; None if one is no number, or Float64 would round it."""
    plain = column.str.strip_chars().str.replace(r"^\+([\d.])", "${1}").replace([*missing], None)
    kinds = (polars.Int64,) if plain.str.contains(_LONG_INTEGER).any() else (polars.Int64, polars.Float64)
    read = (plain.cast(kind, strict=False) for kind in kinds)
    return next((numbers for numbers in read if numbers.null_count() == plain.null_count()), None)


def _finer_times(polars: Any, column: Any, written: Any) -> Any:
    """Return a column of times with their nanoseconds, if they are written with some: Polars reads microseconds."""
    if column.dtype != polars.Datetime or not written.str.contains(_FINER).any() or _cut_time(column, written):
        return column
    return written.str.to_datetime(time_unit="ns", time_zone=column.dtype.time_zone)


def _cut_time(column: Any, texts: Any) -> str | None:
    """Return a time among some with nanoseconds that has none in 64 bits, or is finer than these; None for others."""
    if not texts.str.contains(_FINER).any():
        return None
    beyond = ~by_no_pattern(column).dt.year().is_between(*_YEARS) | texts.str.contains(_TOO_FINE)
    return next(iter(texts.filter(beyond.fill_null(False)).to_list()), None)


def errors_of_forms(
    polars: Any,
    argument: str,
    frame: Any,
    texts: Mapping[str, Any],
    strings: Sequence[str],
    mixed: Sequence[str],
    long: Mapping[str, str],
) -> dict[str, ArgumentException]:
    """Return the errors of columns whose values can be read in several ways, or not as what they are.

    Parameters
    ----------
    polars : module
        Polars.
    argument : str
        What messages call the table.
    frame : polars.DataFrame
        The table as it was read.
    texts : mapping of str to polars.Series
        The columns of times as they are written.
    strings : sequence of str
        The columns that are strings because they could not be read as anything else.
    mixed : sequence of str
        Those of them that are times of no one form.
    long : mapping of str to str
        An integer of each column that has one beyond all types.
    """
    timed = {name: by_no_pattern(written) for name, written in texts.items()}
    left = {name: by_no_pattern(frame[name]).drop_nulls() for name in strings}
    dates = {name: _unclear_date(written) for name, written in timed.items()}
    dates |= {name: str(w[0]) if name in mixed else _date_left(polars, w) for name, w in left.items()}
    numbers = {name: _number_left(polars, written) for name, written in left.items()}
    durations = {name: _duration_left(written) for name, written in left.items()}
    times = {name: _cut_time(frame[name], written) for name, written in timed.items()}
    nothing = "write them so, and nothing for missing ones"
    kinds = (
        (dates, "dates that can be read in one way", "write them as YYYY-MM-DD"),
        (long, "integers of at most 64 bits", "shorten them"),
        (numbers, "numbers such as 1234.5, or strings", nothing),
        (durations, "durations as numbers", "write them in seconds"),
        (times, f"times of at most nanoseconds, of the years {_YEARS[0]} to {_YEARS[1]}", "round them"),
    )
    return {
        name: ArgumentException(
            f"{argument}[{name!r:.80}] must have {wanted}, got {value!r:.80}; {remedy}, or read the file with pandas "
            "or Polars, and say their format there"
        )
        for values, wanted, remedy in kinds
        for name, value in values.items()
        if value is not None
    }


def _all(column: Any, pattern: str) -> bool:
    """Return whether a column has strings, and all fit."""
    # The first one tells most columns of other strings at once.
    return not column.is_empty() and all(part.str.contains(pattern).all() for part in (column[:1], column))


def _unclear_date(column: Any) -> str | None:
    """Return a date that another order of day and month, or another century, makes another one; None if none does.

    Polars reads 01/02/2024 as the first of February, and 01/02/24 as that of the year 24.
    """
    texts = column.filter(column.str.contains(_YEAR_LAST)).unique(maintain_order=True).to_list()
    dates = [match for text in texts if (match := re.match(_YEAR_LAST, text))]
    short = next((date.string for date in dates if len(date[3]) < 4), None)
    # One day beyond 12 tells the order of the column.
    if short is not None or any(max(int(date[1]), int(date[2])) > 12 for date in dates):
        return short
    return next((date.string for date in dates if int(date[1]) != int(date[2])), None)


def _date_left(polars: Any, written: Any) -> str | None:
    """Return a date of a column of strings that all are dates, which Polars does not read; None for other columns.

    With the month first, it is the first one, and otherwise one that is no day, or that is written as the first is not.
    """
    if _all(written, _MONTH_FIRST):
        return str(written[0])
    if not _all(written, _YEAR_FIRST):
        return None
    days = written.str.strip_chars().str.extract(r"^(\d+[-/]\d+[-/]\d+)").str.replace_all("/", "-")
    odd = days.str.to_date(strict=False).is_null() | (written.str.len_chars() != len(written[0]))
    return str(written.filter(odd).head(1).to_list()[0] if odd.any() else written[0])


def _number_left(polars: Any, written: Any) -> str | None:
    """Return a number of a column of strings that all are numbers or no values, which Polars does not read; or None.

    It is the first one that is not written as Polars reads it.
    """
    if not _all(written, f"{_NUMBER}|{_NO_VALUE}") or not written.str.contains(_NUMBER).any():
        return None
    odd = written.str.strip_chars().cast(polars.Float64, strict=False).is_null()
    return str(written.filter(odd)[0] if odd.any() else written[0])


def _duration_left(written: Any) -> str | None:
    """Return a duration of a column of strings that all are durations; None for other columns."""
    return str(written[0]) if _all(written, _DURATION) else None
