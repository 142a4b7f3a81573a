"""What a run found, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.arena import Measured, ratio
from benchmarks.flops import step_flops
from benchmarks.workloads import workload

__all__ = ["Target", "agreement_table", "race_table", "table", "targets_of", "targets_table"]


@dataclass(frozen=True)
class Target:
    """A ratio that was aimed at, and the one that was found."""

    what: str
    found: float
    limit: float
    unit: str = "×"

    @property
    def met(self) -> bool:
        """Whether it was reached."""
        return self.found <= self.limit


def table(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under columns, the first one to the left."""
    grid = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        grid.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    console.print(grid)


def agreement_table(console: Console, name: str, distances: Mapping[str, float]) -> None:
    """How far the float64 meta-gradients lie from the first."""
    rows = [(who, f"{distance:.1e}") for who, distance in distances.items()]
    table(console, f"{name}: distance of float64 meta-gradients, relative", ["contestant", "distance"], rows)


def race_table(console: Console, found: Sequence[Measured], peak: float) -> None:
    """Times of all on one workload."""
    work = workload(found[0].workload)
    flops = step_flops(work)
    rows: list[list[str]] = []
    for one in found:
        low, median, high = (1e3 * one.quantile(q) for q in (0.25, 0.5, 0.75))
        rate = 1e3 * flops / median
        rows.append(
            [
                f"{one.contestant} ({one.setting})",
                f"{median:.1f}",
                f"{low:.1f} – {high:.1f}",
                f"{median / work.tasks:.2f}",
                f"{ratio(one, found[0]):.2f}",
                f"{rate / 1e9:.1f}",
                f"{rate / peak:.0%}",
                f"{one.first_seconds:.2f}",
                f"{one.memory['added'] / 2**20:.0f}",
                f"{one.difference:.0e}",
            ]
        )
    columns = ["contestant (setting)", "ms a step", "quartiles", "ms a task", "÷ ours", "GFLOP/s", "of peak"]
    columns += ["first step s", "memory MiB", "Δ float32"]
    title = f"{work.name}: K = {work.steps}, {work.products} products, {flops / 1e9:.3g} GFLOP a step"
    table(console, title, columns, rows)


# Family, tasks (None: any), rivals, and the most that ours may take of the best of them.
_LIMITS: tuple[tuple[str, tuple[int, ...] | None, tuple[str, ...], float], ...] = (
    ("omniglot", None, ("torch_eager", "torch_processes", "torch_func", "jax_jit"), 0.55),
    ("mini", None, ("torch_eager", "torch_processes", "torch_func", "jax_jit"), 0.6),
    ("sinusoid", (25, 100), ("jax_jit",), 1.0),
    ("sinusoid", (4,), ("jax_jit",), 2.0),
    ("sinusoid", (25,), ("torch_func",), 0.15),
)


def targets_of(found: Sequence[Measured]) -> list[Target]:
    """The targets that one workload's race is about."""
    family, tasks = found[0].workload.split("-")[:2]
    by_name = {one.contestant: one for one in found}
    targets: list[Target] = []
    for of, sizes, rivals, limit in _LIMITS:
        present = [by_name[rival] for rival in rivals if rival in by_name]
        if of == family and (sizes is None or int(tasks) in sizes) and present:
            best = min(present, key=lambda one: one.quantile(0.5))
            for ours in (by_name[name] for name in ("ours", "ours_coretype") if name in by_name):
                what = f"{best.workload}: time of {ours.contestant} over {best.contestant}"
                targets.append(Target(what, ratio(ours, best), limit))
    if found[0].workload == "omniglot-32" and {"ours", "torch_eager"} <= by_name.keys():
        ours, eager = (by_name[name].memory["added"] for name in ("ours", "torch_eager"))
        targets.append(Target("omniglot-32: memory over torch_eager", ours / eager, 1.0))
    return targets


def targets_table(console: Console, targets: Sequence[Target]) -> None:
    """What was aimed at, and whether it was reached."""
    rows = [
        (t.what, f"{t.found:.3g} {t.unit}", f"≤ {t.limit:g} {t.unit}", "met" if t.met else "NOT MET")
        for t in targets
        if np.isfinite(t.found)
    ]
    table(console, "Targets", ["what", "found", "target", ""], rows)
