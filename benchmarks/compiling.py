"""What kernels cost the first process on a machine: ``python -m benchmarks.compiling sinusoid-25 omniglot-8``.

Each workload runs in a process of its own that finds no kernels on disk; other processes compile for it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
from rich.console import Console

from benchmarks.contestants.ours import Contestant
from benchmarks.environment import measure_unforced
from benchmarks.machine import use_cores
from benchmarks.report import table
from benchmarks.workloads import workload

__all__: list[str] = []


def measure(name: str, steps: int) -> dict[str, float]:
    """Run steps in this process until nothing is left to compile."""
    contestant, seconds = Contestant(workload(name), "default", "cpu"), list[float]()
    while len(seconds) < steps or _compiles():
        began = time.perf_counter()
        contestant.step()
        seconds.append(time.perf_counter() - began)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    later = float(np.median(seconds[-(steps // 2) :]))
    return {"more": seconds[0] - later, "later": later, "compiling": children.ru_utime + children.ru_stime}


def _compiles() -> bool:
    return any(thread.name == "aidotnet_py compiler" for thread in threading.enumerate())


def _in_a_fresh_process(name: str, steps: int) -> dict[str, float]:
    code = f"import json; from benchmarks.compiling import measure; print(json.dumps(measure({name!r}, {steps})))"
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "XDG_CACHE_HOME": folder}
        ended = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, env=environment)
    found: dict[str, float] = json.loads(ended.stdout)
    return found


def main() -> None:
    measure_unforced()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="+", help="names such as sinusoid-25, omniglot-8, mini-4")
    parser.add_argument("--steps", type=int, default=8, help="steps, at least (default: 8)")
    parser.add_argument("--cores", type=int, default=2, help="cores for both processes (default: 2)")
    options = parser.parse_args()
    use_cores(options.cores)
    rows: list[list[str]] = []
    for name in options.workloads:
        found = _in_a_fresh_process(name, options.steps)
        rows.append([name, *(f"{found[column]:.2f}" for column in ("more", "later", "compiling"))])
    columns = ["workload", "first step over a later one", "a later one", "CPU of compiling processes"]
    table(Console(), "Without kernels on disk, seconds", columns, rows)


if __name__ == "__main__":
    main()
