"""Networks of the literature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

from aidotnet_py.arguments import Choice, refusal
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.nn.activations import LeakyReLU, ReLU
from aidotnet_py.nn.combinators import Residual, Sequential
from aidotnet_py.nn.convolution import Conv2D, Flatten, GlobalAveragePool2D, MaxPool2D
from aidotnet_py.nn.dense import Dense
from aidotnet_py.nn.layer import Layer, check_count
from aidotnet_py.nn.normalization import BatchNorm, GroupNorm

__all__ = ["conv4", "mlp", "resnet12", "resnet18"]

Norm = Literal["batch", "support", "group", "layer"]

_REDUCTION, _NORM = Choice("stride", "pool"), Choice("batch", "support", "group", "layer")


@suggests_keywords(channels="filters")
def conv4(
    classes: int, *, filters: int = 64, reduction: Literal["stride", "pool"] = "stride", norm: Norm = "batch"
) -> Sequential:
    """Build the ConvNet of Vinyals et al. 2016 and Finn et al. 2017: 4 × [conv 3×3, batch norm, ReLU], then linear.

    Parameters
    ----------
    classes : int
        Number of outputs.
    filters : int
        Channels of every convolution.
    reduction : "stride" or "pool"
        Halve the image in each block by stride 2 (as for Omniglot) or by 2 × 2 max pooling (as for mini-ImageNet).
    norm : "batch", "support", "group" or "layer"
        The layer between convolution and ReLU. "batch": `BatchNorm`, the convention of the literature; while a
        learner trains and evaluates, the statistics of the whole query set normalise it. "support":
        `BatchNorm` with ``statistics="support"``. "group": `GroupNorm` with 16 channels a group. "layer": `GroupNorm`
        with one group. Only "batch" makes the prediction of a query image depend on the others.

    Raises
    ------
    ArgumentException
        When ``reduction`` or ``norm`` is not one of these, or a count is not a whole number of at least 1.

    Examples
    --------
    >>> import numpy as np
    >>> conv4(5).initialize(np.random.default_rng(0), (28, 28, 1))[1]
    (5,)
    """
    _REDUCTION.check("reduction", reduction)
    layers: list[Layer] = []
    for _ in range(4):
        # The shift of each norm replaces a bias.
        layers += [Conv2D(filters, 3, stride=2 if reduction == "stride" else 1, padding=1, bias=False)]
        layers += [_norm(norm, filters), ReLU()]
        if reduction == "pool":
            layers.append(MaxPool2D(2))
    return Sequential(*layers, Flatten(), Dense(classes))


def _norm(norm: Norm, filters: int) -> Layer:
    """Return the normalisation layer of that name for a number of channels."""
    _NORM.check("norm", norm)
    if norm == "batch" or norm == "support":
        return BatchNorm(statistics=norm)
    if norm == "layer":
        # Over channels and places: LayerNorm, over channels at each place, learned less on every data set tried.
        return GroupNorm(1)
    # 16 channels per group, or the next greater divisor: Wu & He's best fixed number.
    return GroupNorm(next(g for g in range(max(1, filters // 16), 0, -1) if filters % g == 0))


def mlp(*units: int) -> Sequential:
    """Build dense layers with ReLUs between them: ``mlp(40, 40, 1)`` is Finn et al.'s sinusoid regressor.

    Raises
    ------
    ArgumentException
        When there are no sizes, or one is not a whole number of at least 1.

    Examples
    --------
    >>> import numpy as np
    >>> mlp(40, 40, 1).initialize(np.random.default_rng(0), (1,))[1]
    (1,)
    """
    if not units:
        raise ArgumentException("units must hold the sizes of the layers, the outputs last, got none")
    layers: list[Layer] = []
    for width in units[:-1]:
        layers += [Dense(width), ReLU()]
    return Sequential(*layers, Dense(units[-1]))


@suggests_keywords(channels="filters")
def resnet12(classes: int, *, filters: Sequence[int] = (64, 160, 320, 640), norm: Norm = "batch") -> Sequential:
    """Build the 12-layer residual network of few-shot learning, for images such as (84, 84, 3).

    Four blocks, the mean of each channel, then linear. A block is [conv 3×3, batch norm, leaky ReLU] twice and [conv
    3×3, batch norm], a 1×1 convolution with batch norm around them, then leaky ReLU and 2 × 2 max pooling; the slope is
    0.1 and convolutions have no bias. This is the variant of Lee et al. 2019 (MetaOptNet) with its average pooling, and
    without DropBlock, which needs random numbers that depend on the step. Without the linear layer and with 3 channels
    it has 12 424 320 parameters.

    Parameters
    ----------
    classes : int
        Number of outputs.
    filters : sequence of 4 int
        Channels of the blocks. Oreshkin et al. 2018 have (64, 128, 256, 512).
    norm : "batch", "support", "group" or "layer"
        As for `conv4`.

    Raises
    ------
    ArgumentException
        When ``norm`` is not one of these, ``filters`` are not four, or a count is not a whole number of at least 1.

    References
    ----------
    Lee, K., Maji, S., Ravichandran, A. & Soatto, S. (2019). Meta-learning with differentiable convex optimization.
    CVPR. Oreshkin, B., Rodríguez López, P. & Lacoste, A. (2018). TADAM: task dependent adaptive metric for improved
    few-shot learning. NeurIPS.

    Examples
    --------
    >>> import numpy as np
    >>> resnet12(5, filters=(4, 4, 8, 8)).initialize(np.random.default_rng(0), (32, 32, 3))[1]
    (5,)
    """
    given: Any = filters
    blocks = [*cast("Sequence[Any]", given)] if isinstance(given, (tuple, list)) else []
    if len(blocks) != 4:
        raise ArgumentException(refusal("filters", "the channels of four blocks, such as (64, 160, 320, 640)", filters))
    layers = [layer for width in blocks for layer in _pooled_block(width, norm)]
    return Sequential(*layers, GlobalAveragePool2D(), Dense(classes))


def _pooled_block(filters: int, norm: Norm) -> tuple[Layer, ...]:
    """Return three 3 × 3 convolutions around a 1 × 1 convolution, leaky ReLU and pooling."""

    def convolution() -> tuple[Layer, Layer]:
        return Conv2D(filters, 3, padding=1, bias=False), _norm(norm, filters)

    body = Sequential(*convolution(), LeakyReLU(0.1), *convolution(), LeakyReLU(0.1), *convolution())
    shortcut = Sequential(Conv2D(filters, 1, bias=False), _norm(norm, filters))
    return Residual(body, shortcut), LeakyReLU(0.1), MaxPool2D(2)


@suggests_keywords(channels="filters")
def resnet18(classes: int, *, filters: int = 64, norm: Norm = "batch") -> Sequential:
    """Build the 18-layer residual network of He et al. 2016 (Table 1), for images such as (224, 224, 3).

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
        When ``norm`` is not one of these, or a count is not a whole number of at least 1.

    References
    ----------
    He, K., Zhang, X., Ren, S. & Sun, J. (2016). Deep residual learning for image recognition. CVPR.

    Examples
    --------
    >>> import numpy as np
    >>> resnet18(5, filters=4).initialize(np.random.default_rng(0), (32, 32, 3))[1]
    (5,)
    """
    # A plain number: eight times NumPy's uint8(64) is 0.
    filters = check_count("filters", filters)
    layers: list[Layer] = [Conv2D(filters, 7, stride=2, padding=3, bias=False), _norm(norm, filters), ReLU()]
    layers.append(MaxPool2D(3, stride=2, padding=1))
    for stage in range(4):
        width = filters << stage
        layers += [*_basic_block(width, norm, narrower=stage > 0), *_basic_block(width, norm, narrower=False)]
    return Sequential(*layers, GlobalAveragePool2D(), Dense(classes))


def _basic_block(filters: int, norm: Norm, *, narrower: bool) -> tuple[Layer, Layer]:
    """Return two 3 × 3 convolutions around a shortcut, and a ReLU; ``narrower`` halves rows and columns."""
    stride = 2 if narrower else 1
    body = Sequential(
        *(Conv2D(filters, 3, stride=stride, padding=1, bias=False), _norm(norm, filters), ReLU()),
        *(Conv2D(filters, 3, padding=1, bias=False), _norm(norm, filters)),
    )
    shortcut = Sequential(Conv2D(filters, 1, stride=2, bias=False), _norm(norm, filters)) if narrower else None
    return Residual(body, shortcut), ReLU()
