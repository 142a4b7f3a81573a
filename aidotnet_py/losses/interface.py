"""What a loss function offers, and the base that makes one of its formula alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, Protocol, runtime_checkable

import numpy as np

from aidotnet_py.autodiff import trace
from aidotnet_py.backends import Array, backend_of, get_backend
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.type_parameters import T, T_co

__all__ = ["ILossFunction", "LossFunctionBase"]


@runtime_checkable
class ILossFunction(Protocol[T_co]):
    """A loss: a mean over the examples of a set, differentiable in the predictions."""

    def CalculateLoss(self, predicted: Array, actual: Array) -> T_co:
        """The loss as a number of the predictions' dtype."""
        ...

    def formula(self, predicted: Array, actual: Array) -> Array:
        """The loss in array code, for the engine to trace: a scalar."""
        ...

    def validate(self, predicted_shape: tuple[int, ...], actual: Array, name: str = "actual") -> None:
        """Raise ArgumentException, naming ``name``, when ``actual`` cannot be the target of such predictions."""
        ...

    def accuracy(self, predicted: Array, actual: Array) -> float:
        """The share of examples predicted right; NaN where right and wrong have no meaning."""
        ...


class LossFunctionBase(ABC, Generic[T]):
    """A loss from its `formula`; by default any targets of the predictions' shape are valid, and accuracy is NaN."""

    @abstractmethod
    def formula(self, predicted: Array, actual: Array) -> Array:
        """The loss in array code, for the engine to trace: a scalar."""

    def CalculateLoss(self, predicted: Array, actual: Array) -> T:
        """The loss as a number of the predictions' dtype.

        Raises
        ------
        ArgumentException
            When the shapes or the targets do not fit.
        """
        self.validate(tuple(predicted.shape), actual)
        backend = backend_of(predicted, actual) or get_backend("numpy")
        value = trace(self.formula, predicted, actual)(predicted, actual)
        number: T = backend.to_numpy(value)[()]
        return number

    def validate(self, predicted_shape: tuple[int, ...], actual: Array, name: str = "actual") -> None:
        """Raise ArgumentException when ``actual`` has another shape than the predictions."""
        if tuple(actual.shape) != predicted_shape:
            raise ArgumentException(f"{name} has shape {tuple(actual.shape)}; the predictions have {predicted_shape}")

    def accuracy(self, predicted: Array, actual: Array) -> float:
        """NaN: right and wrong have no meaning here."""
        return float(np.nan)
