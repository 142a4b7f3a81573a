"""The protocol of optimizers, and the step of one, which may be anybody's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from aidotnet_py.arguments import FINITE
from aidotnet_py.backends import Array, backend_of, described
from aidotnet_py.exceptions import ArgumentException

__all__ = ["IGradientBasedOptimizer", "current_rate", "parameters_after"]


@runtime_checkable
class IGradientBasedOptimizer(Protocol):
    """Turns gradients into parameter updates, and can put its memory of past ones aside and take it up again."""

    def UpdateParameters(self, parameters: Array, gradient: Array) -> Array:
        """Return new parameters after one step; the arguments are not changed."""
        ...

    def Reset(self) -> None:
        """Forget all past gradients."""
        ...

    def GetCurrentLearningRate(self) -> float:
        """Return the rate of the next step."""
        ...

    def GetState(self) -> Mapping[str, Any]:
        """Return the memory by name: copies of arrays and numbers."""
        ...

    def SetState(self, state: Mapping[str, Any]) -> None:
        """Set the memory to a result of `GetState`."""
        ...


def current_rate(optimizer: IGradientBasedOptimizer) -> float:
    """Return the rate of the next step.

    Raises
    ------
    ArgumentException
        When the optimizer tells no finite number.
    """
    rate = optimizer.GetCurrentLearningRate()
    return FINITE.check(f"the result of {type(optimizer).__name__}.GetCurrentLearningRate", rate)


def parameters_after(optimizer: IGradientBasedOptimizer, parameters: Array, gradient: Array) -> Array:
    """Return new parameters after one step, in the dtype of the parameters, whatever the optimizer computes in.

    Raises
    ------
    ArgumentException
        When the optimizer returns anything but floating-point numbers in the shape of the parameters.
    """
    result = optimizer.UpdateParameters(parameters, gradient)
    backend, shape = backend_of(result), tuple(parameters.shape)
    if backend is None or backend.dtype_of(result).kind != "f" or tuple(result.shape) != shape:
        raise ArgumentException(
            "the result of UpdateParameters must be a new array like the parameters, floating-point numbers of shape "
            f"{shape}, got {described(result)}"
        )
    dtype = backend.dtype_of(parameters)
    return result if backend.dtype_of(result) == dtype else backend.astype(result, dtype)
