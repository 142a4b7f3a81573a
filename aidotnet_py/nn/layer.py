"""The layer protocol: initial parameters for an input shape, and a pure function of parameters and input."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import COUNT, Whole, pair_of, refusal
from aidotnet_py.backends import Array
from aidotnet_py.descriptions import Described
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException
from aidotnet_py.overrides import require_overrides
from aidotnet_py.representations import concise_repr

__all__ = [
    "Layer",
    "Parameters",
    "Shape",
    "check_count",
    "he_normal",
    "initialized",
    "parts",
    "shape_of_examples",
    "with_prefix",
]

V = TypeVar("V")

Shape: TypeAlias = tuple[int, ...]
Parameters: TypeAlias = dict[str, NDArray[Any]]


class Layer(Described, ABC):
    """One layer. Shapes leave out the axis of examples, which is always first.

    A layer of your own defines `initialize` and `apply`; `apply` is array code that the engine can trace. A layer that
    uses random numbers in training steps, or contains such layers, defines `noise_shapes` too; `aidotnet_py.nn.extend`
    has what it needs for this. Its public attributes
    are its settings: files store them, and networks with other settings refuse the files.

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

    def __init_subclass__(cls, **options: Any) -> None:
        """See to it that methods of a class of one's own can be called."""
        super().__init_subclass__(**options)
        require_overrides(cls, Layer, ("initialize", "apply", "noise_shapes"))

    @abstractmethod
    def initialize(self, generator: np.random.Generator, shape: Shape) -> tuple[Parameters, Shape]:
        """Return initial parameters by name, in float64, for inputs of this shape, and the shape of the outputs.

        Raises
        ------
        ArgumentException
            When the layer does not accept such inputs.
        """

    @abstractmethod
    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        """Compute the outputs (n, …) for inputs (n, …)."""

    def noise_shapes(self, parameters: Mapping[str, Array], x: Array) -> dict[str, Shape]:
        """Return the shapes, by name, of the random numbers that `apply` reads in a training step.

        They are uniform on [0, 1), independent and new at every step, and `apply` gets them among its parameters. A
        layer calls its own ``noise`` and reads it with `aidotnet_py.nn.noise.noise_for`; a layer made of layers returns
        theirs, with the prefixes of their parameters. The default is no noise.
        """
        return {}


def he_normal(generator: np.random.Generator, shape: Shape, fan_in: int) -> NDArray[Any]:
    """Draw normal numbers of variance 2 / fan_in, which preserves the scale through ReLUs (He et al. 2015)."""
    if fan_in == 0:
        raise ArgumentException(f"inputs must have at least one number for weights to multiply, got weights {shape}")
    return generator.standard_normal(shape) * math.sqrt(2.0 / fan_in)


def check_count(name: str, value: int) -> int:
    """Return a setting that counts something as an int; refuse others than whole numbers of at least 1."""
    return COUNT.check(name, value, type_error=ArgumentOutOfRangeException)


def shape_of_examples(shape: Shape) -> str:
    """Show a shape with the axis of examples, for messages: ``(n, 28, 28, 1)``."""
    return f"(n, {', '.join(map(str, shape))})" if shape else "(n,)"


def initialized(layer: Layer, generator: np.random.Generator, shape: Shape) -> tuple[Parameters, Shape]:
    """Return what a layer's `initialize` returns, after a check that it is parameters by name and an output shape.

    Parameters
    ----------
    layer : Layer
        The layer.
    generator : numpy.random.Generator
        The source of the initial parameters.
    shape : tuple of int
        The shape of an input, without the axis of examples.

    Raises
    ------
    ArgumentException
        When the layer does not accept such inputs, or returns anything else.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.nn import Dense
    >>> from aidotnet_py.nn.extend import initialized
    >>> initialized(Dense(2), np.random.default_rng(0), (3,))[1]
    (2,)
    """
    result: object = layer.initialize(generator, shape)
    name, wanted = (
        f"the result of {type(layer).__name__}.initialize",
        "(parameters by name, shape of an output without the axis of examples)",
    )
    parameters, output = pair_of(name, wanted, result)
    if not isinstance(parameters, Mapping) or not isinstance(output, (tuple, list)):
        raise ArgumentException(refusal(name, wanted, result))
    name = f"the output shape of {type(layer).__name__}.initialize"
    sizes = [Whole(0).check(name, size) for size in cast("Sequence[Any]", output)]
    return dict(cast("Mapping[str, NDArray[Any]]", parameters)), tuple(sizes)


def parts(parameters: Mapping[str, Array], name: str) -> dict[str, Array]:
    """Return the parameters of an inner layer, by its own names.

    Parameters
    ----------
    parameters : mapping
        The parameters of the outer layer.
    name : str
        The name of the inner layer, as in `with_prefix`.

    Returns
    -------
    dict

    Examples
    --------
    >>> from aidotnet_py.nn.extend import parts, with_prefix
    >>> parts({**with_prefix("body", {"weight": 1.0}), "scale": 2.0}, "body")
    {'weight': 1.0}
    """
    prefix = name + "."
    return {key.removeprefix(prefix): value for key, value in parameters.items() if key.startswith(prefix)}


def with_prefix(name: str, values: Mapping[str, V]) -> dict[str, V]:
    """Return an inner layer's parameters, or shapes of noise, under the names that they have in the outer layer.

    Parameters
    ----------
    name : str
        The name of the inner layer.
    values : mapping
        What belongs to it, by its own names.

    Returns
    -------
    dict

    Examples
    --------
    >>> from aidotnet_py.nn.extend import with_prefix
    >>> with_prefix("body", {"weight": 1.0})
    {'body.weight': 1.0}
    """
    return {f"{name}.{key}": value for key, value in values.items()}
