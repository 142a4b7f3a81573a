"""One column of a table as a model's numbers, fitted on some of its rows: scaled, or an indicator for each category."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import FINITE, POSITIVE, SWITCH, Choice, OrNone
from aidotnet_py.data.table.columns import ColumnKind, Columns
from aidotnet_py.exceptions import ArgumentException

__all__ = [
    "CategoryColumn",
    "EncodedColumn",
    "NumberColumn",
    "column_of_settings",
    "fit_column",
    "kinds_of",
    "settings_of_column",
]

# More are names, notes or numbers of rows, and would make as many inputs.
_MOST_CATEGORIES = 256
_PLURALS: dict[str | None, str] = {
    "number": "numbers",
    "time": "times",
    "duration": "durations",
    "category": "categories",
    None: "numbers",
}
_KIND = Choice("number", "time", "duration", None)
_ZONED = OrNone(SWITCH)
_CATEGORIES: dict[type, str] = {str: "strings", datetime: "times"}
# Loaders, estimators and the command line show it: it names no argument of one of them alone.
_LEAVE_OUT = "leave it out of the features"

_DATE = re.compile(r"\s*(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4})(\s|T|$)")


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers, times or durations: (x − mean) / deviation, both taken over the rows that it is fitted on.

    Times are seconds since 1970, and durations seconds.

    Attributes
    ----------
    name : str
        The column.
    mean, deviation : float
        Mean and population standard deviation; 1 for a column that does not vary.
    kind : {"number", "time", "duration"} or None
        What the values are; None where it is not known, in settings of older versions.
    zoned : bool or None
        Whether times had a time zone; None for other values, and where it is not known.
    rest : float
        What the mean has beyond the digits of ``mean``, which matters for numbers that are far from 0 but close to each
        other; 0 in settings of older versions.
    """

    name: str
    mean: float
    deviation: float
    kind: ColumnKind | None = None
    zoned: bool | None = None
    rest: float = 0.0

    width = 1

    @classmethod
    def fit(cls, columns: Columns, name: str) -> NumberColumn:
        """Return the scale of a column."""
        values = columns.numbers(name)
        present = ~np.isnan(values)
        _check_finite(values[present], name)
        if not present.any():
            raise ArgumentException(f"column {name!r:.80} must hold numbers, got none; {_LEAVE_OUT}")
        # Differences from their middle, which are exact where numbers are close, and representable up to 1e308.
        middle = float(values[present].min() / 2 + values[present].max() / 2)
        spans = columns.numbers(name, middle)[present]
        # Squares and sums are not representable.
        largest = float(abs(spans).max()) or 1.0
        beyond, deviation = largest * float((spans / largest).mean()), largest * float((spans / largest).std())
        mean = middle + beyond
        rest = beyond - (mean - middle)
        return cls(name, mean, deviation or 1.0, columns.kind(name), _zoned(columns, name), rest)

    def check_kind(self, columns: Columns, *others: ColumnKind) -> None:
        """Raise ArgumentException for values of a kind that is neither the column's nor among others."""
        _check_zone(columns, self.name, self.zoned)
        found = columns.kind(self.name)
        if found in (self.kind, *others) or (self.kind is None and found != "category"):
            return
        # A column without values has no kind of its own.
        if not columns.missing(self.name).all():
            raise ArgumentException(
                f"column {self.name!r:.80} must hold {_PLURALS[self.kind]}, got {_PLURALS[found]}; convert it"
            )

    def encode(self, columns: Columns, out: NDArray[Any]) -> None:
        """Write the scaled column to ``out``, (rows, 1), with 0, the mean, for missing values."""
        values = columns.numbers(self.name)
        missing = np.isnan(values)
        _check_finite(values[~missing], self.name)
        with np.errstate(over="ignore"):
            scaled = (columns.numbers(self.name, self.mean) - self.rest) / self.deviation
            out[:, 0] = np.where(missing, 0.0, scaled)
        beyond = ~np.isfinite(out[:, 0])
        if beyond.any():
            raise ArgumentException(
                f"column {self.name!r:.80} must hold numbers near those of the training groups, got "
                f"{values[beyond][0]!r}, which scaled is inf in {out.dtype}; correct it, or drop such rows"
            )


