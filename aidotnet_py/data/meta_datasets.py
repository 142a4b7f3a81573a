"""Meta-datasets: classes that episodes of any size are sampled from, of one's own arrays or synthetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Generic, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aidotnet_py.arguments import COUNT, FINITE, NON_NEGATIVE, SEED, Whole, refusal
from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.data.draws import WAYS, draw_classes
from aidotnet_py.data.episodes import Episode
from aidotnet_py.data.episodic import DrawnTasks, check_dtype
from aidotnet_py.data.example_pool import ChooseClasses, ExamplePool
from aidotnet_py.data.random_stream import RandomStream
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException
from aidotnet_py.locks import Lock
from aidotnet_py.representations import concise_repr
from aidotnet_py.type_parameters import T

__all__ = [
    "GaussianClassificationMetaDataset",
    "MetaDatasetBase",
    "RotatedDigitsMetaDataset",
    "SineWaveMetaDataset",
]


class MetaDatasetBase(Generic[T]):
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
        self._stream = RandomStream(seed)
        self._lock = Lock()
        self._name = Name
        self._pool = ExamplePool(X, y, dtype, targets)
        # For the representation.
        self._X, self._y = X, y

    @property
    def Name(self) -> str:
        """The name of the data."""
        return self._name

    @property
    def TotalClasses(self) -> int:
        """The number of classes."""
        return len(self._pool.labels)

    @property
    def TotalExamples(self) -> int:
        """The number of examples of all classes."""
        return len(self._pool.inputs)

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
        with self._lock:
            generator = self._stream.generator
            drawn = self.draw(
                generator,
                count,
                lambda: classes[draw_classes(generator, len(classes), numWays)],
                numShots,
                numQueryPerClass,
            )
        return [Episode(task, self._name) for task in drawn.tasks_on(self._backend)]

    def SupportsConfiguration(self, numWays: int, numShots: int, numQueryPerClass: int) -> bool:
        """Return whether episodes of this size can be sampled."""
        try:
            self.feasible_classes(numWays, numShots, numQueryPerClass)
        except ArgumentException:
            return False
        return True

    def SetSeed(self, seed: int) -> None:
        """Restart the random stream, but keep the data; equal seeds give equal episodes.

        Raises
        ------
        ArgumentException
            ``seed`` is no integer, or negative (ArgumentOutOfRangeException).
        """
        with self._lock:
            self._stream.reseed(seed)

    def GetState(self) -> dict[str, Any]:
        """Return the position in the random stream as plain JSON values."""
        with self._lock:
            return self._stream.state()

    def SetState(self, state: Mapping[str, Any]) -> None:
        """Continue from a position that `GetState` returned; over the same data the same episodes follow.

        Raises
        ------
        ArgumentException
            ``state`` is not such a position; nothing changes then.
        """
        with self._lock:
            self._stream.restore(state)

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
        means, within = self._scatter
        if self._pool.targets is not None:
            return float(within[chosen].mean() / (within.max() or 1.0))
        inside, between = float(within[chosen].sum()), float(((means[chosen] - means[chosen].mean(axis=0)) ** 2).sum())
        return inside / (inside + between) if inside + between > 0.0 else 1.0

    @cached_property
    def _scatter(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Means of the classes, (classes, features), and mean squared distances from them."""
        values = self._pool.inputs if self._pool.targets is None else self._pool.targets
        means = np.empty((self.TotalClasses, int(np.prod(values.shape[1:]))))
        within = np.empty(self.TotalClasses)
        for c in range(self.TotalClasses):
            own = values[self._pool.rows(c)].reshape(-1, means.shape[1]).astype(np.float64)
            means[c] = own.mean(axis=0)
            within[c] = ((own - means[c]) ** 2).sum(axis=1).mean()
        return means, within


