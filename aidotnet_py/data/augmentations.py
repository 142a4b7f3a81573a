"""Random changes of inputs for `with_transform` of a loader; each can be pickled and compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import COUNT, NON_NEGATIVE
from aidotnet_py.exceptions import ArgumentException

__all__ = ["GaussianNoise", "RandomFlip", "RandomShift"]


@dataclass(frozen=True)
class RandomFlip:
    """Mirror each image, left to right, with probability ½.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.data import RandomFlip
    >>> images = np.arange(8.0).reshape(4, 1, 2, 1)
    >>> RandomFlip()(images, np.random.default_rng(0))[..., 0].tolist()
    [[[1.0, 0.0]], [[2.0, 3.0]], [[4.0, 5.0]], [[6.0, 7.0]]]
    """

    def __call__(self, images: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
        """Return images (n, h, w, channels), some of them mirrored."""
        _check_images(images)
        mirrored = generator.random(len(images)) >= 0.5
        images[mirrored] = images[mirrored][:, :, ::-1]
        return images


@dataclass(frozen=True)
class RandomShift:
    """Shift each image by up to some pixels in both directions, uniformly; the pixels at its edges are repeated.

    Parameters
    ----------
    pixels : int
        The largest shift.

    Raises
    ------
    ArgumentException
        ``pixels`` is no integer, or below 1 (ArgumentOutOfRangeException).

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.data import RandomShift
    >>> images = np.arange(3.0).reshape(1, 1, 3, 1)
    >>> RandomShift(1)(images, np.random.default_rng(1))[0, 0, :, 0].tolist()
    [0.0, 1.0, 2.0]
    """

    pixels: int

    def __post_init__(self) -> None:
        # As a plain number: those of NumPy may be too narrow for their own negatives.
        object.__setattr__(self, "pixels", COUNT.check("pixels", self.pixels))

    def __call__(self, images: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
        """Return images (n, h, w, channels), shifted."""
        _check_images(images)
        count, height, width, _ = images.shape
        shifts: Any = generator.integers(-self.pixels, self.pixels + 1, (2, count, 1))
        down: NDArray[np.int64] = np.arange(height, dtype=np.int64) - shifts[0]
        right: NDArray[np.int64] = np.arange(width, dtype=np.int64) - shifts[1]
        rows, columns = np.clip(down, 0, height - 1), np.clip(right, 0, width - 1)
        shifted: NDArray[Any] = images[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
        return shifted


@dataclass(frozen=True)
class GaussianNoise:
    """Add independent normal noise of mean 0 to each number.

    Parameters
    ----------
    deviation : float
        Its standard deviation.

    Raises
    ------
    ArgumentException
        ``deviation`` is no number, or below 0 (ArgumentOutOfRangeException).

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.data import GaussianNoise
    >>> noisy = GaussianNoise(0.1)(np.zeros((2000, 3)), np.random.default_rng(0))
    >>> round(float(noisy.std()), 2)
    0.1
    """

    deviation: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "deviation", NON_NEGATIVE.check("deviation", self.deviation))

    def __call__(self, examples: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
        """Return examples with noise."""
        return examples + self.deviation * generator.standard_normal(examples.shape)


def _check_images(images: NDArray[Any]) -> None:
    if images.ndim != 4:
        raise ArgumentException(f"images must have shape (n, height, width, channels), got {images.shape}")
