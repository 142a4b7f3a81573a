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
Features = Callable[[Parameters, jax.Array, int | None], jax.Array]
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


def _normalised_convolution(how: str, stride: int) -> Callable[[jax.Array, Parameters, int | None], jax.Array]:
    """A convolution and batch norm by the statistics of the leading examples, or of all; by the parameters of both."""
    convolve = _convolution(how, stride)
    space, channel = ((0, 2, 3), (-1, 1, 1)) if how == "nchw" else ((0, 1, 2), (-1,))

    def normalised(x: jax.Array, parameters: Parameters, leading: int | None) -> jax.Array:
        kernel, scale, shift = parameters
        x = convolve(x, kernel)
        centred = x - x[:leading].mean(space, keepdims=True)
        factor = lax.rsqrt((centred[:leading] * centred[:leading]).mean(space, keepdims=True) + EPSILON)
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

    def features(parameters: Parameters, x: jax.Array, leading: int | None) -> jax.Array:
        for i in range(0, 12, 3):
            x = jax.nn.relu(normalised(x, parameters[i : i + 3], leading))
            if network.kind == "pool":
                x = _pooled(x, how)
        if how == "nchw":
            x = x.transpose(0, 2, 3, 1)
        return x.reshape(len(x), -1)

    return features


def _residual(how: str) -> Features:
    """The same of a ResNet-12."""
    normalised = _normalised_convolution(how, 1)

    def features(parameters: Parameters, x: jax.Array, leading: int | None) -> jax.Array:
        for i in range(0, 48, 12):
            first, second, third, shortcut = (parameters[j : j + 3] for j in range(i, i + 12, 3))
            body = jax.nn.leaky_relu(normalised(x, first, leading), 0.1)
            body = jax.nn.leaky_relu(normalised(body, second, leading), 0.1)
            body = normalised(body, third, leading) + normalised(x, shortcut, leading)
            x = _pooled(jax.nn.leaky_relu(body, 0.1), how)
        return x.mean((2, 3) if how == "nchw" else (1, 2))

    return features


def _dense(parameters: Parameters, x: jax.Array, leading: int | None) -> jax.Array:
    w1, b1, w2, b2 = parameters
    return jax.nn.relu(jax.nn.relu(x @ w1 + b1) @ w2 + b2)


class _Model:
    """A network, its images laid as ``how`` says, as functions of its parameters, and the mean loss."""

    def __init__(self, network: Network, how: str) -> None:
        self._is_dense, self._is_turned = network.kind == "mlp", how == "nchw"
        self._features: Callable[[Parameters, jax.Array, int | None], jax.Array] = _dense
        if not self._is_dense:
            self._features = _residual(how) if network.kind == "residual" else _chain(network, how)

    def features(self, body: Parameters, x: jax.Array, leading: int | None = None) -> jax.Array:
        """What the last layer takes; batch norm by the statistics of the leading examples, or of all."""
        return self._features(body, x.transpose(0, 3, 1, 2) if self._is_turned else x, leading)

    def error(self, scores: jax.Array, y: jax.Array) -> jax.Array:
        """The mean squared error, or the mean cross-entropy."""
        if self._is_dense:
            return jnp.mean((scores - y) ** 2)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(scores), y[:, None], axis=1))

    def scores(self, parameters: Parameters, x: jax.Array, leading: int | None = None) -> jax.Array:
        """The outputs of the network."""
        *body, weight, bias = parameters
        return self.features(body, x, leading) @ weight + bias

    def loss(self, parameters: Parameters, x: jax.Array, y: jax.Array) -> jax.Array:
        """The mean loss of one task's parameters and examples."""
        return self.error(self.scores(parameters, x), y)


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


