"""Loaders of N-way K-shot tasks over arrays of inputs and labels: our own, and those with AiDotNet's names."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, cast, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aidotnet_py.arguments import COUNT, Number, Whole
from aidotnet_py.backends import Backend
from aidotnet_py.data.drawn_tasks import DrawnTasks
from aidotnet_py.data.draws import WAYS, check_classes, draw_classes
from aidotnet_py.data.example_pool import ExamplePool
from aidotnet_py.data.pooled import PooledLoader
from aidotnet_py.data.random_stream import RandomStream, RememberingStream
from aidotnet_py.data.weightings import WEIGHTING, WEIGHTINGS, WeightingName
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.type_parameters import T

__all__ = [
    "ArrayLoader",
    "BalancedEpisodicDataLoader",
    "CurriculumEpisodicDataLoader",
    "StratifiedEpisodicDataLoader",
    "UniformEpisodicDataLoader",
    "WeightedLoader",
]

_PROGRESS = Number(least=0, most=1)
# Stands for the type of X until that is known.
_FLOAT = np.float32


class _LoaderOverArrays(PooledLoader[T]):
    """A loader over arrays; a subclass chooses the classes of a task in `_choose`, and calls `_fill`."""

    def _fill(
        self,
        X: ArrayLike,
        y: ArrayLike,
        dtype: type[Any] | None,
        sizes: Mapping[str, int],
        seed: int | None,
    ) -> None:
        """Take the arrays, of which each class has examples for a task of these sizes: ways, shots, queries by name."""
        pool = ExamplePool(X, y, dtype)
        self._pool, self._dtype = pool, pool.inputs.dtype
        ways, shots, queries = sizes.values()
        names = cast("tuple[str, str, str]", tuple(sizes))
        check_classes(pool.count_of, ways, shots, queries, names=names)
        self._stream = self._make_stream(seed)
        # For the representation.
        self._X, self._y = X, y

    @abstractmethod
    def _choose(self, stream: RandomStream, ways: int) -> NDArray[np.intp]:
        """Choose the classes of the next task, in the order of their labels in it."""

    def _sizes(self, stream: RandomStream) -> tuple[int, int]:
        """Return ways and shots of the next task."""
        return self._ways, self._shots

    def _draw(self, stream: RandomStream, count: int) -> DrawnTasks:
        ways, shots = self._sizes(stream)
        return self._pool.draw(
            stream.generator,
            count,
            lambda: self._choose(stream, ways),
            shots=shots,
            queries=self._queries,
            name=self._task_name(),
        )


class WeightedLoader(_LoaderOverArrays[T]):
    """A loader whose tasks all have the same size, with classes as its weighting chooses them."""

    _weighting: WeightingName

    def _make_stream(self, seed: int | None) -> RandomStream:
        return WEIGHTINGS[self._weighting].stream(seed, self.AvailableClasses)

    def _choose(self, stream: RandomStream, ways: int) -> NDArray[np.intp]:
        return WEIGHTINGS[self._weighting].choose(stream, self._pool.counts, ways)


class ArrayLoader(WeightedLoader[T]):
    """N-way K-shot tasks over arrays of one's own.

    Each task has N different classes, chosen by ``weighting``, and of each class K support and Q query examples, all
    different. In the task the classes are labelled 0 to N − 1, int64, in the order drawn; rows are sorted by label, and
    ``Metadata["Classes"]`` has the labels of the data in the order of the new ones. Classes may differ in their numbers
    of examples.

    Parameters
    ----------
    X : array_like, (examples, …)
        Real, finite inputs; not copied if they have the dtype.
    y : array_like, (examples,)
        A label for each example: integers, strings, whatever can be sorted.
    NWay, KShot, QueryShots : int
        N of at least 2, K and Q.
    weighting : {"uniform", "balanced", "proportional"}
        Whether all classes are equally probable; whether their counts of tasks never differ by more than one; or
        whether a class with n_c examples is in a task with probability min(1, t·n_c), t such that these sum to N.
    seed, dtype, backend
        As for all loaders: seed of the random stream, NumPy floating type (by default that of X, and float32 for
        integers and booleans), backend of the arrays.

    Raises
    ------
    ArgumentNullException
        X or y is None.
    ArgumentOutOfRangeException
        NWay is below 2 or above the number of classes, another size is below 1, or the seed is negative.
    ArgumentException
        X or y is no such array, such as a DataFrame, one-hot labels, or other lengths; a class has fewer than K + Q
        examples; or another argument is invalid.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.data import ArrayLoader
    >>> X = np.random.default_rng(0).normal(size=(60, 4))
    >>> y = np.repeat(["cat", "dog", "elk", "fox", "owl", "yak"], 10)
    >>> loader = ArrayLoader(X, y, NWay=2, KShot=1, QueryShots=3, seed=0)
    >>> loader.GetNextTask().SupportInput.shape
    (2, 4)
    >>> train, test = loader.split(4, 2, seed=1)
    >>> train.AvailableClasses, sorted(test.GetNextTask().Metadata["Classes"])
    (4, ['fox', 'yak'])
    """

    @overload
    def __init__(
        self,
        X: NDArray[T],
        y: ArrayLike,
        NWay: int = 5,
        KShot: int = 1,
        QueryShots: int = 15,
        *,
        weighting: WeightingName = "uniform",
        seed: int | None = None,
        backend: str | Backend = "numpy",
    ) -> None: ...
    @overload
    def __init__(
        self,
        X: ArrayLike,
        y: ArrayLike,
        NWay: int = 5,
        KShot: int = 1,
        QueryShots: int = 15,
        *,
        weighting: WeightingName = "uniform",
        seed: int | None = None,
        dtype: type[T],
        backend: str | Backend = "numpy",
    ) -> None: ...
    @suggests_keywords()
    def __init__(
        self,
        X: ArrayLike,
        y: ArrayLike,
        NWay: int = 5,
        KShot: int = 1,
        QueryShots: int = 15,
        *,
        weighting: WeightingName = "uniform",
        seed: int | None = None,
        dtype: type[Any] | None = None,
        backend: str | Backend = "numpy",
    ) -> None:
        WAYS.check("NWay", NWay)
        self._weighting = WEIGHTING.check("weighting", weighting)
        super().__init__(NWay, KShot, QueryShots, seed=seed, dtype=_FLOAT if dtype is None else dtype, backend=backend)
        self._fill(X, y, dtype, {"NWay": self._ways, "KShot": self._shots, "QueryShots": self._queries}, seed)


class _FixedSizeLoader(WeightedLoader[T]):
    """The constructor of AiDotNet's loaders whose tasks all have the same size."""

    @overload
    def __init__(
        self,
        X: NDArray[T],
        y: ArrayLike,
        nWay: int = 5,
        kShot: int = 5,
        queryShots: int = 15,
        seed: int | None = None,
        *,
        backend: str | Backend = "numpy",
    ) -> None: ...
    @overload
    def __init__(
        self,
        X: ArrayLike,
        y: ArrayLike,
        nWay: int = 5,
        kShot: int = 5,
        queryShots: int = 15,
        seed: int | None = None,
        *,
        dtype: type[T],
        backend: str | Backend = "numpy",
    ) -> None: ...
    @suggests_keywords()
    def __init__(
        self,
        X: ArrayLike,
        y: ArrayLike,
        nWay: int = 5,
        kShot: int = 5,
        queryShots: int = 15,
        seed: int | None = None,
        *,
        dtype: type[Any] | None = None,
        backend: str | Backend = "numpy",
    ) -> None:
        self._nWay = WAYS.check("nWay", nWay)
        self._kShot = COUNT.check("kShot", kShot)
        self._queryShots = COUNT.check("queryShots", queryShots)
        super().__init__(nWay, kShot, queryShots, seed=seed, dtype=_FLOAT if dtype is None else dtype, backend=backend)
        sizes = {"nWay": self._nWay, "kShot": self._kShot, "queryShots": self._queryShots}
        self._fill(X, y, dtype, sizes, seed)


