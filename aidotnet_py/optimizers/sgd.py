"""Gradient descent, with momentum if wished."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aidotnet_py.backends import Array, Backend
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.optimizers.elementwise import DECAY, ElementwiseOptimizer

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

    @suggests_keywords(lr="learning_rate")
    def __init__(self, learning_rate: float, momentum: float = 0.0) -> None:
        super().__init__(learning_rate)
        self._momentum = DECAY.check("momentum", momentum)
        self.memory = ("velocity",) if momentum else ()

    def coefficients(self, step: int) -> tuple[float, ...]:
        """α, and μ where there is momentum."""
        rate = self._rate_of(step)
        return (rate, self._momentum) if self._momentum else (rate,)

    def formula(
        self, parameters: Array, gradient: Array, memory: Sequence[Array], coefficients: Sequence[Any]
    ) -> tuple[Array, list[Array]]:
        """Return the step above as a function; see `ElementwiseOptimizer.formula`."""
        if not memory:
            return parameters - gradient * coefficients[0], []
        rate, momentum = coefficients
        velocity = memory[0] * momentum + gradient
        return parameters - velocity * rate, [velocity]

    def _step(self, backend: Backend, parameters: Array, gradient: Array) -> Array:
        rate, *momentum = self.coefficients(self._steps)
        if momentum:
            velocity = self._arrays["velocity"]
            velocity *= momentum[0]
            velocity += gradient
            gradient = velocity
        new = gradient * rate
        return backend.elementwise("subtract")(parameters, new, out=new)
