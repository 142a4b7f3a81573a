"""Products with windows of images, some images at a time, where the windows of all would be too many to keep.

The windows of an image hold each pixel as often as there are places in a window: of large images or large batches they
would fill the memory that everything else has to pass through. A product over them needs only a few at a time.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from aidotnet_py.autodiff.primitives.concatenation import concatenate
from aidotnet_py.autodiff.primitives.matmul import matmul, matrix_transpose
from aidotnet_py.autodiff.primitives.shape import reshape, slice_
from aidotnet_py.autodiff.primitives.windows import fold, patches
from aidotnet_py.autodiff.program import Atom, Equation, Literal, Program, Variable
from aidotnet_py.autodiff.tracing import as_traced, emit, new_trace
from aidotnet_py.autodiff.transforms.simplification import without_dead

__all__ = ["tiled"]

# Windows of more bytes than that are taken in tiles of about the second number, which stay within a core's own cache.
_MOST_BYTES, _TILE_BYTES = 2**22, 2**19


def tiled(program: Program, stage_of: Mapping[Atom, int]) -> Program:
    """The program with products over many windows done in tiles.

    Parameters
    ----------
    program : Program
        Any.
    stage_of : mapping
        The stage of each value. Windows that an earlier stage leaves to a later one are kept whole, so that they are
        not taken anew at each of its runs.
    """
    found = _Products(program, stage_of).found
    if not found:
        return program
    with new_trace() as trace:
        values: dict[Atom, Any] = {v: trace.new_input(v.type) for v in program.inputs}
        values.update((v, as_traced(value)) for v, value in program.constants)

        def read(atom: Atom) -> Any:
            return atom if isinstance(atom, Literal) else values[atom]

        for equation in program.equations:
            product = found.get(equation.output)
            if product is None:
                value = emit(equation.primitive, *map(read, equation.inputs), **equation.parameters)
            else:
                value = product.emit([read(v) for v in product.operands])
            values[equation.output] = value
        return without_dead(trace.finish([read(a) for a in program.outputs]))


@dataclass(frozen=True)
class _Product:
    """A product over windows of ``tasks`` × ``images`` images, a task's taken ``per_tile`` or fewer at a time."""

    operands: tuple[Variable, Variable]
    tasks: int
    images: int
    per_tile: int
    pixels: int
    parameters: Mapping[str, Any]

    def emit(self, operands: Sequence[Any]) -> Any:
        raise NotImplementedError

    def tiles(self) -> list[list[tuple[int, int]]]:
        """For each task, the first and the last image of each tile."""
        edges = [*range(0, self.images, self.per_tile), self.images]
        return [list(pairwise(edges)) for _ in range(self.tasks)]

    def windows(self, x: Any, task: int, start: int, stop: int) -> Any:
        """The windows of some images as rows (pixels, span)."""
        first = task * self.images
        some = slice_(x, _rows(x.shape, first + start, first + stop))
        taken = patches(some, **self.parameters)
        return reshape(taken, ((stop - start) * self.pixels, math.prod(taken.shape[3:])))

    def rows(self, y: Any, task: int, start: int, stop: int) -> Any:
        """The pixels of some images of (tasks, images × pixels, n) as rows."""
        flat = reshape(y, (self.tasks * self.images * self.pixels, y.shape[-1]))
        first = task * self.images
        return slice_(flat, _rows(flat.shape, (first + start) * self.pixels, (first + stop) * self.pixels))


def _rows(shape: tuple[int, ...], start: int, stop: int) -> tuple[tuple[int, int, int], ...]:
    return ((start, stop, 1), *((0, n, 1) for n in shape[1:]))


def _matrix(y: Any, task: int) -> Any:
    """A task's matrix of (tasks, m, n) or (m, n)."""
    if len(y.shape) == 2:
        return y
    return reshape(slice_(y, _rows(y.shape, task, task + 1)), y.shape[1:])


class _Forward(_Product):
    """Windows times a matrix: the tiles' rows one after another."""

    def emit(self, operands: Sequence[Any]) -> Any:
        x, w = operands
        parts = [
            matmul(self.windows(x, task, start, stop), _matrix(w, task))
            for task, tiles in enumerate(self.tiles())
            for start, stop in tiles
        ]
        rows = self.images * self.pixels
        return reshape(concatenate(parts, 0), (*w.shape[:-2], rows, w.shape[-1]))


