"""Many small nests as one call: a block of threads does the work of all of them on one row of an axis.

A call of a small nest takes a GPU longer to start than to compute. Nests that treat the rows of an axis apart, such as
the tasks of a batch, need not wait for each other's rows: a block does its row of the first nest, waits for its own
threads, does its row of the next one, and so on.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from aidotnet_py.backends.cuda.launch import SHARED, Launch, function_text, unflattened
from aidotnet_py.backends.cuda.loops import ordered_by_stores, targets_of
from aidotnet_py.backends.cuda.products import as_sums, is_sum
from aidotnet_py.backends.cuda.reductions import Reduction, Row, groups_of
from aidotnet_py.backends.cuda.steps import TYPES, Element, Parameters, index_type
from aidotnet_py.backends.kernel import LoopNest, Operand, Product
from aidotnet_py.backends.rows import Access, accesses_of, are_apart, rows_first, whole_operands

__all__ = ["Rows", "runs_of_rows"]

# More work on a row takes one block longer than several calls take many blocks.
_MOST_ELEMENTS, _MOST_MULTIPLICATIONS = 2**13, 2**17
_MOST_ROWS, _MOST_ITEMS = 2**16, 64
_LEAST_THREADS, _MOST_THREADS = 64, 512
# Results that a thread keeps in registers.
_MOST_RESULTS = 16

# A nest, and the targets of its sums and maxima whose old values are ignored.
Item: TypeAlias = tuple[LoopNest | Product, frozenset[Operand]]


def runs_of_rows(items: Sequence[Item]) -> Iterator[Item | Rows]:
    """Yield the items, with each run of at least two items that treat rows apart as one `Rows`.

    They keep their order, except that items which have nothing to do with a run go before it.
    """
    lengths = Counter(n for nest, _ in items for n in dict.fromkeys(nest.shape) if 1 < n <= _MOST_ROWS)
    if not lengths:
        yield from items
        return
    ((length, _),) = lengths.most_common(1)
    run = Rows(length)
    for item in items:
        if run.add(*item):
            continue
        if run.commutes_with(item[0]):
            yield item
            continue
        yield from run.calls()
        run = Rows(length)
        if not run.add(*item):
            yield item
    yield from run.calls()


@dataclass
class Rows:
    """Items that run one after another on each of ``length`` rows, a block of threads for each row."""

    length: int
    items: list[Item] = field(default_factory=list[Item])
    _given: list[Item] = field(default_factory=list[Item])
    _accesses: dict[int, set[Access]] = field(default_factory=dict[int, set[Access]])
    _written: set[int] = field(default_factory=set[int])

    def add(self, nest: LoopNest | Product, cleared: frozenset[Operand]) -> bool:
        """Add an item; return False, and add nothing, if its rows are not apart or are too much work."""
        placed = None if len(self.items) == _MOST_ITEMS else self._with_rows_first(nest)
        if placed is None:
            return False
        found = accesses_of(placed)
        written = self._written | {o.argument for o in placed.written}
        together = {argument: self._accesses.get(argument, set()) | more for argument, more in found.items()}
        accesses = {**self._accesses, **together}
        if not all(are_apart(accesses[argument], self.length) for argument in written):
            return False
        self._accesses, self._written = accesses, written
        self._given.append((nest, cleared))
        if isinstance(placed, LoopNest):
            # A product that became a sum has no old values to add to.
            ignored = [isinstance(nest, Product) or place in cleared for place in _targets(nest)]
            cleared = frozenset(place for place, skip in zip(targets_of(placed), ignored, strict=True) if skip)
        self.items.append((placed, cleared))
        return True

    def commutes_with(self, nest: LoopNest | Product) -> bool:
        """Return whether the items neither write what a nest reads nor read or write what it writes."""
        read_or_written, written = ({o.argument for o in of} for of in (nest.operands, nest.written))
        return not (self._written & read_or_written or written & self._accesses.keys())

    def calls(self) -> list[Item | Rows]:
        """Return what runs: nothing, the only item as it was given, or all items as one call."""
        return [self] if len(self.items) > 1 else [*self._given]

    def _with_rows_first(self, nest: LoopNest | Product) -> LoopNest | Product | None:
        """Return the nest with the axis of rows first and few other axes; None if it has no such axis, or is large.

        None, too, for a nest without elements or terms, which needs no call or a call that fills with zeros.
        """
        if 0 in (*nest.shape, *(nest.sizes if isinstance(nest, Product) else ())):
            return None
        moved = rows_first(nest, self.length)
        if isinstance(moved, Product):
            if is_sum(moved):
                return self._with_rows_first(as_sums(moved))
            return moved if moved.shape == (self.length,) and _Tile.fits(moved) else None
        few = moved is not None and math.prod(moved.shape[1:]) <= _MOST_ELEMENTS
        # Of a sum onto overlapping places, a row would have too few elements to gather.
        return moved if moved and few and not any(group.is_gathered for group in groups_of(moved)) else None

    def launch(self) -> Launch:
        """Return the call."""
        nests = [nest for nest, _ in self.items]
        operands = list(dict.fromkeys(o for nest in nests for o in nest.operands))
        written = list(dict.fromkeys(o for nest in nests for o in nest.written))
        parameters = Parameters(operands, written)
        reach = {index_type(shape, [o]) for nest in nests for o, shape in whole_operands(nest)}
        index = "int" if reach == {"int"} else "long long"
        work = max(_threads_for(nest) for nest in nests)
        row = Row(parameters, min(max(work, _LEAST_THREADS), _MOST_THREADS))
        body = ["const I i0 = blockIdx.x;"]
        shared = 0
        for number, (nest, cleared) in enumerate(self.items):
            lines, bytes_shared = _body(nest, cleared, row)
            shared = max(shared, bytes_shared)
            body += ["__syncthreads();"] * bool(number) + ["{", *(f"  {line}" for line in lines), "}"]
        if shared:
            body.insert(0, f"__shared__ double shared[{-(-shared // 8)}];")
        code = function_text("", parameters, index, body, row.threads)
        return Launch(code, "", self.length, row.threads, parameters.arguments)


def _targets(nest: LoopNest | Product) -> list[Operand]:
    return nest.written if isinstance(nest, Product) else targets_of(nest)


def _threads_for(nest: LoopNest | Product) -> int:
    """Return how many threads a row can use, a power of two."""
    count = nest.sizes[0] * nest.sizes[2] if isinstance(nest, Product) else math.prod(nest.shape[1:])
    return 1 << max(count - 1, 0).bit_length()


def _body(nest: LoopNest | Product, cleared: frozenset[Operand], row: Row) -> tuple[list[str], int]:
    """Return the lines of a nest, and the bytes of shared memory that they use."""
    if isinstance(nest, Product):
        tile = _Tile(nest, row)
        return tile.lines(), tile.nbytes
    lines: list[str] = []
    shared = 0
    was_cleared = {place: place in cleared for place in targets_of(nest)}
    groups = groups_of(nest)
    for number, group in enumerate(groups):
        # Stores may overwrite inputs: the last reduction carries them.
        part = nest if number == len(groups) - 1 else replace(nest, stores=())
        lines += ["__syncthreads();"] * bool(number) + Reduction(part, group, was_cleared, row).in_row()
        shared = max(shared, 8 * row.threads * len(group.targets))
    return (lines, shared) if groups else (_elementwise(nest, row), 0)


def _elementwise(nest: LoopNest, row: Row) -> list[str]:
    nest = ordered_by_stores(nest, leading=1)
    axes = range(1, len(nest.shape))
    flat = unflattened("t", axes, nest.shape) if axes else {}
    indices = [f"i{axis}" for axis in range(len(nest.shape))]
    element = Element(nest, row.parameters, indices)
    values = element.values([value for _, value in nest.stores])
    places = [row.parameters.place(place, indices) for place, _ in nest.stores]
    return [
        f"for (U t = threadIdx.x; t < {math.prod(nest.shape[1:])}u; t += {row.threads}u) {{",
        *(f"  const I i{axis} = {flat[axis]};" for axis in axes),
        *(f"  {line}" for line in element.lines),
        *(f"  {place} = {value};" for place, value in zip(places, values, strict=True)),
        "}",
    ]


class _Tile:
    """A product of two small matrices: both in shared memory, a few rows of one column of the result for each thread.

    An element is a sum in the order of its terms, by fused multiply-add.
    """

    def __init__(self, product: Product, row: Row) -> None:
        self.product = product
        self.row = row
        m, _, n = product.sizes
        self.depth = self._depth_of(product)
        # The rows of the result for each thread, so that a value of y serves several of them.
        self.high = 1
        while self.high < 4 and m * n >= 2 * self.high * row.threads:
            self.high *= 2
        self.down = -(-m // self.high)
        self.rounds = -(-self.down * n // row.threads)

    @staticmethod
    def _depth_of(product: Product) -> int:
        """Return how many terms fit into shared memory."""
        m, k, n = product.sizes
        size = np.dtype(product.out.operand.dtype).itemsize
        return min(k, SHARED // (size * ((m | 1) + (n | 1))))

    @classmethod
    def fits(cls, product: Product) -> bool:
        """Return whether a block can compute the product of a row."""
        m, k, n = product.sizes
        results = m * n <= _MOST_RESULTS * _MOST_THREADS // 2
        return results and m * k * n <= _MOST_MULTIPLICATIONS and cls._depth_of(product) >= min(k, 8) > 0

    @property
    def nbytes(self) -> int:
        """Bytes of shared memory."""
        m, _, n = self.product.sizes
        size = np.dtype(self.product.out.operand.dtype).itemsize
        return size * self.depth * ((m | 1) + (n | 1))

    def lines(self) -> list[str]:
        """Return the lines of the block."""
        m, k, n = self.product.sizes
        kind = TYPES[self.product.out.operand.dtype]
        x, y, out = (
            self.row.parameters.place(factor.whole, ["i0", i, j])
            for factor, (i, j) in (
                (self.product.x, ("l", "k")),
                (self.product.y, ("k", "l")),
                (self.product.out, ("i", "j")),
            )
        )
        wide = {"x": m | 1, "y": n | 1}
        each = [
            f"for (unsigned e = 0; e < {self.rounds}u; ++e) {{",
            f"  const unsigned p = e * {self.row.threads}u + threadIdx.x, r = p / {n}u, j = p % {n}u;",
        ]
        return [
            f"{kind} *xs = ({kind} *)shared, *ys = xs + {self.depth * wide['x']};",
            f"{kind} sums[{self.rounds}][{self.high}] = {{}};",
            f"for (I base = 0; base < {k}; base += {self.depth}) {{",
            f"  const I deep = {self.depth} < {k} - base ? {self.depth} : {k} - base;" if k % self.depth else "",
            *self._load("xs", x, m, wide["x"], by_terms=self.product.x.columns == 1),
            *self._load("ys", y, n, wide["y"], by_terms=self.product.y.rows == 1),
            "  __syncthreads();",
            "  #pragma unroll",
            *(f"  {line}" for line in each),
            f"    if (r < {self.down}u) {{",
            "      #pragma unroll 8",
            f"      for (I t = 0; t < {'deep' if k % self.depth else self.depth}; ++t) {{",
            f"        const {kind} v = ys[t * {wide['y']} + j];",
            "        #pragma unroll",
            f"        for (unsigned a = 0; a < {self.high}u; ++a) {{",
            f"          const unsigned i = r + a * {self.down}u;",
            f"          sums[e][a] = fma(xs[t * {wide['x']} + (i < {m}u ? i : 0u)], v, sums[e][a]);",
            "        }",
            "      }",
            "    }",
            "  }",
            "  __syncthreads();" if k > self.depth else "",
            "}",
            "#pragma unroll",
            *each,
            "  #pragma unroll",
            f"  for (unsigned a = 0; a < {self.high}u; ++a) {{",
            f"    const unsigned i = r + a * {self.down}u;",
            f"    if (r < {self.down}u && i < {m}u) {out} = sums[e][a];",
            "  }",
            "}",
        ]

    def _load(self, into: str, source: str, length: int, wide: int, *, by_terms: bool) -> list[str]:
        """Load terms of a factor into shared memory, neighbours by neighbours."""
        deep = "deep" if self.product.sizes[1] % self.depth else str(self.depth)
        term, place = (f"e % {deep}", f"e / {deep}") if by_terms else (f"e / {length}", f"e % {length}")
        return [
            f"  for (I e = threadIdx.x; e < {deep} * {length}; e += {self.row.threads}) {{",
            f"    const I t = {term}, l = {place}, k = base + t;",
            f"    {into}[t * {wide} + l] = {source};",
            "  }",
        ]
