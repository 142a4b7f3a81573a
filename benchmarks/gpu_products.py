"""Time every product of a step on a GPU, by cuBLAS and by our kernels: ``python -m benchmarks.gpu_products WORKLOAD``.

The table is what the choice between the two, and the sizes of tiles, are made from.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from aidotnet_py.backends import get_backend
from aidotnet_py.backends.cuda import compiler as cuda_compiler
from aidotnet_py.backends.cuda import products as cuda_products
from aidotnet_py.backends.cuda.cublas import gemms
from aidotnet_py.backends.cuda.source import launches_of
from aidotnet_py.backends.kernel import Kernel, Product
from benchmarks.contestants.ours import Contestant
from benchmarks.workloads import workload

__all__: list[str] = []

# The largest tile of our kernels; None is cuBLAS.
_WAYS = (None, 64, 32, 16)
_REPEATS = 20


def _products(name: str) -> list[tuple[Kernel, Product]]:
    """The distinct products of a step, each with its kernel, in the order in which they are compiled."""
    found: dict[Any, tuple[Kernel, Product]] = {}

    def recording(kernel: Kernel, is_for_library: Callable[[Product], bool]) -> Any:
        for nest in kernel.nests:
            if isinstance(nest, Product):
                found.setdefault((nest.shape, nest.sizes, *_layout(nest)), (kernel, nest))
        return launches_of(kernel, is_for_library)

    cuda_compiler.launches_of = recording  # type: ignore[attr-defined]  # a benchmark may look inside
    try:
        Contestant(workload(name), "default", "cuda").step()
    finally:
        cuda_compiler.launches_of = launches_of  # type: ignore[attr-defined]
    return list(found.values())


def _layout(product: Product) -> list[tuple[int, int]]:
    return [(factor.rows, factor.columns) for factor in (product.x, product.y, product.out)]


def _seconds(run: Callable[[], Any]) -> float:
    backend = get_backend("cupy")

    def work() -> None:
        for _ in range(_REPEATS):
            run()

    work()
    replay = backend.capture(work)
    assert replay is not None
    times: list[float] = []
    for _ in range(7):
        backend.synchronize()
        began = time.perf_counter()
        replay()
        backend.synchronize()
        times.append((time.perf_counter() - began) / _REPEATS)
    return float(np.median(times))


def _calls(kernels: Sequence[Kernel], way: int | None) -> Any:
    """The kernels compiled for one way: all of them by cuBLAS where it takes them, or all by ours."""
    compiler = get_backend("cupy").compiler
    assert isinstance(compiler, cuda_compiler.CudaCompiler)
    before = cuda_products._TILE, cuda_compiler.is_for_library
    cuda_products._TILE = before[0] if way is None else way
    cuda_compiler.is_for_library = lambda product: way is None and gemms(product) is not None
    try:
        return compiler.submit(kernels).result()
    finally:
        cuda_products._TILE, cuda_compiler.is_for_library = before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", nargs="+")
    for name in parser.parse_args().workload:
        products = _products(name)
        cupy: Any = import_module("cupy")
        # As many elements as any argument of these workloads reaches over.
        reach = 2**25 if name.startswith("sinusoid") else 2**28
        buffers = [cupy.random.default_rng(0).standard_normal(reach, dtype=np.float32) for _ in range(3)]
        alone = [Kernel((product,), kernel.arguments) for kernel, product in products]
        times: list[list[float]] = []
        for way in _WAYS:
            began = time.perf_counter()
            bind = _calls(alone, way)
            compiled = time.perf_counter() - began
            column: list[float] = []
            for kernel, one in zip(alone, bind, strict=True):
                (product,) = kernel.nests
                assert isinstance(product, Product)
                places = [int(buffers[0].data.ptr)] * kernel.arguments
                places[product.y.operand.argument] = int(buffers[1].data.ptr)
                places[product.out.operand.argument] = int(buffers[2].data.ptr)
                column.append(_seconds(one(places)))
            times.append(column)
            print(f"{name}: {way or 'cuBLAS'}: compiled in {compiled:.1f} s, run in {1e6 * sum(column):.0f} µs")
        head = " ".join(f"{way or 'cuBLAS':>8}" for way in _WAYS)
        print(f"{'batch':>12} {'m, k, n':>18} {'layout':>40} {head}")
        for (_, product), row in zip(products, zip(*times, strict=True), strict=True):
            cells = " ".join(f"{1e6 * t:8.1f}" for t in row)
            print(f"{product.shape!s:>12} {product.sizes!s:>18} {_layout(product)!s:>40} {cells}")


if __name__ == "__main__":
    main()
