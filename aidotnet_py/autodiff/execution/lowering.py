"""Planned calls as loop nests over their arrays."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, Protocol

import numpy as np

from aidotnet_py.autodiff.execution.fusion import REDUCTIONS, Shape
from aidotnet_py.autodiff.execution.planner import Cell, Storage, Work
from aidotnet_py.autodiff.primitives.transformed_windows import Matrix, combinations, covers, transposed, window_places
from aidotnet_py.autodiff.strides import c_strides, is_contiguous, is_in_c_order, refined_strides
from aidotnet_py.backends import Array, Backend, KernelCompiler
from aidotnet_py.backends.kernel import (
    Factor,
    Kernel,
    LoopNest,
    Number,
    Operand,
    Product,
    Reference,
    Step,
    is_small_product,
    with_operands,
)

__all__ = ["KernelBuilder"]

_DTYPES = ("float32", "float64", "bool")
# NumPy splits a longer row in two and sums each half.
_LONGEST_ROW = 128


class Arrays(Protocol):
    """The arrays of planned cells."""

    def of(self, operand: Cell, /) -> Array:
        """Return the array of a cell."""
        ...

    def region_of(self, cell: Cell) -> Array:
        """Return the array of all the memory that a cell may share with other cells."""
        ...


class KernelBuilder:
    """A kernel under construction.

    Parameters
    ----------
    backend, compiler : Backend, KernelCompiler
        The backend of the arrays, and its compiler.
    arrays : Arrays
        The arrays of the plan's cells.
    """

    def __init__(self, backend: Backend, compiler: KernelCompiler, arrays: Arrays) -> None:
        self._backend = backend
        self._compiler = compiler
        self._arrays = arrays
        self._nests: list[LoopNest | Product] = []
        self._arguments: dict[int, int] = {}

    def add(self, calls: Sequence[Work]) -> bool:
        """Add the nests of a unit's calls; return False, and add nothing, if the calls are not loops."""
        cells = [c for call in calls for c in (call.out, *call.operands)]
        if any(c.type.dtype_name not in _DTYPES for c in cells):
            return False
        if calls[0].primitive is not None and calls[0].primitive.name == "matmul":
            return calls[0].out.type.is_floating and self._add_product(calls[0])
        if calls[0].unit.shape is not None and calls[0].primitive is not None:
            nests = self._fuse(calls, calls[0].unit.shape)
        else:
            parts = [self._nests_of(call) for call in calls]
            nests = [nest for part in parts for nest in part] if all(parts) else []
        self._nests += nests
        return bool(nests)

    def _add_product(self, call: Work) -> bool:
        """Add a matrix product; return False if the compiler cannot give the bits of the backend's product."""
        x, y = call.operands
        if not isinstance(x, Cell) or not isinstance(y, Cell):
            return False
        *lead, m, k = x.type.shape
        if k == 1:
            self._nests.append(self._outer_product(x, y, call.out))
            return True
        n = y.type.shape[-1]
        small = self._compiler.rules.small_products and is_small_product(k, n)
        left, right, out = map(self._factor, (x, y, call.out))
        product = Product(tuple(lead) or (1,), (m, k, n), left, right, out, small)
        if not self._compiler.can_multiply(product):
            return False
        self._nests.append(product)
        return True

    def _factor(self, cell: Cell) -> Factor:
        *lead, rows, columns = self._backend.strides_of(self._arrays.of(cell))
        return Factor(self._operand(cell, tuple(lead) or (0,)), rows, columns)

    def _outer_product(self, x: Cell, y: Cell, out: Cell) -> LoopNest:
        """Return the nest of a product with one term: a column times a row, added to zero."""
        strides = self._backend.strides_of
        *x_lead, x_rows, _ = strides(self._arrays.of(x))
        *y_lead, _, y_columns = strides(self._arrays.of(y))
        left, right = self._operand(x, (*x_lead, x_rows, 0)), self._operand(y, (*y_lead, 0, y_columns))
        dtype = out.type.dtype_name
        steps = (Step("multiply", (left, right), dtype), Step("add", (0, Number(0.0, dtype)), dtype))
        return LoopNest(out.type.shape, steps, ((self._operand(out), 1),))

    def kernel(self) -> tuple[Kernel, list[int]] | None:
        """Return the kernel of all nests added so far, and the addresses of its arguments; None without nests."""
        if not self._nests:
            return None
        starts = list(self._arguments)
        written = {operand.argument for nest in self._nests for operand in nest.written}
        places: defaultdict[int, set[int]] = defaultdict(set)
        for operand in (o for nest in self._nests for o in nest.operands):
            places[operand.argument].add(operand.offset)
        addresses: dict[int, int] = {}

        def rebased(nest: LoopNest | Product) -> LoopNest | Product:
            """Count operands from a start of their own, so that equal work at several addresses is one kernel."""
            firsts: dict[tuple[Any, ...], int] = {}
            for o in nest.operands:
                alike = o.argument, o.dtype, o.strides
                firsts[alike] = min(o.offset, firsts.get(alike, o.offset))

            def rebase(o: Operand) -> Operand:
                # Memory that is written stays one argument: arguments never overlap.
                is_written = o.argument in written
                first = min(places[o.argument]) if is_written else firsts[o.argument, o.dtype, o.strides]
                start = starts[o.argument] + first * np.dtype(o.dtype).itemsize
                return Operand(addresses.setdefault(start, len(addresses)), o.dtype, o.strides, o.offset - first)

            return with_operands(nest, rebase)

        nests = tuple(map(rebased, self._nests))
        return Kernel(nests, len(addresses)), list(addresses)

    def _operand(self, cell: Cell, strides: Shape | None = None, offset: int = 0) -> Operand:
        return self._operands(cell, (offset,), strides)[0]

    def _operands(self, cell: Cell, offsets: Sequence[int], strides: Shape | None = None) -> list[Operand]:
        """Return the operands that begin so many elements after the first of a cell."""
        array = self._arrays.of(cell)
        # Cells that share memory get one argument, since the compiler assumes that arguments never overlap.
        start = self._compiler.address_of(self._arrays.region_of(cell))
        argument = self._arguments.setdefault(start, len(self._arguments))
        first = (self._compiler.address_of(array) - start) // cell.type.dtype.itemsize
        strides = self._backend.strides_of(array) if strides is None else strides
        return [Operand(argument, cell.type.dtype_name, strides, first + offset) for offset in offsets]

    def _fuse(self, calls: Sequence[Work], shape: Shape) -> list[LoopNest]:
        """Return a nest that clears each reduction's output, then one nest for all calls."""
        sums = [c for c in calls if c.primitive is not None and c.primitive.loop in REDUCTIONS]
        if not self._compiler.rules.any_sums and not all(map(_by_rows, sums)):
            return []
        nest = _Nest(shape, self._operand)
        for call in calls:
            nest.add(call)
        return [*nest.clears, nest.build()]

    def _nests_of(self, call: Work) -> list[LoopNest]:
        """Return the nests of a call that moves elements, or that adds elements which move to one place."""
        if call.primitive is None:
            return [self._copy(call)]
        rules = {
            "concatenate": self._concatenate,
            "fold": self._fold,
            "full": self._full,
            "pad": self._pad,
            "patches": self._patches,
            "sum": self._row_sums,
            "transformed_fold": self._transformed_fold,
            "transformed_patches": self._transformed_patches,
        }
        rule = rules.get(call.primitive.name)
        return [] if rule is None else rule(call)

    def _copy(self, call: Work) -> LoopNest:
        (source,) = call.operands
        value = self._operand(source) if isinstance(source, Cell) else Number(source.value, source.type.dtype_name)
        return _store(call.out.type.shape, self._operand(call.out), value)

    def _fill(self, cell: Cell, value: float) -> LoopNest:
        return _store(cell.type.shape, self._operand(cell), Number(value, cell.type.dtype_name))

    def _full(self, call: Work) -> list[LoopNest]:
        return [self._fill(call.out, call.parameters["value"])]

    def _pad(self, call: Work) -> list[LoopNest]:
        (source,) = call.operands
        assert isinstance(source, Cell)
        margins = call.parameters["margins"]
        steps = self._backend.strides_of(self._arrays.of(call.out))
        inner = tuple(s * (gap + 1) for s, (_, _, gap) in zip(steps, margins, strict=True))
        offset = sum(s * before for s, (before, _, _) in zip(steps, margins, strict=True))
        place = self._operand(call.out, inner, offset)
        return [
            self._fill(call.out, call.parameters["value"]),
            _store(source.type.shape, place, self._operand(source)),
        ]

    def _concatenate(self, call: Work) -> list[LoopNest]:
        steps = self._backend.strides_of(self._arrays.of(call.out))
        axis: int = call.parameters["axis"]
        start = 0
        nests: list[LoopNest] = []
        for source in call.operands:
            value = self._operand(source) if isinstance(source, Cell) else Number(source.value, source.type.dtype_name)
            nests.append(_store(source.type.shape, self._operand(call.out, steps, start * steps[axis]), value))
            start += source.type.shape[axis]
        return nests

    def _patches(self, call: Work) -> list[LoopNest]:
        (source,) = call.operands
        assert isinstance(source, Cell)
        n, h, w, c = self._backend.strides_of(self._arrays.of(source))
        down, right = call.parameters["stride"]
        windows = self._operand(source, (n, h * down, w * right, h, w, c))
        return [_store(call.out.type.shape, self._operand(call.out), windows)]

    def _row_sums(self, call: Work) -> list[LoopNest]:
        """Return the nest of short sums of contiguous elements, in NumPy's pairwise order; none for other sums."""
        (source,) = call.operands
        assert isinstance(source, Cell)
        terms = _terms_in_a_row(source, call.parameters["axes"])
        if not 0 < terms <= _LONGEST_ROW or source.type.dtype.kind != "f":
            return []
        shape, dtype = call.out.type.shape, source.type.dtype_name
        rows = tuple(s * terms for s in c_strides(shape))
        steps: list[Step] = []

        def add(a: Reference, b: Reference) -> int:
            steps.append(Step("add", (a, b), dtype))
            return len(steps) - 1

        total = _by_pairs([self._operand(source, rows, i) for i in range(terms)], add)
        total = add(Number(0.0, dtype), total)
        return [LoopNest(shape, tuple(steps), ((self._operand(call.out), total),))]

    def _fold(self, call: Work) -> list[LoopNest]:
        """Return the nests of a fold.

        Windows go from last to first, so that a pixel adds its terms in the order of their places in a window.
        """
        (source,) = call.operands
        assert isinstance(source, Cell)
        shape = source.type.shape
        down, right = call.parameters["stride"]
        n, h, w, c = self._backend.strides_of(self._arrays.of(call.out))
        last = (shape[1] - 1) * h * down + (shape[2] - 1) * w * right
        place = self._operand(call.out, (n, -h * down, -w * right, h, w, c), last)
        steps = self._backend.strides_of(self._arrays.of(source))
        backwards = (shape[1] - 1) * steps[1] + (shape[2] - 1) * steps[2]
        terms = self._operand(source, (steps[0], -steps[1], -steps[2], *steps[3:]), backwards)
        return [self._fill(call.out, 0.0), LoopNest(shape, sums=((place, terms),))]

    def _transformed_patches(self, call: Work) -> list[LoopNest]:
        (source,) = call.operands
        assert isinstance(source, Cell)
        matrix: Matrix = call.parameters["matrix"]
        values, steps = _transformed(
            matrix, self._pixels(source, call, range(len(matrix[0]))), call.out.type.dtype_name
        )
        places = self._places(call.out, len(matrix))
        stores = tuple(pair for row in zip(places, values, strict=True) for pair in zip(*row, strict=True))
        *before, _, _, n, rows, columns, channels = call.out.type.shape
        return [LoopNest((*before, n, rows, columns, channels), steps, stores)]

    def _transformed_fold(self, call: Work) -> list[LoopNest]:
        (source,) = call.operands
        assert isinstance(source, Cell)
        matrix: Matrix = call.parameters["matrix"]
        stride: int = call.parameters["stride"]
        values, steps = _transformed(transposed(matrix), self._places(source, len(matrix)), call.out.type.dtype_name)
        order = window_places(len(matrix[0]), stride)
        pixels = self._pixels(call.out, call, order)
        updates = tuple((pixels[i][j], values[a][b]) for i, a in enumerate(order) for j, b in enumerate(order))
        *before, _, _, n, rows, columns, channels = source.type.shape
        shape = (*before, n, rows, columns, channels)
        if covers(len(matrix[0]), stride, (rows, columns), call.parameters["image"]):
            return [LoopNest(shape, steps, stores=updates)]
        return [self._fill(call.out, 0.0), LoopNest(shape, steps, sums=updates)]

    def _pixels(self, images: Cell, call: Work, places: Sequence[int]) -> list[list[Operand]]:
        """Return the operands of the pixels that all windows of images have at these places, along both axes."""
        *lead, n, h, w, c = self._backend.strides_of(self._arrays.of(images))
        stride: int = call.parameters["stride"]
        offsets = [a * h + b * w for a in places for b in places]
        return _square(self._operands(images, offsets, (*lead, n, h * stride, w * stride, c)))

    def _places(self, tiles: Cell, k: int) -> list[list[Operand]]:
        """Return the operands of the k × k matrices of transformed windows."""
        *lead, i_step, j_step, n, rows, columns, c = self._backend.strides_of(self._arrays.of(tiles))
        offsets = [i * i_step + j * j_step for i in range(k) for j in range(k)]
        return _square(self._operands(tiles, offsets, (*lead, n, rows, columns, c)))


