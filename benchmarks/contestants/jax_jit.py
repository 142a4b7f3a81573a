"""JAX: the whole step compiled, all tasks at once by vmap or one after the other by a compiled loop."""

# ruff: noqa: D102 -- documented by the protocol that they implement

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.tree_util import tree_map
from numpy.typing import NDArray

from benchmarks.workloads import EPSILON, Network, Workload

__all__ = ["Contestant"]

Parameters = list[jax.Array]
Features = Callable[[Parameters, jax.Array], jax.Array]
_DEVICES = 2


def _patches(x: jax.Array, stride: int) -> jax.Array:
    """All 3 × 3 windows, one of zeros around the image, as rows (…, 9 × channels)."""
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    views = [x[:, i : i + height : stride, j : j + width : stride] for i in range(3) for j in range(3)]
    return jnp.concatenate(views, axis=-1)


def _convolution(how: str, stride: int) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The convolution with padding, 3 × 3 or 1 × 1, of images that lie as ``how`` says."""

    def by_patches(x: jax.Array, kernel: jax.Array) -> jax.Array:
        rows = x if len(kernel) == 1 else _patches(x, stride)
        return rows @ kernel.reshape(-1, kernel.shape[-1])

    def by_library(x: jax.Array, kernel: jax.Array) -> jax.Array:
        layout = ("NCHW", "HWIO", "NCHW") if how == "nchw" else ("NHWC", "HWIO", "NHWC")
        edge = len(kernel) // 2
        padding = ((edge, edge), (edge, edge))
        return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=layout)

    return by_patches if how == "patches" else by_library


def _normalised_convolution(how: str, stride: int) -> Callable[[jax.Array, Parameters], jax.Array]:
    """A convolution and batch norm, by the parameters of both."""
    convolve = _convolution(how, stride)
    space, channel = ((0, 2, 3), (-1, 1, 1)) if how == "nchw" else ((0, 1, 2), (-1,))

    def normalised(x: jax.Array, parameters: Parameters) -> jax.Array:
        kernel, scale, shift = parameters
        x = convolve(x, kernel)
        centred = x - x.mean(space, keepdims=True)
        factor = lax.rsqrt((centred * centred).mean(space, keepdims=True) + EPSILON)
        return centred * (factor * scale.reshape(channel)) + shift.reshape(channel)

    return normalised


def _larger(a: jax.Array, b: jax.Array) -> jax.Array:
    # The derivative of `max` looks for its result among values that XLA may have computed again, with other roundings.
    return jnp.where(a >= b, a, b)


def _pooled(x: jax.Array, how: str) -> jax.Array:
    """The greatest of each 2 × 2 places."""
    rows, columns = (2, 3) if how == "nchw" else (1, 2)
    for axis in (rows, columns):
        even = x.shape[axis] // 2 * 2
        x = _larger(*(lax.slice_in_dim(x, first, even, 2, axis) for first in (0, 1)))
    return x


def _chain(network: Network, how: str) -> Features:
    """From the parameters of the convolutions and images to what the dense layer takes."""
    normalised = _normalised_convolution(how, 2 if network.kind == "stride" else 1)

    def features(parameters: Parameters, x: jax.Array) -> jax.Array:
        for i in range(0, 12, 3):
            x = jax.nn.relu(normalised(x, parameters[i : i + 3]))
            if network.kind == "pool":
                x = _pooled(x, how)
        if how == "nchw":
            x = x.transpose(0, 2, 3, 1)
        return x.reshape(len(x), -1)

    return features


def _residual(how: str) -> Features:
    """The same of a ResNet-12."""
    normalised = _normalised_convolution(how, 1)

    def features(parameters: Parameters, x: jax.Array) -> jax.Array:
        for i in range(0, 48, 12):
            first, second, third, shortcut = (parameters[j : j + 3] for j in range(i, i + 12, 3))
            body = jax.nn.leaky_relu(normalised(x, first), 0.1)
            body = jax.nn.leaky_relu(normalised(body, second), 0.1)
            x = _pooled(jax.nn.leaky_relu(normalised(body, third) + normalised(x, shortcut), 0.1), how)
        return x.mean((2, 3) if how == "nchw" else (1, 2))

    return features


def _regression(parameters: Parameters, x: jax.Array, y: jax.Array) -> jax.Array:
    w1, b1, w2, b2, w3, b3 = parameters
    return jnp.mean((jax.nn.relu(jax.nn.relu(x @ w1 + b1) @ w2 + b2) @ w3 + b3 - y) ** 2)


def _loss(network: Network, how: str) -> Callable[[Parameters, jax.Array, jax.Array], jax.Array]:
    """The mean loss of one task's parameters and examples."""
    if network.kind == "mlp":
        return _regression
    features = _residual(how) if network.kind == "residual" else _chain(network, how)

    def classification(parameters: Parameters, x: jax.Array, y: jax.Array) -> jax.Array:
        *convolutions, weight, bias = parameters
        x = x.transpose(0, 3, 1, 2) if how == "nchw" else x
        scores = jax.nn.log_softmax(features(convolutions, x) @ weight + bias)
        return -jnp.mean(jnp.take_along_axis(scores, y[:, None], axis=1))

    return classification


def _dot(a: Parameters, b: Parameters) -> jax.Array:
    return sum((jnp.vdot(x, y) for x, y in zip(a, b, strict=True)), start=jnp.zeros((), a[0].dtype))