class UniformEpisodicDataLoader(_FixedSizeLoader[T]):
    """N-way K-shot tasks over arrays, with classes drawn uniformly.

    Each task has N different classes, every class with probability N / C of C, and of each class K support and Q query
    examples, all different. In the task the classes are labelled 0 to N − 1, int64, in the order drawn; rows are
    sorted by label, and ``Metadata["Classes"]`` has the labels of the data in the order of the new ones.

    Parameters
    ----------
    X : array_like, (examples, …)
        Real, finite inputs; not copied if they have the dtype.
    y : array_like, (examples,)
        A label for each example: integers, strings, whatever can be sorted.
    nWay, kShot, queryShots : int
        N of at least 2, K and Q.
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
    ArgumentOutOfRangeException
        nWay is below 2 or above the number of classes, another size is below 1, or the seed is negative.
    ArgumentException
        X or y is no such array, such as a DataFrame, one-hot labels, or other lengths; a class has fewer than K + Q
        examples; or another argument is invalid.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.data import UniformEpisodicDataLoader
    >>> X = np.random.default_rng(0).normal(size=(60, 4))
    >>> y = np.repeat(["cat", "dog", "owl"], 20)
    >>> task = UniformEpisodicDataLoader(X, y, nWay=2, kShot=1, queryShots=3, seed=0).GetNextTask()
    >>> task.SupportInput.shape, task.QueryOutput.tolist()
    ((2, 4), [0, 0, 0, 1, 1, 1])
    >>> task.Metadata["Classes"]
    ('dog', 'owl')
    """

    _weighting: WeightingName = "uniform"


