"""PyTorch eager, task by task, in one process."""

# ruff: noqa: D102 -- documented by the protocol that they implement

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.contestants.torch_model import (
    Model,
    Parameters,
    examples,
    finished,
    from_torch,
    task_meta_gradient,
    task_scores,
    to_torch,
)
from benchmarks.workloads import Workload

__all__ = ["Contestant"]


class Contestant:
    """A loop over tasks. A setting is how the network is computed (see `Model`), and the number of threads."""

    def __init__(self, workload: Workload, setting: str, device: str) -> None:
        how, _, threads = setting.rpartition("-")
        torch.set_num_threads(int(threads))
        self._work = workload
        self._model = Model(workload.network, how)
        self._parameters = to_torch(workload, device)
        self._examples = examples(workload, device)
        self._scores: Parameters = ()

    def step(self) -> float:
        if self._work.method == "adapt":
            self._scores = tuple(
                task_scores(self._work, self._model, self._parameters, (a, b), (c, d))
                for a, b, c, d in zip(*self._examples, strict=True)
            )
            return finished(self._scores[-1].flatten()[-1])
        tasks = self._work.tasks
        losses = torch.zeros((), device=self._parameters[0].device)
        mean = tuple(torch.zeros_like(p) for p in self._parameters)
        for a, b, c, d in zip(*self._examples, strict=True):
            loss, v = task_meta_gradient(self._work, self._model, self._parameters, (a, b), (c, d))
            losses = losses + loss
            for total, part in zip(mean, v, strict=True):
                total += part / tasks
        for p, v in zip(self._parameters, mean, strict=True):
            p -= self._work.meta_rate * v
        self._mean = mean
        return finished(losses) / tasks

    def outcome(self) -> NDArray[np.float64]:
        if self._work.method == "adapt":
            return torch.cat(self._scores).flatten().double().cpu().numpy()
        return from_torch(self._work, self._mean)

    def helpers(self) -> list[int]:
        return []
