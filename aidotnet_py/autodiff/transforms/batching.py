"""vmap on Programs: a batch axis in front, carried through every equation."""

from __future__ import annotations

from collections.abc import Sequence

from aidotnet_py.autodiff.primitives.broadcasting import batch_of
from aidotnet_py.autodiff.program import Program
from aidotnet_py.autodiff.tracing.recording import new_trace
from aidotnet_py.autodiff.transforms.replay import Replay
from aidotnet_py.autodiff.transforms.simplification import simplify
from aidotnet_py.exceptions import NotSupportedException

__all__ = ["vmap_program"]


def vmap_program(program: Program, batched: Sequence[bool], size: int) -> Program:
    """Return the Program with a leading axis on the batched inputs and on every output.

    Parameters
    ----------
    program : Program
        The function of one example.
    batched : sequence of bool
        Whether each input gets the axis.
    size : int
        The length of the axis.

    Returns
    -------
    Program

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff import trace
    >>> from aidotnet_py.autodiff.extend import vmap_program
    >>> program = vmap_program(trace(np.dot, np.ones(3), np.ones(3)), [True, False], 5)
    >>> list(map(str, program.input_types)), list(map(str, program.output_types))
    (['float64[5,3]', 'float64[3]'], ['float64[5]'])
    """
    with new_trace() as trace:
        types = [t.with_shape((size, *t.shape)) if b else t for t, b in zip(program.input_types, batched, strict=True)]
        replay = Replay(program, [trace.new_input(t) for t in types])
        with_axis = {v for v, b in zip(program.inputs, batched, strict=True) if b}
        for equation in program.equations:
            flags = [a in with_axis for a in equation.inputs]
            if any(flags):
                operands = [replay.operand(a) for a in equation.inputs]
                if equation.primitive.batch is None:  # pyright: ignore[reportUnnecessaryComparison] -- callers may be untyped
                    raise NotSupportedException(
                        f"{equation.primitive.name} must have a batch rule to be mapped, got none"
                    )
                value = equation.primitive.batch(operands, flags, size, **equation.parameters)
                replay.values[equation.output] = value
                with_axis.add(equation.output)
            else:
                replay.emit(equation)
        return simplify(trace.finish([batch_of(replay.operand(a), a in with_axis, size) for a in program.outputs]))
