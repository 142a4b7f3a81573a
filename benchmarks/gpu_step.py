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
    """Compare meta-gradients in float64 with NumPy's, and those of three captured steps with each other."""
    work = workload(name, np.float64)
    host, device = Contestant(work, "default", "cpu"), Contestant(work, "default", "cuda")
    host.step()
    expected = host.meta_gradient()
    gradients: list[Any] = []
    for turn in range(4):
        began = time.perf_counter()
        loss = device.step()
        gradients.append(device.meta_gradient())
        distance = np.linalg.norm(gradients[-1] - expected) / np.linalg.norm(expected)
        print(f"{name}: step {turn}: {time.perf_counter() - began:.3f} s, loss {loss:.12g}, distance {distance:.1e}")
        # The steps move θ by 1e-6 of the gradient: from the first one on, NumPy's has to move along.
        host.step()
        expected = host.meta_gradient()
        if not distance < _TOLERANCE:
            raise SystemExit(f"{name}: the distance must be below {_TOLERANCE}, got {distance:.3e}")
    again = Contestant(work, "default", "cuda")
    for turn, gradient in enumerate(gradients):
        again.step()
        if not np.array_equal(again.meta_gradient(), gradient):
            raise SystemExit(f"{name}: step {turn} of a second learner gives other bits than that of the first")
    print(f"{name}: a second learner gives the same bits")


def profile(name: str, steps: int = 5) -> None:
    """Print a step's time, the time of its kernels by name, and the gaps between them."""
    torch, profiler = import_module("torch"), import_module("torch.profiler")
    work = workload(name)
    ours = Contestant(work, "default", "cuda")
    began = time.perf_counter()
    ours.step()
    print(f"{name}: first step {time.perf_counter() - began:.1f} s")
    for _ in range(5):
        ours.step()
    began = time.perf_counter()
    for _ in range(20):
        ours.step()
    seconds = (time.perf_counter() - began) / 20
    print(f"{name}: {1e3 * seconds:.3f} ms a step, {step_flops(work) / seconds / 1e12:.2f} TFLOP/s in products")
    with profiler.profile(activities=[profiler.ProfilerActivity.CUDA]) as seen:
        for _ in range(steps):
            ours.step()
    on_device = torch.autograd.DeviceType.CUDA
    spans: dict[str, list[float]] = defaultdict(list)
    launches: dict[str, int] = defaultdict(int)
    for event in seen.events():
        if event.device_type == on_device:
            spans[event.name].append(event.time_range.elapsed_us())
        elif "Launch" in event.name or "Memcpy" in event.name:
            launches[event.name] += 1
    busy = sum(map(sum, spans.values())) / steps
    count = sum(map(len, spans.values())) / steps
    print(f"{name}: {count:.0f} kernels and copies a step, busy {busy / 1e3:.3f} ms of {1e3 * seconds:.3f} ms")
    print(f"{name}: calls a step: " + ", ".join(f"{k} {n / steps:.1f}" for k, n in launches.items()))
    for kernel, times in sorted(spans.items(), key=lambda pair: -sum(pair[1]))[:25]:
        print(f"{sum(times) / steps:9.1f} µs {len(times) / steps:7.1f} × {np.median(times):7.1f} µs  {kernel[:90]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("look", choices=("versions", "agree", "profile"))
    parser.add_argument("workload", nargs="?", default="sinusoid-4")
    options = parser.parse_args()
    if options.look == "versions":
        versions()
    else:
        {"agree": agree, "profile": profile}[options.look](options.workload)


if __name__ == "__main__":
    main()
