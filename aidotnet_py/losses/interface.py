"""The protocol of loss functions, and a base class that needs only a formula."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Generic, Protocol, cast, runtime_checkable

import numpy as np

from aidotnet_py.arguments import argument_in, array_hint, check_given, real_of, shown
from aidotnet_py.autodiff.extend import is_array, trace_once, type_of
from aidotnet_py.backends import Array, Backend, adopt, backend_of
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.overrides import require_overrides
from aidotnet_py.representations import concise_repr
from aidotnet_py.type_parameters import T_co

__all__ = [
    "ILossFunction",
    "LossFunctionBase",
    "checked_accuracy",
    "checked_loss",
    "labels_hint",
    "numbering_hint",
    "owner_of",
    "require_examples",
]


@runtime_checkable
class ILossFunction(Protocol[T_co]):
    """A loss: a mean over the examples of a set, differentiable in the predictions."""

    def CalculateLoss(self, predicted: Array, actual: Array) -> T_co:
        """Return the loss as a number of the predictions' dtype."""
        ...

    def formula(self, predicted: Array, actual: Array) -> Array:
        """Compute the loss, a scalar, in array code for the engine to trace."""
        ...

    def validate(self, predicted_shape: tuple[int, ...], actual: Array, name: str = "actual") -> None:
        """Raise ArgumentException, naming ``name``, when ``actual`` cannot be the target of such predictions."""
        ...

    def accuracy(self, predicted: Array, actual: Array) -> float:
        """Return the share of examples predicted right; NaN for losses without right and wrong."""
        ...


class LossFunctionBase(ABC, Generic[T_co]):
    """A loss made of its `formula`; by default, targets of the predictions' shape are valid and accuracy is NaN.

    The formula must be pure: it is traced for each shape and replayed. It may read settings, such as a weight; it is
    traced again if a change of them is detected (docs/models.md).

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

    def __init_subclass__(cls, **options: Any) -> None:
        """See to it that methods of a class of one's own can be called."""
        super().__init_subclass__(**options)
        require_overrides(cls, LossFunctionBase, ("formula", "validate", "accuracy"))

    @abstractmethod
    def formula(self, predicted: Array, actual: Array) -> Array:
        """Compute the loss, a scalar, in array code for the engine to trace."""

    def CalculateLoss(self, predicted: Array, actual: Array) -> T_co:
        """Return the loss as a number of the predictions' dtype.

        Parameters
        ----------
        predicted : array, floating, (n, …)
            The predictions of a model for n examples.
        actual : array of the same backend
            The targets, as the class describes them.

        Raises
        ------
        ArgumentException
            When one is not an array, the predictions are not floating, or the targets do not fit them.
        """
        predicted, actual = adopt(predicted, "predicted"), adopt(actual, "actual")
        backend = owner_of(predicted, "predicted")
        if owner_of(actual, "actual") is not backend:
            raise ArgumentException(
                f"actual must be on backend {backend.name!r} like predicted, got "
                f"{owner_of(actual, 'actual').name!r}; move them to one first"
            )
        dtype = backend.dtype_of(predicted)
        if dtype.kind != "f":
            raise ArgumentException(
                f"predicted must have a floating dtype, got {dtype}; use predicted.astype(np.float32)"
            )
        self.validate(tuple(predicted.shape), actual)
        program = trace_once(lambda *arrays: checked_loss(self, *arrays), predicted, actual)
        return cast(T_co, dtype.type(backend.to_numpy(program(predicted, actual))))

    def validate(self, predicted_shape: tuple[int, ...], actual: Array, name: str = "actual") -> None:
        """Refuse targets that are not real numbers of the predictions' shape."""
        require_examples(predicted_shape)
        dtype = owner_of(actual, name).dtype_of(actual)
        if tuple(actual.shape) != predicted_shape:
            raise ArgumentException(
                f"{name} must have the predictions' shape {predicted_shape}, got {tuple(actual.shape)}"
                f"{_shape_hint(predicted_shape, tuple(actual.shape), name)}"
            )
        if dtype.kind not in "biuf":
            raise ArgumentException(f"{name} must hold real numbers, got dtype {dtype}{labels_hint(name, dtype.kind)}")

    def accuracy(self, predicted: Array, actual: Array) -> float:
        """Return NaN."""
        return math.nan


def checked_loss(loss: ILossFunction[Any], predicted: Array, actual: Array) -> Array:
    """Return the loss of traced predictions by the formula of the loss.

    Raises
    ------
    ArgumentException
        When the formula returns anything but one floating scalar.
    """
    value: Any = loss.formula(predicted, actual)
    if isinstance(value, (int, float, np.floating)) and not isinstance(value, bool):
        # A number that depends on nothing has a gradient of zeros.
        return cast("Array", float(cast(float, value)))
    kind = type_of(value) if is_array(value) else None
    if kind is None or kind.shape != () or not kind.is_floating:
        raise ArgumentException(
            f"{type(loss).__name__}.formula must return one floating scalar, such as a mean over the examples, got "
            f"{shown(value) if kind is None else kind}"
        )
    return value


def checked_accuracy(loss: ILossFunction[Any], predicted: Array, actual: Array) -> float:
    """Return the share of examples predicted right, by the loss.

    Raises
    ------
    ArgumentException
        When the loss returns anything but one number; NaN is one.
    """
    return real_of(f"the result of {type(loss).__name__}.accuracy", "one number", loss.accuracy(predicted, actual))


def owner_of(array: Array, name: str) -> Backend:
    """Return the backend that owns an array; errors call the array ``name``."""
    check_given(name, array, "an array")
    backend = backend_of(array)
    if backend is None:
        raise ArgumentException(f"{name} must be an array, got {type(array).__name__}{array_hint(name, array)}")
    return backend


def labels_hint(name: str, kind: str) -> str:
    """Return the end of a message for labels of a NumPy kind that are no numbers; nothing for numbers."""
    return numbering_hint(name) if kind in "OSU" else ""


def numbering_hint(name: str) -> str:
    """Return the end of a message for classes that are not numbered from 0."""
    return f"; number the classes from 0, as by np.unique({argument_in(name)}, return_inverse=True)[1]"


def _shape_hint(predicted_shape: tuple[int, ...], shape: tuple[int, ...], name: str) -> str:
    """Return the end of a message for targets of another shape, if one change makes them fit; else nothing."""
    plain = argument_in(name)
    if math.prod(shape) == math.prod(predicted_shape) and shape[:1] == predicted_shape[:1]:
        return f"; use {plain}.reshape({', '.join(map(str, (-1, *predicted_shape[1:])))})"
    if shape == predicted_shape[:-1]:
        return "; for class indices, use CrossEntropyLoss, as in NeuralNetworkModel(…, loss=CrossEntropyLoss())"
    return ""


def require_examples(predicted_shape: tuple[int, ...]) -> None:
    """Refuse predictions of no examples, which have no mean."""
    if 0 in predicted_shape:
        raise ArgumentException(f"predictions must have at least one example, got shape {predicted_shape}")