def _square(items: list[Operand]) -> list[list[Operand]]:
    side = math.isqrt(len(items))
    return [items[i : i + side] for i in range(0, len(items), side)]


def _transformed(
    matrix: Matrix, window: Sequence[Sequence[Reference]], dtype: str
) -> tuple[list[list[Reference]], tuple[Step, ...]]:
    """Return m·d·mᵀ for a window d, its rows first, and the steps to it."""
    steps: list[Step] = []

    def operation(name: str, *inputs: Reference | float, out: None) -> int:
        references = tuple(Number(x, dtype) if isinstance(x, float) else x for x in inputs)
        steps.append(Step(name, references, dtype))
        return len(steps) - 1

    by_rows = [combinations(matrix, column, operation) for column in zip(*window, strict=True)]
    return [combinations(matrix, row, operation) for row in zip(*by_rows, strict=True)], tuple(steps)


def _store(shape: Shape, place: Operand, value: Operand | Number) -> LoopNest:
    return LoopNest(shape, (Step("identity", (value,), value.dtype),), ((place, 0),))


def _terms_in_a_row(source: Cell, axes: Sequence[int]) -> int:
    """Return the number of terms of each sum over these axes; 0 if the terms are not contiguous."""
    shape = source.type.shape
    long = [i for i, n in enumerate(shape) if n != 1]
    summed = [i for i in long if i in axes]
    last = summed == long[len(long) - len(summed) :]
    return math.prod(shape[i] for i in summed) if last and is_contiguous(shape, source.strides) else 0


