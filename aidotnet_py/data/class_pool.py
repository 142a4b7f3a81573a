"""Images by class, and draws of N-way K-shot tasks from them: the counterpart of `ExamplePool` for bytes."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.data.drawn_tasks import DrawnTasks
from aidotnet_py.data.draws import ChooseClasses, draw_rows

__all__ = ["ClassPool", "Images"]

# Images that are read at a time to be measured.
_AT_ONCE = 64


class Images(Protocol):
    """Images of uint8, (n, h, w, channels), in memory or in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""
        ...

    def __getitem__(self, rows: Any, /) -> Any:
        """Return images in a new array of uint8, in the shape of ``rows``."""
        ...


class ClassPool:
    """Images of many classes in one array; a draw needs no loop over images.

    With rotations, each class counts as four: upright, and turned counter-clockwise by 90, 180 and 270 degrees.
    Turned images are computed in each draw and take no memory.

    Parameters
    ----------
    images : Images
        All images; square if ``rotations``.
    rows_of : mapping of str to array of int64, (n,)
        The places of each class's images, by its name.
    rotations : bool
        Whether turned images are separate classes, named ``"NAME@90"``, ``"NAME@180"`` and ``"NAME@270"``.
    scale : int
        The value that is 1 in tasks.
    dtype : dtype
        The floating type of the tasks' inputs.
    notes : mapping
        What the metadata of all tasks have beside their classes.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.data.class_pool import ClassPool
    >>> images = {"dark": np.zeros((4, 2, 2), np.uint8), "light": np.ones((6, 2, 2), np.uint8)}
    >>> pool = ClassPool.of(images, rotations=True, scale=1, dtype=np.dtype(np.float32))
    >>> pool.counts.tolist(), pool.labels[:3]
    ([4, 6, 4, 6, 4, 6, 4, 6], ('dark', 'light', 'dark@90'))
    >>> drawn = pool.draw(np.random.default_rng(0), 5, lambda: np.array([0, 3]), shots=1, queries=2, name="shades")
    >>> [array.shape for array in drawn.arrays]
    [(5, 2, 2, 2, 1), (5, 2), (5, 4, 2, 2, 1), (5, 4)]
    """

    # As for an `ExamplePool` without targets.
    targets = None

    def __init__(
        self,
        images: Images,
        rows_of: Mapping[str, NDArray[np.int64]],
        *,
        rotations: bool,
        scale: int,
        dtype: np.dtype[Any],
        notes: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._scale, self._dtype, self._notes = scale, dtype, dict(notes)
        self.names: tuple[str, ...] = tuple(rows_of)
        self._turns = 4 if rotations else 1
        self._counts = np.array([len(rows) for rows in rows_of.values()], np.int64)
        self._starts = np.cumsum(self._counts) - self._counts
        self._rows = np.concatenate(list(rows_of.values()))
        self._images = images

    @classmethod
    def of(
        cls,
        images_of: Mapping[str, NDArray[np.uint8]],
        *,
        rotations: bool,
        scale: int,
        dtype: np.dtype[Any],
        notes: Mapping[str, Any] = MappingProxyType({}),
    ) -> ClassPool:
        """Return a pool of the images of each class, (n, h, w), in one array."""
        ends: list[int] = np.cumsum([len(images) for images in images_of.values()]).tolist()
        rows_of = {
            name: np.arange(end - len(images), end, dtype=np.int64)
            for (name, images), end in zip(images_of.items(), ends, strict=True)
        }
        images = np.concatenate(list(images_of.values()))[..., np.newaxis]
        return cls(images, rows_of, rotations=rotations, scale=scale, dtype=dtype, notes=notes)

    def of_classes(self, classes: NDArray[np.intp]) -> ClassPool:
        """Return a pool of some of the names, with all of their turns, over the same images."""
        part = copy.copy(self)
        part.names = tuple(self.names[int(c)] for c in classes)
        part._counts, part._starts = self._counts[classes], self._starts[classes]
        return part

    @property
    def labels(self) -> tuple[str, ...]:
        """The name of each class, including turned classes."""
        return tuple(self._label(index) for index in range(len(self.names) * self._turns))

    def _label(self, index: int) -> str:
        turn, name = divmod(index, len(self.names))
        return f"{self.names[name]}@{90 * turn}" if turn else self.names[name]

    @property
    def counts(self) -> NDArray[np.int64]:
        """The number of images of each class, including turned classes."""
        return np.tile(self._counts, self._turns)

    def values_of(self, index: int) -> Iterator[NDArray[Any]]:
        """Yield the inputs of a class, including turned classes, some at a time."""
        turn, name = divmod(index, len(self.names))
        rows = self._rows[self._starts[name] :][: self._counts[name]]
        for start in range(0, len(rows), _AT_ONCE):
            yield np.rot90(self._images[rows[start : start + _AT_ONCE]], turn, axes=(1, 2)) / self._scale

    def draw(
        self,
        generator: np.random.Generator,
        count: int,
        choose: ChooseClasses,
        *,
        shots: int,
        queries: int,
        name: str,
    ) -> DrawnTasks:
        """Draw ``count`` tasks: for each its classes, then different images of each class, in random order."""
        examples = shots + queries
        inputs: NDArray[Any] | None = None
        metadata: list[dict[str, Any]] = []
        for place in range(count):
            chosen = choose()
            if inputs is None:
                inputs = np.empty((count, len(chosen), examples, *self._images.shape[1:]), self._dtype)
            np.divide(self._images_of(generator, chosen, examples), self._scale, dtype=self._dtype, out=inputs[place])
            metadata.append({"Classes": tuple(self._label(int(c)) for c in chosen), **self._notes})
        assert inputs is not None
        return DrawnTasks.of_classes(inputs, shots, name, metadata)

    def _images_of(self, generator: np.random.Generator, chosen: NDArray[np.intp], examples: int) -> NDArray[np.uint8]:
        """Return different images of each class, (ways, examples, h, w, channels)."""
        turns, names = np.divmod(chosen, len(self.names))
        places = draw_rows(generator, self._starts[names], self._counts[names], int(self._counts.max()), examples)
        images: NDArray[np.uint8] = self._images[self._rows[places]]
        for turn in range(1, self._turns):
            turned = turns == turn
            images[turned] = np.rot90(images[turned], turn, axes=(2, 3))
        return images
