"""The truncated Neumann series for systems close to the identity, one system a row of the right-hand side."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import COUNT
from aidotnet_py.backends import Array
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.solvers.bounds import Bounds
from aidotnet_py.solvers.iterate import Iterate
from aidotnet_py.solvers.progress import Progress
from aidotnet_py.solvers.report import NeumannReport, StopReason
from aidotnet_py.solvers.rows import Operator, Rows

__all__ = ["neumann_series"]


@suggests_keywords(A="operator", b="rhs")
def neumann_series(
    operator: Operator, rhs: Array, *, terms: int, rtol: float | None = None, atol: float = 0.0
) -> tuple[Array, NeumannReport]:
    r"""Sum the first terms of the Neumann series for A⁻¹b.

    .. math:: x = \sum_{j=0}^{J-1} (I - A)^j\, b, \qquad b - A x = (I - A)^J\, b

    It tends to A⁻¹b where the spectral radius of I − A is below 1, and away from it otherwise. With A = I + λH, the
    system of iMAML, I − A is −λH: the sum is Σ (−λH)ʲ b, and it shrinks where λ|H| < 1.

    Parameters
    ----------
    operator : callable
        v ↦ Av for an array of rhs's shape; each row is a system of its own. The array that it is handed is reused,
        and read-only: copy it to keep it or to write to it. What it returns may be that array, a view, or one buffer
        again and again.
    rhs : array, shape (n,) or (tasks, n)
        b, of a real floating dtype, on any backend.
    terms : int
        J ≥ 1, the number of terms.
    rtol : float, optional
        A task has converged when ‖b − Ax‖ ≤ max(rtol ‖b‖, atol), as in `conjugate_gradient`. It does not end the
        series: the sum of J terms is linear in b, and one that ended when its terms are small enough would not be.
    atol : float
        See rtol; at least 0.

    Returns
    -------
    solution : array
        x, with the shape, dtype and backend of rhs.
    report : NeumannReport
        The norms of the terms, which series grew, and the residuals ‖b − Ax‖. That residual costs one product more
        than the J − 1 that the sum needs.

    Raises
    ------
    ArgumentException
        When rhs is no such array, or the operator's result differs from it in shape, dtype or backend.
    ArgumentOutOfRangeException
        When terms is below 1, or rtol or atol outside its range.

    Notes
    -----
    A task whose residual stays finite and above its bound stops at ``StopReason.MAX_ITERATIONS``; ``iterations``
    counts its terms. Rows of very large or very small norms are scaled by powers of two, as in `conjugate_gradient`.

    References
    ----------
    Lorraine, J., Vicol, P. & Duvenaud, D. (2020). Optimizing millions of hyperparameters by implicit differentiation.
    AISTATS.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.solvers import neumann_series
    >>> solution, report = neumann_series(lambda v: 1.5 * v, np.array([1.0]), terms=4)
    >>> solution  # 1 − 1/2 + 1/4 − 1/8, on the way to 2/3
    array([0.625])
    >>> report.residual_norms
    array([0.0625])
    >>> report.grew
    array([False])
    """
    rows = Rows(rhs)
    count, bounds = COUNT.check("terms", terms), Bounds(rtol, atol)
    solve = Iterate(rows, rows.on_rows("operator", operator), rows.empty(), rows.empty())
    backend = rows.backend
    add, subtract = backend.elementwise("add"), backend.elementwise("subtract")
    # Squared norms of the terms: the host reads them once, when all work is handed out.
    squares = backend.empty((count, rows.tasks), rows.dtype)

    progress = solve.start(None, count, bounds)
    # What the residual begins with is the first term.
    term, solution = solve.r, solve.x
    backend.copyto(solution, term)

    def measure(place: int) -> None:
        view = backend.index(squares, (slice(place, place + 1), slice(None)))
        backend.vecdot(term, term, out=backend.reshape(view, (rows.tasks,)))

    # Rows that overflow are left to: they are their task's own, and the report names them.
    with backend.errors_ignored():
        measure(0)
    for j in range(1, count):
        product = solve.operator(term)
        with backend.errors_ignored():
            subtract(term, product, out=term)
            add(solution, term, out=solution)
            measure(j)
    given, _, overflowed = solve.solution()
    # Not the next term, which is equal to it in exact arithmetic alone: below the rounding of b − Ax it would go on
    # shrinking, and promise digits that the solution does not have.
    residuals = solve.residual_norms()
    return rows.as_given(given), _report(
        progress, solve.scales, np.sqrt(backend.to_numpy(squares)), residuals, overflowed
    )


def _report(
    progress: Progress,
    scales: NDArray[Any] | None,
    term_norms: NDArray[Any],
    residual_norms: NDArray[Any],
    overflowed: NDArray[np.bool_],
) -> NeumannReport:
    progress.iterations = np.full_like(progress.iterations, len(term_norms))
    progress.norms = residual_norms
    progress.reasons[:] = StopReason.MAX_ITERATIONS
    progress.reasons[residual_norms <= progress.tolerance] = StopReason.CONVERGED
    progress.reasons[~np.isfinite(residual_norms) | overflowed] = StopReason.NOT_FINITE
    grew = _grew(term_norms)
    if scales is not None:
        with np.errstate(all="ignore"):
            term_norms = term_norms / scales
    return NeumannReport(**vars(progress.report()), term_norms=term_norms, grew=grew)


def _grew(term_norms: NDArray[Any]) -> NDArray[np.bool_]:
    first, before, last = term_norms[0], term_norms[-2:][0], term_norms[-1]
    # Norms whose squares are not normal numbers are steps of a staircase: two that are equal say nothing.
    least = np.sqrt(np.finfo(term_norms.dtype).smallest_normal)
    # "Not smaller" instead of "larger or equal", so that terms which overflowed to NaN count as growth.
    grew: NDArray[np.bool_] = np.isfinite(first) & ~(last < before) & ~(last < least)
    return grew & (len(term_norms) > 1)
