"""Conjugate gradient array by array, each decision of an iteration on the host: an oracle for the traced iteration."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends import Array
from aidotnet_py.solvers.bounds import Bounds
from aidotnet_py.solvers.iterate import Iterate
from aidotnet_py.solvers.progress import Progress
from aidotnet_py.solvers.report import SolverReport
from aidotnet_py.solvers.rows import Operator, Rows

__all__ = ["eager_conjugate_gradient"]


def eager_conjugate_gradient(
    operator: Operator,
    rhs: Array,
    *,
    max_iterations: int | None = None,
    rtol: float | None = None,
    atol: float = 0.0,
    initial: Array | None = None,
    preconditioner: Operator | None = None,
) -> tuple[Array, SolverReport]:
    """Solve as `conjugate_gradient` does, on NumPy arrays."""
    rows = Rows(rhs)
    precondition = None if preconditioner is None else rows.on_rows("preconditioner", preconditioner)
    solve = _Solve(rows, rows.on_rows("operator", operator), precondition, from_zero=initial is None)
    start = None if initial is None else rows.fitting("initial", initial)
    progress = solve.start(start, rows.n if max_iterations is None else max_iterations, Bounds(rtol, atol))
    while progress.running.any():
        solve.iterate(progress)
        if progress.iterations.any() and (drifted := solve.may_have_drifted(progress)).any():
            solve.measure(progress, drifted)
    return solve.finished(progress)


class _Solve(Iterate):
    """The arrays of one solve under way: beside x and r the direction p, and scalars of shape (tasks,)."""

    def __init__(self, rows: Rows, operator: Operator, preconditioner: Operator | None, *, from_zero: bool) -> None:
        super().__init__(rows, operator, rows.empty(), rows.empty())
        self.preconditioner, self.from_zero = preconditioner, from_zero
        backend = self.backend
        names = ("divide", "greater", "logical_and", "where")
        self.divide, self.greater, self.both, self.where = map(backend.elementwise, names)
        self.p = backend.empty((rows.tasks, rows.n), rows.dtype)
        # The scalars of an iteration lie together, so that the host fetches them in one piece.
        self.scalars = backend.empty((3, rows.tasks), rows.dtype)
        self.curvatures, self.slopes, self.squares = (
            backend.reshape(backend.index(self.scalars, (slice(i, i + 1), slice(None))), (rows.tasks,))
            for i in range(3)
        )

    def may_have_drifted(self, progress: Progress) -> NDArray[np.bool_]:
        """Return the tasks whose b − Ax may differ from r by more than a tenth."""
        if self.preconditioner is not None or not self.from_zero:
            return progress.iterations > 0
        return progress.may_have_drifted(self.norms(self.x))

    def iterate(self, progress: Progress) -> None:
        """Go on from the residual r until no task runs."""
        with self.backend.errors_ignored():
            self.backend.vecdot(self.r, self.r, out=self.squares)
        if not progress.running.all():
            self.silence(progress)
        self.backend.copyto(self.p, self.preconditioned_residual())
        while True:
            before = progress.running
            self.step(progress)
            if not progress.running.any():
                return
            if (before != progress.running).any():
                self.silence(progress)
            self.turn()

    def step(self, progress: Progress) -> None:
        """Move x along p and bring r up to date."""
        backend, column = self.backend, self.rows.column
        product = self.operator(self.p)
        with backend.errors_ignored():
            backend.vecdot(self.p, product, out=self.curvatures)
            usable = self.both(self.greater(self.curvatures, 0.0), self.greater(self.slopes, 0.0))
            alpha = self.where(usable, self.divide(self.slopes, self.curvatures), 0.0)
            self.r[...] = self.r - column(alpha) * product
            backend.vecdot(self.r, self.r, out=self.squares)
            # The one wait of an iteration. It comes before x moves, so that no bad step has to be taken back.
            scalars = backend.to_numpy(self.scalars)
            sound = progress.judge(*scalars)
            if not np.isfinite(scalars).all():
                # 0·∞ is NaN: a direction that is not finite must go too, not only the length of its step.
                mask = backend.asarray(sound)
                alpha = self.where(mask, alpha, 0.0)
                backend.copyto(self.p, self.where(column(mask), self.p, 0.0))
            self.x[...] = self.x + column(alpha) * self.p

    def silence(self, progress: Progress) -> None:
        """Zero the residuals of tasks that do not run: from then on their slopes, steps and directions are 0."""
        backend = self.backend
        mask = backend.asarray(progress.running)
        backend.copyto(self.r, self.where(self.rows.column(mask), self.r, 0.0))
        backend.copyto(self.squares, self.where(mask, self.squares, 0.0))

    def preconditioned_residual(self) -> Array:
        """Return z = M⁻¹r, and set the slopes rᵀz."""
        backend = self.backend
        if self.preconditioner is None:
            backend.copyto(self.slopes, self.squares)
            return self.r
        z = self.preconditioner(self.r)
        with backend.errors_ignored():
            backend.vecdot(self.r, z, out=self.slopes)
        return z

    def turn(self) -> None:
        """Set the next direction, conjugate to those before it."""
        before = self.backend.asarray(self.slopes)
        z = self.preconditioned_residual()
        with self.backend.errors_ignored():
            beta = self.where(self.greater(before, 0.0), self.divide(self.slopes, before), 0.0)
            self.p[...] = self.rows.column(beta) * self.p + z
