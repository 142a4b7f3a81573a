"""GMRES for systems that need be neither symmetric nor definite, one system a row of the right-hand side."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends import Array
from aidotnet_py.solvers.progress import Progress
from aidotnet_py.solvers.report import SolverReport, StopReason
from aidotnet_py.solvers.row_updates import RowUpdates
from aidotnet_py.solvers.rows import Operator, Rows, check_count, check_number

__all__ = ["gmres"]

# What is left of a product Av, where that is at most so many times √n roundings of the largest, is rounding alone.
_ROUNDINGS = 16


def gmres(
    operator: Operator,
    rhs: Array,
    *,
    max_iterations: int | None = None,
    tolerance: float = 1e-10,
    initial: Array | None = None,
) -> tuple[Array, SolverReport]:
    r"""Solve Ax = b for any nonsingular A, known by its products alone.

    .. math::
        x_k = \operatorname{argmin}_{x \in x_0 + \mathcal K_k} \|b - A x\|, \quad
        \mathcal K_k = \operatorname{span}(r_0, A r_0, \dots, A^{k-1} r_0), \quad r_0 = b - A x_0

    Arnoldi's process makes an orthonormal basis V of the Krylov space with A V_k = V_{k+1} H_k, by modified
    Gram–Schmidt done twice; Givens rotations bring H_k to triangular form, and tell ‖b − Ax_k‖ before x_k is known.

    Each row is a system of its own, with its own space and its own end. A row that has stopped is frozen: its bits do
    not depend on the rows beside it, as long as those of the operator's result do not.

    Parameters
    ----------
    operator : callable
        v ↦ Av for an array of rhs's shape, called once an iteration for all rows; rows that have stopped are zeros
        in v. Never write to the array that it is handed.
    rhs : array, shape (n,) or (tasks, n)
        b, of a real floating dtype, on any backend.
    max_iterations : int, optional
        The most iterations for a task, at least 1; None stands for n, which suffices in exact arithmetic. Each keeps
        one more array like rhs until the solve ends: there are no restarts.
    tolerance : float
        A task stops when ‖b − Ax‖ ≤ tolerance: Euclidean, absolute, at least 0.
    initial : array, optional
        Where to start, like rhs in shape, dtype and backend; None stands for zeros, and saves a product.

    Returns
    -------
    solution : array
        x, with the shape, dtype and backend of rhs.
    report : SolverReport
        Iterations, residual norms and the reason to stop, for each task. The residuals are measured at x, with one
        product at the end. A task whose measured residual is above the tolerance that its rotations promised starts
        again from there, while that halves it.

    Raises
    ------
    ArgumentException
        When rhs is no such array, or initial or the operator's result differs from it in shape, dtype or backend.
    ArgumentOutOfRangeException
        When max_iterations or tolerance lies outside its range.

    Notes
    -----
    Where the Krylov space is complete and holds no solution, A is singular: the task stops with
    ``StopReason.BREAKDOWN`` at the best x that was found. For symmetric positive definite A, `conjugate_gradient` does
    with a few vectors what needs all of them here.

    References
    ----------
    Saad, Y. & Schultz, M. H. (1986). GMRES: a generalized minimal residual algorithm for solving nonsymmetric linear
    systems. SIAM J. Sci. Stat. Comput. 7, 856-869, algorithm 3 and section 3.2. On doing Gram–Schmidt twice: Giraud,
    L., Langou, J. & Rozložník, M. (2005). The loss of orthogonality in the Gram-Schmidt orthogonalization process.
    Comput. Math. Appl. 50.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.solvers import gmres
    >>> A = np.array([[0.0, 1.0], [-2.0, 0.0]])
    >>> solution, report = gmres(lambda v: A @ v, np.array([1.0, 2.0]))
    >>> solution.round(6)
    array([-1.,  1.])
    >>> report.stop_reasons
    (<StopReason.CONVERGED: 'converged'>,)
    >>> report.iterations
    array([2])
    """
    rows = Rows(rhs)
    limit = rows.n if max_iterations is None else check_count("max_iterations", max_iterations)
    tolerance = check_number("tolerance", tolerance)
    solve = _Solve(rows, rows.on_rows("operator", operator))
    solve.start(None if initial is None else rows.fitting("initial", initial))

    progress = Progress(solve.norms(solve.r), limit, tolerance)
    while progress.running.any():
        cycle = _Cycle(solve, progress)
        while progress.running.any():
            cycle.step()
        solve.add_to_solution(cycle.coefficients(), cycle.basis)
        if progress.iterations.any():
            solve.update_residual()
            progress.measure(solve.norms(solve.r), solve.norms(rows.array) * np.finfo(rows.dtype).eps)
    return rows.as_given(solve.x), progress.report()


class _Solve:
    """The solution under way and its residual, where the backend keeps them: (tasks, n)."""

    def __init__(self, rows: Rows, operator: Operator) -> None:
        self.rows, self.operator, self.backend = rows, operator, rows.backend
        self.x, self.r = (self.backend.empty((rows.tasks, rows.n), rows.dtype) for _ in range(2))
        self.updates = RowUpdates(self.backend, rows.tasks, rows.n, rows.dtype)

    def start(self, initial: Array | None) -> None:
        """Set x and its residual r."""
        if initial is None:
            self.backend.copyto(self.x, 0.0)
            self.backend.copyto(self.r, self.rows.array)
        else:
            # −0 becomes 0 here once for all: adding the multiples of a frozen row, 0, would do it at some later time.
            self.backend.elementwise("add")(initial, 0.0, out=self.x)
            self.update_residual()

    def update_residual(self) -> None:
        """Set r to b − Ax."""
        product = self.operator(self.x)
        with self.backend.errors_ignored():
            self.backend.elementwise("subtract")(self.rows.array, product, out=self.r)

    def norms(self, vectors: Array) -> NDArray[Any]:
        """The Euclidean norm of each row, on the host."""
        with self.backend.errors_ignored():
            squares = self.backend.to_numpy(self.backend.vecdot(vectors, vectors))
        norms: NDArray[Any] = np.sqrt(squares)
        return norms

    def add_to_solution(self, coefficients: NDArray[Any], basis: list[Array]) -> None:
        """Add the combination of basis vectors, coefficients (vectors, tasks)."""
        on_device = self.backend.asarray(coefficients)
        with self.backend.errors_ignored():
            for place, vector in zip(range(len(coefficients)), basis, strict=False):
                self.updates.add_multiple(self.x, self.row(on_device, place), vector)

    def row(self, scalars: Array, place: int) -> Array:
        """One row of scalars (…, tasks), as a view of shape (tasks,)."""
        part = self.backend.index(scalars, (slice(place, place + 1), slice(None)))
        return self.backend.reshape(part, (self.rows.tasks,))


class _Cycle:
    """Arnoldi's process from the residuals of all tasks, its Hessenberg matrices made triangular on the host."""

    def __init__(self, solve: _Solve, progress: Progress) -> None:
        self.solve, self.progress = solve, progress
        rows, backend = solve.rows, solve.backend
        # The small matrices in double precision at least: it costs nothing, and their rounding cannot show.
        self.dtype = np.result_type(rows.dtype, np.float64)
        self.w = backend.empty((rows.tasks, rows.n), rows.dtype)
        self.scalars = backend.empty((16, rows.tasks), rows.dtype)
        norms = progress.norms.astype(self.dtype)
        self.basis = [self._normalised(solve.r, norms, progress.running)]
        # Columns of the triangle, the rotations that made them, and the right-hand side that they have turned.
        self.columns: list[NDArray[Any]] = []
        self.rotations: list[tuple[NDArray[Any], NDArray[Any]]] = []
        self.targets = [np.where(progress.running, norms, 0.0)]
        self.taken = np.zeros(rows.tasks, np.int64)
        self.largest = np.zeros(rows.tasks, self.dtype)

    def step(self) -> None:
        """One more vector, and what it says of the residual."""
        h, before, after = self._orthogonalised(self.solve.operator(self.basis[-1]))
        finite = np.isfinite(h).all(axis=0) & np.isfinite(before) & np.isfinite(after)
        with np.errstate(all="ignore"):
            sound, norms = self._rotate(h, before, after, finite)
        spent = (after <= self._rounding()) | (len(self.basis) == self.solve.rows.n)
        self._judge(sound, finite, norms, spent)
        self.taken += sound
        if self.progress.running.any():
            self.basis.append(self._normalised(self.w, after, self.progress.running))

    def _orthogonalised(self, product: Array) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Set w to the product less its part in the basis; return that part, and the norms of w before and after."""
        solve, backend, count = self.solve, self.solve.backend, len(self.basis)
        needed = 2 * count + 2
        if self.scalars.shape[0] < needed:
            self.scalars = backend.empty((2 * needed, solve.rows.tasks), solve.rows.dtype)
        backend.copyto(self.w, product)
        with backend.errors_ignored():
            backend.vecdot(self.w, self.w, out=solve.row(self.scalars, 0))
            # Twice is enough: what rounding leaves of the basis after one pass, the second takes away.
            for place, vector in enumerate([*self.basis, *self.basis], start=1):
                part = solve.row(self.scalars, place)
                backend.vecdot(vector, self.w, out=part)
                solve.updates.subtract_multiple(self.w, part, vector)
            backend.vecdot(self.w, self.w, out=solve.row(self.scalars, needed - 1))
        # The one wait of an iteration.
        found = backend.to_numpy(self.scalars)[:needed].astype(self.dtype)
        h = found[1 : count + 1] + found[count + 1 : -1]
        return h, np.sqrt(found[0]), np.sqrt(found[-1])

    def _rotate(
        self, h: NDArray[Any], before: NDArray[Any], after: NDArray[Any], finite: NDArray[np.bool_]
    ) -> tuple[NDArray[np.bool_], NDArray[Any]]:
        """Add a column to the triangle; return which tasks can use it, and their ‖b − Ax‖ with it."""
        for place, (c, s) in enumerate(self.rotations):
            h[place], h[place + 1] = c * h[place] + s * h[place + 1], c * h[place + 1] - s * h[place]
        self.largest = np.maximum(self.largest, np.where(finite, before, 0.0))
        pivot = np.hypot(h[-1], after)
        sound = self.progress.running & finite & (pivot > self._rounding())
        c, s = np.where(sound, h[-1] / pivot, 1.0), np.where(sound, after / pivot, 0.0)
        h[-1] = pivot
        self.columns.append(np.where(sound, h, 0.0))
        self.rotations.append((c, s))
        last = self.targets[-1]
        self.targets[-1:] = [c * last, -s * last]
        return sound, np.abs(s * last)

    def _rounding(self) -> NDArray[Any]:
        """Numbers up to this are rounding, next to the largest product that each task has seen."""
        rows = self.solve.rows
        bound: NDArray[Any] = _ROUNDINGS * np.sqrt(rows.n) * float(np.finfo(rows.dtype).eps) * self.largest
        return bound

    def _judge(
        self, sound: NDArray[np.bool_], finite: NDArray[np.bool_], norms: NDArray[Any], spent: NDArray[np.bool_]
    ) -> None:
        """Tell who goes on; ``spent`` are tasks whose Krylov space is complete."""
        progress = self.progress
        progress.reasons[progress.running & ~finite] = StopReason.NOT_FINITE
        progress.reasons[progress.running & finite & ~sound] = StopReason.BREAKDOWN
        progress.iterations = progress.iterations + sound
        claims = sound & ((norms <= progress.threshold) | spent)
        progress.claims = progress.claims | claims
        progress.running = sound & ~claims & (progress.iterations < progress.limit)

    def _normalised(self, vectors: Array, norms: NDArray[Any], kept: NDArray[np.bool_]) -> Array:
        """A new array of the rows to keep, each of length 1; the others are zeros."""
        rows, backend = self.solve.rows, self.solve.backend
        out = backend.empty((rows.tasks, rows.n), rows.dtype)
        lengths = backend.asarray(np.where(kept, norms, 1.0).astype(rows.dtype))
        with backend.errors_ignored():
            backend.elementwise("divide")(vectors, rows.column(lengths), out=out)
        if not kept.all():
            backend.copyto(out, backend.elementwise("where")(rows.column(backend.asarray(kept)), out, 0.0))
        return out

    def coefficients(self) -> NDArray[Any]:
        """What minimises each task's residual, as multiples of the basis vectors: (vectors, tasks)."""
        count, progress = len(self.columns), self.progress
        y = np.zeros((count, len(self.taken)), self.dtype)
        with np.errstate(all="ignore"):
            for i in reversed(range(count)):
                total = self.targets[i] - sum((self.columns[k][i] * y[k] for k in range(i + 1, count)), start=0.0)
                y[i] = np.where(i < self.taken, total / self.columns[i][i], 0.0)
            found = y.astype(self.solve.rows.dtype)
        # A combination that overflows is not taken.
        bad = ~np.isfinite(found).all(axis=0)
        found[:, bad] = 0.0
        progress.reasons[bad] = StopReason.NOT_FINITE
        progress.claims = progress.claims & ~bad
        progress.iterations = progress.iterations - np.where(bad, self.taken, 0)
        return found
