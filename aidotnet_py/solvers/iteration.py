"""One iteration of conjugate gradient as a Program, in the buffers of an operator that works in place.

Nothing in it waits for the host: which rows still run is decided where the vectors are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from aidotnet_py.autodiff.extend import Copy, Executable, Queue, Repeat, Run, Schedule, trace_once
from aidotnet_py.backends import Array, Backend

__all__ = ["BufferedOperator", "Iteration"]

# BLAS shares out longer inner products among its threads, and how many there are would show in the last bits.
_DOT_BLOCK = 8192


@dataclass(frozen=True)
class BufferedOperator:
    """v ↦ Av for stacked vectors, as a stage of an Executable that reads and writes buffers of its own.

    Attributes
    ----------
    backend : Backend
        Where they are.
    executable, stage : Executable, int
        What computes the product, once `prepare` was called.
    vectors, products : array, shape (tasks, n)
        What it reads and writes.
    prepare : callable
        Sees to it that the buffers are those of this operator; called before each use of them.
    companions : dict
        What solvers keep for the next operator on the same buffers.
    queue : Queue
        What the work goes through.
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
        """The product; its array is valid until the next."""
        self.prepare()
        self.backend.copyto(self.vectors, v)
        self.executable.run(self.stage)
        return self.products

    def fits(self, rhs: Array) -> bool:
        """Whether such a right-hand side has the buffers' shape, dtype and backend."""
        backend, buffer = self.backend, self.vectors
        alike = backend.owns(rhs) and backend.dtype_of(rhs) == backend.dtype_of(buffer)
        return alike and tuple(rhs.shape) == tuple(buffer.shape)

    @property
    def iteration(self) -> Iteration:
        """Conjugate gradient in these buffers."""
        if "conjugate gradient" not in self.companions:
            self.companions["conjugate gradient"] = Iteration(self)
        return self.companions["conjugate gradient"]


class Iteration:
    """A product with p, and the step along it, as one round; p is what the operator reads.

    Attributes
    ----------
    p, x, r : array, shape (tasks, n)
        The direction, the solution so far and its residual.
    slopes : array, shape (tasks,)
        rᵀr.
    running : array of bool, shape (tasks,)
        Which rows move.
    threshold : array, shape (tasks,)
        A row stops once its ‖r‖ is no greater.
    records : array, shape (MOST, 3, tasks)
        Of the last rounds, the latest last: pᵀAp, rᵀr before it, rᵀr after it.
    expected : int
        How many rounds the last solve took; until one has, 1.
    """

    MOST = 32

    def __init__(self, operator: BufferedOperator) -> None:
        backend, vectors = operator.backend, operator.vectors
        tasks, n = vectors.shape
        dtype = backend.dtype_of(vectors)
        scalars, running = backend.empty((tasks,), dtype), backend.empty((tasks,), np.dtype(bool))
        records, threshold = backend.empty((self.MOST, 3, tasks), dtype), backend.empty((tasks,), dtype)
        self._backend = backend
        self._step = Executable(
            trace_once(_iterate, *[vectors] * 4, scalars, running, records, threshold),
            backend,
            inputs=[vectors, operator.products, *[None] * 6],
            carried={0: 0, 1: 2, 2: 3, 3: 4, 4: 5, 5: 6},
        )
        self.p, _, self.x, self.r, self.slopes, self.running, self.records, self.threshold = self._step.inputs
        backend.copyto(self.records, 0)
        self._begin = Executable(
            trace_once(_started, vectors, threshold),
            backend,
            inputs=[self.r, self.threshold],
            outputs=[self.p, self.x, self.slopes, self.running],
        )
        self.expected = 1
        self._rounds = Schedule(backend, Run(operator.executable, operator.stage), Run(self._step, 0))
        self.nbytes = self._step.nbytes + self._begin.nbytes + 2 * tasks * n * dtype.itemsize

    def run(self, times: int) -> Array:
        """Iterate so many times, at most MOST; returns their records."""
        self._rounds.run(times)
        return self.latest(times)

    def solve(self, queue: Queue, rhs: Array, times: int) -> None:
        """Put a whole solve from zero, of so many iterations, into a queue."""
        queue.run(Copy(self._backend, rhs, self.r), Run(self._begin, 0), Repeat(times, self._rounds))

    def latest(self, times: int) -> Array:
        """The records of the last iterations, (times, 3, tasks)."""
        return self._backend.index(self.records, (slice(self.MOST - times, None), slice(None), slice(None)))


def _started(r: Any, threshold: Any) -> list[Any]:
    """P, x, the slopes and who runs, before the first step."""
    squares = _dots(r, r)
    running = _finite(squares) & (np.sqrt(squares) > threshold)
    return [np.where(_column(running), r, 0.0), np.zeros_like(r), squares, running]


def _iterate(
    p: Any, product: Any, x: Any, r: Any, slopes: Any, running: Any, records: Any, threshold: Any
) -> list[Any]:
    """P, x, r, the slopes, who runs and the records, after a step along p."""
    curvatures = _dots(p, product)
    usable = running & (curvatures > 0.0) & (slopes > 0.0)
    alpha = _column(np.where(usable, slopes / curvatures, 0.0))
    # What is no number in a row that does not move would stay in it, 0·∞ being none, and the solution is to keep none.
    r = r - product * alpha
    squares = _dots(r, r)
    sound = usable & _finite(curvatures) & _finite(slopes) & _finite(squares)
    x = x + np.where(_column(sound), p * alpha, 0.0)
    running = sound & (np.sqrt(squares) > threshold)
    beta = _column(np.where(running, squares / slopes, 0.0))
    mask = _column(running)
    p = np.where(mask, p * beta, 0.0) + np.where(mask, r, 0.0)
    record = np.stack([curvatures, slopes, squares])
    return [p, x, r, squares, running, np.concatenate([records[1:], record[None]])]


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


def _finite(x: Any) -> Any:
    return np.abs(x) < math.inf
