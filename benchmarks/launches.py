"""What a step asks of a GPU, whichever library asks: CUDA's own account, read through PyTorch's profiler."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

__all__ = ["launches", "recorded", "tally"]


def tally(events: Iterable[tuple[str, bool]], steps: int) -> dict[str, float]:
    """A step's kernels and copies on the device, and calls that launched a kernel or a whole graph.

    Of events, each a name and whether it took place on the device.
    """
    found = dict.fromkeys(("kernels", "copies", "kernel launches", "graph launches"), 0)
    for name, on_device in events:
        if on_device:
            found["copies" if name.startswith(("Memcpy", "Memset")) else "kernels"] += 1
        elif "GraphLaunch" in name:
            found["graph launches"] += 1
        elif "LaunchKernel" in name or "LaunchCooperativeKernel" in name:
            found["kernel launches"] += 1
    return {kind: count / steps for kind, count in found.items()}


def recorded(step: Callable[[], Any], steps: int) -> list[tuple[str, bool, float]]:
    """The events of so many steps: each one's name, whether it took place on the device, and its microseconds."""
    torch: Any = import_module("torch")
    profiler: Any = import_module("torch.profiler")
    kinds = profiler.ProfilerActivity
    on_gpu = bool(torch.cuda.is_available())
    with profiler.profile(activities=[kinds.CUDA if on_gpu else kinds.CPU]) as seen:
        for _ in range(steps):
            step()
    device = torch.autograd.DeviceType.CUDA
    return [(event.name, event.device_type == device, event.time_range.elapsed_us()) for event in seen.events()]


def launches(step: Callable[[], Any], steps: int = 3) -> dict[str, float]:
    """What a step launches, as `tally` counts it; nothing where PyTorch is missing or its profiler does not run."""
    try:
        return tally([(name, on_device) for name, on_device, _ in recorded(step, steps)], steps)
    # Whatever another library's profiler does not like: the times were measured, and matter more.
    except Exception as error:
        print(f"launches are not counted: {error}")
        return {}
