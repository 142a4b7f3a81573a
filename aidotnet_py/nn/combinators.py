"""Layers made of layers: sequences, and residual connections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from typing_extensions import override

from aidotnet_py.arguments import shown
from aidotnet_py.backends import Array
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.nn.layer import Layer, Parameters, Shape, initialized, parts, shape_of_examples, with_prefix

__all__ = ["Residual", "Sequential"]


class Sequential(Layer):
    """Layers in sequence; parameters are named ``{place}_{layer}.{parameter}``, such as ``0_conv2d.weight``.

    Raises
    ------
    ArgumentException
        When there are no layers, or an argument is not a layer.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.nn import Dense, Sequential, Tanh
    >>> parameters, shape = Sequential(Dense(8), Tanh(), Dense(2)).initialize(np.random.default_rng(0), (3,))
    >>> list(parameters), shape
    (['0_dense.weight', '0_dense.bias', '2_dense.weight', '2_dense.bias'], (2,))
    """

    def __init__(self, *layers: Layer) -> None:
        if not layers:
            raise ArgumentException("layers must hold at least one layer, got none")
        for i, layer in enumerate(layers):
            if not isinstance(layer, Layer):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
                raise ArgumentException(f"layers[{i}] must be a Layer, such as ReLU(), got {shown(layer)}")
        self.layers = {f"{i}_{type(layer).__name__.lower()}": layer for i, layer in enumerate(layers)}

    def settings(self) -> dict[str, Any]:
        """Return the layers, in order."""
        return {"layers": list(self.layers.values())}

    @override
    def initialize(self, generator: np.random.Generator, shape: Shape) -> tuple[Parameters, Shape]:
        parameters: Parameters = {}
        first = shape
        for name, layer in self.layers.items():
            try:
                own, shape = initialized(layer, generator, shape)
            except ArgumentException as error:
                origin = "" if shape is first else f", which inputs {shape_of_examples(first)} have become there"
                raise ArgumentException(f"{name} cannot take {shape_of_examples(shape)}{origin}: {error}") from error
            parameters |= with_prefix(name, own)
        return parameters, shape

    @override
    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        for name, layer in self.layers.items():
            x = layer.apply(parts(parameters, name), x)
        return x

    @override
    def noise_shapes(self, parameters: Mapping[str, Array], x: Array) -> dict[str, Shape]:
        shapes: dict[str, Shape] = {}
        for name, layer in self.layers.items():
            own = parts(parameters, name)
            shapes |= with_prefix(name, layer.noise_shapes(own, x))
            x = layer.apply(own, x)
        return shapes


class Residual(Layer):
    """body(x) + shortcut(x) (He et al. 2016); without a shortcut, body(x) + x.

    Parameters
    ----------
    body : Layer
        The residual function.
    shortcut : Layer, optional
        A layer that brings x to the body's output shape, such as a 1 × 1 convolution with a stride.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.nn import Conv2D, Residual
    >>> block = Residual(Conv2D(8, 3, stride=2), shortcut=Conv2D(8, 1, stride=2, bias=False))
    >>> parameters, shape = block.initialize(np.random.default_rng(0), (6, 6, 3))
    >>> list(parameters), shape
    (['body.weight', 'body.bias', 'shortcut.weight'], (3, 3, 8))
    """

    def __init__(self, body: Layer, shortcut: Layer | None = None) -> None:
        for name, layer in (("body", body), ("shortcut", shortcut)):
            if not isinstance(layer, Layer) and (layer is not None or name == "body"):  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
                raise ArgumentException(f"{name} must be a Layer, such as Dense(8), got {shown(layer)}")
        self.body = body
        self.shortcut = shortcut

    @override
    def initialize(self, generator: np.random.Generator, shape: Shape) -> tuple[Parameters, Shape]:
        body, output = initialized(self.body, generator, shape)
        parameters, around = with_prefix("body", body), shape
        if self.shortcut is not None:
            own, around = initialized(self.shortcut, generator, shape)
            parameters |= with_prefix("shortcut", own)
        if around != output:
            raise ArgumentException(f"body and shortcut must have one output shape, got {output} and {around}")
        return parameters, output

    @override
    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        around = x if self.shortcut is None else self.shortcut.apply(parts(parameters, "shortcut"), x)
        return self.body.apply(parts(parameters, "body"), x) + around

    @override
    def noise_shapes(self, parameters: Mapping[str, Array], x: Array) -> dict[str, Shape]:
        shapes = with_prefix("body", self.body.noise_shapes(parts(parameters, "body"), x))
        if self.shortcut is not None:
            shapes |= with_prefix("shortcut", self.shortcut.noise_shapes(parts(parameters, "shortcut"), x))
        return shapes
