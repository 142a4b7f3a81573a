"""Kernels, and the functions that call them, in the assembly language of LLVM."""

from aidotnet_py.backends.numpy.assembly.chains import SHARED, SHARED_BYTES, SHARED_CHAIN, chain_text, sharing_text
from aidotnet_py.backends.numpy.assembly.kernels import kernel_text
from aidotnet_py.backends.numpy.assembly.products import BLAS, SMALL_PRODUCTS, SmallDtype
from aidotnet_py.backends.numpy.assembly.small_products import small_product_text

__all__ = [
    "BLAS",
    "SHARED",
    "SHARED_BYTES",
    "SHARED_CHAIN",
    "SMALL_PRODUCTS",
    "SmallDtype",
    "chain_text",
    "kernel_text",
    "sharing_text",
    "small_product_text",
]
