"""Kernels as CUDA C++: the calls of a kernel, and the text of the module of their functions."""

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
    """Translate a kernel into calls of functions, in order, and products for a library."""
    calls: list[Launch | Product] = []
    waiting: list[LoopNest] = []
    for nest in kernel.nests:
        if isinstance(nest, Product):
            calls += _launches_of_all(waiting)
            calls += [nest] if is_for_library(nest) else product_launches(nest)
            waiting = []
        elif nest.sums or nest.maxima:
            # Fills that only initialise the targets of this nest are omitted: the nest itself starts from their values.
            clears = {place: fill for fill in waiting if (place := cleared_by(fill, nest)) is not None}
            left = [fill for fill in waiting if not any(fill is c for c in clears.values())]
            calls += _launches_of_all(left)
            calls += loop_launches(nest, cleared=frozenset(clears))
            waiting = []
        elif _is_fill(nest):
            waiting.append(nest)
        else:
            calls += _launches_of_all(waiting)
            calls += loop_launches(nest)
            waiting = []
    return [*calls, *_launches_of_all(waiting)]


def _launches_of_all(nests: Iterable[LoopNest]) -> list[Launch]:
    return [launch for nest in nests for launch in loop_launches(nest)]


def _is_fill(nest: LoopNest) -> bool:
    """Return whether a nest writes one operand and reads none."""
    written = nest.written
    return len(written) == 1 and not any(isinstance(r, Operand) for s in nest.steps for r in s.inputs)


def module_text(launches: Iterable[Launch]) -> str:
    """Return the text of a module that defines the functions of the calls, each once."""
    return PRELUDE + "".join({launch.module: launch.text for launch in launches}.values())