class _Weights(_Product):
    """Windows, transposed, times rows: the sum over the tiles."""

    def emit(self, operands: Sequence[Any]) -> Any:
        x, y = operands
        sums: list[Any] = []
        for task, tiles in enumerate(self.tiles()):
            parts = [
                matmul(matrix_transpose(self.windows(x, task, start, stop)), self.rows(y, task, start, stop))
                for start, stop in tiles
            ]
            total = parts[0]
            for part in parts[1:]:
                total = total + part
            sums.append(total)
        span, filters = sums[0].shape
        return reshape(concatenate(sums, 0), (*y.shape[:-2], span, filters))


class _Backward(_Product):
    """Rows times a matrix, folded back onto images."""

    def emit(self, operands: Sequence[Any]) -> Any:
        y, w = operands
        image, stride, shape = (self.parameters[name] for name in ("image", "stride", "shape"))
        parts: list[Any] = []
        for task, tiles in enumerate(self.tiles()):
            for start, stop in tiles:
                windows = matmul(self.rows(y, task, start, stop), _matrix(w, task))
                parts.append(fold(reshape(windows, (stop - start, *shape[1:])), image, stride))
        return concatenate(parts, 0)


class _Products:
    """The products of a program that are worth taking in tiles, by the value that they give."""

    def __init__(self, program: Program, stage_of: Mapping[Atom, int]) -> None:
        self._made_by = {e.output: e for e in program.equations}
        self._stage_of = stage_of
        self._uses = Counter(v for e in program.equations for v in e.variables)
        self._uses.update(a for a in program.outputs if isinstance(a, Variable))
        self.found: dict[Variable, _Product] = {}
        for equation in program.equations:
            product = {"matmul": self._over_windows, "fold": self._onto_images}.get(equation.primitive.name)
            tiles = None if product is None else product(equation)
            if tiles is not None:
                self.found[equation.output] = tiles

    def _over_windows(self, equation: Equation) -> _Product | None:
        """A product whose first factor is windows, or windows transposed."""
        first, second = equation.inputs
        if not isinstance(first, Variable) or not isinstance(second, Variable):
            return None
        source, transposed = first, False
        maker = self._made_by.get(source)
        if maker is not None and maker.primitive.name == "permute_dims" and _swaps_last(maker):
            (source,), transposed = maker.variables, True
        windows = self._behind_reshapes(source)
        maker = self._made_by.get(windows)
        if maker is None or maker.primitive.name != "patches" or self._kept_for_later(windows, equation.output):
            return None
        (x,) = maker.variables
        kind = _Weights if transposed else _Forward
        return self._product(kind, (x, second), source.type.shape, windows, maker.parameters)

    def _onto_images(self, equation: Equation) -> _Product | None:
        """A fold of a product that nothing else uses."""
        (windows,) = equation.variables
        source = self._behind_reshapes(windows, once=True)
        maker = self._made_by.get(source)
        if maker is None or maker.primitive.name != "matmul" or self._uses[source] != 1:
            return None
        if self._kept_for_later(source, equation.output):
            return None
        factors = maker.inputs
        if not all(isinstance(factor, Variable) for factor in factors):
            return None
        parameters = {**equation.parameters, "shape": windows.type.shape}
        return self._product(_Backward, tuple(maker.variables), source.type.shape, windows, parameters)

    def _behind_reshapes(self, variable: Variable, *, once: bool = False) -> Variable:
        while (maker := self._made_by.get(variable)) is not None and maker.primitive.name == "reshape":
            if once and self._uses[variable] != 1:
                break
            (variable,) = maker.variables
        return variable

    def _kept_for_later(self, windows: Variable, product: Variable) -> bool:
        return self._stage_of[windows] < self._stage_of[product]

    def _product(
        self,
        kind: type[_Product],
        operands: tuple[Variable, ...],
        rows: tuple[int, ...],
        windows: Variable,
        parameters: Mapping[str, Any],
    ) -> _Product | None:
        """The product, where its windows are many and each task has whole images of them."""
        count, height, width, *_ = windows.type.shape
        tasks = rows[0] if len(rows) == 3 else 1
        span = math.prod(windows.type.shape[3:])
        if windows.type.nbytes <= _MOST_BYTES or not 2 <= len(rows) <= 3 or rows[-1] != span or count % tasks:
            return None
        per_tile = max(1, _TILE_BYTES * count // windows.type.nbytes)
        images, pixels = count // tasks, height * width
        return kind((operands[0], operands[1]), tasks, images, per_tile, pixels, parameters)


def _swaps_last(equation: Equation) -> bool:
    axes: tuple[int, ...] = equation.parameters["axes"]
    n = len(axes)
    return axes == (*range(n - 2), n - 1, n - 2)
