"""Programs of one function at several batch sizes, joined to one whose lengths depend on the size."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeGuard, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.autodiff.extend import ArrayType, Atom, Equation, Literal, Program, Variable, host_array, simplify
from aidotnet_py.exceptions import ArgumentException

__all__ = ["AnySizeEquation", "AnySizeProgram", "Length", "Number", "NumberOfSize", "SizeDependent", "trace_any_size"]

# Primes that no other length is likely to be, far apart: the rounding of numbers moves a line through them little.
_SIZES = (61, 307, 1009)
# Where a function may do something else: with a single example, with few, with even numbers.
_SMALL_SIZES = (1, 2, 3, 4, 8, 30)
# Numbers in a Program are rounded to its dtype, of float32 at most by 6e-8 of themselves.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class SizeDependent:
    """The length ``slope · n + offset`` at batch size n."""

    slope: int
    offset: int


@dataclass(frozen=True)
class NumberOfSize:
    """The number ``slope · n + offset`` at batch size n, or one divided by it, as in a mean over examples."""

    slope: float
    offset: float
    is_inverse: bool


Length: TypeAlias = int | SizeDependent
Number: TypeAlias = int | float | bool | SizeDependent | NumberOfSize


@dataclass(frozen=True)
class AnySizeEquation:
    """An equation whose numbers may depend on the batch size.

    Attributes
    ----------
    primitive : str
        The name of the primitive.
    inputs : tuple of int or (number, dtype)
        The places of variables among inputs, constants and outputs of equations, in that order; or numbers.
    parameters : dict
        Those of the equation; lengths in it may be `SizeDependent`.
    shape, dtype
        Of the output.
    """

    primitive: str
    inputs: tuple[int | tuple[Number, np.dtype[Any]], ...]
    shape: tuple[Length, ...]
    dtype: np.dtype[Any]
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class AnySizeProgram:
    """A function's equations at any batch size.

    Attributes
    ----------
    inputs : tuple of ArrayType
        Their types at some batch size.
    constants : tuple of numpy.ndarray
        Arrays that the function uses beside its arguments.
    equations : tuple of AnySizeEquation
        In the order of execution.
    output : int
        The place of the result.
    output_shape : tuple of Length
        Its shape.
    output_dtype : dtype
        Its dtype.
    """

    inputs: tuple[ArrayType, ...]
    constants: tuple[NDArray[Any], ...]
    equations: tuple[AnySizeEquation, ...]
    output: int
    output_shape: tuple[Length, ...]
    output_dtype: np.dtype[Any]


def trace_any_size(trace_at: Callable[[int], Program], *sizes: int) -> AnySizeProgram:
    """Return the Program of a function of one output at any batch size, from its Programs at three.

    Two sizes give slope and offset of each length, and the third tests them. Some small sizes, and those given, must
    have the same Program, if the function takes them.

    Raises
    ------
    ArgumentException
        When the function runs other operations at other sizes, or has lengths, numbers or arrays that do not follow the
        size in a straight line.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff import trace
    >>> from aidotnet_py.exchange.batch_sizes import trace_any_size
    >>> program = trace_any_size(lambda n: trace(lambda x: x.reshape(-1), np.zeros((n, 3))))
    >>> program.equations[0].shape
    (SizeDependent(slope=3, offset=0),)
    """
    programs = [simplify(trace_at(size)) for size in _SIZES]
    kinds = [[e.primitive.name for e in program.equations] for program in programs]
    if any(names != kinds[0] for names in kinds):
        raise ArgumentException(
            "the model's function must run the same operations for every number of examples to be exported, got "
            f"{', '.join(str(len(names)) for names in kinds)} equations for {', '.join(map(str, _SIZES))} examples; "
            "let no branch or loop depend on the number of examples"
        )
    places = [_places(program) for program in programs]
    equations = tuple(
        _join(equations, places) for equations in zip(*(program.equations for program in programs), strict=True)
    )
    outputs = [program.outputs[0] for program in programs]
    if not all(isinstance(output, Variable) for output in outputs):
        raise ArgumentException("the model's function must return an array that depends on its arguments, got a number")
    joined = AnySizeProgram(
        programs[0].input_types,
        tuple(_constants(programs)),
        equations,
        _vary([place[cast(Variable, output)] for place, output in zip(places, outputs, strict=True)], "the output"),
        _vary([output.type.shape for output in outputs], "the output's shape"),
        outputs[0].type.dtype,
    )
    for size in dict.fromkeys([*_SMALL_SIZES, *sizes]):
        try:
            program = simplify(trace_at(size))
        # Such as one that refuses a single example.
        except Exception:
            continue
        if not _is_at(joined, program, size):
            raise ArgumentException(
                "the model's function must run the same operations for every number of examples to be exported, got "
                f"others for {size}; let no branch, loop or number depend on the number of examples"
            )
    return joined


def _places(program: Program) -> dict[Variable, int]:
    variables = [*program.inputs, *(v for v, _ in program.constants), *(e.output for e in program.equations)]
    return {variable: place for place, variable in enumerate(variables)}


def _constants(programs: Sequence[Program]) -> list[NDArray[Any]]:
    values = list(zip(*([host_array(value) for _, value in program.constants] for program in programs), strict=True))
    for first, *others in values:
        if not all(_are_equal(first, other) for other in others):
            raise ArgumentException(
                "arrays in the model's function must not depend on the number of examples to be exported, got an array "
                f"of shape {tuple(first.shape)} at {_SIZES[0]} examples; compute it from the input instead"
            )
    return [first for first, *_ in values]


def _are_equal(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()


def _is_at(joined: AnySizeProgram, program: Program, size: int) -> bool:
    """Return whether a Program at a batch size is what the joined one says for that size."""
    values: list[Atom] = [*program.inputs, *(variable for variable, _ in program.constants)]
    constants = [host_array(value) for _, value in program.constants]
    if len(constants) != len(joined.constants) or not all(map(_are_equal, constants, joined.constants)):
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
            return line != 0 and math.isclose(found, 1.0 / line, rel_tol=10 * _ROUNDING)
        return math.isclose(found, line, rel_tol=10 * _ROUNDING)
    # NaN is equal to nothing, and 0.0 to -0.0.
    return repr(wanted) == repr(found)


def _join(equations: Sequence[Equation], places: Sequence[dict[Variable, int]]) -> AnySizeEquation:
    """Return one equation for those at each size."""
    first = equations[0]
    name = first.primitive.name

    def operand(atoms: Sequence[Any]) -> Any:
        if all(isinstance(atom, Literal) for atom in atoms):
            return _vary([atom.value for atom in atoms], f"a number in {name}"), atoms[0].type.dtype
        return _vary([place.get(atom) for place, atom in zip(places, atoms, strict=True)], f"an operand of {name}")

    return AnySizeEquation(
        name,
        tuple(operand(atoms) for atoms in zip(*(e.inputs for e in equations), strict=True)),
        _vary([e.output.type.shape for e in equations], f"the shape of {name}"),
        first.output.type.dtype,
        {key: _vary([e.parameters[key] for e in equations], f"{key} of {name}") for key in first.parameters},
    )


def _vary(values: Sequence[Any], what: str) -> Any:
    """Return a value that gives these at the three sizes."""
    first: Any = values[0]
    if isinstance(first, ArrayType):
        return _vary([value.shape for value in values], what), first.dtype
    if isinstance(first, tuple) and len({len(value) for value in values}) == 1:
        return tuple(_vary(parts, what) for parts in zip(*values, strict=True))
    text = repr(values[0])
    # NaN is equal to nothing, and 0.0 to -0.0.
    if all(repr(value) == text for value in values):
        return values[0]
    if all(isinstance(value, int) for value in values):
        slope, offset, fits = _line([*map(float, values)], 0.0)
        if fits and slope == int(slope):
            return SizeDependent(int(slope), int(offset))
    if all(isinstance(value, float) and value for value in values):
        for is_inverse in (False, True):
            slope, offset, fits = _line([1.0 / value if is_inverse else value for value in values], _ROUNDING)
            if fits:
                slope = _whole(slope, slope)
                start = 1.0 / values[0] if is_inverse else values[0]
                return NumberOfSize(slope, _whole(start - slope * _SIZES[0], start), is_inverse)
    raise ArgumentException(
        f"{what} must be linear in the number of examples to be exported, got "
        f"{', '.join(f'{value} at {size}' for value, size in zip(values, _SIZES, strict=True))}"
    )


def _line(values: Sequence[float], tolerance: float) -> tuple[float, float, bool]:
    """Return slope and offset of the line through the outer values, and whether the middle one is on it."""
    low, middle, high = _SIZES
    slope = (values[2] - values[0]) / (high - low)
    offset = values[0] - slope * low
    return slope, offset, abs(slope * middle + offset - values[1]) <= tolerance * abs(values[1])


def _whole(value: float, scale: float) -> float:
    """Return the whole number that a value is up to the rounding of numbers of some scale, else the value."""
    return float(round(value)) if abs(value - round(value)) <= _ROUNDING * abs(scale) else value
