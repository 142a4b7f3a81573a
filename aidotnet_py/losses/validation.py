"""Targets of many tasks, found valid at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from aidotnet_py.backends import Array
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.losses.cross_entropy import BinaryCrossEntropyLoss, CrossEntropyLoss
from aidotnet_py.losses.interface import ILossFunction, LossFunctionBase, owner_of

__all__ = ["validate_alike"]

# Those whose targets are valid together when each is by itself; a subclass may have rules of another sort.
_BY_EXAMPLE = (CrossEntropyLoss.validate, BinaryCrossEntropyLoss.validate)


def validate_alike(
    loss: ILossFunction[Any], predicted_shape: tuple[int, ...], actuals: Sequence[Array], names: Iterable[str]
) -> None:
    """The loss's `validate` of each of the targets, which are of one shape, dtype and backend.

    Values are looked at together where that tells as much: on a device, each look waits for it.
    """
    validate = getattr(loss.validate, "__func__", None)
    if validate is LossFunctionBase.validate:
        # It asks for nothing in which they could differ.
        actuals = actuals[:1]
    elif validate in _BY_EXAMPLE and len(actuals) > 1 and _valid_together(loss, predicted_shape, actuals):
        return
    for actual, name in zip(actuals, names, strict=False):
        loss.validate(predicted_shape, actual, name)


def _valid_together(loss: ILossFunction[Any], predicted_shape: tuple[int, ...], actuals: Sequence[Array]) -> bool:
    together = owner_of(actuals[0], "actual").concat(actuals, 0)
    try:
        loss.validate((len(actuals) * predicted_shape[0], *predicted_shape[1:]), together)
    except ArgumentException:
        return False
    return True
