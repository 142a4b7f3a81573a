"""Whether a Program treats each row of its inputs by itself: an analysis of axes, equation by equation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from aidotnet_py.autodiff.program import Atom, Equation, Literal, Program
from aidotnet_py.autodiff.types import ArrayType

__all__ = ["Fixed", "MixedError", "RowValue", "Rows", "Total", "has_independent_rows", "rows_of"]


Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Rows:
    """A value whose entries along one axis depend on one row of the input each: ``block`` entries on each."""

    axis: int
    block: int = 1


@dataclass(frozen=True)
class Fixed:
    """A value that depends on no row; along the axes ``uniform`` all entries are equal."""

    uniform: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Total:
    """A sum over all rows of something that depends on one row each, times fixed numbers."""


RowValue: TypeAlias = Rows | Fixed | Total


class MixedError(Exception):
    """An equation may mix rows."""


def has_independent_rows(program: Program, place: int) -> bool:
    """Return whether row i of each output depends on row i of an input alone, in the same way for every i.

    Rows are entries along axis 0. False is no proof of the contrary: equations that the analysis does not know count
    as mixing.

    Parameters
    ----------
    program : Program
        Traced with more than one row.
    place : int
        The place of the input.

    Returns
    -------
    bool

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff import trace
    >>> from aidotnet_py.autodiff.extend import has_independent_rows
    >>> has_independent_rows(trace(lambda x: np.sum(x**2, axis=1), np.ones((4, 3))), 0)
    True
    >>> has_independent_rows(trace(lambda x: x - np.mean(x, axis=0), np.ones((4, 3))), 0)
    False
    """
    try:
        values = rows_of(program, [place])
    except MixedError:
        return False
    return all(_of(values, atom) == Rows(0) for atom in program.outputs)


def rows_of(program: Program, places: Sequence[int]) -> dict[Atom, RowValue]:
    """Return what each value depends on, or raise if an equation may mix rows."""
    values: dict[Atom, RowValue] = {variable: Fixed() for variable in program.inputs}
    values.update((variable, Fixed()) for variable, _ in program.constants)
    values.update((program.inputs[place], Rows(0)) for place in places)
    count = program.inputs[places[0]].type.shape[0]
    for equation in program.equations:
        values[equation.output] = _value(equation, [_of(values, atom) for atom in equation.inputs], count)
    return values


def _of(values: dict[Atom, RowValue], atom: Atom) -> RowValue:
    return Fixed() if isinstance(atom, Literal) else values[atom]


def _value(equation: Equation, operands: list[RowValue], count: int) -> RowValue:
    """Return the value of an equation, or raise if it may mix rows."""
    name, types = equation.primitive.name, [atom.type for atom in equation.inputs]
    if all(isinstance(operand, Fixed) for operand in operands):
        return Fixed(_repeated(equation) if name in ("broadcast_to", "full") else frozenset())
    if any(isinstance(operand, Total) for operand in operands):
        return _total(name, operands)
    if equation.primitive.loop not in (None, "sum", "max"):
        return _elementwise(types, operands)
    if name == "matmul":
        return _matmul(types, operands)
    if name == "concatenate":
        joined = _elementwise(types, operands)
        return joined if isinstance(joined, Rows) and joined.axis != equation.parameters["axis"] else _mixed()
    if len(operands) == 1 and isinstance(operands[0], Rows):
        return _moved(equation, types[0].shape, operands[0], count)
    return _mixed()


def _total(name: str, operands: list[RowValue]) -> RowValue:
    """Return the sum of sums, or a sum times something fixed; the sum is the dividend of a division."""
    if all(isinstance(operand, Total) for operand in operands):
        return Total() if name in ("add", "negative", "reshape", "subtract", "sum") else _mixed()
    others = operands[1:] if isinstance(operands[0], Total) else operands[:1] if name == "multiply" else operands
    fits = name in ("divide", "multiply") and all(isinstance(operand, Fixed) for operand in others)
    return Total() if fits else _mixed()


def _mixed() -> RowValue:
    raise MixedError


def _repeated(equation: Equation) -> frozenset[int]:
    """Return the axes along which a broadcast repeats its input."""
    shape, before = equation.output.type.shape, [atom.type.shape for atom in equation.inputs]
    lengths = before[0] if before else (1,) * len(shape)
    return frozenset(i for i, (n, m) in enumerate(zip(lengths, shape, strict=True)) if n != m)


def _elementwise(types: list[ArrayType], operands: list[RowValue]) -> RowValue:
    """Return the rows of values that are combined element by element, or side by side."""
    kinds = {operand for operand in operands if isinstance(operand, Rows)}
    if len(kinds) != 1:
        return _mixed()
    (rows,) = kinds
    fits = (
        isinstance(operand, Rows) or not of.shape or (isinstance(operand, Fixed) and rows.axis in operand.uniform)
        for operand, of in zip(operands, types, strict=True)
    )
    return rows if all(fits) else _mixed()


def _matmul(types: list[ArrayType], operands: list[RowValue]) -> RowValue:
    """Return the rows of a product: those of the left factor, the columns of the right, or matrices of a stack."""
    last = len(types[0].shape) - 1
    left, right = operands
    if isinstance(left, Rows) and left.axis == last - 1 and isinstance(right, Fixed):
        return left
    if isinstance(right, Rows) and right.axis == last and isinstance(left, Fixed):
        return right
    stacks = _elementwise(types, operands)
    return stacks if isinstance(stacks, Rows) and stacks.axis < last - 1 else _mixed()


def _moved(equation: Equation, before: Shape, rows: Rows, count: int) -> RowValue:
    """Return where an equation of one input, of a shape, leaves its rows."""
    name, parameters, shape = equation.primitive.name, equation.parameters, equation.output.type.shape
    axis = rows.axis
    if name in ("sum", "max"):
        axes = parameters["axes"]
        if axis in axes:
            return Total() if name == "sum" else _mixed()
        return replace(rows, axis=axis - sum(i < axis for i in axes))
    if name == "reshape":
        return _reshaped(before, rows, shape, count)
    if name == "permute_dims":
        return replace(rows, axis=parameters["axes"].index(axis))
    whole: dict[str, Callable[[], bool]] = {
        "broadcast_to": lambda: before[axis] == shape[axis],
        "slice": lambda: parameters["spans"][axis] == (0, before[axis], 1),
        "pad": lambda: parameters["margins"][axis] == (0, 0, 0),
        "flip": lambda: axis not in parameters["axes"],
        "stop_gradient": lambda: True,
        "patches": lambda: axis == 0,
        "fold": lambda: axis == 0,
    }
    return rows if name in whole and whole[name]() else _mixed()


def _reshaped(before: Shape, rows: Rows, after: Shape, count: int) -> RowValue:
    """Return the axis of another shape along which the elements of a row lie together as they did."""
    ahead, of_row = math.prod(before[: rows.axis]), rows.block * math.prod(before[rows.axis + 1 :])
    for axis, length in enumerate(after):
        block = length // count
        if length % count == 0 and math.prod(after[:axis]) == ahead and block * math.prod(after[axis + 1 :]) == of_row:
            return Rows(axis, block)
    return _mixed()
