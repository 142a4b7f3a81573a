"""Replay the equations of a Program in a new trace, for transforms that change some of them on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aidotnet_py.autodiff.program import Atom, Equation, Literal, Program, Variable
from aidotnet_py.autodiff.tracing.emission import as_traced, emit_again

__all__ = ["Replay"]


class Replay:
    """The value of each variable of a Program in the innermost trace.

    Parameters
    ----------
    program : Program
        The Program to replay.
    inputs : sequence of traced value
        The values of its inputs.

    Attributes
    ----------
    values : dict
        Values by variable. A transform that computes an equation in its own way enters the result here.
    """

    def __init__(self, program: Program, inputs: Sequence[Any]) -> None:
        self.values: dict[Variable, Any] = dict(zip(program.inputs, inputs, strict=True))
        self.values.update((v, as_traced(value)) for v, value in program.constants)

    def operand(self, atom: Atom) -> Any:
        """Return the value of an atom as an operand of an equation: literals stay literals."""
        return atom if isinstance(atom, Literal) else self.values[atom]

    def argument(self, atom: Atom) -> Any:
        """Return the value of an atom as an argument of a rule: literals become plain numbers."""
        return atom.value if isinstance(atom, Literal) else self.values[atom]

    def emit(self, equation: Equation) -> Any:
        """Add the equation unchanged to the new trace, enter its value and return it."""
        value = emit_again(equation, [self.operand(a) for a in equation.inputs])
        self.values[equation.output] = value
        return value
