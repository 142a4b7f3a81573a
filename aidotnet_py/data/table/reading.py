"""Tables of any kind as columns of NumPy arrays: frames, mappings of columns, CSV and Parquet files."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import check_given, refusal, shown
from aidotnet_py.backends import adopt
from aidotnet_py.data.table.columns import Column, Columns
from aidotnet_py.data.table.files import NEEDS, check_different, read_frame
from aidotnet_py.data.times import has_zones, is_finer_than_python, is_time, times_of_numpy
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.paths import check_path

__all__ = ["TableLike", "read_table"]

# A pandas, Polars or PyArrow frame cannot be named without importing its library.
TableLike: TypeAlias = Any

# Greater integers are rounded as float64.
_MOST_EXACT = 2**53
# Of 292,000 years; NumPy counts up to 2⁶³, and rounds times near it beyond.
_MOST_MICROSECONDS = 292_000 * 31_557_600_000_000
# What most values are, and none of them is missing.
_PLAIN = frozenset({str, int, bool})


def read_table(table: TableLike, argument: str = "table", strings: Sequence[str] = ()) -> Columns:
    """Return the columns of a table.

    Parameters
    ----------
    table : frame, mapping or path
        A pandas, Polars or PyArrow frame; a mapping of names to sequences of equal length; or the path of a CSV, TSV or
        Parquet file.
    argument : str
        What messages call it.
    strings : sequence of str
        Columns of a CSV or TSV file that are strings, whatever they look like.

    Raises
    ------
    ArgumentNullException
        The table is None.
    FileNotFoundError
        There is no file at the path.
    ArgumentException
        It is no such table, has no rows, has two columns of one name, or no column whose values are of a single kind.
    ImportError
        A library that this needs is not installed; the message has the command that installs it.
    """
    check_given(argument, table, "a frame, a mapping of columns or a path")
    if isinstance(table, Columns):
        return table
    if isinstance(table, (str, os.PathLike)):
        columns = _from_file(check_path(argument, cast(object, table)), argument, strings)
    elif isinstance(table, Mapping):
        columns = _from_mapping(cast(Any, table), argument)
    else:
        columns = _from_frame(table, argument)
    if not columns.rows:
        raise columns.error() or ArgumentException(f"{argument} must have rows, got none")
    return columns


def _from_mapping(table: Mapping[Any, Any], argument: str) -> Columns:
    columns: dict[str, Column] = {}
    zoned: list[str] = []
    rows: int | None = None
    for name, values in table.items():
        where = f"{argument}[{name!r:.80}]"
        if not isinstance(name, str):
            raise ArgumentException(refusal(f"{argument}'s names", "strings", name))
        series = _series(values)
        array = _array(values, where) if series is None else series
        if len(array.shape) != 1:
            raise ArgumentException(f"{where} must be 1-D, got shape {array.shape}")
        if rows not in (None, len(array)):
            raise ArgumentException(f"{where} must have {rows} values like the other columns, got {len(array)}")
        rows = len(array)
        read = _from_array(array, where) if series is None else _from_series(_narwhals(), series, where)
        columns[name], is_zoned = read
        if is_zoned:
            zoned.append(name)
    return Columns(columns, zoned)


def _series(values: Any) -> Any:
    """Return a column of pandas, Polars or PyArrow as a series of narwhals; None for other sequences."""
    if not hasattr(values, "to_numpy"):
        return None
    # Narwhals takes neither indices nor arrays of these libraries.
    pandas: Any = sys.modules.get("pandas")
    pyarrow: Any = sys.modules.get("pyarrow")
    if pandas is not None and isinstance(values, pandas.Index):
        values = values.to_series()
    elif pandas is not None and isinstance(values, pandas.api.extensions.ExtensionArray):
        values = pandas.Series(values)
    elif pyarrow is not None and isinstance(values, pyarrow.Array):
        values = pyarrow.chunked_array([values])
    nw = _narwhals()
    series = nw.from_native(values, series_only=True, pass_through=True)
    return series if isinstance(series, nw.Series) else None


def _array(values: Any, where: str) -> NDArray[Any]:
    """Return a new array; of a list's values as they are, where NumPy would make others of them."""
    if isinstance(values, np.ma.MaskedArray):
        return _unmasked(values)
    values = adopt(values, where)
    try:
        array = np.array(values)
    # Such as a list of lists of several lengths.
    except (TypeError, ValueError) as error:
        raise ArgumentException(f"{where} must be a sequence of values, got {shown(values)}: {error}") from error
    if array.ndim != 1 or not isinstance(values, Sequence):
        return array
    given: list[Any] = list(cast(Any, values))
    # Numbers become strings, and times of a coarse unit overflow in a fine one.
    if array.dtype.kind in "UTmM":
        return _objects(given)
    if array.dtype.kind == "f" and any(isinstance(v, Integral) and abs(int(v)) > _MOST_EXACT for v in given):
        return _objects([int(value) if isinstance(value, Integral) else value for value in given])
    return array


