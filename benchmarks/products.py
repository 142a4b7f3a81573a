"""Products by small matrices, by our function and by BLAS: ``python -m benchmarks.products``.

On one core, from machine code, float32. The last column has the choice of `is_small_product`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console

from aidotnet_py.backends.kernel import Factor, Kernel, Operand, Product, is_small_product
from aidotnet_py.backends.numpy.blas_threads import ONE_THREAD
from aidotnet_py.backends.numpy.llvm import LlvmCompiler, shared_compiler
from benchmarks.environment import measure_unforced
from benchmarks.machine import use_cores
from benchmarks.report import table

__all__: list[str] = []

# What multiplies, and m, k and n, once for each derivative: x @ y, x @ yᵀ, xᵀ @ y.
_SHAPES = [
    *(("layer, 10 examples", layout, 10, 40, 40) for layout in ("", "y")),
    ("its weights", "x", 40, 10, 40),
    *(("layer, 25 examples", layout, 25, 128, 128) for layout in ("", "y")),
    ("its weights", "x", 128, 25, 128),
    ("tiles, 32 filters", "", 1764, 32, 32),
    ("tiles, 32 filters", "y", 1764, 32, 32),
    ("their weights", "x", 32, 1764, 32),
    ("windows, 32 filters", "", 7056, 27, 32),
    ("their weights", "x", 27, 7056, 32),
    ("tiles, 64 filters", "", 441, 64, 64),
    ("their weights", "x", 64, 441, 64),
    ("windows, 64 filters", "", 245, 576, 64),
    ("their weights", "x", 576, 245, 64),
    ("head, 5 classes", "", 75, 1600, 5),
    ("its weights", "x", 1600, 75, 5),
]
# Elements of all operands: they stay in the second cache.
_ELEMENTS = 60_000


def _kernel(layout: str, m: int, k: int, n: int, *, small: bool) -> Kernel:
    """The kernel of some products, with x or y transposed."""
    count = max(1, _ELEMENTS // (m * k + k * n + m * n))
    x = Factor(Operand(0, "float32", (m * k,)), *((1, m) if layout == "x" else (k, 1)))
    y = Factor(Operand(1, "float32", (k * n,)), *((1, k) if layout == "y" else (n, 1)))
    out = Factor(Operand(2, "float32", (m * n,)), n, 1)
    return Kernel((Product((count,), (m, k, n), x, y, out, small),), 3)


def _gigaflops(compiler: LlvmCompiler, kernel: Kernel) -> float:
    (product,) = kernel.nests
    assert isinstance(product, Product)
    (count,), (m, k, n) = product.shape, product.sizes
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(count * size, np.float32) for size in (m * k, k * n, m * n)]
    functions = compiler.submit([kernel]).result(wait=True)
    assert functions is not None
    call = functions[0]([compiler.address_of(array) for array in arrays])
    return 2 * count * m * k * n / _least_seconds(call) / 1e9


def _least_seconds(call: Callable[[], Any]) -> float:
    seconds: list[float] = []
    end = time.perf_counter() + 0.3
    while (began := time.perf_counter()) < end:
        call()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def main() -> None:
    measure_unforced()
    use_cores(1)
    compiler, rows = shared_compiler(), list[list[str]]()
    if compiler is None:
        raise SystemExit('llvmlite must be installed, got none; pip install "aidotnet_py[fast]"')
    for what, layout, *sizes in _SHAPES:
        m, k, n = sizes
        with ONE_THREAD.stay():
            own, blas = (_gigaflops(compiler, _kernel(layout, m, k, n, small=small)) for small in (True, False))
        shape = f"{m}×{k}{'ᵀ' * (layout == 'x')} · {k}×{n}{'ᵀ' * (layout == 'y')}"
        choice = "ours" if is_small_product(k, n) else "BLAS"
        rows.append([what, shape, f"{own:.0f}", f"{blas:.0f}", f"{own / blas:.2f}", choice])
    table(Console(), "GFLOP/s of one core", ["product", "shapes", "ours", "BLAS", "ratio", "chosen"], rows)


if __name__ == "__main__":
    main()
