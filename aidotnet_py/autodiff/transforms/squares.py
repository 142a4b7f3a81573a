"""Exact squares of roots: at 0, (√s)² has the derivatives of s, while those of √s are infinite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aidotnet_py.autodiff.primitives.elementwise import equal, where
from aidotnet_py.autodiff.program import Atom, Equation, Literal, Program
from aidotnet_py.autodiff.tracing.emission import emit_again
from aidotnet_py.autodiff.tracing.recording import new_trace
from aidotnet_py.autodiff.transforms.replay import Replay

__all__ = ["with_exact_squares"]

_ROOTS = frozenset({"root", "sqrt"})
# Operations between a root and its square that can be squared themselves: moves, conversions and scalings.
_MOVES = frozenset({"astype", "broadcast_to", "concatenate", "flip", "gather", "permute_dims", "reshape", "slice"})
_SCALINGS = frozenset({"divide", "multiply", "negative"})

# The equations of roots, and of values computed from roots by those operations.
Steps = Mapping[Atom, Equation]


def with_exact_squares(program: Program) -> Program:
    """Compute the square z² of each scaled root z = c√s as sc² where z = 0; other Programs are returned unchanged."""
    steps = _steps(program)
    candidates = (equation for equation in program.equations if _is_square(equation) and equation.inputs[0] in steps)
    bases: dict[Atom, Atom] = {equation.output: equation.inputs[0] for equation in candidates}
    squares = bases.keys() - _exact(program, bases)
    if not squares:
        return program
    with new_trace() as trace:
        replay = Replay(program, [trace.new_input(t) for t in program.input_types])
        for equation in program.equations:
            value = replay.emit(equation)
            if equation.output in squares:
                base = bases[equation.output]
                at_zero = equal(replay.operand(base), 0.0)
                replay.values[equation.output] = where(at_zero, _square(base, steps, replay), value)
        return trace.finish([replay.operand(atom) for atom in program.outputs])


def _steps(program: Program) -> Steps:
    steps: dict[Atom, Equation] = {}
    for equation in program.equations:
        name, inputs = equation.primitive.name, equation.inputs
        # Divisors make no zeros, and squares are smooth.
        scaled = name in _SCALINGS and (inputs[0] in steps or (name == "multiply" and inputs[1] in steps))
        moved = name in _MOVES and any(atom in steps for atom in inputs)
        if name in _ROOTS or moved or (scaled and not _is_square(equation)):
            steps[equation.output] = equation
    return steps


def _exact(program: Program, bases: Mapping[Atom, Atom]) -> set[Atom]:
    """Return the squares that an earlier derivative made exact."""
    zeros: dict[Atom, Atom] = {e.output: e.inputs[0] for e in program.equations if e.primitive.name == "equal"}
    chosen = (e.inputs for e in program.equations if e.primitive.name == "where")
    return {square for mask, _, square in chosen if square in bases and zeros.get(mask) is bases[square]}


def _is_square(equation: Equation) -> bool:
    name, inputs = equation.primitive.name, equation.inputs
    if name == "power":
        return isinstance(inputs[1], Literal) and inputs[1].value == 2
    return name == "multiply" and inputs[0] is inputs[1]


def _square(atom: Atom, steps: Steps, replay: Replay) -> Any:
    """Return the square of an atom's value, computed from the squares of its roots."""
    if atom not in steps:
        return replay.argument(atom) * replay.argument(atom)
    name, inputs = steps[atom].primitive.name, steps[atom].inputs
    if name in _ROOTS:
        return replay.operand(inputs[-1])
    if name == "gather":
        return emit_again(steps[atom], [_square(inputs[0], steps, replay), replay.operand(inputs[1])])
    if name in _MOVES:
        return emit_again(steps[atom], [_square(operand, steps, replay) for operand in inputs])
    scaled, *factors = inputs if inputs[0] in steps else inputs[::-1]
    square = _square(scaled, steps, replay)
    for factor in factors:
        # One by one, because a factor's square may overflow.
        if name == "divide":
            square = square / replay.argument(factor) / replay.argument(factor)
        elif factor in steps:
            square = square * _square(factor, steps, replay)
        else:
            square = square * replay.argument(factor) * replay.argument(factor)
    return square
