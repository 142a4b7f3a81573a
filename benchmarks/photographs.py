"""Few-shot tasks on places of scikit-learn's two photographs: which part of which of them a small crop is from."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.data.drawn_tasks import DrawnTasks
from aidotnet_py.data.episodic import EpisodicLoader
from aidotnet_py.data.random_stream import RandomStream

__all__ = ["PhotographLoader"]

# At half the resolution, (213, 320), a photograph falls into these; columns are training and test classes in turn.
_ROWS, _COLUMNS = 6, 8
SIDE = 16


class PhotographLoader(EpisodicLoader[np.float32]):
    """N-way K-shot tasks on crops, (n, 16, 16, 3) in [0, 1]; a class is one of 48 places, drawn from anywhere in it."""

    def __init__(self, KShot: int = 1, *, split: Literal["train", "test"], seed: int) -> None:
        super().__init__(5, KShot, 15, seed=seed, dtype=np.float32, backend="numpy")
        first = 0 if split == "train" else 1
        self._places = [
            place
            for image in _photographs()
            for row in np.array_split(image, _ROWS, axis=0)
            for place in np.array_split(row, _COLUMNS, axis=1)[first::2]
        ]

    @property
    def AvailableClasses(self) -> int:
        """How many places there are to draw from."""
        return len(self._places)

    def _draw(self, stream: RandomStream, count: int) -> DrawnTasks:
        generator, each = stream.generator, self.KShot + self.QueryShots
        images = np.empty((count, self.NWay, each, SIDE, SIDE, 3), np.float32)
        for task in images:
            for crops, place in zip(task, generator.choice(len(self._places), self.NWay, replace=False), strict=True):
                image = self._places[place]
                tops = generator.integers(0, image.shape[0] - SIDE + 1, each)
                lefts = generator.integers(0, image.shape[1] - SIDE + 1, each)
                for crop, top, left in zip(crops, tops, lefts, strict=True):
                    crop[...] = image[top : top + SIDE, left : left + SIDE]
        return DrawnTasks.of_classes(images, self.KShot, "photographs", [{}] * count)


def _photographs() -> list[NDArray[np.float32]]:
    """Both, as numbers from 0 to 1, each 2 × 2 pixels averaged."""
    # By name, since scikit-learn has no type stubs.
    datasets: Any = import_module("sklearn.datasets")
    images = [image[:426, :640].astype(np.float32) / 255 for image in datasets.load_sample_images().images]
    return [image.reshape(213, 2, 320, 2, 3).mean(axis=(1, 3)) for image in images]
