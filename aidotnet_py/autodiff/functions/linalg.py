"""Functions of `numpy.linalg` on traced values."""

# What has rules that are lambdas is not typed.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from aidotnet_py.autodiff.primitives import elementwise as ew
from aidotnet_py.autodiff.primitives import linear_algebra
from aidotnet_py.autodiff.primitives.broadcasting import broadcast_to
from aidotnet_py.autodiff.primitives.matmul import matrix_transpose
from aidotnet_py.autodiff.primitives.shape import reshape
from aidotnet_py.autodiff.tracing.value_types import type_of
from aidotnet_py.exceptions import ArgumentException

__all__ = ["SlogdetResult", "cholesky", "det", "inv", "slogdet", "solve"]


class SlogdetResult(NamedTuple):
    """What `numpy.linalg.slogdet` gives."""

    sign: Any
    logabsdet: Any


def _dtype(*arrays: Any) -> np.dtype[Any]:
    """Return the dtype to compute in: integers in float64, as NumPy does."""
    dtype = ew.common_dtype(*arrays, least=np.float64)
    if dtype.name not in ("float32", "float64"):
        raise ArgumentException(f"matrices must be float32 or float64 for linear algebra, got {dtype}; use astype")
    return dtype


def _square(a: Any) -> Any:
    """Return a square matrix, or a stack of these, in a dtype to compute in."""
    shape = type_of(a).shape
    if len(shape) < 2 or shape[-1] != shape[-2]:
        raise ArgumentException(f"a must be a square matrix, or a stack of these, got shape {shape}")
    return ew.astype(a, _dtype(a))


def solve(a: Any, b: Any) -> Any:
    """Compute `numpy.linalg.solve`: b is a vector, or a stack of matrices."""
    a, right = _square(a), type_of(b).shape
    dtype, n = _dtype(a, b), a.shape[-1]
    columns = (*right, 1) if len(right) == 1 else right
    if len(columns) < 2 or columns[-2] != n:
        raise ArgumentException(f"b must have {n} rows like a of shape {a.shape}, got shape {right}")
    try:
        lead = np.broadcast_shapes(a.shape[:-2], columns[:-2])
    except ValueError:
        raise ArgumentException(f"leading axes must broadcast together, got shapes {a.shape} and {right}") from None
    matrices = broadcast_to(ew.astype(a, dtype), (*lead, n, n))
    x = linear_algebra.solve(matrices, broadcast_to(reshape(ew.astype(b, dtype), columns), (*lead, *columns[-2:])))
    return reshape(x, x.shape[:-1]) if len(right) == 1 else x


def inv(a: Any) -> Any:
    """Compute `numpy.linalg.inv`."""
    return linear_algebra.inverse(_square(a))


def cholesky(a: Any, /, *, upper: bool = False) -> Any:
    """Compute `numpy.linalg.cholesky`: of the lower triangle, or the upper one, values and derivatives alike."""
    a = _square(a)
    return matrix_transpose(linear_algebra.cholesky(matrix_transpose(a))) if upper else linear_algebra.cholesky(a)


def slogdet(a: Any) -> SlogdetResult:
    """Compute `numpy.linalg.slogdet`."""
    both = linear_algebra.signed_log_determinant(_square(a))
    return SlogdetResult(both[..., 0], both[..., 1])


def det(a: Any) -> Any:
    """Compute `numpy.linalg.det`; derivatives need the inverse, which a singular matrix lacks."""
    sign, logarithm = slogdet(a)
    return ew.multiply(sign, ew.exp(logarithm))
