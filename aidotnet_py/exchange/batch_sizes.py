"""Programs of one function at several batch sizes, joined to one whose lengths depend on the size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

from numpy.typing import NDArray

from aidotnet_py.autodiff.extend import (
    ArrayType,
    Equation,
    Literal,
    Program,
    Variable,
    host_array,
    same_value,
    simplify,
)
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.exchange.any_size import ROUNDING, AnySizeEquation, AnySizeProgram, NumberOfSize, SizeDependent
from aidotnet_py.exchange.one_size import is_at

__all__ = ["trace_any_size"]

# Primes that no other length is likely to be, far apart: the rounding of numbers moves a line through them little.
_SIZES = (61, 307, 1009)
# Where a function may do something else: with a single example, with few, with even numbers, with very many.
_OTHER_SIZES = (*range(1, 9), 16, 30, 32, 100_003)


def trace_any_size(trace_at: Callable[[int], Program], *sizes: int) -> AnySizeProgram:
    """Return the Program of a function of one output at any batch size, from its Programs at three.

    Two sizes give slope and offset of each length, and the third tests them. Some other sizes, and those given, must
    have the same Program; those that the function refuses are noted.

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
    return replace(joined, refused=_check_sizes(joined, trace_at, sizes))


def _check_sizes(joined: AnySizeProgram, trace_at: Callable[[int], Program], sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the sizes that the function refuses; raise ArgumentException if another one has another Program."""
    refused: list[int] = []
    for size in dict.fromkeys([0, *_OTHER_SIZES, *sizes]):
        try:
            program = simplify(trace_at(size))
        # Such as one that refuses a single example.
        except Exception:
            refused.append(size)
            continue
        # No examples have no results that could differ.
        if size and not is_at(joined, program, size):
            raise ArgumentException(
                "the model's function must run the same operations for every number of examples to be exported, got "
                f"others for {size}; let no branch, loop or number depend on the number of examples"
            )
    return tuple(refused)


def _places(program: Program) -> dict[Variable, int]:
    variables = [*program.inputs, *(v for v, _ in program.constants), *(e.output for e in program.equations)]
    return {variable: place for place, variable in enumerate(variables)}


def _constants(programs: Sequence[Program]) -> list[NDArray[Any]]:
    values = list(zip(*([host_array(value) for _, value in program.constants] for program in programs), strict=True))
    for first, *others in values:
        if not all(same_value(first, other) for other in others):
            raise ArgumentException(
                "arrays in the model's function must not depend on the number of examples to be exported, got an array "
                f"of shape {tuple(first.shape)} at {_SIZES[0]} examples; compute it from the input instead. np.sort, "
                "np.take_along_axis and selections by computed indices make such arrays themselves"
            )
    return [first for first, *_ in values]


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
            slope, offset, fits = _line([1.0 / value if is_inverse else value for value in values], ROUNDING)
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
    return float(round(value)) if abs(value - round(value)) <= ROUNDING * abs(scale) else value
