"""Products over windows of images in tiles of a few images, if the windows of all images would take too much memory.

The windows of an image repeat each pixel, up to once for each place in a window. Windows of large images or of large
batches do not fit into the caches. A product needs the windows of only a few images at a time.
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
from aidotnet_py.autodiff.program import Atom, Equation, Program, Variable
from aidotnet_py.autodiff.tracing.recording import new_trace
from aidotnet_py.autodiff.transforms.replay import Replay
from aidotnet_py.autodiff.transforms.simplification import without_unused

__all__ = ["tile"]

# Windows of more than _MOST_BYTES are taken in tiles of about _TILE_BYTES, which stay within a core's own cache.
_MOST_BYTES, _TILE_BYTES = 2**22, 2**19

# Windows that a later stage reads are kept for it up to this size; larger windows are computed in each of its runs.
_KEPT_BYTES = 2**25


def tile(program: Program, stage_of: Mapping[Atom, int], room: int = 1) -> tuple[Program, Mapping[Atom, int]]:
    """Return the program with products over many windows done in tiles, and the stage of each of its values.

    Parameters
    ----------
    program : Program
        Any program.
    stage_of : mapping
        The stage of each value. Windows that a later stage reads are kept whole, up to a limit, so that its runs need
        not compute them again.
    room : int
        A factor on all limits, which otherwise fit the caches of a CPU core.
    """
    products = _Products(program, stage_of, room).by_output
    if not products:
        return program, stage_of
    with new_trace() as trace:
        replay = Replay(program, [trace.new_input(v.type) for v in program.inputs])
        stages: dict[Atom, int] = {value.variable: stage_of[v] for v, value in replay.values.items()}
        for equation in program.equations:
            product, done = products.get(equation.output), len(trace.equations)
            if product is None:
                replay.emit(equation)
            else:
                replay.values[equation.output] = product.emit([replay.operand(v) for v in product.operands])
            # A tile computes its windows in the stage of its product, even if an earlier stage could.
            stages.update((e.output, stage_of[equation.output]) for e in trace.equations[done:])
        return without_unused(trace.finish([replay.operand(a) for a in program.outputs])), stages


@dataclass(frozen=True)
class _Product:
    """A product over windows of ``tasks`` × ``images`` images, at most ``per_tile`` images of one task at a time."""

    operands: tuple[Variable, ...]
    tasks: int
    images: int
    per_tile: int
    pixels: int
    parameters: Mapping[str, Any]

    def emit(self, operands: Sequence[Any]) -> Any:
        raise NotImplementedError

    def tiles(self) -> list[list[tuple[int, int]]]:
        """Return the images [start, stop) of each tile, for each task."""
        edges = [*range(0, self.images, self.per_tile), self.images]
        return [list(pairwise(edges)) for _ in range(self.tasks)]

    def windows(self, x: Any, task: int, start: int, stop: int) -> Any:
        """Return the windows of images [start, stop) of a task, shape (images × pixels, span)."""
        first = task * self.images
        some = slice_(x, _rows(x.shape, first + start, first + stop))
        windows = patches(some, **self.parameters)
        return reshape(windows, ((stop - start) * self.pixels, math.prod(windows.shape[3:])))

    def rows(self, y: Any, task: int, start: int, stop: int) -> Any:
        """Return the rows of y, shape (tasks, images × pixels, n), that belong to images [start, stop) of a task."""
        flat = reshape(y, (self.tasks * self.images * self.pixels, y.shape[-1]))
        first = task * self.images
        return slice_(flat, _rows(flat.shape, (first + start) * self.pixels, (first + stop) * self.pixels))


def _rows(shape: tuple[int, ...], start: int, stop: int) -> tuple[tuple[int, int, int], ...]:
    return ((start, stop, 1), *((0, n, 1) for n in shape[1:]))


def _matrix(y: Any, task: int) -> Any:
    """Return a task's matrix from an array of shape (tasks, m, n) or (m, n)."""
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
            total: Any = None
            for start, stop in tiles:
                part = matmul(matrix_transpose(self.windows(x, task, start, stop)), self.rows(y, task, start, stop))
                # Add each part at once: large matrices of all tiles would take more memory than the windows.
                total = part if total is None else total + part
            sums.append(total)
        span, filters = sums[0].shape
        return reshape(concatenate(sums, 0), (*y.shape[:-2], span, filters))


class _Backward(_Product):
    """Rows times a matrix, or a sum of such products, folded back onto images."""

    def emit(self, operands: Sequence[Any]) -> Any:
        image, stride, shape = (self.parameters[name] for name in ("image", "stride", "shape"))
        parts: list[Any] = []
        for task, tiles in enumerate(self.tiles()):
            for start, stop in tiles:
                terms = [
                    matmul(self.rows(y, task, start, stop), _matrix(w, task))
                    for y, w in zip(operands[::2], operands[1::2], strict=True)
                ]
                windows = sum(terms[1:], terms[0])
                parts.append(fold(reshape(windows, (stop - start, *shape[1:])), image, stride))
        return concatenate(parts, 0)


