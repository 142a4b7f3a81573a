"""Time and memory of a meta-gradient against the inner steps: ``python -m benchmarks.adaptation FOLDER``.

One task of the Omniglot workload; iMAML, MAML with every φ kept and with √K of them, FOMAML and ANIL, each in fresh
processes.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console

from benchmarks.arena import Child
from benchmarks.machine import machine, use_cores
from benchmarks.report import table

__all__: list[str] = []

FORMS = {
    "maml": "MAML, every φ kept",
    "maml-sqrt": "MAML, √K kept",
    "default": "iMAML, 5 products",
    "fomaml": "FOMAML",
    "anil": "ANIL, every φ kept",
}


@dataclass(frozen=True)
class Measured:
    """One form at one K."""

    form: str
    steps: int
    seconds: float
    added: int


def measured(form: str, steps: int, repeats: int) -> Measured:
    """The median time of a step, and the highest resident memory beyond what imports took."""
    with Child("ours", form, f"omniglot-1-k{steps}") as child:
        child.ask("step", count=3)
        seconds = child.ask("step", count=repeats)["seconds"]
        return Measured(form, steps, float(np.median(seconds)), child.ask("memory")["added"])


def draw(found: list[Measured], path: Path) -> None:
    """Both against K."""
    figure, (memory, time) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for form, label in FORMS.items():
        rows = [m for m in found if m.form == form]
        steps = [m.steps for m in rows]
        memory.plot(steps, [m.added / 2**20 for m in rows], marker="o", label=label)
        time.plot(steps, [m.seconds for m in rows], marker="o", label=label)
    memory.set(xlabel="inner steps K", title="peak memory of a step, MiB", ylim=(0, None))
    time.set(xlabel="inner steps K", title="seconds a step", xscale="log", yscale="log")
    for axes in (memory, time):
        axes.grid(visible=True, alpha=0.3)
    memory.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where adaptation.png and adaptation.json are put")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 25, 100, 200, 400, 800], help="the K to measure")
    parser.add_argument("--repeats", type=int, default=3, help="steps timed of each (default: 3)")
    parser.add_argument("--cores", type=int, default=2, help="cores (default: 2)")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    about = machine(use_cores(options.cores))
    console = Console(width=None if Console().is_terminal else 140)
    found = [measured(form, steps, options.repeats) for steps in options.steps for form in FORMS]
    for title, value in (("MiB", lambda m: f"{m.added / 2**20:.0f}"), ("seconds", lambda m: f"{m.seconds:.3f}")):
        rows = [[label, *(value(m) for m in found if m.form == form)] for form, label in FORMS.items()]
        table(console, f"One Omniglot task, {title}", ["form", *(f"K = {k}" for k in options.steps)], rows)
    draw(found, options.folder / "adaptation.png")
    numbers = {"machine": about, "measured": [asdict(m) for m in found]}
    (options.folder / "adaptation.json").write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
