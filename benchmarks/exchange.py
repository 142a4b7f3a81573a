"""Differences of each layer, network and loss from PyTorch and from ONNX: ``python -m benchmarks.exchange``.

PyTorch's module is made of torch.nn's own layers, and gets the weights by `state_dict`; the ONNX graph runs in
onnxruntime. A figure is the largest difference, relative to the largest number of the other side.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch.nn import functional

from aidotnet_py import FunctionModel, NeuralNetworkModel, losses, nn
from aidotnet_py.autodiff import value_and_grad
from aidotnet_py.exchange import export_onnx, state_dict

__all__ = ["CASES", "LOSSES", "Row", "main", "row_of_layer", "row_of_loss"]

IMAGE = (6, 5, 4)
# Of each layer and network: one, and the shape of its inputs.
CASES: Mapping[str, tuple[nn.Layer, tuple[int, ...]]] = {
    "Dense": (nn.Dense(3), (4,)),
    "Conv2D": (nn.Conv2D(6, 3, stride=2, padding=1, groups=2), IMAGE),
    "BatchNorm": (nn.BatchNorm(), IMAGE),
    "GroupNorm": (nn.GroupNorm(2), IMAGE),
    "LayerNorm": (nn.Sequential(nn.Flatten(), nn.LayerNorm(), nn.Dense(3)), IMAGE),
    "Dropout": (nn.Sequential(nn.Dense(3), nn.Dropout(0.5)), (4,)),
    "Flatten": (nn.Sequential(nn.Flatten(), nn.Dense(3)), IMAGE),
    "MaxPool2D": (nn.MaxPool2D(3, stride=2, padding=1), IMAGE),
    "AveragePool2D": (nn.AveragePool2D(2), IMAGE),
    "GlobalAveragePool2D": (nn.GlobalAveragePool2D(), IMAGE),
    "ReLU": (nn.ReLU(), IMAGE),
    "LeakyReLU": (nn.LeakyReLU(0.1), IMAGE),
    "Tanh": (nn.Tanh(), IMAGE),
    "Sigmoid": (nn.Sigmoid(), IMAGE),
    "Residual": (nn.Residual(nn.Conv2D(2, padding=1), nn.Conv2D(2, 1)), IMAGE),
    "Sequential": (nn.Sequential(nn.Conv2D(3, padding=1), nn.Tanh(), nn.Flatten(), nn.Dense(2)), IMAGE),
    "mlp": (nn.mlp(16, 16, 3), (4,)),
    "conv4": (nn.conv4(5, filters=16), (28, 28, 1)),
    "resnet12": (nn.resnet12(5, filters=(8, 16, 20, 40)), (32, 32, 3)),
    # Smaller images end as one pixel, of which batch statistics refuse a single example.
    "resnet18": (nn.resnet18(5, filters=8), (64, 64, 3)),
}

# Of each loss: PyTorch's, and targets from numbers (n, 3).
LOSSES: Mapping[str, tuple[Callable[..., Any], Callable[[NDArray[Any]], NDArray[Any]]]] = {
    "CrossEntropyLoss": (functional.cross_entropy, lambda numbers: numbers.argmax(axis=1)),
    "BinaryCrossEntropyLoss": (functional.binary_cross_entropy_with_logits, lambda numbers: 1.0 * (numbers > 0)),
    "MeanSquaredErrorLoss": (functional.mse_loss, lambda numbers: numbers),
}


@dataclass(frozen=True)
class Row:
    """The differences of one layer or loss in one dtype."""

    name: str
    dtype: str
    torch_output: float
    torch_gradient: float
    onnx_output: float


class Residual(torch.nn.Module):
    """Body and shortcut, by the names that `state_dict` has for ours."""

    def __init__(self, body: torch.nn.Module, shortcut: torch.nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sum of both."""
        return self.body(x) + self.shortcut(x)


def module_of(layer: Any, shape: tuple[int, ...]) -> torch.nn.Module:
    """Return PyTorch's layer for one of ours, whose inputs have this shape."""
    channels = shape[-1]
    match layer:
        case nn.Sequential():
            modules: list[torch.nn.Module] = []
            for part in layer.layers.values():
                modules.append(module_of(part, shape))
                shape = part.initialize(np.random.default_rng(0), shape)[1]
            return torch.nn.Sequential(*modules)
        case nn.Residual():
            around = torch.nn.Identity() if layer.shortcut is None else module_of(layer.shortcut, shape)
            return Residual(module_of(layer.body, shape), around)
        case nn.Conv2D():
            # A 1 × 1 kernel needs none; PyTorch refuses "same" with a stride.
            padding: Any = 0 if layer.kernel == (1, 1) else layer.padding
            return torch.nn.Conv2d(
                channels, layer.filters, layer.kernel, layer.stride, padding, groups=layer.groups, bias=layer.bias
            )
        case nn.Dense():
            return torch.nn.Linear(channels, layer.units, layer.bias)
        case nn.BatchNorm():
            kind = torch.nn.BatchNorm2d if len(shape) == 3 else torch.nn.BatchNorm1d
            # As here, by the batch in hand.
            return kind(channels, layer.epsilon, track_running_stats=False)
        case nn.LayerNorm():
            return torch.nn.LayerNorm(channels, layer.epsilon)
        case nn.GroupNorm():
            return torch.nn.GroupNorm(layer.groups, channels, layer.epsilon)
        case nn.MaxPool2D() | nn.AveragePool2D():
            kind = torch.nn.MaxPool2d if isinstance(layer, nn.MaxPool2D) else torch.nn.AvgPool2d
            return kind(layer.window, layer.stride, 0 if layer.padding == "valid" else layer.padding)
        case nn.GlobalAveragePool2D():
            return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        case nn.LeakyReLU():
            return torch.nn.LeakyReLU(layer.slope)
        case nn.Dropout():
            return torch.nn.Dropout(layer.rate).eval()
        case nn.Flatten() | nn.ReLU() | nn.Tanh() | nn.Sigmoid():
            return getattr(torch.nn, type(layer).__name__)()
        case _:
            raise NotImplementedError(type(layer).__name__)


