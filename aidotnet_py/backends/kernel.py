"""Kernels: loop nests of elementwise work, and matrix products, described without saying what will run them.

A backend that can compile turns a `Kernel` into one call; see `numpy.llvm`, where what a kernel computes is, bit for
bit, what the backend's own operations compute one after another, and `cuda.compiler`, where sums have other orders.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

__all__ = [
    "LOOP_OPERATIONS",
    "Factor",
    "Kernel",
    "LoopNest",
    "LoopRules",
    "Number",
    "Operand",
    "Product",
    "Reference",
    "Step",
    "collapsed",
    "with_operands",
]

# What a step may do anywhere. All are rounded as IEEE 754 says, so that whoever computes them gets the same bits.
# "identity" copies, "convert" goes from one dtype to another.
LOOP_OPERATIONS = frozenset(
    {
        *("abs", "add", "convert", "divide", "equal", "greater", "greater_equal", "identity", "less", "less_equal"),
        *("logical_and", "logical_not", "logical_or", "multiply", "negative", "not_equal", "relu", "sqrt", "subtract"),
        "where",
    }
)


@dataclass(frozen=True)
class LoopRules:
    """What a compiler wants to have as loops.

    Attributes
    ----------
    operations : frozenset of str
        What a step may do.
    any_sums : bool
        Whether sums and maxima may run over any axes; or else only where a loop takes its terms, row by row, in the
        order of the backend's own sum.
    own_bits : bool
        Whether kernels round otherwise than operations one by one, so that what may be compiled is compiled before it
        runs for the first time.
    room : int
        For how many times as many windows of images there is room as in the caches of a processor's core.
    """

    operations: frozenset[str] = LOOP_OPERATIONS
    any_sums: bool = False
    own_bits: bool = False
    room: int = 1


@dataclass(frozen=True)
class Operand:
    """Elements of an argument: where the first is, and the step along each axis of the nest, counted in elements."""

    argument: int
    dtype: str
    strides: tuple[int, ...]
    offset: int = 0


@dataclass(frozen=True)
class Number:
    """A number written into the nest."""

    value: float
    dtype: str


# What a step reads: an element in memory, a number, or the value of an earlier step by its place.
Reference: TypeAlias = "Operand | Number | int"


@dataclass(frozen=True)
class Step:
    """One operation on one element; ``dtype`` is that of its value."""

    operation: str
    inputs: tuple[Reference, ...]
    dtype: str


@dataclass(frozen=True)
class LoopNest:
    """For each index of ``shape``, in C order: the steps; then the stores; then sums and maxima with what is there."""

    shape: tuple[int, ...]
    steps: tuple[Step, ...] = ()
    stores: tuple[tuple[Operand, Reference], ...] = ()
    sums: tuple[tuple[Operand, Reference], ...] = ()
    maxima: tuple[tuple[Operand, Reference], ...] = ()

    @property
    def operands(self) -> list[Operand]:
        """All elements in memory that the nest reads or writes, each once."""
        read = (r for step in self.steps for r in step.inputs)
        moved = (r for pair in (*self.stores, *self.sums, *self.maxima) for r in pair)
        return list(dict.fromkeys(r for r in (*read, *moved) if isinstance(r, Operand)))

    @property
    def written(self) -> list[Operand]:
        """Those that the nest writes."""
        return [place for place, _ in (*self.stores, *self.sums, *self.maxima)]


@dataclass(frozen=True)
class Factor:
    """A matrix for each index of a product: strides over those indices, then of its rows and columns."""

    operand: Operand
    rows: int
    columns: int


@dataclass(frozen=True)
class Product:
    """``out = x @ y`` for each index of ``shape``, by the library that the backend's own products use.

    ``sizes`` are the rows and columns of x, and the columns of y.
    """

    shape: tuple[int, ...]
    sizes: tuple[int, int, int]
    x: Factor
    y: Factor
    out: Factor

    @property
    def operands(self) -> list[Operand]:
        """The three of them."""
        return [self.x.operand, self.y.operand, self.out.operand]

    @property
    def written(self) -> list[Operand]:
        """Those that the product writes."""
        return [self.out.operand]


@dataclass(frozen=True)
class Kernel:
    """Nests and products to run one after another on the same arguments.

    Two arguments never overlap, as long as one of them is written.
    """

    nests: tuple[LoopNest | Product, ...]
    arguments: int


def collapsed(nest: LoopNest) -> LoopNest:
    """The same nest with as few axes as possible, at least one."""
    kept = [i for i, n in enumerate(nest.shape) if n != 1]
    operands = nest.operands
    groups: list[list[int]] = []
    for axis in kept:
        if groups and all(o.strides[groups[-1][-1]] == o.strides[axis] * nest.shape[axis] for o in operands):
            groups[-1].append(axis)
        else:
            groups.append([axis])
    shape = tuple(math.prod(nest.shape[i] for i in group) for group in groups) or (1,)

    def fewer(reference: Reference) -> Reference:
        if not isinstance(reference, Operand):
            return reference
        strides = tuple(reference.strides[group[-1]] for group in groups) or (0,)
        return Operand(reference.argument, reference.dtype, strides, reference.offset)

    return _mapped(nest, shape, fewer)


def with_operands(nest: LoopNest | Product, change: Callable[[Operand], Operand]) -> LoopNest | Product:
    """The same on other operands."""
    if isinstance(nest, Product):
        factors = (replace(factor, operand=change(factor.operand)) for factor in (nest.x, nest.y, nest.out))
        return Product(nest.shape, nest.sizes, *factors)
    return _mapped(nest, nest.shape, lambda r: change(r) if isinstance(r, Operand) else r)


def _mapped(nest: LoopNest, shape: tuple[int, ...], change: Callable[[Reference], Reference]) -> LoopNest:
    def pairs(of: Iterable[tuple[Operand, Reference]]) -> tuple[tuple[Operand, Reference], ...]:
        return tuple((change(place), change(value)) for place, value in of)  # type: ignore[misc]  # operands stay operands

    steps = tuple(Step(s.operation, tuple(map(change, s.inputs)), s.dtype) for s in nest.steps)
    return LoopNest(shape, steps, pairs(nest.stores), pairs(nest.sums), pairs(nest.maxima))
