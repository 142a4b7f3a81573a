"""Iterations on Python functions, in buffers that a solve borrows and leaves to the next solve of its shape."""

from __future__ import annotations

from collections.abc import Generator, Hashable
from contextlib import contextmanager

from aidotnet_py.autodiff.extend import Call
from aidotnet_py.backends import Array, Backend
from aidotnet_py.locks import Lock
from aidotnet_py.solvers.iteration import Iteration, PreconditionedIteration
from aidotnet_py.solvers.rows import Operator, Rows

__all__ = ["borrowed_iteration"]

# Iterations of a small shape before it is compiled: those of a few solves.
_PATIENCE = 64
# Bounds on the buffers that wait for a solve.
_MOST_IDLE, _MOST_BYTES = 8, 2**24


class _Function:
    """A call that writes function(argument) to its result."""

    def __init__(self, backend: Backend, argument: Array, result: Array) -> None:
        self._backend, self._argument, self._result = backend, argument, result
        self.function: Operator | None = None

    def __call__(self) -> None:
        if self.function is not None:
            self._backend.copyto(self._result, self.function(self._argument))


class _Buffers:
    """An iteration, and the calls of the functions that each solve brings."""

    def __init__(self, key: Hashable, rows: Rows, *, is_preconditioned: bool) -> None:
        self.key = key
        compiler = rows.backend.compiler
        # Compiled work with bits of its own is compiled before its first run: too long a wait for a shape that may come
        # once.
        fuse = compiler is not None and not compiler.rules.own_bits
        backend, p, products = rows.backend, rows.empty(), rows.empty()
        self.product = _Function(backend, p, products)
        self.precondition: _Function | None = None
        step = Call(self.product)
        if is_preconditioned:
            residuals, z = rows.empty(), rows.empty()
            self.precondition = _Function(backend, residuals, z)
            self.iteration: Iteration = PreconditionedIteration(
                backend, p, products, step, Call(self.precondition), residuals, z, fuse=fuse, patience=_PATIENCE
            )
        else:
            self.iteration = Iteration(backend, p, products, step, most=1, fuse=fuse, patience=_PATIENCE)

    def bring(self, product: Operator | None, precondition: Operator | None) -> None:
        """Set the functions of a solve, or none."""
        self.product.function = product
        if self.precondition is not None:
            self.precondition.function = precondition


class _Pool:
    """Buffers that no solve works in, the last ones used at the end."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._idle: list[_Buffers] = []

    def take(self, key: Hashable) -> _Buffers | None:
        """Return the buffers of a shape last used, for one solve."""
        with self._lock:
            for place in reversed(range(len(self._idle))):
                if self._idle[place].key == key:
                    return self._idle.pop(place)
        return None

    def give_back(self, buffers: _Buffers) -> None:
        """Keep buffers for another solve; the ones that have waited longest go."""
        if buffers.iteration.nbytes > _MOST_BYTES:
            return
        with self._lock:
            self._idle.append(buffers)
            while len(self._idle) > _MOST_IDLE or sum(b.iteration.nbytes for b in self._idle) > _MOST_BYTES:
                self._idle.pop(0)


_POOL = _Pool()


@contextmanager
def borrowed_iteration(rows: Rows, product: Operator, precondition: Operator | None) -> Generator[Iteration]:
    """Lend an iteration on functions of rows for one solve; after an error its buffers are dropped."""
    is_preconditioned = precondition is not None
    key = (id(rows.backend), rows.tasks, rows.n, rows.dtype, is_preconditioned)
    buffers = _POOL.take(key) or _Buffers(key, rows, is_preconditioned=is_preconditioned)
    buffers.bring(product, precondition)
    yield buffers.iteration
    buffers.bring(None, None)
    _POOL.give_back(buffers)
