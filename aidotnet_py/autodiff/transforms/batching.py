"""vmap on Programs: one more axis, in front, through every equation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aidotnet_py.autodiff.primitives.broadcasting import batch_of
from aidotnet_py.autodiff.program import Atom, Literal, Program, Variable
from aidotnet_py.autodiff.tracing.tracer import as_traced, emit_again, new_trace
from aidotnet_py.autodiff.transforms.simplification import simplify

__all__ = ["vmap_program"]


def vmap_program(program: Program, batched: Sequence[bool], size: int) -> Program:
    """The program over a leading axis of that size on the batched inputs; every output has it."""
    with new_trace() as trace:
        types = [t.with_shape((size, *t.shape)) if b else t for t, b in zip(program.input_types, batched, strict=True)]
        values: dict[Variable, Any] = dict(zip(program.inputs, map(trace.new_input, types), strict=True))
        values.update((v, as_traced(value)) for v, value in program.constants)
        with_axis = {v for v, b in zip(program.inputs, batched, strict=True) if b}

        def read(atom: Atom) -> Any:
            return atom if isinstance(atom, Literal) else values[atom]

        for equation in program.equations:
            operands = [read(a) for a in equation.inputs]
            flags = [a in with_axis for a in equation.inputs]
            if any(flags):
                values[equation.output] = equation.primitive.batch(operands, flags, size, **equation.parameters)
                with_axis.add(equation.output)
            else:
                values[equation.output] = emit_again(equation, operands)
        return simplify(trace.finish([batch_of(read(a), a in with_axis, size) for a in program.outputs]))
