"""Kernels of loop nests in the assembly language of LLVM."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count, product

import numpy as np

from aidotnet_py.backends.kernel import Kernel, LoopNest, Number, Operand, Product, Reference, Step, collapsed
from aidotnet_py.backends.rows import ByRows

__all__ = ["BLAS", "SHARED", "SHARED_BYTES", "chain_text", "kernel_text", "sharing_text"]

# The functions of BLAS that a kernel with products receives, in this order.
BLAS = ("sgemm", "dgemm", "sgemv", "dgemv", "sdot", "ddot")


_TYPES = {"float32": "float", "float64": "double", "bool": "i8"}
_SUFFIX = {"float32": "f32", "float64": "f64"}
_SIZES = {"float32": 4, "float64": 8, "bool": 1}
_COMPARISONS = {
    "equal": "fcmp oeq",
    "not_equal": "fcmp une",
    "less": "fcmp olt",
    "less_equal": "fcmp ole",
    "greater": "fcmp ogt",
    "greater_equal": "fcmp oge",
}
_OF_TRUTHS = {
    "equal": "icmp eq",
    "not_equal": "icmp ne",
    "less": "icmp ult",
    "less_equal": "icmp ule",
    "greater": "icmp ugt",
    "greater_equal": "icmp uge",
}
_ARITHMETIC = {"add": "fadd", "subtract": "fsub", "multiply": "fmul", "divide": "fdiv"}
_LOGICAL = {"logical_and": "and", "logical_or": "or"}


def kernel_text(kernel: Kernel, name: str) -> str:
    """Write a module with the function ``void name(void **arguments, int64_t part, int64_t parts)``.

    If the kernel has products, its arguments are followed by the addresses of the functions of `BLAS`, with the C
    interface and integers of 64 bits. If it goes by rows (`ByRows`), the function computes one of several parts of the
    rows, about equal and none of them empty; else it computes all.
    """
    writer = _Writer()
    for function, dtype, width in product(("fabs", "sqrt"), ("float32", "float64"), (1, 4, 8)):
        kind, vector = _kind(dtype, width), "" if width == 1 else f"v{width}"
        writer.line(f"declare {kind} @llvm.{function}.{vector}{_SUFFIX[dtype]}({kind})")
    count = kernel.arguments + len(BLAS) * any(isinstance(nest, Product) for nest in kernel.nests)
    parameters = ", ".join([*(f"ptr noalias %p{i}" for i in range(count)), "i64 %first", "i64 %last"])
    writer.line(f"define internal void @{name}_body({parameters}) noinline nounwind {{")
    writer.label("entry")
    rows = ByRows.of(kernel)
    for nest in kernel.nests if rows is None else rows.nests:
        if isinstance(nest, Product):
            _Multiplication(writer, nest, kernel.arguments, by_rows=rows is not None).write()
        else:
            _Nest(writer, collapsed(nest) if rows is None else nest, by_rows=rows is not None).write()
    writer.line("  ret void\n}")
    writer.line(f"define void @{name}(ptr %table, i64 %part, i64 %parts) nounwind {{")
    for i in range(count):
        writer.line(f"  %e{i} = getelementptr ptr, ptr %table, i64 {i}")
        writer.line(f"  %p{i} = load ptr, ptr %e{i}")
    length = 0 if rows is None else rows.length
    edges = [writer.value(f"mul i64 {part}, {length}") for part in ("%part", writer.value("add i64 %part, 1"))]
    first, last = (writer.value(f"udiv i64 {edge}, %parts") for edge in edges)
    arguments = ", ".join([*(f"ptr %p{i}" for i in range(count)), f"i64 {first}", f"i64 {last}"])
    writer.line(f"  call void @{name}_body({arguments})")
    writer.line("  ret void\n}")
    return writer.text()


def chain_text(name: str) -> str:
    """Write a module with ``void name(void **table, int64_t count, int64_t times, int64_t part, int64_t parts)``.

    The table has ``count`` pairs of a function of `kernel_text` and its arguments. They are called in order, ``times``
    times, for one part of the rows. Both numbers are at least 1.
    """
    return f"""define void @{name}(ptr %table, i64 %count, i64 %times, i64 %part, i64 %parts) nounwind {{
entry:
  br label %turn
turn:
  %turns = phi i64 [ 0, %entry ], [ %turned, %over ]
  br label %pair
pair:
  %index = phi i64 [ 0, %turn ], [ %following, %pair ]
  %even = shl i64 %index, 1
  %odd = or i64 %even, 1
  %place = getelementptr ptr, ptr %table, i64 %even
  %next = getelementptr ptr, ptr %table, i64 %odd
  %function = load ptr, ptr %place
  %arguments = load ptr, ptr %next
  call void %function(ptr %arguments, i64 %part, i64 %parts)
  %following = add nuw nsw i64 %index, 1
  %more = icmp slt i64 %following, %count
  br i1 %more, label %pair, label %over
over:
  %turned = add nuw nsw i64 %turns, 1
  %again = icmp slt i64 %turned, %times
  br i1 %again, label %turn, label %done
done:
  ret void
}}
"""


# The memory of a shared chain: offsets of its fields in bytes. The first four are written by several threads.
SHARED = {
    **{name: 64 * place for place, name in enumerate(("open", "next", "inside", "asleep"))},
    **{
        name: 256 + 8 * place
        for place, name in enumerate(
            (
                *("over", "patience", "helpers", "chain", "table", "count", "times", "parts"),
                *("sched_yield", "sem_wait", "sem_post"),
            )
        )
    },
    "semaphore": 384,
}
SHARED_BYTES = 448


def sharing_text(name: str) -> str:
    """Write a module with the function ``void name(void *shared, int64_t helps)``: threads compute parts of a chain.

    Fields of the memory at ``shared`` lie at the offsets in `SHARED`. A helper's call, with ``helps`` = 1, returns when
    ``over`` is set; a call with 0 has the chain computed once, part by part: each thread takes the next part when it
    is done with one, and the call returns when all parts are computed. The caller waits for no helper that has not yet
    begun.

    At most ``helpers`` count themselves as ``inside``, while they may read the other fields; the caller waits for 0
    before it returns. Without work, a helper looks ``patience`` times, yielding the processor in between, and then
    sleeps. ``asleep`` counts the helpers that nobody has woken: whoever takes one off, the caller or the helper itself,
    decides whether there is a post for it.
    """
    fields = "\n".join(f"  %{field} = getelementptr i8, ptr %shared, i64 {at}" for field, at in SHARED.items())
    claim = """
{who}.claim:
  %{who}.part = atomicrmw add ptr %next, i64 1 seq_cst
  %{who}.parts = load atomic i64, ptr %parts monotonic, align 8
  %{who}.is_left = icmp ult i64 %{who}.part, %{who}.parts
  br i1 %{who}.is_left, label %{who}.compute, label %{who}.done
{who}.compute:
  %{who}.function = load ptr, ptr %chain
  %{who}.table = load ptr, ptr %table
  %{who}.count = load i64, ptr %count
  %{who}.times = load i64, ptr %times
  call void %{who}.function(ptr %{who}.table, i64 %{who}.count, i64 %{who}.times, i64 %{who}.part, i64 %{who}.parts)
  br label %{who}.claim"""
    work = """
{when}:
  %{when}.end = load atomic i64, ptr %over seq_cst, align 8
  %{when}.is_over = icmp ne i64 %{when}.end, 0
  br i1 %{when}.is_over, label %{stop}, label %{when}.look
{when}.look:
  %{when}.open = load atomic i64, ptr %open seq_cst, align 8
  %{when}.next = load atomic i64, ptr %next monotonic, align 8
  %{when}.parts = load atomic i64, ptr %parts monotonic, align 8
  %{when}.inside = load atomic i64, ptr %inside monotonic, align 8
  %{when}.helpers = load atomic i64, ptr %helpers monotonic, align 8
  %{when}.is_open = icmp ne i64 %{when}.open, 0
  %{when}.is_left = icmp ult i64 %{when}.next, %{when}.parts
  %{when}.is_room = icmp ult i64 %{when}.inside, %{when}.helpers
  %{when}.is_open_work = and i1 %{when}.is_open, %{when}.is_left
  %{when}.is_work = and i1 %{when}.is_open_work, %{when}.is_room
  br i1 %{when}.is_work, label %{found}, label %{nothing}"""
    return f"""define void @{name}(ptr %shared, i64 %helps) nounwind {{
{fields}
  %is_helper = icmp ne i64 %helps, 0
  br i1 %is_helper, label %awake, label %begin
begin:
  store atomic i64 0, ptr %next seq_cst, align 8
  store atomic i64 1, ptr %open seq_cst, align 8
  %wanted = load i64, ptr %helpers
  %post = load ptr, ptr %sem_post
  br label %wake
wake:
  %left = phi i64 [ %wanted, %begin ], [ %left, %take ], [ %fewer, %one ]
  %sleepers = load atomic i64, ptr %asleep seq_cst, align 8
  %fewest = call i64 @llvm.smin.i64(i64 %left, i64 %sleepers)
  %some = icmp sgt i64 %fewest, 0
  br i1 %some, label %take, label %caller.claim
take:
  %sleepers.less = sub i64 %sleepers, 1
  %taking = cmpxchg ptr %asleep, i64 %sleepers, i64 %sleepers.less seq_cst seq_cst
  %taken = extractvalue {{ i64, i1 }} %taking, 1
  br i1 %taken, label %one, label %wake
one:
  %posted = call i32 %post(ptr %semaphore)
  %fewer = sub i64 %left, 1
  br label %wake{claim.format(who="caller")}
caller.done:
  store atomic i64 0, ptr %open seq_cst, align 8
  %caller.yield = load ptr, ptr %sched_yield
  br label %drain
drain:
  %working = load atomic i64, ptr %inside seq_cst, align 8
  %is_empty = icmp eq i64 %working, 0
  br i1 %is_empty, label %return, label %again
again:
  %yielded = call i32 %caller.yield()
  br label %drain
awake:
  %looks = load i64, ptr %patience
  %yield = load ptr, ptr %sched_yield
  %wait = load ptr, ptr %sem_wait
  br label %turn
turn:
  %looked = phi i64 [ 0, %awake ], [ %following, %idle ]
  br label %watch{work.format(when="watch", stop="return", found="enter", nothing="idle")}
idle:
  %gave_way = call i32 %yield()
  %following = add i64 %looked, 1
  %patient = icmp ult i64 %following, %looks
  br i1 %patient, label %turn, label %rest
rest:
  %resting = atomicrmw add ptr %asleep, i64 1 seq_cst
  br label %last{work.format(when="last", stop="rise", found="rise", nothing="sleep")}
sleep:
  %waited = call i32 %wait(ptr %semaphore)
  %is_posted = icmp eq i32 %waited, 0
  br i1 %is_posted, label %awake, label %rise
rise:
  %others = load atomic i64, ptr %asleep seq_cst, align 8
  %is_counted = icmp sgt i64 %others, 0
  br i1 %is_counted, label %uncount, label %sleep
uncount:
  %others.less = sub i64 %others, 1
  %rising = cmpxchg ptr %asleep, i64 %others, i64 %others.less seq_cst seq_cst
  %risen = extractvalue {{ i64, i1 }} %rising, 1
  br i1 %risen, label %awake, label %rise
enter:
  %entered = atomicrmw add ptr %inside, i64 1 seq_cst
  %still = load atomic i64, ptr %open seq_cst, align 8
  %most = load atomic i64, ptr %helpers monotonic, align 8
  %is_still = icmp ne i64 %still, 0
  %is_among = icmp ult i64 %entered, %most
  %is_in = and i1 %is_still, %is_among
  br i1 %is_in, label %helper.claim, label %out{claim.format(who="helper")}
helper.done:
  %with_caller = atomicrmw sub ptr %inside, i64 1 seq_cst
  br label %awake
out:
  %without = atomicrmw sub ptr %inside, i64 1 seq_cst
  br label %idle
return:
  ret void
}}
declare i64 @llvm.smin.i64(i64, i64)
"""


class _Writer:
    """Lines of assembly, and unused names."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._numbers = count()
        self.block = ""

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"

    def line(self, text: str) -> None:
        self._lines.append(text)

    def reserve_line(self) -> Callable[[str], None]:
        """Leave a line free, and return the function that fills it."""
        place = len(self._lines)
        self.line("")

        def fill(text: str) -> None:
            self._lines[place] = text

        return fill

    def label(self, name: str) -> None:
        """Start a block."""
        self.line(f"{name}:")
        self.block = name

    def branch(self, condition: str, yes: str, no: str) -> None:
        """End a block with a jump to one of two."""
        self.line(f"  br i1 {self.value(condition)}, label %{yes}, label %{no}")

    def fresh(self, prefix: str = "v") -> str:
        return f"{prefix}.{next(self._numbers)}"

    def value(self, expression: str) -> str:
        """Write a line that computes an expression, and return the name of its value."""
        name = f"%{self.fresh()}"
        self.line(f"  {name} = {expression}")
        return name


