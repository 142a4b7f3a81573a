"""A solve on a plain callable against SciPy: ``python -m benchmarks.seams``.

Rounds of the two sides alternate; a ratio is of the medians of their rounds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console
from scipy.sparse.linalg import LinearOperator, cg

from aidotnet_py.solvers import conjugate_gradient
from benchmarks.environment import measure_unforced
from benchmarks.machine import machine, use_cores
from benchmarks.report import Target, table, targets_table

__all__: list[str] = []

Call = Callable[[], object]
ROUNDS, SIZE, MOST = 15, 100, 1.5


def seconds(ours: Call, rival: Call, calls: int) -> tuple[float, float]:
    """Medians of a call's time, ours first."""
    sides = (ours, rival)
    times: tuple[list[float], list[float]] = ([], [])
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
    name = f"conjugate gradient on a callable, n = {SIZE}, over SciPy"
    ours, rival = seconds(*solve(SIZE), calls=20)
    rows = [[name, f"{1e3 * ours:.3f}", f"{1e3 * rival:.3f}", f"{ours / rival:.2f}"]]
    targets = [Target(name, ours / rival, MOST)]
    table(console, "Medians of alternating rounds", ["", "ours ms", "rival ms", "ratio"], rows)
    targets_table(console, targets)
    if options.json is not None:
        answers = {"machine": about, "targets": [asdict(t) | {"met": t.met} for t in targets]}
        options.json.write_text(json.dumps(answers, indent=1) + "\n")


if __name__ == "__main__":
    main()
