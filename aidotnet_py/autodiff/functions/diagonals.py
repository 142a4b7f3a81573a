"""NumPy's functions of diagonals and triangles, on traced values."""

# What has rules that are lambdas is not typed.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.autodiff.functions.axes import positive_axes
from aidotnet_py.autodiff.primitives import elementwise as ew
from aidotnet_py.autodiff.primitives.shape import permute_dims, reshape, slice_, unslice
from aidotnet_py.autodiff.tracing.host_data import HostData
from aidotnet_py.autodiff.tracing.value_types import type_of
from aidotnet_py.exceptions import ArgumentException

__all__ = ["diag", "diagonal", "tril", "triu"]


def _span(rows: int, columns: int, offset: int) -> tuple[int, int, int]:
    """Return the diagonal's places among the elements of a matrix in C order."""
    length = min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns)
    if length <= 0:
        return 0, 0, 1
    start = offset if offset >= 0 else -offset * columns
    return start, start + (length - 1) * (columns + 1) + 1, columns + 1


def diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """Compute `numpy.diagonal`: the diagonal of two axes, as the last axis."""
    shape = type_of(a).shape
    if len(shape) < 2:
        raise ArgumentException(f"a must have two axes to have a diagonal, got shape {shape}")
    (i,), (j,) = positive_axes(axis1, len(shape)), positive_axes(axis2, len(shape))
    if i == j:
        raise ArgumentException(f"axis1 and axis2 must be two axes, got {axis1} and {axis2}")
    others = [k for k in range(len(shape)) if k not in (i, j)]
    lead = tuple(shape[k] for k in others)
    flat = reshape(permute_dims(a, (*others, i, j)), (*lead, shape[i] * shape[j]))
    return slice_(flat, (*((0, n, 1) for n in lead), _span(shape[i], shape[j], offset)))


def diag(v: Any, k: int = 0) -> Any:
    """Compute `numpy.diag`: the diagonal of a matrix, or the matrix that has a vector as its diagonal."""
    shape = type_of(v).shape
    if len(shape) == 2:
        return diagonal(v, k)
    if len(shape) != 1:
        raise ArgumentException(f"v must be a vector or a matrix, got shape {shape}")
    n = shape[0] + abs(k)
    return reshape(unslice(v, (n * n,), (_span(n, n, k),)), (n, n))


def _lower(m: Any, k: int) -> NDArray[np.bool]:
    shape = type_of(m).shape
    if not shape:
        raise ArgumentException("m must have an axis to have a triangle, got shape ()")
    # A vector is every row of a square matrix, as NumPy has it.
    return np.tri(shape[-min(2, len(shape))], shape[-1], k, dtype=bool)


def _part(m: Any, inside: NDArray[np.bool]) -> Any:
    # Zero as a plain number of the kind of m, which does not promote it.
    return ew.where(HostData(inside), m, type_of(m).dtype.type(0).item())


def tril(m: Any, k: int = 0) -> Any:
    """Compute `numpy.tril`: zeros above a diagonal of matrices."""
    return _part(m, _lower(m, k))


def triu(m: Any, k: int = 0) -> Any:
    """Compute `numpy.triu`: zeros below a diagonal of matrices."""
    return _part(m, ~_lower(m, k - 1))
