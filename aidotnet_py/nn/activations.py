"""Activation layers: functions applied element by element, without parameters."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np
from typing_extensions import override

from aidotnet_py.autodiff import relu, sigmoid
from aidotnet_py.backends import Array
from aidotnet_py.nn.layer import Layer, Parameters, Shape

__all__ = ["Activation", "ReLU", "Sigmoid", "Tanh"]


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