class BalancedEpisodicDataLoader(_FixedSizeLoader[T]):
    """N-way K-shot tasks over arrays, with all classes equally often.

    Each task takes the N classes that were in the fewest tasks so far, ties broken at random. The counts of two classes
    never differ by more than one: after t tasks a class of C was in ⌊tN/C⌋ or ⌈tN/C⌉. The counts belong to the
    loader's state; `SetSeed` sets them to zero.

    Parameters
    ----------
    X, y, nWay, kShot, queryShots, seed, dtype, backend
        As for `UniformEpisodicDataLoader`, with the same errors.

    Examples
    --------
    >>> from collections import Counter
    >>> import numpy as np
    >>> from aidotnet_py.data import BalancedEpisodicDataLoader
    >>> X, y = np.random.default_rng(0).normal(size=(70, 4)), np.repeat(range(7), 10)
    >>> loader = BalancedEpisodicDataLoader(X, y, nWay=3, kShot=1, queryShots=2, seed=0)
    >>> counts = Counter(c for task in loader.GetTaskBatch(14) for c in task.Metadata["Classes"])
    >>> sorted(counts.values())
    [6, 6, 6, 6, 6, 6, 6]
    """

    _weighting: WeightingName = "balanced"


class StratifiedEpisodicDataLoader(_FixedSizeLoader[T]):
    """N-way K-shot tasks over arrays, with each class as often as its share of the examples.

    Class c with n_c of n examples is in a task with probability π_c = min(1, t·n_c), with t such that Σπ_c = N. That is
    N·n_c / n, unless it exceeds 1 for some class, which is then in every task. The draw is systematic sampling of
    classes in random order, which meets these probabilities exactly.

    Parameters
    ----------
    X, y, nWay, kShot, queryShots, seed, dtype, backend
        As for `UniformEpisodicDataLoader`, with the same errors.

    Examples
    --------
    >>> from collections import Counter
    >>> import numpy as np
    >>> from aidotnet_py.data import StratifiedEpisodicDataLoader
    >>> X, y = np.random.default_rng(0).normal(size=(100, 4)), np.repeat(["a", "b", "c", "d"], [40, 30, 20, 10])
    >>> loader = StratifiedEpisodicDataLoader(X, y, nWay=2, kShot=1, queryShots=2, seed=0)
    >>> counts = Counter(c for task in loader.GetTaskBatch(1000) for c in task.Metadata["Classes"])
    >>> {c: round(counts[c] / 2000, 1) for c in "abcd"}
    {'a': 0.4, 'b': 0.3, 'c': 0.2, 'd': 0.1}
    """

    _weighting: WeightingName = "proportional"


