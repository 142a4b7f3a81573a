"""Bytes and time of a step over workers: ``python -m benchmarks.scaling [--json FILE]``.

Measured on this machine: a step in one process on one core, the same step over one and two processes, the bytes that
go out and come back for a share, and what a share costs at home. Projected from these: more workers, each a core.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pickle
import time
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from aidotnet_py import CrossEntropyLoss, MetaLearningTask, NeuralNetworkModel, TaskBatch, iMAMLAlgorithm, iMAMLOptions
from aidotnet_py.backends import get_backend
from aidotnet_py.meta_learning.learner.sums import SumOfTasks
from aidotnet_py.nn import conv4, mlp
from benchmarks.report import table

__all__: list[str] = []

# What the projection assumes of a network between machines: 10 Gbit/s, and 0.2 ms for a message.
BANDWIDTH, LATENCY = 1.25e9, 2e-4
WORKERS = (1, 2, 10, 100, 1000)


@dataclass(frozen=True)
class Measured:
    """One workload: the tasks of a step, parameters, seconds of a step by workers, bytes and seconds of a share."""

    name: str
    tasks: int
    parameters: int
    here: float
    over: dict[int, float]
    bytes_of_share: float
    bytes_of_task: float
    bytes_back: float
    home_of_share: float

    def projection(self, workers: int) -> float:
        """Seconds of a step over so many workers on machines of their own.

        A worker's tasks take their time in one process. What one worker here takes more than none, packing and handing
        over the batch, is paid once; then home sends and receives share after share.
        """
        busy = min(workers, self.tasks)
        back = rows_back(self.tasks, busy) * self.bytes_back / rows_back(self.tasks, 8) * 8
        sent = busy * self.bytes_of_share + self.tasks * self.bytes_of_task + back
        work = -(-self.tasks // busy) * self.here / self.tasks
        return work + max(0.0, self.over[1] - self.here) + busy * self.home_of_share + LATENCY + sent / BANDWIDTH


def rows_back(tasks: int, shares: int) -> int:
    """How many vectors come back in all."""
    edges, rows = [tasks * i // shares for i in range(shares + 1)], 0
    for start, stop in pairwise(edges):
        share = SumOfTasks(get_backend("numpy"))
        share.add_rows(start, np.zeros((stop - start, 1)))
        rows += sum(len(piece.rows) for piece in share.pieces)
    return rows


class _AtHome(Executor):
    """Answers at once with what was answered before; all that is sent is packed, and the answers unpacked."""

    def __init__(self, workers: int) -> None:
        self._max_workers = workers
        self.answers: list[bytes] = []
        self.sent: list[int] = []
        self._next = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        packed = pickle.dumps((fn, args))
        self.sent.append(len(packed))
        if len(self.answers) < self._max_workers:
            self.answers.append(pickle.dumps(fn(*args)))
        future.set_result(pickle.loads(self.answers[self._next % self._max_workers]))
        self._next += 1
        return future


def images(tasks: int) -> tuple[Any, TaskBatch[Any, Any, Any]]:
    """Omniglot's shapes: 5-way 1-shot, 15 queries a class, 28 × 28, four convolutions of 64 filters."""
    rng = np.random.default_rng(0)
    labels = np.arange(5), np.repeat(np.arange(5), 15)
    model = NeuralNetworkModel(conv4(5), input_shape=(28, 28, 1), loss=CrossEntropyLoss(), seed=0)
    sets = [[rng.random((len(y), 28, 28, 1), np.float32) for y in labels] for _ in range(tasks)]
    return model, TaskBatch(
        [
            MetaLearningTask(SupportSetX=s, SupportSetY=labels[0], QuerySetX=q, QuerySetY=labels[1], NumWays=5)
            for s, q in sets
        ]
    )


def curves(tasks: int) -> tuple[Any, TaskBatch[Any, Any, Any]]:
    """Ten points and ten queries, two hidden layers of 40."""
    rng = np.random.default_rng(0)
    model = NeuralNetworkModel(mlp(40, 40, 1), input_shape=(1,), seed=0)
    names = "SupportSetX", "SupportSetY", "QuerySetX", "QuerySetY"
    data: list[dict[str, Any]] = [
        {name: rng.standard_normal((10, 1), np.float32) for name in names} for _ in range(tasks)
    ]
    return model, TaskBatch([MetaLearningTask(**sets, NumWays=1) for sets in data])


WORKLOADS = {"sinusoids, 25": (curves, 25), "sinusoids, 1000": (curves, 1000), "Omniglot, 32": (images, 32)}


def seconds(learner: Any, batch: Any, repeats: int) -> float:
    """The median time of a step, after some."""
    for _ in range(4):
        learner.MetaTrain(batch)
    found: list[float] = []
    for _ in range(repeats):
        began = time.perf_counter()
        learner.MetaTrain(batch)
        found.append(time.perf_counter() - began)
    return float(np.median(found))


def measured(name: str, repeats: int) -> Measured:
    """One workload on this machine."""
    make, tasks = WORKLOADS[name]
    model, batch = make(tasks)
    learner = iMAMLAlgorithm(iMAMLOptions(model, AdaptationSteps=5, ConjugateGradientIterations=5))
    here, over = seconds(learner, batch, repeats), dict[int, float]()
    for workers in (1, 2):
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            learner.Options.Executor = pool
            over[workers] = seconds(learner, batch, repeats)
    home: list[tuple[float, float, float]] = []
    for workers in (1, 8):
        learner.Options.Executor = at_home = _AtHome(workers)
        taken = seconds(learner, batch, repeats)
        home.append((taken, float(sum(at_home.sent[-workers:])), float(sum(map(len, at_home.answers)))))
    more = [(b - a) / 7 for a, b in zip(*home, strict=True)]
    of_task = (home[0][1] - more[1]) / tasks
    return Measured(name, tasks, model.ParameterCount, here, over, more[1], of_task, home[1][2] / 8, max(more[0], 0.0))


def show(console: Console, found: Sequence[Measured]) -> None:
    """Print what was measured, and what it leads to."""
    columns = ["workload", "parameters", "kB out a share", "kB out a task", "kB back a share", "ms at home a share"]
    rows = [
        [
            *(m.name, f"{m.parameters:,}"),
            *(f"{x / 1e3:.1f}" for x in (m.bytes_of_share, m.bytes_of_task, m.bytes_back)),
            f"{1e3 * m.home_of_share:.2f}",
        ]
        for m in found
    ]
    table(console, "A step over workers", columns, rows)
    rows = [
        [m.name, f"{1e3 * m.here:.1f}", *(f"{1e3 * m.over[w]:.1f}" for w in (1, 2))]
        + [f"{1e3 * m.projection(w):.1f}" for w in WORKERS]
        for m in found
    ]
    columns = ["workload", "one process", "over 1", "over 2", *(f"projected {w}" for w in WORKERS)]
    table(console, "Milliseconds a step", columns, rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--repeats", type=int, default=15)
    given = parser.parse_args()
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":
        parser.error("OPENBLAS_NUM_THREADS must be 1, so that one process takes one core")
    found = [measured(name, given.repeats) for name in WORKLOADS]
    show(Console(width=160), found)
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps([asdict(one) for one in found], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
