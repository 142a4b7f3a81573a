"""What is measured: networks, start weights and tasks, the same arrays for every contestant."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["Method", "Name", "Network", "Workload", "flat", "parsed", "workload"]

Floats = NDArray[np.floating[Any]]
Method = Literal["imaml", "maml", "anil", "adapt"]
WAYS = 5
EPSILON = 1e-5


@dataclass(frozen=True)
class Network:
    """A chain of layers that every contestant builds for itself.

    "stride" and "pool" are four blocks of [3 × 3 convolution with padding 1 and no bias, batch norm, ReLU], halving
    by stride 2 or by 2 × 2 max pooling, then a dense layer; "mlp" is dense layers with ReLUs between them. "residual"
    is ResNet-12: four blocks of three such convolutions with batch norm around a 1 × 1 convolution with batch norm,
    leaky ReLUs of slope 0.1 after the first two and after the sum, and pooling; then the mean of each channel, and a
    dense layer.
    """

    kind: Literal["stride", "pool", "residual", "mlp"]
    input_shape: tuple[int, ...]
    width: int
    outputs: int

    def parameters(self, seed: int) -> dict[str, Floats]:
        """Start weights, He-normal, by name in order; kernels are (height, width, inputs, outputs)."""
        generator = np.random.default_rng(seed)

        def he(*shape: int) -> Floats:
            return (generator.standard_normal(shape) * math.sqrt(2 / math.prod(shape[:-1]))).astype(np.float32)

        named: dict[str, Floats] = {}
        features = self.input_shape[-1]
        if self.kind == "mlp":
            for i, units in enumerate((self.width, self.width, self.outputs)):
                named |= {f"{i}.weight": he(features, units), f"{i}.bias": np.zeros(units, np.float32)}
                features = units
            return named
        for i, filters in enumerate(self.filters()):
            # The last kernel of a residual block is that of its shortcut, from the inputs of the block.
            shapes = [(3, features)]
            if self.kind == "residual":
                shapes += [(3, filters), (3, filters), (1, features)]
            for j, (side, inputs) in enumerate(shapes):
                named[f"{i}.{j}.kernel"] = he(side, side, inputs, filters)
                named |= {f"{i}.{j}.scale": np.ones(filters, np.float32)}
                named |= {f"{i}.{j}.shift": np.zeros(filters, np.float32)}
            features = filters
        features *= math.prod(self.last_side())
        return named | {"4.weight": he(features, self.outputs), "4.bias": np.zeros(self.outputs, np.float32)}

    def filters(self) -> tuple[int, ...]:
        """Channels of the convolutions of each block; a ResNet-12 of width 64 has 64, 160, 320 and 640."""
        return tuple(self.width * n // 2 for n in ((2, 5, 10, 20) if self.kind == "residual" else (2, 2, 2, 2)))

    def last_side(self) -> tuple[int, int]:
        """Height and width of the images before the dense layer."""
        return (1, 1) if self.kind == "residual" else self.sides()[-1]

    def sides(self) -> list[tuple[int, int]]:
        """Height and width of the images before each block, and after the last."""
        sides = [(self.input_shape[0], self.input_shape[1])]
        for _ in range(4):
            height, width = sides[-1]
            sides.append(((height + 1) // 2, (width + 1) // 2) if self.kind == "stride" else (height // 2, width // 2))
        return sides


@dataclass(frozen=True)
class Workload:
    """What everyone computes; arrays of examples are (tasks, examples, …), images channels last, labels integers.

    "imaml" is a step of meta-training: K inner steps of gradient descent, the query gradient g, a solve of
    (I + λH) v = g, an update. H is the exact Hessian of the support loss at the adapted parameters; the solve is
    ``products`` iterations of conjugate gradient from zero. "maml" is one with the exact gradient through the K steps,
    "anil" the same of K steps that move the last dense layer alone. "adapt" is no training: K inner steps on each task
    after another, and the scores of its queries, normalised by the support set's statistics at the adapted parameters.
    """

    name: str
    network: Network
    parameters: dict[str, Floats]
    support_x: Floats
    support_y: NDArray[Any]
    query_x: Floats
    query_y: NDArray[Any]
    steps: int
    inner_rate: float
    weight: float
    products: int
    # So small that after thousands of steps the work is still that of the first.
    meta_rate: float = 1e-6
    method: Method = "imaml"

    @property
    def tasks(self) -> int:
        """How many tasks there are in the batch."""
        return len(self.support_x)

    @property
    def classifies(self) -> bool:
        """Whether the loss is the cross-entropy; otherwise, it is the mean squared error."""
        return self.network.kind != "mlp"


def flat(parameters: dict[str, Floats]) -> Floats:
    """All parameters in one vector, in order."""
    return np.concatenate([p.ravel() for p in parameters.values()])


class Name(NamedTuple):
    """The parts of a workload's name; None: the family's own."""

    family: str
    tasks: int
    steps: int | None
    width: int | None
    method: Method


def parsed(name: str) -> Name:
    """The parts of a name such as ``omniglot-8``, ``sinusoid-25-maml``, ``mini-4-k5-w16``; see `FAMILIES`.

    After the number of tasks there may come ``-k200`` for another number of inner steps, ``-w32`` for another width of
    the network, and a method other than iMAML.
    """
    match = re.fullmatch(r"([a-z]+)-(\d+)(?:-k(\d+))?(?:-w(\d+))?(?:-(maml|anil|adapt))?", name)
    if match is None or match[1] not in FAMILIES:
        raise SystemExit(f"{name!r} is no workload; {', '.join(f'{f}-TASKS' for f in FAMILIES)} are")
    family, tasks, steps, width, method = match.groups()
    inner, wide = (None if number is None else int(number) for number in (steps, width))
    return Name(family, int(tasks), inner, wide, cast("Method", method or "imaml"))


def workload(name: str, dtype: type[np.floating[Any]] = np.float32) -> Workload:
    """The workload of a name; see `parsed`."""
    parts = parsed(name)
    make, steps, width = FAMILIES[parts.family]
    work = make(name, parts.tasks, parts.steps or steps, parts.width or width)

    def cast(array: NDArray[Any]) -> NDArray[Any]:
        return array.astype(dtype) if array.dtype.kind == "f" else array

    arrays: dict[str, Any] = {
        name: cast(getattr(work, name)) for name in ("support_x", "support_y", "query_x", "query_y")
    }
    return replace(
        work, method=parts.method, parameters={name: cast(p) for name, p in work.parameters.items()}, **arrays
    )


def _images(name: str, tasks: int, steps: int, network: Network, inner_rate: float, weight: float) -> Workload:
    """5-way 1-shot, 15 queries a class, of blob-like images: a class is a smooth random field, an example a variant."""
    generator = np.random.default_rng(1)
    height, _, channels = network.input_shape
    # From 7 × 7 random values to the whole image, linearly between them.
    grid = np.linspace(0, 6, height)
    spread = np.stack([np.interp(grid, np.arange(7), row) for row in np.eye(7)], axis=1)

    def examples(count: int) -> Floats:
        noise = generator.standard_normal((tasks, count, WAYS, 7, 7, channels))
        fields = np.einsum("hi,tcwijk,gj->tcwhgk", spread, classes + 0.6 * noise, spread)
        # The grain keeps neighbours from being equal, which would leave it to rounding which one max pooling takes.
        images = 1 / (1 + np.exp(-8 * fields)) + 0.1 * generator.standard_normal(fields.shape)
        return images.reshape(tasks, count * WAYS, *network.input_shape).astype(np.float32)

    classes = generator.standard_normal((tasks, 1, WAYS, 7, 7, channels))
    labels = np.arange(WAYS)
    return Workload(
        name,
        network,
        network.parameters(seed=0),
        examples(1),
        np.tile(labels, (tasks, 1)),
        examples(15),
        np.tile(labels, (tasks, 15)),
        steps,
        inner_rate=inner_rate,
        weight=weight,
        products=5,
    )


def _omniglot(name: str, tasks: int, steps: int, width: int) -> Workload:
    return _images(name, tasks, steps, Network("stride", (28, 28, 1), width, WAYS), inner_rate=0.05, weight=0.05)


def _mini(name: str, tasks: int, steps: int, width: int) -> Workload:
    return _images(name, tasks, steps, Network("pool", (84, 84, 3), width, WAYS), inner_rate=0.05, weight=0.05)


def _resnet(name: str, tasks: int, steps: int, width: int) -> Workload:
    # With the rates of the smaller networks, I + λH is indefinite, where the rivals go on and ours stops a solve.
    return _images(name, tasks, steps, Network("residual", (84, 84, 3), width, WAYS), inner_rate=0.01, weight=0.005)


def _sinusoid(name: str, tasks: int, steps: int, width: int) -> Workload:
    """Finn et al.'s sinusoids: amplitudes 0.1 to 5, phases 0 to π, 10 points each."""
    generator = np.random.default_rng(2)
    amplitude = generator.uniform(0.1, 5, (tasks, 1, 1))
    phase = generator.uniform(0, np.pi, (tasks, 1, 1))

    def examples() -> tuple[Floats, Floats]:
        x = generator.uniform(-5, 5, (tasks, 10, 1))
        return x.astype(np.float32), (amplitude * np.sin(x - phase)).astype(np.float32)

    network = Network("mlp", (1,), width, 1)
    support, query = examples(), examples()
    return Workload(
        name, network, network.parameters(seed=0), *support, *query, steps, inner_rate=0.005, weight=0.02, products=10
    )


# How to make it, K, and the width of the network.
FAMILIES: dict[str, tuple[Callable[[str, int, int, int], Workload], int, int]] = {
    "omniglot": (_omniglot, 16, 64),
    "mini": (_mini, 10, 32),
    "resnet": (_resnet, 5, 64),
    "sinusoid": (_sinusoid, 16, 40),
}
