"""Linear systems, Cholesky factors and determinants of matrices, batched over leading axes."""

# Rules are lambdas, whose parameters no annotation can reach; what they call is typed.
# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from aidotnet_py.autodiff.primitive import Primitive
from aidotnet_py.autodiff.primitives.broadcasting import batch_of, broadcast_to, sum_
from aidotnet_py.autodiff.primitives.elementwise import where
from aidotnet_py.autodiff.primitives.matmul import matmul, matrix_transpose
from aidotnet_py.autodiff.primitives.shape import pad, permute_dims, reshape
from aidotnet_py.autodiff.tracing.emission import emit
from aidotnet_py.autodiff.tracing.host_data import HostData
from aidotnet_py.autodiff.tracing.tracer import Tracer
from aidotnet_py.autodiff.tracing.value_types import type_of
from aidotnet_py.autodiff.types import ArrayType

__all__ = ["cholesky", "inverse", "signed_log_determinant", "solve"]


def _factor_flops(matrices: ArrayType) -> int:
    """Return the operations of an LU factorisation; a Cholesky factorisation takes half."""
    return 2 * matrices.size * matrices.shape[-1] // 3


def _solve_jvp(tangents: Sequence[Any], a: Any, b: Any, output: Any) -> Any:
    # A x = b gives A dx = db − dA x.
    ta, tb = tangents
    if ta is None:
        return solve(a, tb)
    moved = matmul(ta, output)
    return solve(a, -moved if tb is None else tb - moved)


def _solve_batch(inputs: Sequence[Any], batched: Sequence[bool], size: int) -> Any:
    a, b = inputs
    if not batched[0] and len(a.shape) == 2:
        # One matrix for all: the added axis joins the columns, and one factorisation serves them.
        n, k = b.shape[1:]
        columns = reshape(permute_dims(b, (1, 0, 2)), (n, size * k))
        return permute_dims(reshape(solve(a, columns), (n, size, k)), (1, 0, 2))
    return solve(batch_of(a, batched[0], size), batch_of(b, batched[1], size))


_solve = Primitive(
    name="solve",
    shape=lambda a, b: b,
    run=lambda backend, out, a, b: backend.solve(a, b, out=out),
    jvp=_solve_jvp,
    transpose=lambda ct, a, b: [None, solve(matrix_transpose(a), ct)],
    batch=_solve_batch,
    flops=lambda a, b, output: _factor_flops(a) + 2 * a.shape[-1] * b.size,
)


def solve(a: Any, b: Any) -> Tracer:
    """Return x with a x = b, for a (…, n, n) and b (…, n, k) of one dtype and equal leading axes."""
    return emit(_solve, a, b)


def inverse(a: Any) -> Tracer:
    """Return the inverse matrices."""
    of = type_of(a)
    return solve(a, broadcast_to(HostData(np.eye(of.shape[-1], dtype=of.dtype)), of.shape))


def _lower(n: int) -> HostData:
    return HostData(np.tri(n, dtype=bool))


def _cholesky_jvp(tangents: Sequence[Any], a: Any, output: Any) -> Any:
    """Compute dL = L Φ(L⁻¹ dA L⁻ᵀ), where Φ takes the lower triangle and half of the diagonal (Murray 2016)."""
    n = output.shape[-1]
    lower = where(_lower(n), tangents[0], 0.0)
    # As the factor reads the lower triangle alone, so does its derivative.
    symmetric = where(_lower(n), lower, matrix_transpose(lower))
    inside = matrix_transpose(solve(output, matrix_transpose(solve(output, symmetric))))
    halved = HostData((np.tri(n) - 0.5 * np.eye(n)).astype(output.dtype))
    return matmul(output, inside * broadcast_to(halved, inside.shape))


_cholesky = Primitive(
    name="cholesky",
    shape=lambda a: a,
    run=lambda backend, out, a: backend.cholesky(a, out=out),
    jvp=_cholesky_jvp,
    transpose=None,
    batch=lambda inputs, batched, size: cholesky(inputs[0]),
    flops=lambda a, output: _factor_flops(a) // 2,
)


def cholesky(a: Any) -> Tracer:
    """Return the lower L with L Lᵀ = a, for positive definite matrices given by their lower triangles."""
    return emit(_cholesky, a)


def _determinant_jvp(tangents: Sequence[Any], a: Any, output: Any) -> Any:
    # d log|det A| = tr(A⁻¹ dA); the sign is constant.
    of = type_of(a)
    last = len(of.shape) - 2
    slope = sum_(tangents[0] * matrix_transpose(inverse(a)), (last, last + 1))
    return pad(reshape(slope, (*slope.shape, 1)), (*((0, 0, 0) for _ in range(last)), (1, 0, 0)))


_signed_log_determinant = Primitive(
    name="slogdet",
    shape=lambda a: a.with_shape((*a.shape[:-2], 2)),
    run=lambda backend, out, a: backend.slogdet(a, out=out),
    jvp=_determinant_jvp,
    transpose=None,
    batch=lambda inputs, batched, size: signed_log_determinant(inputs[0]),
    flops=lambda a, output: _factor_flops(a),
)


def signed_log_determinant(a: Any) -> Tracer:
    """Return the sign of the determinant and the logarithm of its absolute value, (…, 2)."""
    return emit(_signed_log_determinant, a)
