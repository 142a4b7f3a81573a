"""Rows of X as arrays, or as columns of a table; scikit-learn checks names and numbers of features."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends import adopt
from aidotnet_py.data.table.columns import Columns, read_table
from aidotnet_py.estimators.scikit_learn import validate_data
from aidotnet_py.exceptions import ArgumentException

__all__ = ["all_or_nothing", "is_frame", "read_arrays", "read_columns", "require_targets"]


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
    # In this order, since the columns of PyArrow's are no names.
    names = getattr(X, "column_names", getattr(X, "columns", None))
    return names is not None and all(isinstance(name, str) for name in names)


def read_arrays(estimator: Any, X: Any, *, reset: bool) -> NDArray[Any]:
    """Return X as numbers, (rows, …): as it is, if it has more than two axes.

    Its features are the numbers of a row, whatever its shape.
    """
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
        What the columns of an array are called; None: x0, x1, and so on.
    fill : bool
        Whether an array may hold NaN.
    **least : int
        ``ensure_min_samples`` and ``ensure_min_features`` of an array.

    Raises
    ------
    ValueError
        When X is no such table.
    """
    if is_frame(X):
        columns = read_table(X, "X")
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        return columns
    if hasattr(X, "columns") and hasattr(X, "set_axis"):
        # A frame with numbered columns: one array of them all would round integers beside other numbers.
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        return read_table(X.set_axis(_names(names, X.shape), axis=1), "X")
    # A list too has columns of several types, which one array would make strings or round.
    dtype, finite = None if hasattr(X, "dtype") else object, "allow-nan" if fill else True
    rows: NDArray[Any] = validate_data(
        estimator, adopt(X, "X"), reset=reset, dtype=dtype, ensure_all_finite=finite, **least
    )
    if dtype is object:
        rows = np.frompyfunc(_plain, 1, 1)(rows)
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


def _plain(value: Any) -> Any:
    """Return a number or string of NumPy, as in lists made from arrays, as Python's."""
    scalar: Any = value
    return scalar.item() if isinstance(value, (np.number, np.bool_, np.str_)) else scalar


def require_targets(y: Any) -> None:
    """Raise ArgumentException if y is None or has masked values."""
    adopt(y, "y")
    if y is None:
        raise ArgumentException("y must be given, got None; fit requires y to be passed, but the target y is None")
