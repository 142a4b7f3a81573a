"""Cross-entropies of class scores (logits) against classes."""

from __future__ import annotations

import math

import numpy as np

from aidotnet_py.autodiff import log_softmax, one_hot, softplus
from aidotnet_py.backends import Array, Backend, backend_of
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.losses.interface import LossFunctionBase
from aidotnet_py.type_parameters import T

__all__ = ["BinaryCrossEntropyLoss", "CrossEntropyLoss"]


def _owner(array: Array) -> Backend:
    backend = backend_of(array)
    if backend is None:
        raise ArgumentException(f"a {type(array).__name__} came where an array was wanted")
    return backend


class CrossEntropyLoss(LossFunctionBase[T]):
    """−(1/n) Σᵢ log softmax(zᵢ)[yᵢ], of logits z (…, classes).

    Targets are class indices (…), integers in 0 … classes − 1, or one-hot rows or probabilities (…, classes).

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
        examples = math.prod(predicted.shape[:-1])
        return -np.sum(log_softmax(predicted) * weights.astype(predicted.dtype)) * (1.0 / examples)

    def validate(self, predicted_shape: tuple[int, ...], actual: Array, name: str = "actual") -> None:
        """Raise ArgumentException when the targets are neither class indices in range nor rows of probabilities."""
        if len(predicted_shape) < 2:
            raise ArgumentException(f"the predictions have shape {predicted_shape}; logits (n, classes) are wanted")
        shape, classes = tuple(actual.shape), predicted_shape[-1]
        if shape == predicted_shape:
            return
        if shape != predicted_shape[:-1]:
            raise ArgumentException(
                f"{name} has shape {shape}; the predictions have {predicted_shape}, so class indices "
                f"{predicted_shape[:-1]} or rows {predicted_shape} are wanted"
            )
        backend = _owner(actual)
        dtype = backend.dtype_of(actual)
        if dtype.kind not in "iu":
            raise ArgumentException(f"{name} has dtype {dtype}; class indices are integers")
        labels = backend.to_numpy(actual)
        if labels.size and not 0 <= labels.min() <= labels.max() < classes:
            raise ArgumentException(
                f"{name} holds labels from {labels.min()} to {labels.max()}; the predictions of shape "
                f"{predicted_shape} are over classes 0 to {classes - 1}"
            )

    def accuracy(self, predicted: Array, actual: Array) -> float:
        """The share of examples whose largest logit is the target class."""
        guessed = np.argmax(_owner(predicted).to_numpy(predicted), axis=-1)
        wanted = _owner(actual).to_numpy(actual)
        if wanted.ndim > guessed.ndim:
            wanted = np.argmax(wanted, axis=-1)
        return float(np.mean(guessed == wanted))


class BinaryCrossEntropyLoss(LossFunctionBase[T]):
    """(1/N) Σ [log(1 + exp z) − z y], of logits z and targets y in [0, 1] of the same shape.

    Examples
    --------
    >>> import numpy as np
    >>> BinaryCrossEntropyLoss().CalculateLoss(np.zeros(3), np.array([0, 1, 1]))
    np.float64(0.6931471805599453)
    """

    def formula(self, predicted: Array, actual: Array) -> Array:
        """The mean binary cross-entropy."""
        return np.mean(softplus(predicted) - predicted * actual.astype(predicted.dtype))

    def validate(self, predicted_shape: tuple[int, ...], actual: Array, name: str = "actual") -> None:
        """Raise ArgumentException when a target has another shape or lies outside [0, 1]."""
        super().validate(predicted_shape, actual, name)
        values = _owner(actual).to_numpy(actual)
        # NaN passes: it is reported with its task, as a loss that is not finite.
        if values.size and (np.any(values < 0) or np.any(values > 1)):
            raise ArgumentException(f"{name} holds values from {values.min()} to {values.max()}; 0 to 1 is wanted")

    def accuracy(self, predicted: Array, actual: Array) -> float:
        """The share of elements on the right side of one half."""
        guessed = _owner(predicted).to_numpy(predicted) > 0
        return float(np.mean(guessed == (_owner(actual).to_numpy(actual) > 0.5)))
