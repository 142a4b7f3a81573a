"""Dropout: random zeros in training steps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from typing_extensions import override

from aidotnet_py.arguments import Number
from aidotnet_py.backends import Array
from aidotnet_py.exceptions import ArgumentOutOfRangeException
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.nn.layer import Layer, Parameters, Shape
from aidotnet_py.nn.noise import noise_for

__all__ = ["Dropout"]

_RATE = Number(least=0, below=1)


class Dropout(Layer):
    """Zero each element with probability ``rate`` in a training step, and scale the others by 1 / (1 − rate).

    y = x · [u ≥ rate] / (1 − rate), with u uniform on [0, 1), so that the mean of y is x; in every other pass, y = x.
    The layer gets u as ``noise``, of the shape of x, among its parameters, of which it has no others. `MetaTrain` and
    the model's `Train` pass noise; `Predict`, `Adapt` and `Evaluate` do not. See docs/models.md.

    Parameters
    ----------
    rate : float
        In [0, 1).

    Raises
    ------
    ArgumentOutOfRangeException
        When ``rate`` is not a number in [0, 1).

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

    @suggests_keywords(p="rate")
    def __init__(self, rate: float) -> None:
        self.rate: float = _RATE.check("rate", rate, type_error=ArgumentOutOfRangeException)

    @override
    def initialize(self, generator: np.random.Generator, shape: Shape) -> tuple[Parameters, Shape]:
        return {}, shape

    @override
    def noise_shapes(self, parameters: Mapping[str, Array], x: Array) -> dict[str, Shape]:
        return {"noise": tuple(x.shape)}

    @override
    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        noise = noise_for(parameters, x)
        if noise is None:
            return x
        return np.where(noise >= self.rate, x * (1.0 / (1.0 - self.rate)), 0.0)
