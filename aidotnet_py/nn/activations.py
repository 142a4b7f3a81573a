"""Activation layers: functions applied element by element, without parameters."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import cast

import numpy as np
from typing_extensions import override

from aidotnet_py.arguments import FINITE
from aidotnet_py.autodiff import relu, sigmoid
from aidotnet_py.backends import Array
from aidotnet_py.exceptions import ArgumentOutOfRangeException
from aidotnet_py.nn.layer import Layer, Parameters, Shape

__all__ = ["Activation", "LeakyReLU", "ReLU", "Sigmoid", "Tanh"]


class Activation(Layer):
    """A layer without parameters whose outputs have the shape of its inputs."""

    @override
    def initialize(self, generator: np.random.Generator, shape: Shape) -> tuple[Parameters, Shape]:
        return {}, shape

    @abstractmethod
    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        """Apply the function to each element."""


class ReLU(Activation):
    """max(x, 0), with derivative 0 at 0.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.nn import ReLU
    >>> ReLU().apply({}, np.array([-1.0, 2.0]))
    array([0., 2.])
    """

    @override
    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        return relu(x)


class LeakyReLU(Activation):
    """x for x > 0, else slope · x, with derivative ``slope`` at 0 (Maas, Hannun & Ng 2013).

    Parameters
    ----------
    slope : float
        The derivative for x ≤ 0.

    Raises
    ------
    ArgumentOutOfRangeException
        When ``slope`` is not a finite number.

    References
    ----------
    Maas, A. L., Hannun, A. Y. & Ng, A. Y. (2013). Rectifier nonlinearities improve neural network acoustic models.
    ICML Workshop on Deep Learning for Audio, Speech and Language Processing.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.nn import LeakyReLU
    >>> LeakyReLU(0.1).apply({}, np.array([-1.0, 2.0]))
    array([-0.1,  2. ])
    """

    def __init__(self, slope: float = 0.01) -> None:
        self.slope: float = FINITE.check("slope", slope, type_error=ArgumentOutOfRangeException)

    @override
    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        return cast(Array, np.where(x > 0.0, x, x * self.slope))


class Tanh(Activation):
    """The hyperbolic tangent.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.nn import Tanh
    >>> Tanh().apply({}, np.array([0.0]))
    array([0.])
    """

    @override
    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        return np.tanh(x)


class Sigmoid(Activation):
    """1 / (1 + exp(−x)).

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.nn import Sigmoid
    >>> Sigmoid().apply({}, np.array([0.0]))
    array([0.5])
    """

    @override
    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        return sigmoid(x)
