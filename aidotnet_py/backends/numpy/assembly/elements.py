"""The work of a nest on one element, or on several side by side, in the assembly language of LLVM."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np

from aidotnet_py.backends.kernel import LoopNest, Number, Operand, Reference, Step
from aidotnet_py.backends.numpy.assembly.loops import TYPES
from aidotnet_py.backends.numpy.assembly.writer import Writer

__all__ = ["WIDTHS", "Elements", "declarations", "kind_of"]

# How many elements may go at a time.
WIDTHS = (1, 4, 8)
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
_FUNCTIONS = {"abs": "fabs", "sqrt": "sqrt"}


def kind_of(dtype: str, width: int = 1, *, in_memory: bool = False) -> str:
    """Return the type of so many values side by side; a truth value is a byte in memory."""
    kind = "i1" if dtype == "bool" and not in_memory else TYPES[dtype]
    return kind if width == 1 else f"<{width} x {kind}>"


def declarations() -> list[str]:
    """Return the declarations of the functions that steps call."""
    kinds = [(dtype, width) for dtype in ("float32", "float64") for width in WIDTHS]
    return [
        f"declare {kind_of(*kind)} {_function(operation, *kind)}({kind_of(*kind)})"
        for operation in _FUNCTIONS
        for kind in kinds
    ]


def _function(operation: str, dtype: str, width: int) -> str:
    """Return the name of LLVM's function for an operation."""
    kind = ("" if width == 1 else f"v{width}") + {"float32": "f32", "float64": "f64"}[dtype]
    return f"@llvm.{_FUNCTIONS[operation]}.{kind}"


class Elements:
    """The work of a nest on ``width`` elements side by side along its last axis.

    ``addresses`` are those of the first element. ``constants`` are values that stay along the axis, repeated;
    ``totals`` are sums and maxima that stay, so far.
    """

    def __init__(
        self,
        writer: Writer,
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
            self.store(place, combine(kind_of(place.dtype, self._width), self.load(place), value))
            return
        for lane in range(self._width):
            one = self._lane(place, value, lane)
            self._totals[place] = combine(kind_of(place.dtype), self._totals[place], one)

    def _lane(self, operand: Operand, value: str, lane: int, *, in_memory: bool = False) -> str:
        if self._width == 1:
            return value
        kind = kind_of(operand.dtype, self._width, in_memory=in_memory)
        return self.w.value(f"extractelement {kind} {value}, i64 {lane}")

    def _sum(self, kind: str, old: str, value: str) -> str:
        return self.w.value(f"fadd {kind} {old}, {value}")

    def _maximum(self, kind: str, old: str, value: str) -> str:
        # NaN wins, and of two zeros the later one, as in NumPy's instruction on x86.
        larger = self.w.value(f"fcmp uge {kind} {value}, {old}")
        nan = self.w.value(f"fcmp uno {kind} {old}, {old}")
        kept = self._select(nan, kind, old, self._select(larger, kind, value, old))
        # Frozen, or LLVM would store only what is not kept: a masked store takes some processors 20 times as long.
        return self.w.value(f"freeze {kind} {kept}")

    def load(self, operand: Operand) -> str:
        """Write the loading of elements."""
        w, kind, size = self.w, kind_of(operand.dtype, self._width, in_memory=True), np.dtype(operand.dtype).itemsize
        if self._width == 1 or operand.strides[-1] == 1:
            value = w.value(f"load {kind}, ptr {self._addresses[operand]}, align {size}")
        else:
            value = "poison"
            for lane in range(self._width):
                one = kind_of(operand.dtype, in_memory=True)
                element = w.value(f"load {one}, ptr {self._address(operand, lane)}")
                value = w.value(f"insertelement {kind} {value}, {one} {element}, i64 {lane}")
        return w.value(f"icmp ne {kind} {value}, {self._zero}") if operand.dtype == "bool" else value

    def store(self, operand: Operand, value: str) -> None:
        """Write the storing of elements."""
        w, kind, size = self.w, kind_of(operand.dtype, self._width, in_memory=True), np.dtype(operand.dtype).itemsize
        if operand.dtype == "bool":
            value = w.value(f"zext {kind_of('bool', self._width)} {value} to {kind}")
        if self._width == 1 or operand.strides[-1] == 1:
            w.line(f"  store {kind} {value}, ptr {self._addresses[operand]}, align {size}")
            return
        for lane in range(self._width):
            element = self._lane(operand, value, lane, in_memory=True)
            w.line(f"  store {kind_of(operand.dtype, in_memory=True)} {element}, ptr {self._address(operand, lane)}")

    def _address(self, operand: Operand, lane: int) -> str:
        """Return the address of one of the elements."""
        first, steps = self._addresses[operand], lane * operand.strides[-1]
        kind = kind_of(operand.dtype, in_memory=True)
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
        kind, w, name = kind_of(dtypes[-1], self._width), self.w, step.operation
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
        return w.value(f"call {kind} {_function(name, step.dtype, self._width)}({kind} {inputs[0]})")

    def _select(self, bit: str, kind: str, yes: str, no: str) -> str:
        bits = "i1" if kind[0] != "<" else f"<{self._width} x i1>"
        return self.w.value(f"select {bits} {bit}, {kind} {yes}, {kind} {no}")

    def _convert(self, value: str, source: str, target: str) -> str:
        a, b = kind_of(source, self._width), kind_of(target, self._width)
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
    return text if width == 1 else "<" + ", ".join([f"{kind_of(number.dtype)} {text}"] * width) + ">"
