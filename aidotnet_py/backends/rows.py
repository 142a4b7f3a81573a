"""Rows of an axis that nests have in common, such as the tasks of a batch, and whether the nests treat them apart."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from aidotnet_py.backends.kernel import Kernel, LoopNest, Operand, Product, collapsed, with_operands

__all__ = ["Access", "ByRows", "accesses_of", "all_apart", "are_apart", "rows_first", "whole_operands"]

# Elements of a nest whose order of loops does not matter for its time.
_FEW = 2**14


@dataclass(frozen=True)
class Access:
    """Where a nest reads or writes: stride of rows, the other axes' lengths and strides, and the size of an element."""

    row: int
    others: tuple[tuple[int, int], ...]
    offset: int
    size: int = 1

    @property
    def low(self) -> int:
        """The lowest place in the first row."""
        return self.offset + sum(min(0, s * (n - 1)) for n, s in self.others)

    @property
    def high(self) -> int:
        """The end of the highest element in the first row."""
        return self.offset + sum(max(0, s * (n - 1)) for n, s in self.others) + self.size


def are_apart(accesses: Iterable[Access], length: int) -> bool:
    """Return whether no row of any access meets another row of any access, of which one may write.

    Either each row has memory of its own, of the length of the stride between rows; or rows are interlaced, and an
    address tells its row by its remainder.
    """
    accesses = list(accesses)
    strides = {a.row for a in accesses}
    if len(strides) != 1 or min(strides) < max(a.size for a in accesses):
        return False
    (stride,) = strides
    if max(a.high for a in accesses) - min(a.low for a in accesses) <= stride:
        return True
    period = stride * length
    return len({a.offset % period for a in accesses}) == 1 and all(
        s % period == 0 for a in accesses for _, s in a.others
    )


def rows_first(nest: LoopNest | Product, length: int) -> LoopNest | Product | None:
    """Return the nest with an axis of rows first, the others merged; None if it treats the rows of no axis apart."""
    return next(_with_rows_first(nest, length), None)


def _with_rows_first(nest: LoopNest | Product, length: int) -> Iterator[LoopNest | Product]:
    """Yield the nest by rows of each axis of their length that it treats apart: all written places differ."""
    for axis in (i for i, n in enumerate(nest.shape) if n == length):
        if all(o.strides[axis] > 0 for o in nest.written):
            moved = _with_axis_first(nest, axis)
            if _treats_apart(moved, accesses_of(moved), length):
                yield moved


def _treats_apart(nest: LoopNest | Product, accesses: Mapping[int, Iterable[Access]], length: int) -> bool:
    """Return whether no row meets another row in what the nest writes, given all accesses there by argument."""
    return all(are_apart(accesses[o.argument], length) for o in nest.written)


def _with_axis_first(nest: LoopNest | Product, axis: int) -> LoopNest | Product:
    order = [axis, *(i for i in range(len(nest.shape)) if i != axis)]

    def reorder(operand: Operand) -> Operand:
        return replace(operand, strides=tuple(operand.strides[i] for i in order))

    moved = replace(with_operands(nest, reorder), shape=tuple(nest.shape[i] for i in order))
    return moved if isinstance(moved, Product) else collapsed(moved, leading=1)


def accesses_of(nest: LoopNest | Product) -> dict[int, set[Access]]:
    """Return the accesses of a nest whose first axis has the rows, by argument, counted in elements."""
    found: defaultdict[int, set[Access]] = defaultdict(set)
    for operand, shape in whole_operands(nest):
        others = tuple(pair for pair in zip(shape[1:], operand.strides[1:], strict=True) if pair[0] > 1 and pair[1])
        found[operand.argument].add(Access(operand.strides[0], others, operand.offset))
    return found


def whole_operands(nest: LoopNest | Product) -> list[tuple[Operand, tuple[int, ...]]]:
    """Return the operands with the shape that their strides belong to; those of products with rows and columns."""
    if isinstance(nest, LoopNest):
        return [(o, nest.shape) for o in nest.operands]
    m, k, n = nest.sizes
    factors = ((nest.x, (m, k)), (nest.y, (k, n)), (nest.out, (m, n)))
    return [(factor.whole, (*nest.shape, *sizes)) for factor, sizes in factors]


