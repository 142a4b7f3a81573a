"""One look at a GPU, for `benchmarks.gpu_bringup`: its versions, a step beside NumPy's, or a step's kernels by name."""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.contestants.ours import Contestant
from benchmarks.flops import step_flops
from benchmarks.launches import recorded, tally
from benchmarks.workloads import workload

__all__: list[str] = []

_TOLERANCE = 1e-10


def versions() -> None:
    """Print what is installed, and the error of a product in float64."""
    cupy: Any = import_module("cupy")
    cupy.show_config()
    a = np.random.default_rng(0).standard_normal((256, 256))
    error = np.abs(cupy.asnumpy(cupy.asarray(a) @ cupy.asarray(a)) - a @ a).max()
    print(f"largest error of a 256³ product: {error:.1e}")
    if not error < 1e-11:
        raise SystemExit("the product is wrong")


def agree(name: str) -> None:
    """Compare meta-gradients in float64 with NumPy's, and those of a second learner, of which they have the bits."""
    work = workload(name, np.float64)
    host, device = Contestant(work, "default", "cpu"), Contestant(work, "default", "cuda")
    host.step()
    expected = host.outcome()
    gradients: list[Any] = []
    for turn in range(4):
        began = time.perf_counter()
        loss = device.step()
        gradients.append(device.outcome())
        distance = np.linalg.norm(gradients[-1] - expected) / np.linalg.norm(expected)
        print(f"{name}: step {turn}: {time.perf_counter() - began:.3f} s, loss {loss:.12g}, distance {distance:.1e}")
        # The steps move θ by 1e-6 of the gradient: from the first one on, NumPy's has to move along.
        host.step()
        expected = host.outcome()
        if not distance < _TOLERANCE:
            raise SystemExit(f"{name}: the distance must be below {_TOLERANCE}, got {distance:.3e}")
    again = Contestant(work, "default", "cuda")
    for turn, gradient in enumerate(gradients):
        again.step()
        if not np.array_equal(again.outcome(), gradient):
            raise SystemExit(f"{name}: step {turn} of a second learner gives other bits than that of the first")
    print(f"{name}: a second learner gives the same bits")


def profile(name: str, steps: int = 5) -> None:
    """Print a step's time, what it launches, how long the device is busy, and its kernels by name."""
    work = workload(name)
    ours = Contestant(work, "default", "cuda")

    def mean(count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            ours.step()
        return (time.perf_counter() - began) / count

    print(f"{name}: first step {mean(1):.1f} s")
    mean(5)
    seconds = mean(20)
    print(f"{name}: {1e3 * seconds:.3f} ms a step, {step_flops(work) / seconds / 1e12:.2f} TFLOP/s in products")
    events = recorded(ours.step, steps)
    counts = tally([(event, on_device) for event, on_device, _ in events], steps)
    print(f"{name}: a step has " + ", ".join(f"{count:.0f} {kind}" for kind, count in counts.items()))
    spans: dict[str, list[float]] = defaultdict(list)
    for event, on_device, microseconds in events:
        if on_device:
            spans[event].append(microseconds)
    print(f"{name}: the device is busy for {sum(map(sum, spans.values())) / steps / 1e3:.3f} ms of a step")
    for kernel, times in sorted(spans.items(), key=lambda pair: -sum(pair[1]))[:25]:
        print(f"{sum(times) / steps:9.1f} µs {len(times) / steps:7.1f} × {np.median(times):7.1f} µs  {kernel[:90]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("look", choices=("versions", "agree", "profile"))
    parser.add_argument("workload", nargs="?", default="sinusoid-4")
    options = parser.parse_args()
    if options.look == "versions":
        versions()
    elif options.look == "agree":
        agree(options.workload)
    else:
        profile(options.workload)


if __name__ == "__main__":
    main()
