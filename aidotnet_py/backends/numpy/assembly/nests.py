"""The loops of a nest of elementwise work: several elements at a time, then the rest one by one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence, Set
from itertools import pairwise

from aidotnet_py.backends.kernel import LoopNest, Operand
from aidotnet_py.backends.numpy.assembly.elements import WIDTHS, Elements, kind_of
from aidotnet_py.backends.numpy.assembly.loops import Loops
from aidotnet_py.backends.numpy.assembly.writer import Writer

__all__ = ["Nest"]

# Steps and places written that go one after another, without a loop.
_FEW = 8


class Nest(Loops):
    """The loops of one nest.

    LLVM's own passes would find the same vectors, and what stays along the innermost loop, in as much time as the rest
    of its compilation takes.
    """

    def __init__(self, writer: Writer, nest: LoopNest, *, by_rows: bool) -> None:
        super().__init__(writer, nest.shape, nest.operands, by_rows=by_rows)
        self.nest = nest
        staying = {operand for operand in nest.operands if operand.strides[-1] == 0}
        updated = [place for place, _ in (*nest.sums, *nest.maxima)]
        written = {place.argument for place in nest.written}
        # Where an element may be read that another one's work wrote, all go one by one, in memory.
        self._in_order = _reads_what_it_writes(nest, staying)
        self._constants, self._totals = list[Operand](), list[Operand]()
        if not self._in_order:
            self._constants = [o for o in nest.operands if o in staying and o.argument not in written]
            self._totals = [place for place in updated if place in staying]

    def write_axis(self, axis: int, bases: dict[Operand, str]) -> None:
        """See `Loops.write_axis`; the last axis goes several elements at a time, and then the rest one by one."""
        if axis + 1 < len(self._shape):
            super().write_axis(axis, bases)
            return
        before = Elements(self.w, self.nest, 1, bases)
        constants = {o: before.load(o) for o in self._constants}
        if self._by_rows and axis == 0:
            # No total stays along rows: several calls would write it.
            self._write_rows(bases, constants)
            return
        length = self._shape[axis]
        width = self._width_for(length)
        middle = length - length % width
        totals = {place: before.load(place) for place in self._totals}
        totals = self._write_part(0, middle, width, bases, constants, totals)
        if middle < length:
            totals = self._write_part(middle, length, 1, bases, constants, totals)
        for place, total in totals.items():
            before.store(place, total)

    def _write_rows(self, bases: dict[Operand, str], constants: dict[Operand, str]) -> None:
        """Write the loops over a range of rows that a call tells."""

        def write(first: int | str, end: int | str, width: int) -> None:
            self._write_part(first, end, width, bases, constants, {})

        start, stop = self.bounds(0)
        # Vectors pay where each of a few threads has some.
        width = self._width_for(self._shape[0] // 4)
        if width == 1:
            write(start, stop, 1)
            return
        count = self.w.value(f"sub i64 {stop}, {start}")
        rest = self.w.value(f"urem i64 {count}, {width}")
        middle = self.w.value(f"sub i64 {stop}, {rest}")
        self.w.where(f"icmp ult i64 {start}, {middle}", lambda: write(start, middle, width))
        self.w.where(f"icmp ult i64 {middle}, {stop}", lambda: write(middle, stop, 1))

    def _width_for(self, length: int) -> int:
        """Return how many of so many elements go at a time: at most 32 bytes of the widest dtype."""
        dtypes = {step.dtype for step in self.nest.steps} | {operand.dtype for operand in self.nest.operands}
        most = 1 if self._in_order else 4 if "float64" in dtypes else 8
        return max(width for width in WIDTHS if width <= max(1, min(most, length)))

    def _write_part(
        self,
        start: int | str,
        stop: int | str,
        width: int,
        bases: dict[Operand, str],
        constants: dict[Operand, str],
        totals: dict[Operand, str],
    ) -> dict[Operand, str]:
        """Write a loop along the last axis that takes ``width`` elements at a time; return the totals after it."""
        copies = {o: self.w.repeated(kind_of(o.dtype), value, width) for o, value in constants.items()}

        def body(index: int | str, begun: list[str]) -> list[str]:
            here = self.addresses(len(self._shape) - 1, bases, index)
            elements = Elements(self.w, self.nest, width, here, copies, dict(zip(totals, begun, strict=True)))
            return list(elements.write().values())

        if isinstance(start, int) and isinstance(stop, int):
            indices = range(start, stop, width)
            work = len(self.nest.steps) + len(self.nest.written)
            # Loops of few turns of little work take longer to count than to run.
            if len(indices) * work <= _FEW:
                values = list(totals.values())
                for index in indices:
                    values = body(index, values)
                return dict(zip(totals, values, strict=True))
        carried = [(kind_of(place.dtype), total) for place, total in totals.items()]
        return dict(zip(totals, self.w.loop(start, stop, body, step=width, carried=carried), strict=True))


def _reads_what_it_writes(nest: LoopNest, staying: Set[Operand]) -> bool:
    """Return whether the work on one element of the last axis may read, or write again, what that on another wrote."""
    operands = defaultdict[int, list[Operand]](list)
    for operand in nest.operands:
        operands[operand.argument].append(operand)
    moved = [r for pair in (*nest.stores, *nest.sums, *nest.maxima) for r in pair]
    mentions = Counter([*(r for step in nest.steps for r in step.inputs), *moved])
    return any(
        not _are_apart(operands[place.argument], nest.shape[-1]) or (place in staying and mentions[place] > 1)
        for place in nest.written
    )


def _are_apart(operands: Sequence[Operand], length: int) -> bool:
    """Return whether no element along the last axis of one operand is an element of another one."""
    if len(operands) == 1:
        return True
    starts = sorted(operand.offset for operand in operands)
    alike = len({(operand.strides, operand.dtype) for operand in operands}) == 1 and operands[0].strides[-1] == 1
    return alike and all(later - earlier >= length for earlier, later in pairwise(starts))
