"""What the PyTorch contestants share: the networks as functions, layouts, and the work of one task."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from benchmarks.workloads import EPSILON, Network, Workload

__all__ = [
    "Examples",
    "Model",
    "Parameters",
    "examples",
    "finished",
    "from_torch",
    "task_meta_gradient",
    "task_scores",
    "to_torch",
]

Parameters = tuple[Tensor, ...]
Examples = tuple[Tensor, Tensor]
Features = Callable[[Parameters, Tensor, int | None], Tensor]


def to_torch(work: Workload, device: str) -> Parameters:
    """The start weights in PyTorch's layouts: kernels (outputs, inputs, height, width), features channels first."""
    # Float32 is to be float32: PyTorch's own choice for convolutions is TF32.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    tensors: list[Tensor] = []
    for name, p in work.parameters.items():
        if name.endswith("kernel"):
            p = p.transpose(3, 2, 0, 1)
        elif name == "4.weight":
            height, width = work.network.last_side()
            p = p.reshape(height, width, -1, p.shape[-1]).transpose(2, 0, 1, 3).reshape(p.shape)
        tensors.append(torch.from_numpy(p.copy()).to(device))
    return tuple(tensors)


def from_torch(work: Workload, tensors: Sequence[Tensor]) -> NDArray[np.float64]:
    """One flat vector in the workload's layouts."""
    pieces: list[NDArray[np.float64]] = []
    for name, tensor in zip(work.parameters, tensors, strict=True):
        p = tensor.detach().cpu().numpy().astype(np.float64)
        if name.endswith("kernel"):
            p = p.transpose(2, 3, 1, 0)
        elif name == "4.weight":
            height, width = work.network.last_side()
            p = p.reshape(-1, height, width, p.shape[-1]).transpose(1, 2, 0, 3)
        pieces.append(p.ravel())
    return np.concatenate(pieces)


def finished(loss: Tensor) -> float:
    """The number, once the device has done all that was asked of it."""
    if loss.is_cuda:
        torch.cuda.synchronize()
    return float(loss)


