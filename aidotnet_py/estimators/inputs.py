"""X as arrays or columns of a table, and y as columns; scikit-learn checks names and numbers of features."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import refusal
from aidotnet_py.backends import adopt
from aidotnet_py.data.table.columns import Columns
from aidotnet_py.data.table.reading import read_table
from aidotnet_py.data.times import is_time
from aidotnet_py.estimators.scikit_learn import check_array, check_consistent_length, validate_data
from aidotnet_py.exceptions import ArgumentException

__all__ = [
    "all_or_nothing",
    "check_strings",
    "is_frame",
    "is_numbered_frame",
    "read_arrays",
    "read_columns",
    "read_targets",
    "require_targets",
]

_INPUTS = "a frame or an array"


@contextmanager
def all_or_nothing(estimator: Any) -> Generator[None]:
    """Give an estimator back the attributes that it had, if what runs in this context raises."""
    before = estimator.__dict__.copy()
    try:
        yield
    except BaseException:
        estimator.__dict__ = before
        raise


def is_frame(X: Any) -> bool:
    """Return whether X has columns with names, as frames of pandas, Polars and PyArrow have.

    For scikit-learn, a frame whose columns are numbered is an array.
    """
    names = _frame_names(X)
    return names is not None and all(isinstance(name, str) for name in names)


def is_numbered_frame(X: Any) -> bool:
    """Return whether X is a frame of pandas whose columns are numbered."""
    return hasattr(X, "columns") and hasattr(X, "set_axis") and not is_frame(X)


def _frame_names(X: Any) -> Any:
    # In this order, since the columns of PyArrow's are no names.
    return getattr(X, "column_names", getattr(X, "columns", None))


def read_arrays(estimator: Any, X: Any, *, reset: bool) -> NDArray[Any]:
    """Return X as numbers, (rows, …): as it is, if it has more than two axes.

    Its features are the numbers of a row, whatever its shape.
    """
    _require_no_query("X", X, _INPUTS)
    given = adopt(X, "X")
    shape = np.shape(given) if getattr(given, "ndim", 2) > 2 else None
    flat = given if shape is None else np.reshape(given, (shape[0], -1))
    rows: NDArray[Any] = validate_data(estimator, flat, reset=reset)
    return rows if shape is None else rows.reshape(shape)


def read_columns(
    estimator: Any, X: Any, names: Sequence[str] | None, *, reset: bool, fill: bool = False, **least: int
) -> Columns:
    """Return the columns of X.

    Parameters
    ----------
    estimator : BaseEstimator
        Whose X it is; ``reset`` says whether it takes up names and number of the features, or compares them.
    X : frame, or array_like, (rows, features)
        Columns with names, or columns in the order of ``names``.
    names : sequence of str or None
        What the columns of an array are called; None: x0, x1, and so on, also in a frame after a fit without names.
    fill : bool
        Whether an array may hold NaN.
    **least : int
        ``ensure_min_samples`` and ``ensure_min_features`` of an array.

    Raises
    ------
    ValueError
        When X is no such table.
    """
    _require_no_query("X", X, _INPUTS)
    if is_frame(X):
        columns = read_table(X, "X")
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        if reset or names is not None:
            return columns
        return columns.with_names(_names(None, (columns.rows, len(columns.names))))
    if is_numbered_frame(X):
        # A frame with numbered columns: one array of them all would round integers beside other numbers.
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        return read_table(X.set_axis(_names(names, X.shape), axis=1), "X")
    # A list too has columns of several types, which one array would make strings or round.
    dtype, finite = None if hasattr(X, "dtype") else object, "allow-nan" if fill else True
    rows: NDArray[Any] = validate_data(
        estimator, adopt(X, "X"), reset=reset, dtype=dtype, ensure_all_finite=finite, **least
    )
    return read_table({name: rows[:, place] for place, name in enumerate(_names(names, rows.shape))}, "X")


def _names(names: Sequence[str] | None, shape: tuple[int, ...]) -> Sequence[str]:
    """Return the names of an array's columns."""
    if names is None:
        return [f"x{place}" for place in range(shape[1])]
    if len(names) != shape[1]:
        raise ArgumentException(
            f"X must be a frame, or have the {len(names)} columns {', '.join(names)}, got shape {shape}"
        )
    return names


