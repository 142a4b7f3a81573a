"""Many small nests as one call: a block of threads does the work of all of them on one row of an axis.

A call of a small nest takes a GPU longer to start than to compute. Nests that treat the rows of an axis apart, such as
the tasks of a batch, need not wait for each other's rows: a block does its row of the first nest, waits for its own
threads, does its row of the next one, and so on.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from aidotnet_py.backends.cuda.launch import SHARED, Launch, function_text, unflattened
from aidotnet_py.backends.cuda.loops import ordered_by_stores, targets_of
from aidotnet_py.backends.cuda.products import as_sums, is_sum, whole_operand
from aidotnet_py.backends.cuda.reductions import Reduction, Row, groups_of
from aidotnet_py.backends.cuda.steps import TYPES, Element, Parameters, index_type
from aidotnet_py.backends.kernel import LoopNest, Operand, Product, collapsed, with_operands

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


@dataclass(frozen=True)
class _Access:
    """Where a nest reads or writes an argument: stride of rows, and the other axes' lengths and strides."""

    row: int
    others: tuple[tuple[int, int], ...]
    offset: int

    @property
    def low(self) -> int:
        return self.offset + sum(min(0, s * (n - 1)) for n, s in self.others)

    @property
    def high(self) -> int:
        return self.offset + sum(max(0, s * (n - 1)) for n, s in self.others)


def _are_apart(accesses: Iterable[_Access], length: int) -> bool:
    """Return whether no row of any access meets another row of any access, of which one may write.

    Either each row has memory of its own, of the length of the stride between rows; or rows are interlaced, and an
    address tells its row by its remainder.
    """
    accesses = list(accesses)
    strides = {a.row for a in accesses}
    if len(strides) != 1 or min(strides) < 1:
        return False
    (stride,) = strides
    if max(a.high for a in accesses) - min(a.low for a in accesses) < stride:
        return True
    period = stride * length
    return len({a.offset % period for a in accesses}) == 1 and all(
        s % period == 0 for a in accesses for _, s in a.others
    )


@dataclass
class Rows:
    """Items that run one after another on each of ``length`` rows, a block of threads for each row."""

    length: int
    items: list[Item] = field(default_factory=list[Item])
    _given: list[Item] = field(default_factory=list[Item])
    _accesses: dict[int, set[_Access]] = field(default_factory=dict[int, set[_Access]])
    _written: set[int] = field(default_factory=set[int])

    def add(self, nest: LoopNest | Product, cleared: frozenset[Operand]) -> bool:
        """Add an item; return False, and add nothing, if its rows are not apart or are too much work."""
        placed = None if len(self.items) == _MOST_ITEMS else self._with_rows_first(nest)
        if placed is None:
            return False
        found = self._accesses_of(placed)
        written = self._written | {o.argument for o in placed.written}
        together = {argument: self._accesses.get(argument, set()) | more for argument, more in found.items()}
        accesses = {**self._accesses, **together}
        if not all(_are_apart(accesses[argument], self.length) for argument in written):
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
        """Return the nest with the axis of rows first and few other axes; None if it has no such axis, or is large."""
        for axis in (i for i, n in enumerate(nest.shape) if n == self.length):
            if all(o.strides[axis] > 0 for o in nest.written):
                break
        else:
            return None
        order = [axis, *(i for i in range(len(nest.shape)) if i != axis)]

        def reorder(operand: Operand) -> Operand:
            return replace(operand, strides=tuple(operand.strides[i] for i in order))

        moved = replace(with_operands(nest, reorder), shape=tuple(nest.shape[i] for i in order))
        if isinstance(moved, Product):
            if is_sum(moved):
                return self._with_rows_first(as_sums(moved))
            return moved if moved.shape == (self.length,) and _Tile.fits(moved) else None
        moved = collapsed(moved, leading=1)
        few = math.prod(moved.shape[1:]) <= _MOST_ELEMENTS
        # Of a sum onto overlapping places, a row would have too few elements to gather.
        return moved if few and not any(group.is_gathered for group in groups_of(moved)) else None

    @staticmethod
    def _accesses_of(nest: LoopNest | Product) -> dict[int, set[_Access]]:
        found: defaultdict[int, set[_Access]] = defaultdict(set)
        for operand, shape in _whole_operands(nest):
            others = tuple(pair for pair in zip(shape[1:], operand.strides[1:], strict=True) if pair[0] > 1 and pair[1])
            found[operand.argument].add(_Access(operand.strides[0], others, operand.offset))
        return found

    def launch(self) -> Launch:
        """Return the call."""
        nests = [nest for nest, _ in self.items]
        operands = list(dict.fromkeys(o for nest in nests for o in nest.operands))
        written = list(dict.fromkeys(o for nest in nests for o in nest.written))
        parameters = Parameters(operands, written)
        reach = {index_type(shape, [o]) for nest in nests for o, shape in _whole_operands(nest)}
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


def _whole_operands(nest: LoopNest | Product) -> list[tuple[Operand, tuple[int, ...]]]:
    """Return the operands with the shape that their strides belong to; those of products with rows and columns."""
    if isinstance(nest, LoopNest):
        return [(o, nest.shape) for o in nest.operands]
    m, k, n = nest.sizes
    factors = ((nest.x, (m, k)), (nest.y, (k, n)), (nest.out, (m, n)))
    return [(whole_operand(factor), (*nest.shape, *sizes)) for factor, sizes in factors]


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
            self.row.parameters.place(whole_operand(factor), ["i0", i, j])
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
