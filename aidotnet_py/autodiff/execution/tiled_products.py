"""Products over windows of images, a few images at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from aidotnet_py.autodiff.execution.window_products import Kind, WindowProduct
from aidotnet_py.autodiff.primitives.concatenation import concatenate
from aidotnet_py.autodiff.primitives.matmul import matmul, matrix_transpose
from aidotnet_py.autodiff.primitives.shape import reshape, slice_
from aidotnet_py.autodiff.primitives.windows import fold, patches

__all__ = ["TiledProduct"]


@dataclass(frozen=True)
class TiledProduct:
    """A product over windows, of at most ``per_tile`` images of one task at a time."""

    of: WindowProduct
    per_tile: int

    def emit(self, operands: Sequence[Any]) -> Any:
        """Return the product of the operands."""
        compute = {Kind.FORWARD: self._forward, Kind.WEIGHTS: self._weights, Kind.BACKWARD: self._backward}
        return compute[self.of.kind](operands)

    def _forward(self, operands: Sequence[Any]) -> Any:
        """Return windows times a matrix: the tiles' rows one after another."""
        x, w = operands
        parts = [
            matmul(self._windows(x, task, start, stop), _matrix(w, task))
            for task, tiles in enumerate(self._tiles)
            for start, stop in tiles
        ]
        rows = self.of.images * self._pixels
        return reshape(concatenate(parts, 0), (*w.shape[:-2], rows, w.shape[-1]))

    def _weights(self, operands: Sequence[Any]) -> Any:
        """Return windows, transposed, times rows: the sum over the tiles."""
        x, y = operands
        sums: list[Any] = []
        for task, tiles in enumerate(self._tiles):
            total: Any = None
            for start, stop in tiles:
                part = matmul(matrix_transpose(self._windows(x, task, start, stop)), self._rows(y, task, start, stop))
                # Add each part at once: large matrices of all tiles would take more memory than the windows.
                total = part if total is None else total + part
            sums.append(total)
        span, filters = sums[0].shape
        return reshape(concatenate(sums, 0), (*y.shape[:-2], span, filters))

    def _backward(self, operands: Sequence[Any]) -> Any:
        """Return rows times transposed matrices, or a sum of such products, folded back onto images."""
        parts: list[Any] = []
        for task, tiles in enumerate(self._tiles):
            for start, stop in tiles:
                terms = [
                    matmul(self._rows(y, task, start, stop), matrix_transpose(_matrix(w, task)))
                    for y, w in zip(operands[::2], operands[1::2], strict=True)
                ]
                windows = reshape(sum(terms[1:], terms[0]), (stop - start, *self.of.windows.type.shape[1:]))
                parts.append(fold(windows, self.of.image, self.of.stride))
        return concatenate(parts, 0)

    @property
    def _tiles(self) -> list[list[tuple[int, int]]]:
        """The images [start, stop) of each tile, for each task."""
        edges = [*range(0, self.of.images, self.per_tile), self.of.images]
        return [list(pairwise(edges)) for _ in range(self.of.tasks)]

    @property
    def _pixels(self) -> int:
        return math.prod(self.of.pixels)

    def _windows(self, x: Any, task: int, start: int, stop: int) -> Any:
        """Return the windows of images [start, stop) of a task, shape (images × pixels, span)."""
        first = task * self.of.images
        some = slice_(x, _spans(x.shape, first + start, first + stop))
        windows = patches(some, self.of.window, self.of.stride)
        return reshape(windows, ((stop - start) * self._pixels, math.prod(windows.shape[3:])))

    def _rows(self, y: Any, task: int, start: int, stop: int) -> Any:
        """Return the rows of y, shape (…, images × pixels, n), that belong to images [start, stop) of a task."""
        flat = reshape(y, (self.of.tasks * self.of.images * self._pixels, y.shape[-1]))
        first = task * self.of.images
        return slice_(flat, _spans(flat.shape, (first + start) * self._pixels, (first + stop) * self._pixels))


def _spans(shape: tuple[int, ...], start: int, stop: int) -> tuple[tuple[int, int, int], ...]:
    return ((start, stop, 1), *((0, n, 1) for n in shape[1:]))


def _matrix(y: Any, task: int) -> Any:
    """Return a task's matrix from an array of shape (…, m, n)."""
    if len(y.shape) == 2:
        return y
    matrices = reshape(y, (math.prod(y.shape[:-2]), *y.shape[-2:]))
    return reshape(slice_(matrices, _spans(matrices.shape, task, task + 1)), y.shape[-2:])
