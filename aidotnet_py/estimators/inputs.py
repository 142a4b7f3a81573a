"""Rows of X as arrays, or as columns of a table; scikit-learn checks names and numbers of features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends import adopt
from aidotnet_py.data.table.columns import Columns, read_table
from aidotnet_py.estimators.scikit_learn import validate_data
from aidotnet_py.exceptions import ArgumentException

__all__ = ["is_frame", "read_arrays", "read_columns", "require_targets"]


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
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        return read_table(X, "X")
    finite = "allow-nan" if fill else True
    rows: NDArray[Any] = validate_data(
        estimator, adopt(X, "X"), reset=reset, dtype=None, ensure_all_finite=finite, **least
    )
    if names is None:
        names = [f"x{place}" for place in range(rows.shape[1])]
    elif len(names) != rows.shape[1]:
        raise ArgumentException(
            f"X must be a frame, or have the {len(names)} columns {', '.join(names)}, got shape {rows.shape}"
        )
    return read_table({name: rows[:, place] for place, name in enumerate(names)}, "X")


def require_targets(y: Any) -> None:
    """Raise ArgumentException if y is None or has masked values."""
    adopt(y, "y")
    if y is None:
        raise ArgumentException("y must be given, got None; fit requires y to be passed, but the target y is None")
