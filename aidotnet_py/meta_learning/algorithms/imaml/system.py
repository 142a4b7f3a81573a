"""The linear system of iMAML, (I + λH) v = g for every task, and its solution by the method in the options."""

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
from aidotnet_py.solvers.bounds import Bounds
from aidotnet_py.solvers.conjugate_gradient import QueuedSolve
from aidotnet_py.solvers.iteration import MOST, BufferedOperator

__all__ = ["ImplicitSystem", "Solve", "SystemAtPoint"]


@dataclass(frozen=True)
class Solve:
    """A solver's solutions, shape (tasks, P), and its report; the solutions are v, or the y that v comes from."""

    solutions: Array
    report: SolverReport


@dataclass(frozen=True)
class SystemAtPoint:
    """A system after its work at the points: support gradients, operator, right-hand side.

    ``root`` is D^½ where each parameter has a λ of its own; ``queued`` is the solve, if the operator's queue has it.
    """

    slopes: Array
    operator: Operator
    rhs: Array
    root: Array | None
    queued: QueuedSolve | None


@dataclass(frozen=True)
class ImplicitSystem:
    """(I + λH) v = g for one λ of all parameters, and its counterpart for a λ of each parameter.

    With D = diag(λ) the meta-gradient is v = D⁻¹(H + D⁻¹)⁻¹g. It is v = D^{-½}y, where y solves the symmetric system
    (I + D^½HD^½) y = D^½g.

    Attributes
    ----------
    options : iMAMLOptions
        The options of curvature, solver and damping.
    lam : float or array, shape (P,)
        λ.
    probes : array, shape (probes, P), or None
        Random signs, which estimate the diagonal that preconditions the solve.
    warm : WarmStarts
        Starts of the solves, if the options ask for warm starts.
    """

    options: iMAMLOptions[Any, Any, Any]
    lam: Array | float
    probes: Array | None
    warm: WarmStarts

    def begin(self, tasks: Tasks, points: Array, gradients: Array) -> SystemAtPoint | None:
        """Do the work of a solve at its points; put a plain solve into the operator's queue."""
        if self.options.UseFirstOrder:
            return None
        root = None if isinstance(self.lam, float) else tasks.backend.elementwise("sqrt")(self.lam)
        slopes, operator = self._operator(tasks, points, root)
        rhs = gradients if root is None else gradients * root
        queued: QueuedSolve | None = None
        if self.is_plain and isinstance(operator, BufferedOperator) and operator.fits(rhs):
            queued = QueuedSolve(operator, rhs, iterations=self._iterations, bounds=Bounds(0.0, self._atol))
        return SystemAtPoint(slopes, operator, rhs, root, queued)

    def finish(
        self, tasks: Tasks, points: Array, gradients: Array, at_point: SystemAtPoint | None
    ) -> tuple[Array, Array, Solve | None]:
        """Return the support gradients at φ, v for every task, and the solve."""
        if at_point is None:
            v = tasks.backend.asarray(gradients)
            return tasks.support_gradient(points), v, None
        y, report = self._solve(tasks, at_point)
        tasks.require_sound("solve", ~report.stopped_by(StopReason.NOT_FINITE))
        return at_point.slopes, y if at_point.root is None else y / at_point.root, Solve(y, report)

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
        """Whether a solve is conjugate gradient from zero, with iterations that a device can do without the host."""
        plain = self.probes is None and not self._is_warm and isinstance(self.lam, float)
        plain = plain and not (self.options.UseNeumannApproximation or self.options.UseFirstOrder)
        return plain and self._iterations <= MOST

    def _solve(self, tasks: Tasks, at_point: SystemAtPoint) -> tuple[Array, SolverReport]:
        if self.options.UseNeumannApproximation:
            return neumann_series(at_point.operator, at_point.rhs, terms=self.options.NeumannSeriesTerms)
        if at_point.queued is not None:
            y, report = at_point.queued.result()
        else:
            y, report = self._conjugate_gradient(tasks, at_point.operator, at_point.rhs)
        return self._replace_useless(tasks, y, at_point.rhs, report), report

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

    def _replace_useless(self, tasks: Tasks, y: Array, rhs: Array, report: SolverReport) -> Array:
        """Return the solutions, with g in place of starts no better than zero that solves stopped at.

        A start from an earlier step would stay the solution of all later ones, whatever their gradients are.
        """
        backend = tasks.backend
        unmoved = report.stopped_by(StopReason.NON_POSITIVE_CURVATURE) & (report.iterations == 0)
        # That of zero is ‖g‖, but for rounding.
        unmoved &= report.residual_norms > 0.99 * report.rhs_norms
        if unmoved.any():
            mask = backend.broadcast_to(backend.asarray(unmoved[:, None]), tuple(y.shape))
            y = backend.elementwise("where")(mask, rhs, y)
        return y

    def _preconditioner(self, backend: Backend, operator: Operator, like: Array, probes: Array) -> Operator:
        """Return r ↦ r / d, d = max(mean of z ∘ Az over signs z, 1 + δ), an estimate of A's diagonal."""
        total: Array | None = None
        for sign in row_views(backend, probes):
            stacked = backend.asarray(backend.broadcast_to(backend.reshape(sign, (1, *sign.shape)), tuple(like.shape)))
            estimate = operator(stacked) * stacked
            total = estimate if total is None else total + estimate
        diagonal = backend.elementwise("maximum")(
            total * (1.0 / probes.shape[0]), 1.0 + float(self.options.ConjugateGradientDamping)
        )
        return lambda residual: residual / diagonal
