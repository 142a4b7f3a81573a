"""The floating-point operations that a step cannot do without, the same count for every contestant: products alone."""

from __future__ import annotations

import math

from benchmarks.workloads import Workload

__all__ = ["step_flops"]


def _layers(work: Workload) -> list[int]:
    """Multiplications and additions of each layer's products, forward, for one example."""
    parameters = [p for name, p in work.parameters.items() if name.endswith(("kernel", "weight"))]
    if work.network.kind == "mlp":
        return [2 * p.size for p in parameters]
    sides = work.network.sides()
    # A convolution has the size of its outputs: that of the images after a block of stride 2, before one that pools.
    outputs = sides[1:] if work.network.kind == "stride" else sides[:-1]
    convolutions = [2 * p.size * math.prod(side) for p, side in zip(parameters, outputs, strict=False)]
    return [*convolutions, 2 * parameters[-1].size]


def step_flops(work: Workload) -> int:
    """K + 1 support gradients and a query gradient a task, and the products of the solve at a fixed φ.

    A gradient is three products a layer, one of them forward. A product with the Hessian is six: W'x + Wx' forward,
    and two terms each for what goes back to weights and inputs. Nothing goes back to the examples, which do not vary.
    """
    layers = _layers(work)
    gradient = 3 * sum(layers) - layers[0]
    curvature = 6 * sum(layers) - 4 * layers[0]
    support, query = work.support_x.shape[1], work.query_x.shape[1]
    task = ((work.steps + 1) * support + query) * gradient + work.products * support * curvature
    return work.tasks * task