def _unmasked(values: Any) -> NDArray[Any]:
    """Return a masked array as an ordinary one, in which masked values are missing."""
    masked, array = np.ma.getmaskarray(values), np.array(values)
    if masked.any():
        array = array if array.dtype.kind in "fMm" else array.astype(object)
        array[masked] = {"f": np.nan, "O": None}.get(array.dtype.kind, "NaT")
    return array


def _from_array(array: NDArray[Any], where: str) -> tuple[Column, bool]:
    """Return an array as a column, and whether it holds times with a time zone."""
    column = _one_kind(array, where)
    return column, not isinstance(column, ArgumentException) and column.dtype.kind == "M" and has_zones(array)


def _one_kind(array: NDArray[Any], where: str) -> Column:
    """Return an array as `Columns` has it: numbers, times, durations or objects; or what is wrong with it."""
    if array.dtype.kind in "fiub":
        return array
    if array.dtype.kind in "Mm":
        return _times(array, where)
    if array.dtype.kind in "UT":
        # NumPy's own strings may have a missing value among them.
        return _objects(_plain(array.tolist()))
    if array.dtype.kind == "O":
        values = _plain(array.tolist())
        kinds: set[Any] = {type(value) for value in values if value is not None}
        if kinds <= {str}:
            return _objects(values)
        if kinds <= {int, float, bool}:
            return _numbers(values, where)
        if all(map(is_time, kinds)):
            times = times_of_numpy(where, values)
            return times if isinstance(times, ArgumentException) else _times(times, where)
        return _no_kind(where, f"{' and '.join(sorted(kind.__name__ for kind in kinds))} objects")
    return _no_kind(where, array.dtype)


def _times(array: NDArray[Any], where: str) -> Column:
    """Return times or durations in microseconds, or in their own unit if it is finer; refuse those out of range."""
    if is_finer_than_python(array):
        return array
    micros = f"{array.dtype.kind}8[us]"
    # Out of range, NumPy 2.5 raises an error for durations, and overflows for times.
    least, most = np.array([-_MOST_MICROSECONDS, _MOST_MICROSECONDS]).astype(micros).astype(array.dtype)
    wrong = ~(np.isnat(array) | ((least < array) & (array < most)))
    if not wrong.any():
        return array.astype(micros)
    return ArgumentException(
        f"{where} must have times, or durations, of at most 292,000 years from 1970, got {array[wrong][0]!r}; convert "
        "or drop it"
    )


