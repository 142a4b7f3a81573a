"""The linear system of iMAML, (I + λH) v = g for every task: how the options say that it is solved."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, cast

import numpy as np

from aidotnet_py.backends import Array, Backend
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning.algorithms.imaml.options import iMAMLOptions
from aidotnet_py.meta_learning.objective.chunk import Chunk
from aidotnet_py.meta_learning.objective.stacking import row_views, stack_rows
from aidotnet_py.solvers import Operator, SolverReport, StopReason, conjugate_gradient, neumann_series
from aidotnet_py.solvers.conjugate_gradient import begin_in_place, finish_in_place
from aidotnet_py.solvers.iteration import BufferedOperator, Iteration

__all__ = ["ImplicitSystem", "Solve", "WarmStarts", "name_of_task", "probes_for"]

# Bytes of solutions that are kept to start the next solves from, beyond which the oldest go.
_MOST_BYTES = 2**28


def name_of_task(one: object, place: int = 0) -> str:
    """A TaskId as a name that tells numbers from strings and that a file can hold; ArgumentException for others."""
    if isinstance(one, str) and one.isprintable():
        return f"str:{one}"
    if not isinstance(one, bool) and isinstance(one, Integral) and abs(int(one)) < 2**63:
        return f"int:{int(one)}"
    raise ArgumentException(
        f"TaskId of task {place} is {one!r:.80}; with WarmStartSolves a whole number or a printable string is wanted"
    )


class WarmStarts:
    """The last solution of each task, by its TaskId, for the next solve of the same task."""

    def __init__(self) -> None:
        self._solutions: OrderedDict[str, Array] = OrderedDict()

    def rows(self, backend: Backend, ids: Sequence[int | str], like: Array) -> Array:
        """Where to start for these tasks, an array like the right-hand side: zeros for a task never seen."""
        nothing = backend.empty((like.shape[1],), backend.dtype_of(like))
        backend.copyto(nothing, 0)
        known = [self._solutions.get(name_of_task(one), nothing) for one in ids]
        return stack_rows(backend, [row if _alike(backend, row, nothing) else nothing for row in known])

    def keep(self, backend: Backend, ids: Sequence[int | str], solutions: Array) -> None:
        """Take note of the solutions of these tasks."""
        for one, row in zip(ids, row_views(backend, solutions), strict=True):
            name = name_of_task(one)
            self._solutions[name] = backend.asarray(row)
            self._solutions.move_to_end(name)
        row_bytes = solutions.shape[1] * backend.dtype_of(solutions).itemsize
        while len(self._solutions) * row_bytes > max(_MOST_BYTES, row_bytes):
            self._solutions.popitem(last=False)

    def state(self) -> dict[str, Array]:
        """By name."""
        return dict(self._solutions)

    def set_state(self, state: Mapping[str, Array], like: Array, backend: Backend) -> None:
        """Take up what `state` gave, for vectors like this one."""
        found = OrderedDict((name, backend.asarray(row)) for name, row in state.items())
        for name, row in found.items():
            if not _alike(backend, row, like):
                came, wanted = (f"{backend.dtype_of(a)}{tuple(a.shape)}" for a in (row, like))
                raise ArgumentException(f"the solution {name} is {came}; {wanted} is wanted")
        self._solutions = found


def _alike(backend: Backend, one: Array, other: Array) -> bool:
    return tuple(one.shape) == tuple(other.shape) and backend.dtype_of(one) == backend.dtype_of(other)


@dataclass(frozen=True)
class Solve:
    """What a solver came to, (tasks, P), and its report; the solution is v itself, or what v comes from."""

    solutions: Array
    report: SolverReport


@dataclass(frozen=True)
class Begun:
    """A system of which the work at the points is done: support gradients, operator, right-hand side.

    ``root`` is D^½ where each parameter has a λ of its own; ``waits`` is whether a device has solved it.
    """

    slopes: Array
    operator: Operator
    rhs: Array
    root: Array | None
    waits: bool


@dataclass(frozen=True)
class ImplicitSystem:
    """(I + λH) v = g where all parameters share a λ, and its counterpart where each has one of its own.

    With D = diag(λ) the meta-gradient is v = D⁻¹(H + D⁻¹)⁻¹g. That is v = D^{-½}y, where y solves the symmetric system
    (I + D^½HD^½) y = D^½g.

    Attributes
    ----------
    options : iMAMLOptions
        Curvature, solver, damping.
    lam : float or array, shape (P,)
        λ.
    probes : array, shape (probes, P), or None
        Signs, with which the diagonal is estimated that preconditions the solve.
    warm : WarmStarts or None
        Where solves start from; None for zero.
    """

    options: iMAMLOptions[Any, Any, Any]
    lam: Array | float
    probes: Array | None
    warm: WarmStarts | None

    def begin(self, chunk: Chunk, points: Array, gradients: Array) -> Begun | None:
        """Do the work that a solve at these points begins with; on a device, put the whole solve into its queue."""
        if self.options.UseFirstOrder:
            return None
        root = None if isinstance(self.lam, float) else chunk.backend.elementwise("sqrt")(self.lam)
        slopes, operator = self._operator(chunk, points, root)
        rhs = gradients if root is None else gradients * root
        waits = False
        if isinstance(operator, BufferedOperator) and operator.queue.is_waiting and self.is_plain:
            waits = True
            begin_in_place(operator, rhs, iterations=self._iterations, atol=self._atol)
        return Begun(slopes, operator, rhs, root, waits)

    def finish(
        self, chunk: Chunk, points: Array, gradients: Array, begun: Begun | None
    ) -> tuple[Array, Array, Solve | None]:
        """Return the support gradients at φ, v for every task, and the solve."""
        if begun is None:
            v = chunk.backend.asarray(gradients)
            return chunk.support.evaluate(points).gradients, v, None
        y, report = self._solve(chunk, begun)
        chunk.require_sound("solve", ~report.stopped_by(StopReason.NOT_FINITE))
        return begun.slopes, y if begun.root is None else y / begun.root, Solve(y, report)

    @property
    def _iterations(self) -> int:
        return self.options.ConjugateGradientIterations

    @property
    def _atol(self) -> float:
        return self.options.ConjugateGradientTolerance

    @property
    def is_plain(self) -> bool:
        """Whether a solve is conjugate gradient from zero, of iterations that a device can do without the host."""
        plain = self.probes is None and self.warm is None and isinstance(self.lam, float)
        plain = plain and not (self.options.UseNeumannApproximation or self.options.UseFirstOrder)
        return plain and self._iterations <= Iteration.MOST

    def _solve(self, chunk: Chunk, begun: Begun) -> tuple[Array, SolverReport]:
        if self.options.UseNeumannApproximation:
            return neumann_series(begun.operator, begun.rhs, terms=self.options.NeumannSeriesTerms)
        if begun.waits:
            operator = cast("BufferedOperator", begun.operator)
            y, report = finish_in_place(operator, begun.rhs, iterations=self._iterations, atol=self._atol)
        else:
            y, report = self._conjugate_gradient(chunk, begun.operator, begun.rhs)
        return self._moved(chunk, y, begun.rhs, report), report

    def _operator(self, chunk: Chunk, points: Array, root: Array | None) -> tuple[Array, Operator]:
        kind, identity = self.options.Curvature, 1.0 + float(self.options.ConjugateGradientDamping)
        if root is None:
            return chunk.support.curvature(points, kind, identity=identity, weight=float(self.lam))
        slopes, hessian = chunk.support.curvature(points, kind)
        return slopes, lambda y: y * identity + hessian(y * root) * root

    def _conjugate_gradient(self, chunk: Chunk, operator: Operator, rhs: Array) -> tuple[Array, SolverReport]:
        backend = chunk.backend
        return conjugate_gradient(
            operator,
            rhs,
            max_iterations=self._iterations,
            rtol=0.0,
            atol=self._atol,
            initial=None if self.warm is None else self.warm.rows(backend, [t.TaskId for t in chunk.tasks], rhs),
            preconditioner=None if self.probes is None else self._preconditioner(backend, operator, rhs, self.probes),
        )

    def _moved(self, chunk: Chunk, y: Array, rhs: Array, report: SolverReport) -> Array:
        """The solutions, with g where a solve stopped before its first step: that says more than zero."""
        backend = chunk.backend
        unmoved = report.stopped_by(StopReason.NON_POSITIVE_CURVATURE) & (report.iterations == 0)
        if self.warm is not None and unmoved.any():
            unmoved &= backend.to_numpy(backend.vecdot(y, y)) == 0
        if unmoved.any():
            mask = backend.broadcast_to(backend.asarray(unmoved[:, None]), tuple(y.shape))
            y = backend.elementwise("where")(mask, rhs, y)
        return y

    def _preconditioner(self, backend: Backend, operator: Operator, like: Array, probes: Array) -> Operator:
        """R ↦ r / d, d the mean of z ∘ Az over signs z, an estimate of A's diagonal, and at least that of (1 + δ)I."""
        total: Array | None = None
        for sign in row_views(backend, probes):
            stacked = backend.asarray(backend.broadcast_to(backend.reshape(sign, (1, *sign.shape)), tuple(like.shape)))
            found = operator(stacked) * stacked
            total = found if total is None else total + found
        diagonal = backend.elementwise("maximum")(
            total * (1.0 / probes.shape[0]), 1.0 + float(self.options.ConjugateGradientDamping)
        )
        return lambda residual: residual / diagonal


def probes_for(options: iMAMLOptions[Any, Any, Any], like: Array, backend: Backend) -> Array | None:
    """The signs for a vector like this one, the same at every step; None where no solve is preconditioned."""
    if not options.PreconditionerProbes:
        return None
    generator = np.random.Generator(np.random.PCG64(options.RandomSeed or 0))
    signs = generator.integers(0, 2, (options.PreconditionerProbes, *like.shape)) * 2 - 1
    return backend.asarray(signs, backend.dtype_of(like))
