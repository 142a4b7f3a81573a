"""Who competes. Each is imported in a process of its own, so that none pays for another's library.

The module of a contestant has a class ``Contestant``; the settings that it knows are in `benchmarks.settings`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads import Workload

__all__ = ["NAMES", "Contestant", "contestant_class"]

NAMES = ("ours", "ours_coretype", "torch_eager", "torch_processes", "torch_func", "jax_jit")


class Contestant(Protocol):
    """One way to do the work of a workload."""

    def __init__(self, workload: Workload, setting: str) -> None: ...

    def step(self) -> float:
        """One whole meta-training step on the batch; returns the mean query loss before the update."""
        ...

    def meta_gradient(self) -> NDArray[np.float64]:
        """The mean v of the last step, flat, in the order and layout of the workload's parameters."""
        ...

    def helpers(self) -> list[int]:
        """Process numbers of the helpers whose memory counts too."""
        ...


def contestant_class(name: str) -> Any:
    """The class of a contestant."""
    return import_module(f"benchmarks.contestants.{name}").Contestant
