"""Kernels as CUDA C++: the calls of a kernel, and the text of the module of their functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from aidotnet_py.backends.cuda.launch import Launch
from aidotnet_py.backends.cuda.loops import loop_launches
from aidotnet_py.backends.cuda.products import product_launches
from aidotnet_py.backends.cuda.reductions import cleared_by
from aidotnet_py.backends.cuda.rows import Item, Rows, runs_of_rows
from aidotnet_py.backends.cuda.steps import PRELUDE
from aidotnet_py.backends.kernel import Kernel, LoopNest, Operand, Product

__all__ = ["launches_of", "module_text"]


def launches_of(kernel: Kernel, is_for_library: Callable[[Product], bool]) -> list[Launch | Product]:
    """Translate a kernel into calls of functions, in order, and products for a library."""
    calls: list[Launch | Product] = []
    for item in runs_of_rows(list(_with_clears(kernel.nests))):
        if isinstance(item, Rows):
            calls.append(item.launch())
            continue
        nest, cleared = item
        if isinstance(nest, LoopNest):
            calls += loop_launches(nest, cleared=cleared)
        else:
            calls += [nest] if is_for_library(nest) else product_launches(nest)
    return calls


def _with_clears(nests: Iterable[LoopNest | Product]) -> Iterator[Item]:
    """Yield each nest with the targets that the fills before it clear, instead of these fills."""
    waiting: list[LoopNest] = []
    for nest in nests:
        if isinstance(nest, LoopNest) and _is_fill(nest):
            waiting.append(nest)
            continue
        # The nest itself starts from the values of fills that only initialise its targets.
        clears = [(fill, cleared_by(fill, nest) if isinstance(nest, LoopNest) else None) for fill in waiting]
        yield from ((fill, frozenset()) for fill, place in clears if place is None)
        yield nest, frozenset(place for _, place in clears if place is not None)
        waiting = []
    yield from ((fill, frozenset()) for fill in waiting)


def _is_fill(nest: LoopNest) -> bool:
    """Return whether a nest stores numbers alone, in one operand."""
    reads = any(isinstance(r, Operand) for s in nest.steps for r in s.inputs)
    return len(nest.stores) == len(nest.written) == 1 and not reads


def module_text(launches: Iterable[Launch]) -> str:
    """Return the text of a module that defines the functions of the calls, each once."""
    return PRELUDE + "".join({launch.module: launch.text for launch in launches}.values())