class _Products:
    """The products of a program that are taken in tiles, by the variable that they compute."""

    def __init__(self, program: Program, stage_of: Mapping[Atom, int], room: int) -> None:
        self._room = room
        self._made_by = {e.output: e for e in program.equations}
        self._stage_of = stage_of
        self._uses = Counter(v for e in program.equations for v in e.variables)
        self._uses.update(a for a in program.outputs if isinstance(a, Variable))
        self.by_output: dict[Variable, _Product] = {}
        for equation in program.equations:
            product = {"matmul": self._over_windows, "fold": self._onto_images}.get(equation.primitive.name)
            tiles = None if product is None else product(equation)
            if tiles is not None:
                self.by_output[equation.output] = tiles

    def _over_windows(self, equation: Equation) -> _Product | None:
        """Return the tiles of a matrix product whose first factor is windows, or windows transposed."""
        first, second = equation.inputs
        if not isinstance(first, Variable) or not isinstance(second, Variable):
            return None
        source, transposed = first, False
        maker = self._made_by.get(source)
        if maker is not None and maker.primitive.name == "permute_dims" and _swaps_last(maker):
            (source,), transposed = maker.variables, True
        windows = self._behind_reshapes(source)
        maker = self._made_by.get(windows)
        if maker is None or maker.primitive.name != "patches" or self._is_kept_whole(windows, equation.output):
            return None
        (x,) = maker.variables
        kind = _Weights if transposed else _Forward
        return self._product(kind, (x, second), source.type.shape, second.type.shape[-1], windows, maker.parameters)

    def _onto_images(self, equation: Equation) -> _Product | None:
        """Return the tiles of a fold of a matrix product, or of a sum of products, that nothing else uses."""
        (windows,) = equation.variables
        products = self._terms(windows)
        if not products or any(p.output.type != products[0].output.type for p in products):
            return None
        # A product of an earlier stage is computed there, and not in every run of this one.
        if any(self._stage_of[p.output] < self._stage_of[equation.output] for p in products):
            return None
        factors = tuple(v for p in products for v in p.variables)
        if len(factors) != 2 * len(products):
            return None
        parameters = {**equation.parameters, "shape": windows.type.shape}
        columns = factors[0].type.shape[-1]
        return self._product(_Backward, factors, products[0].output.type.shape, columns, windows, parameters)

    def _terms(self, variable: Variable) -> list[Equation]:
        """Return the products that add up to a value that nothing else uses; none if the value is no such sum."""
        source = self._behind_reshapes(variable, once=True)
        maker = self._made_by.get(source)
        if maker is None or self._uses[source] != 1:
            return []
        if maker.primitive.name == "matmul":
            return [maker]
        if maker.primitive.name != "add" or any(a.type != source.type for a in maker.inputs):
            return []
        terms = [self._terms(v) for v in maker.variables]
        return [product for products in terms for product in products] if all(terms) else []

    def _behind_reshapes(self, variable: Variable, *, once: bool = False) -> Variable:
        while (maker := self._made_by.get(variable)) is not None and maker.primitive.name == "reshape":
            if once and self._uses[variable] != 1:
                break
            (variable,) = maker.variables
        return variable

    def _is_kept_whole(self, windows: Variable, product: Variable) -> bool:
        return windows.type.nbytes <= _KEPT_BYTES * self._room and self._stage_of[windows] < self._stage_of[product]

    def _product(
        self,
        kind: type[_Product],
        operands: tuple[Variable, ...],
        rows: tuple[int, ...],
        columns: int,
        windows: Variable,
        parameters: Mapping[str, Any],
    ) -> _Product | None:
        """Return the product in tiles; None if its windows are few, or if a task does not have whole images."""
        count, height, width, *_ = windows.type.shape
        tasks = rows[0] if len(rows) == 3 else 1
        span = math.prod(windows.type.shape[3:])
        if (
            windows.type.nbytes <= _MOST_BYTES * self._room
            or not 2 <= len(rows) <= 3
            or rows[-1] != span
            or count % tasks
        ):
            return None
        # Each tile's product reads the whole matrix, so that a tile should not be smaller than the matrix.
        tile_bytes = max(_TILE_BYTES * self._room, span * columns * windows.type.dtype.itemsize)
        per_tile = max(1, tile_bytes * count // windows.type.nbytes)
        return kind(operands, tasks, count // tasks, per_tile, height * width, parameters)


def _swaps_last(equation: Equation) -> bool:
    axes: tuple[int, ...] = equation.parameters["axes"]
    n = len(axes)
    return axes == (*range(n - 2), n - 1, n - 2)
