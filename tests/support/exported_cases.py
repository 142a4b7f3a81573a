"""Layers, networks and functions that are exported, and models of them."""

from __future__ import annotations

import numpy as np
import pytest

from aidotnet_py import FunctionModel, NeuralNetworkModel
from aidotnet_py import autodiff as ad
from aidotnet_py.models.named_arrays import unravel_arrays
from aidotnet_py.nn import (
    AveragePool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool2D,
    GroupNorm,
    LayerNorm,
    LeakyReLU,
    MaxPool2D,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Tanh,
    conv4,
    mlp,
    resnet12,
    resnet18,
)

__all__ = ["CASES", "FUNCTIONS", "LAYERS", "arrays", "inputs", "model_of"]

IMAGE = (6, 5, 4)

# Of each public layer and network: some of its settings, and the shape of inputs.
LAYERS = {
    "AveragePool2D": [(AveragePool2D(2), IMAGE), (AveragePool2D(3, stride=2, padding="same"), IMAGE)],
    "BatchNorm": [(BatchNorm(), (3,)), (BatchNorm(epsilon=0.1), IMAGE)],
    "Conv2D": [
        (Conv2D(3), IMAGE),
        (Conv2D(6, (2, 3), stride=(2, 1), groups=2, padding=((0, 2), (1, 0)), bias=False), IMAGE),
        (Conv2D(2, 1, stride=2, padding="valid"), IMAGE),
    ],
    "Dense": [(Dense(3), (4,)), (Dense(3, bias=False), (4,))],
    "Dropout": [(Sequential(Dense(2), Dropout(0.5)), (3,))],
    "Flatten": [(Sequential(Flatten(), Dense(2)), IMAGE), (Sequential(Flatten(), Tanh()), (3,))],
    "GlobalAveragePool2D": [(GlobalAveragePool2D(), IMAGE)],
    "GroupNorm": [(GroupNorm(2), IMAGE), (GroupNorm(1), (4,))],
    "LayerNorm": [(LayerNorm(), IMAGE), (LayerNorm(), (4,))],
    "LeakyReLU": [(LeakyReLU(0.1), IMAGE)],
    "MaxPool2D": [(MaxPool2D(2), IMAGE), (MaxPool2D(3, stride=2, padding=1), IMAGE)],
    "ReLU": [(ReLU(), IMAGE)],
    "Residual": [(Residual(Conv2D(4)), IMAGE), (Residual(Conv2D(2, stride=2), Conv2D(2, 1, stride=2)), IMAGE)],
    "Sequential": [(Sequential(Sequential(Dense(2), ReLU()), Dense(1)), (3,))],
    "Sigmoid": [(Sigmoid(), IMAGE)],
    "Tanh": [(Tanh(), (3,))],
    "conv4": [(conv4(3, filters=4), (12, 9, 2)), (conv4(3, filters=4, reduction="pool"), (16, 16, 1))],
    "mlp": [(mlp(5, 4, 2), (3,))],
    "resnet12": [(resnet12(3, filters=(2, 3, 4, 5)), (16, 16, 3))],
    "resnet18": [(resnet18(3, filters=2), (32, 32, 3)), (resnet18(3, filters=2, norm="group"), (32, 32, 3))],
}
CASES = [
    pytest.param(layer, shape, id=f"{name}-{i}", marks=[pytest.mark.slow] * name.startswith("resnet"))
    for name, own in LAYERS.items()
    for i, (layer, shape) in enumerate(own)
]


def model_of(layer, shape, dtype):
    # Layers without parameters stand beside one that has some, which changes nothing.
    parameters, _ = layer.initialize(np.random.default_rng(0), shape)
    if not parameters:
        return FunctionModel(lambda p, x: layer.apply(p, x) + p["zero"], {"zero": np.zeros(1, dtype)})
    model = NeuralNetworkModel(layer, input_shape=shape, dtype=dtype, seed=0)
    stirred = np.random.default_rng(1).standard_normal(model.ParameterCount).astype(dtype)
    return model.WithParameters(model.GetParameters() + dtype(0.1) * stirred)


def inputs(shape, dtype, count=6, seed=2):
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(dtype)


def arrays(model):
    return unravel_arrays(model.GetParameters(), model.parameter_shapes)


FUNCTIONS = {
    **{name: getattr(np, name) for name in ("exp", "expm1", "sin", "cos", "tanh", "abs", "sign", "floor", "ceil")},
    "negative": lambda x: -x,
    "log": lambda x: np.log(np.abs(x) + 0.1),
    "log1p": lambda x: np.log1p(np.abs(x) * 1e-4),
    "log1p-ends": lambda x: np.log1p(np.where(x > 0, np.inf, 0.0)),
    "sqrt": lambda x: np.sqrt(np.abs(x)),
    "power": lambda x: np.abs(x) ** 1.7,
    "softplus": lambda x: ad.softplus(50 * x),
    "sigmoid": lambda x: ad.sigmoid(10 * x),
    "log_softmax": ad.log_softmax,
    "logsumexp": lambda x: ad.logsumexp(x, axis=(1, 2)),
    "stop_gradient": ad.stop_gradient,
    "divide": lambda x: 1.0 / (2.0 + np.abs(x)) - x / 3.0,
    "maximum": lambda x: np.maximum(x, 0.1) + np.minimum(x, np.flip(x, axis=(1, 2))),
    "compare": lambda x: np.where((x > 0.5) | (x <= -0.5) & ~(x < -1.0), x, 2.0 * x),
    "equal": lambda x: np.where((np.floor(x) != 0.0) & (np.floor(x) == -1.0) | (x >= 1.0), x, -x),
    "isfinite": lambda x: np.where(np.isfinite(np.exp(500.0 * x * x)), x, 0.0),
    "norm": lambda x: np.linalg.norm(x, axis=-1),
    "max": lambda x: np.max(x, axis=(1, 2)) - np.min(x, axis=1).sum(),
    "cumsum": lambda x: np.cumsum(x, axis=1),
    "slice": lambda x: x[:, ::2, 1:],
    "some-examples": lambda x: x[1:] - x[:-1],
    "every-second-reversed": lambda x: x[:0:-1] * 2.0,
    "without-the-last": lambda x: x - x[-1:] + x[0],
    "turned": lambda x: np.roll(x, 1, axis=0) + x[::-1],
    "all-but-one-of-more": lambda x: np.concatenate([2.0 * x, 2.0 * x[:1]], axis=0)[1:],
    "columns-from-a-list": lambda x: x[:, [3, 0, 0]],
    "largest": lambda x: np.argmax(x, axis=1) * 1.0,
    "lower": np.tril,
    "concatenate": lambda x: np.concatenate([x, x[:, :1], -x], axis=1),
    "two-batches": lambda x: np.concatenate([x, 2.0 * x], axis=0),
    "full": lambda x: np.concatenate([x, np.ones_like(x)], axis=-1),
    "outer": lambda x: np.einsum("nij,mij->nm", x, x),
    "matmul": lambda x: x @ np.transpose(x, (0, 2, 1)),
    "mean-of-all": lambda x: x - np.mean(x, axis=0) + np.mean(x),
    "sum-over-examples": lambda x: np.sum(x, axis=0),
    "flattened": lambda x: x.reshape(-1),
    "constants": lambda x: x + np.arange(12.0).reshape(4, 3),
    "variance": lambda x: np.var(x, axis=0, ddof=1),
    "count-of-examples": lambda x: x * x.shape[0] + x / (x.shape[0] + 1),
}
