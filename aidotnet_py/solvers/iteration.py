"""One iteration of conjugate gradient as Programs in buffers: between them, products with the operator.

Nothing in it waits for the host: which rows still run is decided where the vectors are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.autodiff.extend import (
    Copy,
    Executable,
    Queue,
    Repeat,
    Run,
    Schedule,
    Step,
    run_to_compile_at,
    trace_once,
)
from aidotnet_py.backends import Array, Backend

__all__ = ["MOST", "BufferedOperator", "Iteration", "PreconditionedIteration"]

# BLAS shares out longer inner products among its threads, and how many there are would show in the last bits.
_DOT_BLOCK = 8192
# Rounds before the host looks, for an operator that never needs it.
MOST = 32


@dataclass(frozen=True)
class BufferedOperator:
    """v ↦ Av for stacked vectors, as a stage of an Executable that reads and writes buffers of its own.

    Attributes
    ----------
    backend : Backend
        Of the buffers.
    executable, stage : Executable, int
        Computes the product, once `prepare` was called.
    vectors, products : array, shape (tasks, n)
        The buffers of v and of Av.
    prepare : callable
        Makes the buffers those of this operator; called before each use of them.
    companions : dict
        The iterations that solvers keep for the next operator on the same buffers.
    queue : Queue
        Runs the work, or collects it for a device.
    """

    backend: Backend
    executable: Executable
    stage: int
    vectors: Array
    products: Array
    prepare: Callable[[], None]
    companions: dict[str, Iteration]
    queue: Queue

    def __call__(self, v: Array) -> Array:
        """Return the product; its array is valid until the next."""
        self.prepare()
        self.backend.copyto(self.vectors, v)
        self.executable.run(self.stage)
        return self.products

    def fits(self, rhs: Array) -> bool:
        """Return whether a right-hand side has the buffers' shape, dtype and backend."""
        backend, buffer = self.backend, self.vectors
        alike = backend.owns(rhs) and backend.dtype_of(rhs) == backend.dtype_of(buffer)
        return alike and tuple(rhs.shape) == tuple(buffer.shape)

    @property
    def iteration(self) -> Iteration:
        """Return conjugate gradient in these buffers."""
        if "conjugate gradient" not in self.companions:
            product = Run(self.executable, self.stage)
            self.companions["conjugate gradient"] = Iteration(self.backend, self.vectors, self.products, product)
        return self.companions["conjugate gradient"]


