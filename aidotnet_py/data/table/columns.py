"""The columns of a table as NumPy arrays, by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import refusal
from aidotnet_py.data.times import times_of_python
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.suggestions import suggestion_hint

__all__ = ["Column", "ColumnKind", "Columns", "separator_hint"]

ColumnKind: TypeAlias = Literal["number", "time", "duration", "category"]
Column: TypeAlias = NDArray[Any] | ArgumentException

# For columns of a file that were read as one, by what separates them.
_REMEDIES = {
    ";": "read it with pandas, or save it with commas",
    "|": "read it with pandas, or save it with commas",
    "\t": "give the file the ending .tsv",
    ",": "give the file the ending .csv",
}
_KINDS: dict[str, ColumnKind] = {"M": "time", "m": "duration", "O": "category"}


class Columns:
    """The columns of a table, by name, of equal length.

    A column is of numbers (booleans count), of times, of durations, or of categories, which are strings or values of a
    categorical type. Missing values are NaN, NaT and None.

    Parameters
    ----------
    columns : mapping of str to array, (rows,), or ArgumentException
        Real numbers, ``datetime64`` or ``timedelta64`` of microseconds or a finer unit, or objects for categories; or
        the error for those who use the column.
    zoned : collection of str
        The columns of times in UTC that were given with a time zone.

    Examples
    --------
    >>> from aidotnet_py.data.table.reading import read_table
    >>> columns = read_table({"chick": ["a", "a", "b"], "day": [0, 2, 0]})
    >>> columns.names, columns.rows, columns.kind("chick"), columns.numbers("day").tolist()
    (('chick', 'day'), 3, 'category', [0.0, 2.0, 0.0])
    """

    def __init__(self, columns: Mapping[str, Column], zoned: Collection[str] = ()) -> None:
        self._columns = dict(columns)
        self._zoned = frozenset(zoned)
        self.names = tuple(self._columns)
        lengths = [len(column) for column in self._columns.values() if not isinstance(column, ArgumentException)]
        self.rows = lengths[0] if lengths else 0

    def check_name(self, argument: str, name: object) -> str:
        """Return a name of a column; ArgumentException that lists the columns for any other value."""
        if not isinstance(name, str) or name not in self._columns:
            wanted = f"a column of the table, {self._known}"
            hint = separator_hint(self.names) or suggestion_hint(name, self.names)
            raise ArgumentException(refusal(argument, wanted, name) + hint)
        return name

    def require(self, name: str) -> None:
        """Raise ArgumentException, which lists the columns, unless there is one of this name."""
        if name not in self._columns:
            hint = separator_hint(self.names)
            raise ArgumentException(f"table must have the column {name!r:.80}, got {self._known}{hint}")

    @property
    def _known(self) -> str:
        return ", ".join(map(repr, self.names[:20])) + (", …" if len(self.names) > 20 else "")

    def kind(self, name: str) -> ColumnKind:
        """Return what the values of a column are."""
        return _KINDS.get(self.values(name).dtype.kind, "number")

    def is_boolean(self, name: str) -> bool:
        """Return whether a column holds True and False."""
        return self.values(name).dtype.kind == "b"

    def is_zoned(self, name: str) -> bool:
        """Return whether a column holds times that were given with a time zone."""
        return name in self._zoned

    def numbers(self, name: str, origin: float = 0.0) -> NDArray[np.float64]:
        """Return a column of numbers, of durations in seconds, or of times in seconds since 1970, each less ``origin``.

        Missing values are NaN.
        """
        array = self.values(name)
        whole: NDArray[Any]
        part: NDArray[Any]
        if array.dtype.kind in "Mm":
            whole, part = _seconds(array)
        elif array.dtype.kind in "iu" and array.dtype.itemsize == 8:
            whole, part = (array >> 32) * 2.0**32, array & (2**32 - 1)
        else:
            return array.astype(np.float64) - origin
        # What the difference of the whole numbers leaves is exact, where float64 would round their sum with the part.
        near = np.rint(origin)
        numbers: NDArray[np.float64] = whole - near + part - (origin - near)
        return numbers

    def labels(self, name: str) -> NDArray[Any]:
        """Return a column of groups or classes, whose list has Python's values: seconds for durations.

        Raises
        ------
        ArgumentException
            Python has no such times.
        """
        array = self.values(name)
        if array.dtype.kind == "m":
            return self.numbers(name)
        return times_of_python(f"column {name!r:.80}", array)

    def values(self, name: str) -> NDArray[Any]:
        """Return a column as it is.

        Raises
        ------
        ArgumentException
            Its values are of no single kind.
        """
        column = self._columns[name]
        if isinstance(column, ArgumentException):
            raise column
        return column

    def missing(self, name: str) -> NDArray[np.bool_]:
        """Return where a column has no value."""
        array = self.values(name)
        if array.dtype.kind == "O":
            return np.array([value is None for value in array.tolist()], np.bool_)
        missing: NDArray[np.bool_] = np.zeros(len(array), np.bool_)
        if array.dtype.kind in "Mmf":
            missing |= np.isnan(array) if array.dtype.kind == "f" else np.isnat(array)
        return missing

    def with_columns(self, others: Columns) -> Columns:
        """Return the columns and others, which take the place of those of their names."""
        return Columns({**self._columns, **others._columns}, (self._zoned - {*others.names}) | others._zoned)

    def with_names(self, names: Sequence[str]) -> Columns:
        """Return the columns under other names, one for each."""
        renamed = dict(zip(self.names, names, strict=True))
        columns = {renamed[name]: column for name, column in self._columns.items()}
        return Columns(columns, [renamed[name] for name in self._zoned])

    def error(self) -> ArgumentException | None:
        """Return what is wrong with the first column that cannot be used; None if all can."""
        return next((column for column in self._columns.values() if isinstance(column, ArgumentException)), None)

    def take(self, rows: NDArray[Any]) -> Columns:
        """Return some rows."""
        columns = self._columns.items()
        return Columns({name: c if isinstance(c, ArgumentException) else c[rows] for name, c in columns}, self._zoned)


def _seconds(array: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return the whole seconds of durations, or of times since 1970, and the parts of a second, NaN for NaT."""
    spans = array - np.datetime64(0, "us") if array.dtype.kind == "M" else array
    if np.datetime_data(spans.dtype)[0] == "as":
        # NumPy divides none of them by seconds.
        spans = spans.astype("timedelta64[fs]")
    second = np.timedelta64(1, "s")
    # NumPy warns of NaT.
    with np.errstate(invalid="ignore"):
        whole, part = np.divmod(spans, second)
    return whole, part / second


def separator_hint(names: Sequence[str]) -> str:
    """Return the end of a message for columns that were read as one, for want of commas or tabs."""
    other = next((mark for mark in _REMEDIES if len(names) == 1 and mark in names[0]), None)
    return "" if other is None else f"; its columns are separated by {other!r}: {_REMEDIES[other]}"
