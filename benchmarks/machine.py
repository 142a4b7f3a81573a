"""The machine that measurements are of, and how fast it is."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np  # noqa: F401 -- its BLAS is to be among the libraries in `kernels`
from threadpoolctl import threadpool_info

from benchmarks.environment import taken_out

__all__ = ["described", "kernels", "machine", "use_cores"]

_PACKAGES = (
    *("numpy", "torch", "jax", "jaxlib", "aidotnet-py"),
    *("cupy-cuda12x", "cupy-cuda13x", "jax-cuda12-plugin", "jax-cuda13-plugin", "nvidia-cublas", "nvidia-cudnn-cu13"),
)
_ROOT = Path(__file__).parent.parent


def use_cores(count: int) -> list[int]:
    """Keep this process, and all that it starts, on the first cores; returns which."""
    cores = sorted(os.sched_getaffinity(0))[:count]
    os.sched_setaffinity(0, cores)
    return cores


def kernels() -> dict[str, str | None]:
    """The kernels that each library in this process chose for the processor, as far as it says."""
    found: dict[str, str | None] = {
        f"{library['internal_api']} {library['version']}": library.get("architecture")
        for library in threadpool_info()
        if library["user_api"] == "blas"
    }
    if "torch" in sys.modules:
        found["torch"] = sys.modules["torch"].backends.cpu.get_cpu_capability()
    return found


def machine(cores: list[int], device: str = "cpu") -> dict[str, Any]:
    """Processor and device, versions and commit, kernels and peaks, for whoever reads the numbers later."""
    versions = {name: _version(name) for name in _PACKAGES}
    return {
        "processor": _processor(),
        "cores": len(cores),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name, found in versions.items() if found is not None},
        "commit": _output("git", "rev-parse", "HEAD"),
        "uncommitted_changes": bool(_output("git", "status", "--porcelain")),
        "kernels": kernels(),
        "taken_out_of_the_environment": taken_out(),
        **_device(device),
    }


def described(about: dict[str, Any]) -> str:
    """The machine in some lines."""
    peaks = about["peaks"]
    chosen = ", ".join(f"{library} with {name} kernels" for library, name in about["kernels"].items())
    lines = [f"{about['processor']}, {about['cores']} cores; {chosen}; {about['versions']}"]
    if "gpu" in about:
        lines.insert(0, f"{about['gpu']}, driver {about['driver']}, CUDA {about['cuda']}")
    if about["taken_out_of_the_environment"]:
        lines.append(f"taken out of the environment, for everyone: {about['taken_out_of_the_environment']}")
    lines.append(f"{peaks['flops'] / 1e9:.0f} GFLOP/s in float32 products, {peaks['bandwidth'] / 1e9:.0f} GB/s copied")
    return "\n".join(lines)


def _device(device: str) -> dict[str, Any]:
    """What a process of its own says of the device, and what NVIDIA's tool says of the driver."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.peaks", device]
    done = subprocess.run(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    if device == "cuda":
        driver = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0")
        found["driver"] = driver or "unknown"
    return found


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


def _output(program: str, *arguments: str) -> str:
    """What a program prints; nothing where there is none."""
    if shutil.which(program) is None:
        return ""
    done = subprocess.run([program, *arguments], cwd=_ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()
