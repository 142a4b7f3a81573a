"""What a loss function offers, and the base that makes one of its formula alone."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Generic, Protocol, cast, runtime_checkable

from aidotnet_py.autodiff.extend import trace_once
from aidotnet_py.backends import Array, Backend, backend_of
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.representations import concise_repr
from aidotnet_py.type_parameters import T_co

__all__ = ["ILossFunction", "LossFunctionBase", "owner_of", "require_examples"]


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


class LossFunctionBase(ABC, Generic[T_co]):
    """A loss from its `formula`; by default any targets of the predictions' shape are valid, and accuracy is NaN.

    The formula is traced for each shape and then replayed: it is pure, and may read settings, such as a weight, whose
    changes are heeded as far as they can be noticed (docs/models.md).

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.losses import LossFunctionBase
    >>> class Huber(LossFunctionBase):
    ...     def formula(self, predicted, actual):
    ...         error = abs(predicted - actual)
    ...         return np.mean(np.where(error < 1, 0.5 * error**2, error - 0.5))
    >>> Huber().CalculateLoss(np.array([0.0, 3.0]), np.array([1.0, 0.0]))
    np.float64(1.5)
    """

    __repr__ = concise_repr

    @abstractmethod
    def formula(self, predicted: Array, actual: Array) -> Array:
        """The loss in array code, for the engine to trace: a scalar."""

    def CalculateLoss(self, predicted: Array, actual: Array) -> T_co:
        """The loss as a number of the predictions' dtype.

        Parameters
        ----------
        predicted : array, floating, (n, …)
            What a model gives for n examples.
        actual : array of the same backend
            The targets, as the class describes them.

        Raises
        ------
        ArgumentException
            When one is no array, the predictions are not floating, or the targets do not fit them.
        """
        backend = owner_of(predicted, "predicted")
        if owner_of(actual, "actual") is not backend:
            raise ArgumentException(
                f"predicted is on backend {backend.name!r} and actual on {owner_of(actual, 'actual').name!r}; "
                "move them to one first"
            )
        dtype = backend.dtype_of(predicted)
        if dtype.kind != "f":
            raise ArgumentException(f"predicted has dtype {dtype}; a floating one is wanted")
        self.validate(tuple(predicted.shape), actual)
        program = trace_once(self.formula, predicted, actual)
        if [t.shape for t in program.output_types] != [()]:
            found = ", ".join(map(str, program.output_types))
            raise ArgumentException(f"{type(self).__name__}.formula returned {found}; one scalar is wanted")
        return cast(T_co, dtype.type(backend.to_numpy(program(predicted, actual))))

    def validate(self, predicted_shape: tuple[int, ...], actual: Array, name: str = "actual") -> None:
        """Raise ArgumentException when ``actual`` is not an array of real numbers of the predictions' shape."""
        require_examples(predicted_shape)
        dtype = owner_of(actual, name).dtype_of(actual)
        if tuple(actual.shape) != predicted_shape:
            raise ArgumentException(f"{name} has shape {tuple(actual.shape)}; the predictions have {predicted_shape}")
        if dtype.kind not in "biuf":
            raise ArgumentException(f"{name} has dtype {dtype}; real numbers are wanted")

    def accuracy(self, predicted: Array, actual: Array) -> float:
        """NaN: right and wrong have no meaning here."""
        return math.nan


def owner_of(array: Array, name: str) -> Backend:
    """The backend that owns an array; ArgumentException, naming ``name``, for what is none."""
    backend = backend_of(array)
    if backend is None:
        raise ArgumentException(f"{name} is a {type(array).__name__}; an array is wanted")
    return backend


def require_examples(predicted_shape: tuple[int, ...]) -> None:
    """Raise ArgumentException when there is nothing to take a mean of."""
    if 0 in predicted_shape:
        raise ArgumentException(f"the predictions have shape {predicted_shape}; at least one example is wanted")
