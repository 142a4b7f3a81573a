"""How time and memory grow with tasks, inner steps and parameters: ``python -m benchmarks.figures FOLDER``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from rich.console import Console

from benchmarks.arena import Measured, race
from benchmarks.contestants import NAMES
from benchmarks.environment import measure_unforced
from benchmarks.machine import machine, use_cores
from benchmarks.settings import settings_of
from benchmarks.workloads import workload

__all__: list[str] = []


@dataclass(frozen=True)
class Sweep:
    """Workloads along one axis."""

    file: str
    axis: str
    workloads: tuple[str, ...]
    memory: bool

    def place(self, name: str) -> float:
        """Of a workload, on the axis."""
        work = workload(name)
        sizes = {"tasks": work.tasks, "inner steps K": work.steps}
        return sizes.get(self.axis) or sum(p.size for p in work.parameters.values())


SWEEPS = (
    Sweep("sinusoid_tasks", "tasks", tuple(f"sinusoid-{n}" for n in (1, 4, 16, 64, 256)), memory=False),
    Sweep("omniglot_tasks", "tasks", tuple(f"omniglot-{n}" for n in (1, 2, 4, 8, 16, 32)), memory=True),
    Sweep("omniglot_steps", "inner steps K", tuple(f"omniglot-4-k{k}" for k in (1, 4, 16, 64, 200)), memory=True),
    Sweep("omniglot_width", "parameters", tuple(f"omniglot-4-k4-w{w}" for w in (16, 32, 64, 128)), memory=True),
)


def measured(sweep: Sweep, contestants: Sequence[str], rounds: int, console: Console) -> list[Measured]:
    """A short race at every place of the sweep."""
    found: list[Measured] = []
    for name in sweep.workloads:
        entries = [(c, settings_of(c, name)[0]) for c in contestants]
        found += race(entries, name, rounds=rounds, seconds=0.3)
        medians = ", ".join(f"{m.contestant} {1e3 * m.quantile(0.5):.1f}" for m in found[-len(entries) :])
        console.print(f"{name}, ms a step: {medians}", highlight=False)
    return found


def _lines(axes: Axes, sweep: Sweep, rows: Sequence[tuple[str, str, float]], title: str) -> None:
    """One line a contestant of (contestant, workload, value)."""
    for contestant in dict.fromkeys(row[0] for row in rows):
        points = [(sweep.place(name), value) for who, name, value in rows if who == contestant]
        ours = contestant == "ours"
        axes.plot(*zip(*points, strict=True), marker="o", label=contestant, linewidth=2.5 if ours else 1.2)
    axes.set(xscale="log", yscale="log", xlabel=sweep.axis, title=title)
    axes.grid(visible=True, which="major", alpha=0.3)


def draw(sweep: Sweep, found: Sequence[Measured], folder: Path) -> None:
    """The sweep's figure, time and, where it is shown, memory beside it."""
    figure, panels = plt.subplots(
        1, 2 if sweep.memory else 1, figsize=(9 if sweep.memory else 5, 3.6), layout="constrained", squeeze=False
    )
    times = [(m.contestant, m.workload, 1e3 * m.quantile(0.5)) for m in found]
    _lines(panels[0, 0], sweep, times, "ms a step")
    if sweep.memory:
        sizes = [(m.contestant, m.workload, m.memory["added"] / 2**20) for m in found]
        _lines(panels[0, 1], sweep, sizes, "peak memory of a step, MiB")
    panels[0, 0].legend()
    figure.savefig(folder / f"{sweep.file}.png", dpi=150)
    plt.close(figure)


def main() -> None:
    measure_unforced()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where figures, and sweeps.json with their numbers, are put")
    parser.add_argument("--contestants", nargs="+", choices=NAMES, default=["ours", "torch_eager", "jax_jit"])
    parser.add_argument("--sweeps", nargs="+", choices=[s.file for s in SWEEPS], help="default: all")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contestant (default: 3)")
    parser.add_argument("--cores", type=int, default=2, help="cores for everyone (default: 2)")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    about = machine(use_cores(options.cores))
    console = Console()
    numbers: dict[str, list[dict[str, object]]] = {}
    for sweep in SWEEPS:
        if options.sweeps is None or sweep.file in options.sweeps:
            found = measured(sweep, options.contestants, options.rounds, console)
            draw(sweep, found, options.folder)
            numbers[sweep.file] = [asdict(m) for m in found]
    (options.folder / "sweeps.json").write_text(json.dumps({"machine": about, "sweeps": numbers}, indent=1) + "\n")


if __name__ == "__main__":
    main()
