"""What a run's numbers may depend on beside its options: versions, processor, threads, devices."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any, cast

import numpy as np
from threadpoolctl import threadpool_info  # pyright: ignore[reportMissingTypeStubs] -- it has none

from aidotnet_py.cache_folder import cache_folder
from aidotnet_py.version import __version__

__all__ = ["environment"]

# Extras whose libraries no run uses.
_OF_NO_RUN = ("bench", "dev", "site", "testing")
_OF_BLAS = ("internal_api", "version", "architecture", "threading_layer", "num_threads")


def environment() -> dict[str, Any]:
    """Return versions, processor, BLAS kernels, threads and GPUs, in values that JSON can hold.

    Two runs with the same options have the same bits where these agree. CUDA is asked only if CuPy is installed.

    Examples
    --------
    >>> sorted(environment())
    ['aidotnet_py', 'blas', 'cache', 'gpus', 'libraries', 'platform', 'processors', 'python']
    """
    pools = [pool for pool in cast("list[dict[str, Any]]", threadpool_info()) if pool.get("user_api") == "blas"]
    return {
        "aidotnet_py": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "libraries": dict(_libraries()),
        "blas": [{name: pool[name] for name in _OF_BLAS if name in pool} for pool in pools],
        "gpus": _gpus(),
        "cache": _cache(),
    }


@cache
def _libraries() -> dict[str, str]:
    """Return the versions of NumPy, and of all libraries that the package's metadata name and that are installed."""
    try:
        required = requires("aidotnet-py") or []
    except PackageNotFoundError:
        # A checkout that is not installed.
        required = []
    found = {"numpy": np.__version__}
    for requirement in required:
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        if name not in found and not any(f'extra == "{extra}"' in requirement for extra in _OF_NO_RUN):
            with suppress(PackageNotFoundError):
                found[name] = version(name)
    return found


def _gpus() -> list[str]:
    if importlib.util.find_spec("cupy") is None:
        return []
    try:
        runtime: Any = importlib.import_module("cupy").cuda.runtime
        return [str(runtime.getDeviceProperties(device)["name"].decode()) for device in range(runtime.getDeviceCount())]
    # CUDA's own errors, of a machine without driver or device, have no common type outside CuPy.
    except Exception:
        return []


def _cache() -> str | None:
    """Return the folder of compiled kernels; None without the extra ``fast``."""
    try:
        return str(cache_folder("kernels"))
    except ImportError:
        return None
