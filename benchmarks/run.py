"""Race aidotnet_py against its rivals: ``python -m benchmarks.run``.

All do the same work on the same arrays and the same cores, each in a process of its own, in turns. Before they are
timed, all their meta-gradients are compared in float64. With --tune, each contestant's settings are tried first, and
the fastest one races; without, the one that was found fastest before.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.arena import agreement, fastest_setting, race
from benchmarks.contestants import NAMES
from benchmarks.machine import machine, use_cores
from benchmarks.report import Target, agreement_table, race_table, targets_of, targets_table
from benchmarks.settings import settings_of
from benchmarks.workloads import workload

__all__: list[str] = []

WORKLOADS = ("sinusoid-4", "sinusoid-25", "sinusoid-100", "omniglot-8", "omniglot-32", "mini-4")
QUICK = ("sinusoid-4", "sinusoid-25", "omniglot-8")
# Beyond this the contestants do not do the same work. Float64 leaves them 1e-14 apart.
AGREEMENT = 1e-9


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", metavar="FAMILY-TASKS", help=f"default: {' '.join(WORKLOADS)}")
    parser.add_argument("--contestants", nargs="+", choices=NAMES, default=NAMES, help="default: all")
    parser.add_argument("--rounds", type=int, help="turns of each contestant (default: 10; quick: 4)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn, about (default: 1)")
    parser.add_argument("--cores", type=int, default=2, help="cores for everyone (default: 2)")
    parser.add_argument("--quick", action="store_true", help=f"only {' '.join(QUICK)}, fewer rounds")
    parser.add_argument("--tune", action="store_true", help="try every setting of every contestant first")
    parser.add_argument("--json", type=Path, help="write all that was measured to this file")
    return parser.parse_args()


def _entries(console: Console, names: list[str], work: str, *, tune: bool) -> tuple[list[tuple[str, str]], Any]:
    """Contestants and their settings, and, when they were tuned, the seconds a step of each."""
    entries: list[tuple[str, str]] = []
    tried: dict[str, dict[str, float]] = {}
    for name in names:
        settings = settings_of(name, work)
        best = settings[0]
        if tune and len(settings) > 1:
            best, times = fastest_setting(name, settings, work)
            tried[name] = times
            said = ", ".join(f"{s} {1e3 * t:.1f}" for s, t in sorted(times.items(), key=lambda pair: pair[1]))
            console.print(f"{work}: {name}, ms a step: {said}", highlight=False)
        entries.append((name, best))
    return entries, tried


@cache
def _distances(entries: tuple[tuple[str, str], ...], family: str) -> dict[str, float]:
    """How far apart the contestants' meta-gradients are; two tasks show as well as many what is computed."""
    return agreement(entries, f"{family}-2")


def _measure(console: Console, options: argparse.Namespace, work: str, rounds: int, peak: float) -> tuple[Any, Any]:
    """One workload: agreement, race, tables. Returns what was measured, and the targets that it is about."""
    entries, tried = _entries(console, options.contestants, work, tune=options.tune)
    family = work.split("-")[0]
    distances = _distances(tuple(entries), family)
    if max(distances.values()) > AGREEMENT:
        agreement_table(console, family, distances)
        raise SystemExit(f"{family}: the contestants do not compute the same meta-gradient; times would mean nothing")
    found = race(entries, work, rounds=rounds, seconds=options.seconds)
    console.print(f"{family}: float64 meta-gradients agree to {max(distances.values()):.0e}", highlight=False)
    race_table(console, found, peak)
    return {
        "workload": work,
        "tasks": workload(work).tasks,
        "float64_distances": distances,
        "settings_tried": tried,
        "contestants": [asdict(one) for one in found],
    }, targets_of(found)


def main() -> None:
    options = _arguments()
    console = Console(width=None if Console().is_terminal else 160)
    about = machine(use_cores(options.cores))
    peak = about["matmul_peak"]
    console.print(
        f"{about['processor']}, {about['cores']} cores, {peak / 1e9:.0f} GFLOP/s in float32 matrix products; "
        f"{about['versions']}",
        highlight=False,
    )
    rounds = options.rounds or (4 if options.quick else 10)
    results: list[Any] = []
    targets: list[Target] = []
    for work in options.workloads or (QUICK if options.quick else WORKLOADS):
        result, about_it = _measure(console, options, work, rounds, peak)
        results.append(result)
        targets += about_it
    targets_table(console, targets)
    if options.json is not None:
        found = {"machine": about, "workloads": results, "targets": [asdict(t) | {"met": t.met} for t in targets]}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
