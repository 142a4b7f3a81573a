"""What a product with the Hessian costs beside a gradient, in the middle of a solve."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from aidotnet_py.meta_learning.objectives import ObjectiveFactory
from benchmarks.contestants.ours import batch_of, model_of
from benchmarks.workloads import flat, workload

__all__ = ["curvature_ratio"]


def curvature_ratio(name: str, *, rounds: int = 15, calls: int = 3) -> tuple[float, float, float]:
    """Seconds of a support gradient and of a product, all tasks at once, and the median over rounds of their ratio.

    Both at fixed parameters on the same set; what a solve computes once at its φ is in neither.
    """
    work = workload(name)
    model = model_of(work, "cpu")
    tasks = list(batch_of(work, "cpu"))
    support = ObjectiveFactory(np.random.default_rng(0)).make("Support", tasks, model, model.DefaultLossFunction)
    points = np.tile(flat(work.parameters), (work.tasks, 1))
    v = np.random.default_rng(1).standard_normal(points.shape).astype(points.dtype)

    def seconds(call: Callable[[], Any]) -> float:
        call()
        began = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - began) / calls

    gradients: list[float] = []
    products: list[float] = []
    for _ in range(rounds):
        gradients.append(seconds(lambda: support.evaluate(points)))
        product = support.curvature(points, "hessian")[1]
        products.append(seconds(lambda product=product: product(v)))
    ratio = float(np.median(np.divide(products, gradients)))
    return float(np.median(gradients)), float(np.median(products)), ratio
