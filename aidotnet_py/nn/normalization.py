"""Normalisation layers, with a scale and a shift for each channel."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from aidotnet_py.autodiff import batch_norm, layer_norm
from aidotnet_py.backends import Array
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException
from aidotnet_py.nn.layer import Layer, Parameters, Shape, batched

__all__ = ["BatchNorm", "LayerNorm"]


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
    """Each channel normalised by the batch in hand, in training and in use: no running averages.

    (x − mean) / √(variance + ε) · scale + shift, over all axes but the last (Ioffe & Szegedy 2015); see
    `aidotnet_py.autodiff.batch_norm`.

    Parameters
    ----------
    epsilon : float
        ε > 0.

    Raises
    ------
    ArgumentOutOfRangeException
        When ``epsilon`` is not above 0.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.nn import BatchNorm
    >>> parameters, _ = BatchNorm().initialize(np.random.default_rng(0), (1,))
    >>> BatchNorm().apply(parameters, np.array([[1.0], [3.0]])).round(3).ravel()
    array([-1.,  1.])
    """

    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        """The normalised values, scaled and shifted."""
        return batch_norm(x, parameters["scale"], parameters["shift"], epsilon=self.epsilon)


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

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.nn import LayerNorm
    >>> parameters, _ = LayerNorm().initialize(np.random.default_rng(0), (2,))
    >>> LayerNorm().apply(parameters, np.array([[1.0, 3.0]])).round(3)
    array([[-1.,  1.]])
    """

    def apply(self, parameters: Mapping[str, Array], x: Array) -> Array:
        """The normalised values, scaled and shifted."""
        return layer_norm(x, parameters["scale"], parameters["shift"], epsilon=self.epsilon)
