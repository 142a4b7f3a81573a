"""Conjugate gradient for symmetric positive definite systems, one system a row of the right-hand side."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends import Array
from aidotnet_py.solvers.bounds import Bounds, renames_tolerance
from aidotnet_py.solvers.iterate import Iterate
from aidotnet_py.solvers.iteration import BufferedOperator
from aidotnet_py.solvers.progress import Progress, threshold_of
from aidotnet_py.solvers.report import SolverReport
from aidotnet_py.solvers.rows import Operator, Rows, check_count, check_number
from aidotnet_py.solvers.scaling import all_in_range, scales_for

__all__ = ["begin_in_place", "conjugate_gradient", "finish_in_place"]


@renames_tolerance("atol")
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
) -> tuple[Array, SolverReport]:
    r"""Solve (A + damping I) x = b for symmetric positive definite A, known by its products alone.

    .. math::
        \alpha_k = \frac{r_k^T z_k}{p_k^T A p_k}, \quad x_{k+1} = x_k + \alpha_k p_k, \quad
        r_{k+1} = r_k - \alpha_k A p_k, \quad z = M^{-1} r, \quad
        p_{k+1} = z_{k+1} + \frac{r_{k+1}^T z_{k+1}}{r_k^T z_k}\, p_k

    Each row is a system of its own, with its own scalars and its own end. A row that has stopped is frozen: its bits
    do not depend on the rows beside it, as long as those of the operator's result do not.

    Parameters
    ----------
    operator : callable
        v ↦ Av for an array of rhs's shape, called once an iteration for all rows; rows that have stopped are zeros
        in v. The array that it is handed is reused, and read-only: copy it to keep it or to write to it. What it
        returns may be that array, a view, or one buffer again and again.
    rhs : array, shape (n,) or (tasks, n)
        b, of a real floating dtype, on any backend.
    max_iterations : int, optional
        The most iterations for a task, at least 1; None stands for n, which suffices in exact arithmetic.
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

    Returns
    -------
    solution : array
        x, with the shape, dtype and backend of rhs.
    report : SolverReport
        Iterations, residual norms and the reason to stop, for each task. The residuals are measured at x, with one
        product at the end, unless all of them are so large that rounding cannot have changed them by a tenth; then
        they are those that the iteration carries along.

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
    rows = Rows(rhs)
    limit = rows.n if max_iterations is None else check_count("max_iterations", max_iterations)
    bounds, damping = Bounds(rtol, atol), check_number("damping", damping)
    precondition = None if preconditioner is None else rows.on_rows("preconditioner", preconditioner)
    start = None if initial is None else rows.fitting("initial", initial)
    if isinstance(operator, BufferedOperator) and operator.fits(rhs) and precondition is None and damping == 0:
        solve: _Solve | _SolveInPlace = _SolveInPlace(rows, operator, from_zero=start is None)
    else:
        product = _damped(rows, rows.on_rows("operator", operator), damping)
        solve = _Solve(rows, product, precondition, from_zero=start is None)
    solve.start(start)
    return _finished(solve, solve.progress(limit, bounds))


def begin_in_place(operator: BufferedOperator, rhs: Array, *, iterations: int, atol: float) -> None:
    """Put the solve of `conjugate_gradient` from zero, with an rtol of 0, into the operator's queue."""
    backend, iteration = operator.backend, operator.iteration
    operator.prepare()
    # With an rtol of 0, right-hand sides do not matter.
    norms: NDArray[Any] = np.zeros(int(rhs.shape[0]), backend.dtype_of(rhs))
    bounds, _ = Bounds(0.0, atol).of(norms, None)
    backend.copyto(iteration.threshold, backend.asarray(threshold_of(bounds)))
    iteration.solve(operator.queue, rhs, iterations)


def finish_in_place(
    operator: BufferedOperator, rhs: Array, *, iterations: int, atol: float
) -> tuple[Array, SolverReport]:
    """Return what `conjugate_gradient` does, of the solve that `begin_in_place` began."""
    records = np.array(operator.backend.to_numpy(operator.iteration.latest(iterations)))
    solve = _SolveInPlace(Rows(rhs), operator, from_zero=True)
    # The slopes before the first step are what the residual began with.
    norms = np.sqrt(records[0, 1])
    if not all_in_range(norms) and scales_for(solve.norms(rhs)) is not None:
        # In units in which squares of norms are normal numbers, which the iteration knows nothing of.
        return conjugate_gradient(operator, rhs, max_iterations=iterations, rtol=0.0, atol=atol)
    progress = Progress(norms, norms, len(records), Bounds(0.0, atol))
    progress.judge_all(records)
    return _finished(solve, progress, begun=True)