def examples(work: Workload, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Support and query sets, stacked over tasks, images channels first."""
    x = [torch.from_numpy(a).to(device) for a in (work.support_x, work.query_x)]
    if work.classifies:
        x = [a.permute(0, 1, 4, 2, 3).contiguous() for a in x]
    y = [torch.from_numpy(a).to(device) for a in (work.support_y, work.query_y)]
    return x[0], y[0], x[1], y[1]


def _fused_norm(x: Tensor, scale: Tensor, shift: Tensor, leading: int | None) -> Tensor:
    if leading is not None:
        return _plain_norm(x, scale, shift, leading)
    return functional.batch_norm(x, None, None, scale, shift, training=True, eps=EPSILON)


def _plain_norm(x: Tensor, scale: Tensor, shift: Tensor, leading: int | None) -> Tensor:
    """Batch norm by the statistics of the leading examples, or of all."""
    centred = x - x[:leading].mean((0, 2, 3), keepdim=True)
    variance = (centred[:leading] * centred[:leading]).mean((0, 2, 3), keepdim=True)
    return centred * (torch.rsqrt(variance + EPSILON) * scale[:, None, None]) + shift[:, None, None]


def _patches(x: Tensor, stride: int) -> Tensor:
    """All 3 × 3 windows of images, channels last, zeros around them, as rows (…, 9 × channels)."""
    height, width = x.shape[1:3]
    x = functional.pad(x, (0, 0, 1, 1, 1, 1))
    views = [x[:, i : i + height : stride, j : j + width : stride] for i in range(3) for j in range(3)]
    return torch.cat(views, dim=-1)


def _normalised_convolution(network: Network, how: str) -> Callable[[Tensor, Parameters, int | None], Tensor]:
    """A convolution with padding, 3 × 3 or 1 × 1, and batch norm, by the parameters of both; ``how`` as below."""
    stride, convolution = 2 if network.kind == "stride" else 1, how.split("-")[0]
    norm = _fused_norm if how.endswith("fused") else _plain_norm

    def convolved(x: Tensor, kernel: Tensor) -> Tensor:
        side = kernel.shape[-1]
        if convolution == "conv":
            return functional.conv2d(x, kernel, stride=stride, padding=side // 2)
        rows = x.permute(0, 2, 3, 1)
        rows = rows if side == 1 else _patches(rows, stride)
        return (rows @ kernel.permute(2, 3, 1, 0).reshape(-1, kernel.shape[0])).permute(0, 3, 1, 2)

    def normalised(x: Tensor, parameters: Parameters, leading: int | None) -> Tensor:
        kernel, scale, shift = parameters
        return norm(convolved(x, kernel), scale, shift, leading)

    return normalised


def _chain(network: Network, how: str) -> Features:
    """From the parameters of the convolutions and images to what the dense layer takes; ``how`` as in `Model`."""
    normalised = _normalised_convolution(network, how)

    def features(parameters: Parameters, x: Tensor, leading: int | None) -> Tensor:
        for i in range(0, 12, 3):
            x = functional.relu(normalised(x, parameters[i : i + 3], leading))
            if network.kind == "pool":
                x = functional.max_pool2d(x, 2)
        return x.flatten(1)

    return features


def _residual(network: Network, how: str) -> Features:
    """The same of a ResNet-12."""
    normalised = _normalised_convolution(network, how)

    def features(parameters: Parameters, x: Tensor, leading: int | None) -> Tensor:
        for i in range(0, 48, 12):
            first, second, third, shortcut = (parameters[j : j + 3] for j in range(i, i + 12, 3))
            body = functional.leaky_relu(normalised(x, first, leading), 0.1)
            body = functional.leaky_relu(normalised(body, second, leading), 0.1)
            x = functional.leaky_relu(normalised(body, third, leading) + normalised(x, shortcut, leading), 0.1)
            x = functional.max_pool2d(x, 2)
        return x.mean((2, 3))

    return features


def _dense(parameters: Parameters, x: Tensor, leading: int | None) -> Tensor:
    w1, b1, w2, b2 = parameters
    return functional.relu(functional.relu(x @ w1 + b1) @ w2 + b2)


class Model:
    """A network as functions of its parameters, and the mean loss.

    ``how`` is "dense"; or "conv", PyTorch's convolution, or "patches", matrix products with windows, then "-fused" or
    "-plain": batch norm in one call or in elementary ones.
    """

    def __init__(self, network: Network, how: str) -> None:
        self._features: Features = _dense
        if network.kind != "mlp":
            self._features = (_residual if network.kind == "residual" else _chain)(network, how)
        self.error: Callable[[Tensor, Tensor], Tensor] = (
            functional.mse_loss if network.kind == "mlp" else functional.cross_entropy
        )

    def features(self, body: Parameters, x: Tensor, leading: int | None = None) -> Tensor:
        """What the last layer takes; batch norm by the statistics of the leading examples, or of all."""
        return self._features(body, x, leading)

    def scores(self, parameters: Parameters, x: Tensor, leading: int | None = None) -> Tensor:
        """The outputs of the network."""
        *body, weight, bias = parameters
        return self.features(tuple(body), x, leading) @ weight + bias

    def loss(self, parameters: Parameters, x: Tensor, y: Tensor) -> Tensor:
        """The mean loss of one task's parameters and examples."""
        return self.error(self.scores(parameters, x), y)


def _step_along(parameters: Parameters, slopes: Parameters, rate: float) -> Parameters:
    return tuple(p - rate * s for p, s in zip(parameters, slopes, strict=True))


def _adapted(work: Workload, model: Model, start: Parameters, support: Examples) -> Parameters:
    """φ after the inner steps, with nothing of their graph."""
    phi = tuple(p.detach().requires_grad_() for p in start)
    for _ in range(work.steps):
        slopes = torch.autograd.grad(model.loss(phi, *support), phi)
        phi = tuple(p.detach().requires_grad_() for p in _step_along(phi, slopes, work.inner_rate))
    return phi


def task_scores(work: Workload, model: Model, start: Parameters, support: Examples, query: Examples) -> Tensor:
    """One task: its queries' scores after adaptation."""
    phi, x = _adapted(work, model, start, support), query[0]
    with torch.no_grad():
        if not work.classifies:
            return model.scores(phi, x)
        leading = len(support[0])
        return model.scores(phi, torch.cat([support[0], x]), leading)[leading:]


def task_meta_gradient(
    work: Workload, model: Model, start: Parameters, support: Examples, query: Examples
) -> tuple[Tensor, Parameters]:
    """One task: its query loss, and its meta-gradient by the workload's method."""
    method = {"imaml": _implicit, "maml": _through_steps, "anil": _through_head}[work.method]
    return method(work, model, start, support, query)


def _implicit(
    work: Workload, model: Model, start: Parameters, support: Examples, query: Examples
) -> tuple[Tensor, Parameters]:
    """V of (I + λH) v = g. The graph of the support gradient is built once, for all products."""
    phi = _adapted(work, model, start, support)
    query_loss = model.loss(phi, *query)
    g = torch.autograd.grad(query_loss, phi)
    slopes = torch.autograd.grad(model.loss(phi, *support), phi, create_graph=True)

    def product(v: Parameters) -> Parameters:
        curved = torch.autograd.grad(slopes, phi, v, retain_graph=True)
        return tuple(a + work.weight * h for a, h in zip(v, curved, strict=True))

    return query_loss.detach(), conjugate_gradient(product, g, work.products)


def _through_steps(
    work: Workload, model: Model, start: Parameters, support: Examples, query: Examples
) -> tuple[Tensor, Parameters]:
    theta = phi = tuple(p.detach().requires_grad_() for p in start)
    for _ in range(work.steps):
        slopes = torch.autograd.grad(model.loss(phi, *support), phi, create_graph=True)
        phi = _step_along(phi, slopes, work.inner_rate)
    query_loss = model.loss(phi, *query)
    return query_loss.detach(), torch.autograd.grad(query_loss, theta)


def _through_head(
    work: Workload, model: Model, start: Parameters, support: Examples, query: Examples
) -> tuple[Tensor, Parameters]:
    theta = tuple(p.detach().requires_grad_() for p in start)
    body, head = theta[:-2], theta[-2:]
    features = model.features(body, support[0])
    for _ in range(work.steps):
        weight, bias = head
        slopes = torch.autograd.grad(model.error(features @ weight + bias, support[1]), head, create_graph=True)
        head = _step_along(head, slopes, work.inner_rate)
    query_loss = model.loss((*body, *head), *query)
    return query_loss.detach(), torch.autograd.grad(query_loss, theta)


def _dot(a: Parameters, b: Parameters) -> Tensor:
    return torch.stack([torch.dot(x.reshape(-1), y.reshape(-1)) for x, y in zip(a, b, strict=True)]).sum()


@torch.no_grad()
def conjugate_gradient(product: Callable[[Parameters], Parameters], g: Parameters, products: int) -> Parameters:
    """The solve, from zero, over tuples of tensors."""
    x = tuple(torch.zeros_like(a) for a in g)
    r, p = g, g
    square = _dot(r, r)
    for i in range(products):
        with torch.enable_grad():
            q = product(p)
        alpha = square / _dot(p, q)
        x = tuple(a + alpha * b for a, b in zip(x, p, strict=True))
        if i + 1 == products:
            break
        r = tuple(a - alpha * b for a, b in zip(r, q, strict=True))
        square, before = _dot(r, r), square
        p = tuple(a + (square / before) * b for a, b in zip(r, p, strict=True))
    return x
