"""Few-shot tasks on scikit-learn's scanned digits: real images without a download."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import Choice
from aidotnet_py.backends import Backend
from aidotnet_py.data.image_loader import ImageLoader
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.type_parameters import T

__all__ = ["DigitsLoader"]

# Digits that look alike when turned (0, 1 and 8 like themselves, 6 like 9) are training classes, so that no test class
# resembles a training class or another test class.
_DIGITS = {"train": (0, 1, 6, 8, 9), "test": (2, 3, 4, 5, 7)}
_SPLIT = Choice("train", "test")


class DigitsLoader(ImageLoader[T]):
    """N-way K-shot tasks on 8×8 images of handwritten digits.

    ``split="train"`` has the digits 0, 1, 6, 8, 9; ``split="test"`` has 2, 3, 4, 5, 7. With rotations each digit is
    four classes, ``"6"``, ``"6@90"``, ``"6@180"`` and ``"6@270"`` (counter-clockwise), all in the digit's split.
    A turned 0, 1 or 8 looks like itself, and a turned 6 like a 9; all of these are training classes, so training has
    some label noise and testing has none.

    Inputs are (n, 8, 8, 1) in [0, 1], ink 1; labels are int64, shuffled for every task; rows are sorted by label.
    ``Metadata["Classes"]`` names the classes in the order of their labels, and ``Metadata["Ink"]`` is True. A
    digit has 174 to 183 images.

    Parameters
    ----------
    NWay, KShot, QueryShots : int
        Classes of a task, and support and query images of a class.
    split : {"train", "test"}
        Which digits to draw from.
    rotations : bool
        Whether turned digits are separate classes: 20 classes instead of 5.
    seed, dtype, backend
        As for all loaders: seed of the random stream, NumPy floating type, backend of the arrays.

    Raises
    ------
    ArgumentOutOfRangeException
        NWay is below 2 or above the number of classes, another size is below 1, or the seed is negative.
    ArgumentException
        Another argument is invalid, or a class has fewer images than the task needs.
    ImportError
        scikit-learn is not installed.

    References
    ----------
    Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.

    Examples
    --------
    >>> from aidotnet_py.data import DigitsLoader
    >>> loader = DigitsLoader(NWay=5, KShot=1, QueryShots=15, split="test", seed=0)
    >>> loader.AvailableClasses
    20
    >>> task = loader.GetNextTask()
    >>> task.SupportInput.shape, task.SupportOutput.tolist(), task.QueryInput.shape
    ((5, 8, 8, 1), [0, 1, 2, 3, 4], (75, 8, 8, 1))
    """

    @overload
    def __init__(
        self: DigitsLoader[np.float32],
        NWay: int = 5,
        KShot: int = 1,
        QueryShots: int = 15,
        *,
        split: Literal["train", "test"] = "train",
        rotations: bool = True,
        seed: int | None = None,
        backend: str | Backend = "numpy",
    ) -> None: ...
    @overload
    def __init__(
        self,
        NWay: int = 5,
        KShot: int = 1,
        QueryShots: int = 15,
        *,
        split: Literal["train", "test"] = "train",
        rotations: bool = True,
        seed: int | None = None,
        dtype: type[T],
        backend: str | Backend = "numpy",
    ) -> None: ...
    @suggests_keywords()
    def __init__(
        self,
        NWay: int = 5,
        KShot: int = 1,
        QueryShots: int = 15,
        *,
        split: Literal["train", "test"] = "train",
        rotations: bool = True,
        seed: int | None = None,
        dtype: type[Any] = np.float32,
        backend: str | Backend = "numpy",
    ) -> None:
        super().__init__("digits", 16, rotations, NWay, KShot, QueryShots, seed=seed, dtype=dtype, backend=backend)
        self._split = _SPLIT.check("split", split)
        images, labels = _load()
        rows = {str(digit): labels == digit for digit in _DIGITS[split]}
        self._fill({name: int(mask.sum()) for name, mask in rows.items()}, lambda name: images[rows[name]])


def _load() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        # Imported by name, since scikit-learn has no type hints.
        datasets: Any = import_module("sklearn.datasets")
    except ImportError as error:
        raise ImportError('DigitsLoader needs scikit-learn: pip install "aidotnet-py[data]"') from error
    return _read(datasets)


@cache
def _read(datasets: Any) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    # Once: scikit-learn reads the digits from compressed text, which takes longer than all else that a loader does.
    digits = datasets.load_digits()
    return digits.images.astype(np.uint8), digits.target.astype(np.int64)
