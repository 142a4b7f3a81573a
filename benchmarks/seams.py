"""MAML's way back against JAX, and a solve on a plain callable against SciPy: ``python -m benchmarks.seams``.

Rounds of the two sides alternate; a ratio is of the medians of their rounds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import tree_map
from rich.console import Console
from scipy.sparse.linalg import LinearOperator, cg

from aidotnet_py import MAMLAlgorithm, MAMLOptions, NeuralNetworkModel, SGDOptimizer
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.nn import mlp
from aidotnet_py.solvers import conjugate_gradient
from benchmarks.environment import measure_unforced
from benchmarks.machine import machine, use_cores
from benchmarks.report import Target, table, targets_table

__all__: list[str] = []

Call = Callable[[], object]
ROUNDS, TASKS, RATE = 15, 25, 1e-3


def seconds(ours: Call, rival: Call, calls: int) -> tuple[float, float]:
    """Medians of a call's time, ours first."""
    sides, times = (ours, rival), ([], [])
    for side in sides:
        for _ in range(2 * calls):
            side()
    # What is compiled in the background is ready after that.
    time.sleep(2)
    for turn in range(ROUNDS + 1):
        for side, own in zip(sides, times, strict=True):
            began = time.perf_counter()
            for _ in range(calls):
                side()
            if turn:
                own.append((time.perf_counter() - began) / calls)
    first, second = (float(np.median(own)) for own in times)
    return first, second


def maml(steps: int) -> tuple[Call, Call]:
    """One meta-training step of exact MAML on sinusoids: ours, and JAX's, jit over vmap; equal losses are required."""
    model = NeuralNetworkModel(mlp(40, 40, 1), input_shape=(1,), seed=0)
    batch = SinusoidLoader(seed=0).GetTaskBatch(TASKS)
    options = MAMLOptions(model, AdaptationSteps=steps, InnerLearningRate=RATE, MetaOptimizer=SGDOptimizer(1e-6))
    learner = MAMLAlgorithm(options)
    leaves, start = [], 0
    for shape in model.parameter_shapes.values():
        stop = start + int(np.prod(shape))
        leaves.append(jnp.asarray(model.GetParameters()[start:stop].reshape(shape)))
        start = stop
    names = ("SupportInput", "SupportOutput", "QueryInput", "QueryOutput")
    examples = [jnp.stack([np.asarray(getattr(task, name)) for task in batch]) for name in names]

    def loss(p: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean((jax.nn.relu(jax.nn.relu(x @ p[0] + p[1]) @ p[2] + p[3]) @ p[4] + p[5] - y) ** 2)

    def of_task(p: Any, x: jax.Array, y: jax.Array, qx: jax.Array, qy: jax.Array) -> jax.Array:
        for _ in range(steps):
            p = tree_map(lambda a, g: a - RATE * g, p, jax.grad(loss)(p, x, y))
        return loss(p, qx, qy)

    @jax.jit
    def step(p: Any, *sets: jax.Array) -> tuple[jax.Array, Any]:
        value, gradient = jax.value_and_grad(lambda p: jnp.mean(jax.vmap(of_task, (None, 0, 0, 0, 0))(p, *sets)))(p)
        norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in gradient))
        clip = jnp.minimum(1.0, 10.0 / norm)
        return value, tree_map(lambda a, g: a - 1e-6 * clip * g, p, gradient)

    def rival() -> float:
        nonlocal leaves
        value, leaves = step(leaves, *examples)
        return float(value)

    if abs(float(learner.MetaTrain(batch)) - rival()) > 1e-4:
        raise AssertionError("the two sides compute different losses")
    return lambda: learner.MetaTrain(batch), rival


def solve(n: int) -> tuple[Call, Call]:
    """A solve of one dense system by its products, at SciPy's defaults but rtol."""
    generator = np.random.default_rng(0)
    basis = generator.standard_normal((n, n))
    matrix, rhs = basis @ basis.T / n + np.eye(n), generator.standard_normal(n)
    operator = LinearOperator((n, n), matvec=lambda v: matrix @ v, dtype=matrix.dtype)
    return (
        lambda: conjugate_gradient(lambda v: matrix @ v, rhs, rtol=1e-8),
        lambda: cg(operator, rhs, rtol=1e-8),
    )


def main() -> None:
    measure_unforced()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=2, help="cores for everyone (default: 2)")
    parser.add_argument("--json", type=Path, help="write the targets to this file")
    options = parser.parse_args()
    about = machine(use_cores(options.cores))
    console = Console(width=None if Console().is_terminal else 140)
    pairs = {
        f"MAML sinusoids {TASKS}, K = 5, over JAX": (maml(5), 0.9),
        f"MAML sinusoids {TASKS}, K = 16, over JAX": (maml(16), 0.9),
        "conjugate gradient on a callable, n = 100, over SciPy": (solve(100), 1.5),
    }
    rows: list[list[str]] = []
    targets: list[Target] = []
    for name, (sides, most) in pairs.items():
        ours, rival = seconds(*sides, calls=20)
        rows.append([name, f"{1e3 * ours:.3f}", f"{1e3 * rival:.3f}", f"{ours / rival:.2f}"])
        targets.append(Target(name, ours / rival, most))
    table(console, "Medians of alternating rounds", ["", "ours ms", "rival ms", "ratio"], rows)
    targets_table(console, targets)
    if options.json is not None:
        answers = {"machine": about, "targets": [asdict(t) | {"met": t.met} for t in targets]}
        options.json.write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    main()
