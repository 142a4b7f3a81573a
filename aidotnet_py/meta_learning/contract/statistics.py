"""Summaries of numbers: statistics, confidence intervals and the best of a history."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import check_given
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.type_parameters import T

__all__ = ["BasicStats", "BestValue", "ConfidenceInterval", "best_of", "difference", "mean_of", "require_numbers"]

_DIMENSIONS = {1: "one-dimensional", 2: "two-dimensional"}
# Of the numbers that are summarised, whatever T stands for where it is not said.
_S = TypeVar("_S", bound=np.floating[Any])


class BestValue(NamedTuple, Generic[T]):
    """The best of a history, and where it first stands in it, counted from 0."""

    Value: T
    Iteration: int


@dataclass(frozen=True)
class ConfidenceInterval(Generic[T]):
    """An interval about a mean; ``lower, upper = interval`` takes it apart.

    Raises
    ------
    ArgumentException
        When the half-width is negative; NaN is one that is not known.
    """

    Mean: T
    HalfWidth: T

    def __post_init__(self) -> None:
        if self.HalfWidth < 0:
            raise ArgumentException(f"HalfWidth must be at least 0, or NaN if it is not known, got {self.HalfWidth}")

    @property
    def Lower(self) -> T:
        """``Mean − HalfWidth``."""
        return difference(self.Mean, self.HalfWidth)

    @property
    def Upper(self) -> T:
        """``Mean + HalfWidth``."""
        return difference(self.Mean, -self.HalfWidth)

    def __iter__(self) -> Iterator[T]:
        yield self.Lower
        yield self.Upper


@dataclass(frozen=True)
class BasicStats(Generic[T]):
    """Summary of N numbers; statistics that need more numbers than there are, or that divide by a spread of 0, are NaN.

    Attributes
    ----------
    Mean, Median, Min, Max : T
        As NumPy has them.
    Variance, StandardDeviation : T
        Of a sample, s² = Σ(xᵢ − x̄)²/(N − 1); from N = 2 on.
    Skewness : T
        N/((N − 1)(N − 2)) Σzᵢ³ with z = (x − x̄)/s; from N = 3 on.
    Kurtosis : T
        Excess over a normal distribution, N(N + 1)/((N − 1)(N − 2)(N − 3)) Σzᵢ⁴ − 3(N − 1)²/((N − 2)(N − 3)); from
        N = 4 on.
    FirstQuartile, ThirdQuartile, InterquartileRange : T
        Quantiles ¼ and ¾, interpolated linearly, and their difference.
    MAD : T
        Mean absolute deviation from the median.
    N : int
        How many numbers there are.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.meta_learning.contract.statistics import BasicStats
    >>> stats = BasicStats.of(np.array([1.0, 2.0, 3.0, 6.0]))
    >>> float(stats.Mean), float(stats.Median), float(stats.InterquartileRange), float(stats.MAD)
    (3.0, 2.5, 2.0, 1.5)
    >>> lower, upper = stats.ConfidenceInterval()
    >>> round(float(lower), 3), round(float(upper), 3)
    (0.883, 5.117)
    """

    Mean: T
    Variance: T
    StandardDeviation: T
    Skewness: T
    Kurtosis: T
    Median: T
    FirstQuartile: T
    ThirdQuartile: T
    InterquartileRange: T
    MAD: T
    Min: T
    Max: T
    N: int

    @staticmethod
    def of(values: NDArray[_S]) -> BasicStats[_S]:
        """Summarise numbers, in their dtype.

        Parameters
        ----------
        values : (N,) array
            At least one floating-point number; a NaN among them makes all of the summary NaN.

        Raises
        ------
        ArgumentNullException
            When they are None.
        ArgumentException
            When they are empty, not one-dimensional or not of floating-point numbers.
        """
        check_given("values", values, "an array of numbers")
        values = np.asarray(values)
        require_numbers("values", values)
        if values.size == 0:
            raise ArgumentException("values must have at least one number, got shape (0,)")
        # Summed in double precision at least, so that a summary is no less exact than the numbers in it.
        wide = values.astype(np.result_type(values.dtype, np.float64))
        scalar = values.dtype.type
        with np.errstate(all="ignore"):
            median = np.median(wide)
            # The mean of equal numbers may differ from them by rounding, which is no spread; the median does not.
            apart = wide - median
            variance = np.var(apart, ddof=1) if wide.size > 1 else math.nan
            skewness, kurtosis = _shape(apart, variance)
            distances: NDArray[Any] = np.abs(apart)
            quartiles: NDArray[Any] = np.quantile(wide, (0.25, 0.75))
            return BasicStats(
                Mean=scalar(mean_of(wide)),
                Variance=scalar(variance),
                StandardDeviation=scalar(np.sqrt(variance)),
                Skewness=scalar(skewness),
                Kurtosis=scalar(kurtosis),
                Median=scalar(median),
                FirstQuartile=scalar(quartiles[0]),
                ThirdQuartile=scalar(quartiles[1]),
                InterquartileRange=scalar(quartiles[1] - quartiles[0]),
                MAD=scalar(distances.mean()),
                Min=values.min(),
                Max=values.max(),
                N=values.size,
            )

    def ConfidenceInterval(self) -> ConfidenceInterval[T]:
        """Return the normal 95 % interval of the mean, ``Mean ± 1.96 StandardDeviation / √N``."""
        scalar = type(self.Mean)
        with np.errstate(all="ignore"):
            return ConfidenceInterval(self.Mean, scalar(1.96 * float(self.StandardDeviation) / math.sqrt(self.N)))


def _shape(values: NDArray[Any], variance: Any) -> tuple[Any, Any]:
    """Return the sample skewness and excess kurtosis of numbers with this sample variance."""
    n, z = values.size, (values - np.mean(values)) / np.sqrt(variance)
    skewness = n / ((n - 1) * (n - 2)) * np.sum(z**3) if n > 2 else math.nan
    if n <= 3:
        return skewness, math.nan
    fourth = n * (n + 1) / ((n - 1) * (n - 2) * (n - 3)) * np.sum(z**4)
    return skewness, fourth - 3 * (n - 1) ** 2 / ((n - 2) * (n - 3))


def mean_of(values: NDArray[Any]) -> Any:
    """Return the mean of numbers, in double precision at least; finite if they are, whatever their sum is."""
    wide = values.astype(np.result_type(values.dtype, np.float64))
    with np.errstate(all="ignore"):
        mean = wide.mean()
        return np.sum(wide / wide.size) if math.isinf(mean) and np.isfinite(wide).all() else mean


def difference(x: T, y: T) -> T:
    """Return x − y in their type; ∞ − ∞ is NaN."""
    with np.errstate(all="ignore"):
        return type(x)(x - y)


def best_of(history: NDArray[T], place: Any) -> BestValue[T]:
    """Return the value of a history at the place that, of numbers of which some may be NaN, ``place`` finds."""
    iteration = 0 if np.isnan(history).all() else int(place(history))
    return BestValue(cast(T, history[iteration]), iteration)


def require_numbers(name: str, values: NDArray[Any], dimensions: int = 1) -> None:
    """Raise ArgumentException unless an array holds floating-point numbers along so many axes."""
    if values.dtype.kind != "f":
        raise ArgumentException(f"{name} must hold floating-point numbers, got dtype {values.dtype}")
    if values.ndim != dimensions:
        raise ArgumentException(f"{name} must be {_DIMENSIONS[dimensions]}, got shape {values.shape}")
