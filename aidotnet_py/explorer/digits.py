"""N-way K-shot tasks of unseen digits that a person puts together, and the model that adapts to them."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import SEED, Whole
from aidotnet_py.autodiff import softmax
from aidotnet_py.data import DigitsLoader
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning import MetaLearningTask, iMAMLAlgorithm, iMAMLOptions
from aidotnet_py.saving import load

__all__ = ["SHOTS", "START", "WAYS", "DigitTask", "start_options"]

# `python -m benchmarks.explorer_start` makes it, from the digits 0, 1, 6, 8 and 9.
START = Path(__file__).with_name("digits_start.safetensors")
WAYS, SHOTS = Whole(2, 5), Whole(1, 5)
# The images of each digit to pick from.
_IMAGES = 170


def start_options(model: Any, **others: Any) -> iMAMLOptions[Any, Any, Any, Any]:
    """Return the options that the start was trained with, and adapts with."""
    return iMAMLOptions.FromPaper(
        model,
        Lambda=0.1,
        InnerLearningRate=0.1,
        AdaptationSteps=16,
        ConjugateGradientIterations=5,
        Curvature="gauss-newton",
        **others,
    )


@lru_cache(maxsize=1)
def _learner() -> Any:
    """Return the learner at the start, which all sessions share: adapting does not change it."""
    # The package may be imported from an archive.
    with as_file(files("aidotnet_py.explorer") / START.name) as file:
        return iMAMLAlgorithm(start_options(load(file)))


@lru_cache(maxsize=1)
def unseen_images() -> dict[str, NDArray[np.float32]]:
    """Return images (170, 8, 8) of each digit that the start has not seen, by its name, in order."""
    loader = DigitsLoader(NWay=5, KShot=1, QueryShots=_IMAGES, split="test", rotations=False, seed=0)
    task = loader.GetNextTask()
    images, labels = np.asarray(task.QueryInput)[..., 0], np.asarray(task.QueryOutput)
    names = task.Metadata["Classes"]
    return {name: images[labels == names.index(name)] for name in sorted(names)}


class DigitTask:
    """A support set of N digits with K images each, and a model adapted to it.

    Parameters
    ----------
    ways, shots : int
        N from 2 to 5, and K from 1 to 5.
    seed : int
        Of digits and images.

    Attributes
    ----------
    digits : list of str
        The names of the classes.
    images : NDArray of float32, shape (N, K, 8, 8)
        The support set.
    drawn : NDArray of bool, shape (N, K)
        Which images are the person's own.

    Raises
    ------
    ArgumentException
        When a number is of another kind.
    ArgumentOutOfRangeException
        When a number lies outside its range.

    Examples
    --------
    >>> task = DigitTask(ways=3, shots=2, seed=0)
    >>> task.images.shape, task.answer(task.images[0, 0]).shape
    ((3, 2, 8, 8), (3,))
    """

    def __init__(self, ways: int = 5, shots: int = 1, seed: int = 0) -> None:
        self.ways, self.shots = WAYS.check("ways", ways), SHOTS.check("shots", shots)
        self._generator = np.random.default_rng(SEED.check("seed", seed))
        names = list(unseen_images())
        self.digits: list[str] = [
            names[place] for place in np.sort(self._generator.permutation(len(names))[: self.ways])
        ]
        self.images = np.stack(
            [unseen_images()[digit][self._generator.permutation(_IMAGES)[: self.shots]] for digit in self.digits]
        )
        self.drawn = np.zeros((self.ways, self.shots), np.bool_)
        self._adapt()

    def pick(self, way: int, shot: int) -> None:
        """Put another image of the data into a place."""
        self._put(way, shot, self._any_image(self.digits[self._place("way", way, self.ways)]), drawn=False)

    def draw(self, way: int, shot: int, image: NDArray[np.float32]) -> None:
        """Put a drawing (8, 8) into a place."""
        self._put(way, shot, image, drawn=True)

    def question(self) -> tuple[NDArray[np.float32], str]:
        """Return an image of one of the digits that is not in the support set, and the digit's name."""
        digit = self.digits[int(self._generator.integers(self.ways))]
        while True:
            image = self._any_image(digit)
            if not (self.images == image).all(axis=(2, 3)).any():
                return image, digit

    def answer(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the adapted model's probabilities of the N digits for an image (8, 8)."""
        logits = self._adapted.Predict(image.reshape(1, 8, 8, 1))[0, : self.ways]
        probabilities: NDArray[np.float32] = np.asarray(softmax(logits))
        return probabilities

    def _any_image(self, digit: str) -> NDArray[np.float32]:
        image: NDArray[np.float32] = unseen_images()[digit][int(self._generator.integers(_IMAGES))]
        return image

    def _put(self, way: int, shot: int, image: NDArray[np.float32], *, drawn: bool) -> None:
        place = self._place("way", way, self.ways), self._place("shot", shot, self.shots)
        if image.shape != (8, 8):
            raise ArgumentException(f"image must have shape (8, 8), got {image.shape}")
        self.images[place] = image
        self.drawn[place] = drawn
        self._adapt()

    @staticmethod
    def _place(name: str, value: int, size: int) -> int:
        return Whole(0, size - 1).check(name, value)

    def _adapt(self) -> None:
        task: MetaLearningTask[Any, Any, Any] = MetaLearningTask(
            SupportSetX=self.images.reshape(-1, 8, 8, 1),
            SupportSetY=np.repeat(np.arange(self.ways), self.shots),
            NumWays=self.ways,
            NumShots=self.shots,
        )
        self._adapted = _learner().Adapt(task)
