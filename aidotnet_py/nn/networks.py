"""The networks of the few-shot literature, ready made."""

from __future__ import annotations

from typing import Literal

from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.nn.activations import ReLU
from aidotnet_py.nn.combinators import Sequential
from aidotnet_py.nn.convolution import Conv2D, Flatten, MaxPool2D
from aidotnet_py.nn.dense import Dense
from aidotnet_py.nn.layer import Layer
from aidotnet_py.nn.normalization import BatchNorm

__all__ = ["conv4", "mlp"]


def conv4(classes: int, *, filters: int = 64, reduction: Literal["stride", "pool"] = "stride") -> Sequential:
    """The 4-layer ConvNet of Vinyals et al. 2016 and Finn et al. 2017: 4 × [conv 3×3, batch norm, ReLU], then linear.

    Parameters
    ----------
    classes : int
        Number of outputs.
    filters : int
        Channels of every convolution.
    reduction : "stride" or "pool"
        Halve the image in each block by stride 2 (as for Omniglot) or by 2 × 2 max pooling (as for mini-ImageNet).

    Raises
    ------
    ArgumentException
        When ``reduction`` is neither, or a count is no whole number above 0.

    Examples
    --------
    >>> import numpy as np
    >>> conv4(5).initialize(np.random.default_rng(0), (28, 28, 1))[1]
    (5,)
    """
    if reduction not in ("stride", "pool"):
        raise ArgumentException(f"reduction is {reduction!r}; 'stride' or 'pool' is wanted")
    layers: list[Layer] = []
    for _ in range(4):
        # Batch norm takes away any constant, so the convolutions have no bias.
        layers += [Conv2D(filters, 3, stride=2 if reduction == "stride" else 1, padding=1, bias=False)]
        layers += [BatchNorm(), ReLU()]
        if reduction == "pool":
            layers.append(MaxPool2D(2))
    return Sequential(*layers, Flatten(), Dense(classes))


def mlp(*units: int) -> Sequential:
    """Dense layers of these sizes with ReLUs between them: ``mlp(40, 40, 1)`` is Finn et al.'s sinusoid regressor.

    Raises
    ------
    ArgumentException
        When there are no sizes, or one is no whole number above 0.

    Examples
    --------
    >>> import numpy as np
    >>> mlp(40, 40, 1).initialize(np.random.default_rng(0), (1,))[1]
    (1,)
    """
    if not units:
        raise ArgumentException("units is empty; the sizes of the layers are wanted, the outputs last")
    layers: list[Layer] = []
    for width in units[:-1]:
        layers += [Dense(width), ReLU()]
    return Sequential(*layers, Dense(units[-1]))
