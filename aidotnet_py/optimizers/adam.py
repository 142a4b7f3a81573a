"""Adam: steps scaled by running moments of the gradient."""

from __future__ import annotations

import math

from aidotnet_py.backends import Array, Backend
from aidotnet_py.optimizers.interface import ElementwiseOptimizer, in_range, positive

__all__ = ["AdamOptimizer"]


class AdamOptimizer(ElementwiseOptimizer):
    """θ ← θ − α m̂ / (√v̂ + ε), with m ← β₁m + (1 − β₁)g, v ← β₂v + (1 − β₂)g², m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ).

    Kingma & Ba 2015, Algorithm 1.

    Parameters
    ----------
    learning_rate : float
        α > 0.
    beta1, beta2 : float
        Decay of the moments, in [0, 1).
    epsilon : float
        Added to the denominator, > 0.

    Raises
    ------
    ArgumentOutOfRangeException
        When a parameter lies outside its range.

    Examples
    --------
    >>> import numpy as np
    >>> AdamOptimizer(0.1).UpdateParameters(np.array([1.0]), np.array([5.0])).round(6)
    array([0.9])
    """

    _memory = ("first_moment", "second_moment")

    def __init__(self, learning_rate: float, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> None:
        super().__init__(learning_rate)
        self._beta1 = in_range(beta1, "beta1")
        self._beta2 = in_range(beta2, "beta2")
        self._epsilon = positive(epsilon, "epsilon")

    def _step(self, backend: Backend, parameters: Array, gradient: Array) -> Array:
        first = self._beta1 * self._arrays["first_moment"] + (1 - self._beta1) * gradient
        second = self._beta2 * self._arrays["second_moment"] + (1 - self._beta2) * (gradient * gradient)
        self._arrays = {"first_moment": first, "second_moment": second}
        # The corrections of both moments as two numbers, so that no array is made for them.
        root = math.sqrt(1 - self._beta2**self._steps)
        rate = self._learning_rate * root / (1 - self._beta1**self._steps)
        return parameters - rate * first / (backend.elementwise("sqrt")(second) + self._epsilon * root)
