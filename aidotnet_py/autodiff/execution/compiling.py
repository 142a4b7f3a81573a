"""From calls one by one to kernels: which calls of a plan are compiled together, and when they are ready."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeAlias

from aidotnet_py.autodiff.execution.buffers import CellArrays
from aidotnet_py.autodiff.execution.lowering import KernelBuilder
from aidotnet_py.autodiff.execution.planner import Plan, Work
from aidotnet_py.backends import Array, Backend, Compilation, KernelCompiler
from aidotnet_py.backends.kernel import Kernel

__all__ = ["Call", "Compiling", "Part"]

Call: TypeAlias = Callable[[], Any]


@dataclass(frozen=True)
class Part:
    """A call of a stage, and the planned calls that it stands for; whether a kernel is what it calls."""

    work: tuple[Work, ...]
    call: Call
    compiled: bool = False


@dataclass(frozen=True)
class _Submitted:
    """Planned calls that a kernel will stand for: its place among those submitted, and its arguments' addresses."""

    work: tuple[Work, ...]
    place: int
    addresses: Sequence[int]


# Work on so many bytes takes so long that a call of its own costs nothing, and parts that are alike are compiled once.
_LARGE = 2**20


def _bytes(work: Sequence[Work]) -> int:
    return max(cell.type.nbytes for call in work for cell in (call.out, *call.operands))


class Compiling:
    """The way of a plan's calls to compiled ones.

    Parameters
    ----------
    backend, planned, arrays
        What is run, and on what.
    merge : bool
        Whether units that follow each other become one kernel; apart, the time of each can be told.
    """

    def __init__(self, backend: Backend, planned: Plan, arrays: CellArrays, *, merge: bool) -> None:
        self._backend = backend
        self._planned = planned
        self._arrays = arrays
        self._merge = merge
        self._stages: list[list[Part | _Submitted]] = []
        self._compilation: Compilation | None = None

    @property
    def saved(self) -> int:
        """Bytes that only calls one by one need."""
        return sum(s.size * s.dtype.itemsize for s in self._planned.slots if s.internal)

    @property
    def kept(self) -> list[Array]:
        """The arrays that compiled calls need."""
        return self._arrays.kept()

    def begin(self, stages: Sequence[Sequence[Part]]) -> None:
        """Find the loops and products among the calls of each stage, and submit them."""
        compiler = self._backend.compiler
        if compiler is None or self._compilation is not None:
            return
        kernels: list[Kernel] = []
        self._stages = [self._split(compiler, parts, kernels) for parts in stages]
        self._compilation = compiler.submit(kernels)

    def _split(self, compiler: KernelCompiler, parts: Sequence[Part], kernels: list[Kernel]) -> list[Part | _Submitted]:
        found: list[Part | _Submitted] = []
        covered: list[Work] = []
        builder = KernelBuilder(self._backend, compiler, self._arrays)

        def close() -> None:
            nonlocal builder
            kernel = builder.kernel()
            if kernel is not None:
                found.append(_Submitted(tuple(covered), len(kernels), kernel[1]))
                kernels.append(kernel[0])
                covered.clear()
                builder = KernelBuilder(self._backend, compiler, self._arrays)

        for _, unit in groupby(parts, lambda part: part.work[0].unit):
            calls = list(unit)
            work = [one for part in calls for one in part.work]
            alone = not self._merge or _bytes(work) >= _LARGE
            if alone:
                close()
            if builder.add(work):
                covered += work
                if alone:
                    close()
            else:
                close()
                found += calls
        close()
        return found

    def finished(self, *, wait: bool) -> list[list[Part]] | None:
        """The calls of each stage, with kernels in the place of those that they stand for; None until all are ready."""
        functions = None if self._compilation is None else self._compilation.result(wait=wait)
        if functions is None:
            return None
        return [
            [p if isinstance(p, Part) else Part(p.work, functions[p.place](p.addresses), True) for p in parts]
            for parts in self._stages
        ]
