"""The fully connected layer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from aidotnet_py.backends import Array
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.nn.layer import Layer, Parameters, Shape, at_least_one, batched, he_normal

__all__ = ["Dense"]


class Dense(Layer):
    """x W + b, on inputs (n, features).

    Parameters
    ----------
    units : int
        Number of outputs.
    bias : bool
        Whether b is there; it starts at zero, W He-normal.

    Raises
    ------
    ArgumentOutOfRangeException
        When ``units`` is no whole number above 0.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.nn import Dense
    >>> parameters, shape = Dense(2).initialize(np.random.default_rng(0), (3,))
    >>> parameters["weight"].shape, parameters["bias"].shape, shape
    ((3, 2), (2,), (2,))
    """

    def __init__(self, units: int, *, bias: bool = True) -> None:
        self.units = at_least_one(units, "units")
        self.bias = bias

    def initialize(self, generator: np.random.Generator, shape: Shape) -> tuple[Parameters, Shape]:
        """``weight`` (features, units) and ``bias`` (units,)."""
        if len(shape) != 1:
            raise ArgumentException(f"Dense takes inputs (n, features); {batched(shape)} came: Flatten goes before it")
        parameters = {"weight": he_normal(generator, (shape[0], self.units), shape[0])}
        if self.bias:
            parameters["bias"] = np.zeros(self.units)
        return parameters, (self.units,)

    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        """The outputs (n, units)."""
        y = x @ parameters["weight"]
        return y + parameters["bias"] if self.bias else y