class _Loops:
    """Loops over a shape, and the work at each index, given the addresses of the operands."""

    def __init__(self, writer: _Writer, shape: tuple[int, ...], operands: list[Operand], *, by_rows: bool) -> None:
        self.w = writer
        self._shape = shape
        self._operands = operands
        self._by_rows = by_rows

    def write(self) -> None:
        if 0 not in self._shape:
            self._loop(0, {o: f"%p{o.argument}" for o in self._operands}, first=True)

    def body(self, addresses: dict[Operand, str]) -> None:
        raise NotImplementedError

    def _loop(self, axis: int, bases: dict[Operand, str], *, first: bool = False) -> None:
        """Write the loop over an axis, which computes the addresses of all operands at the start of an iteration."""
        w = self.w
        start, stop = ("%first", "%last") if first and self._by_rows else ("0", str(self._shape[axis]))
        before, head, after = w.block, w.fresh("loop"), w.fresh("done")
        w.line(f"  br label %{head}")
        w.label(head)
        index, following = f"%{w.fresh('i')}", f"%{w.fresh('n')}"
        fill_start = w.reserve_line()
        here: dict[Operand, str] = {}
        for operand, base in bases.items():
            offset = operand.offset if first else 0
            here[operand] = self._element_address(operand, base, index, operand.strides[axis], offset)
        if axis + 1 < len(self._shape):
            self._loop(axis + 1, here)
        else:
            self.body(here)
        w.line(f"  {following} = add nuw nsw i64 {index}, 1")
        fill_start(f"  {index} = phi i64 [ {start}, %{before} ], [ {following}, %{w.block} ]")
        w.branch(f"icmp ult i64 {following}, {stop}", head, after)
        w.label(after)

    def _element_address(self, operand: Operand, base: str, index: str, stride: int, offset: int) -> str:
        kind = _TYPES[operand.dtype]
        if offset:
            base = self.w.value(f"getelementptr inbounds {kind}, ptr {base}, i64 {offset}")
        if stride == 0:
            return base
        steps = index if stride == 1 else self.w.value(f"mul nsw i64 {index}, {stride}")
        return self.w.value(f"getelementptr inbounds {kind}, ptr {base}, i64 {steps}")