@dataclass(frozen=True)
class ByRows:
    """The nests of a kernel, all with an axis of one length first: the rows, of which any range can be computed.

    Attributes
    ----------
    length : int
        The number of rows, at least 2.
    nests : tuple of LoopNest or Product
        The nests.
    """

    length: int
    nests: tuple[LoopNest | Product, ...]

    @staticmethod
    def of(kernel: Kernel) -> ByRows | None:
        """Return a kernel by rows of the first axis of most of its nests; None if some nest does not treat them apart.

        Within a row the elements keep their order, and so each sum keeps its order of terms.
        """
        lengths = Counter(nest.shape[0] for nest in kernel.nests if nest.shape and nest.shape[0] > 1)
        if not lengths:
            return None
        ((length, _),) = lengths.most_common(1)
        choices: list[list[LoopNest | Product]] = []
        for nest in kernel.nests:
            # In another order of its loops, a nest of many elements would be slower.
            is_quick = nest.shape[:1] == (length,) or math.prod(nest.shape) <= _FEW
            choices.append(list(_with_rows_first(nest, length)) if is_quick else [])
            if not choices[-1]:
                return None
        return ByRows(length, tuple(_agreed(choices, length)))

    def accesses(self, addresses: Sequence[int]) -> Iterator[tuple[Access, bool]]:
        """Yield the accesses in bytes, given the arguments' addresses, and whether each writes."""
        for nest in self.nests:
            written = {o.argument for o in nest.written}
            for operand, shape in whole_operands(nest):
                size = np.dtype(operand.dtype).itemsize
                others = ((n, s * size) for n, s in zip(shape[1:], operand.strides[1:], strict=True) if n > 1 and s)
                offset = addresses[operand.argument] + operand.offset * size
                yield Access(operand.strides[0] * size, tuple(others), offset, size), operand.argument in written

    @property
    def work(self) -> int:
        """About how many steps on elements there are; eight multiplications of a product count as one."""
        total = 0
        for nest in self.nests:
            of_each = math.prod(nest.sizes) // 8 if isinstance(nest, Product) else max(len(nest.steps), 1)
            total += math.prod(nest.shape) * of_each
        return total


def _agreed(choices: Sequence[Sequence[LoopNest | Product]], length: int) -> Iterator[LoopNest | Product]:
    """Yield for each nest the first choice whose rows are apart from those of the nests without a choice.

    Where another axis has the length of the rows by chance, a nest alone does not tell which is meant.
    """
    certain: defaultdict[int, set[Access]] = defaultdict(set)
    if any(len(nests) > 1 for nests in choices):
        for only in (nests[0] for nests in choices if len(nests) == 1):
            for argument, accesses in accesses_of(only).items():
                certain[argument] |= accesses
    for nests in choices:
        if len(nests) == 1:
            yield nests[0]
            continue
        joined = ({a: of | certain[a] for a, of in accesses_of(nest).items()} for nest in nests)
        agree = (nest for nest, accesses in zip(nests, joined, strict=True) if _treats_apart(nest, accesses, length))
        yield next(agree, nests[0])


def all_apart(kernels: Sequence[tuple[ByRows, Sequence[int]]]) -> bool:
    """Return whether no row of any kernel meets another row of any of them in memory, of which one is written.

    They can then run, one after another, on some rows while another thread runs them on others.

    Parameters
    ----------
    kernels : sequence of (ByRows, sequence of int)
        The kernels, and the addresses of the arguments of each.
    """
    lengths = {kernel.length for kernel, _ in kernels}
    if len(lengths) != 1:
        return False
    (length,) = lengths
    accesses = {access for kernel, addresses in kernels for access in kernel.accesses(addresses)}
    if any(access.row < 0 for access, _ in accesses):
        return False
    return all(are_apart(group, length) for group in _overlapping(accesses, length))


def _overlapping(accesses: Iterable[tuple[Access, bool]], length: int) -> Iterator[list[Access]]:
    """Yield the accesses that overlap each other, directly or by others between, and of which one writes."""
    group, is_written, end = list[Access](), False, 0
    for access, writes in sorted(accesses, key=lambda pair: pair[0].low):
        if group and access.low >= end:
            if is_written:
                yield group
            group, is_written = [], False
        group.append(access)
        is_written |= writes
        end = max(end, access.high + access.row * (length - 1))
    if is_written:
        yield group
