"""The ways in which each contestant can be run, the fastest that was found first."""

from __future__ import annotations

__all__ = ["settings_of"]

_CONVOLUTIONS = {
    "ours": ("default",),
    "torch_eager": ("fused-2", "fused-1", "plain-2", "plain-1"),
    "torch_processes": ("fused-2", "plain-2"),
    "torch_func": ("plain-graph", "fused-graph", "plain-vjp", "plain-jvp"),
    "jax_jit": ("patches-vmap", "patches-shard", "patches-map", "nhwc-map", "nhwc-vmap", "nchw-map", "nchw-vmap"),
}
_DENSE = {
    "ours": ("default",),
    "torch_eager": ("fused-1", "fused-2"),
    "torch_processes": ("fused-2",),
    "torch_func": ("fused-graph", "fused-vjp", "fused-jvp"),
    "jax_jit": ("dense-vmap", "dense-shard", "dense-map"),
}


def settings_of(contestant: str, workload: str) -> tuple[str, ...]:
    """Of a contestant on a workload."""
    return (_DENSE if workload.startswith("sinusoid") else _CONVOLUTIONS)[contestant]