@dataclass(frozen=True)
class CategoryColumn:
    """A column of categories: one input for each of them, 1 where the row has it; zeros for any other value.

    Attributes
    ----------
    name : str
        The column.
    categories : tuple
        The values, sorted, of the rows that it is fitted on.
    zoned : bool or None
        Whether times, which are in UTC then, had a time zone; None for other values, and where it is not known.
    """

    name: str
    categories: tuple[Any, ...]
    zoned: bool | None = None

    @property
    def width(self) -> int:
        """The number of inputs."""
        return len(self.categories)

    @property
    def has_dates(self) -> bool:
        """Whether the categories are dates as strings, which are probably meant as times."""
        return _are_dates(self.categories)

    @classmethod
    def fit(cls, columns: Columns, name: str) -> CategoryColumn:
        """Return the categories of a column."""
        present = {value for value in columns.labels(name).tolist() if value is not None and value == value}
        if not present:
            raise ArgumentException(f"column {name!r:.80} must hold values, got none; {_LEAVE_OUT}")
        if len(present) > _MOST_CATEGORIES:
            remedy = f"convert its dates to times, or {_LEAVE_OUT}" if _are_dates(present) else _LEAVE_OUT
            raise ArgumentException(
                f"column {name!r:.80} must have at most {_MOST_CATEGORIES} categories, got {len(present)}; {remedy}"
            )
        if "others" in kinds_of(present):
            raise ArgumentException(
                f"column {name!r:.80} must have categories that are strings, numbers or times, got "
                f"{min(present, key=repr)!r:.80}; convert it, or {_LEAVE_OUT}"
            )
        try:
            return cls(name, tuple(sorted(present)), _zoned(columns, name))
        except TypeError as error:
            raise ArgumentException(
                f"column {name!r:.80} must have categories of one kind, such as strings: {error}"
            ) from error

    def check_kind(self, columns: Columns, *_: ColumnKind) -> None:
        """Raise ArgumentException for values of another kind than the categories, which none of them would be."""
        _check_zone(columns, self.name, self.zoned)
        found, wanted = kinds_of(columns.labels(self.name).tolist()), kinds_of(self.categories)
        if not found <= wanted:
            raise ArgumentException(
                f"column {self.name!r:.80} must hold {' or '.join(wanted)}, as its categories are, got "
                f"{' and '.join(sorted(found - wanted))}; convert it"
            )

    def numbers_of(self, columns: Columns) -> NDArray[np.int64]:
        """Return the index of each row's category, −1 for values that are not among them."""
        places = {value: place for place, value in enumerate(self.categories)}
        return np.array([places.get(value, -1) for value in columns.labels(self.name).tolist()], np.int64)

    def encode(self, columns: Columns, out: NDArray[Any]) -> None:
        """Write the indicators to ``out``, (rows, categories)."""
        np.equal(self.numbers_of(columns)[:, np.newaxis], np.arange(self.width), out=out, casting="unsafe")


EncodedColumn: TypeAlias = NumberColumn | CategoryColumn


def kinds_of(values: Iterable[Any]) -> set[str]:
    """Return what values are, without missing ones. Booleans are numbers, since True equals 1."""
    kinds: set[type[Any]] = {type(value) for value in values if value is not None and value == value}
    return {"numbers" if issubclass(kind, (int, float)) else _CATEGORIES.get(kind, "others") for kind in kinds}


def _are_dates(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) and _DATE.match(value) for value in values)


def fit_column(columns: Columns, name: str) -> EncodedColumn:
    """Return the encoding of a column that is fitted on these rows."""
    return (CategoryColumn if columns.kind(name) == "category" else NumberColumn).fit(columns, name)


def _zoned(columns: Columns, name: str) -> bool | None:
    return columns.is_zoned(name) if columns.kind(name) == "time" else None


def _check_zone(columns: Columns, name: str, zoned: bool | None) -> None:
    """Raise ArgumentException for times without a zone where those fitted had one, or the reverse: clocks differ."""
    found = _zoned(columns, name)
    if None in (zoned, found) or found == zoned or columns.missing(name).all():
        return
    wanted, got = ("with", "without") if zoned else ("without", "with")
    remedy = "say their zone with" if zoned else "convert them to the zone of the others, and drop it with"
    raise ArgumentException(
        f"column {name!r:.80} must hold times {wanted} a time zone, as those that it was fitted on, got times {got} "
        f"one; {remedy} dt.tz_localize of pandas or dt.replace_time_zone of Polars"
    )


def _check_finite(values: NDArray[np.float64], name: str) -> None:
    infinite = values[~np.isfinite(values)]
    if len(infinite):
        raise ArgumentException(f"column {name!r:.80} must be finite, got {infinite[0]}; drop or replace such rows")


def settings_of_column(column: EncodedColumn) -> dict[str, Any]:
    """Return a column's encoding as JSON values."""
    if isinstance(column, NumberColumn):
        scale = {"mean": column.mean, "rest": column.rest, "deviation": column.deviation}
        return {"name": column.name, **scale, "kind": column.kind, "zoned": column.zoned}
    if kinds_of(column.categories) == {"times"}:
        times = [time.isoformat() for time in column.categories]
        return {"name": column.name, "categories": times, "kind": "time", "zoned": column.zoned}
    return {"name": column.name, "categories": list(column.categories)}


def column_of_settings(settings: Mapping[str, Any]) -> EncodedColumn:
    """Return the encoding that `settings_of_column` described; errors of any kind for other settings."""
    name = str(settings["name"])
    kind, zoned = _KIND.check("kind", settings.get("kind")), _ZONED.check("zoned", settings.get("zoned"))
    if "categories" in settings:
        categories = settings["categories"]
        read = map(datetime.fromisoformat, categories) if kind == "time" else categories
        return CategoryColumn(name, tuple(read), zoned)
    mean, deviation = FINITE.check("mean", settings["mean"]), POSITIVE.check("deviation", settings["deviation"])
    return NumberColumn(name, mean, deviation, kind, zoned, FINITE.check("rest", settings.get("rest", 0.0)))
