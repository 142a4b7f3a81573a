"""Whether a Program treats each row of its inputs by itself: an analysis of axes, equation by equation."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from aidotnet_py.autodiff.program import Atom, Equation, Literal, Program, Variable
from aidotnet_py.autodiff.tracing.purity import same_value
from aidotnet_py.autodiff.types import ArrayType

__all__ = ["has_independent_rows", "is_mean_over_rows", "treats_rows_alike"]


Shape: TypeAlias = tuple[int, ...]

_REPEATS = ("broadcast_to", "full")
# Their parameters are the shape of their output.
_RESHAPES = ("broadcast_to", "reshape")
# Numbers in a Program are rounded to its dtype, of float32 at most by 6e-8 of themselves.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class _Rows:
    """A value whose entries along one axis depend on one row of the input each: ``block`` entries on each."""

    axis: int
    block: int = 1


@dataclass(frozen=True)
class _Fixed:
    """A value that depends on no row; along the axes ``uniform`` all entries are equal."""

    uniform: frozenset[int] = frozenset()


@dataclass(frozen=True)
class _Total:
    """A sum over all rows of something that depends on one row each, times fixed numbers."""


_Value: TypeAlias = _Rows | _Fixed | _Total


class _MixedError(Exception):
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
        values = _rows_of(program, [place])
    except _MixedError:
        return False
    return all(_of(values, atom) == _Rows(0) for atom in program.outputs)


def _rows_of(program: Program, places: Sequence[int]) -> dict[Atom, _Value]:
    """Return what each value depends on, or raise if an equation may mix rows."""
    values: dict[Atom, _Value] = {variable: _Fixed() for variable in program.inputs}
    values.update((variable, _Fixed()) for variable, _ in program.constants)
    values.update((program.inputs[place], _Rows(0)) for place in places)
    count = program.inputs[places[0]].type.shape[0]
    for equation in program.equations:
        values[equation.output] = _value(equation, [_of(values, atom) for atom in equation.inputs], count)
    return values


def treats_rows_alike(program: Program, other: Program, *places: int) -> bool:
    """Return whether two Programs of one function, of different numbers of rows, do the same to each row.

    Rows stay apart, as for `has_independent_rows`, and no number, shape or equation depends on how many there are.

    Parameters
    ----------
    program : Program
        Traced with more than one row.
    other : Program
        Traced with another number of rows, which may be one.
    *places : int
        The places of inputs with rows, which are entries along axis 0.

    Returns
    -------
    bool

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff import trace
    >>> from aidotnet_py.autodiff.extend import treats_rows_alike
    >>> of = lambda function: [trace(function, np.ones((rows, 3))) for rows in (4, 5)]
    >>> treats_rows_alike(*of(lambda x: x @ np.ones(3)), 0)
    True
    >>> treats_rows_alike(*of(lambda x: x @ np.ones(3) / len(x)), 0)
    False
    """
    try:
        pair = _Pair(program, other, places)
    except _MixedError:
        return False
    return all(pair.values.get(atom) == _Rows(0) for atom in program.outputs)


def is_mean_over_rows(program: Program, other: Program, *places: int) -> bool:
    r"""Return whether two Programs, of different numbers of rows n, are the mean of one function of a row.

    .. math:: f(x) = \frac{1}{n} \sum_{i=1}^{n} g(x_i)

    Parameters
    ----------
    program, other, *places
        As for `treats_rows_alike`.

    Returns
    -------
    bool

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff import trace
    >>> from aidotnet_py.autodiff.extend import is_mean_over_rows
    >>> of = lambda function: [trace(function, np.ones((rows, 3))) for rows in (4, 1)]
    >>> is_mean_over_rows(*of(lambda x: np.mean(x**2)), 0)
    True
    >>> is_mean_over_rows(*of(lambda x: np.sqrt(np.mean(x**2))), 0)
    False
    """
    try:
        pair = _Pair(program, other, places)
    except _MixedError:
        return False
    return all(pair.scales.get(atom) is not None and pair.is_mean(pair.scales[atom]) for atom in program.outputs)


class _Pair:
    """Two Programs of one function, of different numbers of rows, compared equation by equation.

    ``values`` says what each value of the first depends on. ``scales`` has for each sum over rows how much greater the
    numbers that multiply it are than in the other.
    """

    def __init__(self, program: Program, other: Program, places: Sequence[int]) -> None:
        self.values = _rows_of(program, places)
        self.scales: dict[Atom, float] = {}
        self._counts = tuple(one.inputs[places[0]].type.shape[0] for one in (program, other))
        # The values of the other that correspond to those of the first.
        self._twins: dict[Atom, Atom] = {}
        _require(len(program.inputs) == len(other.inputs) and len(program.constants) == len(other.constants))
        for variable, twin in zip(program.inputs, other.inputs, strict=True):
            self._pair(variable, twin)
        for (variable, value), (twin, same) in zip(program.constants, other.constants, strict=True):
            self._pair(variable, twin)
            _require(same_value(value, same))
        rest = deque(other.equations)
        for equation in program.equations:
            if rest and self._are_alike(equation, rest[0]):
                self._pair(equation.output, rest.popleft().output)
            else:
                # An array of the right shape is not broadcast, as may be the case with one row.
                _require(equation.primitive.name == "broadcast_to")
                self._pair(equation.output, self._twin(equation.inputs[0]))
        _require(not rest)
        _require(all(self._is_twin(*pair) for pair in zip(program.outputs, other.outputs, strict=True)))

    def is_mean(self, scale: float) -> bool:
        """Return whether sums over rows of such a scale are divided by the numbers of rows."""
        mine, others = self._counts
        return math.isclose(scale * mine, others, rel_tol=_ROUNDING)

    def _twin(self, atom: Atom) -> Atom:
        return atom if isinstance(atom, Literal) else self._twins[atom]

    def _is_twin(self, atom: Atom, other: Atom) -> bool:
        if isinstance(atom, Literal) or isinstance(other, Literal):
            # By their text: NaN is equal to nothing, and 0.0 to -0.0.
            return repr(atom) == repr(other)
        return self._twins[atom] is other

    def _pair(self, variable: Variable, twin: Atom) -> None:
        """Note a twin, whose shape may have another number of rows, and of entries that are all equal."""
        value, shape, other = self.values[variable], variable.type.shape, twin.type.shape
        longer = frozenset[int]()
        if not isinstance(value, _Total):
            longer = frozenset([value.axis]) if isinstance(value, _Rows) else value.uniform
        mine, others = self._counts
        _require(variable.type.dtype == twin.type.dtype and len(shape) == len(other))
        for axis, (n, m) in enumerate(zip(shape, other, strict=True)):
            _require(n == m or (axis in longer and n * others == m * mine))
        self._twins[variable] = twin
        if isinstance(value, _Total):
            self.scales.setdefault(variable, 1.0)

    def _are_alike(self, equation: Equation, other: Equation) -> bool:
        """Return whether equations do the same; the numbers that multiply a sum over rows may differ."""
        name = equation.primitive.name
        if equation.primitive is not other.primitive or len(equation.inputs) != len(other.inputs):
            return False
        totals = [atom for atom in equation.inputs if isinstance(self.values.get(atom), _Total)]
        pairs = list(zip(equation.inputs, other.inputs, strict=True))
        if totals:
            return self._are_alike_sums(equation, other, pairs, totals)
        if not all(self._is_twin(*pair) for pair in pairs):
            return False
        if self.values[equation.output] == _Fixed() and any(a.type.shape != b.type.shape for a, b in pairs):
            # Such as the sum of as many ones as there are rows.
            return False
        return name in _RESHAPES or self._have_alike_parameters(equation, other)

    def _are_alike_sums(
        self, equation: Equation, other: Equation, pairs: list[tuple[Atom, Atom]], totals: list[Atom]
    ) -> bool:
        scale = self.scales[totals[0]]
        if not all(math.isclose(self.scales[atom], scale, rel_tol=_ROUNDING) for atom in totals):
            return False
        if equation.primitive.name == "sum" and equation.parameters != other.parameters:
            return False
        for atom, twin in pairs:
            if isinstance(atom, Literal) and isinstance(twin, Literal) and 0 not in (atom.value, twin.value):
                ratio = atom.value / twin.value
                scale = scale / ratio if equation.primitive.name == "divide" else scale * ratio
            elif not self._is_twin(atom, twin):
                return False
        self.scales[equation.output] = scale
        return True

    def _have_alike_parameters(self, equation: Equation, other: Equation) -> bool:
        """Return whether parameters are equal but for the number of rows, of which a slice takes all."""
        if equation.primitive.name == "full":
            return same_value(equation.parameters["value"], other.parameters["value"])
        if equation.primitive.name != "slice":
            return same_value(equation.parameters, other.parameters)
        value = self.values[equation.inputs[0]]
        spans = [list(one.parameters["spans"]) for one in (equation, other)]
        if isinstance(value, _Rows):
            length = other.inputs[0].type.shape[value.axis]
            _require(spans[1].pop(value.axis) == (0, length, 1))
            spans[0].pop(value.axis)
        return spans[0] == spans[1]


def _require(holds: bool) -> None:
    if not holds:
        raise _MixedError


def _of(values: dict[Atom, _Value], atom: Atom) -> _Value:
    return _Fixed() if isinstance(atom, Literal) else values[atom]


def _value(equation: Equation, operands: list[_Value], count: int) -> _Value:
    """Return the value of an equation, or raise if it may mix rows."""
    name, types = equation.primitive.name, [atom.type for atom in equation.inputs]
    if all(isinstance(operand, _Fixed) for operand in operands):
        return _Fixed(_repeated(equation) if name in _REPEATS else frozenset())
    if any(isinstance(operand, _Total) for operand in operands):
        return _total(name, operands)
    if equation.primitive.loop not in (None, "sum", "max"):
        return _elementwise(types, operands)
    if name == "matmul":
        return _matmul(types, operands)
    if name == "concatenate":
        joined = _elementwise(types, operands)
        return joined if isinstance(joined, _Rows) and joined.axis != equation.parameters["axis"] else _mixed()
    if len(operands) == 1 and isinstance(operands[0], _Rows):
        return _moved(equation, types[0].shape, operands[0], count)
    return _mixed()


def _total(name: str, operands: list[_Value]) -> _Value:
    """Return the sum of sums, or a sum times something fixed; the sum is the dividend of a division."""
    if all(isinstance(operand, _Total) for operand in operands):
        return _Total() if name in ("add", "negative", "reshape", "subtract", "sum") else _mixed()
    others = operands[1:] if isinstance(operands[0], _Total) else operands[:1] if name == "multiply" else operands
    fits = name in ("divide", "multiply") and all(isinstance(operand, _Fixed) for operand in others)
    return _Total() if fits else _mixed()


def _mixed() -> _Value:
    raise _MixedError


def _repeated(equation: Equation) -> frozenset[int]:
    """Return the axes along which a broadcast repeats its input."""
    shape, before = equation.output.type.shape, [atom.type.shape for atom in equation.inputs]
    lengths = before[0] if before else (1,) * len(shape)
    return frozenset(i for i, (n, m) in enumerate(zip(lengths, shape, strict=True)) if n != m)


def _elementwise(types: list[ArrayType], operands: list[_Value]) -> _Value:
    """Return the rows of values that are combined element by element, or side by side."""
    kinds = {operand for operand in operands if isinstance(operand, _Rows)}
    if len(kinds) != 1:
        return _mixed()
    (rows,) = kinds
    fits = (
        isinstance(operand, _Rows) or not of.shape or (isinstance(operand, _Fixed) and rows.axis in operand.uniform)
        for operand, of in zip(operands, types, strict=True)
    )
    return rows if all(fits) else _mixed()


def _matmul(types: list[ArrayType], operands: list[_Value]) -> _Value:
    """Return the rows of a product: those of the left factor, the columns of the right, or matrices of a stack."""
    last = len(types[0].shape) - 1
    left, right = operands
    if isinstance(left, _Rows) and left.axis == last - 1 and isinstance(right, _Fixed):
        return left
    if isinstance(right, _Rows) and right.axis == last and isinstance(left, _Fixed):
        return right
    stacks = _elementwise(types, operands)
    return stacks if isinstance(stacks, _Rows) and stacks.axis < last - 1 else _mixed()


def _moved(equation: Equation, before: Shape, rows: _Rows, count: int) -> _Value:
    """Return where an equation of one input, of a shape, leaves its rows."""
    name, parameters, shape = equation.primitive.name, equation.parameters, equation.output.type.shape
    axis = rows.axis
    if name in ("sum", "max"):
        axes = parameters["axes"]
        if axis in axes:
            return _Total() if name == "sum" else _mixed()
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


def _reshaped(before: Shape, rows: _Rows, after: Shape, count: int) -> _Value:
    """Return the axis of another shape along which the elements of a row lie together as they did."""
    ahead, of_row = math.prod(before[: rows.axis]), rows.block * math.prod(before[rows.axis + 1 :])
    for axis, length in enumerate(after):
        block = length // count
        if length % count == 0 and math.prod(after[:axis]) == ahead and block * math.prod(after[axis + 1 :]) == of_row:
            return _Rows(axis, block)
    return _mixed()
