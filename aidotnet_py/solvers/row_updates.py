"""Updates of stacked vectors by a scalar each: in blocks, or in one compiled pass where the backend can."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import Any, cast

from aidotnet_py.backends import Array, Backend, Compilation, Elementwise, KernelCompiler
from aidotnet_py.backends.kernel import Kernel, LoopNest, Operand, Step
from aidotnet_py.exceptions import InvalidOperationException

__all__ = ["RowUpdates"]

# Elements of a block: a few blocks fit into a core's own cache.
_BLOCK = 2**13
# Vectors of a shape that came that often will come again, and are worth compiling for.
_SOLVES_BEFORE_COMPILING = 4


class RowUpdates:
    """What a solve does to vectors (tasks, n) with scalars (tasks,); compiled or not, to the same bits.

    Parameters
    ----------
    backend : Backend
        Where the vectors are.
    tasks, n : int
        Their shape.
    dtype : dtype
        Of vectors and scalars.
    """

    def __init__(self, backend: Backend, tasks: int, n: int, dtype: Any) -> None:
        self._backend = backend
        self._tasks, self._n = tasks, n
        high, wide = max(1, _BLOCK // n), min(n, _BLOCK)
        self._spans = [
            (slice(i, min(i + high, tasks)), slice(j, min(j + wide, n)))
            for i in range(0, tasks, high)
            for j in range(0, n, wide)
        ]
        block = backend.empty((min(high, tasks), wide), dtype)
        self._scratch = [
            backend.index(block, (slice(0, i.stop - i.start), slice(0, j.stop - j.start))) for i, j in self._spans
        ]
        compiler = backend.compiler
        self._compiled = None if compiler is None else _compiled(cast("Hashable", compiler), tasks, n, dtype.name)
        self._bound: dict[Any, Callable[[], Any]] = {}
        self._functions = None if self._compiled is None else self._compiled.next()

    def subtract_multiple(self, target: Array, scalars: Array, source: Array) -> None:
        """Set target to target − scalars · source."""
        if not self._run(0, target, scalars, source):
            self._combine("subtract", target, scalars, source)

    def add_multiple(self, target: Array, scalars: Array, source: Array) -> None:
        """Set target to target + scalars · source."""
        if not self._run(1, target, scalars, source):
            self._combine("add", target, scalars, source)

    def scale_and_add(self, target: Array, scalars: Array, term: Array) -> None:
        """Set target to scalars · target + term."""
        if self._run(2, target, scalars, term):
            return
        multiply, add = self._backend.elementwise("multiply"), self._backend.elementwise("add")
        for into, factors, of in zip(*map(self._parts, (target, self._column(scalars), term)), strict=True):
            multiply(into, factors, out=into)
            add(into, of, out=into)

    def _combine(self, name: str, target: Array, scalars: Array, source: Array) -> None:
        multiply: Elementwise = self._backend.elementwise("multiply")
        combine = self._backend.elementwise(name)
        columns = self._column(scalars)
        blocks = zip(*map(self._parts, (target, columns, source)), self._scratch, strict=True)
        for into, factors, of, scratch in blocks:
            multiply(of, factors, out=scratch)
            combine(into, scratch, out=into)

    def _column(self, scalars: Array) -> Array:
        column = self._backend.reshape(scalars, (self._tasks, 1))
        return self._backend.broadcast_to(column, (self._tasks, self._n))

    def _parts(self, array: Array) -> list[Array]:
        return [self._backend.index(array, span) for span in self._spans]

    def _run(self, which: int, *arrays: Array) -> bool:
        """Whether a compiled pass is there, and has done it."""
        if self._functions is None or self._compiled is None:
            return False
        # Each time: an array may begin where another did that was laid out otherwise.
        if not all(map(self._is_plain, arrays)):
            return False
        addresses = tuple(map(self._compiled.address_of, arrays))
        call = self._bound.get((which, addresses))
        if call is None:
            call = self._bound[which, addresses] = self._functions[which](addresses)
        call()
        return True

    def _is_plain(self, array: Array) -> bool:
        """Whether the elements lie in C order, as the compiled passes take them to."""
        wanted = (1,) if len(array.shape) == 1 else (self._n, 1)
        return self._backend.strides_of(array) == wanted


class _Compiled:
    """The passes for vectors of one shape, compiled once they have been wanted a few times."""

    def __init__(self, compiler: KernelCompiler, tasks: int, n: int, dtype: str) -> None:
        self._compiler = compiler
        self._kernels = _kernels(tasks, n, dtype)
        self._wanted = 0
        self._compilation: Compilation | None = None
        self.address_of = compiler.address_of

    def next(self) -> Sequence[Callable[[Sequence[int]], Callable[[], Any]]] | None:
        """What binds each pass to addresses; None as long as there is nothing."""
        self._wanted += 1
        if self._compilation is None and self._wanted >= _SOLVES_BEFORE_COMPILING:
            self._compilation = self._compiler.submit(self._kernels)
        try:
            return None if self._compilation is None else self._compilation.result()
        except InvalidOperationException:
            # An Executable has the same trouble, and says so.
            return None


@lru_cache(maxsize=64)
def _compiled(compiler: Hashable, tasks: int, n: int, dtype: str) -> _Compiled | None:
    return _Compiled(cast("KernelCompiler", compiler), tasks, n, dtype) if dtype in ("float32", "float64") else None


def _kernels(tasks: int, n: int, dtype: str) -> list[Kernel]:
    target, scalar, other = Operand(0, dtype, (n, 1)), Operand(1, dtype, (1, 0)), Operand(2, dtype, (n, 1))
    multiple, scaled = Step("multiply", (other, scalar), dtype), Step("multiply", (target, scalar), dtype)
    passes = [
        (multiple, Step("subtract", (target, 0), dtype)),
        (multiple, Step("add", (target, 0), dtype)),
        (scaled, Step("add", (0, other), dtype)),
    ]
    return [Kernel((LoopNest((tasks, n), steps, ((target, 1),)),), 3) for steps in passes]
