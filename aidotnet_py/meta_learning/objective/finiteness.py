"""Checks for numbers that are not finite, and norms of vectors whose squares overflow or underflow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends import Array, Backend
from aidotnet_py.exceptions import InvalidOperationException
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask, name_in_batch

__all__ = ["all_finite", "host_norms", "norm_of", "require_sound", "row_norms"]

# Remedies for quantities that diverge on sound data.
_ADVICE = {
    "adapted parameter vector": "; try a smaller InnerLearningRate",
    "solve": "; the inner steps may have run far from any minimum: try a smaller InnerLearningRate",
}
_Tasks = Sequence[IMetaLearningTask[Any, Any, Any]]


def all_finite(backend: Backend, stacked: Array) -> NDArray[np.bool_]:
    """Return whether each row of an array (tasks, …) is finite, as booleans (tasks,) on the host.

    The host fetches one number a row. A row whose sum of squares is finite is finite itself; the sum of another row may
    have overflowed, and the largest magnitude decides.
    """
    if len(stacked.shape) == 1 or 0 in stacked.shape:
        fetched = backend.to_numpy(stacked)
        return np.asarray(np.isfinite(fetched).reshape(len(fetched), -1).all(axis=1))
    with backend.errors_ignored():
        finite = np.isfinite(backend.to_numpy(backend.vecdot(stacked, stacked)))
        if not finite.all():
            # The maximum of a row with NaN is NaN.
            magnitudes = backend.elementwise("abs")(stacked)
            finite = np.isfinite(backend.to_numpy(backend.max(magnitudes, tuple(range(1, len(stacked.shape))))))
    return finite if finite.ndim == 1 else np.asarray(finite.reshape(len(finite), -1).all(axis=1))


def require_sound(quantity: str, sound: NDArray[np.bool_], tasks: _Tasks, places: Sequence[int]) -> None:
    """Raise InvalidOperationException, naming by its place the first task that is not sound."""
    if not sound.all():
        place = int(np.argmin(sound))
        name, advice = name_in_batch(tasks[place], places[place]), _ADVICE.get(quantity, "")
        raise InvalidOperationException(f"the {quantity} of {name} is not finite; nothing was changed{advice}")


def norm_of(backend: Backend, vector: Array) -> float:
    """Return the Euclidean norm of a vector (P,)."""
    with backend.errors_ignored():
        square = float(backend.to_numpy(backend.vecdot(vector, vector)))
    if _is_exact(square, backend.dtype_of(vector)):
        return math.sqrt(square)
    return float(host_norms(backend.to_numpy(vector)[None])[0])


def row_norms(backend: Backend, rows: Array) -> NDArray[Any]:
    """Return the Euclidean norms of rows (n, P) on the host; in float64 if one is too large for the rows' dtype."""
    with backend.errors_ignored():
        squares = backend.to_numpy(backend.vecdot(rows, rows))
    norms: NDArray[Any] = np.sqrt(squares)
    exact = _is_exact(squares, squares.dtype)
    if exact.all():
        return norms
    all_norms: NDArray[Any] = np.where(exact, norms, host_norms(backend.to_numpy(rows)))
    return all_norms.astype(norms.dtype) if np.isfinite(norms).all() else all_norms


def host_norms(rows: NDArray[Any]) -> NDArray[Any]:
    """Return the Euclidean norms of NumPy's rows (n, P), in float64."""
    rows = rows.astype(np.float64)
    with np.errstate(all="ignore"):
        norms: NDArray[Any] = np.linalg.norm(rows, axis=1)
        exact = _is_exact(norms * norms, norms.dtype)
        if exact.all():
            return norms
        largest = np.abs(rows).max(axis=1, initial=0.0, keepdims=True)
        largest = np.where((largest > 0) & np.isfinite(largest), largest, 1.0)
        return np.where(exact, norms, largest[:, 0] * np.linalg.norm(rows / largest, axis=1))


def _is_exact(squares: Any, dtype: np.dtype[Any]) -> Any:
    """Return whether a sum of squares neither overflowed nor lost digits to underflow."""
    limits = np.finfo(dtype)
    return (squares >= float(limits.smallest_normal)) & (squares <= float(limits.max))
