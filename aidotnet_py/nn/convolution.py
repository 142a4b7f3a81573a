"""Layers of images (n, height, width, channels): convolution, pooling, flattening."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from typing_extensions import override

from aidotnet_py.arguments import SWITCH, is_pair
from aidotnet_py.autodiff import average_pool2d, conv2d, max_pool2d
from aidotnet_py.autodiff.extend import trace_once
from aidotnet_py.backends import Array
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.nn.layer import Layer, Parameters, Shape, check_count, he_normal, shape_of_examples

__all__ = ["AveragePool2D", "Conv2D", "Flatten", "GlobalAveragePool2D", "MaxPool2D"]

Pair = int | tuple[int, int]
Padding = int | str | tuple[tuple[int, int], tuple[int, int]]


def _image(layer: Layer, shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ArgumentException(
            f"inputs of {type(layer).__name__} must be images (n, height, width, channels), got "
            f"{shape_of_examples(shape)}"
        )
    return shape


class _ImageLayer(Layer):
    """A layer of images without parameters; tracing its function gives the output shape."""

    def initialize(self, generator: np.random.Generator, shape: Shape) -> tuple[Parameters, Shape]:
        return {}, _output_shape(self, {}, _image(self, shape))


def _output_shape(layer: Layer, parameters: Parameters, shape: Shape) -> Shape:
    program = trace_once(layer.apply, parameters, np.broadcast_to(0.0, (1, *shape)))
    return program.output_types[0].shape[1:]


class Conv2D(Layer):
    """2-D convolution; see `aidotnet_py.autodiff.conv2d`.

    Parameters
    ----------
    filters : int
        Number of output channels.
    kernel, stride : int or (int, int)
        Window and step.
    padding : "same", "valid", int or ((top, bottom), (left, right))
        Zeros around the images.
    groups : int
        Number of groups of channels and filters; a filter reads the channels of its group.
    bias : bool
        Whether to add a bias, which starts at zero; the kernels start He-normal. Parameters are ``weight`` (kernel
        height, kernel width, channels / groups, filters) and ``bias`` (filters,).

    Raises
    ------
    ArgumentOutOfRangeException
        When a count is not a whole number of at least 1.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.nn import Conv2D
    >>> parameters, shape = Conv2D(8, 3, stride=2).initialize(np.random.default_rng(0), (28, 28, 1))
    >>> parameters["weight"].shape, shape
    ((3, 3, 1, 8), (14, 14, 8))
    """

    @suggests_keywords(kernel_size="kernel", out_channels="filters")
    def __init__(
        self,
        filters: int,
        kernel: Pair = 3,
        *,
        stride: Pair = 1,
        padding: Padding = "same",
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        given: Any = kernel
        height, width = given if is_pair(given) else (given, given)
        self.kernel = (check_count("kernel", height), check_count("kernel", width))
        self.filters = check_count("filters", filters)
        self.stride = stride
        self.padding: Padding = padding
        self.groups = check_count("groups", groups)
        self.bias = SWITCH.check("bias", bias)

    @override
    def initialize(self, generator: np.random.Generator, shape: Shape) -> tuple[Parameters, Shape]:
        channels = _image(self, shape)[2]
        if channels % self.groups or self.filters % self.groups:
            raise ArgumentException(
                f"groups must divide {channels} channels and {self.filters} filters, got {self.groups}"
            )
        inner = channels // self.groups
        weight_shape = (*self.kernel, inner, self.filters)
        parameters: Parameters = {"weight": he_normal(generator, weight_shape, math.prod(self.kernel) * inner)}
        if self.bias:
            parameters["bias"] = np.zeros(self.filters)
        return parameters, _output_shape(self, parameters, shape)

    @override
    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        return conv2d(
            x,
            parameters["weight"],
            parameters.get("bias"),
            stride=self.stride,
            padding=self.padding,
            groups=self.groups,
        )


class _Pool2D(_ImageLayer):
    """Windows of images to one number a channel."""

    def __init__(self, window: Pair = 2, *, stride: Pair | None = None, padding: Padding = "valid") -> None:
        self.window = window
        self.stride = stride
        self.padding: Padding = padding


class MaxPool2D(_Pool2D):
    """Maxima over windows; stride None: the window's size. See `aidotnet_py.autodiff.max_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.nn import MaxPool2D
    >>> MaxPool2D(2).apply({}, np.arange(4.0).reshape(1, 2, 2, 1)).ravel()
    array([3.])
    """

    @override
    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        return max_pool2d(x, self.window, stride=self.stride, padding=self.padding)


class AveragePool2D(_Pool2D):
    """Means over windows; stride None: the window's size. See `aidotnet_py.autodiff.average_pool2d`.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.nn import AveragePool2D
    >>> AveragePool2D(2).apply({}, np.arange(4.0).reshape(1, 2, 2, 1)).ravel()
    array([1.5])
    """

    @override
    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        return average_pool2d(x, self.window, stride=self.stride, padding=self.padding)


class GlobalAveragePool2D(_ImageLayer):
    """The mean of each channel: (n, height, width, channels) to (n, channels).

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.nn import GlobalAveragePool2D
    >>> GlobalAveragePool2D().initialize(np.random.default_rng(0), (28, 28, 3))
    ({}, (3,))
    """

    @override
    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        return np.mean(x, axis=(1, 2))


class Flatten(Layer):
    """Merge all axes but the first, in C order: (n, …) to (n, features).

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.nn import Flatten
    >>> Flatten().initialize(np.random.default_rng(0), (4, 4, 3))
    ({}, (48,))
    """

    @override
    def initialize(self, generator: np.random.Generator, shape: Shape) -> tuple[Parameters, Shape]:
        return {}, (math.prod(shape),)

    @override
    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        # Not -1, which NumPy cannot infer for no examples.
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))