def row_of_layer(name: str, dtype: Any) -> Row:
    """Return the differences of a layer, in outputs and in the gradient of their weighted sum in the inputs."""
    layer, shape = CASES[name]
    parameters, module = _parameters(layer, shape, dtype), module_of(layer, shape).to(_torch_dtype(dtype))
    if parameters:
        model = NeuralNetworkModel(layer, input_shape=shape, dtype=dtype)
        model.SetParameters(np.concatenate([value.ravel() for value in parameters.values()]))
        module.load_state_dict({key: torch.from_numpy(value) for key, value in state_dict(model).items()})
    x = np.random.default_rng(2).standard_normal((8, *shape)).astype(dtype)
    weights = np.random.default_rng(3).standard_normal(layer.apply(parameters, x).shape).astype(dtype)

    def weighted(x: Any) -> Any:
        return (layer.apply(parameters, x) * weights).sum()

    tensor = torch.from_numpy(_channels_first(x)).requires_grad_()
    output = module(tensor)
    (output * torch.from_numpy(_channels_first(weights))).sum().backward()
    # Layers without parameters stand beside one, which changes nothing.
    beside = parameters or {"zero": np.zeros(1, dtype)}
    exported = FunctionModel(lambda p, x: layer.apply(p, x) + (0.0 if parameters else p["zero"]), beside)
    ours = exported.Predict(x)
    return Row(
        name,
        np.dtype(dtype).name,
        _difference(_channels_first(ours), output),
        _difference(_channels_first(value_and_grad(weighted)(x)[1]), tensor.grad),
        _difference(ours, _run(exported, x)),
    )


def row_of_loss(name: str, dtype: Any) -> Row:
    """Return the differences of a loss, and of its gradient in the predictions."""
    loss, (theirs, targets_of) = getattr(losses, name)(), LOSSES[name]
    x = 3 * np.random.default_rng(2).standard_normal((8, 3)).astype(dtype)
    targets = targets_of(np.random.default_rng(3).standard_normal((8, 3)).astype(dtype))
    tensor = torch.from_numpy(x).requires_grad_()
    value = theirs(tensor, torch.from_numpy(targets if targets.ndim == 1 else targets.astype(dtype)))
    value.backward()
    ours, gradient = value_and_grad(lambda x: loss.formula(x, targets))(x)
    # A graph has one input: predictions and targets beside each other.
    wide = targets if targets.ndim == 2 else np.eye(3)[targets]
    model = FunctionModel(lambda p, x: loss.formula(x[:, :3] * p["one"], x[:, 3:]), {"one": np.ones(1, dtype)})
    both = np.hstack([x, wide]).astype(dtype)
    return Row(
        name,
        np.dtype(dtype).name,
        _difference(ours, value),
        _difference(gradient, tensor.grad),
        _difference(model.Predict(both), _run(model, both)),
    )


def _parameters(layer: nn.Layer, shape: tuple[int, ...], dtype: Any) -> dict[str, NDArray[Any]]:
    """Return parameters of which none is 0 or 1."""
    drawn, _ = layer.initialize(np.random.default_rng(0), shape)
    stir = np.random.default_rng(1)
    return {name: (value + 0.1 * stir.standard_normal(value.shape)).astype(dtype) for name, value in drawn.items()}


def _torch_dtype(dtype: Any) -> torch.dtype:
    return torch.float32 if dtype is np.float32 else torch.float64


def _channels_first(array: Any) -> NDArray[Any]:
    return np.ascontiguousarray(np.moveaxis(array, -1, 1)) if np.ndim(array) == 4 else np.asarray(array)


def _run(model: Any, x: NDArray[Any]) -> NDArray[Any]:
    """Return the output of a model's graph in onnxruntime."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        export_onnx(model, path, x)
        session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"input": x})
    return np.asarray(output)


def _difference(ours: Any, theirs: Any) -> float:
    other: NDArray[Any] = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    if np.shape(ours) != other.shape:
        raise ValueError(f"shapes must be the same, got {np.shape(ours)} and {other.shape}")
    return float(np.abs(ours - other).max() / np.abs(other).max())


def rows() -> Iterator[Row]:
    """Yield the rows of all layers, networks and losses, in both dtypes."""
    for dtype in (np.float32, np.float64):
        yield from (row_of_layer(name, dtype) for name in CASES)
        yield from (row_of_loss(name, dtype) for name in LOSSES)


def main() -> None:
    """Print the table in Markdown, a line for each with both dtypes."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    found = list(rows())
    print("| | PyTorch, outputs | PyTorch, gradients | ONNX, outputs |\n|---|---|---|---|")
    half = len(found) // 2
    for single, double in zip(found[:half], found[half:], strict=True):
        pairs = zip(astuple(single)[2:], astuple(double)[2:], strict=True)
        print(f"| `{single.name}` | {' | '.join(f'{one:.0e}, {other:.0e}' for one, other in pairs)} |")
    print(f"\nPyTorch {torch.__version__}, onnxruntime {onnxruntime.__version__}, NumPy {np.__version__}")


if __name__ == "__main__":
    main()
