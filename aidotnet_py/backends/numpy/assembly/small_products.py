"""Products of matrices by a small matrix, in the assembly language of LLVM.

BLAS first copies both factors into an order of its own, which takes long beside a product by a small matrix.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from aidotnet_py.backends.numpy.assembly.vectors import Vectors

__all__ = ["small_product_text"]

# 5 rows by 2 vectors of 32 bytes are summed at a time, in 10 of AVX2's 16 registers; the last columns may be 1 vector.
# More ways, such as 6 rows, are hardly faster, and take longer to compile.
_BYTES, _ROWS, _VECTORS = 32, 5, 2
# So many terms of each sum are added at a time: the rows of y that they need stay in the first cache. So many rows of
# x and out are done before the next, and stay in the second one.
_TERMS, _ROWS_OF_CACHE = 128, 240
_SIZES = ("m", "n", "k", "x_row", "x_column", "y_row", "y_column", "out_row")


def small_product_text(name: str, dtype: str) -> str:
    """Write a module with the function ``void name(x, y, out, m, n, k, x_row, x_column, y_row, y_column, out_row)``.

    It computes ``out = x @ y`` for matrices x (m, k), y (k, n) and out (m, n) at these addresses, none of them empty.
    The other numbers, of 64 bits, are distances of rows and columns in elements; those of out's columns, and of y's
    columns or rows, are 1. Terms are multiplied and added with one rounding, in order, 128 to a sum; these sums are
    added in order. The bits of an element thus do not depend on m, n and the distances.
    """
    return _Text(name, dtype).write()


class _Text(Vectors):
    """The text of the function for one dtype."""

    def __init__(self, name: str, dtype: str) -> None:
        super().__init__(dtype, _BYTES)
        self._name, self.copies, self.transposes = name, f"{name}_copies", f"{name}_transposes"

    def write(self) -> str:
        w = self.w
        for declaration in self.declarations():
            w.line(declaration)
        self._write_copies()
        self._write_transposes()
        sizes = ", ".join(f"i64 %{size}" for size in _SIZES)
        w.line(f"define void @{self._name}(ptr noalias %x, ptr noalias %y, ptr noalias %out, {sizes}) nounwind {{")
        w.label("entry")
        for place, vectors in (("panel", _TERMS * _VECTORS), ("edge", _ROWS * _VECTORS)):
            w.line(f"  %{place} = alloca [{vectors * self.width} x {self.kind}], align {_BYTES}")
        w.loop(0, self.up("%m", _ROWS_OF_CACHE), self._write_some_rows, step=_ROWS_OF_CACHE)
        w.line("  ret void\n}")
        return w.text()

    def _write_copies(self) -> None:
        """Write a function that copies a matrix, given the distances of its rows."""
        w = self.w
        sizes = "i64 %row, ptr %out, i64 %out_row, i64 %m, i64 %n"
        w.line(f"define internal void @{self.copies}(ptr %x, {sizes}) noinline nounwind {{")
        w.label("entry")

        def row(i: int | str, _: list[str]) -> list[str]:
            places = self.place("%x", self.times(i, "%row")), self.place("%out", self.times(i, "%out_row"))

            def element(j: int | str, _: list[str]) -> list[str]:
                self.copy(*(self.place(place, j) for place in places))
                return []

            w.loop(0, "%n", element)
            return []

        w.loop(0, "%m", row)
        w.line("  ret void\n}")

    def _write_transposes(self) -> None:
        """Write a function that copies a vector of y's columns, up to the last one, into so many rows.

        Instead of columns after the last one it copies this one again.
        """
        w = self.w
        sizes = "i64 %last, i64 %terms, i64 %y_column, i64 %row"
        w.line(f"define internal void @{self.transposes}(ptr %y, ptr %out, {sizes}) noinline nounwind {{")
        w.label("entry")
        columns = [self.place("%y", self.times(self.least(i, "%last"), "%y_column")) for i in range(self.width)]

        def square(start: int | str, _: list[str]) -> list[str]:
            rows = self.transposed([self.load(self.place(column, start)) for column in columns])
            for i, row in enumerate(rows):
                self.store(row, self.place("%out", self.times(self.number("add", start, i), "%row")))
            return []

        def single(start: int | str, _: list[str]) -> list[str]:
            row = self.place("%out", self.times(start, "%row"))
            for i, column in enumerate(columns):
                self.copy(self.place(column, start), self.place(row, i))
            return []

        whole = self.number("and", "%terms", -self.width)
        w.where(f"icmp sgt i64 {whole}, 0", lambda: w.loop(0, whole, square, step=self.width))
        w.where(f"icmp slt i64 {whole}, %terms", lambda: w.loop(whole, "%terms", single))
        w.line("  ret void\n}")

    def _write_some_rows(self, first: int | str, _: list[str]) -> list[str]:
        rows = _Rows(
            self.place("%x", self.times(first, "%x_row")),
            self.place("%out", self.times(first, "%out_row")),
            self.least(self.number("sub", "%m", first), _ROWS_OF_CACHE),
        )
        self.w.loop(0, self.up("%k", _TERMS), partial(self._add_terms, rows), step=_TERMS)
        return []

    def _add_terms(self, rows: _Rows, start: int | str, _: list[str]) -> list[str]:
        """Add some terms to rows, a few columns at a time."""
        terms = self.least(self.number("sub", "%k", start), _TERMS)
        wide = _VECTORS * self.width
        # One vector at the end is enough if it holds all columns that are left.
        whole = self.number("and", self.number("add", "%n", self.width - 1), -wide)

        def columns(first: int | str, _: list[str]) -> list[str]:
            _Columns(self, rows, start, terms, wide, first)
            return []

        self.w.where(f"icmp sgt i64 {whole}, 0", lambda: self.w.loop(0, whole, columns, step=wide))
        self.w.where(f"icmp slt i64 {whole}, %n", lambda: _Columns(self, rows, start, terms, self.width, whole))
        return []


class _Rows(NamedTuple):
    """Addresses of rows of x and out, and their number."""

    x: str
    out: str
    number: str


class _Columns:
    """Some columns of the product: those of one or two vectors."""

    def __init__(self, text: _Text, rows: _Rows, start: int | str, terms: str, columns: int, first: int | str) -> None:
        self._t, self._start, self._terms = text, start, terms
        self._columns, self._vectors = columns, columns // text.width
        self._present = text.least(text.number("sub", "%n", first), columns)
        self._is_whole = text.w.value(f"icmp eq i64 {self._present}, {columns}")
        self._rows = rows
        self._x = text.place(rows.x, text.times(start, "%x_column"))
        self._out = text.place(rows.out, first)
        self._write(text.place("%y", text.times(start, "%y_row"), text.times(first, "%y_column")))

    def _write(self, y: str) -> None:
        """Write the products of these columns of y, at this address, by all rows of x."""
        t = self._t
        in_rows = "icmp eq i64 %y_column, 1"
        # Whole vectors in rows of y are read where they are, other columns from a copy.
        direct = t.w.value(f"and i1 {t.w.value(in_rows)}, {self._is_whole}")
        t.w.where(
            f"xor i1 {direct}, true",
            lambda: t.w.where(in_rows, lambda: self._copy_rows(y), lambda: self._copy_columns(y)),
        )
        self._y = t.w.value(f"select i1 {direct}, ptr {y}, ptr %panel")
        self._y_row = t.w.value(f"select i1 {direct}, i64 %y_row, i64 {self._columns}")
        self._last_row = t.number("sub", self._rows.number, 1)
        t.w.loop(0, t.up(self._rows.number, _ROWS), self._write_rows, step=_ROWS)

    def _copy_rows(self, y: str) -> None:
        """Copy rows of y into the panel, and zeros after them."""
        t = self._t
        lanes = ", ".join(f"i64 {lane}" for lane in range(t.width))
        masks: list[str] = []
        for vector in range(self._vectors):
            left = t.w.repeated("i64", t.number("sub", self._present, vector * t.width), t.width)
            masks.append(t.w.value(f"icmp slt <{t.width} x i64> <{lanes}>, {left}"))

        def body(row: int | str, _: list[str]) -> list[str]:
            source, copy = t.place(y, t.times(row, "%y_row")), t.place("%panel", t.times(row, self._columns))
            for vector, mask in enumerate(masks):
                loaded = t.load_where(mask, t.place(source, vector * t.width))
                t.store(loaded, t.place(copy, vector * t.width))
            return []

        t.w.loop(0, self._terms, body)

    def _copy_columns(self, y: str) -> None:
        """Copy columns of y into the rows of the panel, the last one several times if there are fewer."""
        t = self._t
        last = t.number("sub", self._present, 1)
        for first in range(0, self._columns, t.width):
            columns = t.times(t.least(first, last), "%y_column")
            left = t.number("sub", last, t.least(first, last))
            arguments = f"ptr {t.place(y, columns)}, ptr {t.place('%panel', first)}, i64 {left}, i64 {self._terms}"
            t.w.line(f"  call void @{t.transposes}({arguments}, i64 %y_column, i64 {self._columns})")

    def _write_rows(self, first: int | str, _: list[str]) -> list[str]:
        """Write the products of some rows of x; if there are fewer, all others equal the last one, and do no harm."""
        t = self._t
        rows = [t.least(t.number("add", first, i), self._last_row) for i in range(_ROWS)]
        sums = self._sums([t.place(self._x, t.times(row, "%x_row")) for row in rows])
        outs = [t.place(self._out, t.times(row, "%out_row")) for row in rows]
        # Sums of whole vectors go to their place at once, others by way of memory with room for all columns.
        edges = [t.place("%edge", i * self._columns) for i in range(_ROWS)]
        places = [t.w.value(f"select i1 {self._is_whole}, ptr {o}, ptr {e}") for o, e in zip(outs, edges, strict=True)]
        count = t.least(t.number("sub", self._rows.number, first), _ROWS)
        sizes = f"i64 {count}, i64 {self._present}"
        out, edge = f"ptr {outs[0]}, i64 %out_row", f"ptr %edge, i64 {self._columns}"
        partly = f"xor i1 {self._is_whole}, true"
        later = f"and i1 {t.w.value(partly)}, {t.w.value(f'icmp ne i64 {self._start}, 0')}"
        t.w.where(later, lambda: t.w.line(f"  call void @{t.copies}({out}, {edge}, {sizes})"))
        self._add(sums, places)
        t.w.where(partly, lambda: t.w.line(f"  call void @{t.copies}({edge}, {out}, {sizes})"))
        return []

    def _sums(self, xs: list[str]) -> list[list[str]]:
        """Return the sums of some terms for each row of x, at these addresses, by these columns of y."""
        t, vectors = self._t, range(self._vectors)

        def body(_: int | str, carried: list[str]) -> list[str]:
            *sums, x, y = carried
            ys = [t.load(t.place(y, vector * t.width)) for vector in vectors]
            added: list[str] = []
            for i, row in enumerate(xs):
                factor = t.w.repeated(t.kind, t.w.value(f"load {t.kind}, ptr {t.place(row, x)}"), t.width)
                added += [t.add_product(factor, ys[v], sums[i * len(vectors) + v]) for v in vectors]
            return [*added, t.number("add nsw", x, "%x_column"), t.place(y, self._y_row)]

        zeros = [(t.vector, "zeroinitializer")] * (len(xs) * len(vectors))
        *sums, _, _ = t.w.loop(0, self._terms, body, carried=[*zeros, ("i64", "0"), ("ptr", self._y)])
        return [sums[i : i + len(vectors)] for i in range(0, len(sums), len(vectors))]

    def _add(self, sums: list[list[str]], rows: list[str]) -> None:
        """Add the first sums to zero, others to what is there; read all before a write: rows may be the same."""
        t = self._t
        places = [t.place(row, vector * t.width) for row in rows for vector in range(self._vectors)]
        is_first = t.w.value(f"icmp eq i64 {self._start}, 0")
        olds = [
            t.w.value(f"select i1 {is_first}, {t.vector} zeroinitializer, {t.vector} {t.load(place)}")
            for place in places
        ]
        flat = [vector for row in sums for vector in row]
        totals = [t.w.value(f"fadd {t.vector} {old}, {new}") for old, new in zip(olds, flat, strict=True)]
        for total, place in zip(totals, places, strict=True):
            t.store(total, place)
