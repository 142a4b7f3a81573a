"""torch.func: all tasks at once, by vmap."""

# ruff: noqa: D102 -- documented by the protocol that they implement

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import grad, grad_and_value, jvp, vjp, vmap

from benchmarks.contestants.torch_model import (
    Model,
    Parameters,
    examples,
    finished,
    from_torch,
    to_torch,
)
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
    """A setting is how the network is computed (see `Model`), and where products with the Hessian come from.

    "graph" keeps autograd's graph of the gradient of the vmapped losses, "vjp" that of torch.func's vmapped gradient,
    "jvp" goes forward over the gradient for every product. Through inner steps, "graph" is autograd's gradient of the
    vmapped losses, "vjp" torch.func's.
    """

    def __init__(self, workload: Workload, setting: str, device: str) -> None:
        how, _, self._products = setting.rpartition("-")
        torch.set_num_threads(2)
        self._work = workload
        self._model = Model(workload.network, how)
        self._parameters = to_torch(workload, device)
        self._examples = examples(workload, device)

    def _gradients(self, phi: Parameters, x: Tensor, y: Tensor, *, keep: bool = False) -> tuple[Tensor, Parameters]:
        """Losses summed, and gradients, by autograd of the vmapped losses."""
        losses = vmap(self._model.loss)(phi, x, y).sum()
        return losses.detach(), torch.autograd.grad(losses, phi, create_graph=keep)

    def _curvature(self, phi: Parameters, x: Tensor, y: Tensor) -> Callable[[Parameters], Parameters]:
        """The product v ↦ Hv of every task."""
        if self._products == "graph":
            with torch.enable_grad():
                slopes = self._gradients(phi, x, y, keep=True)[1]
            return lambda v: torch.autograd.grad(slopes, phi, v, retain_graph=True)
        gradient = vmap(grad(self._model.loss))
        phi = tuple(p.detach() for p in phi)
        if self._products == "jvp":
            return lambda v: jvp(lambda p: gradient(p, x, y), (phi,), (v,))[1]
        pull = vjp(lambda p: gradient(p, x, y), phi)[1]
        return lambda v: pull(v, retain_graph=True)[0]

    def _adapted(self) -> Parameters:
        """φ of every task, with nothing of its graph."""
        work, (a, b, _, _) = self._work, self._examples
        phi = tuple(p.expand(work.tasks, *p.shape).clone().requires_grad_() for p in self._parameters)
        for _ in range(work.steps):
            slopes = self._gradients(phi, a, b)[1]
            phi = tuple((p.detach() - work.inner_rate * s).requires_grad_() for p, s in zip(phi, slopes, strict=True))
        return phi

    def step(self) -> float:
        if self._work.method == "adapt":
            return self._predict()
        loss, mean = self._implicit() if self._work.method == "imaml" else self._through_steps()
        self._mean = mean
        for p, m in zip(self._parameters, mean, strict=True):
            p -= self._work.meta_rate * m
        return finished(loss)

    def _predict(self) -> float:
        """The scores of the queries after adaptation."""
        (a, _, c, _), phi = self._examples, self._adapted()
        with torch.no_grad():
            if not self._work.classifies:
                self._mean = (vmap(self._model.scores)(phi, c),)
            else:
                leading = a.shape[1]
                together = torch.cat([a, c], 1)
                scores = vmap(lambda p, x: self._model.scores(p, x, leading))(phi, together)
                self._mean = (scores[:, leading:],)
        return finished(self._mean[0].flatten()[-1])

    def _implicit(self) -> tuple[Tensor, Parameters]:
        """The mean loss, and the mean v of (I + λH) v = g."""
        work, (a, b, c, d) = self._work, self._examples
        phi = self._adapted()
        loss, g = self._gradients(phi, c, d)
        product = self._curvature(phi, a, b)

        def operator(v: Parameters) -> Parameters:
            return tuple(x + work.weight * h for x, h in zip(v, product(v), strict=True))

        v = _conjugate_gradient(operator, g, work.products)
        return loss / work.tasks, tuple(t.mean(0) for t in v)

    def _through_steps(self) -> tuple[Tensor, Parameters]:
        """The mean loss after the inner steps, and its gradient through them."""
        inner = self._anil if self._work.method == "anil" else self._maml

        def mean(theta: Parameters) -> Tensor:
            return vmap(inner, in_dims=(None, 0, 0, 0, 0))(theta, *self._examples).mean()

        if self._products == "vjp":
            slopes, loss = grad_and_value(mean)(self._parameters)
            return loss, slopes
        theta = tuple(p.detach().requires_grad_() for p in self._parameters)
        loss = mean(theta)
        return loss.detach(), torch.autograd.grad(loss, theta)

    def _moved(self, phi: Parameters, slopes: Parameters) -> Parameters:
        return tuple(p - self._work.inner_rate * s for p, s in zip(phi, slopes, strict=True))

    def _maml(self, theta: Parameters, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        for _ in range(self._work.steps):
            theta = self._moved(theta, grad(self._model.loss)(theta, a, b))
        return self._model.loss(theta, c, d)

    def _anil(self, theta: Parameters, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        body, head = theta[:-2], theta[-2:]
        features = self._model.features(body, a)

        def error(head: Parameters) -> Tensor:
            weight, bias = head
            return self._model.error(features @ weight + bias, b)

        for _ in range(self._work.steps):
            head = self._moved(head, grad(error)(head))
        return self._model.loss((*body, *head), c, d)

    def outcome(self) -> NDArray[np.float64]:
        if self._work.method == "adapt":
            return self._mean[0].flatten().double().cpu().numpy()
        return from_torch(self._work, self._mean)

    def helpers(self) -> list[int]:
        return []
