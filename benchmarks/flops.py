"""The operations and the memory that a step cannot do without, the same for every contestant: products alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks.workloads import Workload

__all__ = ["step_bytes", "step_flops"]


@dataclass(frozen=True)
class _Layer:
    """A layer's product: multiplications and additions of an example, its inputs and outputs; the layer's weights.

    ``first``: whether its inputs are the examples; ``last``: whether its outputs are the scores.
    """

    flops: int
    values: int
    weights: int
    first: bool
    last: bool


def _layers(work: Workload) -> list[_Layer]:
    sides = [math.prod(side) for side in work.network.sides()] if work.classifies else []
    # A convolution has the size of its outputs: that of the images after a block of stride 2, before one that pools.
    outputs = sides[1:] if work.network.kind == "stride" else sides[:-1]
    layers: list[_Layer] = []
    for name, p in work.parameters.items():
        first = name in ("0.weight", "0.0.kernel", "0.3.kernel")
        last = name == list(work.parameters)[-2]
        if name.endswith("kernel"):
            block = int(name.split(".")[0])
            values = sides[block] * p.shape[2] + outputs[block] * p.shape[3]
            layers.append(_Layer(2 * p.size * outputs[block], values, p.size, first, last))
        elif name.endswith("weight"):
            layers.append(_Layer(2 * p.size, sum(p.shape), p.size, first, last))
    return layers


def _products(work: Workload) -> list[tuple[_Layer, int, int]]:
    """Of one task: each layer, how often it is multiplied in a way, and with how many examples.

    A gradient is three products a layer, one of them forward. A product with the Hessian is six: W'x + Wx' forward, and
    two terms each for what goes back to weights and inputs. Nothing goes back to the examples, which do not vary.

    iMAML takes K + 1 support gradients, the products of the solve at a fixed φ, and a query gradient. MAML takes K
    support gradients, one product with the Hessian for each on the way back, and a query gradient; ANIL the same of
    the last layer, and one support gradient of the others. Adaptation takes K gradients and a pass over the queries,
    and one over the support set for its statistics.
    """
    support, query = work.support_x.shape[1], work.query_x.shape[1]
    found: list[tuple[_Layer, int, int]] = []
    for layer in _layers(work):
        gradient, curvature = (2, 2) if layer.first else (3, 6)
        if work.method == "imaml":
            on_support = (work.steps + 1) * gradient + work.products * curvature
        elif work.method == "adapt":
            on_support = work.steps * gradient + (1 if work.classifies else 0)
        elif work.method == "maml" or layer.last:
            on_support = work.steps * (gradient + curvature)
        else:
            on_support = gradient
        found += [(layer, on_support, support), (layer, 1 if work.method == "adapt" else gradient, query)]
    return found


def step_flops(work: Workload) -> int:
    """Multiplications and additions of all products of a step."""
    return work.tasks * sum(layer.flops * times * examples for layer, times, examples in _products(work))


def step_bytes(work: Workload) -> int:
    """What the products of a step read and write where each reads its operands, and writes its result, once."""
    values = sum(times * (layer.values * examples + layer.weights) for layer, times, examples in _products(work))
    return work.tasks * values * work.support_x.dtype.itemsize
