"""Rows selected by index: `gather`, its transpose `scatter_add`, and `wrap_indices`, which checks indices for both."""

# Rules are lambdas, whose parameters no annotation can reach; what they call is typed.
# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from aidotnet_py.autodiff.primitive import Primitive, no_flops, one_flop_per_element
from aidotnet_py.autodiff.primitives.broadcasting import batch_of
from aidotnet_py.autodiff.primitives.elementwise import add, astype
from aidotnet_py.autodiff.primitives.shape import reshape
from aidotnet_py.autodiff.tracing.emission import emit
from aidotnet_py.autodiff.tracing.host_data import HostData
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.exceptions import ArgumentException

__all__ = ["gather", "scatter_add", "wrap_indices"]


def _wrap_shape(indices: ArrayType, length: int) -> ArrayType:
    return ArrayType(indices.shape, np.dtype(np.int64))


_wrap_indices = Primitive(
    name="wrap_indices",
    shape=_wrap_shape,
    run=lambda backend, out, indices, length: backend.wrap_indices(indices, length, out=out),
    jvp=None,
    transpose=None,
    batch=lambda inputs, batched, size, length: wrap_indices(inputs[0], length),
    flops=no_flops,
)


def wrap_indices(indices: Any, length: int) -> Any:
    """Convert integer indices into an axis to int64 in 0 … length − 1; negative ones count from the end.

    `Backend.wrap_indices` says what happens to indices out of bounds. They are checked here, against the indexed axis,
    because the batching rules below join the axes of all batches.
    """
    return emit(_wrap_indices, indices, length=length)


def _gather_shape(x: ArrayType, indices: ArrayType) -> ArrayType:
    if indices.dtype.kind not in "iu":
        raise ArgumentException(f"indices must be integers, got dtype {indices.dtype}")
    return x.with_shape((*indices.shape, *x.shape[1:]))


def _offsets(size: int, rows: int, indices: Any) -> Any:
    """Return indices into the joined rows of all batches."""
    start = HostData(np.arange(size, dtype=np.int64).reshape(size, *(1 for _ in indices.shape[1:])) * rows)
    # int64, because small integers could overflow.
    return add(astype(indices, np.int64), start)


def _gather_batch(inputs: Sequence[Any], batched: Sequence[bool], size: int) -> Any:
    x, indices = inputs
    if not batched[0]:
        return gather(x, indices)
    indices = batch_of(indices, batched[1], size)
    rows = x.shape[1]
    return gather(reshape(x, (size * rows, *x.shape[2:])), _offsets(size, rows, indices))


_gather = Primitive(
    name="gather",
    shape=_gather_shape,
    run=lambda backend, out, x, indices: backend.take(x, indices, out=out),
    jvp=lambda tangents, x, indices, output: gather(tangents[0], indices),
    transpose=lambda ct, x, indices: [scatter_add(ct, indices, x.shape[0]), None],
    batch=_gather_batch,
    flops=no_flops,
)


def gather(x: Any, indices: Any) -> Any:
    """Return the rows of x (n, …) at integer indices in 0 … n − 1."""
    return emit(_gather, x, indices)


def _scatter_shape(values: ArrayType, indices: ArrayType, rows: int) -> ArrayType:
    return values.with_shape((rows, *values.shape[len(indices.shape) :]))


def _scatter_batch(inputs: Sequence[Any], batched: Sequence[bool], size: int, rows: int) -> Any:
    values = batch_of(inputs[0], batched[0], size)
    indices = batch_of(inputs[1], batched[1], size)
    row = values.shape[len(indices.shape) :]
    # Flat indices allow the rows of all batches to be joined.
    count = math.prod(indices.shape[1:])
    flat = scatter_add(
        reshape(values, (size * count, *row)),
        reshape(_offsets(size, rows, indices), (size * count,)),
        size * rows,
    )
    return reshape(flat, (size, rows, *row))


_scatter = Primitive(
    name="scatter_add",
    shape=_scatter_shape,
    run=lambda backend, out, values, indices, rows: backend.scatter_add(values, indices, out=out),
    jvp=lambda tangents, values, indices, output, rows: scatter_add(tangents[0], indices, rows),
    transpose=lambda ct, values, indices, rows: [gather(ct, indices), None],
    batch=_scatter_batch,
    flops=one_flop_per_element,
)


def scatter_add(values: Any, indices: Any, rows: int) -> Any:
    """Add each value to its row, by index, of an array of zeros (rows, …)."""
    return emit(_scatter, values, indices, rows=rows)
