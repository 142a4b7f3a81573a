"""torch.func: all tasks at once, by vmap."""

# ruff: noqa: D102 -- documented by the protocol that they implement

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import grad, jvp, vjp, vmap

from benchmarks.contestants.torch_model import Parameters, examples, finished, from_torch, loss_function, to_torch
from benchmarks.workloads import Workload

__all__ = ["Contestant"]


def _dot(a: Parameters, b: Parameters) -> Tensor:
    """Inner products, one a task."""
    return torch.stack([(x * y).flatten(1).sum(1) for x, y in zip(a, b, strict=True)]).sum(0)


def _scaled(alpha: Tensor, a: Parameters) -> Parameters:
    return tuple(alpha.reshape(-1, *[1] * (x.ndim - 1)) * x for x in a)


def _sum(a: Parameters, b: Parameters) -> Parameters:
    return tuple(x + y for x, y in zip(a, b, strict=True))


@torch.no_grad()
def _conjugate_gradient(product: Callable[[Parameters], Parameters], g: Parameters, products: int) -> Parameters:
    """Solves from zero, one a task."""
    x = tuple(torch.zeros_like(a) for a in g)
    r, p = g, g
    square = _dot(r, r)
    for i in range(products):
        q = product(p)
        alpha = square / _dot(p, q)
        x = _sum(x, _scaled(alpha, p))
        if i + 1 == products:
            break
        r = _sum(r, _scaled(-alpha, q))
        square, before = _dot(r, r), square
        p = _sum(r, _scaled(square / before, p))
    return x


class Contestant:
    """A setting is how the network is computed (see `loss_function`), and where products with the Hessian come from.

    "graph" keeps autograd's graph of the gradient of the vmapped losses, "vjp" that of torch.func's vmapped gradient,
    "jvp" goes forward over the gradient for every product.
    """

    def __init__(self, workload: Workload, setting: str, device: str) -> None:
        how, _, self._products = setting.rpartition("-")
        torch.set_num_threads(2)
        self._work = workload
        self._loss = loss_function(workload.network, how)
        self._parameters = to_torch(workload, device)
        self._examples = examples(workload, device)

    def _gradients(self, phi: Parameters, x: Tensor, y: Tensor, *, keep: bool = False) -> tuple[Tensor, Parameters]:
        """Losses summed, and gradients, by autograd of the vmapped losses."""
        losses = vmap(self._loss)(phi, x, y).sum()
        return losses.detach(), torch.autograd.grad(losses, phi, create_graph=keep)

    def _curvature(self, phi: Parameters, x: Tensor, y: Tensor) -> Callable[[Parameters], Parameters]:
        """The product v ↦ Hv of every task."""
        if self._products == "graph":
            with torch.enable_grad():
                slopes = self._gradients(phi, x, y, keep=True)[1]
            return lambda v: torch.autograd.grad(slopes, phi, v, retain_graph=True)
        gradient = vmap(grad(self._loss))
        phi = tuple(p.detach() for p in phi)
        if self._products == "jvp":
            return lambda v: jvp(lambda p: gradient(p, x, y), (phi,), (v,))[1]
        pull = vjp(lambda p: gradient(p, x, y), phi)[1]
        return lambda v: pull(v, retain_graph=True)[0]

    def step(self) -> float:
        work, (a, b, c, d) = self._work, self._examples
        phi = tuple(p.expand(work.tasks, *p.shape).clone().requires_grad_() for p in self._parameters)
        for _ in range(work.steps):
            slopes = self._gradients(phi, a, b)[1]
            phi = tuple((p.detach() - work.inner_rate * s).requires_grad_() for p, s in zip(phi, slopes, strict=True))
        loss, g = self._gradients(phi, c, d)
        product = self._curvature(phi, a, b)

        def operator(v: Parameters) -> Parameters:
            return tuple(x + work.weight * h for x, h in zip(v, product(v), strict=True))

        v = _conjugate_gradient(operator, g, work.products)
        self._mean = tuple(t.mean(0) for t in v)
        for p, m in zip(self._parameters, self._mean, strict=True):
            p -= work.meta_rate * m
        return finished(loss) / work.tasks

    def meta_gradient(self) -> NDArray[np.float64]:
        return from_torch(self._work, self._mean)

    def helpers(self) -> list[int]:
        return []
