"""Gradient descent, with momentum if wished."""

from __future__ import annotations

from aidotnet_py.backends import Array, Backend
from aidotnet_py.optimizers.interface import ElementwiseOptimizer, in_range

__all__ = ["SGDOptimizer"]


class SGDOptimizer(ElementwiseOptimizer):
    """θ ← θ − α m, with m ← μ m + g; without momentum, θ ← θ − α g.

    Parameters
    ----------
    learning_rate : float
        α > 0.
    momentum : float
        μ in [0, 1) (Polyak 1964).

    Raises
    ------
    ArgumentOutOfRangeException
        When a parameter lies outside its range.

    Examples
    --------
    >>> import numpy as np
    >>> SGDOptimizer(0.5).UpdateParameters(np.array([1.0]), np.array([2.0]))
    array([0.])
    """

    def __init__(self, learning_rate: float, momentum: float = 0.0) -> None:
        super().__init__(learning_rate)
        self._momentum = in_range(momentum, "momentum")
        self._memory = ("velocity",) if momentum else ()

    def update_in_place(self, parameters: Array, gradient: Array) -> None:
        """One step, written over the parameters; the gradient is lost, unless there is momentum."""
        if self._momentum:
            super().update_in_place(parameters, gradient)
            return
        backend = self._checked(parameters, gradient)
        self._steps += 1
        with backend.errors_ignored():
            backend.elementwise("multiply")(gradient, self._learning_rate, out=gradient)
            backend.elementwise("subtract")(parameters, gradient, out=parameters)

    def _step(self, backend: Backend, parameters: Array, gradient: Array) -> Array:
        if self._momentum:
            velocity = self._arrays["velocity"]
            velocity *= self._momentum
            velocity += gradient
            gradient = velocity
        new = gradient * self._learning_rate
        return backend.elementwise("subtract")(parameters, new, out=new)
