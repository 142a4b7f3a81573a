"""Loops over a shape, in the assembly language of LLVM."""

from __future__ import annotations

from aidotnet_py.backends.kernel import Operand
from aidotnet_py.backends.numpy.assembly.writer import Writer

__all__ = ["TYPES", "Loops"]

# The types of numbers in memory; a truth value is a byte.
TYPES = {"float32": "float", "float64": "double", "bool": "i8"}


class Loops:
    """Loops over a shape, and the work at each index, given the addresses of the operands."""

    def __init__(self, writer: Writer, shape: tuple[int, ...], operands: list[Operand], *, by_rows: bool) -> None:
        self.w = writer
        self._shape = shape
        self._operands = operands
        self._by_rows = by_rows

    def write(self) -> None:
        """Write the loops; nothing if there is no index."""
        if 0 not in self._shape:
            self.write_axis(0, {o: self._moved(o, f"%p{o.argument}", o.offset) for o in self._operands})

    def body(self, addresses: dict[Operand, str]) -> None:
        """Write the work at an index."""
        raise NotImplementedError

    def write_axis(self, axis: int, bases: dict[Operand, str]) -> None:
        """Write the loop over an axis, given the addresses of the operands at its start, and all loops in it."""

        def body(index: int | str, _: list[str]) -> list[str]:
            here = self.addresses(axis, bases, index)
            if axis + 1 < len(self._shape):
                self.write_axis(axis + 1, here)
            else:
                self.body(here)
            return []

        self.w.loop(*self.bounds(axis), body)

    def bounds(self, axis: int) -> tuple[int | str, int | str]:
        """Return the first index along an axis, and the one after the last; for rows, names of what the call says."""
        return ("%first", "%last") if axis == 0 and self._by_rows else (0, self._shape[axis])

    def addresses(self, axis: int, bases: dict[Operand, str], index: int | str) -> dict[Operand, str]:
        """Write the addresses of the operands at an index along an axis."""
        here: dict[Operand, str] = {}
        for operand, base in bases.items():
            here[operand] = self._moved(operand, base, self._steps(index, operand.strides[axis]))
        return here

    def _steps(self, index: int | str, stride: int) -> int | str:
        if isinstance(index, int) or stride == 0:
            return index * stride if isinstance(index, int) else 0
        return index if stride == 1 else self.w.value(f"mul nsw i64 {index}, {stride}")

    def _moved(self, operand: Operand, base: str, steps: str | int) -> str:
        if steps == 0:
            return base
        return self.w.value(f"getelementptr inbounds {TYPES[operand.dtype]}, ptr {base}, i64 {steps}")
