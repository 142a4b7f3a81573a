"""The matrix product, batched over leading axes."""

# Rules are lambdas, whose parameters no annotation can reach; what they call is typed.
# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from aidotnet_py.autodiff.primitive import Primitive
from aidotnet_py.autodiff.primitives.broadcasting import batch_of, broadcast_to
from aidotnet_py.autodiff.primitives.elementwise import astype
from aidotnet_py.autodiff.primitives.shape import permute_dims, reshape
from aidotnet_py.autodiff.tracing.emission import emit
from aidotnet_py.autodiff.tracing.value_types import type_of
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.exceptions import ArgumentException

__all__ = ["matmul", "matrix_transpose"]


def _shape(x: ArrayType, y: ArrayType) -> ArrayType:
    return x.with_shape((*x.shape[:-1], y.shape[-1]))


def _flops(x: ArrayType, y: ArrayType, output: ArrayType) -> int:
    return 2 * output.size * x.shape[-1]


def _jvp(tangents: Sequence[Any], x: Any, y: Any, output: Any) -> Any:
    tx, ty = tangents
    if ty is None:
        return emit(_matmul, tx, y)
    if tx is None:
        return emit(_matmul, x, ty)
    return emit(_matmul, tx, y) + emit(_matmul, x, ty)


def _transpose(ct: Any, x: Any, y: Any) -> list[Any]:
    if isinstance(x, ArrayType):
        return [emit(_matmul, ct, matrix_transpose(y)), None]
    return [None, emit(_matmul, matrix_transpose(x), ct)]


def _batch(inputs: Sequence[Any], batched: Sequence[bool], size: int) -> Any:
    x, y = inputs
    if not batched[1] and len(y.shape) == 2:
        # One matrix for all: the added axis joins the rows, and one large product replaces many small ones.
        rows = x.shape[1]
        product = emit(_matmul, reshape(x, (size * rows, x.shape[2])), y)
        return reshape(product, (size, rows, y.shape[1]))
    return emit(_matmul, batch_of(x, batched[0], size), batch_of(y, batched[1], size))


_matmul = Primitive(
    name="matmul",
    shape=_shape,
    run=lambda backend, out, x, y: backend.matmul(x, y, out=out),
    jvp=_jvp,
    transpose=_transpose,
    batch=_batch,
    flops=_flops,
)


def matrix_transpose(x: Any) -> Any:
    """Exchange the last two axes."""
    n = len(x.shape)
    return permute_dims(x, (*range(n - 2), n - 1, n - 2))


def matmul(x: Any, y: Any) -> Any:
    """Compute NumPy's ``x @ y``: vectors get an axis that the result loses again, leading axes broadcast."""
    xs, ys = type_of(x).shape, type_of(y).shape
    if not xs or not ys or xs[-1] != ys[max(len(ys) - 2, 0)]:
        raise ArgumentException(f"shapes must fit a matrix product, got {xs} and {ys}")
    dtype = np.result_type(type_of(x).dtype, type_of(y).dtype)
    x, y = astype(x, dtype), astype(y, dtype)
    x = reshape(x, (1, *xs)) if len(xs) == 1 else x
    y = reshape(y, (*ys, 1)) if len(ys) == 1 else y
    try:
        lead = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except ValueError:
        raise ArgumentException(f"shapes must fit a matrix product, got {xs} and {ys}") from None
    product = _product(x, y, lead)
    shape = product.shape
    return reshape(product, (*lead, *([] if len(xs) == 1 else [shape[-2]]), *([] if len(ys) == 1 else [shape[-1]])))


def _product(x: Any, y: Any, lead: tuple[int, ...]) -> Any:
    if lead and len(y.shape) == 2:
        # Leading axes of the left operand alone are rows of one product.
        flat = emit(_matmul, reshape(x, (math.prod(x.shape[:-1]), x.shape[-1])), y)
        return reshape(flat, (*x.shape[:-1], y.shape[-1]))
    return emit(_matmul, broadcast_to(x, (*lead, *x.shape[-2:])), broadcast_to(y, (*lead, *y.shape[-2:])))
