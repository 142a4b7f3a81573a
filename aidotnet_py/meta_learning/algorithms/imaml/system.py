"""The linear system of iMAML, (I + λH) v = g for every task: how the options say that it is solved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aidotnet_py.backends import Array, Backend
from aidotnet_py.meta_learning.algorithms.imaml.options import iMAMLOptions
from aidotnet_py.meta_learning.algorithms.imaml.warm_starts import WarmStarts
from aidotnet_py.meta_learning.contract.protocols import is_inner_solver
from aidotnet_py.meta_learning.learner.tasks import Tasks
from aidotnet_py.meta_learning.objective.stacking import row_views
from aidotnet_py.solvers import Operator, SolverReport, StopReason, conjugate_gradient, neumann_series
from aidotnet_py.solvers.conjugate_gradient import QueuedSolve
from aidotnet_py.solvers.iteration import MOST, BufferedOperator

__all__ = ["Begun", "ImplicitSystem", "Solve"]


@dataclass(frozen=True)
class Solve:
    """What a solver came to, (tasks, P), and its report; the solution is v itself, or what v comes from."""

    solutions: Array
    report: SolverReport


@dataclass(frozen=True)
class Begun:
    """A system of which the work at the points is done: support gradients, operator, right-hand side.

    ``root`` is D^½ where each parameter has a λ of its own; ``queued`` is the solve that a device does.
    """

    slopes: Array
    operator: Operator
    rhs: Array
    root: Array | None
    queued: QueuedSolve | None


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
    warm : WarmStarts
        Where solves start from, if the options say so.
    """

    options: iMAMLOptions[Any, Any, Any]
    lam: Array | float
    probes: Array | None
    warm: WarmStarts

    def begin(self, tasks: Tasks, points: Array, gradients: Array) -> Begun | None:
        """Do the work that a solve at these points begins with; on a device, put the whole solve into its queue."""
        if self.options.UseFirstOrder:
            return None
        root = None if isinstance(self.lam, float) else tasks.backend.elementwise("sqrt")(self.lam)
        slopes, operator = self._operator(tasks, points, root)
        rhs = gradients if root is None else gradients * root
        queued: QueuedSolve | None = None
        if isinstance(operator, BufferedOperator) and operator.queue.is_waiting and self.is_plain:
            queued = QueuedSolve(operator, rhs, iterations=self._iterations, atol=self._atol)
        return Begun(slopes, operator, rhs, root, queued)

    def finish(
        self, tasks: Tasks, points: Array, gradients: Array, begun: Begun | None
    ) -> tuple[Array, Array, Solve | None]:
        """Return the support gradients at φ, v for every task, and the solve."""
        if begun is None:
            v = tasks.backend.asarray(gradients)
            return tasks.support_gradient(points), v, None
        y, report = self._solve(tasks, begun)
        tasks.require_sound("solve", ~report.stopped_by(StopReason.NOT_FINITE))
        return begun.slopes, y if begun.root is None else y / begun.root, Solve(y, report)

    @property
    def _iterations(self) -> int:
        return self.options.ConjugateGradientIterations

    @property
    def _atol(self) -> float:
        return self.options.ConjugateGradientTolerance

    @property
    def _is_warm(self) -> bool:
        return bool(self.options.WarmStartSolves)

    @property
    def is_one_piece(self) -> bool:
        """Whether a device can do the whole step without the host."""
        by_steps = not is_inner_solver(self.options.InnerOptimizer) and self.options.InnerGradientTolerance is None
        return self.is_plain and by_steps

    @property
    def is_plain(self) -> bool:
        """Whether a solve is conjugate gradient from zero, of iterations that a device can do without the host."""
        plain = self.probes is None and not self._is_warm and isinstance(self.lam, float)
        plain = plain and not (self.options.UseNeumannApproximation or self.options.UseFirstOrder)
        return plain and self._iterations <= MOST

    def _solve(self, tasks: Tasks, begun: Begun) -> tuple[Array, SolverReport]:
        if self.options.UseNeumannApproximation:
            return neumann_series(begun.operator, begun.rhs, terms=self.options.NeumannSeriesTerms)
        if begun.queued is not None:
            y, report = begun.queued.result()
        else:
            y, report = self._conjugate_gradient(tasks, begun.operator, begun.rhs)
        return self._moved(tasks, y, begun.rhs, report), report

    def _operator(self, tasks: Tasks, points: Array, root: Array | None) -> tuple[Array, Operator]:
        kind, identity = self.options.Curvature, 1.0 + float(self.options.ConjugateGradientDamping)
        if root is None:
            return tasks.curvature(points, kind, identity=identity, weight=float(self.lam))
        slopes, hessian = tasks.curvature(points, kind)
        return slopes, lambda y: y * identity + hessian(y * root) * root

    def _conjugate_gradient(self, tasks: Tasks, operator: Operator, rhs: Array) -> tuple[Array, SolverReport]:
        backend = tasks.backend
        return conjugate_gradient(
            operator,
            rhs,
            max_iterations=self._iterations,
            rtol=0.0,
            atol=self._atol,
            initial=None if not self._is_warm else self.warm.rows(backend, tasks.ids, rhs),
            preconditioner=None if self.probes is None else self._preconditioner(backend, operator, rhs, self.probes),
        )

    def _moved(self, tasks: Tasks, y: Array, rhs: Array, report: SolverReport) -> Array:
        """The solutions, with g where a solve stopped before its first step: that says more than zero."""
        backend = tasks.backend
        unmoved = report.stopped_by(StopReason.NON_POSITIVE_CURVATURE) & (report.iterations == 0)
        if self._is_warm and unmoved.any():
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
