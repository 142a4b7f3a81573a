"""What a product with the Hessian costs beside a gradient, in the middle of a solve."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from aidotnet_py.meta_learning.objective import ObjectiveFactory
from aidotnet_py.meta_learning.objective.sets import Sets
from benchmarks.contestants.ours import batch_of, model_of
from benchmarks.workloads import flat, workload

__all__ = ["curvature_ratio"]


def curvature_ratio(name: str, *, rounds: int = 15, calls: int = 3) -> tuple[float, float, float]:
    """Seconds of a support gradient and of a product, and the median over rounds of their ratio.

    Both at fixed parameters on the same sets; what a solve computes once at its φ is in neither. As in a step, of as
    many tasks as a chunk holds, and with BLAS on one thread.
    """
    work = workload(name)
    model = model_of(work, "cpu")
    tasks = list(batch_of(work, "cpu"))
    factory = ObjectiveFactory(np.random.default_rng(0))
    loss = model.DefaultLossFunction
    wheres = [f"task {i}" for i in range(len(tasks))]
    whole = factory.make("Support", Sets(tasks, wheres), model, loss, factory.lease(model, loss))
    count = min(whole.tasks_at_once, work.tasks)
    support = whole.part(0, count, 0)
    points = np.tile(flat(work.parameters), (count, 1))
    v = np.random.default_rng(1).standard_normal(points.shape).astype(points.dtype)

    def seconds(call: Callable[[], Any]) -> float:
        call()
        began = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - began) / calls

    gradients: list[float] = []
    products: list[float] = []
    with model.backend.single_threaded():
        for _ in range(rounds):
            gradients.append(seconds(lambda: support.evaluate(points)))
            products.append(seconds(partial(support.curvature(points, "hessian")[1], v)))
    ratio = float(np.median(np.divide(products, gradients)))
    return float(np.median(gradients)), float(np.median(products)), ratio
