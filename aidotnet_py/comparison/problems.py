"""The data sets of comparisons: tasks, network, and the options that all contestants share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.data import DigitsLoader, OmniglotLoader, SinusoidLoader
from aidotnet_py.losses import CrossEntropyLoss
from aidotnet_py.meta_learning import IEpisodicDataLoader
from aidotnet_py.models import NeuralNetworkModel
from aidotnet_py.nn import Dense, Sequential, Tanh, conv4

__all__ = ["PROBLEMS", "Loader", "Model", "Problem"]

Model: TypeAlias = NeuralNetworkModel[np.float32]
Loader: TypeAlias = IEpisodicDataLoader[np.float32, NDArray[Any], NDArray[Any]]
Split: TypeAlias = Literal["train", "test"]

_QUERIES, _WAYS, _IMAGE_QUERIES = 10, 5, 15


class Source(Protocol):
    """The settings of a comparison that a loader needs."""

    @property
    def shots(self) -> int:
        """Support examples, per class if there are classes."""
        ...

    @property
    def archive(self) -> str | None:
        """Path of the data, if no package contains them."""
        ...


@dataclass(frozen=True)
class Problem:
    """A data set, its network, and the default options of all contestants.

    Attributes
    ----------
    model : callable
        From a seed to the untrained network.
    loader : callable
        From a split, the settings and a seed to the loader of tasks.
    classification : bool
        Whether accuracy has a meaning.
    needs_archive : bool
        Whether the settings must give the path of the data.
    ways, queries, inputs : int
        Classes of a task (1 for regression), query examples per class, and numbers in an example's input.
    options : mapping
        Keywords of the options of every contestant.
    iterations, meta_batch, shots, test_tasks, adaptation_steps : int
        Defaults of the settings.
    """

    model: Callable[[int], Model]
    loader: Callable[[Split, Source, int], Loader]
    classification: bool
    needs_archive: bool
    ways: int
    queries: int
    inputs: int
    options: Mapping[str, Any]
    iterations: int
    meta_batch: int
    shots: int
    test_tasks: int
    adaptation_steps: int


def _regressor(seed: int) -> Model:
    return NeuralNetworkModel(Sequential(Dense(40), Tanh(), Dense(40), Tanh(), Dense(1)), input_shape=(1,), seed=seed)


def _sinusoids(split: Split, source: Source, seed: int) -> Loader:
    # Sinusoids come from a continuum: other seeds give other tasks, without splits.
    return SinusoidLoader(KShot=source.shots, QueryShots=_QUERIES, seed=seed)


def _classifier(side: int) -> Callable[[int], Model]:
    def model(seed: int) -> Model:
        return NeuralNetworkModel(
            conv4(_WAYS, filters=32), input_shape=(side, side, 1), loss=CrossEntropyLoss(), seed=seed
        )

    return model


def _digits(split: Split, source: Source, seed: int) -> Loader:
    return DigitsLoader(NWay=_WAYS, KShot=source.shots, QueryShots=_IMAGE_QUERIES, split=split, seed=seed)


def _characters(split: Split, source: Source, seed: int) -> Loader:
    assert source.archive is not None
    return OmniglotLoader(
        source.archive, NWay=_WAYS, KShot=source.shots, QueryShots=_IMAGE_QUERIES, split=split, seed=seed
    )


_IMAGE_OPTIONS = {"InnerLearningRate": 0.1, "AdaptationSteps": 5, "OuterLearningRate": 0.001}

#: The built-in data, by name.
PROBLEMS: Mapping[str, Problem] = {
    "sinusoid": Problem(
        model=_regressor,
        loader=_sinusoids,
        classification=False,
        needs_archive=False,
        ways=1,
        queries=_QUERIES,
        inputs=1,
        options={"InnerLearningRate": 0.002, "AdaptationSteps": 16, "OuterLearningRate": 0.004},
        iterations=2000,
        meta_batch=25,
        shots=10,
        test_tasks=600,
        adaptation_steps=32,
    ),
    "digits": Problem(
        model=_classifier(8),
        loader=_digits,
        classification=True,
        needs_archive=False,
        ways=_WAYS,
        queries=_IMAGE_QUERIES,
        inputs=8 * 8,
        options=_IMAGE_OPTIONS,
        iterations=300,
        meta_batch=8,
        shots=1,
        test_tasks=300,
        adaptation_steps=16,
    ),
    "omniglot": Problem(
        model=_classifier(28),
        loader=_characters,
        classification=True,
        needs_archive=True,
        ways=_WAYS,
        queries=_IMAGE_QUERIES,
        inputs=28 * 28,
        options=_IMAGE_OPTIONS,
        iterations=500,
        meta_batch=8,
        shots=1,
        test_tasks=200,
        adaptation_steps=16,
    ),
}
