"""What a run found, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from rich.console import Console
from rich.table import Table

from aidotnet_py import BasicStats
from benchmarks.arena import Measured, ratio
from benchmarks.flops import step_bytes, step_flops
from benchmarks.workloads import Method, parsed, workload

__all__ = ["Target", "agreement_table", "mean_of", "race_table", "table", "targets_of", "targets_table"]


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


def mean_of(values: ArrayLike, form: str) -> str:
    """The mean and half of its 95 % interval, by a form for both."""
    interval = BasicStats.of(np.asarray(values, float)).ConfidenceInterval()
    return form.format(float(interval.Mean), float(interval.HalfWidth))


def table(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under columns, the first one to the left."""
    grid = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        grid.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    console.print(grid)


def agreement_table(console: Console, name: str, distances: Mapping[str, float]) -> None:
    """How far the float64 outcomes lie from the first."""
    rows = [(who, f"{distance:.1e}") for who, distance in distances.items()]
    table(console, f"{name}: distance of float64 outcomes, relative", ["contestant", "distance"], rows)


def race_table(console: Console, found: Sequence[Measured], peaks: Mapping[str, float], rules: str) -> None:
    """Times of all on one workload, and what of the device's peaks they reach."""
    work = workload(found[0].workload)
    flops, moved = step_flops(work), step_bytes(work)
    rows: list[dict[str, str]] = []
    for one in found:
        low, median, high = (one.quantile(q) for q in (0.25, 0.5, 0.75))
        row = {
            "contestant (setting)": f"{one.contestant} ({one.setting})",
            "ms a step": f"{1e3 * median:.3g}",
            "quartiles": f"{1e3 * low:.3g} – {1e3 * high:.3g}",
            "ms a task": f"{1e3 * median / work.tasks:.3g}",
            "÷ ours": f"{ratio(one, found[0]):.2f}",
            "GFLOP/s": f"{flops / median / 1e9:.1f}",
            "of peak": f"{flops / median / peaks['flops']:.1%}",
        }
        if rules == "cuda":
            row |= {"of copying": f"{moved / median / peaks['bandwidth']:.1%}"} | _launched(one)
        else:
            row |= {"memory MiB": f"{one.memory['added'] / 2**20:.0f}"}
        rows.append(row | {"first s": f"{one.first_seconds:.2f}", "Δ float32": f"{one.difference:.0e}"})
    solve = f", {work.products} products" if work.method == "imaml" else ""
    title = f"{work.name}: K = {work.steps}{solve}, {flops / 1e9:.3g} GFLOP and at least {moved / 1e6:.3g} MB a step"
    table(console, title, list(rows[0]), [list(row.values()) for row in rows])


def _launched(one: Measured) -> dict[str, str]:
    """Kernels on the device a step, and the calls that launched one, or a graph of them."""
    kinds = {"kernels": "kernels", "launches": "kernel launches", "graphs": "graph launches"}
    return {column: f"{one.launches[kind]:.0f}" if one.launches else "?" for column, kind in kinds.items()}


# Family, method, tasks (None: any), rivals, and the most that ours may take of the best of them.
_Limits = tuple[tuple[str, Method, tuple[int, ...] | None, tuple[str, ...], float], ...]
_RIVALS = ("torch_eager", "torch_processes", "torch_func", "jax_jit")
_THROUGH_STEPS: tuple[Method, ...] = ("maml", "anil")
_LIMITS: dict[str, _Limits] = {
    "cpu": (
        ("omniglot", "imaml", None, _RIVALS, 0.4),
        ("mini", "imaml", None, _RIVALS, 0.4),
        ("resnet", "imaml", None, _RIVALS, 0.6),
        ("sinusoid", "imaml", (25, 100), ("jax_jit",), 0.6),
        ("sinusoid", "imaml", (4,), ("jax_jit",), 0.8),
        ("sinusoid", "imaml", (25,), ("torch_func",), 0.15),
        *((family, method, None, _RIVALS, 0.4) for family in ("omniglot", "mini") for method in _THROUGH_STEPS),
        *(("sinusoid", method, None, ("jax_jit",), 0.7) for method in _THROUGH_STEPS),
        *((family, "adapt", None, ("jax_jit",), 0.6) for family in ("omniglot", "sinusoid")),
        ("sinusoid", "adapt", None, ("torch_eager", "torch_processes", "torch_func"), 0.1),
    ),
    "cuda": (
        ("omniglot", "imaml", (32,), ("torch_eager",), 0.1),
        ("omniglot", "imaml", (32,), ("jax_jit",), 0.8),
        ("sinusoid", "imaml", (100,), ("jax_jit",), 0.5),
    ),
}


def targets_of(found: Sequence[Measured], rules: str) -> list[Target]:
    """The targets that one workload's race is about; none where its network is not the family's."""
    name = parsed(found[0].workload)
    by_name = {one.contestant: one for one in found}
    targets: list[Target] = []
    if "ours" not in by_name or name.width is not None or (name.steps is not None and name.method == "imaml"):
        return targets
    ours = by_name["ours"]
    for family, method, sizes, rivals, limit in _LIMITS[rules]:
        present = [by_name[rival] for rival in rivals if rival in by_name]
        if (family, method) == (name.family, name.method) and (sizes is None or name.tasks in sizes) and present:
            best = min(present, key=lambda one: one.quantile(0.5))
            targets.append(Target(f"{best.workload}: time over {best.contestant}", ratio(ours, best), limit))
    if rules == "cpu" and found[0].workload == "omniglot-32" and "torch_eager" in by_name:
        eager = by_name["torch_eager"].memory["added"]
        targets.append(Target("omniglot-32: memory over torch_eager", ours.memory["added"] / eager, 1.0))
    return targets


def targets_table(console: Console, targets: Sequence[Target]) -> None:
    """What was aimed at, and whether it was reached."""
    rows = [
        (t.what, f"{t.found:.3g} {t.unit}", f"≤ {t.limit:g} {t.unit}", "met" if t.met else "NOT MET")
        for t in targets
        if np.isfinite(t.found)
    ]
    table(console, "Targets", ["what", "found", "target", ""], rows)
