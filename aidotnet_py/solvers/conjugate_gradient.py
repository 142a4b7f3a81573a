"""Conjugate gradient for symmetric positive definite systems, one system a row of the right-hand side."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import COUNT, NON_NEGATIVE
from aidotnet_py.backends import Array
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.solvers.borrowing import borrowed_iteration
from aidotnet_py.solvers.bounds import Bounds, renames_tolerance
from aidotnet_py.solvers.iterate import Iterate
from aidotnet_py.solvers.iteration import BufferedOperator, Iteration, PreconditionedIteration
from aidotnet_py.solvers.mixing import warn_of_mixed_rows
from aidotnet_py.solvers.progress import Callback, Progress, threshold_of
from aidotnet_py.solvers.report import SolverReport
from aidotnet_py.solvers.rows import Operator, Rows, check_callable
from aidotnet_py.solvers.scaling import all_in_range, scales_for

__all__ = ["QueuedSolve", "conjugate_gradient"]


@renames_tolerance("atol")
@suggests_keywords(A="operator", b="rhs", x0="initial", tol="rtol", maxiter="max_iterations", M="preconditioner")
def conjugate_gradient(
    operator: Operator,
    rhs: Array,
    *,
    max_iterations: int | None = None,
    rtol: float | None = None,
    atol: float = 0.0,
    initial: Array | None = None,
    preconditioner: Operator | None = None,
    damping: float = 0.0,
    callback: Callback | None = None,
) -> tuple[Array, SolverReport]:
    r"""Solve (A + damping I) x = b for symmetric positive definite A, known by its products alone.

    .. math::
        \alpha_k = \frac{r_k^T z_k}{p_k^T A p_k}, \quad x_{k+1} = x_k + \alpha_k p_k, \quad
        r_{k+1} = r_k - \alpha_k A p_k, \quad z = M^{-1} r, \quad
        p_{k+1} = z_{k+1} + \frac{r_{k+1}^T z_{k+1}}{r_k^T z_k}\, p_k

    Each row is a system of its own, with its own scalars and its own end. A row that has stopped is frozen: its bits
    do not depend on the rows beside it, as long as those of the operator's result do not. On CuPy they do in their last
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
        The most iterations for a task, at least 1; None stands for 10 n: in exact arithmetic n suffices, but rounding
        delays convergence.
    rtol : float, optional
        A task stops when ‖b − Ax‖ ≤ max(rtol ‖b‖, atol), Euclidean norms, as in SciPy. At least 0; None stands for
        1e-10, or for a hundred roundings where a dtype has fewer digits (1.2e-5 in float32).
    atol : float
        See rtol; at least 0.
    initial : array, optional
        Where to start, like rhs in shape, dtype and backend; None stands for zeros, and saves a product. A task whose
        right-hand side is zero starts at its solution, zero, in any case.
    preconditioner : callable, optional
        r ↦ M⁻¹r for symmetric positive definite M close to A; called as the operator is.
    damping : float
        Added to the diagonal of A, at least 0.
    callback : callable, optional
        Called after each iteration with its number, from 1, and the residual norms of the recurrence, a NumPy array of
        shape (tasks,): NaN for a task that took no step. `SolverReport.residual_history` has the same numbers.

    Returns
    -------
    solution : array
        x, with the shape, dtype and backend of rhs.
    report : SolverReport
        Iterations, residual norms and the reason to stop, for each task. The residuals are measured at x, with one
        product at the end, unless all of them are so large that rounding cannot have changed them by a tenth; then
        they are those that the iteration carries along.

    Warns
    -----
    UserWarning
        When max_iterations is None, some tasks did not converge, and the operator mixes the rows of rhs, each of which
        is a system of its own.

    Raises
    ------
    ArgumentException
        When rhs is no such array, or initial, the operator's or the preconditioner's result differs from it in shape,
        dtype or backend.
    ArgumentOutOfRangeException
        When max_iterations, rtol, atol or damping lies outside its range.

    Notes
    -----
    A row whose norms lie outside 1e-77 to 1e77 (5e-10 to 4e9 in float32) is multiplied by a power of two before the
    solve, and its solution divided by it: no digit changes, and the squares of norms stay normal numbers.

    References
    ----------
    Hestenes, M. R. & Stiefel, E. (1952). Methods of conjugate gradients for solving linear systems. J. Res. Nat. Bur.
    Standards 49, equations 3:1. Shewchuk, J. R. (1994). An introduction to the conjugate gradient method without the
    agonizing pain, B2 and B3. For its use in iMAML: Rajeswaran, A. et al. (2019). Meta-learning with implicit
    gradients. NeurIPS, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.solvers import conjugate_gradient
    >>> A = np.array([[4.0, 1.0], [1.0, 3.0]])
    >>> solution, report = conjugate_gradient(lambda v: A @ v, np.array([1.0, 2.0]))
    >>> solution.round(6)
    array([0.090909, 0.636364])
    >>> report.stop_reasons
    (<StopReason.CONVERGED: 'converged'>,)
    >>> report.iterations
    array([2])
    """
    if callback is not None:
        check_callable("callback", callback, "a function of a count and residual norms, or None")
    rows = Rows(rhs)
    limit = 10 * rows.n if max_iterations is None else COUNT.check("max_iterations", max_iterations)
    bounds, damping = Bounds(rtol, atol), NON_NEGATIVE.check("damping", damping)
    precondition = None if preconditioner is None else rows.on_rows("preconditioner", preconditioner)
    start = None if initial is None else rows.fitting("initial", initial)
    if isinstance(operator, BufferedOperator) and operator.fits(rhs) and precondition is None and damping == 0:
        if start is None and bounds.rtol == 0:
            return QueuedSolve(operator, rhs, iterations=limit, bounds=bounds, callback=callback).result()
        return _solve(_Solve(rows, operator, operator.iteration, operator), start, limit, bounds, callback)
    product = _damped(rows, rows.on_rows("operator", operator), damping)
    with borrowed_iteration(rows, product, precondition) as iteration:
        solution, report = _solve(_Solve(rows, product, iteration), start, limit, bounds, callback)
    if max_iterations is None:
        warn_of_mixed_rows(rows, product, report)
    return solution, report


def _solve(
    solve: _Solve, start: Array | None, limit: int, bounds: Bounds, callback: Callback | None
) -> tuple[Array, SolverReport]:
    return solve.result(solve.start(start, limit, bounds, callback))


class QueuedSolve:
    """The solve of `conjugate_gradient` from zero, begun in the operator's queue.

    Where the queue waits, all iterations are in it: the device that runs it cannot ask the host.

    Parameters
    ----------
    operator : BufferedOperator
        A.
    rhs : array, shape (tasks, n)
        b.
    iterations : int
        The most iterations for a task; in a queue that waits, at most `MOST`.
    bounds : Bounds
        When a task has converged, with an rtol of 0.
    callback : callable, optional
        As `conjugate_gradient` has it.
    """

    def __init__(
        self,
        operator: BufferedOperator,
        rhs: Array,
        *,
        iterations: int,
        bounds: Bounds,
        callback: Callback | None = None,
    ) -> None:
        self._limit, self._bounds, self._callback = iterations, bounds, callback
        queue, self._iteration, self._waited = operator.queue, operator.iteration, operator.queue.is_waiting
        self._solve = _Solve(Rows(rhs), operator, self._iteration, operator)
        operator.prepare()
        # With an rtol of 0, right-hand sides do not matter.
        tolerance, _ = bounds.of(np.zeros(int(rhs.shape[0]), operator.backend.dtype_of(rhs)), None)
        self._iteration.set_threshold(threshold_of(tolerance))
        self._times = iterations if self._waited else self._iteration.first_rounds(iterations)
        self._iteration.begin(queue, rhs, self._times)
        if self._waited:
            self._iteration.end(queue, rhs)

    def result(self) -> tuple[Array, SolverReport]:
        """Return the result of `conjugate_gradient`, once the queue has run."""
        solve = self._solve
        records = solve.backend.to_numpy(self._iteration.latest(self._times))
        # The slopes before the first step are the squares of the first residual.
        norms = np.sqrt(records[0, 1])
        if not all_in_range(norms) and scales_for(solve.norms(solve.rows.array)) is not None:
            # The queued iteration knows no other units, in which squares of norms are normal numbers.
            return _solve(solve, None, self._limit, self._bounds, self._callback)
        progress = Progress(norms, norms, self._limit, self._bounds, callback=self._callback)
        progress.judge_all(records)
        if self._waited:
            solve.settle(progress, solve.ends())
        else:
            solve.go_on(progress)
            solve.settle(progress)
        return solve.result(progress)


def _damped(rows: Rows, operator: Operator, damping: float) -> Operator:
    """Return v ↦ (A + damping I) v; its result is in a buffer, since the operator's array is not ours."""
    if damping == 0:
        return operator
    backend = rows.backend
    multiply, add = backend.elementwise("multiply"), backend.elementwise("add")
    damped = backend.empty((rows.tasks, rows.n), rows.dtype)

    def product(v: Array) -> Array:
        product = operator(v)
        with backend.errors_ignored():
            multiply(v, damping, out=damped)
            return add(damped, product, out=damped)

    return product