def _finished(solve: _Solve | _SolveInPlace, progress: Progress, *, begun: bool = False) -> tuple[Array, SolverReport]:
    """Iterate until no task runs."""
    while begun or progress.running.any():
        if not begun:
            solve.iterate(progress)
        begun = False
        # The recurrence for r loses touch with b − Ax as rounding errors add up, and shrinks on towards zero while
        # b − Ax stays where the precision holds it (Greenbaum 1997, SIAM J. Matrix Anal. Appl. 18, 535). So r finds
        # directions and says when to look, and what is reported is measured, unless r is still so large that rounding
        # cannot show. One product at the end does, not one every few iterations: it does not matter when the two
        # parted, only what x is worth.
        if progress.iterations.any() and solve.may_have_drifted(progress):
            solve.measure(progress)
    return solve.finished(progress)


def _damped(rows: Rows, operator: Operator, damping: float) -> Operator:
    """The operator v ↦ (A + damping I) v; in a buffer where there is damping, for the operator's array is not ours."""
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

    def may_have_drifted(self, progress: Progress) -> bool:
        """Whether b − Ax may differ from r by more than a tenth, for some task."""
        if self.preconditioner is not None or not self.from_zero:
            return True
        return progress.may_have_drifted(self.norms(self.x))

    def iterate(self, progress: Progress) -> None:
        """Go on from the residual r until no task runs."""
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
            self.updates.subtract_multiple(self.r, alpha, product)
            backend.vecdot(self.r, self.r, out=self.squares)
            # The one wait of an iteration. It comes before x moves, so that no bad step has to be taken back.
            scalars = backend.to_numpy(self.scalars)
            sound = progress.judge(*scalars)
            if not np.isfinite(scalars).all():
                # 0·∞ is NaN: a direction that is not finite must go too, not only the length of its step.
                mask = backend.asarray(sound)
                alpha = self.where(mask, alpha, 0.0)
                backend.copyto(self.p, self.where(column(mask), self.p, 0.0))
            self.updates.add_multiple(self.x, alpha, self.p)

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
            self.updates.scale_and_add(self.p, beta, z)


class _SolveInPlace(Iterate):
    """The same solve, to the bit, with each iteration one round of Programs in the operator's buffers."""

    def __init__(self, rows: Rows, operator: BufferedOperator, *, from_zero: bool) -> None:
        iteration = operator.iteration
        # Its argument is copied and its result fits: neither needs to be guarded.
        super().__init__(rows, operator, iteration.x, iteration.r)
        self.prepare, self.iteration, self.from_zero = operator.prepare, iteration, from_zero

    def solution(self) -> tuple[Array, NDArray[np.bool_], NDArray[np.bool_]]:
        """As every iterate's, but that x lies in buffers of the next solve."""
        rows, changed, overflowed = super().solution()
        return self.backend.asarray(rows), changed, overflowed

    def may_have_drifted(self, progress: Progress) -> bool:
        """Whether b − Ax may differ from r by more than a tenth, for some task."""
        return not self.from_zero or progress.may_have_drifted(self.norms(self.x))

    def iterate(self, progress: Progress) -> None:
        """Go on from the residual r until no task runs."""
        backend, on = self.backend, self.iteration
        self.prepare()
        backend.copyto(on.threshold, backend.asarray(progress.threshold))
        backend.copyto(on.slopes, self.squares)
        self.only(progress, self.r)
        taken, times = 0, on.expected
        while progress.running.any():
            if progress.limited:
                self.only(progress, on.p)
            # As many as the last solve took, before the host looks: a row that has stopped is not moved by more.
            times = min(times, on.MOST, progress.left())
            progress.judge_all(backend.to_numpy(on.run(times)))
            taken, times = taken + times, 1
        on.expected = taken

    def only(self, progress: Progress, directions: Array) -> None:
        """Have none but the tasks that run move, along these directions."""
        backend, on = self.backend, self.iteration
        mask = backend.asarray(progress.running)
        backend.copyto(on.running, mask)
        backend.copyto(on.p, backend.elementwise("where")(self.rows.column(mask), directions, 0.0))