def _conjugate_gradient(
    product: Callable[[Parameters], Parameters], g: Parameters, products: int, *, unroll: bool
) -> Parameters:
    """The solve, from zero."""

    def iterate(_: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
        x, r, p, square = state
        q = product(p)
        alpha = square / _dot(p, q)
        x = tree_map(lambda a, b: a + alpha * b, x, p)
        r = tree_map(lambda a, b: a - alpha * b, r, q)
        after = _dot(r, r)
        return x, r, tree_map(lambda a, b: a + (after / square) * b, r, p), after

    start = (tree_map(jnp.zeros_like, g), g, g, _dot(g, g))
    return lax.fori_loop(0, products, iterate, start, unroll=unroll)[0]


def _mesh() -> Mesh:
    """The two devices among which tasks are shared out."""
    return jax.make_mesh((_DEVICES,), ("tasks",), axis_types=(AxisType.Auto,))


def _over_tasks(task: Callable[..., Any], schedule: str, tasks: int, rate: float) -> Callable[..., Any]:
    """From one task's work to a whole step: mean loss, mean v and the new parameters."""

    def together(parameters: Parameters, examples: tuple[jax.Array, ...]) -> Any:
        return jax.vmap(task, in_axes=(None, 0, 0, 0, 0))(parameters, *examples)

    def one_by_one(parameters: Parameters, examples: tuple[jax.Array, ...]) -> Any:
        return lax.map(lambda one: task(parameters, *one), examples)

    def shared_out(run: Callable[..., Any], parameters: Parameters, examples: tuple[jax.Array, ...]) -> Any:
        # The last tasks are repeated where they cannot be shared out evenly.
        places = jnp.minimum(jnp.arange(-(-tasks // _DEVICES) * _DEVICES), tasks - 1)
        spread = jax.shard_map(run, mesh=_mesh(), in_specs=(P(), P("tasks")), out_specs=P("tasks"), check_vma=False)
        return tree_map(lambda a: a[:tasks], spread(parameters, tuple(e[places] for e in examples)))

    run = {
        "vmap": together,
        "map": one_by_one,
        "vmap2": partial(shared_out, together),
        "map2": partial(shared_out, one_by_one),
    }[schedule]

    def step(parameters: Parameters, *examples: jax.Array) -> Any:
        losses, v = run(parameters, examples)
        mean = tree_map(lambda t: t.mean(0), v)
        return losses.mean(), mean, tree_map(lambda p, m: p - rate * m, parameters, mean)

    return step


class Contestant:
    """A setting names how convolutions are computed, and what becomes of the tasks.

    "vmap" does all at once, "map" one after the other, "vmap2" and "map2" so for half of them on each of two devices
    of a processor. "unrolled" after that writes the inner steps and the solve's iterations out, one after another.
    """

    def __init__(self, workload: Workload, setting: str, device: str) -> None:
        jax.config.update("jax_platforms", device)
        how, schedule, *unrolled = setting.split("-")
        self._unroll = unrolled == ["unrolled"]
        # Float32 is to be float32: JAX's own choice on a GPU is TF32.
        jax.config.update("jax_default_matmul_precision", "highest")
        if schedule.endswith("2"):
            jax.config.update("jax_num_cpu_devices", _DEVICES)
        if workload.support_x.dtype == np.float64:
            jax.config.update("jax_enable_x64", True)
        self._work = workload
        self._parameters: Parameters = [jnp.asarray(p) for p in workload.parameters.values()]
        arrays = (workload.support_x, workload.support_y, workload.query_x, workload.query_y)
        self._examples = tuple(jnp.asarray(a) for a in arrays)
        if schedule.endswith("2"):
            # Placed as the step leaves them; otherwise, it would be compiled once more for its second call.
            everywhere = NamedSharding(_mesh(), P())
            self._parameters, self._examples = jax.device_put((self._parameters, self._examples), everywhere)
        self._step = jax.jit(self._compiled_step(_loss(workload.network, how), schedule))

    def _compiled_step(self, loss: Callable[..., jax.Array], schedule: str) -> Callable[..., Any]:
        work = self._work

        def task(parameters: Parameters, a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> Any:
            def gradient(p: Parameters) -> Parameters:
                return jax.grad(loss)(p, a, b)

            def inner(_: Any, phi: Parameters) -> Parameters:
                return tree_map(lambda p, s: p - work.inner_rate * s, phi, gradient(phi))

            phi = lax.fori_loop(0, work.steps, inner, parameters, unroll=self._unroll)
            query_loss, g = jax.value_and_grad(loss)(phi, c, d)
            # What depends on φ alone is computed once a solve.
            curvature = jax.linearize(gradient, phi)[1]

            def product(v: Parameters) -> Parameters:
                return tree_map(lambda x, h: x + work.weight * h, v, curvature(v))

            return query_loss, _conjugate_gradient(product, g, work.products, unroll=self._unroll)

        return _over_tasks(task, schedule, work.tasks, work.meta_rate)

    def step(self) -> float:
        loss, self._mean, self._parameters = self._step(self._parameters, *self._examples)
        jax.block_until_ready(self._parameters)
        return float(loss)

    def meta_gradient(self) -> NDArray[np.float64]:
        return np.concatenate([np.asarray(m, np.float64).ravel() for m in self._mean])

    def helpers(self) -> list[int]:
        return []