class SineWaveMetaDataset(MetaDatasetBase[T]):
    """Points on sine waves: a regression on y = A·sin(x + φ), with one wave a task.

    For each wave A ~ U[amplitudeMin, amplitudeMax) and φ ~ U[phaseMin, phaseMax); for each of its points
    x ~ U[xMin, xMax). Waves and points are drawn once, from the seed. Inputs and targets are (n, 1); targets are
    computed in float64 at the stored inputs and rounded once. A task is one wave, so numWays is 1.

    Parameters
    ----------
    numClasses, examplesPerClass : int
        The number of waves, and of points on each; at least 2.
    amplitudeMin, amplitudeMax, phaseMin, phaseMax, xMin, xMax : float
        The ranges; no least value exceeds its largest.
    seed : int or None
        The seed of the data and of the random stream; None takes one from the operating system.
    dtype : type
        The floating type of inputs and targets.
    backend : str or Backend
        The backend of the tasks' arrays.

    Attributes
    ----------
    amplitudes, phases : array of float64, (numClasses,)
        A and φ of each wave.

    Raises
    ------
    ArgumentOutOfRangeException
        A number is out of its range, or the seed is negative.
    ArgumentException
        Another argument is invalid.

    References
    ----------
    Finn, Abbeel, Levine, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", ICML 2017, section 5.1.

    Examples
    --------
    >>> from aidotnet_py.data import SineWaveMetaDataset
    >>> task = SineWaveMetaDataset(seed=0).SampleEpisode(numWays=1, numShots=5, numQueryPerClass=10).Task
    >>> task.SupportInput.shape, task.QueryOutput.shape, task.SupportOutput.dtype.name
    ((5, 1), (10, 1), 'float32')
    """

    @overload
    def __init__(
        self: SineWaveMetaDataset[np.float32],
        numClasses: int = 100,
        examplesPerClass: int = 50,
        amplitudeMin: float = 0.1,
        amplitudeMax: float = 5.0,
        phaseMin: float = 0.0,
        phaseMax: float = np.pi,
        xMin: float = -5.0,
        xMax: float = 5.0,
        seed: int | None = None,
        *,
        backend: str | Backend = "numpy",
    ) -> None: ...
    @overload
    def __init__(
        self,
        numClasses: int = 100,
        examplesPerClass: int = 50,
        amplitudeMin: float = 0.1,
        amplitudeMax: float = 5.0,
        phaseMin: float = 0.0,
        phaseMax: float = np.pi,
        xMin: float = -5.0,
        xMax: float = 5.0,
        seed: int | None = None,
        *,
        dtype: type[T],
        backend: str | Backend = "numpy",
    ) -> None: ...
    def __init__(
        self,
        numClasses: int = 100,
        examplesPerClass: int = 50,
        amplitudeMin: float = 0.1,
        amplitudeMax: float = 5.0,
        phaseMin: float = 0.0,
        phaseMax: float = np.pi,
        xMin: float = -5.0,
        xMax: float = 5.0,
        seed: int | None = None,
        *,
        dtype: type[Any] = np.float32,
        backend: str | Backend = "numpy",
    ) -> None:
        self._numClasses = _SEVERAL.check("numClasses", numClasses)
        self._examplesPerClass = _SEVERAL.check("examplesPerClass", examplesPerClass)
        self._amplitudeMin, self._amplitudeMax = _check_range("amplitude", amplitudeMin, amplitudeMax)
        self._phaseMin, self._phaseMax = _check_range("phase", phaseMin, phaseMax)
        self._xMin, self._xMax = _check_range("x", xMin, xMax)
        generator, shape = _data_generator(seed), (self._numClasses, self._examplesPerClass)
        self.amplitudes = generator.uniform(self._amplitudeMin, self._amplitudeMax, shape[0])
        self.phases = generator.uniform(self._phaseMin, self._phaseMax, shape[0])
        x = generator.uniform(self._xMin, self._xMax, shape).astype(check_dtype(dtype))
        targets = self.amplitudes[:, np.newaxis] * np.sin(x.astype(np.float64) + self.phases[:, np.newaxis])
        waves = np.repeat(np.arange(shape[0]), shape[1])
        super().__init__(
            "SineWave",
            x.reshape(-1, 1),
            waves,
            targets=targets.reshape(-1, 1),
            seed=seed,
            dtype=dtype,
            backend=backend,
        )


