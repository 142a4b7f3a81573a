"""Time and memory of a meta-gradient against the inner steps: ``python -m benchmarks.adaptation FOLDER``.

One task of the Omniglot workload; iMAML, MAML with every φ kept and with √K of them, FOMAML and ANIL.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
import tracemalloc
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console

from benchmarks.contestants.ours import Contestant
from benchmarks.environment import measure_unforced
from benchmarks.machine import machine, use_cores
from benchmarks.report import table
from benchmarks.settling import settle
from benchmarks.workloads import Method, workload

__all__: list[str] = []

# By the method of the workload and the setting of it.
FORMS = {
    "maml default": "MAML, every φ kept",
    "maml sqrt": "MAML, √K kept",
    "imaml default": "iMAML, 5 products",
    "maml first-order": "FOMAML",
    "anil default": "ANIL, every φ kept",
}


@dataclass(frozen=True)
class Measured:
    """One form at one K."""

    form: str
    steps: int
    seconds: float
    peak: int


def measured(form: str, steps: int, repeats: int) -> Measured:
    """The median time of a step, and the height of NumPy's and Python's memory in one, beyond what there was before."""
    method, setting = form.split()
    work = replace(workload(f"omniglot-1-k{steps}"), method=cast("Method", method))
    timed = Contestant(work, setting, "cpu")
    settle(timed.step, 3)
    seconds: list[float] = []
    for _ in range(repeats):
        began = time.perf_counter()
        timed.step()
        seconds.append(time.perf_counter() - began)
    del timed
    gc.collect()
    tracemalloc.start()
    contestant = Contestant(work, setting, "cpu")
    settle(contestant.step, 3)
    gc.collect()
    tracemalloc.reset_peak()
    contestant.step()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return Measured(form, steps, float(np.median(seconds)), peak)


def draw(found: list[Measured], path: Path) -> None:
    """Both against K."""
    figure, (memory, seconds) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for form, label in FORMS.items():
        rows = [m for m in found if m.form == form]
        steps = [m.steps for m in rows]
        memory.plot(steps, [m.peak / 2**20 for m in rows], marker="o", label=label)
        seconds.plot(steps, [m.seconds for m in rows], marker="o", label=label)
    memory.set(xlabel="inner steps K", title="peak memory of a step, MiB", ylim=(0, None))
    seconds.set(xlabel="inner steps K", title="seconds a step", xscale="log", yscale="log")
    for axes in (memory, seconds):
        axes.grid(visible=True, alpha=0.3)
    memory.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    measure_unforced()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where adaptation.png and adaptation.json are put")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 25, 100, 200, 400], help="the K to measure")
    parser.add_argument("--repeats", type=int, default=3, help="steps timed of each (default: 3)")
    parser.add_argument("--cores", type=int, default=2, help="cores (default: 2)")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    about = machine(use_cores(options.cores))
    console = Console(width=None if Console().is_terminal else 140)
    found = [measured(form, steps, options.repeats) for steps in options.steps for form in FORMS]
    for title, value in (("MiB", lambda m: f"{m.peak / 2**20:.0f}"), ("seconds", lambda m: f"{m.seconds:.3f}")):
        rows = [[label, *(value(m) for m in found if m.form == form)] for form, label in FORMS.items()]
        table(console, f"One Omniglot task, {title}", ["form", *(f"K = {k}" for k in options.steps)], rows)
    draw(found, options.folder / "adaptation.png")
    numbers = {"machine": about, "measured": [asdict(m) for m in found]}
    (options.folder / "adaptation.json").write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
