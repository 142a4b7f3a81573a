"""The networks of the literature, ready made."""

from __future__ import annotations

from typing import Literal

from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.nn.activations import ReLU
from aidotnet_py.nn.combinators import Residual, Sequential
from aidotnet_py.nn.convolution import Conv2D, Flatten, GlobalAveragePool2D, MaxPool2D
from aidotnet_py.nn.dense import Dense
from aidotnet_py.nn.layer import Layer
from aidotnet_py.nn.normalization import BatchNorm, GroupNorm

__all__ = ["conv4", "mlp", "resnet18"]

Norm = Literal["batch", "support", "group", "layer"]


def conv4(
    classes: int, *, filters: int = 64, reduction: Literal["stride", "pool"] = "stride", norm: Norm = "batch"
) -> Sequential:
    """The 4-layer ConvNet of Vinyals et al. 2016 and Finn et al. 2017: 4 × [conv 3×3, batch norm, ReLU], then linear.

    Parameters
    ----------
    classes : int
        Number of outputs.
    filters : int
        Channels of every convolution.
    reduction : "stride" or "pool"
        Halve the image in each block by stride 2 (as for Omniglot) or by 2 × 2 max pooling (as for mini-ImageNet).
    norm : "batch", "support", "group" or "layer"
        What stands between convolution and ReLU. "batch": `BatchNorm`, the convention of the literature; while a
        learner trains and evaluates, a query set is normalised as a whole, by its own statistics. "support":
        `BatchNorm` with ``statistics="support"``. "group": `GroupNorm` with 16 channels a group. "layer": `GroupNorm`
        with one group. Only under "batch" does the answer for one image of a query set depend on the others.

    Raises
    ------
    ArgumentException
        When ``reduction`` or ``norm`` is none of these, or a count is no whole number above 0.

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
        # Each norm has a shift, and batch norm takes away any constant: the convolutions have no bias.
        layers += [Conv2D(filters, 3, stride=2 if reduction == "stride" else 1, padding=1, bias=False)]
        layers += [_norm(norm, filters), ReLU()]
        if reduction == "pool":
            layers.append(MaxPool2D(2))
    return Sequential(*layers, Flatten(), Dense(classes))


def _norm(norm: Norm, filters: int) -> Layer:
    """The normalisation layer of that name, for so many channels."""
    if norm == "batch" or norm == "support":
        return BatchNorm(statistics=norm)
    if norm == "layer":
        # Over channels and places: per place, as LayerNorm does it, they learned less on every data set tried.
        return GroupNorm(1)
    if norm == "group":
        # 16 channels a group, or the next greater number that divides them: Wu & He's best fixed number.
        return GroupNorm(next(g for g in range(max(1, filters // 16), 0, -1) if filters % g == 0))
    raise ArgumentException(f"norm must be 'batch', 'support', 'group' or 'layer', got {norm!r}")


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


def resnet18(classes: int, *, filters: int = 64, norm: Norm = "batch") -> Sequential:
    """The 18-layer residual network of He et al. 2016 (Table 1), for images such as (224, 224, 3).

    conv 7×7/2, max pool 3×3/2, four stages of two blocks with filters, 2, 4 and 8 times filters, the mean of each
    channel, then linear. A block is [conv 3×3, batch norm, ReLU, conv 3×3, batch norm] around a shortcut, then ReLU.
    The first of each later stage has stride 2, and a 1×1 convolution with batch norm as shortcut. With 64 filters, 3
    channels and 1000 classes it has 11 689 512 parameters.

    Parameters
    ----------
    classes : int
        Number of outputs.
    filters : int
        Channels of the first stage.
    norm : "batch", "support", "group" or "layer"
        As for `conv4`.

    Raises
    ------
    ArgumentException
        When ``norm`` is none of these, or a count is no whole number above 0.

    References
    ----------
    He, K., Zhang, X., Ren, S. & Sun, J. (2016). Deep residual learning for image recognition. CVPR.

    Examples
    --------
    >>> import numpy as np
    >>> resnet18(5, filters=4).initialize(np.random.default_rng(0), (32, 32, 3))[1]
    (5,)
    """
    layers: list[Layer] = [Conv2D(filters, 7, stride=2, padding=3, bias=False), _norm(norm, filters), ReLU()]
    layers.append(MaxPool2D(3, stride=2, padding=1))
    for stage in range(4):
        width = filters << stage
        layers += [*_basic_block(width, norm, narrower=stage > 0), *_basic_block(width, norm, narrower=False)]
    return Sequential(*layers, GlobalAveragePool2D(), Dense(classes))


def _basic_block(filters: int, norm: Norm, *, narrower: bool) -> tuple[Layer, Layer]:
    """Two 3 × 3 convolutions around a shortcut, and the ReLU after it; half as many rows and columns if narrower."""
    stride = 2 if narrower else 1
    body = Sequential(
        *(Conv2D(filters, 3, stride=stride, padding=1, bias=False), _norm(norm, filters), ReLU()),
        *(Conv2D(filters, 3, padding=1, bias=False), _norm(norm, filters)),
    )
    shortcut = Sequential(Conv2D(filters, 1, stride=2, bias=False), _norm(norm, filters)) if narrower else None
    return Residual(body, shortcut), ReLU()
