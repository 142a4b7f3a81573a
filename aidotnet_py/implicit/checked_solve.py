"""A linear solve that checks its report: numbers that are not finite are an error, a large residual a warning."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np

from aidotnet_py.arguments import check_given, pair_of, refusal
from aidotnet_py.backends import Array
from aidotnet_py.caller import level_outside
from aidotnet_py.exceptions import ArgumentException, InvalidOperationException
from aidotnet_py.solvers import Operator, SolverReport, StopReason

__all__ = ["Solver", "UnconvergedSolveWarning", "checked_solve"]

R = TypeVar("R", bound=SolverReport)
# A solver with its settings: (operator, rhs) ↦ (solution, report).
Solver: TypeAlias = Callable[[Operator, Array], tuple[Array, R]]


class UnconvergedSolveWarning(RuntimeWarning):
    """A linear solve ended above the bound on its residual; results computed from it are less exact."""


def checked_solve(
    solver: Solver[R], operator: Operator, rhs: Array, *, what: str = "the linear solve"
) -> tuple[Array, R]:
    """Solve Ax = b; raise or warn if the report shows a failure.

    Parameters
    ----------
    solver : callable
        ``(operator, rhs)`` to ``(solution, report)``, such as `conjugate_gradient` with its settings bound.
    operator : callable
        v ↦ Av.
    rhs : array, shape (n,) or (tasks, n)
        b.
    what : str
        The name of the solve in messages.

    Returns
    -------
    (solution, report)
        The results of the solver.

    Raises
    ------
    ArgumentNullException
        When the solver is None.
    ArgumentException
        When it is no function, or returns no solution with its `SolverReport`.
    InvalidOperationException
        When a system met numbers that are not finite; the message names its row.

    Warns
    -----
    UnconvergedSolveWarning
        When a system did not converge; the message has the largest residual norm relative to its right-hand side.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.implicit import checked_solve
    >>> from aidotnet_py.solvers import conjugate_gradient
    >>> solution, report = checked_solve(conjugate_gradient, lambda v: 2.0 * v, np.array([2.0, 4.0]))
    >>> solution
    array([1., 2.])
    """
    check_given("solver", solver, "a function of an operator and a right-hand side")
    if not callable(solver):
        raise ArgumentException(refusal("solver", "a function of an operator and a right-hand side", solver))
    result: Any = solver(operator, rhs)
    name, wanted = "the result of solver", "a solution and its SolverReport"
    solution, report = cast("tuple[Array, R]", pair_of(name, wanted, result))
    if not isinstance(report, SolverReport):  # pyright: ignore[reportUnnecessaryIsInstance] -- solvers may be untyped
        raise ArgumentException(refusal(name, wanted, result))
    tasks = len(report.stop_reasons)
    broken = report.stopped_by(StopReason.NOT_FINITE)
    if broken.any():
        raise InvalidOperationException(
            f"{what} met numbers that are not finite in {broken.sum()} of {tasks} systems, first in row "
            f"{int(np.argmax(broken))}; check the point of the solve"
        )
    unconverged = ~report.converged
    if unconverged.any():
        lengths = np.where(report.rhs_norms > 0, report.rhs_norms, 1.0)
        worst = int(np.argmax(np.where(unconverged, report.residual_norms / lengths, -1.0)))
        wanted = {"rtol": "rtol·‖b‖", "atol": "atol"}[report.bound_names[worst]]
        warnings.warn(
            f"{what} did not converge in {unconverged.sum()} of {tasks} systems; the worst, row {worst}, stopped at "
            f"{report.stop_reasons[worst].value!r} with the residual norm {report.residual_norms[worst]:.3g}, where "
            f"{wanted} = {report.bounds[worst]:.3g}, after {report.iterations[worst]} iterations",
            UnconvergedSolveWarning,
            stacklevel=level_outside(),
        )
    return solution, report
