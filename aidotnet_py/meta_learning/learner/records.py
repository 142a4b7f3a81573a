"""What learners tell of a step, of a meta-gradient and of adaptation, beside AiDotNet's results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends import Array
from aidotnet_py.type_parameters import T

__all__ = ["AdaptationCurve", "MetaGradient", "StepRecord"]


@dataclass
class StepRecord:
    """Losses, accuracies and metrics of the last `MetaTrain`, for the result of the step.

    Attributes
    ----------
    losses : array, shape (tasks,)
        Query losses at φ, on the host.
    accuracies : list of float
        Query accuracies at φ; NaN for regression.
    metrics : dict of str to float
        Numbers that the algorithm reports.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.meta_learning.extend import StepRecord
    >>> StepRecord(np.array([0.5, 0.7]), [0.8, 0.6]).metrics
    {}
    """

    losses: NDArray[Any]
    accuracies: list[float]
    metrics: dict[str, float] = field(default_factory=dict[str, float])


class AdaptationCurve(NamedTuple):
    """Losses and accuracies of tasks' query sets before the first and after each inner step.

    Attributes
    ----------
    losses : array, shape (tasks, steps + 1)
        Of the model's number type, on the host.
    accuracies : array of float64, shape (tasks, steps + 1)
        NaN for regression.
    """

    losses: NDArray[Any]
    accuracies: NDArray[np.float64]


class MetaGradient(NamedTuple, Generic[T]):
    """The mean of some tasks' meta-gradients, not clipped.

    Attributes
    ----------
    loss : T
        The mean query loss at the adapted parameters.
    parameters : array, shape (P,)
        The meta-gradient of the model's parameters, an array of the model's backend.
    learned : mapping of str to array
        Those of the vectors that are learned beside them, by name: the rates of Meta-SGD, the logarithm of λ.
    metrics : mapping of str to float
        What the algorithm reports of such a step.
    """

    loss: T
    parameters: Array
    learned: Mapping[str, Array]
    metrics: Mapping[str, float]
