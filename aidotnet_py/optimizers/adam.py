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
        multiply, divide = backend.elementwise("multiply"), backend.elementwise("divide")
        first, second = self._arrays["first_moment"], self._arrays["second_moment"]
        # One array is made, which every term passes through and which becomes the result.
        work = gradient * (1 - self._beta1)
        first *= self._beta1
        first += work
        work = multiply(gradient, gradient, out=work)
        work *= 1 - self._beta2
        second *= self._beta2
        second += work
        # The corrections of both moments as two numbers: α m̂ / (√v̂ + ε) = (α c / (1 − β₁ᵗ)) m / (√v + ε c).
        correction = math.sqrt(1 - self._beta2**self._steps)
        work = backend.elementwise("sqrt")(second, out=work)
        work += self._epsilon * correction
        work = divide(first, work, out=work)
        work *= self._learning_rate * correction / (1 - self._beta1**self._steps)
        return backend.elementwise("subtract")(parameters, work, out=work)
