"""Matrix products in CUDA C++: by tiles in shared memory, or as plain sums of products if little can be shared.

An element of the result is a sum in the order of its terms, by fused multiply-add. Several groups of threads divide
long sums among them, and their partial sums are added in order. Only sizes decide the order, so bits repeat.
"""

from __future__ import annotations

import math

import numpy as np

from aidotnet_py.backends.cuda.launch import SHARED, Launch, function_text, unflattened
from aidotnet_py.backends.cuda.loops import loop_launches
from aidotnet_py.backends.cuda.steps import TYPES, Parameters, index_type
from aidotnet_py.backends.kernel import Factor, LoopNest, Number, Operand, Product, Step

__all__ = ["as_sums", "is_sum", "product_launches"]

# The side of the largest tile, and of the smallest one after division.
_TILE, _LEAST_TILE = 64, 16
# The fewest and the most terms of a group of threads in shared memory at a time.
_LEAST_DEPTH, _DEPTH = 16, 64
# The most groups of threads that divide the terms of a tile among them.
_GROUPS = 4
# With fewer blocks, some multiprocessors of a large GPU are idle.
_BLOCKS = 256
# Sums of fewer terms are too short for more blocks to pay.
_LONG = 128
# Results with so few elements, such as vectors, share few inputs.
_FEW = 16


def product_launches(product: Product) -> list[Launch]:
    """Translate a product into calls."""
    m, k, n = product.sizes
    if 0 in (*product.shape, m, n):
        return []
    if k == 0:
        return loop_launches(_zeros(product))
    if is_sum(product):
        nest = as_sums(product)
        return loop_launches(nest, cleared=frozenset(nest.written))
    return [_Tiles(product).launch()]


def is_sum(product: Product) -> bool:
    """Return whether a product has so few rows or columns that its elements are sums that share little."""
    m, k, n = product.sizes
    return k > 0 and (min(m, n) == 1 or m * n <= _FEW)


def as_sums(product: Product) -> LoopNest:
    """Return a loop nest with a sum for each element, whose old value is to be ignored."""
    m, k, n = product.sizes

    def operand(factor: Factor, rows: int | None, columns: int | None) -> Operand:
        steps = [0, 0, 0]
        for axis, step in ((rows, factor.rows), (columns, factor.columns)):
            if axis is not None:
                steps[axis] = step
        o = factor.operand
        return Operand(o.argument, o.dtype, (*o.strides, *steps), o.offset)

    # The last axes are rows, columns and terms.
    x, y, out = operand(product.x, 0, 2), operand(product.y, 2, 1), operand(product.out, 0, 1)
    return LoopNest((*product.shape, m, n, k), (Step("multiply", (x, y), out.dtype),), sums=((out, 0),))


def _zeros(product: Product) -> LoopNest:
    """Return the nest of a product without terms."""
    m, _, n = product.sizes
    target = product.out.whole
    zero = (Step("identity", (Number(0.0, target.dtype),), target.dtype),)
    return LoopNest((*product.shape, m, n), zero, ((target, 0),))


