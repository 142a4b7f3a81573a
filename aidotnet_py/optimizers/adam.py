"""Adam: steps scaled by running moments of the gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from aidotnet_py.arguments import POSITIVE
from aidotnet_py.autodiff.extend import type_of
from aidotnet_py.backends import Array, Backend
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.optimizers.elementwise import DECAY, ElementwiseOptimizer

__all__ = ["AdamOptimizer"]

_LEAST_IN_FLOAT16 = np.finfo(np.float16).smallest_normal


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
        Added to the denominator, > 0. In float16, at least 6e-5 is added: 1e-8 would be 0.

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

    memory = ("first_moment", "second_moment")

    @suggests_keywords(lr="learning_rate", betas="beta1 beta2", eps="epsilon")
    def __init__(self, learning_rate: float, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> None:
        super().__init__(learning_rate)
        self._beta1 = DECAY.check("beta1", beta1)
        self._beta2 = DECAY.check("beta2", beta2)
        self._epsilon = POSITIVE.check("epsilon", epsilon)

    def coefficients(self, step: int) -> tuple[float, ...]:
        """β₁, 1 − β₁, β₂, 1 − β₂, εc and αc / (1 − β₁ᵗ), with c = √(1 − β₂ᵗ) at step t.

        They hold the corrections of both moments: α m̂ / (√v̂ + ε) = (αc / (1 − β₁ᵗ)) m / (√v + εc).
        """
        correction = math.sqrt(1 - self._beta2**step)
        rate = self._rate_of(step) * correction / (1 - self._beta1**step)
        return self._beta1, 1 - self._beta1, self._beta2, 1 - self._beta2, self._epsilon * correction, rate

    def formula(
        self, parameters: Array, gradient: Array, memory: Sequence[Array], coefficients: Sequence[Any]
    ) -> tuple[Array, list[Array]]:
        """Return the step above as a function; see `ElementwiseOptimizer.formula`.

        Where v is 0, as for the weights of a unit that has never been active, its root is taken to have the derivative
        0. As m is 0 there too, that is what the step's derivative by the gradients tends to: −α/ε at the first.
        """
        decay1, weight1, decay2, weight2, epsilon, rate = coefficients
        if type_of(parameters).dtype == np.float16:
            epsilon = np.maximum(epsilon, _LEAST_IN_FLOAT16)
        first = memory[0] * decay1 + gradient * weight1
        # Not g² times its weight: half precision lacks the squares of numbers from 256 on.
        second = memory[1] * decay2 + gradient * weight2 * gradient
        # Chosen twice: what √ is asked for must not be 0 either, for 0 times its infinite derivative is NaN.
        unmoved = second == 0.0
        root = np.where(unmoved, 0.0, np.sqrt(np.where(unmoved, 1.0, second)))
        return parameters - first / (root + epsilon) * rate, [first, second]

    def _step(self, backend: Backend, parameters: Array, gradient: Array) -> Array:
        decay1, weight1, decay2, weight2, epsilon, rate = self.coefficients(self._steps)
        if backend.dtype_of(parameters) == np.float16:
            epsilon = max(epsilon, float(_LEAST_IN_FLOAT16))
        multiply, divide = backend.elementwise("multiply"), backend.elementwise("divide")
        first, second = self._arrays["first_moment"], self._arrays["second_moment"]
        # The formula's operations, in one array that every term passes through and which becomes the result.
        work = gradient * weight1
        first *= decay1
        first += work
        work = multiply(gradient, weight2, out=work)
        work *= gradient
        second *= decay2
        second += work
        work = backend.elementwise("sqrt")(second, out=work)
        work += epsilon
        work = divide(first, work, out=work)
        work *= rate
        return backend.elementwise("subtract")(parameters, work, out=work)
