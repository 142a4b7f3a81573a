"""The loader behind every few-shot image data set: tasks of shuffled labels over a `ClassPool`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import SWITCH
from aidotnet_py.backends import Backend
from aidotnet_py.data.class_pool import ClassPool
from aidotnet_py.data.draws import WAYS, check_classes
from aidotnet_py.data.episodic import DrawnTasks, EpisodicLoader
from aidotnet_py.data.random_stream import RandomStream
from aidotnet_py.type_parameters import T

__all__ = ["ImageLoader"]


class ImageLoader(EpisodicLoader[T]):
    """A loader of tasks with N classes, K support images of each, and other images of each for the query set.

    Images are (n, h, w, 1), divided by ``scale``. Labels are int64, from 0 for the class that is drawn first to N − 1,
    so a class has another label in every task. Rows are sorted by label: label c has the rows ``[c·K, (c+1)·K)``.
    ``Metadata["Classes"]`` names the classes in the order of their labels.

    A subclass calls `_fill` at the end of its constructor.

    Parameters
    ----------
    name : str
        The ``Name`` of the tasks.
    scale : int
        The pixel value that is scaled to 1.
    rotations : bool
        Whether turned images are separate classes.
    NWay, KShot, QueryShots, seed, dtype, backend
        As for `EpisodicLoader`; NWay is at least 2.

    Raises
    ------
    ArgumentException
        As for `EpisodicLoader`, or ``rotations`` is no bool.
    """

    def __init__(
        self,
        name: str,
        scale: int,
        rotations: bool,
        NWay: int,
        KShot: int,
        QueryShots: int,
        *,
        seed: int | None,
        dtype: type[Any],
        backend: str | Backend,
    ) -> None:
        WAYS.check("NWay", NWay)
        super().__init__(NWay, KShot, QueryShots, seed=seed, dtype=dtype, backend=backend)
        self._name = name
        self._scale = scale
        self._rotations = SWITCH.check("rotations", rotations)

    def _fill(self, counts: Mapping[str, int], read_class: Callable[[str], NDArray[np.uint8]]) -> None:
        check_classes(counts, self.NWay, self.KShot, self.QueryShots, turns=4 if self._rotations else 1)
        self._pool = ClassPool({name: read_class(name) for name in counts}, rotations=self._rotations)

    @property
    def AvailableClasses(self) -> int:
        """The number of classes in the data, including turned classes."""
        return self._pool.class_count

    def _draw(self, stream: RandomStream, count: int) -> DrawnTasks:
        examples = self.KShot + self.QueryShots
        images = np.empty((count, self.NWay, examples, *self._pool.image_shape), self._dtype)
        metadata: list[dict[str, Any]] = []
        for place in range(count):
            episode = self._pool.draw(stream.generator, self.NWay, examples)
            np.divide(episode.images, self._scale, dtype=self._dtype, out=images[place])
            metadata.append({"Classes": episode.classes})
        return DrawnTasks.of_classes(images, self.KShot, self._name, metadata)
