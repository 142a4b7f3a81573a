"""The ways in which each contestant can be run, the fastest that was found first, and what its process is told."""

from __future__ import annotations

from benchmarks.workloads import parsed

__all__ = ["environment_of", "settings_of"]

_Settings = dict[str, tuple[str, ...]]

_CONVOLUTIONS: _Settings = {
    "ours": ("default",),
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
_LARGE_IMAGES: _Settings = {
    **_CONVOLUTIONS,
    "torch_func": ("conv-plain-vjp", "conv-fused-graph", "patches-plain-graph"),
    "jax_jit": ("patches-map", "patches-map2", "patches-vmap", "nhwc-map"),
}
# The windows of one task's queries take gigabytes.
_RESNET: _Settings = {
    "ours": ("default",),
    "torch_eager": ("conv-fused-2", "conv-plain-2"),
    "torch_processes": ("conv-fused-2", "conv-plain-2"),
    "torch_func": ("conv-plain-vjp", "conv-fused-graph"),
    "jax_jit": ("patches-map", "patches-map2", "patches-vmap", "nhwc-map"),
}
_DENSE: _Settings = {
    "ours": ("default",),
    "torch_eager": ("dense-1", "dense-2"),
    "torch_processes": ("dense-2",),
    "torch_func": ("dense-graph", "dense-vjp", "dense-jvp"),
    "jax_jit": ("dense-vmap", "dense-map", "dense-vmap2", "dense-map2"),
}

# On a GPU; in the order in which they are expected to be fast, until someone has tuned them on one.
_CONVOLUTIONS_CUDA: _Settings = {
    "ours": ("default",),
    "torch_eager": ("conv-fused-1", "conv-plain-1", "patches-plain-1"),
    "torch_func": ("patches-plain-graph", "conv-plain-graph", "conv-fused-graph", "patches-plain-vjp"),
    "jax_jit": ("patches-vmap", "nhwc-vmap", "nchw-vmap", "patches-vmap-unrolled", "nhwc-map"),
}
_DENSE_CUDA: _Settings = {
    "ours": ("default",),
    "torch_eager": ("dense-1",),
    "torch_func": ("dense-graph", "dense-vjp", "dense-jvp"),
    "jax_jit": ("dense-vmap", "dense-vmap-unrolled"),
}

_OF_DEVICE: dict[str, dict[str, _Settings]] = {
    "cpu": {"sinusoid": _DENSE, "omniglot": _CONVOLUTIONS, "mini": _LARGE_IMAGES, "resnet": _RESNET},
    "cuda": {
        "sinusoid": _DENSE_CUDA,
        "omniglot": _CONVOLUTIONS_CUDA,
        "mini": _CONVOLUTIONS_CUDA,
        "resnet": _CONVOLUTIONS_CUDA,
    },
}


def settings_of(contestant: str, workload: str, device: str = "cpu") -> tuple[str, ...]:
    """Of a contestant on a workload and a device; none if it does not take part."""
    name = parsed(workload)
    if name.method == "adapt" and contestant == "torch_processes":
        # One task cannot be shared out.
        return ()
    settings = _OF_DEVICE[device][name.family][contestant]
    if name.method == "maml" and contestant == "torch_func":
        # PyTorch's batch norm in one call has a wrong second derivative there: in float64, by 0.6 % of the whole.
        return tuple(setting for setting in settings if "fused" not in setting)
    return settings


def environment_of(contestant: str, device: str) -> dict[str, str]:
    """What a contestant's process finds in its environment beside what all find."""
    # JAX takes most of a GPU's memory when it starts, unless it is told; the others are alive beside it.
    return {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.4"} if (contestant, device) == ("jax_jit", "cuda") else {}
