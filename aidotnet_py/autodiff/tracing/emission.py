"""Equations for the innermost trace: one operation, or all those of a Program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aidotnet_py.arguments import refusal
from aidotnet_py.autodiff.primitive import Primitive
from aidotnet_py.autodiff.program import Atom, Equation, Literal, Program, Variable
from aidotnet_py.autodiff.tracing.recording import innermost_trace
from aidotnet_py.autodiff.tracing.tracer import Tracer
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.exceptions import ArgumentException

__all__ = ["as_traced", "emit", "emit_again", "inline"]


def emit(primitive: Primitive, *operands: Any, **parameters: Any) -> Tracer:
    """Add an equation to the innermost trace and return its value.

    Parameters
    ----------
    primitive : Primitive
        The operation.
    *operands : Tracer, array or number
        The inputs.
    **parameters
        Settings of the operation.

    Returns
    -------
    Tracer

    Raises
    ------
    InvalidOperationException
        When nothing is traced, or an operand is of a trace that has ended.
    ArgumentException
        When the primitive does not take operands of these types.

    Examples
    --------
    See `Primitive`.
    """
    trace = innermost_trace(operands)
    inputs = tuple([trace.atom(x) for x in operands])
    output = Variable(_output_type(primitive, [a.type for a in inputs], parameters))
    trace.equations.append(Equation(primitive, inputs, output, parameters))
    return Tracer(trace, output)


def _output_type(primitive: Primitive, types: Sequence[ArrayType], parameters: Mapping[str, Any]) -> ArrayType:
    result: Any = primitive.shape(*types, **parameters)
    if not isinstance(result, ArrayType):
        raise ArgumentException(refusal(f"the result of {primitive.name}'s shape rule", "an ArrayType", result))
    return result


def emit_again(equation: Equation, operands: Sequence[Any]) -> Tracer:
    """Add an equation on other operands; only operands of other types need the shape rule."""
    trace = innermost_trace(operands)
    inputs = tuple([trace.atom(x) for x in operands])
    if [a.type for a in inputs] == [a.type for a in equation.inputs]:
        output = Variable(equation.output.type)
    else:
        output = Variable(_output_type(equation.primitive, [a.type for a in inputs], equation.parameters))
    trace.equations.append(Equation(equation.primitive, inputs, output, equation.parameters))
    return Tracer(trace, output)


def as_traced(value: Any) -> Tracer:
    """Return the value in the innermost trace; an array from outside becomes a constant of it.

    Rules and functions get only traced values, so that an array library's own operators never take part.

    Parameters
    ----------
    value : Tracer, array or number
        The value.

    Returns
    -------
    Tracer

    Raises
    ------
    InvalidOperationException
        When nothing is traced, or the value is of a trace that has ended.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff.extend import as_traced, new_trace
    >>> with new_trace():
    ...     as_traced(np.ones(3))
    Tracer(float64[3])
    """
    trace = innermost_trace()
    atom = trace.atom(value)
    assert isinstance(atom, Variable)
    return Tracer(trace, atom)


def inline(program: Program, arguments: Sequence[Any]) -> list[Any]:
    """Add the equations of a Program to the innermost trace, on other values, and return its results.

    Parameters
    ----------
    program : Program
        The equations.
    arguments : sequence of Tracer, array or number
        One value for each input of the Program.

    Returns
    -------
    list of Tracer or Literal
        One value for each output.

    Raises
    ------
    InvalidOperationException
        When nothing is traced.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff import trace
    >>> from aidotnet_py.autodiff.extend import as_traced, inline, new_trace
    >>> program = trace(np.sin, np.ones(3))
    >>> with new_trace():
    ...     inline(program, [as_traced(np.zeros(3))])
    [Tracer(float64[3])]
    """
    values: dict[Variable, Any] = dict(zip(program.inputs, arguments, strict=True))
    values.update(program.constants)

    def read(atom: Atom) -> Any:
        return atom if isinstance(atom, Literal) else values[atom]

    for equation in program.equations:
        values[equation.output] = emit_again(equation, [read(a) for a in equation.inputs])
    return [read(atom) for atom in program.outputs]
