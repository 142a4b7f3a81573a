"""aidotnet_py where OpenBLAS is told which kernels the processor can run (`ENVIRONMENT` of `benchmarks.settings`)."""

from benchmarks.contestants.ours import Contestant

__all__ = ["Contestant"]
