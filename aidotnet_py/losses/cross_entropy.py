"""Cross-entropies of class scores (logits) against classes."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from aidotnet_py.arguments import argument_in
from aidotnet_py.autodiff import log_softmax, one_hot, softplus
from aidotnet_py.autodiff.extend import with_value
from aidotnet_py.backends import Array
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.losses.interface import LossFunctionBase, labels_hint, numbering_hint, owner_of, require_examples
from aidotnet_py.type_parameters import T_co

__all__ = ["BinaryCrossEntropyLoss", "CrossEntropyLoss"]

# The error allowed in a row's sum: rounding of half precision over many classes.
_SUM_TOLERANCE = 1e-2


class CrossEntropyLoss(LossFunctionBase[T_co]):
    """−(1/n) Σᵢ log softmax(zᵢ)[yᵢ], of logits z (…, classes).

    Targets are class indices (…), integers in 0 … classes − 1, or one-hot rows or probabilities (…, classes). A class
    with the logit −inf is masked: its loss is 0 if its target is 0, and inf otherwise.

    Examples
    --------
    >>> import numpy as np
    >>> CrossEntropyLoss().CalculateLoss(np.zeros((2, 4)), np.array([0, 3]))
    np.float64(1.3862943611198906)
    """

    @override
    def formula(self, predicted: Array, actual: Array) -> Array:
        classes = predicted.shape[-1]
        weights = one_hot(actual, classes, predicted.dtype) if len(actual.shape) < len(predicted.shape) else actual
        weights = weights.astype(predicted.dtype)
        examples = math.prod(predicted.shape[:-1])
        logarithms = log_softmax(predicted)
        terms = logarithms * weights
        # A class without probability and weight has the loss 0 · log 0 = 0.
        excluded = (logarithms == -math.inf) & (weights == 0.0)
        losses = with_value(np.where(excluded, 0.0, terms), terms)
        # The sum of many examples' losses may be beyond half precision where their mean is not.
        wide = losses.astype(np.result_type(predicted.dtype, np.float32))
        return (wide.sum() * (-1.0 / examples)).astype(predicted.dtype)

    @override
    def validate(self, predicted_shape: tuple[int, ...], actual: Array, name: str = "actual") -> None:
        are_rows = self._is_of_rows(predicted_shape, actual, name)
        values = owner_of(actual, name).to_numpy(actual)
        if are_rows:
            _require_probabilities(values, name)
        else:
            _require_labels(values, predicted_shape, name)

    def _is_of_rows(self, predicted_shape: tuple[int, ...], actual: Array, name: str = "actual") -> bool:
        """Return whether targets have a number a class, and not its index; refuse those of another shape."""
        require_examples(predicted_shape)
        if len(predicted_shape) < 2:
            raise ArgumentException(
                f"predictions must be logits (n, classes), got shape {predicted_shape}; for one logit an example, use "
                "BinaryCrossEntropyLoss"
            )
        owner_of(actual, name)
        if tuple(actual.shape) == predicted_shape:
            super().validate(predicted_shape, actual, name)
            return True
        if tuple(actual.shape) == predicted_shape[:-1]:
            return False
        raise ArgumentException(
            f"{name} must be class indices {predicted_shape[:-1]} or rows {predicted_shape} for predictions "
            f"{predicted_shape}, got shape {tuple(actual.shape)}"
            f"{_shape_hint(predicted_shape, tuple(actual.shape), name)}"
        )

    @override
    def accuracy(self, predicted: Array, actual: Array) -> float:
        scores = owner_of(predicted, "predicted").to_numpy(predicted)
        are_rows = self._is_of_rows(scores.shape, actual)
        wanted = owner_of(actual, "actual").to_numpy(actual)
        if are_rows:
            wanted = wanted.argmax(axis=-1)
        # To argmax, NaN is the largest.
        right = (scores.argmax(axis=-1) == wanted) & ~np.isnan(scores).any(axis=-1)
        return float(right.mean())


def _require_labels(labels: NDArray[Any], predicted_shape: tuple[int, ...], name: str) -> None:
    classes = predicted_shape[-1]
    if labels.dtype.kind not in "iu":
        raise ArgumentException(
            f"{name} must be class indices, integers from 0 to {classes - 1}, got dtype {labels.dtype}"
            f"{_dtype_hint(labels, name)}"
        )
    if not 0 <= labels.min() <= labels.max() < classes:
        raise ArgumentException(
            f"{name} must hold labels from 0 to {classes - 1} for predictions of shape {predicted_shape}, got "
            f"{labels.min()} to {labels.max()}{_range_hint(labels, classes, name)}"
        )


def _shape_hint(predicted_shape: tuple[int, ...], shape: tuple[int, ...], name: str) -> str:
    """Return the end of a message for targets that are a column, or rows of another number of classes."""
    if shape == (*predicted_shape[:-1], 1):
        return f"; use {argument_in(name)}[..., 0]"
    if shape[:-1] == predicted_shape[:-1]:
        return f"; a model for one-hot rows of {shape[-1]} classes must have {shape[-1]} outputs"
    return ""


def _dtype_hint(labels: NDArray[Any], name: str) -> str:
    """Return the end of a message for labels that are no integers."""
    if labels.dtype.kind in "bf" and (labels == np.floor(labels)).all():
        return f"; use {argument_in(name)}.astype(np.int64)"
    if labels.dtype.kind == "f":
        return "; for a regression, use MeanSquaredErrorLoss"
    return labels_hint(name, labels.dtype.kind)


def _range_hint(labels: NDArray[Any], classes: int, name: str) -> str:
    """Return the end of a message for labels below 0, or above the number of classes."""
    if classes == 1:
        return "; for two classes and one output, use BinaryCrossEntropyLoss"
    if len(np.unique(labels)) <= classes:
        return numbering_hint(name)
    return f"; a model for {len(np.unique(labels))} classes must have as many outputs"


def _require_probabilities(rows: NDArray[Any], name: str) -> None:
    _require_unit_interval(rows, name)
    sums = rows.sum(axis=-1, dtype=np.float64)
    # NaN passes, as below.
    if (abs(sums - 1.0) > _SUM_TOLERANCE).any():
        raise ArgumentException(
            f"{name} must hold one-hot rows or probabilities, which sum to 1, got sums from {np.nanmin(sums)} to "
            f"{np.nanmax(sums)}"
        )


def _require_unit_interval(values: NDArray[Any], name: str) -> None:
    # NaN passes: the check for finite losses reports it with its task.
    if (values < 0).any() or (values > 1).any():
        raise ArgumentException(f"{name} must hold values from 0 to 1, got {np.nanmin(values)} to {np.nanmax(values)}")


class BinaryCrossEntropyLoss(LossFunctionBase[T_co]):
    """(1/N) Σ [log(1 + exp z) − z y], of logits z and targets y in [0, 1] of the same shape.

    At z = ±inf the loss is the limit: 0 if the target agrees, inf otherwise.

    Examples
    --------
    >>> import numpy as np
    >>> BinaryCrossEntropyLoss().CalculateLoss(np.zeros(3), np.array([0, 1, 1]))
    np.float64(0.6931471805599453)
    """

    @override
    def formula(self, predicted: Array, actual: Array) -> Array:
        targets = actual.astype(predicted.dtype)
        # log(1 + exp z) = z + log(1 + exp −z): of large logits on the target's side, only the small part remains.
        positive = predicted > 0.0
        distances = cast("Array", np.where(positive, 1.0 - targets, -targets))
        losses = softplus(np.where(positive, -predicted, predicted)) + predicted * distances
        # At z = ±inf the limit is z times the target's distance from z's side, 0 · inf = 0.
        limits = np.where(distances == 0.0, 0.0, predicted * distances)
        return with_value(np.where(np.abs(predicted) == math.inf, limits, losses), losses).mean()

    @override
    def validate(self, predicted_shape: tuple[int, ...], actual: Array, name: str = "actual") -> None:
        super().validate(predicted_shape, actual, name)
        _require_unit_interval(owner_of(actual, name).to_numpy(actual), name)

    @override
    def accuracy(self, predicted: Array, actual: Array) -> float:
        scores = owner_of(predicted, "predicted").to_numpy(predicted)
        super().validate(scores.shape, actual)
        wanted = owner_of(actual, "actual").to_numpy(actual) > 0.5
        return float((((scores > 0) == wanted) & ~np.isnan(scores)).mean())
