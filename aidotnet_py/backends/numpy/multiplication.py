"""Which functions multiply matrices in this process: those of NumPy's own OpenBLAS, or our own for small matrices."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

import threadpoolctl  # pyright: ignore[reportMissingTypeStubs] -- it has none

from aidotnet_py.backends.kernel import Factor, Product
from aidotnet_py.backends.numpy.assembly import BLAS
from aidotnet_py.backends.numpy.blas_calls import BLAS_CALLS

__all__ = ["blas_addresses", "can_multiply", "multiplies_small"]


def can_multiply(product: Product) -> bool:
    """Return whether kernels can call a function for a product, with the bits of the backend's own product."""
    if product.small:
        return 1 in (product.y.rows, product.y.columns) and product.out.columns == 1
    return blas_addresses() is not None and _is_for_blas(product)


@cache
def multiplies_small() -> bool:
    """Return whether products by a small matrix are left to our function."""
    openblas = _openblas()
    known = openblas is not None and blas_addresses() is not None and openblas["architecture"] in _OF_32_BYTES
    # On Windows, a function may not take as much of the stack at once as this one without asking for it.
    return known and sys.platform != "win32"


# The processors for whose kernels OpenBLAS's products were compared with ours. Their vectors have 32 bytes, as ours.
_OF_32_BYTES = ("Haswell", "Zen")


@cache
def blas_addresses() -> tuple[int, ...] | None:
    """Return the addresses of the functions of `BLAS` in NumPy's own OpenBLAS; None for other builds of NumPy."""
    openblas = _openblas()
    if openblas is None:
        return None
    library = ctypes.CDLL(openblas["filepath"])
    try:
        functions = [getattr(library, f"scipy_cblas_{name}64_") for name in BLAS]
    except AttributeError:
        return None
    return tuple(ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions)


@cache
def _openblas() -> dict[str, Any] | None:
    """Return what threadpoolctl says of NumPy's own OpenBLAS; None for other builds of NumPy."""
    with BLAS_CALLS.lock:
        controller: Any = threadpoolctl.ThreadpoolController()
    libraries = [lib for lib in controller.info() if lib["prefix"] == "libscipy_openblas" and "64_" in lib["filepath"]]
    return libraries[0] if libraries else None


def _is_for_blas(product: Product) -> bool:
    """Return whether NumPy multiplies such matrices by gemm, gemv or dot; not so outer products and strided lines."""
    m, k, n = product.sizes
    x, y, out = product.x, product.y, product.out
    if m == n == 1:
        return k > 1 and x.columns > 0 and y.rows > 0
    if n == 1:
        return min(m, k) > 1 and _fits(x, m, k) and y.rows > 0
    if m == 1:
        return min(n, k) > 1 and _fits(y, k, n) and x.columns > 0
    lines = _fits(x, m, k) and _fits(y, k, n) and out.columns == 1 and out.rows >= n
    # NumPy multiplies a matrix by its own transpose with syrk.
    return k > 1 and lines and x.operand != y.operand


def _fits(factor: Factor, rows: int, columns: int) -> bool:
    return (factor.columns == 1 and factor.rows >= columns) or (factor.rows == 1 and factor.columns >= rows)
