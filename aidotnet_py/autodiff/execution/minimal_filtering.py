"""Products over 3 × 3 windows by minimal filtering, with 4 multiplications for a pixel in place of 9.

The pixels of a product fall into tiles of 2 × 2. The tile y of the product of a filter g and the 4 × 4 pixels d under
it is y = Aᵀ[(G·g·Gᵀ) ⊙ (Bᵀ·d·B)]A, with Bᵀ, G and A below; over channels, ⊙ is a matrix product for each of 16 places.
Gradients with respect to d and g are its transposes. Sources: S. Winograd, "Arithmetic Complexity of Computations",
SIAM 1980; A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from aidotnet_py.autodiff.execution.window_products import Kind, WindowProduct
from aidotnet_py.autodiff.primitives.concatenation import concatenate
from aidotnet_py.autodiff.primitives.matmul import matmul, matrix_transpose
from aidotnet_py.autodiff.primitives.shape import pad, reshape, slice_
from aidotnet_py.autodiff.primitives.transformed_windows import Matrix, transformed_fold, transformed_patches

__all__ = ["MinimalProduct", "Prepared", "is_cheaper", "nbytes_of_tiles"]

# Bᵀ, G and A: for pixels of an image, of a filter, and of a product.
_B: Matrix = ((1.0, 0.0, -1.0, 0.0), (0.0, 1.0, 1.0, 0.0), (0.0, -1.0, 1.0, 0.0), (0.0, 1.0, 0.0, -1.0))
_G: Matrix = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))
_A: Matrix = ((1.0, 0.0), (1.0, 1.0), (1.0, -1.0), (0.0, -1.0))

# Places of a transformed tile.
_PLACES = 16

# Fewer channels or filters are too little work for the additions around it. The share is that of the multiplications,
# which a last row or column of half tiles raises.
_LEAST_CHANNELS, _MOST_SHARE = 16, 0.6

# Values that several products share, by what they are computed from.
Prepared: TypeAlias = dict[tuple[object, ...], Any]


def is_cheaper(product: WindowProduct) -> bool:
    """Return whether minimal filtering computes a product in less time, with bits enough for its additions."""
    rows, columns = product.pixels
    tile_rows, tile_columns = _tiles_of(product.pixels)
    return (
        product.window == (3, 3)
        and product.stride == (1, 1)
        and product.windows.type.dtype_name in ("float32", "float64")
        and min(product.channels, product.filters) >= _LEAST_CHANNELS
        and _PLACES * tile_rows * tile_columns <= _MOST_SHARE * 9 * rows * columns
    )


def nbytes_of_tiles(product: WindowProduct, channels: int) -> int:
    """Return the bytes of the transformed tiles of a task's images, with so many channels."""
    rows, columns = _tiles_of(product.pixels)
    return _PLACES * product.images * rows * columns * channels * product.windows.type.dtype.itemsize


