"""The fully connected layer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from typing_extensions import override

from aidotnet_py.arguments import SWITCH
from aidotnet_py.backends import Array
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.nn.layer import Layer, Parameters, Shape, check_count, he_normal, shape_of_examples

__all__ = ["Dense"]


class Dense(Layer):
    """x W + b, on inputs (n, features).

    Parameters
    ----------
    units : int
        Number of outputs.
    bias : bool
        Whether to add b, which starts at zero; W starts He-normal. Parameters are ``weight`` (features, units) and
        ``bias`` (units,).

    Raises
    ------
    ArgumentOutOfRangeException
        When ``units`` is not a whole number of at least 1.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.nn import Dense
    >>> parameters, shape = Dense(2).initialize(np.random.default_rng(0), (3,))
    >>> parameters["weight"].shape, parameters["bias"].shape, shape
    ((3, 2), (2,), (2,))
    """

    @suggests_keywords(out_features="units")
    def __init__(self, units: int, *, bias: bool = True) -> None:
        self.units = check_count("units", units)
        self.bias = SWITCH.check("bias", bias)

    @override
    def initialize(self, generator: np.random.Generator, shape: Shape) -> tuple[Parameters, Shape]:
        if len(shape) != 1:
            raise ArgumentException(
                f"inputs of Dense must be (n, features), got {shape_of_examples(shape)}; put Flatten before it"
            )
        parameters = {"weight": he_normal(generator, (shape[0], self.units), shape[0])}
        if self.bias:
            parameters["bias"] = np.zeros(self.units)
        return parameters, (self.units,)

    @override
    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        y = x @ parameters["weight"]
        return y + parameters["bias"] if self.bias else y
