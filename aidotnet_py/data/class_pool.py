"""Images by class, and draws of N-way K-shot episodes from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.data.draws import draw_classes, draw_rows

__all__ = ["ClassPool", "DrawnImages"]


@dataclass(frozen=True)
class DrawnImages:
    """Images of one episode, (ways, examples, h, w, 1) of uint8, and the names of their classes."""

    images: NDArray[np.uint8]
    classes: tuple[str, ...]


class ClassPool:
    """Images of many classes in one array; a draw needs no loop over images.

    With rotations, each class counts as four: upright, and turned counter-clockwise by 90, 180 and 270 degrees.
    Turned images are computed in each draw and take no memory.

    Parameters
    ----------
    images_of : mapping of str to array of uint8, (n, h, w)
        The images of each class, by its name; square if ``rotations``.
    rotations : bool
        Whether turned images are separate classes, named ``"NAME@90"``, ``"NAME@180"`` and ``"NAME@270"``.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.data.class_pool import ClassPool
    >>> pool = ClassPool({"dark": np.zeros((4, 2, 2), np.uint8), "light": np.ones((6, 2, 2), np.uint8)}, rotations=True)
    >>> pool.class_count
    8
    >>> pool.draw(np.random.default_rng(0), ways=3, examples=4).images.shape
    (3, 4, 2, 2, 1)
    """

    def __init__(self, images_of: Mapping[str, NDArray[np.uint8]], *, rotations: bool) -> None:
        self._names = tuple(images_of)
        self._turns = 4 if rotations else 1
        self._counts = np.array([len(images) for images in images_of.values()])
        self._starts = np.cumsum(self._counts) - self._counts
        self._images = np.concatenate(list(images_of.values()))[..., np.newaxis]

    @property
    def class_count(self) -> int:
        """The number of classes, including turned classes."""
        return len(self._names) * self._turns

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of one image, (h, w, 1)."""
        return self._images.shape[1:]

    def draw(self, generator: np.random.Generator, ways: int, examples: int) -> DrawnImages:
        """Draw different classes and different images of each, uniformly and in random order."""
        chosen = draw_classes(generator, self.class_count, ways)
        turns, rows = np.divmod(chosen, len(self._names))
        places = draw_rows(generator, self._starts[rows], self._counts[rows], int(self._counts.max()), examples)
        images = self._images[places]
        for turn in range(1, self._turns):
            turned = turns == turn
            images[turned] = np.rot90(images[turned], turn, axes=(2, 3))
        return DrawnImages(images, tuple(self._name(int(t), int(r)) for t, r in zip(turns, rows, strict=True)))

    def _name(self, turn: int, row: int) -> str:
        return f"{self._names[row]}@{90 * turn}" if turn else self._names[row]