class Iteration:
    """One round of conjugate gradient: a product with the direction p, a step along it, the next direction.

    Parameters
    ----------
    backend : Backend
        Of all arrays.
    p, products : array, shape (tasks, n)
        What the operator reads and writes.
    product : Step
        Sets products to A p.
    most : int
        Rounds that may run before the host looks at their records.
    fuse : bool
        Whether the round may be compiled.
    patience : int
        The run at which a small one is; see `run_to_compile_at`.

    Attributes
    ----------
    p, x, r : array, shape (tasks, n)
        The direction, the solution so far and its residual.
    threshold : array, shape (tasks,)
        A row stops once its ‖r‖ is no greater.
    expected : int
        How many rounds the last solve took, at least 1.
    """

    def __init__(
        self,
        backend: Backend,
        p: Array,
        products: Array,
        product: Step,
        *,
        most: int = MOST,
        fuse: bool = True,
        patience: int = 2,
    ) -> None:
        self._allocate(backend, p, most)
        shared = [p, products, self.x, self.r, self._slopes, self._running, self._records, self.threshold]
        round_ = trace_once(_iterate, *shared)
        step = Executable(
            round_,
            backend,
            inputs=shared,
            carried={0: 0, 1: 2, 2: 3, 3: 4, 4: 5, 5: 6},
            fuse=fuse,
            compile_at=run_to_compile_at(round_, patience),
        )
        self._product, self._products = product, products
        self._begin = Executable(
            trace_once(_begin, self.r, self.threshold),
            backend,
            inputs=[self.r, self.threshold],
            outputs=[p, self.x, self._slopes, self._running],
            fuse=fuse,
        )
        self._executables = step, self._begin
        self._rounds = Schedule(backend, product, Run(step, 0))

    def _allocate(self, backend: Backend, p: Array, most: int) -> None:
        (tasks, n), dtype = p.shape, backend.dtype_of(p)
        self._backend, self.p, self.most, self.expected = backend, p, most, 1
        self.x, self.r = (backend.empty((tasks, n), dtype) for _ in range(2))
        self._slopes, self.threshold = (backend.empty((tasks,), dtype) for _ in range(2))
        self._running = backend.empty((tasks,), np.dtype(bool))
        # Of the last rounds, the latest last: pᵀAp, rᵀz before the step, rᵀr after it, 1 for rows that run on.
        self._records = backend.empty((most, 4, tasks), dtype)
        backend.copyto(self._records, 0)
        self._host_threshold: NDArray[Any] | None = None
        self._end: Executable | None = None
        # The first rounds of a solve from zero, by their number: at most `most`.
        self._solves: dict[int, Schedule] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers but the product's."""
        vectors: int = 3 * math.prod(self.p.shape) * self._backend.dtype_of(self.p).itemsize
        end = 0 if self._end is None else self._end.nbytes
        return vectors + end + sum(executable.nbytes for executable in self._executables)

    def compile(self) -> None:
        """Compile the round now, and wait for it."""
        for executable in self._executables:
            executable.compile()

    def set_threshold(self, values: NDArray[Any]) -> None:
        """Set the threshold; values that the array has already cost no transfer."""
        if self._host_threshold is None or not np.array_equal(values, self._host_threshold):
            self._host_threshold = None
            self._backend.copyto(self.threshold, self._backend.asarray(values))
            self._host_threshold = np.array(values)

    def first_rounds(self, limit: int) -> int:
        """Return the rounds before the host looks, at most ``limit``: those of the last solve.

        A row that has stopped is not moved by more.
        """
        return min(self.expected, self.most, limit)

    def begin(self, queue: Queue, rhs: Array, times: int) -> None:
        """Put so many rounds of a solve from zero into a queue."""
        if times not in self._solves:
            self._solves[times] = Schedule(self._backend, Run(self._begin, 0), Repeat(times, self._rounds))
        queue.run(Copy(self._backend, rhs, self.r), self._solves[times])

    def end(self, queue: Queue, rhs: Array) -> None:
        """Put into a queue a product that sets r to b − Ax."""
        if self._end is None:
            inputs = [self.r, self._products, self.x]
            self._end = Executable(trace_once(_end, *inputs), self._backend, inputs=inputs, carried={0: 0})
            self._measurement = Schedule(self._backend, self._product, Run(self._end, 0))
        queue.run(Copy(self._backend, self.x, self.p), Copy(self._backend, rhs, self.r), self._measurement)

    @property
    def ends(self) -> Array:
        """Return ‖x‖² and ‖b − Ax‖² after `end`, shape (2, tasks)."""
        assert self._end is not None
        return self._end.outputs[1]

    def restart(self, running: Array) -> None:
        """Begin at x and r, with the rows that run."""
        with self._backend.errors_ignored():
            self._backend.vecdot(self.r, self.r, out=self._slopes)
        self._direct(running, self.r)

    def stop_others(self, running: Array) -> None:
        """Stop all rows but those that run."""
        self._direct(running, self.p)

    def _direct(self, running: Array, directions: Array) -> None:
        backend = self._backend
        mask = backend.broadcast_to(backend.reshape(running, (*running.shape, 1)), tuple(self.p.shape))
        backend.copyto(self._running, running)
        backend.copyto(self.p, backend.elementwise("where")(mask, directions, 0.0))

    def run(self, times: int) -> Array:
        """Run so many rounds, at most `most`; return their records."""
        self._rounds.run(times)
        return self.latest(times)

    def latest(self, times: int) -> Array:
        """Return the records of the last rounds, (times, 4, tasks)."""
        return self._backend.index(self._records, (slice(self.most - times, None), slice(None), slice(None)))


class PreconditionedIteration(Iteration):
    """The round with a preconditioner: z = M⁻¹r first, then the direction, the product and the step.

    Parameters
    ----------
    precondition : Step
        Sets z to M⁻¹ of ``residuals``, which are r with zeros in rows that have stopped.
    residuals, z : array, shape (tasks, n)
        What the preconditioner reads and writes.
    """

    def __init__(
        self,
        backend: Backend,
        p: Array,
        products: Array,
        product: Step,
        precondition: Step,
        residuals: Array,
        z: Array,
        *,
        fuse: bool,
        patience: int,
    ) -> None:
        self._allocate(backend, p, 1)
        self._residuals = residuals
        towards = [p, z, residuals, self._slopes, self._running]
        turning = trace_once(_turn, *towards)
        compiling: dict[str, Any] = {"fuse": fuse, "compile_at": run_to_compile_at(turning, patience)}
        turn = Executable(turning, backend, inputs=towards, carried={0: 0, 1: 3}, **compiling)
        along = [p, products, self.x, self.r, self._slopes, self._running, self.threshold]
        advance = Executable(
            trace_once(_advance, *along),
            backend,
            inputs=along,
            outputs=[None, None, None, self._records, residuals],
            carried={0: 2, 1: 3, 2: 5},
            **compiling,
        )
        self._executables = turn, advance
        self._rounds = Schedule(backend, precondition, Run(turn, 0), product, Run(advance, 0))

    def restart(self, running: Array) -> None:
        """See `Iteration.restart`."""
        # The first turn adds z to nothing.
        self._backend.copyto(self._slopes, 1.0)
        self._direct(running, self.r)
        self._backend.copyto(self._residuals, self.p)
        self._backend.copyto(self.p, 0.0)


