"""Synthetic meta-datasets: sine waves, Gaussian clusters and rotations."""

from __future__ import annotations

from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import COUNT, FINITE, NON_NEGATIVE, SEED, Whole, refusal
from aidotnet_py.backends import Backend
from aidotnet_py.data.episodic import check_dtype
from aidotnet_py.data.meta_dataset import MetaDatasetBase
from aidotnet_py.exceptions import ArgumentOutOfRangeException
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.type_parameters import T

__all__ = ["GaussianClassificationMetaDataset", "RotatedDigitsMetaDataset", "SineWaveMetaDataset"]

_SEVERAL = Whole(2, COUNT.most)
_JITTER = 0.2


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

    amplitudes: NDArray[np.float64]
    phases: NDArray[np.float64]

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
    @suggests_keywords()
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

    means: NDArray[np.float64]

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
    @suggests_keywords()
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

    angles: NDArray[np.float64]

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
    @suggests_keywords()
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


def _check_range(name: str, low: float, high: float) -> tuple[float, float]:
    least, most = FINITE.check(f"{name}Min", low), FINITE.check(f"{name}Max", high)
    if least > most:
        raise ArgumentOutOfRangeException(refusal(f"{name}Max", f"a number of at least {name}Min = {least}", high))
    return least, most


def _data_generator(seed: int | None) -> np.random.Generator:
    """Return a generator of the data, independent of the one that draws episodes with the same seed."""
    entropy = None if seed is None else SEED.check("seed", seed)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy, spawn_key=(0,))))