def _power_of_two(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


class _Tiles:
    """One block of threads for each tile of a result.

    If tiles are few and sums long, tiles are smaller, and several groups of threads divide the terms of a tile: each
    takes ranges of terms in turn, and the groups' sums are added in order. On an H200, sums of 14,700 terms for
    9 × 64 elements of 32 tasks take 0.2 ms with groups, 0.8 ms without, and 0.5 ms by cuBLAS
    (``python -m benchmarks.gpu_products omniglot-32``).
    """

    def __init__(self, product: Product) -> None:
        self.product = product
        m, k, n = product.sizes
        self.rows, self.columns = min(_TILE, _power_of_two(m)), min(_TILE, _power_of_two(n))
        while self._blocks() < _BLOCKS and k >= _LONG and max(self.rows, self.columns) > _LEAST_TILE:
            if self.rows >= self.columns:
                self.rows //= 2
            else:
                self.columns //= 2
        room = _power_of_two(_LEAST_DEPTH * 64 // (self.rows + self.columns))
        self.depth = min(max(_LEAST_DEPTH, room), _DEPTH, _power_of_two(k))
        # The rows and columns of the tile per thread.
        self.high = self.wide = 1
        while self.rows * self.columns > 256 * self.high * self.wide:
            if self.high <= self.wide:
                self.high *= 2
            else:
                self.wide *= 2
        self.members = self.rows * self.columns // (self.high * self.wide)
        self.groups = 1
        while self._blocks() < _BLOCKS and self._fits(2 * self.groups) and k > self.groups * self.depth:
            self.groups *= 2
        self.threads = self.members * self.groups

    def _blocks(self) -> int:
        m, _, n = self.product.sizes
        return math.prod(self.product.shape) * -(-m // self.rows) * -(-n // self.columns)

    def _fits(self, groups: int) -> bool:
        size = np.dtype(self.product.out.operand.dtype).itemsize
        sums = self.rows * self.columns if groups > 1 else 0
        values = groups * self.depth * (self.rows + self.columns + 2) + sums
        return values * size <= SHARED and groups <= _GROUPS and groups * self.members <= 1024

    def launch(self) -> Launch:
        """Return the call."""
        product = self.product
        m, _, n = product.sizes
        operands = [f.whole for f, _ in self._factors()]
        parameters = Parameters(product.operands, product.written)
        reach = [index_type((*product.shape, *s), [o]) for o, (_, s) in zip(operands, self._factors(), strict=True)]
        index = "int" if set(reach) == {"int"} else "long long"
        down, right = -(-m // self.rows), -(-n // self.columns)
        code = function_text("", parameters, index, self._body(parameters, down, right), self.threads)
        return Launch(code, "", self._blocks(), self.threads, parameters.arguments)

    def _factors(self) -> list[tuple[Factor, tuple[int, int]]]:
        m, k, n = self.product.sizes
        return [(self.product.x, (m, k)), (self.product.y, (k, n)), (self.product.out, (m, n))]

    def _body(self, parameters: Parameters, down: int, right: int) -> list[str]:
        m, k, n = self.product.sizes
        kind = TYPES[self.product.out.operand.dtype]
        lead = unflattened(f"blockIdx.x / {down * right}u", range(len(self.product.shape)), self.product.shape)
        batch = [f"b{axis}" for axis in range(len(self.product.shape))]
        per_row = self.columns // self.wide
        per_column = self.rows // self.high
        x, y, out = (
            parameters.place(f.whole, [*batch, i, j])
            for (f, _), (i, j) in zip(self._factors(), (("i", "k"), ("k", "j"), ("i", "j")), strict=True)
        )
        return [
            *(f"const I {name} = {lead[axis]};" for axis, name in enumerate(batch)),
            f"const I top = (blockIdx.x / {right}u % {down}u) * {self.rows}u;",
            f"const I left = (blockIdx.x % {right}u) * {self.columns}u;",
            f"const I group = threadIdx.x / {self.members}u, member = threadIdx.x % {self.members}u;",
            f"const I row = member / {per_row}u, column = member % {per_row}u;",
            f"__shared__ {kind} all_xs[{self.groups}][{self.depth}][{self.rows + 1}];",
            f"__shared__ {kind} all_ys[{self.groups}][{self.depth}][{self.columns + 1}];",
            f"{kind} (*xs)[{self.rows + 1}] = all_xs[group], (*ys)[{self.columns + 1}] = all_ys[group];",
            f"{kind} sums[{self.high}][{self.wide}] = {{}};",
            f"for (I base = 0; base < {k}; base += {self.depth * self.groups}) {{",
            f"  const I first = base + group * {self.depth};",
            *self._load("xs", x, ("i", "top", self.rows, m), by_terms=self.product.x.columns == 1),
            *self._load("ys", y, ("j", "left", self.columns, n), by_terms=self.product.y.rows == 1),
            "  __syncthreads();",
            "  #pragma unroll",
            f"  for (I t = 0; t < {self.depth}; ++t) {{",
            f"    {kind} u[{self.high}], v[{self.wide}];",
            "    #pragma unroll",
            f"    for (I a = 0; a < {self.high}; ++a) u[a] = xs[t][row + a * {per_column}];",
            "    #pragma unroll",
            f"    for (I b = 0; b < {self.wide}; ++b) v[b] = ys[t][column + b * {per_row}];",
            "    #pragma unroll",
            f"    for (I a = 0; a < {self.high}; ++a)",
            "      #pragma unroll",
            f"      for (I b = 0; b < {self.wide}; ++b) sums[a][b] = fma(u[a], v[b], sums[a][b]);",
            "  }",
            "  __syncthreads();",
            "}",
            *self._addition(kind),
            "if (group > 0) return;",
            "#pragma unroll",
            f"for (I a = 0; a < {self.high}; ++a)",
            "  #pragma unroll",
            f"  for (I b = 0; b < {self.wide}; ++b) {{",
            f"    const I i = top + row + a * {per_column}, j = left + column + b * {per_row};",
            f"    if (i < {m} && j < {n}) {out} = sums[a][b];",
            "  }",
        ]

    def _addition(self, kind: str) -> list[str]:
        """Add the sums of the other groups to the sums of the first, group by group."""
        if self.groups == 1:
            return []
        count = self.high * self.wide
        each = (
            f'_Pragma("unroll") for (I a = 0; a < {self.high}; ++a) '
            f'_Pragma("unroll") for (I b = 0; b < {self.wide}; ++b)',
            f"rest[(a * {self.wide} + b) * {self.members} + member]",
        )
        return [
            f"__shared__ {kind} rest[{count * self.members}];",
            f"for (I other = 1; other < {self.groups}; ++other) {{",
            "  if (group == other) {",
            f"    {each[0]} {each[1]} = sums[a][b];",
            "  }",
            "  __syncthreads();",
            "  if (group == 0) {",
            f"    {each[0]} sums[a][b] = sums[a][b] + {each[1]};",
            "  }",
            "  __syncthreads();",
            "}",
        ]

    def _load(self, into: str, source: str, line: tuple[str, str, int, int], *, by_terms: bool) -> list[str]:
        """Load part of a factor into shared memory, neighbours by neighbours, with zeros outside the matrix."""
        name, start, length, end = line
        k = self.product.sizes[1]
        count = length * self.depth
        term, place = (f"e % {self.depth}", f"e / {self.depth}") if by_terms else (f"e / {length}", f"e % {length}")
        return [
            "  #pragma unroll",
            f"  for (I e = member; e < {count}; e += {self.members}) {{",
            f"    const I t = {term}, l = {place}, k = first + t, {name} = {start} + l;",
            f"    {into}[t][l] = k < {k} && {name} < {end} ? {source} : 0;",
            "  }",
        ]
