"""The ways in which each contestant can be run, the fastest that was found first."""

from __future__ import annotations

__all__ = ["ENVIRONMENT", "settings_of"]

# What a contestant's process finds in its environment. NumPy's wheels carry an OpenBLAS that takes processors newer
# than itself for older ones: it then leaves AVX-512 unused, unless it is told.
ENVIRONMENT = {"ours_coretype": {"OPENBLAS_CORETYPE": "SkylakeX"}}

_CONVOLUTIONS = {
    "ours": ("default",),
    "ours_coretype": ("SkylakeX",),
    "torch_eager": ("conv-fused-2", "conv-fused-1", "conv-plain-2", "patches-plain-2", "patches-plain-1"),
    "torch_processes": ("conv-fused-2", "conv-plain-2", "patches-plain-2"),
    "torch_func": (
        "conv-fused-graph",
        "conv-plain-graph",
        "conv-plain-vjp",
        "conv-plain-jvp",
        "patches-plain-graph",
        "patches-plain-vjp",
    ),
    "jax_jit": (
        "patches-vmap2",
        "patches-map",
        "patches-map2",
        "patches-vmap",
        "nhwc-map",
        "nhwc-vmap",
        "nchw-map",
        "nchw-vmap",
    ),
}
_LARGE_IMAGES = {
    **_CONVOLUTIONS,
    "torch_func": ("conv-plain-vjp", "conv-fused-graph", "patches-plain-graph"),
    "jax_jit": ("patches-map", "patches-map2", "patches-vmap", "nhwc-map"),
}
_DENSE = {
    "ours": ("default",),
    "ours_coretype": ("SkylakeX",),
    "torch_eager": ("dense-1", "dense-2"),
    "torch_processes": ("dense-2",),
    "torch_func": ("dense-graph", "dense-vjp", "dense-jvp"),
    "jax_jit": ("dense-vmap", "dense-map", "dense-vmap2", "dense-map2"),
}


def settings_of(contestant: str, workload: str) -> tuple[str, ...]:
    """Of a contestant on a workload."""
    return {"sinusoid": _DENSE, "omniglot": _CONVOLUTIONS, "mini": _LARGE_IMAGES}[workload.split("-")[0]][contestant]
