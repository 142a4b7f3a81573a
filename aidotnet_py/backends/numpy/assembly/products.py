"""Matrix products of a kernel: calls of the function for small matrices, or the same calls of BLAS as NumPy's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from aidotnet_py.backends.kernel import Operand, Product
from aidotnet_py.backends.numpy.assembly.loops import TYPES, Loops
from aidotnet_py.backends.numpy.assembly.writer import Writer

__all__ = ["BLAS", "SMALL_PRODUCTS", "Multiplication", "SmallDtype"]

# The functions that a kernel with products receives, in this order: those of BLAS, and those of `small_products`.
BLAS = ("sgemm", "dgemm", "sgemv", "dgemv", "sdot", "ddot")
SmallDtype: TypeAlias = Literal["float32", "float64"]
SMALL_PRODUCTS: tuple[SmallDtype, ...] = ("float32", "float64")


class Multiplication(Loops):
    """A product, by calls of a function for each matrix."""

    def __init__(self, writer: Writer, product: Product, functions: int, *, by_rows: bool) -> None:
        factors = (product.x, product.y, product.out)
        super().__init__(writer, product.shape, [f.operand for f in factors], by_rows=by_rows)
        self._product = product
        self._functions = functions

    def body(self, addresses: dict[Operand, str]) -> None:
        """See `Loops.body`."""
        product = self._product
        x, y, out = product.x, product.y, product.out
        m, k, n = product.sizes
        if product.small:
            self._multiply_by_small(addresses)
        elif m == n == 1:
            self._dot(k, (addresses[x.operand], x.columns), (addresses[y.operand], y.rows), addresses[out.operand])
        elif n == 1:
            matrix = _Matrix(addresses[x.operand], x.rows, x.columns, m, k)
            self._gemv(matrix, (addresses[y.operand], y.rows), (addresses[out.operand], out.rows))
        elif m == 1:
            matrix = _Matrix(addresses[y.operand], y.columns, y.rows, n, k)
            self._gemv(matrix, (addresses[x.operand], x.columns), (addresses[out.operand], out.columns))
        else:
            left = _Matrix(addresses[x.operand], x.rows, x.columns, m, k)
            right = _Matrix(addresses[y.operand], y.rows, y.columns, k, n)
            self._gemm(left, right, (addresses[out.operand], out.rows))

    def _multiply_by_small(self, addresses: dict[Operand, str]) -> None:
        x, y, out = factors = self._product.x, self._product.y, self._product.out
        m, k, n = self._product.sizes
        sizes = (m, n, k, x.rows, x.columns, y.rows, y.columns, out.rows)
        places = [f"ptr {addresses[factor.operand]}" for factor in factors]
        function = f"%p{self._functions + len(BLAS) + SMALL_PRODUCTS.index(out.operand.dtype)}"
        self.w.line(f"  call void {function}({', '.join([*places, *(f'i64 {size}' for size in sizes)])})")

    def _function(self, name: str) -> str:
        letter = {"float32": "s", "float64": "d"}[self._product.out.operand.dtype]
        return f"%p{self._functions + BLAS.index(letter + name)}"

    def _call(self, name: str, arguments: str) -> None:
        self.w.line(f"  call void {self._function(name)}({arguments})")

    def _dot(self, length: int, x: tuple[str, int], y: tuple[str, int], out: str) -> None:
        kind = TYPES[self._product.out.operand.dtype]
        arguments = f"i64 {length}, ptr {x[0]}, i64 {x[1]}, ptr {y[0]}, i64 {y[1]}"
        dot = self.w.value(f"call {kind} {self._function('dot')}({arguments})")
        # NumPy adds the result of BLAS to zero.
        total = self.w.value(f"fadd {kind} 0.0, {dot}")
        self.w.line(f"  store {kind} {total}, ptr {out}")

    def _gemm(self, x: _Matrix, y: _Matrix, out: tuple[str, int]) -> None:
        kind = TYPES[self._product.out.operand.dtype]
        self._call(
            "gemm",
            f"i32 {_BY_ROWS}, i32 {x.transposition}, i32 {y.transposition}, i64 {x.m}, i64 {y.n}, i64 {x.n}, "
            f"{kind} 1.0, ptr {x.place}, i64 {x.step}, ptr {y.place}, i64 {y.step}, "
            f"{kind} 0.0, ptr {out[0]}, i64 {out[1]}",
        )

    def _gemv(self, matrix: _Matrix, vector: tuple[str, int], out: tuple[str, int]) -> None:
        kind = TYPES[self._product.out.operand.dtype]
        order = _BY_COLUMNS if matrix.transposition == _AS_IT_IS else _BY_ROWS
        self._call(
            "gemv",
            f"i32 {order}, i32 {_TRANSPOSED}, i64 {matrix.n}, i64 {matrix.m}, {kind} 1.0, ptr {matrix.place}, "
            f"i64 {matrix.step}, ptr {vector[0]}, i64 {vector[1]}, {kind} 0.0, ptr {out[0]}, i64 {out[1]}",
        )


# The constants of BLAS.
_BY_ROWS, _BY_COLUMNS, _AS_IT_IS, _TRANSPOSED = 101, 102, 111, 112


@dataclass(frozen=True)
class _Matrix:
    """The address of a matrix (m, n), and the strides of rows and columns, one of which is 1."""

    place: str
    rows: int
    columns: int
    m: int
    n: int

    @property
    def transposition(self) -> int:
        return _AS_IT_IS if self.columns == 1 and self.rows >= self.n else _TRANSPOSED

    @property
    def step(self) -> int:
        return self.rows if self.transposition == _AS_IT_IS else self.columns