def require_targets(y: Any) -> None:
    """Raise ArgumentException if y is None, a lazy frame, or has masked values."""
    _require_no_query("y", y, "an array, a series or a frame")
    # Arrays of PyArrow hand over numbers alone by DLPack; NumPy reads them as series.
    if not hasattr(y, "to_numpy"):
        adopt(y, "y")
    if y is None:
        raise ArgumentException("y must be given, got None; fit requires y to be passed, but the target y is None")


def _require_no_query(name: str, value: Any, wanted: str) -> None:
    """Raise ArgumentException for a lazy frame, whose rows scikit-learn cannot count."""
    if hasattr(value, "collect"):
        raise ArgumentException(refusal(name, wanted, value) + "; collect it")


def check_strings(X: Any, columns: Columns, task: str) -> None:
    """Raise ArgumentException if X is an array of strings that has numbers beside the task column.

    NumPy makes strings of numbers that are stacked beside names, and each number would be a category.
    """
    if getattr(getattr(X, "dtype", None), "kind", None) != "U":
        return
    for place, name in enumerate(columns.names):
        if name != task and _are_numbers(columns.values(name)):
            raise ArgumentException(
                f"X must have numbers as numbers, got {columns.values(name)[0]!r:.80} in column {place} of an array of "
                "strings; pass a frame, or a list of rows"
            )


def _are_numbers(strings: NDArray[Any]) -> bool:
    try:
        strings.astype(np.float64)
    except ValueError:
        return False
    return True


def read_targets(X: Any, y: Any) -> tuple[list[str] | None, Columns]:
    """Return the names of y's columns, if it is a frame that has some, and its columns in their order.

    A column has numbers of float64, or times or durations as `Columns` has them.

    Raises
    ------
    ValueError
        When y has no such columns, or another number of rows than X.
    """
    require_targets(y)
    _require_no_query("X", X, _INPUTS)
    if is_frame(y) or is_numbered_frame(y):
        given = list(_frame_names(y))
        # By place, since pandas has frames with two columns of one name.
        by_place = getattr(y, "iloc", None)
        series = [y[n] if by_place is None else by_place[:, place] for place, n in enumerate(given)]
        columns, names = [column for one in series for column in _columns(one)], given if is_frame(y) else None
    else:
        columns, names = _columns(y), None
    check_consistent_length(X, *columns)
    return names, read_table({f"y{place}": column for place, column in enumerate(columns)}, "y")


def _columns(values: Any) -> list[Any]:
    """Return the columns of an array or a series: times or durations as they are, or numbers."""
    array = np.asarray(values)
    if array.ndim == 0:
        raise ArgumentException(refusal("y", "an array, (n,) or (n, targets)", values))
    if _are_times(values, array):
        # A series knows its zone.
        return [values] if array.ndim == 1 else list(array.reshape(len(array), -1).T)
    numbers: NDArray[Any] = check_array(values, ensure_2d=False, dtype=np.float64, input_name="y")
    return list(numbers.reshape(len(numbers), -1).T)


def _are_times(values: Any, array: NDArray[Any]) -> bool:
    # A series of pandas says so itself: as an array, times with a zone are objects.
    if {array.dtype.kind, getattr(getattr(values, "dtype", None), "kind", None)} & {"m", "M"}:
        return True
    if array.dtype.kind != "O":
        return False
    # None and NaN are missing.
    kinds: set[Any] = {type(value) for value in array.ravel().tolist() if value is not None and value == value}
    return bool(kinds) and all(map(is_time, kinds))
