"""A meta-dataset over arrays: classes that episodes of any size are sampled from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Generic, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aidotnet_py.arguments import COUNT, Whole
from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.data.class_pool import ClassPool
from aidotnet_py.data.drawn_tasks import DrawnTasks
from aidotnet_py.data.draws import WAYS, ChooseClasses, draw_classes
from aidotnet_py.data.episodes import Episode
from aidotnet_py.data.episodic import check_dtype
from aidotnet_py.data.example_pool import ExamplePool
from aidotnet_py.data.random_stream import RandomStream, Seeded
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.representations import concise_repr
from aidotnet_py.type_parameters import T

__all__ = ["MetaDatasetBase"]


class MetaDatasetBase(Seeded, Generic[T]):
    """An `IMetaDataset` and `IResumable` over arrays; samplers choose the classes of its episodes.

    An episode has N classes, drawn uniformly from those with enough examples, and of each class K support and Q query
    examples, all different. In its task the classes are labelled 0 to N − 1, int64, in the order drawn; rows are sorted
    by label, and ``Metadata["Classes"]`` has the labels of the data in the order of the new ones. Class number c of
    `ClassExampleCounts` is the one with the c-th of the sorted labels.

    With ``targets`` an episode is a regression on one of the functions that y tells apart: N is 1.

    Parameters
    ----------
    Name : str
        The name of the data, and of its tasks.
    X : array_like, (examples, …)
        Real, finite inputs; not copied if they have the dtype.
    y : array_like, (examples,)
        A label for each example: integers, strings, whatever can be sorted.
    targets : array_like, (examples, …), optional
        Real, finite values to learn, converted to the type of the inputs.
    seed : int or None
        The seed of the random stream; None takes one from the operating system.
    dtype : type, optional
        The floating type of the tasks' inputs. By default that of X, and float32 for integers and booleans.
    backend : str or Backend
        The backend of the tasks' arrays.

    Raises
    ------
    ArgumentNullException
        X or y is None.
    ArgumentException
        X, y or targets is no such array, or another argument is invalid.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.data import MetaDatasetBase
    >>> X, y = np.random.default_rng(0).normal(size=(60, 4)), np.repeat(["cat", "dog", "owl"], 20)
    >>> pets = MetaDatasetBase("pets", X, y, seed=0)
    >>> pets.TotalClasses, pets.ClassExampleCounts
    (3, {0: 20, 1: 20, 2: 20})
    >>> pets.SampleEpisode(numWays=2, numShots=1, numQueryPerClass=3).Task.QueryInput.shape
    (6, 4)
    >>> pets.SupportsConfiguration(numWays=2, numShots=10, numQueryPerClass=11)
    False
    """

    # Means of the classes, (classes, features), and mean squared distances from them, once they are measured.
    _scatter: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

    __repr__ = concise_repr

    @overload
    def __init__(
        self,
        Name: str,
        X: NDArray[T],
        y: ArrayLike,
        *,
        targets: ArrayLike | None = None,
        seed: int | None = None,
        backend: str | Backend = "numpy",
    ) -> None: ...
    @overload
    def __init__(
        self,
        Name: str,
        X: ArrayLike,
        y: ArrayLike,
        *,
        targets: ArrayLike | None = None,
        seed: int | None = None,
        dtype: type[T],
        backend: str | Backend = "numpy",
    ) -> None: ...
    @suggests_keywords()
    def __init__(
        self,
        Name: str,
        X: ArrayLike,
        y: ArrayLike,
        *,
        targets: ArrayLike | None = None,
        seed: int | None = None,
        dtype: type[Any] | None = None,
        backend: str | Backend = "numpy",
    ) -> None:
        self._backend = get_backend(backend)
        if dtype is not None:
            check_dtype(dtype)
        super().__init__(RandomStream(seed))
        self._name = Name
        self._pool: ExamplePool | ClassPool = ExamplePool(X, y, dtype, targets)
        # For the representation.
        self._X, self._y = X, y

    @classmethod
    def over(cls, name: str, pool: ExamplePool | ClassPool, backend: Backend, seed: int | None) -> MetaDatasetBase[Any]:
        """Return a meta-dataset over the pool of a loader; `dataset` of a loader is the way to it."""
        made: MetaDatasetBase[Any] = MetaDatasetBase.__new__(MetaDatasetBase)
        Seeded.__init__(made, RandomStream(seed))
        made._name, made._pool, made._backend = name, pool, backend
        return made

    @property
    def Name(self) -> str:
        """The name of the data."""
        return self._name

    @property
    def TotalClasses(self) -> int:
        """The number of classes."""
        return len(self._pool.counts)

    @property
    def TotalExamples(self) -> int:
        """The number of examples of all classes."""
        return int(self._pool.counts.sum())

    @property
    def ClassExampleCounts(self) -> Mapping[int, int]:
        """The number of examples of each class, by the index of the class."""
        return {index: int(count) for index, count in enumerate(self._pool.counts)}

    @property
    def labels(self) -> tuple[Any, ...]:
        """The label of each class in the data, by the index of the class."""
        return self._pool.labels

    def SampleEpisode(
        self, numWays: int, numShots: int, numQueryPerClass: int
    ) -> Episode[T, NDArray[Any], NDArray[Any]]:
        """Sample an episode.

        Raises
        ------
        ArgumentException
            As for `SampleEpisodes`.
        """
        return self.SampleEpisodes(1, numWays, numShots, numQueryPerClass)[0]

    def SampleEpisodes(
        self, count: int, numWays: int, numShots: int, numQueryPerClass: int
    ) -> list[Episode[T, NDArray[Any], NDArray[Any]]]:
        """Sample the episodes of ``count`` calls of `SampleEpisode`; their arrays move to a device at once.

        Raises
        ------
        ArgumentOutOfRangeException
            ``count`` or a size is below 1, numWays is below 2 or, with targets, not 1, or there are fewer classes.
        ArgumentException
            Fewer than numWays classes have numShots + numQueryPerClass examples, or an argument is no integer.
        """
        count = COUNT.check("count", count)
        classes = self.feasible_classes(numWays, numShots, numQueryPerClass)
        # Sums of NumPy's small integers would overflow.
        ways, shots, queries = int(numWays), int(numShots), int(numQueryPerClass)
        with self._lock:
            generator = self._stream.generator
            drawn = self.draw(
                generator, count, lambda: classes[draw_classes(generator, len(classes), ways)], shots, queries
            )
        return [Episode(task, self._name) for task in drawn.tasks_on(self._backend)]

    def SupportsConfiguration(self, numWays: int, numShots: int, numQueryPerClass: int) -> bool:
        """Return whether episodes of this size can be sampled."""
        try:
            self.feasible_classes(numWays, numShots, numQueryPerClass)
        except ArgumentException:
            return False
        return True

    # What samplers use.

    @property
    def backend(self) -> Backend:
        """The backend of the tasks' arrays."""
        return self._backend

    def draw(
        self, generator: np.random.Generator, count: int, choose: ChooseClasses, numShots: int, numQueryPerClass: int
    ) -> DrawnTasks:
        """Draw tasks of the classes that ``choose`` returns, on the host; the dataset's own stream stays."""
        return self._pool.draw(generator, count, choose, shots=numShots, queries=numQueryPerClass, name=self._name)

    def feasible_classes(self, numWays: int, numShots: int, numQueryPerClass: int) -> NDArray[np.intp]:
        """Return the indices of the classes with enough examples for episodes of this size.

        Raises
        ------
        ArgumentException
            As for `SampleEpisodes`.
        """
        ways = WAYS if self._pool.targets is None else Whole(1, 1)
        ways.check("numWays", numWays)
        needed = COUNT.check("numShots", numShots) + COUNT.check("numQueryPerClass", numQueryPerClass)
        if numWays > self.TotalClasses:
            raise ArgumentOutOfRangeException(
                f"numWays must be at most {self.TotalClasses}, the number of classes, got {numWays}"
            )
        classes = np.flatnonzero(self._pool.counts >= needed)
        if len(classes) < numWays:
            raise ArgumentException(
                f"numShots + numQueryPerClass must be at most the examples of numWays = {numWays} classes, got "
                f"{numShots} + {numQueryPerClass} = {needed}; {len(classes)} classes have so many"
            )
        return classes

    def difficulty(self, classes: Sequence[int] | NDArray[np.intp]) -> float:
        """Return how hard it is to tell classes apart, from 0 to 1, measured on all their examples.

        The share of the scatter within the classes in all scatter: Σw_c / (Σw_c + Σ‖μ_c − μ̄‖²), with μ_c the mean of
        class c, μ̄ the mean of these means, and w_c the mean of ‖x − μ_c‖² over the class; 1 if there is no scatter.
        With targets: the variance of the one function's targets, as a share of the largest of all functions.
        """
        chosen = np.asarray(classes, np.intp)
        # A cached_property of Python 3.11 holds a lock meanwhile, that a fork leaves locked.
        self._scatter = self._scatter or self._measured_scatter()
        means, within = self._scatter
        if self._pool.targets is not None:
            return float(within[chosen].mean() / (within.max() or 1.0))
        inside, between = float(within[chosen].sum()), float(((means[chosen] - means[chosen].mean(axis=0)) ** 2).sum())
        return inside / (inside + between) if inside + between > 0.0 else 1.0

    def _measured_scatter(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the means of the classes, and the scatter within each, of all examples divided by one power of two.

        Ratios do not depend on it, and squares of huge numbers would overflow, as those of tiny ones would vanish.
        """
        means: list[NDArray[np.float64]] = []
        largest = 0.0
        for c, count in enumerate(self._pool.counts.tolist()):
            part, sums = 2.0 ** count.bit_length(), list[NDArray[np.float64]]()
            for values in map(_flat, self._pool.values_of(c)):
                largest = max(largest, float(np.abs(values).max(initial=0.0)))
                sums.append((values / part).sum(axis=0))
            means.append(np.add.reduce(sums) / count * part)
        scale = 2.0 ** (math.frexp(largest)[1] - 1)
        centers, within = np.array(means) / scale, np.empty(self.TotalClasses)
        for c, count in enumerate(self._pool.counts.tolist()):
            parts = ((_flat(values) / scale - centers[c]) ** 2 for values in self._pool.values_of(c))
            within[c] = sum(part.sum(axis=1).sum() for part in parts) / count
        return centers, within


def _flat(values: NDArray[Any]) -> NDArray[np.float64]:
    return values.reshape(len(values), -1).astype(np.float64)
