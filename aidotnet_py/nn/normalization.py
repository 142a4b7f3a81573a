"""Normalisation layers, with parameters ``scale``, ones, and ``shift``, zeros, for each channel."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from typing_extensions import override

from aidotnet_py.arguments import POSITIVE, Choice
from aidotnet_py.autodiff import batch_norm, layer_norm
from aidotnet_py.backends import Array
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.nn.layer import Layer, Parameters, Shape, check_count, shape_of_examples
from aidotnet_py.nn.statistics import LayerBatch, PassStatistics, Statistics, widened

__all__ = ["BatchNorm", "GroupNorm", "LayerNorm"]

_STATISTICS = Choice("batch", "support")


class _Normalization(Layer):
    def __init__(self, *, epsilon: float = 1e-5) -> None:
        self.epsilon: float = POSITIVE.check("epsilon", epsilon, type_error=ArgumentOutOfRangeException)

    def initialize(self, generator: np.random.Generator, shape: Shape) -> tuple[Parameters, Shape]:
        if not shape:
            raise ArgumentException(
                f"inputs of {type(self).__name__} must be (n, …, channels), got {shape_of_examples(shape)}"
            )
        # Without memory: a file may describe inputs of any size.
        return {"scale": np.broadcast_to(1.0, shape[-1:]), "shift": np.zeros(shape[-1])}, shape


class BatchNorm(_Normalization):
    """Each channel normalised by mean and variance over all axes but the last (Ioffe & Szegedy 2015).

    (x − mean) / √(variance + ε) · scale + shift. Mean and variance are the current batch's, without running averages.
    If the parameters hold ``mean`` and ``variance``, (channels,), they replace the batch's, and the output of an
    example does not depend on the rest of its batch.

    Parameters
    ----------
    statistics : "batch" or "support"
        The statistics that normalise query sets while a learner trains: their own, the convention of the few-shot
        literature, or the support set's at the adapted parameters. Adapted models use the support set's in both cases.
    epsilon : float
        ε > 0.

    Raises
    ------
    ArgumentException
        When ``statistics`` is neither; from `apply`, when a channel has a single value.
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

    @suggests_keywords(eps="epsilon")
    def __init__(self, *, statistics: Statistics = "batch", epsilon: float = 1e-5) -> None:
        super().__init__(epsilon=epsilon)
        _STATISTICS.check("statistics", statistics)
        self.statistics: Statistics = statistics

    @override
    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        scale, shift = parameters["scale"], parameters["shift"]
        if "mean" in parameters:
            # As by a batch's own: half precision may lack ε.
            inverse = 1.0 / np.sqrt(widened(parameters["variance"]) + self.epsilon)
            return ((widened(x) - parameters["mean"]) * inverse).astype(x.dtype) * scale + shift
        self._note_batch(scale, x)
        return batch_norm(x, scale, shift, epsilon=self.epsilon)

    def _note_batch(self, scale: Array, x: Array) -> None:
        """Add the batch to the collector of statistics; refuse a batch with one value per channel."""
        collector = PassStatistics.current()
        prefix = None if collector is None else collector.prefix_of(scale)
        layer = prefix.removesuffix(".") if prefix else type(self).__name__
        if math.prod(x.shape[:-1]) == 1:
            raise ArgumentException(
                f"{layer} must have at least 2 values of each channel to normalise over, got 1, and 1 value minus its "
                "mean is 0; pass several examples together, adapt the model to a task (Adapt), or use GroupNorm in "
                "the place of BatchNorm (norm='group')"
            )
        if collector is not None:
            collector.batches.append(LayerBatch(layer, prefix, x, self.statistics))


class GroupNorm(_Normalization):
    """Each example normalised over groups of channels and all places (Wu & He 2018).

    (x − mean) / √(variance + ε) · scale + shift, with mean and variance over a group of channels / groups neighbouring
    channels and over all axes between the first and the last, independent of other examples. One group is the layer
    normalisation of convolutional networks; one group per channel is instance normalisation.

    Parameters
    ----------
    groups : int
        A divisor of the number of channels.
    epsilon : float
        ε > 0, added to the variance.

    Raises
    ------
    ArgumentOutOfRangeException
        When ``groups`` is not a whole number of at least 1, or ``epsilon`` not above 0.
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

    @suggests_keywords(num_groups="groups", eps="epsilon")
    def __init__(self, groups: int, *, epsilon: float = 1e-5) -> None:
        super().__init__(epsilon=epsilon)
        self.groups = check_count("groups", groups)

    @override
    def initialize(self, generator: np.random.Generator, shape: Shape) -> tuple[Parameters, Shape]:
        parameters, output = super().initialize(generator, shape)
        if shape[-1] % self.groups:
            raise ArgumentException(f"groups must divide the channels, {shape[-1]}, got {self.groups}")
        if math.prod(shape) == self.groups:
            raise ArgumentException(
                f"a group must have at least 2 values to normalise over, got 1 with groups {self.groups} on inputs "
                f"{shape_of_examples(shape)}; use fewer groups"
            )
        return parameters, output

    @override
    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        # Not -1, which NumPy cannot infer for no examples.
        places = math.prod(x.shape[1:-1])
        grouped = widened(x).reshape(x.shape[0], places, self.groups, x.shape[-1] // self.groups)
        mean = np.mean(grouped, axis=(1, 3), keepdims=True)
        centred = grouped - mean
        variance = np.mean(centred * centred, axis=(1, 3), keepdims=True)
        normalised = centred * (1.0 / np.sqrt(variance + self.epsilon))
        return normalised.reshape(x.shape).astype(x.dtype) * parameters["scale"] + parameters["shift"]


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

    @override
    def initialize(self, generator: np.random.Generator, shape: Shape) -> tuple[Parameters, Shape]:
        parameters, output = super().initialize(generator, shape)
        if shape[-1] == 1:
            raise ArgumentException(
                f"LayerNorm must have at least 2 channels to normalise over, got 1 of inputs {shape_of_examples(shape)}"
            )
        return parameters, output

    @override
    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        return layer_norm(x, parameters["scale"], parameters["shift"], epsilon=self.epsilon)
