"""Race aidotnet_py against its rivals: ``python -m benchmarks.run``.

All do the same work on the same arrays and the same cores, each in a process of its own, in turns. Before they are
timed, all their meta-gradients are compared in float64. With --tune, each contestant's settings are tried first, and
the fastest one races; without, the one that was found fastest before. Variables that would choose a library's kernels
for it are taken out of the environment, for everyone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from benchmarks.contest import Contest
from benchmarks.contestants import NAMES
from benchmarks.environment import measure_unforced
from benchmarks.machine import machine, use_cores

__all__: list[str] = []

WORKLOADS = (
    *("sinusoid-4", "sinusoid-25", "sinusoid-100", "omniglot-8", "omniglot-32", "mini-4"),
    *("sinusoid-25-k5-maml", "sinusoid-25-k5-anil", "omniglot-8-k5-maml", "omniglot-8-k5-anil"),
    *("sinusoid-1-adapt", "omniglot-1-adapt"),
)
QUICK = ("sinusoid-4", "sinusoid-25", "omniglot-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", metavar="NAME", help=f"default: {' '.join(WORKLOADS)}")
    parser.add_argument("--contestants", nargs="+", choices=NAMES, default=NAMES, help="default: all")
    parser.add_argument("--rounds", type=int, help="turns of each contestant (default: 10; quick: 4)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn, about (default: 1)")
    parser.add_argument("--cores", type=int, default=2, help="cores for everyone (default: 2)")
    parser.add_argument("--quick", action="store_true", help=f"only {' '.join(QUICK)}, fewer rounds")
    parser.add_argument("--tune", action="store_true", help="try every setting of every contestant first")
    parser.add_argument("--json", type=Path, help="write all that was measured to this file")
    return parser.parse_args()


def main() -> None:
    measure_unforced()
    options = _arguments()
    contest = Contest(
        Console(width=None if Console().is_terminal else 160),
        tuple(options.contestants),
        "cpu",
        "cpu",
        machine(use_cores(options.cores)),
        options.rounds or (4 if options.quick else 10),
        options.seconds,
        options.tune,
        options.json,
    )
    contest.run(options.workloads or (QUICK if options.quick else WORKLOADS))


if __name__ == "__main__":
    main()
