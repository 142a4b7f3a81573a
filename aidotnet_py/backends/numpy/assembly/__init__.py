"""Kernels, and the functions that call them, in the assembly language of LLVM."""

from aidotnet_py.backends.numpy.assembly.chains import SHARED, SHARED_BYTES, chain_text, sharing_text
from aidotnet_py.backends.numpy.assembly.kernels import kernel_text
from aidotnet_py.backends.numpy.assembly.products import BLAS

__all__ = ["BLAS", "SHARED", "SHARED_BYTES", "chain_text", "kernel_text", "sharing_text"]
