"""What nests at different places in memory have in common."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from aidotnet_py.backends.kernel import LoopNest, Operand, with_operands
from aidotnet_py.backends.numpy.assembly.loops import TYPES
from aidotnet_py.backends.numpy.assembly.writer import Writer

__all__ = ["Form"]


@dataclass(frozen=True)
class Form:
    """A nest on arguments 0, 1, …, and the first operand of each argument that it has in the kernel.

    Kernels do the same work on image after image; a function of it needs to be compiled once.
    """

    nest: LoopNest
    places: tuple[Operand, ...]

    @staticmethod
    def of(nest: LoopNest) -> Form:
        """Return the form of a nest."""
        operands = defaultdict[int, list[Operand]](list)
        for operand in nest.operands:
            operands[operand.argument].append(operand)
        places = {argument: _first(of_one) for argument, of_one in operands.items()}
        numbers = {argument: number for number, argument in enumerate(places)}

        def moved(operand: Operand) -> Operand:
            offset = operand.offset - places[operand.argument].offset
            return replace(operand, argument=numbers[operand.argument], offset=offset)

        form = with_operands(nest, moved)
        assert isinstance(form, LoopNest)
        return Form(form, tuple(places.values()))

    def write_call(self, writer: Writer, function: str) -> None:
        """Write a call of the function of ``nest``."""
        pointers = list[str]()
        for place in self.places:
            address = f"%p{place.argument}"
            if place.offset:
                kind = TYPES[place.dtype]
                address = writer.value(f"getelementptr inbounds {kind}, ptr {address}, i64 {place.offset}")
            pointers.append(f"ptr {address}")
        writer.line(f"  call void @{function}({', '.join([*pointers, 'i64 %first', 'i64 %last'])})")


def _first(operands: Sequence[Operand]) -> Operand:
    """Return the first operand of an argument; if their elements have several sizes, the argument's start."""
    first = min(operands, key=lambda o: o.offset)
    return first if len({o.dtype for o in operands}) == 1 else replace(first, offset=0)
