"""Kernels as CUDA C++: which functions they call, and the text of a module that defines them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from aidotnet_py.backends.cuda.launch import Launch
from aidotnet_py.backends.cuda.loops import loop_launches
from aidotnet_py.backends.cuda.products import product_launches
from aidotnet_py.backends.cuda.reductions import cleared_by
from aidotnet_py.backends.cuda.steps import PRELUDE
from aidotnet_py.backends.kernel import Kernel, LoopNest, Operand, Product

__all__ = ["launches_of", "module_text"]


def launches_of(kernel: Kernel, is_for_library: Callable[[Product], bool]) -> list[Launch | Product]:
    """What a kernel does, one after another: calls of functions, and products that a library is to compute."""
    found: list[Launch | Product] = []
    waiting: list[LoopNest] = []
    for nest in kernel.nests:
        if isinstance(nest, Product):
            found += _all(waiting)
            found += [nest] if is_for_library(nest) else product_launches(nest)
            waiting = []
        elif nest.sums or nest.maxima:
            # What only clears the way for this nest is left out: it starts from there by itself.
            clears = {place: fill for fill in waiting if (place := cleared_by(fill, nest)) is not None}
            left = [fill for fill in waiting if not any(fill is c for c in clears.values())]
            found += _all(left)
            found += loop_launches(nest, cleared=frozenset(clears))
            waiting = []
        elif _is_fill(nest):
            waiting.append(nest)
        else:
            found += _all(waiting)
            found += loop_launches(nest)
            waiting = []
    return [*found, *_all(waiting)]


def _all(nests: Iterable[LoopNest]) -> list[Launch]:
    return [launch for nest in nests for launch in loop_launches(nest)]


def _is_fill(nest: LoopNest) -> bool:
    """Whether it writes without reading."""
    written = nest.written
    return len(written) == 1 and not any(isinstance(r, Operand) for s in nest.steps for r in s.inputs)


def module_text(launches: Iterable[Launch]) -> str:
    """One module with all functions that are called, each once."""
    return PRELUDE + "".join({launch.module: launch.text for launch in launches}.values())
