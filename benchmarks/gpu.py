"""Race aidotnet_py on a GPU against its rivals there: ``python -m benchmarks.gpu``.

As `benchmarks.run`, with everyone's arrays in the GPU's memory from the start, in float32 that is float32 (no TF32),
and each step timed to the end of all its work on the device. Needs CuPy and a CUDA device; rivals whose library is
missing are left out. With --rehearse, the same race in the same settings runs on the processor, at small sizes: it says
nothing of speed, and that all of it works.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from rich.console import Console

from benchmarks.contest import Contest
from benchmarks.contestants import NAMES_CUDA, lacking
from benchmarks.environment import measure_unforced
from benchmarks.machine import machine, use_cores

__all__: list[str] = []

WORKLOADS = ("omniglot-32", "sinusoid-100", "omniglot-8", "sinusoid-25", "mini-4")
QUICK = WORKLOADS[:2]
REHEARSED = ("omniglot-2-k2-w8", "sinusoid-4")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", metavar="FAMILY-TASKS", help=f"default: {' '.join(WORKLOADS)}")
    parser.add_argument("--contestants", nargs="+", choices=NAMES_CUDA, default=NAMES_CUDA, help="default: all")
    parser.add_argument("--rounds", type=int, help="turns of each contestant (default: 5; quick, rehearsed: 3)")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a turn, about (default: 0.5)")
    parser.add_argument("--quick", action="store_true", help=f"only {' '.join(QUICK)}, fewer rounds")
    parser.add_argument("--tune", action="store_true", help="try every setting of every contestant first")
    parser.add_argument("--rehearse", action="store_true", help=f"on the processor: {' '.join(REHEARSED)}")
    parser.add_argument("--json", type=Path, help="write all that was measured to this file")
    return parser.parse_args()


def _present(console: Console, wanted: tuple[str, ...], device: str) -> tuple[str, ...]:
    """Those that can run here; of the others it is said why not. Without ours there is nothing to race."""
    missing = lacking(wanted, device)
    if "ours" in missing:
        raise SystemExit(f"no race on {device}: {missing['ours']} (--rehearse needs no GPU)")
    for name, why in missing.items():
        console.print(f"{name} is left out: {why}", highlight=False)
    return tuple(name for name in wanted if name not in missing)


def main() -> None:
    measure_unforced()
    options = _arguments()
    console = Console(width=None if Console().is_terminal else 190)
    device = "cpu" if options.rehearse else "cuda"
    contestants = _present(console, tuple(options.contestants), device)
    works = REHEARSED if options.rehearse else QUICK if options.quick else WORKLOADS
    contest = Contest(
        console,
        contestants,
        device,
        "cuda",
        # On a GPU, those who compile for it are to have all cores.
        machine(use_cores(2 if options.rehearse else len(os.sched_getaffinity(0))), device),
        options.rounds or (3 if options.quick or options.rehearse else 5),
        options.seconds,
        options.tune,
        options.json,
    )
    contest.run(options.workloads or works)


if __name__ == "__main__":
    main()
