"""Jacobians of Programs: derivatives along all unit vectors, as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from aidotnet_py.autodiff.primitives.shape import permute_dims, reshape, slice_
from aidotnet_py.autodiff.program import Program
from aidotnet_py.autodiff.tracing.emission import inline
from aidotnet_py.autodiff.tracing.host_data import HostData
from aidotnet_py.autodiff.tracing.recording import new_trace
from aidotnet_py.autodiff.transforms.batching import vmap_program
from aidotnet_py.autodiff.transforms.differentiation import jvp_program, vjp_program
from aidotnet_py.autodiff.transforms.simplification import simplify
from aidotnet_py.autodiff.types import ArrayType

__all__ = ["hessian_program", "jacobian_program"]

Mask = Sequence[bool]


def jacobian_program(program: Program, wrt: Mask) -> Program:
    """Return the Program to the derivatives of each output in each input of ``wrt``, of shapes (*output, *input).

    In forward mode where the inputs have no more elements than the outputs, in reverse mode otherwise.
    """
    inputs = [t for t, chosen in zip(program.input_types, wrt, strict=True) if chosen]
    outputs = list(program.output_types)
    is_forward = _size(inputs) <= _size(outputs)
    along, across = (inputs, outputs) if is_forward else (outputs, inputs)
    derivative = jvp_program(program, wrt) if is_forward else vjp_program(program, wrt)
    count = _size(along)
    batched = vmap_program(derivative, [False] * len(program.inputs) + [True] * len(along), count)
    with new_trace() as trace:
        primals = [trace.new_input(t) for t in program.input_types]
        results = inline(batched, [*primals, *_unit_vectors(along)])[len(outputs) :]
        blocks = [_blocks(rows, along) for rows in results]
        if is_forward:
            flat = [_transposed(b, len(of.shape)) for row in blocks for b, of in zip(row, along, strict=True)]
        else:
            flat = [blocks[j][i] for i in range(len(along)) for j in range(len(across))]
        return simplify(trace.finish(flat))


def hessian_program(gradient: Program, wrt: Mask) -> Program:
    """Return the Jacobian of a Program from `grad_program`, without its value: forward over reverse."""
    slopes = Program(gradient.inputs, gradient.constants, gradient.equations, gradient.outputs[1:])
    return jacobian_program(simplify(slopes), wrt)


def _size(types: Sequence[ArrayType]) -> int:
    return sum(t.size for t in types)


def _unit_vectors(types: Sequence[ArrayType]) -> list[HostData]:
    """Return, for each type, its part of all unit vectors of all elements, one a row."""
    count, starts = _size(types), accumulate((t.size for t in types), initial=0)
    eye = (np.eye(count, t.size, -start, dtype=t.dtype) for t, start in zip(types, starts, strict=False))
    return [HostData(rows.reshape(count, *t.shape)) for rows, t in zip(eye, types, strict=True)]


def _blocks(rows: Any, types: Sequence[ArrayType]) -> list[Any]:
    """Cut rows into those of the elements of each type: (*type, *row)."""
    starts = list(accumulate((t.size for t in types), initial=0))
    rest = rows.shape[1:]
    return [
        reshape(slice_(rows, ((start, start + t.size, 1), *((0, n, 1) for n in rest))), (*t.shape, *rest))
        for t, start in zip(types, starts, strict=False)
    ]


def _transposed(block: Any, lead: int) -> Any:
    """Move the first axes to the end."""
    axes = range(len(block.shape))
    return permute_dims(block, (*axes[lead:], *axes[:lead]))
