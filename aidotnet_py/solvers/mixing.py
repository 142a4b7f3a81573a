"""A warning for operators that mix the rows of a right-hand side, each of which is a system of its own."""

from __future__ import annotations

import warnings

import numpy as np

from aidotnet_py.caller import level_outside
from aidotnet_py.solvers.report import SolverReport
from aidotnet_py.solvers.rows import Operator, Rows

__all__ = ["warn_of_mixed_rows"]


def warn_of_mixed_rows(rows: Rows, product: Operator, report: SolverReport) -> None:
    """Warn when some rows are left unsolved, and the product of one of them alone reaches others.

    NumPy's solvers take a system's unknowns for rows and right-hand sides for columns: ``lambda v: A @ v`` is right
    for shape (n,), and mixes the systems of shape (tasks, n) wherever its shapes allow it to be called at all.
    """
    if rows.tasks == 1 or report.converged.all():
        return
    alone = np.zeros((rows.tasks, rows.n), rows.dtype)
    row = int(np.argmin(report.converged))
    alone[row] = 1
    reached = np.abs(rows.backend.to_numpy(product(rows.backend.asarray(alone)))) > 0
    reached[row] = False
    if reached.any():
        other = int(np.argmax(reached.any(axis=1)))
        remedy = "pass rhs.ravel() for one system" if rows.n == 1 else "use v @ A.T where the operator has A @ v"
        warnings.warn(
            f"rhs of shape {rows.shape} must be {rows.tasks} systems, one a row, but the operator mixes them: "
            f"row {row} of its argument reaches row {other} of its result; {remedy}",
            UserWarning,
            stacklevel=level_outside(),
        )
