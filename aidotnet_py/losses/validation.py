"""Validation of the targets of many tasks at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from aidotnet_py.backends import Array
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.losses.cross_entropy import BinaryCrossEntropyLoss, CrossEntropyLoss
from aidotnet_py.losses.interface import ILossFunction, LossFunctionBase, owner_of

__all__ = ["validate_alike"]

# Losses whose targets are valid together if each of them is valid; subclasses may have other rules.
_BY_EXAMPLE = (CrossEntropyLoss.validate, BinaryCrossEntropyLoss.validate)


def validate_alike(
    loss: ILossFunction[Any], predicted_shape: tuple[int, ...], actuals: Sequence[Array], names: Iterable[str]
) -> None:
    """Validate targets of one shape, dtype and backend as the loss's `validate` does one by one.

    Their values are checked together if the result is the same: each check of values waits for a device.
    """
    validate = getattr(loss.validate, "__func__", None)
    if validate is LossFunctionBase.validate:
        # It checks only shape and dtype, which are the same for all.
        actuals = actuals[:1]
    elif validate in _BY_EXAMPLE and len(actuals) > 1 and _are_valid_together(loss, predicted_shape, actuals):
        return
    for actual, name in zip(actuals, names, strict=False):
        loss.validate(predicted_shape, actual, name)


def _are_valid_together(loss: ILossFunction[Any], predicted_shape: tuple[int, ...], actuals: Sequence[Array]) -> bool:
    backend = owner_of(actuals[0], "actual")
    stacked, (examples, *shape) = backend.stacked(actuals), actuals[0].shape
    whole = (len(actuals) * examples, *shape)
    together = backend.concat(actuals, 0) if stacked is None else backend.reshape(backend.asarray(stacked), whole)
    try:
        loss.validate((len(actuals) * predicted_shape[0], *predicted_shape[1:]), together)
    except ArgumentException:
        return False
    return True
