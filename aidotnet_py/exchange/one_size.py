"""Whether a Program of one batch size is what a Program of any size says for that size."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any, TypeGuard, cast

from aidotnet_py.autodiff.extend import ArrayType, Atom, Equation, Literal, Program, Variable, host_array, same_value
from aidotnet_py.exchange.any_size import ROUNDING, AnySizeEquation, AnySizeProgram, NumberOfSize, SizeDependent

__all__ = ["is_at"]


def is_at(joined: AnySizeProgram, program: Program, size: int) -> bool:
    """Return whether a Program at a batch size is what the joined one says for that size."""
    values: list[Atom] = [*program.inputs, *(variable for variable, _ in program.constants)]
    constants = [host_array(value) for _, value in program.constants]
    if not same_value(constants, [*joined.constants]):
        return False
    done, rest = list[Equation](), deque(program.equations)
    for equation in joined.equations:
        inputs = [values[i] if isinstance(i, int) else i for i in equation.inputs]
        if rest and _is_equation_at(equation, inputs, rest[0], size):
            done.append(rest.popleft())
            values.append(done[-1].output)
            continue
        same = _unchanged_at(equation, inputs, size)
        # Parts may be the whole at a small size, and what was computed for the whole is not computed again.
        same = same or next((e.output for e in done if _is_equation_at(equation, inputs, e, size)), None)
        if same is None:
            return False
        values.append(same)
    return not rest and values[joined.output] is program.outputs[0]


def _is_equation_at(joined: AnySizeEquation, inputs: Sequence[Any], equation: Equation, size: int) -> bool:
    """Return whether an equation, with these operands, is that of a joined one at a batch size."""
    if joined.primitive != equation.primitive.name or len(inputs) != len(equation.inputs):
        return False
    for wanted, atom in zip(inputs, equation.inputs, strict=True):
        if isinstance(atom, Literal):
            if not (isinstance(wanted, tuple) and _fits(cast(Any, wanted[0]), atom.value, size)):
                return False
        elif wanted is not atom:
            return False
    shape, parameters = equation.output.type.shape, equation.parameters
    alike = joined.parameters.keys() == parameters.keys() and _fits(joined.shape, shape, size)
    if 0 in shape:
        # Nothing can be taken from anywhere.
        return alike
    return alike and all(_fits(joined.parameters[key], value, size) for key, value in parameters.items())


def _unchanged_at(joined: AnySizeEquation, inputs: Sequence[Any], size: int) -> Atom | None:
    """Return the operand that an equation would return as it is at a batch size, so that a Program lacks it there."""
    whole = [i for i in inputs if isinstance(i, Variable) and _fits(joined.shape, i.type.shape, size)]
    if not whole:
        return None
    match joined.primitive:
        case "broadcast_to" | "reshape" | "concatenate":
            unchanged = True
        case "slice":
            # A single element has no order.
            spans = zip(whole[0].type.shape, joined.parameters["spans"], strict=True)
            unchanged = all(length < 2 or _fits(span[2], 1, size) for length, span in spans)
        case "flip":
            axes: tuple[int, ...] = joined.parameters["axes"]
            unchanged = all(whole[0].type.shape[axis] < 2 for axis in axes)
        case "divide" | "multiply":
            unchanged = isinstance(inputs[1], tuple) and _fits(inputs[1][0], 1.0, size)
        case _:
            unchanged = False
    return whole[0] if unchanged else None


def _is_tuple(value: object) -> TypeGuard[tuple[Any, ...]]:
    return isinstance(value, tuple)


def _fits(wanted: Any, found: Any, size: int) -> bool:
    """Return whether a length, number or tuple of them has a value at a batch size."""
    if isinstance(found, ArrayType):
        return _fits(wanted, (found.shape, found.dtype), size)
    if _is_tuple(wanted) and _is_tuple(found):
        return len(wanted) == len(found) and all(_fits(*pair, size) for pair in zip(wanted, found, strict=True))
    if isinstance(wanted, (SizeDependent, NumberOfSize)):
        line = wanted.slope * size + wanted.offset
        if isinstance(wanted, NumberOfSize) and wanted.is_inverse:
            return line != 0 and math.isclose(found, 1.0 / line, rel_tol=10 * ROUNDING)
        return math.isclose(found, line, rel_tol=10 * ROUNDING)
    # NaN is equal to nothing, and 0.0 to -0.0.
    return repr(wanted) == repr(found)
