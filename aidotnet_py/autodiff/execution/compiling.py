"""Compilation of planned calls: which calls become one kernel, and when kernels replace their calls."""

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
    """A call of a stage, and the planned calls that it makes; ``compiled`` if the call runs a kernel."""

    work: tuple[Work, ...]
    call: Call
    compiled: bool = False


@dataclass(frozen=True)
class _Submission:
    """Planned calls submitted as one kernel: its place among the submitted kernels, and its arguments' addresses."""

    work: tuple[Work, ...]
    place: int
    addresses: Sequence[int]


# Work on an array of at least so many bytes becomes a kernel of its own: the extra call costs nothing beside the
# work, and kernels that are equal are compiled once.
_LARGE = 2**20


def _bytes(work: Sequence[Work]) -> int:
    return max(cell.type.nbytes for call in work for cell in (call.out, *call.operands))


class Compiling:
    """Compilation of a plan's calls into kernels.

    Parameters
    ----------
    backend, planned, arrays
        The backend, the plan to compile, and the arrays of its cells.
    merge : bool
        Whether consecutive units become one kernel; False keeps units apart, so that each can be timed.
    """

    def __init__(self, backend: Backend, planned: Plan, arrays: CellArrays, *, merge: bool) -> None:
        self._backend = backend
        self._planned = planned
        self._arrays = arrays
        self._merge = merge
        self._stages: list[list[Part | _Submission]] = []
        self._compilation: Compilation | None = None

    @property
    def internal_nbytes(self) -> int:
        """Bytes of the internal slots, which only uncompiled calls need."""
        return sum(s.size * s.dtype.itemsize for s in self._planned.slots if s.internal)

    @property
    def kernel_arrays(self) -> list[Array]:
        """The arrays that kernels read and write."""
        return self._arrays.kernel_arrays()

    def begin(self, stages: Sequence[Sequence[Part]]) -> None:
        """Submit the loops and products of each stage to the compiler, once."""
        compiler = self._backend.compiler
        if compiler is None or self._compilation is not None:
            return
        kernels: list[Kernel] = []
        self._stages = [self._split(compiler, parts, kernels) for parts in stages]
        self._compilation = compiler.submit(kernels)

    def _split(
        self, compiler: KernelCompiler, parts: Sequence[Part], kernels: list[Kernel]
    ) -> list[Part | _Submission]:
        split: list[Part | _Submission] = []
        covered: list[Work] = []
        builder = KernelBuilder(self._backend, compiler, self._arrays)

        def close() -> None:
            nonlocal builder
            kernel = builder.kernel()
            if kernel is not None:
                split.append(_Submission(tuple(covered), len(kernels), kernel[1]))
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
                split += calls
        close()
        return split

    def collect(self, *, wait: bool) -> list[list[Part]] | None:
        """Return the parts of each stage, with kernels in place of their calls; None until all kernels are ready."""
        functions = None if self._compilation is None else self._compilation.result(wait=wait)
        if functions is None:
            return None
        return [
            [p if isinstance(p, Part) else Part(p.work, functions[p.place](p.addresses), True) for p in parts]
            for parts in self._stages
        ]
