"""Kernels of loop nests in the assembly language of LLVM."""

from __future__ import annotations

import struct
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
_COMPARISONS = {
    "equal": "oeq",
    "not_equal": "une",
    "less": "olt",
    "less_equal": "ole",
    "greater": "ogt",
    "greater_equal": "oge",
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
    for function, suffix in product(("fabs", "sqrt"), ("f32", "f64")):
        kind = {"f32": "float", "f64": "double"}[suffix]
        writer.line(f"declare {kind} @llvm.{function}.{suffix}({kind})")
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
        again = w.value(f"icmp ult i64 {following}, {stop}")
        w.line(f"  br i1 {again}, label %{head}, label %{after}")
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
    """The loops of one nest, and its steps."""

    def __init__(self, writer: _Writer, nest: LoopNest, *, by_rows: bool) -> None:
        super().__init__(writer, nest.shape, nest.operands, by_rows=by_rows)
        self.nest = nest
        self.addresses: dict[Operand, str] = {}
        self.loaded: dict[Operand, str] = {}
        self.values: list[str] = []

    def body(self, addresses: dict[Operand, str]) -> None:
        self.addresses = addresses
        for step in self.nest.steps:
            self.values.append(self._step(step))
        stores, sums, maxima = (
            [(place, _TYPES[place.dtype], self._read(value)) for place, value in pairs]
            for pairs in (self.nest.stores, self.nest.sums, self.nest.maxima)
        )
        for place, kind, value in stores:
            self.w.line(f"  store {kind} {value}, ptr {addresses[place]}")
        for place, kind, value in sums:
            old = self.w.value(f"load {kind}, ptr {addresses[place]}")
            new = self.w.value(f"fadd {kind} {old}, {value}")
            self.w.line(f"  store {kind} {new}, ptr {addresses[place]}")
        for place, kind, value in maxima:
            old = self.w.value(f"load {kind}, ptr {addresses[place]}")
            # NaN wins, and of two zeros the later one, as in NumPy's instruction on x86.
            larger = self.w.value(f"fcmp uge {kind} {value}, {old}")
            nan = self.w.value(f"fcmp uno {kind} {old}, {old}")
            new = self._select(nan, kind, old, self._select(larger, kind, value, old))
            self.w.line(f"  store {kind} {new}, ptr {addresses[place]}")

    def _read(self, reference: Reference) -> str:
        if isinstance(reference, int):
            return self.values[reference]
        if isinstance(reference, Number):
            return _literal(reference)
        if reference not in self.loaded:
            kind = _TYPES[reference.dtype]
            self.loaded[reference] = self.w.value(f"load {kind}, ptr {self.addresses[reference]}")
        return self.loaded[reference]

    def _dtype(self, reference: Reference) -> str:
        return self.nest.steps[reference].dtype if isinstance(reference, int) else reference.dtype

    def _step(self, step: Step) -> str:
        inputs = [self._read(r) for r in step.inputs]
        dtypes = [self._dtype(r) for r in step.inputs]
        kind, w, name = _TYPES[dtypes[-1]], self.w, step.operation
        if name == "identity":
            return inputs[0]
        if name in _ARITHMETIC:
            return w.value(f"{_ARITHMETIC[name]} {kind} {inputs[0]}, {inputs[1]}")
        if name == "negative":
            return w.value(f"fneg {kind} {inputs[0]}")
        if name in _COMPARISONS:
            return self._byte(self._compare(_COMPARISONS[name], kind, inputs, dtypes[-1]))
        if name in _LOGICAL:
            return w.value(f"{_LOGICAL[name]} i8 {inputs[0]}, {inputs[1]}")
        if name == "logical_not":
            return w.value(f"xor i8 {inputs[0]}, 1")
        if name == "where":
            return self._select(self._bit(inputs[0]), kind, inputs[1], inputs[2])
        if name == "relu":
            # NaN stays and −0 becomes 0, as in NumPy's maximum with 0.
            positive = w.value(f"fcmp ugt {kind} {inputs[0]}, 0.0")
            return self._select(positive, kind, inputs[0], "0.0")
        if name == "convert":
            return self._convert(inputs[0], dtypes[0], step.dtype)
        function = {"abs": "fabs", "sqrt": "sqrt"}[name]
        return w.value(f"call {kind} @llvm.{function}.{_SUFFIX[step.dtype]}({kind} {inputs[0]})")

    def _compare(self, condition: str, kind: str, inputs: list[str], dtype: str) -> str:
        if dtype != "bool":
            return self.w.value(f"fcmp {condition} {kind} {inputs[0]}, {inputs[1]}")
        integer = {"oeq": "eq", "une": "ne", "olt": "ult", "ole": "ule", "ogt": "ugt", "oge": "uge"}[condition]
        return self.w.value(f"icmp {integer} {kind} {inputs[0]}, {inputs[1]}")

    def _byte(self, bit: str) -> str:
        return self.w.value(f"zext i1 {bit} to i8")

    def _bit(self, byte: str) -> str:
        return self.w.value(f"icmp ne i8 {byte}, 0")

    def _select(self, bit: str, kind: str, yes: str, no: str) -> str:
        return self.w.value(f"select i1 {bit}, {kind} {yes}, {kind} {no}")

    def _convert(self, value: str, source: str, target: str) -> str:
        a, b = _TYPES[source], _TYPES[target]
        if source == "bool":
            return self.w.value(f"uitofp i8 {value} to {b}")
        if target == "bool":
            return self._byte(self.w.value(f"fcmp une {a} {value}, 0.0"))
        return self.w.value(f"{'fpext' if b == 'double' else 'fptrunc'} {a} {value} to {b}")


def _literal(number: Number) -> str:
    if number.dtype == "bool":
        return str(int(number.value))
    # LLVM writes single precision as the double of the same value.
    rounded = float(np.dtype(number.dtype).type(number.value))
    return "0x" + struct.pack(">d", rounded).hex().upper()
