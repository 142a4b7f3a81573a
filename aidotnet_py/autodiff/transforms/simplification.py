"""Removal of repeated and unused equations."""

from __future__ import annotations

from typing import Any

from aidotnet_py.autodiff.program import Atom, Equation, Literal, Program, Variable

__all__ = ["simplify", "without_unused"]


def simplify(program: Program) -> Program:
    """Remove repeated equations, unused equations and unused constants; inputs and outputs stay.

    Parameters
    ----------
    program : Program
        The equations.

    Returns
    -------
    Program

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff.extend import ArrayType, new_trace, simplify
    >>> with new_trace() as trace:
    ...     x = trace.new_input(ArrayType((3,), np.dtype(float)))
    ...     program = trace.finish([np.exp(x) * np.exp(x)])
    >>> len(program.equations), len(simplify(program).equations)
    (3, 2)
    """
    return without_unused(_without_repeats(program))


def _without_repeats(program: Program) -> Program:
    first: dict[Any, Variable] = {}
    renamed: dict[Atom, Atom] = {}
    equations: list[Equation] = []
    for equation in program.equations:
        primitive, parameters = equation.primitive, equation.parameters
        # Most equations read nothing renamed, and the hash of a literal costs more than all else here.
        if renamed and not renamed.keys().isdisjoint(equation.variables):
            inputs = tuple([renamed.get(a, a) for a in equation.inputs])
            equation = Equation(primitive, inputs, equation.output, parameters)
        operands: Any = equation.inputs
        if len(operands) > len(equation.variables):
            # Numbers are compared as text: 0.0 == -0.0, but their quotients differ.
            operands = tuple([(repr(a.value), a.type) if isinstance(a, Literal) else a for a in operands])
        if primitive.commutative:
            operands = frozenset(operands)
        # One parameter needs no order.
        settings = parameters if len(parameters) < 2 else dict(sorted(parameters.items()))
        text = repr(settings) if settings else ""
        # Beside their text, the values themselves: two Programs, or two large arrays, may have one text.
        try:
            earlier = first.setdefault((primitive, operands, text, *settings.values()), equation.output)
        except TypeError:
            earlier = first.setdefault((primitive, operands, text, *map(id, settings.values())), equation.output)
        if earlier is not equation.output:
            renamed[equation.output] = earlier
        else:
            equations.append(equation)
    outputs = tuple(renamed.get(a, a) for a in program.outputs)
    return Program(program.inputs, program.constants, tuple(equations), outputs)


def without_unused(program: Program) -> Program:
    """Remove equations and constants that no output needs; inputs stay."""
    needed: set[Atom] = set(program.outputs)
    kept: list[Equation] = []
    for equation in reversed(program.equations):
        if equation.output in needed:
            kept.append(equation)
            needed.update(equation.variables)
    constants = tuple((v, value) for v, value in program.constants if v in needed)
    return Program(program.inputs, constants, tuple(reversed(kept)), program.outputs)
