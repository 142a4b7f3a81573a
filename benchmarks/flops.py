"""The operations and the memory that a step cannot do without, the same for every contestant: products alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks.workloads import Workload

__all__ = ["step_bytes", "step_flops"]


@dataclass(frozen=True)
class _Layer:
    """A layer's product: multiplications and additions of an example, its inputs and outputs; the layer's weights."""

    flops: int
    values: int
    weights: int


def _layers(work: Workload) -> list[_Layer]:
    parameters = [p for name, p in work.parameters.items() if name.endswith(("kernel", "weight"))]
    if work.network.kind == "mlp":
        return [_Layer(2 * p.size, sum(p.shape), p.size) for p in parameters]
    sides = [math.prod(side) for side in work.network.sides()]
    # A convolution has the size of its outputs: that of the images after a block of stride 2, before one that pools.
    outputs = sides[1:] if work.network.kind == "stride" else sides[:-1]
    convolutions = [
        _Layer(2 * p.size * after, before * p.shape[2] + after * p.shape[3], p.size)
        for p, before, after in zip(parameters, sides, outputs, strict=False)
    ]
    last = parameters[-1]
    return [*convolutions, _Layer(2 * last.size, sum(last.shape), last.size)]


def _products(work: Workload) -> list[tuple[_Layer, int, int]]:
    """Of one task: each layer, how often it is multiplied in a way, and with how many examples.

    K + 1 support gradients and a query gradient, and the products of the solve at a fixed φ. A gradient is three
    products a layer, one of them forward. A product with the Hessian is six: W'x + Wx' forward, and two terms each for
    what goes back to weights and inputs. Nothing goes back to the examples, which do not vary.
    """
    support, query = work.support_x.shape[1], work.query_x.shape[1]
    found: list[tuple[_Layer, int, int]] = []
    for place, layer in enumerate(_layers(work)):
        gradient, curvature = (3, 6) if place else (2, 2)
        found += [
            (layer, (work.steps + 1) * gradient, support),
            (layer, gradient, query),
            (layer, work.products * curvature, support),
        ]
    return found


def step_flops(work: Workload) -> int:
    """Multiplications and additions of all products of a step."""
    return work.tasks * sum(layer.flops * times * examples for layer, times, examples in _products(work))


def step_bytes(work: Workload) -> int:
    """What the products of a step read and write where each reads its operands, and writes its result, once."""
    values = sum(times * (layer.values * examples + layer.weights) for layer, times, examples in _products(work))
    return work.tasks * values * work.support_x.dtype.itemsize