class CurriculumEpisodicDataLoader(_LoaderOverArrays[T]):
    """Tasks over arrays that grow harder: more classes and fewer support examples as a progress p goes from 0 to 1.

    The next task has ⌊N₀ + (N₁ − N₀)p + ½⌋ classes, drawn uniformly, and ⌊K₀ + (K₁ − K₀)p + ½⌋ support examples of
    each, with the initial sizes N₀ ≤ N₁ and K₀ ≥ K₁ of the target. `SetProgress` sets p, which starts at 0 and belongs
    to the loader's state. ``NWay`` and ``KShot`` are the sizes of the next task.

    Parameters
    ----------
    X, y
        As for `UniformEpisodicDataLoader`.
    targetNWay, targetKShot : int
        N₁ of at least 2, and K₁.
    queryShots : int
        Query examples of a class, at any progress.
    initialNWay, initialKShot : int
        N₀ from 2 to N₁, and K₀ of at least K₁.
    seed, dtype, backend
        As for `UniformEpisodicDataLoader`.

    Raises
    ------
    ArgumentNullException
        X or y is None.
    ArgumentOutOfRangeException
        A size is out of its range, there are fewer than N₁ classes, or the seed is negative.
    ArgumentException
        X or y is no such array, a class has fewer than K₀ + queryShots examples, or another argument is invalid.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.data import CurriculumEpisodicDataLoader
    >>> X, y = np.random.default_rng(0).normal(size=(150, 4)), np.repeat(range(5), 30)
    >>> loader = CurriculumEpisodicDataLoader(X, y, targetNWay=5, targetKShot=1, initialNWay=2, initialKShot=10, seed=0)
    >>> for progress in (0.0, 0.5, 1.0):
    ...     loader.SetProgress(progress)
    ...     print(loader.NWay, loader.KShot, loader.GetNextTask().SupportInput.shape)
    2 10 (20, 4)
    4 6 (24, 4)
    5 1 (5, 4)
    """

    @overload
    def __init__(
        self,
        X: NDArray[T],
        y: ArrayLike,
        targetNWay: int = 5,
        targetKShot: int = 1,
        queryShots: int = 15,
        initialNWay: int = 2,
        initialKShot: int = 10,
        seed: int | None = None,
        *,
        backend: str | Backend = "numpy",
    ) -> None: ...
    @overload
    def __init__(
        self,
        X: ArrayLike,
        y: ArrayLike,
        targetNWay: int = 5,
        targetKShot: int = 1,
        queryShots: int = 15,
        initialNWay: int = 2,
        initialKShot: int = 10,
        seed: int | None = None,
        *,
        dtype: type[T],
        backend: str | Backend = "numpy",
    ) -> None: ...
    @suggests_keywords()
    def __init__(
        self,
        X: ArrayLike,
        y: ArrayLike,
        targetNWay: int = 5,
        targetKShot: int = 1,
        queryShots: int = 15,
        initialNWay: int = 2,
        initialKShot: int = 10,
        seed: int | None = None,
        *,
        dtype: type[Any] | None = None,
        backend: str | Backend = "numpy",
    ) -> None:
        self._targetNWay = WAYS.check("targetNWay", targetNWay)
        self._targetKShot = COUNT.check("targetKShot", targetKShot)
        self._queryShots = COUNT.check("queryShots", queryShots)
        self._initialNWay = Whole(2, self._targetNWay).check("initialNWay", initialNWay)
        self._initialKShot = Whole(self._targetKShot, COUNT.most).check("initialKShot", initialKShot)
        super().__init__(
            targetNWay, initialKShot, queryShots, seed=seed, dtype=_FLOAT if dtype is None else dtype, backend=backend
        )
        sizes = {
            "targetNWay": self._targetNWay,
            "initialKShot": self._initialKShot,
            "queryShots": self._queryShots,
        }
        self._fill(X, y, dtype, sizes, seed)

    def _make_stream(self, seed: int | None) -> RandomStream:
        return RememberingStream(seed, {"progress": np.array(0.0)}, {"progress": _PROGRESS})

    def _least_classes(self) -> int:
        return self._targetNWay

    @property
    def NWay(self) -> int:
        """The number of classes in the next task."""
        return self._sizes(self._stream)[0]

    @property
    def KShot(self) -> int:
        """The number of support examples of a class in the next task."""
        return self._sizes(self._stream)[1]

    @property
    def CurriculumProgress(self) -> float:
        """The progress, from 0 at the initial sizes to 1 at those of the target."""
        return float(self._stream.memory["progress"])

    def SetProgress(self, progress: float) -> None:
        """Set the progress for the next tasks.

        Raises
        ------
        ArgumentOutOfRangeException
            ``progress`` is not in [0, 1].
        ArgumentException
            ``progress`` is no number.
        """
        value = _PROGRESS.check("progress", progress)
        with self._lock:
            self._stream.memory["progress"] = np.array(value)

    def _sizes(self, stream: RandomStream) -> tuple[int, int]:
        progress = float(stream.memory["progress"])
        ways = self._initialNWay + (self._targetNWay - self._initialNWay) * progress
        shots = self._initialKShot + (self._targetKShot - self._initialKShot) * progress
        return math.floor(ways + 0.5), math.floor(shots + 0.5)

    def _choose(self, stream: RandomStream, ways: int) -> NDArray[np.intp]:
        return draw_classes(stream.generator, self.AvailableClasses, ways)
