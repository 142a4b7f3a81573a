"""GMRES for systems that need be neither symmetric nor definite, one system a row of the right-hand side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import COUNT
from aidotnet_py.backends import Array
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.solvers.bounds import Bounds, renames_tolerance
from aidotnet_py.solvers.iterate import Iterate
from aidotnet_py.solvers.mixing import warn_of_mixed_rows
from aidotnet_py.solvers.progress import Callback, Progress
from aidotnet_py.solvers.report import SolverReport, StopReason
from aidotnet_py.solvers.rows import Operator, Rows, check_callable
from aidotnet_py.solvers.scaling import all_in_range, scales_for

__all__ = ["gmres"]

# Vectors of the basis for which room is made at once.
_BLOCK = 32
# What is left of a product Av, where that is at most so many times √n roundings of the largest, is rounding alone.
_ROUNDINGS = 16


@renames_tolerance("atol")
@suggests_keywords(A="operator", b="rhs", x0="initial", tol="rtol", maxiter="max_iterations")
def gmres(
    operator: Operator,
    rhs: Array,
    *,
    max_iterations: int | None = None,
    rtol: float | None = None,
    atol: float = 0.0,
    initial: Array | None = None,
    callback: Callback | None = None,
) -> tuple[Array, SolverReport]:
    r"""Solve Ax = b for any nonsingular A, known by its products alone.

    .. math::
        x_k = \operatorname{argmin}_{x \in x_0 + \mathcal K_k} \|b - A x\|, \quad
        \mathcal K_k = \operatorname{span}(r_0, A r_0, \ldots, A^{k-1} r_0), \quad r_0 = b - A x_0

    Arnoldi's process makes an orthonormal basis V of the Krylov space with A V_k = V_{k+1} H_k, by Gram–Schmidt done
    twice; Givens rotations bring H_k to triangular form, and tell ‖b − Ax_k‖ before x_k is known.

    Each row is a system of its own, with its own space and its own end. A row that has stopped is frozen: its bits do
    not depend on the rows beside it, as long as those of the operator's result do not. On CuPy they do in their last
    digits, since CUDA divides sums by the sizes of the whole batch.

    Parameters
    ----------
    operator : callable
        v ↦ Av for an array of rhs's shape, called once an iteration for all rows; rows that have stopped are zeros
        in v. The array that it is handed is reused, and read-only: copy it to keep it or to write to it. What it
        returns may be that array, a view, or one buffer again and again.
    rhs : array, shape (n,) or (tasks, n)
        b, of a real floating dtype, on any backend.
    max_iterations : int, optional
        The most iterations for a task, at least 1; None stands for n, which suffices in exact arithmetic. Each keeps
        one more array like rhs until the solve ends, room for up to 32 being made at a time: there are no restarts.
    rtol : float, optional
        A task stops when ‖b − Ax‖ ≤ max(rtol ‖b‖, atol), Euclidean norms, as in SciPy. At least 0; None stands for
        1e-10, or for a hundred roundings where a dtype has fewer digits (1.2e-5 in float32).
    atol : float
        See rtol; at least 0.
    initial : array, optional
        Where to start, like rhs in shape, dtype and backend; None stands for zeros, and saves a product. A task whose
        right-hand side is zero starts at its solution, zero, in any case.
    callback : callable, optional
        Called after each iteration with its number, from 1, and the residual norms that the rotations tell, a NumPy
        array of shape (tasks,): NaN for a task that took no step. `SolverReport.residual_history` has the same numbers.

    Returns
    -------
    solution : array
        x, with the shape, dtype and backend of rhs.
    report : SolverReport
        Iterations, residual norms and the reason to stop, for each task. The residuals are measured at x, with one
        product at the end. A task whose measured residual is above the bound that its rotations promised starts again
        from there, while that halves it.

    Warns
    -----
    UserWarning
        When the operator mixes the rows of rhs, as `conjugate_gradient` has it.

    Raises
    ------
    ArgumentException
        When rhs is no such array, or initial or the operator's result differs from it in shape, dtype or backend.
    ArgumentOutOfRangeException
        When max_iterations, rtol or atol lies outside its range.

    Notes
    -----
    Rows of very large or very small norms, and products with A of such norms, are scaled by powers of two, as in
    `conjugate_gradient`.

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
    if callback is not None:
        check_callable("callback", callback, "a function of a count and residual norms, or None")
    rows = Rows(rhs)
    limit = rows.n if max_iterations is None else COUNT.check("max_iterations", max_iterations)
    bounds = Bounds(rtol, atol)
    product = rows.on_rows("operator", operator)
    start = None if initial is None else rows.fitting("initial", initial)
    solve = Iterate(rows, product, rows.empty(), rows.empty())

    progress = solve.start(start, limit, bounds, callback)
    while progress.is_running:
        cycle = _Cycle(solve, progress)
        while progress.is_running:
            cycle.step()
        _add_to_solution(solve, cycle.coefficients(), cycle.basis)
        if progress.iterations.any():
            solve.measure(progress)
    solution, report = solve.finished(progress)
    if max_iterations is None:
        warn_of_mixed_rows(rows, product, report)
    return solution, report