class GaussianClassificationMetaDataset(MetaDatasetBase[T]):
    """Classes that are Gaussian clusters: x = μ_c + σ·ε, with μ_c = s·η_c, and ε, η_c standard normal.

    Means and examples are drawn once, from the seed. Inputs are (n, featureDim).

    Parameters
    ----------
    numClasses, examplesPerClass : int
        The number of classes, and of examples of each; at least 2.
    featureDim : int
        The number of features.
    classSeparation, clusterStdDev : float
        s and σ, not negative.
    seed : int or None
        The seed of the data and of the random stream; None takes one from the operating system.
    dtype : type
        The floating type of the inputs.
    backend : str or Backend
        The backend of the tasks' arrays.

    Attributes
    ----------
    means : array of float64, (numClasses, featureDim)
        μ_c of each class.

    Raises
    ------
    ArgumentOutOfRangeException
        A number is out of its range, or the seed is negative.
    ArgumentException
        Another argument is invalid.

    Examples
    --------
    >>> from aidotnet_py.data import GaussianClassificationMetaDataset
    >>> clusters = GaussianClassificationMetaDataset(numClasses=20, featureDim=4, seed=0)
    >>> task = clusters.SampleEpisode(numWays=5, numShots=1, numQueryPerClass=15).Task
    >>> task.SupportInput.shape, task.SupportOutput.tolist(), task.QueryInput.shape
    ((5, 4), [0, 1, 2, 3, 4], (75, 4))
    """

    @overload
    def __init__(
        self: GaussianClassificationMetaDataset[np.float32],
        numClasses: int = 100,
        examplesPerClass: int = 50,
        featureDim: int = 20,
        classSeparation: float = 3.0,
        clusterStdDev: float = 0.5,
        seed: int | None = None,
        *,
        backend: str | Backend = "numpy",
    ) -> None: ...
    @overload
    def __init__(
        self,
        numClasses: int = 100,
        examplesPerClass: int = 50,
        featureDim: int = 20,
        classSeparation: float = 3.0,
        clusterStdDev: float = 0.5,
        seed: int | None = None,
        *,
        dtype: type[T],
        backend: str | Backend = "numpy",
    ) -> None: ...
    def __init__(
        self,
        numClasses: int = 100,
        examplesPerClass: int = 50,
        featureDim: int = 20,
        classSeparation: float = 3.0,
        clusterStdDev: float = 0.5,
        seed: int | None = None,
        *,
        dtype: type[Any] = np.float32,
        backend: str | Backend = "numpy",
    ) -> None:
        self._numClasses = _SEVERAL.check("numClasses", numClasses)
        self._examplesPerClass = _SEVERAL.check("examplesPerClass", examplesPerClass)
        self._featureDim = COUNT.check("featureDim", featureDim)
        self._classSeparation = NON_NEGATIVE.check("classSeparation", classSeparation)
        self._clusterStdDev = NON_NEGATIVE.check("clusterStdDev", clusterStdDev)
        generator = _data_generator(seed)
        self.means = self._classSeparation * generator.standard_normal((self._numClasses, self._featureDim))
        noise = generator.standard_normal((self._numClasses, self._examplesPerClass, self._featureDim))
        X = self.means[:, np.newaxis] + self._clusterStdDev * noise
        y = np.repeat(np.arange(self._numClasses), self._examplesPerClass)
        super().__init__("GaussianClassification", X.reshape(len(y), -1), y, seed=seed, dtype=dtype, backend=backend)