class _Solve(Iterate):
    """A solve under way in the buffers of an iteration, and the host's decisions on it.

    ``buffered`` is the operator if the iteration is its own.
    """

    def __init__(
        self, rows: Rows, operator: Operator, iteration: Iteration, buffered: BufferedOperator | None = None
    ) -> None:
        super().__init__(rows, operator, iteration.x, iteration.r)
        self._iteration, self._buffered = iteration, buffered
        self._is_certain = not isinstance(iteration, PreconditionedIteration)

    def start(self, initial: Array | None, limit: int, bounds: Bounds, callback: Callback | None = None) -> Progress:
        """See `Iterate.start`."""
        self._is_certain = self._is_certain and initial is None
        return super().start(initial, limit, bounds, callback)

    def result(self, progress: Progress) -> tuple[Array, SolverReport]:
        """Iterate until no task runs; return the solution and the report."""
        while progress.is_running:
            self._restart(progress)
            self.go_on(progress, progress.steps)
            self.settle(progress)
        return self.finished(progress)

    def settle(self, progress: Progress, ends: NDArray[Any] | None = None) -> None:
        """Measure b − Ax where it may differ from r by more than a tenth.

        ``ends`` are those of `ends`, where the iteration's `end` has run already.

        The recurrence for r loses touch with b − Ax as rounding errors add up, and shrinks on towards zero while
        b − Ax stays where the precision holds it (Greenbaum 1997, SIAM J. Matrix Anal. Appl. 18, 535). So r finds
        directions and says when to look, and the report has measured residuals, unless r is still so large that
        rounding cannot show. One product at the end is enough: it does not matter when the two parted, only what x is
        worth.
        """
        if not progress.iterations.any():
            return
        looked_at: NDArray[np.bool_] | None = None
        if self._is_certain:
            looked_at = progress.may_have_drifted(self.norms(self.x) if ends is None else ends[0])
            if not looked_at.any():
                return
        progress.measure(self._measured_norms() if ends is None else ends[1], looked_at)

    def _measured_norms(self) -> NDArray[Any]:
        """Return ‖b − Ax‖ at x, by one product, which sets r: the iteration's own, if the operator is its own."""
        if self._buffered is None:
            return self.residual_norms()
        self._buffered.prepare()
        self._iteration.end(self._buffered.queue, self._b)
        norms: NDArray[Any] = self.ends()[1]
        return norms

    def ends(self) -> NDArray[Any]:
        """Return ‖x‖ and ‖b − Ax‖, shape (2, tasks), after the iteration's `end`."""
        with self.backend.errors_ignored():
            norms: NDArray[Any] = np.sqrt(self.backend.to_numpy(self._iteration.ends))
        return norms if all_in_range(norms.ravel()) else np.stack([self.norms(self.x), self.norms(self.r)])

    def _restart(self, progress: Progress) -> None:
        """Begin anew at x, from the residual r."""
        if self._buffered is not None:
            self._buffered.prepare()
        self._iteration.set_threshold(progress.threshold)
        self._iteration.restart(self.backend.asarray(progress.running))

    def go_on(self, progress: Progress, begun: int = 0) -> None:
        """Run rounds until no task runs; ``begun`` is the count of steps at the last start or restart."""
        backend, on = self.backend, self._iteration
        while progress.is_running:
            if progress.limited:
                on.stop_others(backend.asarray(progress.running))
            times = 1 if progress.steps > begun else on.first_rounds(progress.left)
            progress.judge_all(backend.to_numpy(on.run(times)))
        on.expected = max(1, progress.steps - begun)

    def solution(self) -> tuple[Array, NDArray[np.bool_], NDArray[np.bool_]]:
        """See `Iterate.solution`; a copy, since x lies in buffers of the next solve."""
        rows, changed, overflowed = super().solution()
        return self.backend.asarray(rows), changed, overflowed
