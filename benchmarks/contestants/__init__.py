"""Who competes. Each is imported in a process of its own, so that none pays for another's library.

The module of a contestant has a class ``Contestant``; the settings that it knows are in `benchmarks.settings`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads import Workload

__all__ = ["BACKENDS", "NAMES", "NAMES_CUDA", "Contestant", "contestant_class", "lacking"]

NAMES = ("ours", "torch_eager", "torch_processes", "torch_func", "jax_jit")
NAMES_CUDA = ("ours", "torch_eager", "torch_func", "jax_jit")

_ROOT = Path(__file__).parent.parent.parent

# Of ours, by device.
BACKENDS = {"cpu": "numpy", "cuda": "cupy"}


class Contestant(Protocol):
    """One way to do the work of a workload, on "cpu" or "cuda"; in float32, products are of float32 on either."""

    def __init__(self, workload: Workload, setting: str, device: str) -> None: ...

    def step(self) -> float:
        """One whole step on the batch, to its end; returns the mean query loss before the update, or a score."""
        ...

    def outcome(self) -> NDArray[np.float64]:
        """What all must agree in, of the last step, flat.

        The mean meta-gradient, in the order and layout of the workload's parameters; of "adapt", the scores.
        """
        ...

    def helpers(self) -> list[int]:
        """Process numbers of the helpers whose memory counts too."""
        ...


def contestant_class(name: str) -> Any:
    """The class of a contestant."""
    return import_module(f"benchmarks.contestants.{name}").Contestant


# What fails where a contestant's library is missing, or its device.
_PROBES = {
    "ours": "from aidotnet_py.backends import get_backend; get_backend({backend!r}).asarray(0.0)",
    "torch": "import torch; torch.zeros(1, device={device!r})",
    "jax": "import jax; jax.devices({device!r})",
}


def lacking(contestants: Iterable[str], device: str) -> dict[str, str]:
    """Those that cannot run on the device here, and why, in a line."""
    libraries = {name: name.split("_")[0] for name in contestants}
    found: dict[str, str] = {}
    probes = {
        library: _PROBES[library].format(device=device, backend=BACKENDS[device]) for library in libraries.values()
    }
    processes = {
        library: subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code], cwd=_ROOT, stderr=subprocess.PIPE, text=True
        )
        for library, code in probes.items()
    }
    for library, process in processes.items():
        said = process.communicate()[1].strip()
        if process.returncode:
            found[library] = said.splitlines()[-1] if said else f"exit status {process.returncode}"
    return {name: found[library] for name, library in libraries.items() if library in found}