class RotatedDigitsMetaDataset(MetaDatasetBase[T]):
    """Classes that are rotations by α_c = 2πc/C, seen through harmonics: no images, a synthetic stand-in for them.

    An example has an angle α = α_c + 0.2·η of its own, and the features cos α, sin α, cos 2α, sin 2α, …, each plus σ·ε;
    η and ε are standard normal. Examples are drawn once, from the seed. Inputs are (n, featureDim).

    Parameters
    ----------
    numClasses, examplesPerClass : int
        C, and the number of examples of each class; at least 2.
    featureDim : int
        The number of features, at least 2.
    noiseStdDev : float
        σ, not negative.
    seed : int or None
        The seed of the data and of the random stream; None takes one from the operating system.
    dtype : type
        The floating type of the inputs.
    backend : str or Backend
        The backend of the tasks' arrays.

    Attributes
    ----------
    angles : array of float64, (numClasses,)
        α_c of each class.

    Raises
    ------
    ArgumentOutOfRangeException
        A number is out of its range, or the seed is negative.
    ArgumentException
        Another argument is invalid.

    Examples
    --------
    >>> from aidotnet_py.data import RotatedDigitsMetaDataset
    >>> rotations = RotatedDigitsMetaDataset(seed=0)
    >>> rotations.SampleEpisode(numWays=5, numShots=1, numQueryPerClass=15).Task.QueryInput.shape
    (75, 8)
    """

    @overload
    def __init__(
        self: RotatedDigitsMetaDataset[np.float32],
        numClasses: int = 50,
        examplesPerClass: int = 30,
        featureDim: int = 8,
        noiseStdDev: float = 0.1,
        seed: int | None = None,
        *,
        backend: str | Backend = "numpy",
    ) -> None: ...
    @overload
    def __init__(
        self,
        numClasses: int = 50,
        examplesPerClass: int = 30,
        featureDim: int = 8,
        noiseStdDev: float = 0.1,
        seed: int | None = None,
        *,
        dtype: type[T],
        backend: str | Backend = "numpy",
    ) -> None: ...
    def __init__(
        self,
        numClasses: int = 50,
        examplesPerClass: int = 30,
        featureDim: int = 8,
        noiseStdDev: float = 0.1,
        seed: int | None = None,
        *,
        dtype: type[Any] = np.float32,
        backend: str | Backend = "numpy",
    ) -> None:
        self._numClasses = _SEVERAL.check("numClasses", numClasses)
        self._examplesPerClass = _SEVERAL.check("examplesPerClass", examplesPerClass)
        self._featureDim = _SEVERAL.check("featureDim", featureDim)
        self._noiseStdDev = NON_NEGATIVE.check("noiseStdDev", noiseStdDev)
        generator, shape = _data_generator(seed), (self._numClasses, self._examplesPerClass)
        self.angles = 2.0 * np.pi * np.arange(shape[0]) / shape[0]
        angles = self.angles[:, np.newaxis] + _JITTER * generator.standard_normal(shape)
        features = np.arange(self._featureDim)
        # cos(a) = sin(a + π/2): the even features are the cosines.
        phases = np.where(features % 2 == 0, np.pi / 2, 0.0)
        clean = np.sin(angles[..., np.newaxis] * (features // 2 + 1) + phases)
        X = clean + self._noiseStdDev * generator.standard_normal(clean.shape)
        y = np.repeat(np.arange(shape[0]), shape[1])
        super().__init__("RotatedDigits", X.reshape(len(y), -1), y, seed=seed, dtype=dtype, backend=backend)


_SEVERAL = Whole(2, COUNT.most)
_JITTER = 0.2


def _check_range(name: str, low: float, high: float) -> tuple[float, float]:
    least, most = FINITE.check(f"{name}Min", low), FINITE.check(f"{name}Max", high)
    if least > most:
        raise ArgumentOutOfRangeException(refusal(f"{name}Max", f"a number of at least {name}Min = {least}", high))
    return least, most


def _data_generator(seed: int | None) -> np.random.Generator:
    """Return a generator of the data, independent of the one that draws episodes with the same seed."""
    entropy = None if seed is None else SEED.check("seed", seed)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy, spawn_key=(0,))))