class _Multiplication(_Loops):
    """A product, by the same calls of BLAS as NumPy's."""

    def __init__(self, writer: _Writer, product: Product, functions: int, *, by_rows: bool) -> None:
        factors = (product.x, product.y, product.out)
        super().__init__(writer, product.shape, [f.operand for f in factors], by_rows=by_rows)
        self._product = product
        self._functions = functions

    def body(self, addresses: dict[Operand, str]) -> None:
        product = self._product
        x, y, out = product.x, product.y, product.out
        m, k, n = product.sizes
        if m == n == 1:
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

    def _function(self, name: str) -> str:
        letter = {"float32": "s", "float64": "d"}[self._product.out.operand.dtype]
        return f"%p{self._functions + BLAS.index(letter + name)}"

    def _call(self, name: str, arguments: str) -> None:
        self.w.line(f"  call void {self._function(name)}({arguments})")

    def _dot(self, length: int, x: tuple[str, int], y: tuple[str, int], out: str) -> None:
        kind = _TYPES[self._product.out.operand.dtype]
        arguments = f"i64 {length}, ptr {x[0]}, i64 {x[1]}, ptr {y[0]}, i64 {y[1]}"
        dot = self.w.value(f"call {kind} {self._function('dot')}({arguments})")
        # NumPy adds the result of BLAS to zero.
        total = self.w.value(f"fadd {kind} 0.0, {dot}")
        self.w.line(f"  store {kind} {total}, ptr {out}")

    def _gemm(self, x: _Matrix, y: _Matrix, out: tuple[str, int]) -> None:
        kind = _TYPES[self._product.out.operand.dtype]
        self._call(
            "gemm",
            f"i32 {_BY_ROWS}, i32 {x.transposition}, i32 {y.transposition}, i64 {x.m}, i64 {y.n}, i64 {x.n}, "
            f"{kind} 1.0, ptr {x.place}, i64 {x.step}, ptr {y.place}, i64 {y.step}, "
            f"{kind} 0.0, ptr {out[0]}, i64 {out[1]}",
        )

    def _gemv(self, matrix: _Matrix, vector: tuple[str, int], out: tuple[str, int]) -> None:
        kind = _TYPES[self._product.out.operand.dtype]
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