def _tiles_of(pixels: tuple[int, int]) -> tuple[int, int]:
    return -(-pixels[0] // 2), -(-pixels[1] // 2)


class _Block(NamedTuple):
    """Images [start, stop) of each of the tasks [first, last)."""

    first: int
    last: int
    start: int
    stop: int

    @property
    def tasks(self) -> int:
        return self.last - self.first

    @property
    def images(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class MinimalProduct:
    """A product over windows by minimal filtering.

    Attributes
    ----------
    of : WindowProduct
        The product.
    tasks_at_a_time, images_at_a_time : int
        The most tasks, and images of each, that go at a time.
    early : frozenset of int
        The operands whose transformed tiles are computed as early as possible, and kept for other products.
    """

    of: WindowProduct
    tasks_at_a_time: int
    images_at_a_time: int
    early: frozenset[int]

    def prepare(self, operands: Sequence[Any], prepared: Prepared) -> list[Any]:
        """Return the operands in the form that `emit` takes: all that an earlier stage can do.

        Filters are transformed. Images become a function that returns the transformed tiles of a block.
        """
        matrices = {Kind.FORWARD: (_B, None), Kind.WEIGHTS: (_B, _A), Kind.BACKWARD: (_A, None)}[self.of.kind]
        ready: list[Any] = []
        for place, value in enumerate(operands):
            matrix = matrices[place % 2]
            if matrix is None:
                ready.append(self._filters(value, prepared))
            else:
                ready.append(self._tiles(place, value, matrix, prepared))
        return ready

    def emit(self, operands: Sequence[Any]) -> Any:
        """Return the product of prepared operands."""
        compute = {Kind.FORWARD: self._forward, Kind.WEIGHTS: self._weights, Kind.BACKWARD: self._backward}
        return compute[self.of.kind](operands)

    def _forward(self, operands: Sequence[Any]) -> Any:
        tiles, filters = operands
        parts = [
            self._pixels(matmul(tiles(block), _of_tasks(filters, block)), _A, block, self.of.pixels)
            for block in self._blocks
        ]
        _, images, rows, columns, channels = (product := self._joined(parts)).shape
        lead = self.of.operands[1].type.shape[:-2]
        return reshape(product, (*lead, images * rows * columns, channels))

    def _weights(self, operands: Sequence[Any]) -> Any:
        images, rows = operands
        sums: dict[int, Any] = {}
        for block in self._blocks:
            part = matmul(matrix_transpose(images(block)), rows(block))
            # Add each part at once: those of all blocks would take much memory.
            sums[block.first] = sums[block.first] + part if block.first in sums else part
        product = concatenate(list(sums.values()), 0)
        span = product.shape[1] * product.shape[2]
        filters = transformed_fold(reshape(product, (self.of.tasks, 4, 4, 1, 1, 1, span)), _G, (3, 3), 3)
        lead = self.of.operands[1].type.shape[:-2]
        return reshape(filters, (*lead, 9 * product.shape[1], product.shape[2]))

    def _backward(self, operands: Sequence[Any]) -> Any:
        parts: list[Any] = []
        for block in self._blocks:
            terms = [
                matmul(rows(block), matrix_transpose(_of_tasks(filters, block)))
                for rows, filters in zip(operands[::2], operands[1::2], strict=True)
            ]
            parts.append(self._pixels(sum(terms[1:], terms[0]), _B, block, self.of.image))
        tasks, images, *image = (product := self._joined(parts)).shape
        return reshape(product, (tasks * images, *image))

    @property
    def _blocks(self) -> list[_Block]:
        tasks, images = self.of.tasks, self.of.images
        return [
            _Block(first, min(first + self.tasks_at_a_time, tasks), start, min(start + self.images_at_a_time, images))
            for first in range(0, tasks, self.tasks_at_a_time)
            for start in range(0, images, self.images_at_a_time)
        ]

    def _padded(self, value: Any, matrix: Matrix, prepared: Prepared) -> Any:
        """Return images, or rows as images, with zeros after them for whole tiles."""
        height, width = self.of.image if matrix is _B else self.of.pixels
        (rows, columns), margin = _tiles_of(self.of.pixels), len(matrix[0]) - 2
        below, right = 2 * rows + margin - height, 2 * columns + margin - width
        images = reshape(value, (self.of.tasks * self.of.images, height, width, value.shape[-1]))
        if not below and not right:
            return images
        return _once(
            prepared,
            (value.variable, images.shape, below, right),
            lambda: pad(images, ((0, 0, 0), (0, below, 0), (0, right, 0), (0, 0, 0))),
        )

    def _tiles(self, place: int, value: Any, matrix: Matrix, prepared: Prepared) -> Callable[[_Block], Any]:
        """Return a function that returns the transformed tiles of a block of images, or of rows."""
        images = self._padded(value, matrix, prepared)

        def transformed(block: _Block) -> Any:
            return self._transformed(images, matrix, block)

        if place not in self.early:
            return transformed
        keys = {block: (images.variable, self.of.images, matrix, block) for block in self._blocks}
        return {b: _once(prepared, key, partial(transformed, b)) for b, key in keys.items()}.__getitem__

    def _transformed(self, images: Any, matrix: Matrix, block: _Block) -> Any:
        """Return the transformed tiles of a block, (tasks × 16, tiles, channels)."""
        first, count = block.first * self.of.images + block.start, block.tasks * block.images
        some = slice_(images, ((first, first + count, 1), *((0, n, 1) for n in images.shape[1:])))
        tiles = transformed_patches(reshape(some, (block.tasks, block.images, *images.shape[1:])), matrix, 2)
        *_, rows, columns, channels = tiles.shape
        return reshape(tiles, (block.tasks * _PLACES, block.images * rows * columns, channels))

    def _pixels(self, tiles: Any, matrix: Matrix, block: _Block, size: tuple[int, int]) -> Any:
        """Return a block's images of that size that transformed tiles are folded onto, (tasks, images, …)."""
        (rows, columns), margin, channels = _tiles_of(self.of.pixels), len(matrix[0]) - 2, tiles.shape[-1]
        windows = reshape(tiles, (block.tasks, 4, 4, block.images, rows, columns, channels))
        folded = transformed_fold(windows, matrix, (2 * rows + margin, 2 * columns + margin), 2)
        return slice_(folded, tuple((0, n, 1) for n in (block.tasks, block.images, *size, channels)))

    def _joined(self, parts: Sequence[Any]) -> Any:
        """Return the images of all blocks, (tasks, images, …); not reshaped, blocks are computed in their places."""
        per_task = -(-self.of.images // self.images_at_a_time)
        return concatenate([concatenate(parts[i : i + per_task], 1) for i in range(0, len(parts), per_task)], 0)

    def _filters(self, w: Any, prepared: Prepared) -> Any:
        """Return the transformed filters, (tasks × 16, channels, filters)."""

        def compute() -> Any:
            channels, filters = w.shape[-2] // 9, w.shape[-1]
            windows = reshape(w, (self.of.tasks, 1, 3, 3, channels * filters))
            return reshape(transformed_patches(windows, _G, 3), (self.of.tasks * _PLACES, channels, filters))

        return _once(prepared, (w.variable, "filters"), compute)


def _once(prepared: Prepared, key: tuple[object, ...], compute: Callable[[], Any]) -> Any:
    if key not in prepared:
        prepared[key] = compute()
    return prepared[key]


def _of_tasks(filters: Any, block: _Block) -> Any:
    """Return the transformed filters of a block's tasks."""
    places, *others = filters.shape
    if places == block.tasks * _PLACES:
        return filters
    return slice_(filters, ((block.first * _PLACES, block.last * _PLACES, 1), *((0, n, 1) for n in others)))
