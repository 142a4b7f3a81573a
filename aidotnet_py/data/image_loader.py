"""The loader behind every few-shot image data set: tasks of shuffled labels over a `ClassPool`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import SWITCH
from aidotnet_py.backends import Backend
from aidotnet_py.data.class_pool import ClassPool
from aidotnet_py.data.drawn_tasks import DrawnTasks
from aidotnet_py.data.draws import WAYS, check_classes
from aidotnet_py.data.pooled import PooledLoader
from aidotnet_py.data.random_stream import RandomStream
from aidotnet_py.data.weightings import WEIGHTINGS, WeightingName
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.type_parameters import T

__all__ = ["ImageLoader"]


class ImageLoader(PooledLoader[T]):
    """A loader of tasks with N classes, K support images of each, and other images of each for the query set.

    Images are (n, h, w, channels), divided by ``scale``. Labels are int64, from 0 for the class that is drawn first to
    N − 1, so a class has another label in every task. Rows are sorted by label: label c has rows ``[c·K, (c+1)·K)``.
    ``Metadata["Classes"]`` names the classes in the order of their labels.

    `split` divides upright classes; turned ones go with them.

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
        As for `EpisodicLoader`, ``rotations`` is no bool, or a class has the name of another's turned class.
    """

    _weighting: WeightingName = "uniform"

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
        """Take images of ink, (n, h, w), class by class, after a check of their numbers."""
        self._check_counts(counts)
        images_of = {name: read_class(name) for name in counts}
        # Figures draw ink dark.
        self._pool = ClassPool.of(
            images_of, rotations=self._rotations, scale=self._scale, dtype=self._dtype, notes={"Ink": True}
        )

    def _check_counts(self, counts: Mapping[str, int]) -> None:
        if self._rotations:
            turned = {f"{name}@{angle}" for name in counts for angle in (90, 180, 270)}
            for name in counts:
                if name in turned:
                    raise ArgumentException(
                        f"classes must have other names than turned ones where rotations is True, got {name!r:.100} "
                        f"beside {name.rpartition('@')[0]!r:.100}; rename its folder, or pass rotations=False"
                    )
        check_classes(counts, self.NWay, self.KShot, self.QueryShots, turns=4 if self._rotations else 1)

    def _least_classes(self) -> int:
        return -(-self._ways // 4) if self._rotations else self._ways

    def _task_name(self) -> str:
        return self._name

    def _make_stream(self, seed: int | None) -> RandomStream:
        return WEIGHTINGS[self._weighting].stream(seed, self.AvailableClasses)

    def _draw(self, stream: RandomStream, count: int) -> DrawnTasks:
        counts, choose = self._pool.counts, WEIGHTINGS[self._weighting].choose
        return self._pool.draw(
            stream.generator,
            count,
            lambda: choose(stream, counts, self.NWay),
            shots=self.KShot,
            queries=self.QueryShots,
            name=self._task_name(),
        )