class _Nest(_Loops):
    """The loops of one nest; the innermost takes several elements at a time, and then the rest one by one."""

    def __init__(self, writer: _Writer, nest: LoopNest, *, by_rows: bool) -> None:
        super().__init__(writer, nest.shape, nest.operands, by_rows=by_rows)
        self.nest = nest
        by_argument = Counter(operand.argument for operand in nest.operands)
        written = {place.argument for place in nest.written}
        stays = {operand for operand in nest.operands if operand.strides[-1] == 0}
        read = {r for step in nest.steps for r in step.inputs} | {value for _, value in nest.stores}
        updated = [place for place, _ in (*nest.sums, *nest.maxima)]
        # Where one element may be read after another one is written, all go one by one, in memory.
        self._in_order = (
            any(by_argument[argument] > 1 for argument in written)
            or any(place in stays for place, _ in nest.stores)
            or any(place in stays & read for place in updated)
        )
        self._constants = [] if self._in_order else [o for o in nest.operands if o in stays and o.argument not in written]
        self._totals = [] if self._in_order else [place for place in updated if place in stays]

    def _loop(self, axis: int, bases: dict[Operand, str], *, first: bool = False) -> None:
        """See `_Loops._loop`."""
        if axis + 1 < len(self._shape):
            super()._loop(axis, bases, first=first)
            return
        w, length, has_parts = self.w, self._shape[axis], first and self._by_rows
        if first:
            bases = {o: self._element_address(o, base, "0", 0, o.offset) for o, base in bases.items()}
        width = 1 if self._in_order else _width_for(self.nest, length // 4 if has_parts else length)
        before = _Elements(w, self.nest, 1, bases)
        totals = {place: before.load(place) for place in self._totals}
        constants = {o: before.load(o) for o in self._constants}
        if has_parts:
            self._loop_over_part(bases, constants, width)
            return
        whole = length - length % width
        if width > 1:
            totals = self._loop_from("0", str(whole), width, bases, constants, totals)
        if whole < length or width == 1:
            totals = self._loop_from("0" if width == 1 else str(whole), str(length), 1, bases, constants, totals)
        for place, total in totals.items():
            before.store(place, total)

    def _loop_over_part(self, bases: dict[Operand, str], constants: dict[Operand, str], width: int) -> None:
        """Write the innermost loop over rows, whose bounds are known at the call alone."""
        w = self.w
        if width == 1:
            self._loop_from("%first", "%last", 1, bases, constants, {})
            return
        count = w.value("sub i64 %last, %first")
        rest = w.value(f"and i64 {count}, {width - 1}")
        middle = w.value(f"sub i64 %last, {rest}")
        many, few, one, end = (w.fresh(name) for name in ("many", "few", "one", "end"))
        w.branch(f"icmp ult i64 %first, {middle}", many, few)
        w.label(many)
        self._loop_from("%first", middle, width, bases, constants, {})
        w.line(f"  br label %{few}")
        w.label(few)
        w.branch(f"icmp ult i64 {middle}, %last", one, end)
        w.label(one)
        self._loop_from(middle, "%last", 1, bases, constants, {})
        w.line(f"  br label %{end}")
        w.label(end)

    def _loop_from(
        self,
        start: str,
        stop: str,
        width: int,
        bases: dict[Operand, str],
        constants: dict[Operand, str],
        totals: dict[Operand, str],
    ) -> dict[Operand, str]:
        """Write a loop that takes ``width`` elements at a time; return the totals after it."""
        w = self.w
        copies = {o: _repeat(w, o.dtype, value, width) for o, value in constants.items()}
        before, head, after = w.block, w.fresh("loop"), w.fresh("done")
        w.line(f"  br label %{head}")
        w.label(head)
        index, following = f"%{w.fresh('i')}", f"%{w.fresh('n')}"
        begun = {place: f"%{w.fresh('t')}" for place in totals}
        fill = w.reserve_line()
        here = {o: self._element_address(o, base, index, o.strides[-1], 0) for o, base in bases.items()}
        ended = _Elements(w, self.nest, width, here, copies, begun).write()
        w.line(f"  {following} = add nuw nsw i64 {index}, {width}")
        phis = [("i64", index, start, following)]
        phis += [(_kind(place.dtype), begun[place], totals[place], ended[place]) for place in totals]
        fill("\n".join(f"  {to} = phi {kind} [ {a}, %{before} ], [ {b}, %{w.block} ]" for kind, to, a, b in phis))
        w.branch(f"icmp ult i64 {following}, {stop}", head, after)
        w.label(after)
        return ended


def _width_for(nest: LoopNest, length: int) -> int:
    """Return how many elements of an axis go at a time: a power of two, 32 bytes of the widest at most; 1 for few."""
    most = 4 if any(item.dtype == "float64" for item in (*nest.operands, *nest.steps)) else 8
    while most > length:
        most //= 2
    return most if most >= 4 else 1


def _kind(dtype: str, width: int = 1, *, in_memory: bool = False) -> str:
    """Return the type of so many values side by side; a truth value is a byte in memory."""
    kind = "i1" if dtype == "bool" and not in_memory else _TYPES[dtype]
    return kind if width == 1 else f"<{width} x {kind}>"


def _repeat(w: _Writer, dtype: str, value: str, width: int) -> str:
    """Write so many copies of a value."""
    if width == 1:
        return value
    wide = _kind(dtype, width)
    one = w.value(f"insertelement {wide} poison, {_kind(dtype)} {value}, i64 0")
    return w.value(f"shufflevector {wide} {one}, {wide} poison, <{width} x i32> zeroinitializer")


class _Elements:
    """The work of a nest on ``width`` elements side by side along its last axis.

    ``addresses`` are those of the first element. ``constants`` are values that stay along the axis, repeated;
    ``totals`` are sums and maxima that stay, so far.
    """

    def __init__(
        self,
        writer: _Writer,
        nest: LoopNest,
        width: int,
        addresses: dict[Operand, str],
        constants: dict[Operand, str] | None = None,
        totals: dict[Operand, str] | None = None,
    ) -> None:
        self.w, self.nest, self._width = writer, nest, width
        self._addresses = addresses
        self._loaded = dict(constants or {})
        self._totals = dict(totals or {})
        self._values: list[str] = []

    def write(self) -> dict[Operand, str]:
        """Write the work; return the totals after it."""
        for step in self.nest.steps:
            self._values.append(self._step(step))
        stores, sums, maxima = (
            [(place, self._read(value)) for place, value in pairs]
            for pairs in (self.nest.stores, self.nest.sums, self.nest.maxima)
        )
        for place, value in stores:
            self.store(place, value)
        for place, value in sums:
            self._update(place, value, self._sum)
        for place, value in maxima:
            self._update(place, value, self._maximum)
        return self._totals

    def _update(self, place: Operand, value: str, combine: Callable[[str, str, str], str]) -> None:
        """Write how a value, or each of several in order, comes into a total."""
        if place not in self._totals:
            self.store(place, combine(_kind(place.dtype, self._width), self.load(place), value))
            return
        for lane in range(self._width):
            one = self._lane(place, value, lane)
            self._totals[place] = combine(_kind(place.dtype), self._totals[place], one)

    def _lane(self, operand: Operand, value: str, lane: int, *, in_memory: bool = False) -> str:
        if self._width == 1:
            return value
        kind = _kind(operand.dtype, self._width, in_memory=in_memory)
        return self.w.value(f"extractelement {kind} {value}, i64 {lane}")

    def _sum(self, kind: str, old: str, value: str) -> str:
        return self.w.value(f"fadd {kind} {old}, {value}")

    def _maximum(self, kind: str, old: str, value: str) -> str:
        # NaN wins, and of two zeros the later one, as in NumPy's instruction on x86.
        larger = self.w.value(f"fcmp uge {kind} {value}, {old}")
        nan = self.w.value(f"fcmp uno {kind} {old}, {old}")
        return self._select(nan, kind, old, self._select(larger, kind, value, old))

    def load(self, operand: Operand) -> str:
        """Write the loading of elements."""
        w, kind, size = self.w, _kind(operand.dtype, self._width, in_memory=True), _SIZES[operand.dtype]
        if self._width == 1 or operand.strides[-1] == 1:
            value = w.value(f"load {kind}, ptr {self._addresses[operand]}, align {size}")
        else:
            value = "poison"
            for lane in range(self._width):
                one = _kind(operand.dtype, in_memory=True)
                element = w.value(f"load {one}, ptr {self._address(operand, lane)}")
                value = w.value(f"insertelement {kind} {value}, {one} {element}, i64 {lane}")
        return w.value(f"icmp ne {kind} {value}, {self._zero}") if operand.dtype == "bool" else value

    def store(self, operand: Operand, value: str) -> None:
        """Write the storing of elements."""
        w, kind, size = self.w, _kind(operand.dtype, self._width, in_memory=True), _SIZES[operand.dtype]
        if operand.dtype == "bool":
            value = w.value(f"zext {_kind('bool', self._width)} {value} to {kind}")
        if self._width == 1 or operand.strides[-1] == 1:
            w.line(f"  store {kind} {value}, ptr {self._addresses[operand]}, align {size}")
            return
        for lane in range(self._width):
            element = self._lane(operand, value, lane, in_memory=True)
            w.line(f"  store {_kind(operand.dtype, in_memory=True)} {element}, ptr {self._address(operand, lane)}")

    def _address(self, operand: Operand, lane: int) -> str:
        """Return the address of one of the elements."""
        first, steps = self._addresses[operand], lane * operand.strides[-1]
        kind = _kind(operand.dtype, in_memory=True)
        return self.w.value(f"getelementptr inbounds {kind}, ptr {first}, i64 {steps}") if steps else first

    @property
    def _zero(self) -> str:
        return "0" if self._width == 1 else "zeroinitializer"

    def _read(self, reference: Reference) -> str:
        if isinstance(reference, int):
            return self._values[reference]
        if isinstance(reference, Number):
            return _literal(reference, self._width)
        if reference not in self._loaded:
            self._loaded[reference] = self.load(reference)
        return self._loaded[reference]

    def _dtype(self, reference: Reference) -> str:
        return self.nest.steps[reference].dtype if isinstance(reference, int) else reference.dtype

    def _step(self, step: Step) -> str:
        inputs = [self._read(r) for r in step.inputs]
        dtypes = [self._dtype(r) for r in step.inputs]
        kind, w, name = _kind(dtypes[-1], self._width), self.w, step.operation
        if name == "identity":
            return inputs[0]
        if name in _ARITHMETIC:
            return w.value(f"{_ARITHMETIC[name]} {kind} {inputs[0]}, {inputs[1]}")
        if name == "negative":
            return w.value(f"fneg {kind} {inputs[0]}")
        if name in _COMPARISONS:
            conditions = _OF_TRUTHS if dtypes[-1] == "bool" else _COMPARISONS
            return w.value(f"{conditions[name]} {kind} {inputs[0]}, {inputs[1]}")
        if name in _LOGICAL:
            return w.value(f"{_LOGICAL[name]} {kind} {inputs[0]}, {inputs[1]}")
        if name == "logical_not":
            return w.value(f"xor {kind} {inputs[0]}, {_literal(Number(1.0, 'bool'), self._width)}")
        if name == "where":
            return self._select(inputs[0], kind, inputs[1], inputs[2])
        if name == "relu":
            # NaN stays and −0 becomes 0, as in NumPy's maximum with 0.
            zero = _literal(Number(0.0, dtypes[-1]), self._width)
            positive = w.value(f"fcmp ugt {kind} {inputs[0]}, {zero}")
            return self._select(positive, kind, inputs[0], zero)
        if name == "convert":
            return self._convert(inputs[0], dtypes[0], step.dtype)
        function, vector = {"abs": "fabs", "sqrt": "sqrt"}[name], "" if self._width == 1 else f"v{self._width}"
        return w.value(f"call {kind} @llvm.{function}.{vector}{_SUFFIX[step.dtype]}({kind} {inputs[0]})")

    def _select(self, bit: str, kind: str, yes: str, no: str) -> str:
        bits = "i1" if kind[0] != "<" else f"<{self._width} x i1>"
        return self.w.value(f"select {bits} {bit}, {kind} {yes}, {kind} {no}")

    def _convert(self, value: str, source: str, target: str) -> str:
        a, b = _kind(source, self._width), _kind(target, self._width)
        if source == target:
            return value
        if source == "bool":
            return self.w.value(f"uitofp {a} {value} to {b}")
        if target == "bool":
            return self.w.value(f"fcmp une {a} {value}, {_literal(Number(0.0, source), self._width)}")
        return self.w.value(f"{'fpext' if target == 'float64' else 'fptrunc'} {a} {value} to {b}")


def _literal(number: Number, width: int) -> str:
    if number.dtype == "bool":
        text = "true" if number.value else "false"
    else:
        # LLVM writes single precision as the double of the same value.
        rounded = float(np.dtype(number.dtype).type(number.value))
        text = "0x" + struct.pack(">d", rounded).hex().upper()
    return text if width == 1 else "<" + ", ".join([f"{_kind(number.dtype)} {text}"] * width) + ">"
