"""How fast a device multiplies and copies, and which GPU it is: ``python -m benchmarks.peaks cpu|cuda``.

JSON on one line; float32, by NumPy or CuPy. A process of its own, which leaves no memory taken and no thread waiting.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

__all__: list[str] = []


def _best(call: Callable[[], Any], finish: Callable[[], Any], repeats: int) -> float:
    """The least seconds of a call."""
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        finish()
        best = min(best, time.perf_counter() - began)
    return best


def _peaks(xp: Any, finish: Callable[[], Any], side: int, copied: int, repeats: int) -> dict[str, float]:
    """FLOP/s in products of square matrices, and bytes read or written a second in a copy of ``copied`` bytes."""
    a = xp.asarray(np.random.default_rng(0).standard_normal((side, side), dtype=np.float32))
    b, out = a.T.copy(), xp.empty_like(a)
    flops = 2 * side**3 / _best(lambda: xp.matmul(a, b, out=out), finish, repeats)
    source = xp.ones(copied // 4, np.float32)
    target = xp.empty_like(source)
    return {"flops": flops, "bandwidth": 2 * copied / _best(lambda: xp.copyto(target, source), finish, repeats)}


def _gpu(cupy: Any) -> dict[str, str]:
    """Its name and memory, and the versions of CUDA that CuPy was loaded with and that the driver can run."""
    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(runtime.getDevice())
    versions = (runtime.runtimeGetVersion(), runtime.driverGetVersion())
    loaded, newest = (f"{version // 1000}.{version % 1000 // 10}" for version in versions)
    return {
        "gpu": f"{properties['name'].decode()}, {properties['totalGlobalMem'] / 2**30:.0f} GiB",
        "cuda": f"{loaded} (of the driver: {newest})",
    }


def main() -> None:
    if sys.argv[1] == "cuda":
        cupy: Any = import_module("cupy")
        finish = cupy.cuda.get_current_stream().synchronize
        found = {"peaks": _peaks(cupy, finish, 8192, 2**31, 20)} | _gpu(cupy)
    else:
        found = {"peaks": _peaks(np, lambda: None, 2048, 2**28, 20)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