def _by_pairs(terms: Sequence[Reference], add: Callable[[Reference, Reference], int]) -> Reference:
    """Return the sum in NumPy's order for a short row: eight partial sums, then their sum by pairs."""
    whole = len(terms) - len(terms) % 8
    if whole == 0:
        return reduce(add, terms)
    sums: list[Reference] = list(terms[:8])
    for i in range(8, whole):
        sums[i % 8] = add(sums[i % 8], terms[i])
    while len(sums) > 1:
        sums = [add(*pair) for pair in zip(sums[::2], sums[1::2], strict=True)]
    return reduce(add, terms[whole:], sums[0])


def _by_rows(call: Work) -> bool:
    (source,) = call.operands
    return isinstance(source, Cell) and is_in_c_order(source.type.shape, source.strides)


class _Nest:
    """The nest of a fused unit under construction."""

    def __init__(self, shape: Shape, operand: Callable[..., Operand]) -> None:
        self._shape = shape
        self._operand = operand
        self._made: dict[Storage, int] = {}
        self.steps: list[Step] = []
        self.stores: list[tuple[Operand, Reference]] = []
        self.reductions: dict[str, list[tuple[Operand, Reference]]] = {name: [] for name in REDUCTIONS}
        self.clears: list[LoopNest] = []

    def build(self) -> LoopNest:
        """Return the nest of all calls added so far."""
        sums, maxima = (tuple(self.reductions[name]) for name in REDUCTIONS)
        return LoopNest(self._shape, tuple(self.steps), tuple(self.stores), sums, maxima)

    def add(self, call: Work) -> None:
        """Add a call."""
        assert call.primitive is not None
        assert call.primitive.loop is not None
        inputs = tuple(map(self._read, call.operands))
        if call.primitive.loop in self.reductions:
            self._reduce(call, call.primitive.loop, inputs[0])
            return
        self._made[call.out.storage] = len(self.steps)
        self.steps.append(Step(call.primitive.loop, inputs, call.out.type.dtype_name))
        if not call.out.storage.internal:
            self.stores.append((self._refine(call.out), len(self.steps) - 1))

    def _read(self, operand: Any) -> Reference:
        if not isinstance(operand, Cell):
            return Number(operand.value, operand.type.dtype_name)
        made = self._made.get(operand.storage)
        return self._refine(operand) if made is None else made

    def _refine(self, cell: Cell) -> Operand:
        return self._operand(cell, refined_strides(cell.type.shape, cell.strides, self._shape))

    def _reduce(self, call: Work, name: str, term: Reference) -> None:
        (source,) = call.operands
        axes = call.parameters["axes"]
        kept = iter(call.out.strides)
        strides = tuple(0 if i in axes else next(kept) for i in range(len(source.type.shape)))
        place = self._operand(call.out, refined_strides(source.type.shape, strides, self._shape))
        self.reductions[name].append((place, term))
        start = Number(0.0 if name == "sum" else -math.inf, call.out.type.dtype_name)
        clear = self._operand(call.out, call.out.strides)
        self.clears.append(_store(call.out.type.shape, clear, start))