def _numbers(values: list[Any], where: str) -> Column:
    """Return numbers, of which some may be missing, as integers or booleans if they are; refuse integers to round."""
    if values and all(type(value) is bool for value in values):
        return np.array(values)
    if values and all(type(value) is int for value in values):
        array = np.array(values)
        return array if array.dtype.kind in "iu" else _no_kind(where, "integers of more than 64 bits")
    exact = [value for value in values if value is not None and not isinstance(value, float)]
    if any(abs(value) > _MOST_EXACT and value == value // 1 for value in exact):
        return _no_kind(where, "integers beyond 2**53 beside missing or other numbers")
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _no_kind(where: str, kind: object) -> ArgumentException:
    return ArgumentException(f"{where} must hold numbers, times or strings, got {kind}; convert or drop it")


def _objects(values: list[Any]) -> NDArray[Any]:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _from_file(path: Path, argument: str, strings: Sequence[str]) -> Columns:
    frame, errors = read_frame(path, argument, strings)
    return _from_frame(frame, argument).with_columns(Columns(errors))


def _narwhals() -> Any:
    try:
        import narwhals.stable.v2 as nw
    except ImportError as error:
        raise ImportError(f"TableLoader needs narwhals to read frames: {NEEDS}") from error
    return nw


def _from_frame(frame: Any, argument: str) -> Columns:
    nw = _narwhals()
    try:
        wrapped: Any = nw.from_native(frame)
    except TypeError as error:
        raise ArgumentException(refusal(argument, "a frame, a mapping of columns or a path", frame)) from error
    # Narwhals refuses some frames, such as those with two columns of one name, with errors of its own.
    except Exception as error:
        raise ArgumentException(f"{argument} must be a frame that narwhals takes: {error}") from error
    if isinstance(wrapped, nw.LazyFrame):
        wrapped = wrapped.collect()
    try:
        names = list(wrapped.columns)
    except Exception as error:
        raise ArgumentException(f"{argument} must be a frame with unique names: {error}") from error
    odd = [name for name in names if not isinstance(name, str)]
    if odd:
        raise ArgumentException(refusal(f"{argument}'s names", "strings", odd[0]))
    check_different(names, argument)
    read = {name: _from_series(nw, wrapped[name], f"{argument}[{name!r:.80}]") for name in names}
    columns = {name: column for name, (column, _) in read.items()}
    return Columns(columns, [name for name, (_, is_zoned) in read.items() if is_zoned])


def _from_series(nw: Any, series: Any, where: str) -> tuple[Column, bool]:
    """Return a series as a column, and whether it holds times with a time zone."""
    # Polars finds a series by its name, and takes names such as ^a$ for regular expressions.
    series = series.alias("values")
    # pandas finds the type of objects anew at each look.
    kind = series.dtype
    if _zone(nw, kind, series) is not None:
        return _times(np.array(_without_zone(nw, kind, series).to_numpy()), where), True
    if kind in (nw.String, nw.Object):
        return _from_array(_objects(series.to_list()), where)
    if kind == nw.Unknown and not series.is_null().all():
        # Such as sparse values of pandas, and those of NumPy's longdouble.
        return _from_array(np.array(series.to_native()), where)
    return _of_type(nw, kind, series, where), False


def _of_type(nw: Any, kind: Any, series: Any, where: str) -> Column:
    """Return a series whose type says what its values are."""
    if kind.is_integer() and not series.is_null().any() and kind not in (nw.Int128, nw.UInt128):
        return np.array(series.to_numpy())
    if kind.is_integer() or kind.is_decimal():
        return _numbers(_plain(series.to_list()), where)
    if kind.is_numeric():
        return np.array(series.cast(nw.Float64).to_numpy(), np.float64)
    if kind == nw.Boolean:
        if not series.is_null().any():
            return np.array(series.to_numpy(), np.bool_)
        return np.array([np.nan if value is None else value for value in _plain(series.to_list())], np.float64)
    if kind == nw.Date:
        return _times(np.array(series.cast(nw.Datetime("us")).to_numpy()), where)
    if kind in (nw.Datetime, nw.Duration):
        return _times(np.array(series.to_numpy()), where)
    if kind in (nw.Categorical, nw.Enum):
        return _objects(_plain(series.to_list()))
    if series.is_null().all():
        return np.full(len(series), np.nan)
    return _no_kind(where, kind)


def _zone(nw: Any, kind: Any, series: Any) -> Any:
    """Return the time zone of times; None for times without one, and for other values."""
    if kind == nw.Datetime:
        return kind.time_zone
    # Narwhals reads the zone from the type's name, and not all of pandas' names.
    return getattr(getattr(series.to_native(), "dtype", None), "tz", None)


def _without_zone(nw: Any, kind: Any, series: Any) -> Any:
    """Return times that have a time zone as those of UTC."""
    if kind == nw.Datetime:
        return series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return nw.from_native(series.to_native().dt.tz_convert("UTC").dt.tz_localize(None), series_only=True)


def _plain(values: list[Any]) -> list[Any]:
    """Return values, those of NumPy as Python's, with None for what is missing: pandas has NaN, NaT and NA for it."""
    return [value if type(value) in _PLAIN else _of_python(value) for value in values]


def _of_python(value: Any) -> Any:
    if value is None or _differs_from_itself(value):
        return None
    if isinstance(value, str):
        return str.__str__(value)
    scalar: Any = value
    # NumPy counts its durations as numbers.
    is_number = isinstance(value, (np.number, np.bool_)) and not isinstance(value, np.timedelta64)
    return scalar.item() if is_number else scalar


def _differs_from_itself(value: Any) -> bool:
    try:
        return bool(value != value)
    except TypeError:
        # The truth of pandas' NA is unknown.
        return True