def _add_to_solution(solve: Iterate, coefficients: NDArray[Any], basis: _Basis) -> None:
    """Add the combination of basis vectors, coefficients (vectors, tasks)."""
    backend, column = solve.backend, solve.rows.column
    multiply, add = backend.elementwise("multiply"), backend.elementwise("add")
    # One by one, so that a task's bits do not depend on how many vectors the others took.
    for scalars, vector in zip(coefficients, basis.vectors(), strict=False):
        with backend.errors_ignored():
            add(solve.x, multiply(vector, column(backend.asarray(scalars)), out=solve.r), out=solve.x)


class _Basis:
    """Orthonormal vectors of each task, in blocks (tasks, up to 32, n)."""

    def __init__(self, rows: Rows, most: int) -> None:
        self.rows, self.backend = rows, rows.backend
        self.height = min(most, rows.n, _BLOCK)
        self.blocks: list[Array] = []
        self.count = 0
        self.update = self.backend.empty((rows.tasks, 1, rows.n), rows.dtype)

    def append(self, vector: Array) -> None:
        """Add one vector a task."""
        if self.count == self.height * len(self.blocks):
            self.blocks.append(self.backend.empty((self.rows.tasks, self.height, self.rows.n), self.rows.dtype))
        self.backend.copyto(self._part(self.count // self.height, self.count % self.height, 1), self._as_row(vector))
        self.count += 1

    def vectors(self) -> Iterator[Array]:
        """Yield the vectors, (tasks, n) each."""
        for place in range(self.count):
            part = self._part(place // self.height, place % self.height, 1)
            yield self.backend.reshape(part, (self.rows.tasks, self.rows.n))

    def subtract_from(self, w: Array, parts: Array) -> None:
        """Take from w its part in the basis, and write the multiples (tasks, count)."""
        backend, tasks = self.backend, self.rows.tasks
        subtract = backend.elementwise("subtract")
        column = backend.reshape(w, (tasks, self.rows.n, 1))
        for place in range(len(self.blocks)):
            filled = min(self.height, self.count - place * self.height)
            block = self._part(place, 0, filled)
            span = slice(place * self.height, place * self.height + filled)
            along = backend.index(parts, (slice(None), span))
            backend.matmul(block, column, out=backend.reshape(along, (tasks, filled, 1)))
            backend.matmul(backend.reshape(along, (tasks, 1, filled)), block, out=self.update)
            subtract(self._as_row(w), self.update, out=self._as_row(w))

    def _part(self, block: int, start: int, count: int) -> Array:
        return self.backend.index(self.blocks[block], (slice(None), slice(start, start + count), slice(None)))

    def _as_row(self, vector: Array) -> Array:
        return self.backend.reshape(vector, (self.rows.tasks, 1, self.rows.n))


class _Cycle:
    """Arnoldi's process from the residuals of all tasks, its Hessenberg matrices made triangular on the host."""

    def __init__(self, solve: Iterate, progress: Progress) -> None:
        self.solve, self.progress = solve, progress
        rows, backend = solve.rows, solve.backend
        # The small matrices in double precision at least: it costs nothing, and their rounding cannot show.
        self.dtype = np.result_type(rows.dtype, np.float64)
        self.v, self.w = (backend.empty((rows.tasks, rows.n), rows.dtype) for _ in range(2))
        self.basis = _Basis(rows, progress.limit)
        norms = progress.norms.astype(self.dtype)
        self._turn(solve.r, norms)
        # Columns of the triangle, the rotations that made them, and the right-hand side that they have turned.
        self.columns: list[NDArray[Any]] = []
        self.rotations: list[tuple[NDArray[Any], NDArray[Any]]] = []
        self.targets = [np.where(progress.running, norms, 0.0)]
        self.taken = np.zeros(rows.tasks, np.int64)
        self.largest = np.zeros(rows.tasks, self.dtype)
        # What products are multiplied by; None where all are of a size that can be squared.
        self.units: NDArray[Any] | None = None

    def step(self) -> None:
        """Add a vector to the basis, and judge the residual by it."""
        product = self.solve.operator(self.v)
        h, before, after = self._orthogonalised(product)
        if not self.columns and self._choose_units(product, before):
            h, before, after = self._orthogonalised(product)
        finite = np.isfinite(h).all(axis=0) & np.isfinite(before) & np.isfinite(after)
        with np.errstate(all="ignore"):
            sound, norms = self._rotate(h, before, after, finite)
        spent = (after <= self._rounding()) | (self.basis.count == self.solve.rows.n)
        self._judge(sound, finite, norms, spent)
        self.taken += sound
        if self.progress.is_running:
            self._turn(self.w, after)

    def _turn(self, vectors: Array, norms: NDArray[Any]) -> None:
        """Set v to these vectors, each of length 1, or 0 where a task does not run; and add it to the basis."""
        rows, backend, running = self.solve.rows, self.solve.backend, self.progress.running
        lengths = backend.asarray(np.where(running, norms, 1.0).astype(rows.dtype))
        with backend.errors_ignored():
            backend.elementwise("divide")(vectors, rows.column(lengths), out=self.v)
        if not running.all():
            backend.copyto(self.v, backend.elementwise("where")(rows.column(backend.asarray(running)), self.v, 0.0))
        self.basis.append(self.v)

    def _choose_units(self, product: Array, norms: NDArray[Any]) -> bool:
        """Set a unit for products if some first product is too large or small; return whether it was set."""
        if all_in_range(norms.astype(self.solve.rows.dtype)):
            return False
        scales = scales_for(self.solve.norms(product))
        if scales is not None:
            self.units = scales
        return scales is not None

    def _orthogonalised(self, product: Array) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Set w to the product less its part in the basis; return that part, and the norms of w before and after."""
        rows, backend, count = self.solve.rows, self.solve.backend, self.basis.count
        scalars = backend.empty((rows.tasks, 2 * count + 2), rows.dtype)

        def columns(start: int, stop: int) -> Array:
            return backend.index(scalars, (slice(None), slice(start, stop)))

        def measure(place: int) -> None:
            backend.vecdot(self.w, self.w, out=backend.reshape(columns(place, place + 1), (rows.tasks,)))

        backend.copyto(self.w, product)
        with backend.errors_ignored():
            if self.units is not None:
                backend.elementwise("multiply")(self.w, rows.column(backend.asarray(self.units)), out=self.w)
            measure(0)
            # Twice is enough: what rounding leaves of the basis after one pass, the second takes away.
            for start in (1, 1 + count):
                self.basis.subtract_from(self.w, columns(start, start + count))
            measure(2 * count + 1)
        # The one wait of an iteration.
        found = backend.to_numpy(scalars).T.astype(self.dtype)
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
        """Return the size of rounding errors, next to the largest product that each task has seen."""
        rows = self.solve.rows
        bound: NDArray[Any] = _ROUNDINGS * np.sqrt(rows.n) * float(np.finfo(rows.dtype).eps) * self.largest
        return bound

    def _judge(
        self, sound: NDArray[np.bool_], finite: NDArray[np.bool_], norms: NDArray[Any], spent: NDArray[np.bool_]
    ) -> None:
        """Decide which tasks go on; ``spent`` are tasks whose Krylov space is complete."""
        progress = self.progress
        progress.reasons[progress.running & ~finite] = StopReason.NOT_FINITE
        progress.reasons[progress.running & finite & ~sound] = StopReason.BREAKDOWN
        progress.iterations = progress.iterations + sound
        with np.errstate(all="ignore"):
            squares = np.where(sound, norms, np.nan) ** 2
        progress.take([squares])
        claims = sound & ((norms <= progress.threshold) | spent)
        progress.claims = progress.claims | claims
        progress.running = sound & ~claims & (progress.iterations < progress.limit)

    def coefficients(self) -> NDArray[Any]:
        """Return the multiples of the basis vectors, (vectors, tasks), that minimise each task's residual."""
        count, progress = len(self.columns), self.progress
        y = np.zeros((count, len(self.taken)), self.dtype)
        with np.errstate(all="ignore"):
            for i in reversed(range(count)):
                total = self.targets[i] - sum((self.columns[k][i] * y[k] for k in range(i + 1, count)), start=0.0)
                y[i] = np.where(i < self.taken, total / self.columns[i][i], 0.0)
            # With A in other units, x is the solution in those of its inverse.
            found = (y if self.units is None else y * self.units).astype(self.solve.rows.dtype)
        # A combination that overflows is not taken.
        bad = ~np.isfinite(found).all(axis=0)
        found[:, bad] = 0.0
        progress.reasons[bad] = StopReason.NOT_FINITE
        progress.claims = progress.claims & ~bad
        progress.iterations = progress.iterations - np.where(bad, self.taken, 0)
        return found
