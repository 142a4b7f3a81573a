"""Cross-entropies of class scores (logits) against classes."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.autodiff import log_softmax, one_hot, softplus
from aidotnet_py.autodiff.extend import with_value
from aidotnet_py.backends import Array
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.losses.interface import LossFunctionBase, owner_of, require_examples
from aidotnet_py.type_parameters import T_co

__all__ = ["BinaryCrossEntropyLoss", "CrossEntropyLoss"]

# A row of probabilities may miss 1 by this much: the rounding of half precision over many classes.
_SUM_TOLERANCE = 1e-2


class CrossEntropyLoss(LossFunctionBase[T_co]):
    """−(1/n) Σᵢ log softmax(zᵢ)[yᵢ], of logits z (…, classes).

    Targets are class indices (…), integers in 0 … classes − 1, or one-hot rows or probabilities (…, classes). A class
    with the logit −inf is masked out: it costs nothing where its target is 0, and inf where it is not.

    Examples
    --------
    >>> import numpy as np
    >>> CrossEntropyLoss().CalculateLoss(np.zeros((2, 4)), np.array([0, 3]))
    np.float64(1.3862943611198906)
    """

    def formula(self, predicted: Array, actual: Array) -> Array:
        """The mean cross-entropy."""
        classes = predicted.shape[-1]
        weights = one_hot(actual, classes, predicted.dtype) if len(actual.shape) < len(predicted.shape) else actual
        weights = weights.astype(predicted.dtype)
        examples = math.prod(predicted.shape[:-1])
        logarithms = log_softmax(predicted)
        terms = logarithms * weights
        # Nothing is lost on a class that has neither chance nor weight: 0 · log 0 is 0.
        excluded = (logarithms == -math.inf) & (weights == 0.0)
        return with_value(np.where(excluded, 0.0, terms), terms).sum() * (-1.0 / examples)

    def validate(self, predicted_shape: tuple[int, ...], actual: Array, name: str = "actual") -> None:
        """Raise ArgumentException when the targets are neither class indices in range nor rows of probabilities."""
        require_examples(predicted_shape)
        if len(predicted_shape) < 2:
            raise ArgumentException(f"the predictions have shape {predicted_shape}; logits (n, classes) are wanted")
        backend = owner_of(actual, name)
        if tuple(actual.shape) == predicted_shape:
            super().validate(predicted_shape, actual, name)
            _require_probabilities(backend.to_numpy(actual), name)
        elif tuple(actual.shape) == predicted_shape[:-1]:
            _require_labels(backend.to_numpy(actual), predicted_shape, name)
        else:
            raise ArgumentException(
                f"{name} has shape {tuple(actual.shape)}; the predictions have {predicted_shape}, so class indices "
                f"{predicted_shape[:-1]} or rows {predicted_shape} are wanted"
            )

    def accuracy(self, predicted: Array, actual: Array) -> float:
        """The share of examples whose largest logit is the target class."""
        guessed = owner_of(predicted, "predicted").to_numpy(predicted).argmax(axis=-1)
        wanted = owner_of(actual, "actual").to_numpy(actual)
        if wanted.ndim > guessed.ndim:
            wanted = wanted.argmax(axis=-1)
        return float((guessed == wanted).mean())


def _require_labels(labels: NDArray[Any], predicted_shape: tuple[int, ...], name: str) -> None:
    if labels.dtype.kind not in "iu":
        raise ArgumentException(f"{name} has dtype {labels.dtype}; class indices are integers")
    classes = predicted_shape[-1]
    if not 0 <= labels.min() <= labels.max() < classes:
        raise ArgumentException(
            f"{name} holds labels from {labels.min()} to {labels.max()}; the predictions of shape "
            f"{predicted_shape} are over classes 0 to {classes - 1}"
        )


def _require_probabilities(rows: NDArray[Any], name: str) -> None:
    _require_unit_interval(rows, name)
    sums = rows.sum(axis=-1, dtype=np.float64)
    # Written so that NaN passes, as below.
    if (abs(sums - 1.0) > _SUM_TOLERANCE).any():
        raise ArgumentException(
            f"{name} has rows that sum to {np.nanmin(sums)} up to {np.nanmax(sums)}; one-hot rows or probabilities, "
            "which sum to 1, are wanted"
        )


def _require_unit_interval(values: NDArray[Any], name: str) -> None:
    # NaN passes: it is reported with its task, as a loss that is not finite.
    if (values < 0).any() or (values > 1).any():
        raise ArgumentException(
            f"{name} holds values from {np.nanmin(values)} to {np.nanmax(values)}; 0 to 1 is wanted"
        )


class BinaryCrossEntropyLoss(LossFunctionBase[T_co]):
    """(1/N) Σ [log(1 + exp z) − z y], of logits z and targets y in [0, 1] of the same shape.

    At z = ±inf it is the limit: 0 where the target agrees, inf where it does not.

    Examples
    --------
    >>> import numpy as np
    >>> BinaryCrossEntropyLoss().CalculateLoss(np.zeros(3), np.array([0, 1, 1]))
    np.float64(0.6931471805599453)
    """

    def formula(self, predicted: Array, actual: Array) -> Array:
        """The mean binary cross-entropy."""
        targets = actual.astype(predicted.dtype)
        losses = softplus(predicted) - predicted * targets
        # At z = ±inf that is inf − inf; the limit is z times the target's distance from z's side, with 0 · inf = 0.
        distances = cast("Array", np.where(predicted > 0.0, 1.0 - targets, -targets))
        limits = np.where(distances == 0.0, 0.0, predicted * distances)
        return with_value(np.where(np.abs(predicted) == math.inf, limits, losses), losses).mean()

    def validate(self, predicted_shape: tuple[int, ...], actual: Array, name: str = "actual") -> None:
        """Raise ArgumentException when a target has another shape or lies outside [0, 1]."""
        super().validate(predicted_shape, actual, name)
        _require_unit_interval(owner_of(actual, name).to_numpy(actual), name)

    def accuracy(self, predicted: Array, actual: Array) -> float:
        """The share of elements on the right side of one half."""
        guessed = owner_of(predicted, "predicted").to_numpy(predicted) > 0
        return float((guessed == (owner_of(actual, "actual").to_numpy(actual) > 0.5)).mean())