def _begin(r: Any, threshold: Any) -> list[Any]:
    """Return p, x, the slopes and the running rows of a solve from zero."""
    squares = _dots(r, r)
    running = (squares < math.inf) & (np.sqrt(squares) > threshold)
    return [np.where(_column(running), r, 0.0), np.zeros_like(r), squares, running]


def _end(r: Any, product: Any, x: Any) -> list[Any]:
    """Return b − Ax, where r is b, and the squares of x and of b − Ax."""
    r = r - product
    return [r, np.stack([_dots(x, x), _dots(r, r)])]


def _iterate(
    p: Any, product: Any, x: Any, r: Any, slopes: Any, running: Any, records: Any, threshold: Any
) -> list[Any]:
    """Return p, x, r, the slopes, the running rows and the records after a step along p."""
    x, r, running, curvatures, squares = _step(p, product, x, r, slopes, running, threshold)
    record = _record(curvatures, slopes, squares, running)
    records = record if records.shape[0] == 1 else np.concatenate([records[1:], record])
    return [_direction(p, r, slopes, squares, running), x, r, squares, running, records]


def _turn(p: Any, z: Any, residuals: Any, slopes: Any, running: Any) -> list[Any]:
    """Return the next direction and its slopes."""
    following = _dots(residuals, z)
    return [_direction(p, z, slopes, following, running), following]


def _advance(p: Any, product: Any, x: Any, r: Any, slopes: Any, running: Any, threshold: Any) -> list[Any]:
    """Return x, r, the running rows, the record and the running rows' residuals after a step along p."""
    x, r, running, curvatures, squares = _step(p, product, x, r, slopes, running, threshold)
    record = _record(curvatures, slopes, squares, running)
    return [x, r, running, record, np.where(_column(running), r, 0.0)]


def _record(curvatures: Any, slopes: Any, squares: Any, running: Any) -> Any:
    return np.stack([curvatures, slopes, squares, running.astype(slopes.dtype)])[None]


def _step(p: Any, product: Any, x: Any, r: Any, slopes: Any, running: Any, threshold: Any) -> tuple[Any, ...]:
    """Return x, r, the running rows, pᵀAp and rᵀr after a step along p."""
    curvatures = _dots(p, product)
    usable = running & (curvatures > 0.0) & (slopes > 0.0)
    alpha = _column(np.where(usable, slopes / curvatures, 0.0))
    r = r - product * alpha
    squares = _dots(r, r)
    # An infinite slope makes the squares infinite, or NaN, which no comparison holds for.
    sound = usable & (curvatures < math.inf) & (squares < math.inf)
    # 0·∞ is NaN: mask the step, so that the solution of a stopped row stays finite.
    x = x + np.where(_column(sound), p * alpha, 0.0)
    return x, r, sound & (np.sqrt(squares) > threshold), curvatures, squares


def _direction(p: Any, z: Any, slopes: Any, following: Any, running: Any) -> Any:
    """Return the direction after p, conjugate to those before it; zero for a row that has stopped."""
    beta = np.where(running, following / slopes, 0.0)
    return np.where(_column(running), p * _column(beta) + z, 0.0)


def _dots(x: Any, y: Any) -> Any:
    """Inner products of the rows of (tasks, n)."""
    tasks, n = x.shape
    whole = n - n % _DOT_BLOCK
    if whole == 0:
        return _products(x, y, (tasks,), n)
    blocks = (tasks, whole // _DOT_BLOCK)
    total = _products(x[:, :whole], y[:, :whole], blocks, _DOT_BLOCK).sum(axis=1)
    return total if whole == n else total + _products(x[:, whole:], y[:, whole:], (tasks,), n - whole)


def _products(x: Any, y: Any, shape: tuple[int, ...], length: int) -> Any:
    return (x.reshape((*shape, 1, length)) @ y.reshape((*shape, length, 1))).reshape(shape)


def _column(scalars: Any) -> Any:
    return scalars.reshape((*scalars.shape, 1))
