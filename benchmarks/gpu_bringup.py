"""Bring the CuPy backend up on a GPU, stage by stage: ``python -m benchmarks.gpu_bringup FOLDER``.

Each stage is a process of its own with a time limit and a log in FOLDER; a stage that fails stops no other. Stages that
check (versions, tests, agreement with NumPy) run side by side, stages that measure (race, profiles) one by one after
them. `--only` names stages, `--list` prints them; the last lines are a table of all stages.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

__all__: list[str] = []

_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Stage:
    """A command, the seconds it may take, and whether it measures time, and so wants the machine for itself."""

    name: str
    command: tuple[str, ...]
    seconds: int
    measures: bool = False


def _stages(folder: Path) -> list[Stage]:
    python = (sys.executable, "-u", "-W", "ignore", "-m")
    # pytest-benchmark, where it is installed, objects to xdist.
    pytest = (*python, "pytest", "-q", "-p", "no:benchmark", "-m", "gpu")
    beside = ("-n", str(max(1, len(os.sched_getaffinity(0)) // 2))) if find_spec("xdist") else ()
    step = (*python, "benchmarks.gpu_step")
    return [
        Stage("versions", (*python, "benchmarks.gpu_step", "versions"), 60),
        Stage("tests", (*pytest, *beside), 240),
        *(Stage(f"agree-{work}", (*step, "agree", work), 150) for work in ("sinusoid-4", "omniglot-2")),
        Stage("race", (*python, "benchmarks.gpu", "--quick", "--json", str(folder / "race.json")), 240, True),
        *(Stage(f"profile-{work}", (*step, "profile", work), 120, True) for work in ("sinusoid-100", "omniglot-32")),
        *(
            Stage(
                f"sanitizer-{tool}",
                ("compute-sanitizer", "--tool", tool, "--error-exitcode", "9", *step, "agree", work),
                200,
            )
            for tool, work in (("memcheck", "sinusoid-4"), ("racecheck", "sinusoid-4"))
        ),
        Stage("race-whole", (*python, "benchmarks.gpu", "--json", str(folder / "race-whole.json")), 600, True),
    ]


def _run(stage: Stage, folder: Path) -> tuple[str, str, float]:
    began = time.monotonic()
    with (folder / f"{stage.name}.log").open("w") as log:
        try:
            done = subprocess.run(
                stage.command, cwd=_ROOT, stdout=log, stderr=subprocess.STDOUT, timeout=stage.seconds, check=False
            )
            outcome = "ok" if done.returncode == 0 else f"exit {done.returncode}"
        except subprocess.TimeoutExpired:
            outcome = f"over {stage.seconds} s"
        except OSError as error:
            outcome = str(error)
    return stage.name, outcome, time.monotonic() - began


def _chosen(stages: Iterable[Stage], only: list[str] | None) -> list[Stage]:
    return [stage for stage in stages if not only or any(stage.name.startswith(prefix) for prefix in only)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the logs go")
    parser.add_argument("--only", nargs="+", metavar="PREFIX", help="run the stages whose names start so")
    parser.add_argument("--list", action="store_true", help="print the stages and end")
    options = parser.parse_args()
    folder: Path = options.folder
    stages = _chosen(_stages(folder), options.only)
    if options.list:
        print("\n".join(f"{stage.name:24} {' '.join(stage.command)}" for stage in stages))
        return
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)) // 2)) as pool:
        results = list(pool.map(lambda stage: _run(stage, folder), [s for s in stages if not s.measures]))
    results += [_run(stage, folder) for stage in stages if stage.measures]
    for name, _, _ in results:
        print(f"\n--- {name}\n" + "\n".join((folder / f"{name}.log").read_text().splitlines()[-12:]))
    print()
    for name, outcome, seconds in results:
        print(f"{name:24} {outcome:14} {seconds:6.1f} s")
    raise SystemExit(any(outcome != "ok" for _, outcome, _ in results))


if __name__ == "__main__":
    main()
