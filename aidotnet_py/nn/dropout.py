"""Dropout: units that are left out at random in training steps."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real

import numpy as np

from aidotnet_py.backends import Array
from aidotnet_py.exceptions import ArgumentOutOfRangeException
from aidotnet_py.nn.layer import Layer, Parameters, Shape
from aidotnet_py.nn.noise import noise_for

__all__ = ["Dropout"]


class Dropout(Layer):
    """Zero each element with probability ``rate`` in a training step, and scale the others by 1 / (1 − rate).

    y = x · [u ≥ rate] / (1 − rate), with u uniform on [0, 1), so that the mean of y is x; in every other pass, y = x.
    The pass hands u, ``noise`` of the shape of x, to the layer together with its parameters, of which it has none.
    `MetaTrain` and the model's `Train` do so; `Predict`, `Adapt` and `Evaluate` do not. See docs/models.md.

    Parameters
    ----------
    rate : float
        In [0, 1).

    Raises
    ------
    ArgumentOutOfRangeException
        When ``rate`` is no number in [0, 1).

    References
    ----------
    Srivastava, N., Hinton, G., Krizhevsky, A., Sutskever, I. & Salakhutdinov, R. (2014). Dropout: a simple way to
    prevent neural networks from overfitting. JMLR 15.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.nn import Dropout
    >>> x = np.array([[1.0, 2.0, 3.0]])
    >>> Dropout(0.5).apply({}, x)
    array([[1., 2., 3.]])
    >>> Dropout(0.5).apply({"noise": np.array([[0.7, 0.2, 0.5]])}, x)
    array([[2., 0., 6.]])
    """

    def __init__(self, rate: float) -> None:
        if not isinstance(rate, Real) or not 0 <= rate < 1:  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
            raise ArgumentOutOfRangeException(f"rate must be a number in [0, 1), got {rate!r}")
        self.rate: float = float(rate)

    def initialize(self, generator: np.random.Generator, shape: Shape) -> tuple[Parameters, Shape]:
        """No parameters, and the shape of the inputs."""
        return {}, shape

    def noise_shapes(self, parameters: Mapping[str, Array], x: Array) -> dict[str, Shape]:
        """``noise``, one number for each element of x."""
        return {"noise": tuple(x.shape)}

    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        """The elements that stay, scaled; x itself where there is no noise."""
        noise = noise_for(parameters, x)
        if noise is None:
            return x
        return np.where(noise >= self.rate, x * (1.0 / (1.0 - self.rate)), 0.0)
