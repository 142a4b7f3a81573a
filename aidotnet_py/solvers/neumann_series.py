"""The truncated Neumann series for systems close to the identity, one system a row of the right-hand side."""

from __future__ import annotations

import numpy as np

from aidotnet_py.backends import Array
from aidotnet_py.solvers.report import NeumannReport, StopReason
from aidotnet_py.solvers.rows import Operator, Rows, check_count

__all__ = ["neumann_series"]


def neumann_series(operator: Operator, rhs: Array, *, terms: int) -> tuple[Array, NeumannReport]:
    r"""Sum the first terms of the Neumann series for A⁻¹b.

    .. math:: x = \sum_{j=0}^{J-1} (I - A)^j\, b, \qquad b - A x = (I - A)^J\, b

    It tends to A⁻¹b where the spectral radius of I − A is below 1, and away from it otherwise. With A = I + λH, the
    system of iMAML, I − A is −λH: the sum is Σ (−λH)ʲ b, and it shrinks where λ|H| < 1.

    Parameters
    ----------
    operator : callable
        v ↦ Av for an array of rhs's shape; each row is a system of its own. The array that it is handed is reused:
        copy it to keep it, and never write to it.
    rhs : array, shape (n,) or (tasks, n)
        b, of a real floating dtype, on any backend.
    terms : int
        J ≥ 1, the number of terms.

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
        When terms is below 1.

    Notes
    -----
    A task without a tolerance has not converged unless its residual is zero; every other one that stays finite stops
    at ``StopReason.MAX_ITERATIONS``, and ``iterations`` counts its terms.

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
    count = check_count("terms", terms)
    apply = rows.on_rows("operator", operator)
    backend = rows.backend
    add, subtract = backend.elementwise("add"), backend.elementwise("subtract")

    term = backend.asarray(rows.array)
    solution = backend.asarray(rows.array)
    # Squared norms of the terms, and last of the residual: the host reads them once, when all work is handed out.
    squares = backend.empty((count + 1, rows.tasks), rows.dtype)

    def measure(row: int) -> None:
        view = backend.index(squares, (slice(row, row + 1), slice(None)))
        backend.vecdot(term, term, out=backend.reshape(view, (rows.tasks,)))

    # Rows that overflow are left to: they are their task's own, and the report names them.
    with backend.errors_ignored():
        measure(0)
    for j in range(1, count):
        product = apply(term)
        with backend.errors_ignored():
            subtract(term, product, out=term)
            add(solution, term, out=solution)
            measure(j)
    # Not the next term, which is equal to it in exact arithmetic alone: below the rounding of b − Ax it would go on
    # shrinking, and promise digits that the solution does not have.
    product = apply(solution)
    with backend.errors_ignored():
        subtract(rows.array, product, out=term)
        measure(count)

    norms = np.sqrt(backend.to_numpy(squares))
    return rows.as_given(solution), NeumannReport(
        iterations=np.full(rows.tasks, count, dtype=np.int64),
        initial_residual_norms=norms[0],
        residual_norms=norms[-1],
        stop_reasons=tuple(_stop_reason(float(norm)) for norm in norms[-1]),
        term_norms=norms[:-1],
    )


def _stop_reason(residual_norm: float) -> StopReason:
    if residual_norm == 0:
        return StopReason.CONVERGED
    return StopReason.MAX_ITERATIONS if np.isfinite(residual_norm) else StopReason.NOT_FINITE
