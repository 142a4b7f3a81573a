"""PyTorch eager in single-threaded processes that live on and share the tasks out."""

# ruff: noqa: D102 -- documented by the protocol that they implement

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.contestants.torch_model import (
    Model,
    Parameters,
    examples,
    from_torch,
    task_meta_gradient,
    to_torch,
)
from benchmarks.workloads import Workload

__all__ = ["Contestant"]


def _serve(work: Workload, how: str, parameters: Parameters, mean: Parameters, part: slice, pipe: Connection) -> None:
    """A worker: when asked, its tasks' share of the mean v goes into shared memory, their losses into the pipe."""
    torch.set_num_threads(1)
    model = Model(work.network, how)
    tasks = list(zip(*(e[part] for e in examples(work, "cpu")), strict=True))
    while _asked(pipe):
        losses = 0.0
        for total in mean:
            total.zero_()
        for a, b, c, d in tasks:
            task_loss, v = task_meta_gradient(work, model, parameters, (a, b), (c, d))
            losses += float(task_loss)
            for total, piece in zip(mean, v, strict=True):
                total += piece / work.tasks
        pipe.send(losses)


def _asked(pipe: Connection) -> bool:
    """Wait for the next step; False when there will be none."""
    try:
        return bool(pipe.recv())
    except EOFError:
        return False


class Contestant:
    """A setting is how the network is computed (see `Model`), and the number of processes."""

    def __init__(self, workload: Workload, setting: str, device: str) -> None:
        if device != "cpu":
            raise SystemExit(f"processes share out a processor's cores; there is nothing to share out on {device!r}")
        how, _, number = setting.rpartition("-")
        count = int(number)
        self._work = workload
        self._parameters = to_torch(workload, device)
        self._means = [tuple(torch.zeros_like(p) for p in self._parameters) for _ in range(count)]
        for tensors in (self._parameters, *self._means):
            for tensor in tensors:
                tensor.share_memory_()
        context = multiprocessing.get_context("spawn")
        self._workers: list[multiprocessing.process.BaseProcess] = []
        self._pipes: list[Connection] = []
        for i, mean in enumerate(self._means):
            near, far = context.Pipe()
            part = slice(i, None, count)
            worker = context.Process(
                target=_serve, args=(workload, how, self._parameters, mean, part, far), daemon=True
            )
            worker.start()
            self._workers.append(worker)
            self._pipes.append(near)

    def step(self) -> float:
        for pipe in self._pipes:
            pipe.send(True)
        losses = sum(pipe.recv() for pipe in self._pipes)
        for p, *shares in zip(self._parameters, *self._means, strict=True):
            p -= self._work.meta_rate * sum(shares)
        return losses / self._work.tasks

    def outcome(self) -> NDArray[np.float64]:
        return from_torch(self._work, [sum(shares) for shares in zip(*self._means, strict=True)])

    def helpers(self) -> list[int]:
        return [worker.pid for worker in self._workers if worker.pid is not None]
