"""Programs of one function for different numbers of rows: whether each does the same to a row, whatever the number."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from aidotnet_py.autodiff.program import Atom, Equation, Literal, Program, Variable
from aidotnet_py.autodiff.tracing.purity import same_value
from aidotnet_py.autodiff.transforms.rows import Fixed, MixedError, Rows, Total, rows_of

__all__ = ["is_mean_over_rows", "treats_rows_alike"]

# Their parameters are the shape of their output.
_RESHAPES = ("broadcast_to", "reshape")
# Numbers in a Program are rounded to its dtype, of float32 at most by 6e-8 of themselves.
_ROUNDING = 1e-6


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
    pair = _pair_of(program, other, places)
    return pair is not None and all(pair.values.get(atom) == Rows(0) for atom in program.outputs)


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
    pair = _pair_of(program, other, places)
    return pair is not None and all(pair.is_mean(atom) for atom in program.outputs)


def _pair_of(program: Program, other: Program, places: Sequence[int]) -> _Pair | None:
    """Return the comparison of two Programs; None if they differ, or rows may be mixed."""
    try:
        return _Pair(program, other, places)
    except MixedError:
        return None


class _Pair:
    """Two Programs of one function, of different numbers of rows, compared equation by equation.

    ``values`` says what each value of the first depends on.
    """

    def __init__(self, program: Program, other: Program, places: Sequence[int]) -> None:
        self.values = rows_of(program, places)
        # By how much the numbers that multiply a sum over rows are greater than in the other.
        self._scales: dict[Atom, float] = {}
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

    def is_mean(self, atom: Atom) -> bool:
        """Return whether a value is a sum over rows, divided in both Programs by their numbers of rows."""
        mine, others = self._counts
        return atom in self._scales and math.isclose(self._scales[atom] * mine, others, rel_tol=_ROUNDING)

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
        longer = value.uniform if isinstance(value, Fixed) else {value.axis} if isinstance(value, Rows) else set[int]()
        mine, others = self._counts
        _require(variable.type.dtype == twin.type.dtype and len(shape) == len(other))
        for axis, (n, m) in enumerate(zip(shape, other, strict=True)):
            _require(n == m or (axis in longer and n * others == m * mine))
        self._twins[variable] = twin
        if isinstance(value, Total):
            self._scales.setdefault(variable, 1.0)

    def _are_alike(self, equation: Equation, other: Equation) -> bool:
        """Return whether equations do the same; the numbers that multiply a sum over rows may differ."""
        name = equation.primitive.name
        if equation.primitive is not other.primitive or len(equation.inputs) != len(other.inputs):
            return False
        totals = [atom for atom in equation.inputs if isinstance(self.values.get(atom), Total)]
        pairs = list(zip(equation.inputs, other.inputs, strict=True))
        if totals:
            return self._are_alike_sums(equation, other, pairs, totals)
        if not all(self._is_twin(*pair) for pair in pairs):
            return False
        if self.values[equation.output] == Fixed() and any(a.type.shape != b.type.shape for a, b in pairs):
            # Such as the sum of as many ones as there are rows.
            return False
        return name in _RESHAPES or self._have_alike_parameters(equation, other)

    def _are_alike_sums(
        self, equation: Equation, other: Equation, pairs: list[tuple[Atom, Atom]], totals: list[Atom]
    ) -> bool:
        scale = self._scales[totals[0]]
        if not all(math.isclose(self._scales[atom], scale, rel_tol=_ROUNDING) for atom in totals):
            return False
        if equation.primitive.name == "sum" and equation.parameters != other.parameters:
            return False
        for atom, twin in pairs:
            if isinstance(atom, Literal) and isinstance(twin, Literal) and 0 not in (atom.value, twin.value):
                ratio = atom.value / twin.value
                scale = scale / ratio if equation.primitive.name == "divide" else scale * ratio
            elif not self._is_twin(atom, twin):
                return False
        self._scales[equation.output] = scale
        return True

    def _have_alike_parameters(self, equation: Equation, other: Equation) -> bool:
        """Return whether parameters are equal but for the number of rows, of which a slice takes all."""
        if equation.primitive.name == "full":
            return same_value(equation.parameters["value"], other.parameters["value"])
        if equation.primitive.name != "slice":
            return same_value(equation.parameters, other.parameters)
        value = self.values[equation.inputs[0]]
        spans = [list(one.parameters["spans"]) for one in (equation, other)]
        if isinstance(value, Rows):
            length = other.inputs[0].type.shape[value.axis]
            _require(spans[1].pop(value.axis) == (0, length, 1))
            spans[0].pop(value.axis)
        return spans[0] == spans[1]


def _require(holds: bool) -> None:
    if not holds:
        raise MixedError
