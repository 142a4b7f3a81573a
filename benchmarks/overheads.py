"""What is paid beside the arithmetic: curvature, first steps, imports, memory: ``python -m benchmarks.overheads``.

Each first step, import and memory is that of a fresh process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.arena import Child
from benchmarks.curvature import curvature_ratio
from benchmarks.environment import measure_unforced
from benchmarks.machine import machine, use_cores
from benchmarks.report import Target, table, targets_table
from benchmarks.settings import settings_of

__all__: list[str] = []

MIB = 2**20
_ROOT = Path(__file__).parent.parent


def curvature(console: Console, names: tuple[str, ...]) -> list[Target]:
    """A product with the Hessian over a gradient."""
    rows: list[list[str]] = []
    targets: list[Target] = []
    for name in names:
        gradient, product, ratio = curvature_ratio(name)
        rows.append([name, f"{1e3 * gradient:.2f}", f"{1e3 * product:.2f}", f"{ratio:.2f}"])
        targets.append(Target(f"{name}: Hessian-vector product over gradient", ratio, 2.2))
    table(console, "Support sets of a chunk", ["workload", "gradient ms", "product ms", "ratio"], rows)
    return targets


def first_steps(console: Console, names: tuple[str, ...], contestants: tuple[str, ...]) -> list[Target]:
    """How much longer than a later one the first step takes, building included."""
    rows: list[list[str]] = []
    targets: list[Target] = []
    for name in names:
        for contestant in contestants:
            with Child(contestant, settings_of(contestant, name)[0], name) as child:
                seconds = child.ask("step", count=5)["seconds"]
                more = child.start["build_seconds"] + seconds[0] - float(np.median(seconds[1:]))
            rows.append([name, contestant, f"{more:.2f}"])
            if contestant == "ours":
                targets.append(Target(f"{name}: first step over a later one", more, 0.5, "s"))
    table(console, "First step, more than a later one", ["workload", "contestant", "s"], rows)
    return targets


def import_time(console: Console, repeats: int = 10) -> list[Target]:
    """How much longer than NumPy's the package's import takes, in turns."""
    seconds: dict[str, list[float]] = {"pass": [], "import numpy": [], "import aidotnet_py": []}
    with tempfile.TemporaryDirectory() as cache:
        # Compiled once, as an installed package is, whatever the environment says of bytecode.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = cache
        for turn in range(repeats + 1):
            for code, times in seconds.items():
                began = time.perf_counter()
                subprocess.run([sys.executable, "-c", code], check=True, cwd=_ROOT, env=environment)
                if turn:
                    times.append(time.perf_counter() - began)
    medians = {code: float(np.median(times)) for code, times in seconds.items()}
    rows = [[code, f"{1e3 * median:.0f}"] for code, median in medians.items()]
    table(console, f"Whole processes, medians of {repeats}", ["code", "ms"], rows)
    more = medians["import aidotnet_py"] - medians["import numpy"]
    return [Target("import aidotnet_py over import numpy", more, 0.15, "s")]


def memory(console: Console, name: str, contestants: tuple[str, ...], steps: tuple[int, ...]) -> list[Target]:
    """The highest resident memory of two steps, beyond what imports took, at several numbers of inner steps.

    Medians of three processes each: where threads happen to allocate, and when garbage is collected, shows in it.
    """
    rows: list[list[str]] = []
    targets: list[Target] = []
    for contestant in contestants:
        added = [float(np.median([_added(contestant, f"{name}-k{k}") for _ in range(3)])) for k in steps]
        rows.append([contestant, *(f"{a / MIB:.1f}" for a in added)])
        if contestant == "ours":
            targets.append(Target(f"{name}: memory at most over at least, K = {steps}", max(added) / min(added), 1.02))
    table(console, f"{name}: memory, MiB", ["contestant", *(f"K = {k}" for k in steps)], rows)
    return targets


def _added(contestant: str, work: str) -> int:
    with Child(contestant, settings_of(contestant, work)[0], work) as child:
        child.ask("step", count=2)
        added: int = child.ask("memory")["added"]
    return added


def main() -> None:
    measure_unforced()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=2, help="cores for everyone (default: 2)")
    parser.add_argument("--contestants", nargs="*", default=["torch_eager", "jax_jit"], help="shown beside ours")
    parser.add_argument("--json", type=Path, help="write the targets to this file")
    options = parser.parse_args()
    about = machine(use_cores(options.cores))
    console = Console(width=None if Console().is_terminal else 140)
    everyone = ("ours", *options.contestants)
    targets = [
        *curvature(console, ("omniglot-8", "sinusoid-25")),
        *first_steps(console, ("sinusoid-25", "omniglot-8"), everyone),
        *import_time(console),
        *memory(console, "omniglot-4", everyone, (1, 16, 200)),
    ]
    targets_table(console, targets)
    if options.json is not None:
        found = {"machine": about, "targets": [asdict(t) | {"met": t.met} for t in targets]}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