def _over_tasks(task: Callable[..., Any], schedule: str, tasks: int) -> Callable[..., Any]:
    """From one task's work to that of all, their results stacked."""

    def together(parameters: Parameters, examples: tuple[jax.Array, ...]) -> Any:
        return jax.vmap(task, in_axes=(None, 0, 0, 0, 0))(parameters, *examples)

    def one_by_one(parameters: Parameters, examples: tuple[jax.Array, ...]) -> Any:
        return lax.map(lambda one: task(parameters, *one), examples)

    def shared_out(run: Callable[..., Any], parameters: Parameters, examples: tuple[jax.Array, ...]) -> Any:
        # The last tasks are repeated where they cannot be shared out evenly.
        places = jnp.minimum(jnp.arange(-(-tasks // _DEVICES) * _DEVICES), tasks - 1)
        spread = jax.shard_map(run, mesh=_mesh(), in_specs=(P(), P("tasks")), out_specs=P("tasks"), check_vma=False)
        return tree_map(lambda a: a[:tasks], spread(parameters, tuple(e[places] for e in examples)))

    ways: dict[str, Callable[..., Any]] = {
        "vmap": together,
        "map": one_by_one,
        "vmap2": partial(shared_out, together),
        "map2": partial(shared_out, one_by_one),
    }
    return ways[schedule]


def _updating(run: Callable[..., Any], rate: float) -> Callable[..., Any]:
    """From losses and meta-gradients of all tasks to a whole step: mean loss, mean v and the new parameters."""

    def step(parameters: Parameters, *examples: jax.Array) -> Any:
        losses, v = run(parameters, examples)
        mean = tree_map(lambda t: t.mean(0), v)
        return losses.mean(), mean, tree_map(lambda p, m: p - rate * m, parameters, mean)

    return step


class _Task:
    """The work of one task by each method; a function of parameters and of support and query set."""

    def __init__(self, work: Workload, model: _Model, *, unroll: bool) -> None:
        self._work, self._model, self._unroll = work, model, unroll

    def _moved(self, phi: Parameters, slopes: Parameters) -> Parameters:
        return tree_map(lambda p, s: p - self._work.inner_rate * s, phi, slopes)

    def _adapted(self, gradient: Callable[[Parameters], Parameters], start: Parameters) -> Parameters:
        """φ after the inner steps."""

        def inner(phi: Parameters, _: Any) -> tuple[Parameters, None]:
            return self._moved(phi, gradient(phi)), None

        return lax.scan(inner, start, length=self._work.steps, unroll=self._unroll)[0]

    def imaml(self, parameters: Parameters, a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> Any:
        """The query loss, and v of (I + λH) v = g."""
        work = self._work

        def gradient(p: Parameters) -> Parameters:
            return jax.grad(self._model.loss)(p, a, b)

        phi = self._adapted(gradient, parameters)
        query_loss, g = jax.value_and_grad(self._model.loss)(phi, c, d)
        # What depends on φ alone is computed once a solve.
        curvature = jax.linearize(gradient, phi)[1]

        def product(v: Parameters) -> Parameters:
            return tree_map(lambda x, h: x + work.weight * h, v, curvature(v))

        return query_loss, _conjugate_gradient(product, g, work.products, unroll=self._unroll)

    def maml(self, parameters: Parameters, a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> Any:
        """The query loss after the inner steps, and its gradient through them."""

        def query_loss(theta: Parameters) -> jax.Array:
            return self._model.loss(self._adapted(lambda p: jax.grad(self._model.loss)(p, a, b), theta), c, d)

        return jax.value_and_grad(query_loss)(parameters)

    def anil(self, parameters: Parameters, a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> Any:
        """The same of inner steps that move the last layer alone."""

        def query_loss(theta: Parameters) -> jax.Array:
            body, head = theta[:-2], theta[-2:]
            features = self._model.features(body, a)

            def error(head: Parameters) -> jax.Array:
                weight, bias = head
                return self._model.error(features @ weight + bias, b)

            return self._model.loss([*body, *self._adapted(jax.grad(error), head)], c, d)

        return jax.value_and_grad(query_loss)(parameters)

    def adapt(self, parameters: Parameters, a: jax.Array, b: jax.Array, c: jax.Array, _: jax.Array) -> Any:
        """The scores of the queries after the inner steps."""
        phi = self._adapted(lambda p: jax.grad(self._model.loss)(p, a, b), parameters)
        if not self._work.classifies:
            return self._model.scores(phi, c)
        return self._model.scores(phi, jnp.concatenate([a, c]), len(a))[len(a) :]


class Contestant:
    """A setting names how convolutions are computed, and what becomes of the tasks.

    "vmap" does all at once, "map" one after the other, "vmap2" and "map2" so for half of them on each of two devices
    of a processor. "unrolled" after that writes the inner steps and the solve's iterations out, one after another.
    """

    def __init__(self, workload: Workload, setting: str, device: str) -> None:
        jax.config.update("jax_platforms", device)
        how, schedule, *unrolled = setting.split("-")
        # Float32 is to be float32: JAX's own choice on a GPU is TF32.
        jax.config.update("jax_default_matmul_precision", "highest")
        if schedule.endswith("2"):
            jax.config.update("jax_num_cpu_devices", _DEVICES)
        if workload.support_x.dtype == np.float64:
            jax.config.update("jax_enable_x64", True)
        self._parameters: Parameters = [jnp.asarray(p) for p in workload.parameters.values()]
        arrays = (workload.support_x, workload.support_y, workload.query_x, workload.query_y)
        self._examples = tuple(jnp.asarray(a) for a in arrays)
        if schedule.endswith("2"):
            # Placed as the step leaves them; otherwise, it would be compiled once more for its second call.
            everywhere = NamedSharding(_mesh(), P())
            self._parameters, self._examples = jax.device_put((self._parameters, self._examples), everywhere)
        task = _Task(workload, _Model(workload.network, how), unroll=unrolled == ["unrolled"])
        run = _over_tasks(getattr(task, workload.method), schedule, workload.tasks)
        self._adapts = workload.method == "adapt"
        if self._adapts:
            self._step = jax.jit(lambda parameters, *examples: run(parameters, examples))
        else:
            self._step = jax.jit(_updating(run, workload.meta_rate))

    def step(self) -> float:
        if self._adapts:
            self._found = [jax.block_until_ready(self._step(self._parameters, *self._examples))]
            return float(np.asarray(self._found[0]).ravel()[-1])
        loss, self._found, self._parameters = self._step(self._parameters, *self._examples)
        jax.block_until_ready(self._parameters)
        return float(loss)

    def outcome(self) -> NDArray[np.float64]:
        return np.concatenate([np.asarray(m, np.float64).ravel() for m in self._found])

    def helpers(self) -> list[int]:
        return []
