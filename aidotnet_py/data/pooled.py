"""What loaders of classes share, over arrays and over images: a pool of examples by class."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.data.class_pool import ClassPool
from aidotnet_py.data.example_pool import ExamplePool
from aidotnet_py.data.meta_dataset import MetaDatasetBase
from aidotnet_py.data.splitting import SplitLoader
from aidotnet_py.exceptions import InvalidOperationException
from aidotnet_py.type_parameters import T

__all__ = ["PooledLoader"]


class PooledLoader(SplitLoader[T]):
    """A loader of classes in a pool, which a subclass makes."""

    _pool: ExamplePool | ClassPool

    @property
    def AvailableClasses(self) -> int:
        """The number of classes in the data, including turned classes."""
        return len(self._pool.counts)

    @property
    def labels(self) -> tuple[Any, ...]:
        """The labels of the classes, sorted; of images without their turns."""
        return self._pool.names

    def dataset(self, *, seed: int | None = None) -> MetaDatasetBase[T]:
        """Return a meta-dataset of these classes, for samplers, which choose by measured difficulty or by losses.

        The examples are shared, not copied. Turned images are classes as in the tasks; `split` comes before.

        Parameters
        ----------
        seed : int or None
            The seed of the meta-dataset's random stream; None takes one from the operating system.

        Raises
        ------
        InvalidOperationException
            The loader has transforms, which a meta-dataset has not.

        Examples
        --------
        >>> from aidotnet_py.data import CurriculumTaskSampler, DigitsLoader
        >>> train, test = DigitsLoader(NWay=2, rotations=False, seed=0).split(3, 2)
        >>> sampler = CurriculumTaskSampler(train.dataset(seed=0), numWays=2, seed=0)
        >>> 0.0 < sampler.SampleOne().Difficulty < 1.0
        True
        """
        if self._transforms:
            raise InvalidOperationException("a meta-dataset must be made of a loader without transforms, got some")
        return MetaDatasetBase.over(self._task_name(), self._pool, self._backend, seed)

    def _task_name(self) -> str:
        return type(self).__name__

    def _keep(self, classes: NDArray[np.intp]) -> None:
        self._pool = self._pool.of_classes(classes)
