"""The environment that everything is measured in: without what would choose a library's kernels for it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping

__all__ = ["measure_unforced", "taken_out", "unforced"]

# Whoever wants results to be the same on every machine sets some of these, and slows down the libraries that heed them.
_FORCING = (
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "NVPL_BLAS_DEBUG_CPU_TYPE",
    "BLIS_ARCH_TYPE",
    "BLIS_MODEL_TYPE",
    "MKL_CBWR",
    "MKL_DEBUG_CPU_TYPE",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "ONEDNN_CPU_ISA_HINTS",
    "DNNL_MAX_CPU_ISA",
    "DNNL_CPU_ISA_HINTS",
    "ATEN_CPU_CAPABILITY",
    "NPY_DISABLE_CPU_FEATURES",
    "NPY_ENABLE_CPU_FEATURES",
    "NVIDIA_TF32_OVERRIDE",
    "CUPY_TF32",
)
# Of the many flags in one variable, those of this kind.
_XLA_FLAGS, _XLA_FORCING = "XLA_FLAGS", ("--xla_cpu_max_isa", "--xla_cpu_prefer_vector_width")
# Where a program that was started anew finds what it was started without.
_NOTE = "AIDOTNET_BENCHMARKS_TAKEN_OUT"


def unforced(environment: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The environment without what forces a choice of kernels, and what was taken out of it."""
    kept = {name: value for name, value in environment.items() if name not in _FORCING}
    out = {name: value for name, value in environment.items() if name in _FORCING}
    flags = environment.get(_XLA_FLAGS, "").split()
    forcing = [flag for flag in flags if flag.startswith(_XLA_FORCING)]
    if forcing:
        kept[_XLA_FLAGS] = " ".join(flag for flag in flags if flag not in forcing)
        out[_XLA_FLAGS] = " ".join(forcing)
    return kept, out


def measure_unforced() -> None:
    """Start this program anew if something forces a choice of kernels: on itself, and on all processes it will start.

    Every ``main`` calls it first; libraries read their variables when they are loaded, once.
    """
    kept, out = unforced(os.environ)
    if out:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], kept | {_NOTE: json.dumps(out)})


def taken_out() -> dict[str, str]:
    """What `measure_unforced` took out."""
    found: dict[str, str] = json.loads(os.environ.get(_NOTE, "{}"))
    return found
