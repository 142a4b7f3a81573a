"""Kernels: loop nests of elementwise work, and matrix products, in a form independent of the hardware.

A backend that can compile turns a `Kernel` into one call. Kernels of `numpy.llvm` compute the same bits as the
backend's single operations; `cuda.compiler` adds up in other orders.
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
    "is_small_product",
    "with_operands",
]

# The operations of steps on every backend. IEEE 754 defines their rounding, so all backends compute the same bits.
# "identity" copies, "convert" changes the dtype.
LOOP_OPERATIONS = frozenset(
    {
        *("abs", "add", "convert", "divide", "equal", "greater", "greater_equal", "identity", "less", "less_equal"),
        *("logical_and", "logical_not", "logical_or", "multiply", "negative", "not_equal", "relu", "sqrt", "subtract"),
        "where",
    }
)


@dataclass(frozen=True)
class LoopRules:
    """The operations that a compiler accepts as loops.

    Attributes
    ----------
    operations : frozenset of str
        The operations of its steps.
    any_sums : bool
        Whether sums and maxima may run over any axes; if not, only over axes whose loop adds terms row by row in the
        order of the backend's own sum.
    own_bits : bool
        Whether kernels round otherwise than single operations; if so, kernels are compiled before their first run.
    room : int
        Memory for windows of images, as a multiple of the caches of a processor's core.
    minimal_filtering : bool
        Whether convolutions may be computed by minimal filtering.
    small_products : bool
        Whether products by a small matrix have a function of their own, see `is_small_product`.
    apart : int
        Values of fewer bytes share memory with values of their own size alone. Work on one row of an axis then never
        meets work on another row in memory, and need not wait for it.
    apart_within : float
        Unless all values of a Program would then take more bytes than this.
    """

    operations: frozenset[str] = LOOP_OPERATIONS
    any_sums: bool = False
    own_bits: bool = False
    room: int = 1
    minimal_filtering: bool = True
    small_products: bool = False
    apart: int = 0
    apart_within: float = math.inf


@dataclass(frozen=True)
class Operand:
    """Elements of an argument: offset of the first, and stride along each axis of the nest, counted in elements."""

    argument: int
    dtype: str
    strides: tuple[int, ...]
    offset: int = 0


@dataclass(frozen=True)
class Number:
    """A constant of the nest."""

    value: float
    dtype: str


# An input of a step: an element in memory, a number, or the index of an earlier step.
Reference: TypeAlias = "Operand | Number | int"


@dataclass(frozen=True)
class Step:
    """One operation on one element; ``dtype`` is the dtype of its value."""

    operation: str
    inputs: tuple[Reference, ...]
    dtype: str


@dataclass(frozen=True)
class LoopNest:
    """Loops over ``shape``, in C order: at each index the steps, then stores, then updates of sums and maxima."""

    shape: tuple[int, ...]
    steps: tuple[Step, ...] = ()
    stores: tuple[tuple[Operand, Reference], ...] = ()
    sums: tuple[tuple[Operand, Reference], ...] = ()
    maxima: tuple[tuple[Operand, Reference], ...] = ()

    @property
    def operands(self) -> list[Operand]:
        """The operands that the nest reads or writes, without duplicates."""
        read = (r for step in self.steps for r in step.inputs)
        moved = (r for pair in (*self.stores, *self.sums, *self.maxima) for r in pair)
        return list(dict.fromkeys(r for r in (*read, *moved) if isinstance(r, Operand)))

    @property
    def written(self) -> list[Operand]:
        """The operands that the nest writes."""
        return [place for place, _ in (*self.stores, *self.sums, *self.maxima)]


@dataclass(frozen=True)
class Factor:
    """A matrix for each index of a product: the operand has the strides of the indices, then come rows and columns."""

    operand: Operand
    rows: int
    columns: int

    @property
    def whole(self) -> Operand:
        """The operand with the strides of rows and columns as its last two."""
        o = self.operand
        return Operand(o.argument, o.dtype, (*o.strides, self.rows, self.columns), o.offset)


@dataclass(frozen=True)
class Product:
    """Products ``out = x @ y``, one for each index of ``shape``, by the library of the backend's own products.

    ``sizes`` are the numbers of rows and columns of x, and of columns of y. A ``small`` product is computed by the
    backend's function for products by a small matrix.
    """

    shape: tuple[int, ...]
    sizes: tuple[int, int, int]
    x: Factor
    y: Factor
    out: Factor
    small: bool = False

    @property
    def operands(self) -> list[Operand]:
        """The operands of x, y and out."""
        return [self.x.operand, self.y.operand, self.out.operand]

    @property
    def written(self) -> list[Operand]:
        """The operand of out."""
        return [self.out.operand]


@dataclass(frozen=True)
class Kernel:
    """Nests and products that run in order on the same arguments.

    An argument that is written overlaps no other.
    """

    nests: tuple[LoopNest | Product, ...]
    arguments: int


def is_small_product(k: int, n: int) -> bool:
    """Return whether products by a matrix (k, n) are small: BLAS would spend much of its time on copies of the factors.

    Rows of the other factor do not matter, lest the bits of a row depend on the rows beside it.
    """
    return min(k, n) > 1 and (n <= _FEW_COLUMNS or k * n <= _FEW_ELEMENTS)


# Measured with OpenBLAS's kernels for AVX2, in `benchmarks/products.py`.
_FEW_COLUMNS, _FEW_ELEMENTS = 48, 2**12


def collapsed(nest: LoopNest, *, leading: int = 0) -> LoopNest:
    """Merge the axes of a nest into as few as possible, at least one; so many leading axes stay as they are."""
    kept = [i for i, n in enumerate(nest.shape) if i < leading or n != 1]
    operands = nest.operands
    groups: list[list[int]] = []
    for axis in kept:
        length = nest.shape[axis]
        if len(groups) > leading and all(o.strides[groups[-1][-1]] == o.strides[axis] * length for o in operands):
            groups[-1].append(axis)
        else:
            groups.append([axis])
    shape = tuple(math.prod(nest.shape[i] for i in group) for group in groups) or (1,)

    def merge_axes(reference: Reference) -> Reference:
        if not isinstance(reference, Operand):
            return reference
        strides = tuple(reference.strides[group[-1]] for group in groups) or (0,)
        return Operand(reference.argument, reference.dtype, strides, reference.offset)

    return _map_references(nest, shape, merge_axes)


def with_operands(nest: LoopNest | Product, change: Callable[[Operand], Operand]) -> LoopNest | Product:
    """Replace each operand of a nest or product by ``change`` of it."""
    if isinstance(nest, Product):
        x, y, out = (replace(factor, operand=change(factor.operand)) for factor in (nest.x, nest.y, nest.out))
        return replace(nest, x=x, y=y, out=out)
    return _map_references(nest, nest.shape, lambda r: change(r) if isinstance(r, Operand) else r)


def _map_references(nest: LoopNest, shape: tuple[int, ...], change: Callable[[Reference], Reference]) -> LoopNest:
    def pairs(of: Iterable[tuple[Operand, Reference]]) -> tuple[tuple[Operand, Reference], ...]:
        return tuple((change(place), change(value)) for place, value in of)  # type: ignore[misc]  # operands stay operands

    steps = tuple(Step(s.operation, tuple(map(change, s.inputs)), s.dtype) for s in nest.steps)
    return LoopNest(shape, steps, pairs(nest.stores), pairs(nest.sums), pairs(nest.maxima))
