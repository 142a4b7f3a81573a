"""Vectors of numbers, and their places in memory, in the assembly language of LLVM."""

from __future__ import annotations

from collections.abc import Sequence

from aidotnet_py.backends.numpy.assembly.loops import TYPES
from aidotnet_py.backends.numpy.assembly.writer import Writer

__all__ = ["Vectors"]


class Vectors:
    """Instructions on vectors of so many bytes, and on numbers of 64 bits; each returns the name of its result.

    Attributes
    ----------
    w : Writer
        Where they are written.
    kind, vector : str
        The types of an element and of a vector.
    size, width : int
        The bytes of an element, and the elements of a vector.
    """

    def __init__(self, dtype: str, nbytes: int) -> None:
        self.w = Writer()
        self.kind, self.size = TYPES[dtype], {"float32": 4, "float64": 8}[dtype]
        self.width = nbytes // self.size
        self.vector = f"<{self.width} x {self.kind}>"
        self._suffix = f"v{self.width}f{8 * self.size}"

    def declarations(self) -> list[str]:
        """Return the declarations of the functions that instructions call."""
        vector, mask = self.vector, f"<{self.width} x i1>"
        return [
            f"declare {vector} @llvm.fma.{self._suffix}({vector}, {vector}, {vector})",
            f"declare {vector} @llvm.masked.load.{self._suffix}.p0(ptr, i32, {mask}, {vector})",
            "declare i64 @llvm.smin.i64(i64, i64)",
        ]

    def up(self, length: str, step: int) -> str:
        """Return the multiple of a step that is not less than a length."""
        over = self.number("add", length, step - 1)
        return self.number("sub", over, self.number("srem", over, step))

    def number(self, operation: str, a: int | str, b: int | str) -> str:
        """Compute with two numbers."""
        return self.w.value(f"{operation} i64 {a}, {b}")

    def least(self, a: int | str, b: int | str) -> str:
        """Return the lesser of two numbers."""
        return self.w.value(f"call i64 @llvm.smin.i64(i64 {a}, i64 {b})")

    def place(self, base: str, *steps: int | str) -> str:
        """Return the address so many elements after another."""
        for step in steps:
            base = self.w.value(f"getelementptr inbounds {self.kind}, ptr {base}, i64 {step}")
        return base

    def times(self, a: int | str, b: int | str) -> str:
        """Multiply two numbers."""
        return self.number("mul nsw", a, b)

    def load(self, place: str) -> str:
        """Read a vector."""
        return self.w.value(f"load {self.vector}, ptr {place}, align {self.size}")

    def load_where(self, mask: str, place: str) -> str:
        """Read the elements of a vector for which a mask holds, and zeros for the others."""
        arguments = f"ptr {place}, i32 {self.size}, <{self.width} x i1> {mask}, {self.vector} zeroinitializer"
        return self.w.value(f"call {self.vector} @llvm.masked.load.{self._suffix}.p0({arguments})")

    def add_product(self, a: str, b: str, total: str) -> str:
        """Add the product of two vectors to a third one, with one rounding."""
        arguments = ", ".join(f"{self.vector} {vector}" for vector in (a, b, total))
        return self.w.value(f"call {self.vector} @llvm.fma.{self._suffix}({arguments})")

    def store(self, vector: str, place: str) -> None:
        """Write a vector."""
        self.w.line(f"  store {self.vector} {vector}, ptr {place}, align {self.size}")

    def copy(self, source: str, target: str) -> None:
        """Copy an element."""
        element = self.w.value(f"load {self.kind}, ptr {source}")
        self.w.line(f"  store {self.kind} {element}, ptr {target}")

    def transposed(self, vectors: list[str]) -> list[str]:
        """Return the columns of a square of vectors: halves change places, then halves of the halves, and so on."""
        width = half = self.width
        while half := half // 2:
            for i in (i for i in range(width) if not i & half):
                a, b = vectors[i], vectors[i + half]
                vectors[i] = self._chosen(a, b, [e + width - half if e & half else e for e in range(width)])
                vectors[i + half] = self._chosen(a, b, [e + width if e & half else e + half for e in range(width)])
        return vectors

    def _chosen(self, a: str, b: str, lanes: Sequence[int]) -> str:
        """Return a vector of lanes of two others."""
        mask = ", ".join(f"i32 {lane}" for lane in lanes)
        return self.w.value(f"shufflevector {self.vector} {a}, {self.vector} {b}, <{self.width} x i32> <{mask}>")
