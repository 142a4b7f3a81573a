"""One contestant in a process of its own: reads a request a line, answers with a line of JSON.

``python -m benchmarks.child CONTESTANT SETTING WORKLOAD DTYPE DEVICE``
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contestants import Contestant, contestant_class
from benchmarks.launches import launches
from benchmarks.machine import kernels
from benchmarks.settling import settle
from benchmarks.workloads import workload

__all__: list[str] = []


def _status(process: int | str, field: str) -> int:
    """A number of bytes from the kernel's account of a process: VmRSS now, VmHWM at its highest."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def _memory(contestant: Contestant, imported: int) -> dict[str, int]:
    """The highest resident memory so far, helpers included, and how much of it is more than what imports took."""
    everyone = [os.getpid(), *contestant.helpers()]
    peak = sum(_status(process, "VmHWM") for process in everyone)
    return {"peak": peak, "added": peak - imported * len(everyone)}


def _steps(contestant: Contestant, count: int) -> dict[str, list[float]]:
    seconds: list[float] = []
    losses: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        losses.append(contestant.step())
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds, "losses": losses}


def main() -> None:
    # Whatever a library prints goes to stderr, and cannot be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=answers, flush=True)

    name, setting, work_name, dtype, device = sys.argv[1:]
    dtypes: dict[str, type[np.floating[Any]]] = {"float32": np.float32, "float64": np.float64}
    work = workload(work_name, dtypes[dtype])
    began = time.perf_counter()
    contestant_type = contestant_class(name)
    imported = _status("self", "VmRSS")
    imported_at = time.perf_counter()
    contestant: Contestant = contestant_type(work, setting, device)
    build_seconds = time.perf_counter() - imported_at
    answer({"import_seconds": imported_at - began, "build_seconds": build_seconds, "kernels": kernels()})
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "step":
            answer(_steps(contestant, request["count"]))
        elif request["do"] == "settle":
            settle(contestant.step)
            answer(_steps(contestant, 1))
        elif request["do"] == "outcome":
            np.save(request["path"], contestant.outcome())
            answer({})
        elif request["do"] == "memory":
            answer(_memory(contestant, imported))
        elif request["do"] == "launches":
            answer(launches(contestant.step))


if __name__ == "__main__":
    main()
