"""Squares of roots, exact where the root is 0: (√s)² has the derivatives of s there, which those of √s cannot give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aidotnet_py.autodiff.primitives.elementwise import equal, where
from aidotnet_py.autodiff.program import Atom, Equation, Literal, Program
from aidotnet_py.autodiff.tracing.tracer import emit_again, new_trace
from aidotnet_py.autodiff.transforms.replay import Replay

__all__ = ["with_exact_squares"]

_ROOTS = frozenset({"root", "sqrt"})
# Operations that a square may be taken through, to its root: those that move or convert elements, and scalings.
_MOVES = frozenset({"astype", "broadcast_to", "concatenate", "flip", "gather", "permute_dims", "reshape", "slice"})
_SCALINGS = frozenset({"divide", "multiply", "negative"})

# What is a root, or is computed from one by those: the equation of each.
Steps = Mapping[Atom, Equation]


def with_exact_squares(program: Program) -> Program:
    """The program, with each square z² of a scaled root z = c√s as sc² where z = 0; itself if it has no such square."""
    steps = _steps(program)
    found = (equation for equation in program.equations if _is_square(equation) and equation.inputs[0] in steps)
    bases: dict[Atom, Atom] = {equation.output: equation.inputs[0] for equation in found}
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
        # A divisor makes no zeros, and a square is smooth.
        scaled = name in _SCALINGS and (inputs[0] in steps or (name == "multiply" and inputs[1] in steps))
        moved = name in _MOVES and any(atom in steps for atom in inputs)
        if name in _ROOTS or moved or (scaled and not _is_square(equation)):
            steps[equation.output] = equation
    return steps


def _exact(program: Program, bases: Mapping[Atom, Atom]) -> set[Atom]:
    """The squares that were made exact for an earlier derivative."""
    zeros: dict[Atom, Atom] = {e.output: e.inputs[0] for e in program.equations if e.primitive.name == "equal"}
    chosen = (e.inputs for e in program.equations if e.primitive.name == "where")
    return {square for mask, _, square in chosen if square in bases and zeros.get(mask) is bases[square]}


def _is_square(equation: Equation) -> bool:
    name, inputs = equation.primitive.name, equation.inputs
    if name == "power":
        return isinstance(inputs[1], Literal) and inputs[1].value == 2
    return name == "multiply" and inputs[0] is inputs[1]


def _square(atom: Atom, steps: Steps, replay: Replay) -> Any:
    """The square of the atom's value, from the squares of its roots."""
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
        # One after another: a factor's own square may overflow.
        if name == "divide":
            square = square / replay.argument(factor) / replay.argument(factor)
        elif factor in steps:
            square = square * _square(factor, steps, replay)
        else:
            square = square * replay.argument(factor) * replay.argument(factor)
    return square
