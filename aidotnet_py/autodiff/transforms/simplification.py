"""Leave out what is computed twice, and what nobody uses."""

from __future__ import annotations

from operator import is_not
from typing import Any

from aidotnet_py.autodiff.program import Atom, Equation, Literal, Program, Variable

__all__ = ["simplify", "without_dead"]


def simplify(program: Program) -> Program:
    """Common subexpressions once, dead equations and unused constants not at all; inputs and outputs stay."""
    return without_dead(_without_repeats(program))


def _without_repeats(program: Program) -> Program:
    first: dict[Any, Variable] = {}
    renamed: dict[Atom, Atom] = {}
    equations: list[Equation] = []
    for equation in program.equations:
        primitive, parameters = equation.primitive, equation.parameters
        inputs = tuple([renamed.get(a, a) for a in equation.inputs])
        # Numbers by their text: 0.0 and -0.0 are equal but not the same.
        named = [repr(a) if isinstance(a, Literal) else a for a in inputs]
        operands = frozenset(named) if primitive.commutative else tuple(named)
        key = (primitive, operands, repr(sorted(parameters.items())) if parameters else "")
        found = first.setdefault(key, equation.output)
        if found is not equation.output:
            renamed[equation.output] = found
        else:
            changed = any(map(is_not, inputs, equation.inputs))
            equations.append(Equation(primitive, inputs, equation.output, parameters) if changed else equation)
    outputs = tuple(renamed.get(a, a) for a in program.outputs)
    return Program(program.inputs, program.constants, tuple(equations), outputs)


def without_dead(program: Program) -> Program:
    """Only what the outputs need; inputs stay."""
    needed: set[Atom] = set(program.outputs)
    kept: list[Equation] = []
    for equation in reversed(program.equations):
        if equation.output in needed:
            kept.append(equation)
            needed.update(equation.variables)
    constants = tuple((v, value) for v, value in program.constants if v in needed)
    return Program(program.inputs, constants, tuple(reversed(kept)), program.outputs)
