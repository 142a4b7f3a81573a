"""Gradients and Hessian products of whole networks: against their own forward passes in NumPy, and dense Hessians."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.special
from autodiff_cases import conv2d_reference, pool_reference
from numpy.testing import assert_allclose

from aidotnet_py import autodiff as ad
from aidotnet_py.backends import Backend

Vector = np.ndarray[Any, np.dtype[np.float64]]
LABELS = np.array([0, 2, 1, 2])


def cross_entropy(logits: Any) -> Any:
    # A list, not an array: part of the program, whichever backend runs it.
    labels = LABELS[: logits.shape[0], None].tolist()
    return -np.mean(np.take_along_axis(ad.log_softmax(logits), labels, 1))


def cross_entropy_reference(logits: Any) -> Any:
    return -np.mean(scipy.special.log_softmax(logits, axis=1)[np.arange(len(logits)), LABELS[: len(logits)]])


def normal_reference(x: Any, axes: tuple[int, ...]) -> Any:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)


Parameters = list[tuple[int, ...]]


class Network:
    """A loss of parameters and input as the engine sees it, and the same by NumPy and SciPy alone."""

    def __init__(self, name: str, shapes: Parameters, image: tuple[int, ...], f: Any, reference: Any) -> None:
        self.name, self.shapes, self.f, self.reference = name, shapes, f, reference
        rng = np.random.default_rng(7)
        self.x = rng.uniform(-1, 1, image)
        self.theta = rng.uniform(-0.8, 0.8, sum(int(np.prod(s)) for s in shapes))
        self.v = rng.uniform(-1, 1, self.theta.size)

    def parts(self, theta: Any) -> list[Any]:
        ends = np.cumsum([int(np.prod(s)) for s in self.shapes]).tolist()
        return [theta[b - int(np.prod(s)) : b].reshape(s) for b, s in zip(ends, self.shapes, strict=True)]

    def loss(self, theta: Any) -> Any:
        return self.f(self.x, *self.parts(theta))

    def loss_reference(self, theta: Vector) -> float:
        return float(self.reference(self.x, *self.parts(theta)))


def mlp(x: Any, w: Any, b: Any, v: Any) -> Any:
    return cross_entropy(np.tanh(x @ w + b) @ v)


def conv(x: Any, w: Any, g: Any, s: Any, u: Any, d: Any, m: Any) -> Any:
    y = ad.relu(ad.batch_norm(ad.conv2d(x, w, stride=(2, 1), padding=1), g, s))
    y = ad.max_pool2d(y, 2, stride=1)
    y = ad.conv2d(y, u, d, groups=2, padding="valid")
    return cross_entropy(y.reshape(y.shape[0], -1) @ m)


def conv_reference(x: Any, w: Any, g: Any, s: Any, u: Any, d: Any, m: Any) -> Any:
    y = conv2d_reference(x, w, stride=(2, 1), margins=((1, 1), (1, 1)))
    y = np.maximum(normal_reference(y, (0, 1, 2)) * g + s, 0)
    y = pool_reference(y, (2, 2), (1, 1), np.max)
    y = conv2d_reference(y, u, d, groups=2)
    return cross_entropy_reference(y.reshape(len(y), -1) @ m)


def residual(x: Any, w: Any, u: Any, g: Any, s: Any, m: Any) -> Any:
    y = x + ad.softplus(ad.layer_norm(x, g, s) @ w) @ u
    y = y + ad.sigmoid(ad.layer_norm(y, g, s) @ w) @ u
    return cross_entropy(y @ m)


def residual_reference(x: Any, w: Any, u: Any, g: Any, s: Any, m: Any) -> Any:
    y = x + np.logaddexp(0, (normal_reference(x, (1,)) * g + s) @ w) @ u
    y = y + scipy.special.expit((normal_reference(y, (1,)) * g + s) @ w) @ u
    return cross_entropy_reference(y @ m)


NETWORKS = [
    Network(
        "MLP", [(3, 4), (4,), (4, 3)], (4, 3), mlp, lambda x, w, b, v: cross_entropy_reference(np.tanh(x @ w + b) @ v)
    ),
    Network(
        "ConvNet",
        [(3, 3, 1, 4), (4,), (4,), (2, 2, 2, 2), (2,), (6, 3)],
        (3, 5, 5, 1),
        conv,
        conv_reference,
    ),
    Network("residual", [(4, 3), (3, 4), (4,), (4,), (4, 3)], (4, 4), residual, residual_reference),
]
every_network = pytest.mark.parametrize(
    "network",
    [pytest.param(n, marks=[pytest.mark.slow] * (n.name == "residual")) for n in NETWORKS],
    ids=lambda n: n.name,
)

# Kinks of relu and max are nowhere within the reach of the differences: the step is small, their order four.
STEP = 2.0**-12


def difference(f: Callable[[Vector], Any], x: Vector, direction: Vector) -> Any:
    near, far = (f(x + k * STEP * direction) - f(x - k * STEP * direction) for k in (1, 2))
    return (8 * near - far) / (12 * STEP)


@pytest.mark.slow
@every_network
def test_loss_and_gradient_are_those_of_the_reference(network: Network) -> None:
    value, gradient = ad.value_and_grad(network.loss)(network.theta)
    assert float(value) == pytest.approx(network.loss_reference(network.theta), rel=1e-14)
    numeric = [difference(network.loss_reference, network.theta, e) for e in np.eye(network.theta.size)]
    assert_allclose(gradient, numeric, atol=2e-12)


@every_network
def test_a_hessian_product_is_the_dense_hessian_times_the_vector(network: Network) -> None:
    theta, v = network.theta, network.v
    gradient = ad.trace(ad.grad(network.loss), theta)
    numeric = np.stack([difference(gradient, theta, e) for e in np.eye(theta.size)])
    dense = ad.vmap(lambda e: ad.hvp(network.loss, theta, e))(np.eye(theta.size))
    assert_allclose(dense, numeric, atol=2e-11)
    assert_allclose(dense, dense.T, atol=1e-13)
    assert_allclose(ad.hvp(network.loss, theta, v), dense @ v, rtol=1e-10, atol=1e-13)
    _, linear = ad.linearize(ad.grad(network.loss), theta)
    assert_allclose(linear(v), dense @ v, rtol=1e-10, atol=1e-13)


@every_network
def test_third_derivatives_along_a_line(network: Network) -> None:
    theta, v = network.theta, network.v

    def curvature(x: Any) -> Any:
        return ad.hvp(network.loss, x, v)

    product = ad.trace(curvature, theta)
    third = ad.jvp(curvature, (theta,), (v,))[1]
    assert_allclose(third, difference(product, theta, v), atol=1e-9 * np.abs(third).max())


@every_network
def test_tasks_in_one_batch_are_a_loop(network: Network) -> None:
    rng = np.random.default_rng(1)
    thetas = network.theta * rng.uniform(0.9, 1.1, (3, 1))
    vs = rng.uniform(-1, 1, (3, network.theta.size))
    xs = network.x * rng.uniform(0.9, 1.1, (3, *[1] * network.x.ndim))

    def product(theta: Any, v: Any, x: Any) -> Any:
        return ad.hvp(lambda t: network.f(x, *network.parts(t)), theta, v)

    together = ad.vmap(product)(thetas, vs, xs)
    for k in range(3):
        assert_allclose(together[k], product(thetas[k], vs[k], xs[k]), rtol=1e-11, atol=1e-13)


@every_network
def test_networks_give_the_same_on_every_backend(network: Network, backend: Backend) -> None:
    theta, v, x = (backend.asarray(a) for a in (network.theta, network.v, network.x))

    def loss(t: Any, images: Any) -> Any:
        return network.f(images, *network.parts(t))

    gradient = ad.grad(loss)(theta, x)
    product = ad.trace(lambda t, u, images: ad.hvp(lambda s: loss(s, images), t, u), theta, v, x)(theta, v, x)
    assert_allclose(backend.to_numpy(gradient), ad.grad(network.loss)(network.theta), rtol=1e-12, atol=1e-14)
    assert_allclose(backend.to_numpy(product), ad.hvp(network.loss, network.theta, network.v), rtol=1e-11, atol=1e-13)


@every_network
def test_single_precision_follows_double(network: Network) -> None:
    """Relative error in norm within 200 roundings: depth times a condition of some tens."""
    wide = ad.grad(network.loss)(network.theta), ad.hvp(network.loss, network.theta, network.v)
    x, theta, v = (a.astype(np.float32) for a in (network.x, network.theta, network.v))

    def loss(t: Any) -> Any:
        return network.f(x, *network.parts(t))

    narrow = ad.grad(loss)(theta), ad.hvp(loss, theta, v)
    for a, b in zip(narrow, wide, strict=True):
        assert a.dtype == np.float32
        assert np.linalg.norm(a - b) <= 200 * np.finfo(np.float32).eps * np.linalg.norm(b)


def test_the_gauss_newton_product_of_a_linear_model_is_its_hessian() -> None:
    rng = np.random.default_rng(0)
    x, w, v, y = rng.normal(size=(5, 3)), rng.normal(size=3), rng.normal(size=3), rng.normal(size=5)
    product = ad.hvp(lambda a: 0.5 * np.sum((x @ a - y) ** 2), w, v)
    assert_allclose(product, x.T @ (x @ v), rtol=1e-13)
