"""The machine that measurements are of, and how fast it multiplies matrices."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["machine", "matmul_peak", "use_cores"]

_PACKAGES = ("numpy", "torch", "jax", "jaxlib", "aidotnet-py")


def use_cores(count: int) -> list[int]:
    """Keep this process, and all that it starts, on the first cores; returns which."""
    cores = sorted(os.sched_getaffinity(0))[:count]
    os.sched_setaffinity(0, cores)
    return cores


def matmul_peak(size: int = 2048, repeats: int = 40) -> float:
    """The most float32 FLOP/s that NumPy reaches in square matrix products."""
    a = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    b, out = a.T.copy(), np.empty_like(a)
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        np.matmul(a, b, out=out)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def machine(cores: list[int]) -> dict[str, Any]:
    """Processor, versions and commit, for whoever reads the numbers later."""
    return {
        "processor": _processor(),
        "cores": len(cores),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain")),
        "matmul_peak": matmul_peak(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return done.stdout.strip()
