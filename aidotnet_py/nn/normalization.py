"""Normalisation layers, with a scale and a shift for each channel."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from aidotnet_py.autodiff import batch_norm, layer_norm
from aidotnet_py.backends import Array
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException
from aidotnet_py.nn.layer import Layer, Parameters, Shape, at_least_one, batched
from aidotnet_py.nn.statistics import LayerBatch, PassStatistics, Statistics

__all__ = ["BatchNorm", "GroupNorm", "LayerNorm"]


class _Normalization(Layer):
    def __init__(self, *, epsilon: float = 1e-5) -> None:
        if not epsilon > 0:
            raise ArgumentOutOfRangeException(f"epsilon is {epsilon}; a number above 0 is wanted")
        self.epsilon = epsilon

    def initialize(self, generator: np.random.Generator, shape: Shape) -> tuple[Parameters, Shape]:
        """``scale``, ones, and ``shift``, zeros, of the length of the last axis."""
        if not shape:
            raise ArgumentException(f"{type(self).__name__} takes inputs (n, …, channels); {batched(shape)} came")
        return {"scale": np.ones(shape[-1]), "shift": np.zeros(shape[-1])}, shape


class BatchNorm(_Normalization):
    """Each channel normalised by mean and variance over all axes but the last (Ioffe & Szegedy 2015).

    (x − mean) / √(variance + ε) · scale + shift. Mean and variance are those of the batch in hand, and no running
    averages are kept; where the parameters hold ``mean`` and ``variance``, (channels,), they are these, and every
    example is normalised whatever else is in its batch.

    Parameters
    ----------
    statistics : "batch" or "support"
        What a learner normalises query sets by while it trains: their own statistics, the convention of the few-shot
        literature, or those of the support set at the adapted parameters. Adapted models take the latter in both.
    epsilon : float
        ε > 0.

    Raises
    ------
    ArgumentException
        When ``statistics`` is neither; from `apply`, when a channel has a single value to normalise over.
    ArgumentOutOfRangeException
        When ``epsilon`` is not above 0.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.nn import BatchNorm
    >>> parameters, _ = BatchNorm().initialize(np.random.default_rng(0), (1,))
    >>> BatchNorm().apply(parameters, np.array([[1.0], [3.0]])).round(3).ravel()
    array([-1.,  1.])
    >>> of_others = {"mean": np.array([2.0]), "variance": np.array([1.0])}
    >>> BatchNorm().apply({**parameters, **of_others}, np.array([[3.0]])).round(3)
    array([[1.]])
    """

    def __init__(self, *, statistics: Statistics = "batch", epsilon: float = 1e-5) -> None:
        super().__init__(epsilon=epsilon)
        if statistics not in ("batch", "support"):
            raise ArgumentException(f"statistics must be 'batch' or 'support', got {statistics!r}")
        self.statistics: Statistics = statistics

    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        """The normalised values, scaled and shifted."""
        scale, shift = parameters["scale"], parameters["shift"]
        if "mean" in parameters:
            inverse = 1.0 / np.sqrt(parameters["variance"] + self.epsilon)
            return (x - parameters["mean"]) * inverse * scale + shift
        self._note_batch(scale, x)
        return batch_norm(x, scale, shift, epsilon=self.epsilon)

    def _note_batch(self, scale: Array, x: Array) -> None:
        """Tell the collector of statistics; refuse a batch that has none."""
        collector = PassStatistics.current()
        prefix = None if collector is None else collector.prefix_of(scale)
        layer = prefix.removesuffix(".") if prefix else type(self).__name__
        if math.prod(x.shape[:-1]) == 1:
            raise ArgumentException(
                f"{layer} must have at least 2 values of each channel to normalise over, got 1: less their mean they "
                "are 0 for any input. Several examples together, a model adapted to a task (Adapt), or GroupNorm in "
                "the place of BatchNorm (norm='group') depend on the input"
            )
        if collector is not None:
            collector.batches.append(LayerBatch(layer, prefix, x, self.statistics))


class GroupNorm(_Normalization):
    """Each example normalised over groups of channels and all places (Wu & He 2018).

    (x − mean) / √(variance + ε) · scale + shift, with mean and variance over a group of channels / groups neighbouring
    channels and over all axes between the first and the last: nothing depends on other examples. One group is the
    layer normalisation of convolutional networks, as many as channels the instance normalisation.

    Parameters
    ----------
    groups : int
        A divisor of the number of channels.
    epsilon : float
        ε > 0, added to the variance.

    Raises
    ------
    ArgumentOutOfRangeException
        When ``groups`` is no whole number above 0, or ``epsilon`` not above 0.
    ArgumentException
        From `initialize`, when ``groups`` does not divide the channels, or a group has a single value.

    References
    ----------
    Wu, Y. & He, K. (2018). Group normalization. ECCV.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.nn import GroupNorm
    >>> parameters, _ = GroupNorm(2).initialize(np.random.default_rng(0), (4,))
    >>> GroupNorm(2).apply(parameters, np.array([[1.0, 3.0, 10.0, 30.0]])).round(3)
    array([[-1.,  1., -1.,  1.]])
    """

    def __init__(self, groups: int, *, epsilon: float = 1e-5) -> None:
        super().__init__(epsilon=epsilon)
        self.groups = at_least_one(groups, "groups")

    def initialize(self, generator: np.random.Generator, shape: Shape) -> tuple[Parameters, Shape]:
        """``scale``, ones, and ``shift``, zeros, of the length of the last axis."""
        parameters, output = super().initialize(generator, shape)
        if shape[-1] % self.groups:
            raise ArgumentException(f"groups must divide the channels, {shape[-1]}, got {self.groups}")
        if math.prod(shape) == self.groups:
            raise ArgumentException(
                f"a group must have at least 2 values to normalise over, got 1 with groups {self.groups} on inputs "
                f"{batched(shape)}; fewer groups have more"
            )
        return parameters, output

    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        """The normalised values, scaled and shifted."""
        grouped = x.reshape(x.shape[0], -1, self.groups, x.shape[-1] // self.groups)
        mean = np.mean(grouped, axis=(1, 3), keepdims=True)
        centred = grouped - mean
        variance = np.mean(centred * centred, axis=(1, 3), keepdims=True)
        normalised = centred * (1.0 / np.sqrt(variance + self.epsilon))
        return normalised.reshape(x.shape) * parameters["scale"] + parameters["shift"]


class LayerNorm(_Normalization):
    """Each example normalised over its last axis (Ba, Kiros & Hinton 2016); see `aidotnet_py.autodiff.layer_norm`.

    Parameters
    ----------
    epsilon : float
        ε > 0, added to the variance.

    Raises
    ------
    ArgumentOutOfRangeException
        When ``epsilon`` is not above 0.
    ArgumentException
        From `initialize`, when there is a single channel.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.nn import LayerNorm
    >>> parameters, _ = LayerNorm().initialize(np.random.default_rng(0), (2,))
    >>> LayerNorm().apply(parameters, np.array([[1.0, 3.0]])).round(3)
    array([[-1.,  1.]])
    """

    def initialize(self, generator: np.random.Generator, shape: Shape) -> tuple[Parameters, Shape]:
        """``scale``, ones, and ``shift``, zeros, of the length of the last axis."""
        parameters, output = super().initialize(generator, shape)
        if shape[-1] == 1:
            raise ArgumentException(
                f"LayerNorm must have at least 2 channels to normalise over, got 1 of inputs {batched(shape)}"
            )
        return parameters, output

    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        """The normalised values, scaled and shifted."""
        return layer_norm(x, parameters["scale"], parameters["shift"], epsilon=self.epsilon)
