"""What a layer is: initial parameters for an input shape, and a pure function of parameters and input."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends import Array
from aidotnet_py.descriptions import Described
from aidotnet_py.exceptions import ArgumentOutOfRangeException
from aidotnet_py.representations import concise_repr

__all__ = ["Layer", "Parameters", "Shape", "at_least_one", "batched", "he_normal", "parts"]

Shape: TypeAlias = tuple[int, ...]
Parameters: TypeAlias = dict[str, NDArray[Any]]


class Layer(Described, ABC):
    """One layer. Shapes leave out the axis of examples, which is always first.

    A layer of your own writes `initialize` and `apply`; `apply` is array code that the engine can trace. One that takes
    random numbers in training steps, or holds layers that may, writes `noise_shapes` too. Its public attributes are its
    settings: files tell them, and are refused by a network whose layers have others.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.nn import Layer
    >>> class Scale(Layer):
    ...     def initialize(self, generator, shape):
    ...         return {"scale": np.ones(shape[-1])}, shape
    ...     def apply(self, parameters, x):
    ...         return x * parameters["scale"]
    >>> Scale().apply({"scale": np.array([2.0, 3.0])}, np.ones((1, 2)))
    array([[2., 3.]])
    """

    __repr__ = concise_repr

    @abstractmethod
    def initialize(self, generator: np.random.Generator, shape: Shape) -> tuple[Parameters, Shape]:
        """Initial parameters by name, in float64, for inputs of this shape, and the shape of the outputs.

        Raises
        ------
        ArgumentException
            When the layer cannot take such inputs.
        """

    @abstractmethod
    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        """The outputs (n, …) for inputs (n, …)."""

    def noise_shapes(self, parameters: Mapping[str, Array], x: Array) -> dict[str, Shape]:
        """Shapes, by name, of the random numbers that `apply` takes beside these parameters in a training step.

        They are uniform on [0, 1), independent, new at every step, and come to `apply` among its parameters; a layer's
        own is called ``noise`` and is read by `aidotnet_py.nn.noise.noise_for`. A layer made of layers gives theirs,
        with the prefixes that their parameters have. Here: none.
        """
        return {}


def he_normal(generator: np.random.Generator, shape: Shape, fan_in: int) -> NDArray[Any]:
    """Normal numbers of variance 2 / fan_in, which keeps the scale of signals through ReLUs (He et al. 2015)."""
    return generator.standard_normal(shape) * math.sqrt(2.0 / fan_in)


def at_least_one(value: int, name: str) -> int:
    """The value, if it is a whole number above 0."""
    if not isinstance(value, Integral) or value < 1:
        raise ArgumentOutOfRangeException(f"{name} is {value!r}; a whole number of at least 1 is wanted")
    return int(value)


def batched(shape: Shape) -> str:
    """A shape with the axis of examples, as error messages show it: ``(n, 28, 28, 1)``."""
    return f"(n, {', '.join(map(str, shape))})" if shape else "(n,)"


def parts(parameters: Mapping[str, Array], name: str) -> dict[str, Array]:
    """The parameters of an inner layer, by the names that it gave them."""
    prefix = name + "."
    return {key.removeprefix(prefix): value for key, value in parameters.items() if key.startswith(prefix)}
