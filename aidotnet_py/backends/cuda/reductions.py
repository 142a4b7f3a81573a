"""Sums and maxima of loop nests in CUDA C++, in an order that is the same at each run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from aidotnet_py.backends.cuda.launch import BLOCK, SHARED, Launch, function_text, unflattened
from aidotnet_py.backends.cuda.steps import TYPES, Element, Parameters, index_type, joined, literal
from aidotnet_py.backends.kernel import LoopNest, Operand, Reference

__all__ = ["Group", "Reduction", "Row", "cleared_by", "groups_of"]

# So many threads, with at most a few thousand elements each, keep a large GPU busy.
_BUSY = 2**17
# So many blocks give each of its multiprocessors about one.
_BLOCKS = 128


@dataclass(frozen=True)
class _Coordinate:
    """One direction of a target's elements, at multiples of a step.

    Several axes of the nest may run along it, such as the windows of an image and the places inside a window. The
    element's place and the other axes then determine the index along the first axis.
    """

    axes: tuple[int, ...]
    step: int
    start: int
    length: int


def _coordinates(place: Operand, shape: Sequence[int]) -> tuple[_Coordinate, ...]:
    """Return the coordinates of a target, the finest first; axes with stride 0 have none."""
    coordinates: list[_Coordinate] = []
    span = 0
    moving = [axis for axis in range(len(shape)) if shape[axis] > 1 and place.strides[axis]]
    for axis in sorted(moving, key=lambda axis: abs(place.strides[axis])):
        stride, last = place.strides[axis], shape[axis] - 1
        if abs(stride) > span:
            coordinates.append(_Coordinate((axis,), abs(stride), min(0, stride * last), shape[axis]))
        else:
            before = coordinates[-1]
            assert stride % before.step == 0, "of two overlapping axes of a target, one stride must divide the other"
            coordinates[-1] = _Coordinate(
                (*before.axes, axis),
                before.step,
                before.start + min(0, stride * last),
                before.length + abs(stride) // before.step * last,
            )
        span += abs(stride) * last
    return tuple(coordinates)


@dataclass(frozen=True)
class Row:
    """A block of threads that does all work at one index of the first axis, ``i0``.

    ``shared`` is an array of double in its shared memory, free for every nest in turn.
    """

    parameters: Parameters
    threads: int


@dataclass
class Group:
    """Targets whose elements depend on the same axes."""

    coordinates: tuple[_Coordinate, ...]
    targets: list[tuple[str, Operand, Reference]]

    @property
    def is_gathered(self) -> bool:
        """Whether axes overlap, so that each element gathers its terms."""
        return any(len(c.axes) > 1 for c in self.coordinates)


def groups_of(nest: LoopNest) -> list[Group]:
    """Group the targets of a nest that one reduction can compute together."""
    groups: dict[object, Group] = {}
    for kind, pairs in (("sum", nest.sums), ("max", nest.maxima)):
        for place, value in pairs:
            coordinates = _coordinates(place, nest.shape)
            gathered = any(len(c.axes) > 1 for c in coordinates)
            key = (place, kind) if gathered else frozenset(a for c in coordinates for a in c.axes)
            groups.setdefault(key, Group(coordinates, [])).targets.append((kind, place, value))
    return list(groups.values())


def cleared_by(fill: LoopNest, nest: LoopNest) -> Operand | None:
    """Return the target of ``nest`` that ``fill`` clears and ``nest`` can overwrite without reading; None if none."""
    if fill.sums or fill.maxima or len(fill.stores) != 1:
        return None
    (place, value) = fill.stores[0]
    while isinstance(value, int) and fill.steps[value].operation == "identity":
        (value,) = fill.steps[value].inputs
    for kind, pairs in (("sum", nest.sums), ("max", nest.maxima)):
        for target, _ in pairs:
            start = 0.0 if kind == "sum" else -math.inf
            if getattr(value, "value", None) == start and _same_places(place, fill.shape, target, nest.shape):
                near = [o for o in nest.operands if o.argument == target.argument and o != target]
                return None if near else target
    return None


def _same_places(x: Operand, x_shape: Sequence[int], y: Operand, y_shape: Sequence[int]) -> bool:
    def lines(operand: Operand, shape: Sequence[int]) -> tuple[int, list[tuple[int, int]]]:
        start, merged = operand.offset, list[tuple[int, int]]()
        for c in _coordinates(operand, shape):
            start += c.start
            if merged and c.step == merged[-1][0] * merged[-1][1]:
                merged[-1] = (merged[-1][0], merged[-1][1] * c.length)
            else:
                merged.append((c.step, c.length))
        return start, merged

    if 0 in x_shape or 0 in y_shape or (x.argument, x.dtype) != (y.argument, y.dtype):
        return False
    return lines(x, x_shape) == lines(y, y_shape)


@dataclass(frozen=True)
class _Division:
    """The division of a reduction among threads.

    A block computes ``elements`` of the result, with ``parts`` threads for each; the terms of an element are divided
    among ``chunks`` blocks. Neighbouring threads have neighbouring terms, or else neighbouring elements.
    """

    elements: int
    parts: int
    chunks: int
    terms_are_neighbours: bool

    @property
    def threads(self) -> int:
        return self.elements * self.parts


def _power_of_two(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


def _divide(results: int, terms: int, most: int, *, terms_are_neighbours: bool) -> _Division:
    """Divide a reduction by its sizes alone, which then fix the order of sums; blocks have at most ``most`` threads."""
    parts = 1
    if terms_are_neighbours and terms >= 32:
        parts = 32
    while parts < most and results * parts < _BUSY and terms >= 8 * parts:
        parts *= 2
    if parts == 1:
        return _Division(BLOCK, 1, 1, terms_are_neighbours=False)
    elements = 1 if terms_are_neighbours else min(32, _power_of_two(results))
    # Eight neighbours fill a sector of memory; beyond that, more blocks gain more than longer rows.
    while elements > 8 and results < elements * _BLOCKS:
        elements //= 2
    parts = min(parts, most // elements)
    while elements * parts < BLOCK and elements < results:
        elements *= 2
    threads = -(-results // elements) * elements * parts
    chunks = max(1, min(terms // (16 * parts), _BUSY // threads))
    return _Division(elements, parts, chunks, terms_are_neighbours)


def _divide_in_block(results: int, terms: int, threads: int, *, terms_are_neighbours: bool) -> _Division:
    """Divide a reduction among the threads of one block, with at least eight terms for each."""
    parts = 1
    while 2 * parts * results <= threads and terms >= 16 * parts:
        parts *= 2
    return _Division(threads // parts, parts, 1, terms_are_neighbours and parts > 1)


class Reduction:
    """Sums and maxima with the same coordinates, with the stores of their nest.

    Parameters
    ----------
    nest, group : LoopNest, Group
        The nest, and the targets to compute.
    cleared : dict
        Whether the old values of a target are ignored.
    row : Row, optional
        The block that does the work at one index of the first axis; None for a call of its own.
    """

    def __init__(self, nest: LoopNest, group: Group, cleared: dict[Operand, bool], row: Row | None = None) -> None:
        of_group = {(place, value) for _, place, value in group.targets}
        self.nest = replace(
            nest,
            sums=tuple(p for p in nest.sums if p in of_group),
            maxima=tuple(p for p in nest.maxima if p in of_group),
        )
        self.group = group
        self.cleared = cleared
        self.shape = nest.shape
        self.row = row
        live = [o for o in self.nest.operands if o in self._needed_operands()]
        self.parameters = Parameters(live, self.nest.written) if row is None else row.parameters
        self.index = index_type(self.shape, live)
        coordinates = [c for c in group.coordinates if row is None or c.axes != (0,)]
        self.results = math.prod(c.length for c in coordinates)
        along = {axis for c in group.coordinates for axis in c.axes}
        main = max(live, key=lambda o: math.prod(n for n, s in zip(self.shape, o.strides, strict=True) if s))
        free = [axis for axis in range(len(self.shape)) if axis not in along]
        self.free = sorted(free, key=lambda axis: -abs(main.strides[axis]))
        # Coordinates from the slowest to the fastest in the main operand.
        self.coordinates = sorted(coordinates, key=lambda c: -min(abs(main.strides[a]) or 2**62 for a in c.axes))
        self.terms = math.prod(self.shape[axis] for axis in self.free)
        if group.is_gathered:
            self.division = _Division(BLOCK, 1, 1, terms_are_neighbours=False)
        else:
            steps = {a: abs(main.strides[a]) for a in range(len(self.shape)) if main.strides[a]}
            nearest = min(steps, key=lambda a: steps[a], default=None)
            each = sum(np.dtype(place.dtype).itemsize for _, place, _ in group.targets)
            most = min(1024, _power_of_two(SHARED // each + 1) // 2)
            divide = partial(_divide, most=most) if row is None else partial(_divide_in_block, threads=row.threads)
            self.division = divide(self.results, self.terms, terms_are_neighbours=nearest in self.free)

    def _needed_operands(self) -> set[Operand]:
        """Return the operands of these targets and stores."""
        references = [v for _, v in (*self.nest.stores, *self.nest.sums, *self.nest.maxima)]
        operands = set(self.nest.written)
        while references:
            reference = references.pop()
            if isinstance(reference, Operand):
                operands.add(reference)
            elif isinstance(reference, int):
                references += self.nest.steps[reference].inputs
        return operands

    def launches(self) -> list[Launch]:
        """Return the call, or two calls if the terms of an element are divided among blocks."""
        d = self.division
        blocks = -(-self.results // d.elements)
        code = function_text("", self.parameters, self.index, [*self._terms(blocks), *self._tree()], d.threads)
        arguments = self.parameters.arguments
        if d.chunks == 1:
            return [Launch(code, "", blocks, d.threads, arguments)]
        partial = "".join(
            f"__device__ {TYPES[place.dtype]} NAME_partial{i}[{d.chunks * self.results}];\n"
            for i, (_, place, _) in enumerate(self.group.targets)
        )
        code = partial + code + function_text("_end", self.parameters, self.index, list(self._last_pass()), BLOCK)
        return [
            Launch(code, "", blocks * d.chunks, d.threads, arguments),
            Launch(code, "_end", -(-self.results // BLOCK), BLOCK, arguments),
        ]

    def in_row(self) -> list[str]:
        """Return the lines of the row's block."""
        elements = self.division.elements
        rounds = f"for (unsigned block = 0u; block < {-(-self.results // elements)}u; ++block) {{"
        return [rounds, *(f"  {line}" for line in (*self._terms(0), *self._tree())), "}"]

    def _terms(self, blocks: int) -> Iterator[str]:
        """Add the terms of each thread."""
        d = self.division
        element, part = f"threadIdx.x % {d.elements}u", f"threadIdx.x / {d.elements}u"
        if d.terms_are_neighbours:
            element, part = f"threadIdx.x / {d.parts}u", f"threadIdx.x % {d.parts}u"
        block, chunk = ("blockIdx.x", "0u") if d.chunks == 1 else (f"blockIdx.x % {blocks}u", f"blockIdx.x / {blocks}u")
        if self.row is not None:
            block = "block"
        yield f"const unsigned part = {part}, chunk = {chunk};"
        yield f"const U o = (U)({block}) * {d.elements}u + {element};"
        for i, (kind, place, _) in enumerate(self.group.targets):
            yield f"{TYPES[place.dtype]} a{i} = {_start(kind, place)};"
        yield f"if (o < {self.results}u) {{"
        yield from (f"  {line}" for line in self._loops())
        yield "}"

    def _loops(self) -> Iterator[str]:
        d = self.division
        yield from self._coordinate_indices()
        opened = 0
        if self.terms > 1 or d.chunks * d.parts > 1:
            yield "#pragma unroll 4"
            yield f"for (U r = chunk * {d.parts}u + part; r < {self.terms}u; r += {d.parts * d.chunks}u) {{"
            opened += 1
        for axis, index in unflattened("r" if opened else "0u", self.free, self.shape).items():
            yield f"const I i{axis} = {index if self.shape[axis] > 1 else '0'};"
        for line in self._gathering():
            opened += line.endswith("{")
            yield line
        element = Element(self.nest, self.parameters, [f"i{axis}" for axis in range(len(self.shape))])
        stored = [place for place, _ in self.nest.stores]
        values = element.values([*(v for _, v in self.nest.stores), *(v for _, _, v in self.group.targets)])
        yield from element.lines
        for place, value in zip(stored, values, strict=False):
            yield f"{self.parameters.place(place, [f'i{a}' for a in range(len(self.shape))])} = {value};"
        for i, (kind, _, _) in enumerate(self.group.targets):
            yield f"a{i} = {_combine(kind, f'a{i}', values[len(stored) + i])};"
        yield "}" * opened

    def _coordinate_indices(self) -> Iterator[str]:
        """Compute the index of the result's element along each coordinate."""
        lengths = [c.length for c in self.coordinates]
        for place, index in unflattened("o", range(len(lengths)), lengths).items():
            coordinate = self.coordinates[place]
            yield f"const I u{place} = {index};"
            if len(coordinate.axes) == 1:
                (axis,) = coordinate.axes
                backwards = coordinate.start < 0
                yield f"const I i{axis} = {f'{coordinate.length - 1} - u{place}' if backwards else f'u{place}'};"

    def _gathering(self) -> Iterator[str]:
        """Open loops over overlapping axes but the first, whose index follows, in the order of the nest."""
        place_of = self.group.targets[0][1].strides
        overlapping = [(min(c.axes), i) for i, c in enumerate(self.coordinates) if len(c.axes) > 1]
        for _, number in sorted(overlapping):
            coordinate = self.coordinates[number]
            first, *others = coordinate.axes
            unit, last = place_of[first], self.shape[first] - 1
            sign = "" if unit > 0 else "-"
            yield f"const I t{number} = {sign}({coordinate.start // coordinate.step} + u{number});"
            ratios = {axis: place_of[axis] // unit for axis in others}
            *outer, inner = others
            for axis in outer:
                yield f"for (I i{axis} = 0; i{axis} < {self.shape[axis]}; ++i{axis}) {{"
            rest = joined([f"t{number}", *(f"{-ratios[axis]} * i{axis}" for axis in outer)])
            yield f"const I s{number} = {rest};"
            ratio = ratios[inner]
            low, high = (f"s{number} - {last}", f"s{number}") if ratio > 0 else (f"-s{number}", f"{last} - s{number}")
            n = self.shape[inner]
            size = abs(ratio)
            yield f"const I l{number} = floor_quotient<I>({low} + {size - 1}, {size});"
            yield f"const I h{number} = floor_quotient<I>({high}, {size});"
            yield (
                f"for (I i{inner} = l{number} > 0 ? l{number} : 0; "
                f"i{inner} <= (h{number} < {n - 1} ? h{number} : {n - 1}); ++i{inner}) {{"
            )
            yield f"const I i{first} = s{number} + {-ratio} * i{inner};"

    def _tree(self) -> Iterator[str]:
        """Add the parts of a block in pairs until one is left."""
        d = self.division
        targets = self.group.targets
        if d.parts > 1:
            yield "const unsigned t = threadIdx.x;"
            for i, (_, place, _) in enumerate(targets):
                kind = TYPES[place.dtype]
                yield (
                    f"__shared__ {kind} s{i}[{d.threads}];"
                    if self.row is None
                    else f"{kind} *s{i} = ({kind} *)(shared + {i * d.threads});"
                )
                yield f"s{i}[t] = a{i};"
            yield "__syncthreads();"
            step = 1 if d.terms_are_neighbours else d.elements
            yield f"for (unsigned half = {d.parts // 2}u; half > 0u; half /= 2u) {{"
            yield "  if (part < half) {"
            for i, (kind, _, _) in enumerate(targets):
                other = f"s{i}[t + half * {step}u]"
                yield f"    s{i}[t] = {_combine(kind, f's{i}[t]', other)};"
            yield "  }"
            yield "  __syncthreads();"
            yield "}"
        yield f"if (part == 0u && o < {self.results}u) {{"
        totals = [f"s{i}[t]" if d.parts > 1 else f"a{i}" for i in range(len(targets))]
        if d.chunks > 1:
            yield from (f"  NAME_partial{i}[chunk * {self.results}u + o] = {value};" for i, value in enumerate(totals))
        else:
            yield from (f"  {line}" for line in self._stores(totals))
        yield "}"

    def _last_pass(self) -> Iterator[str]:
        """Add the chunks of each element in order."""
        yield f"const U o = (U)blockIdx.x * {BLOCK}u + threadIdx.x;"
        yield f"if (o >= {self.results}u) return;"
        for i, (kind, place, _) in enumerate(self.group.targets):
            yield f"{TYPES[place.dtype]} a{i} = {_start(kind, place)};"
        yield f"for (unsigned c = 0; c < {self.division.chunks}u; ++c) {{"
        for i, (kind, _, _) in enumerate(self.group.targets):
            yield f"  a{i} = {_combine(kind, f'a{i}', f'NAME_partial{i}[c * {self.results}u + o]')};"
        yield "}"
        yield from self._stores([f"a{i}" for i in range(len(self.group.targets))])

    @staticmethod
    def _step_along(coordinate: _Coordinate, place: Operand) -> int:
        """Return the stride of a target along a coordinate; if the first target runs backwards, so do indices."""
        (axis,) = coordinate.axes
        return -place.strides[axis] if coordinate.start < 0 else place.strides[axis]

    def _stores(self, values: Sequence[str]) -> Iterator[str]:
        lengths = [c.length for c in self.coordinates]
        indices = unflattened("o", range(len(lengths)), lengths)
        for (kind, place, _), value in zip(self.group.targets, values, strict=True):
            # Gathered targets have the coordinates' own steps, however many axes run along each. Other targets of a
            # group share axes, but may have other strides.
            if self.group.is_gathered:
                steps, start = [c.step for c in self.coordinates], sum(c.start for c in self.coordinates)
            else:
                steps = [self._step_along(c, place) for c in self.coordinates]
                backwards = [c for c in self.coordinates if c.start < 0]
                start = sum(place.strides[c.axes[0]] * (c.length - 1) for c in backwards)
            at = [indices[i] for i in range(len(lengths))]
            if self.row is not None:
                steps, at = [place.strides[0], *steps], ["i0", *at]
            there = Operand(place.argument, place.dtype, tuple(steps), place.offset + start)
            element = self.parameters.place(there, at)
            yield f"{element} = {value if self.cleared[place] else _combine(kind, element, value)};"


def _start(kind: str, place: Operand) -> str:
    return literal(0.0 if kind == "sum" else -math.inf, place.dtype)


def _combine(kind: str, old: str, value: str) -> str:
    return f"{old} + {value}" if kind == "sum" else f"larger({old}, {value})"
