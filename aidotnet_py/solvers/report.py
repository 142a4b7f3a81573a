"""What a solver says of its work: how far it came for each task, and why it stopped."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.markup import table

__all__ = ["BoundName", "NeumannReport", "SolverReport", "StopReason"]

# Of the HTML for notebooks.
_MOST_ROWS = 20

BoundName: TypeAlias = Literal["rtol", "atol"]


class StopReason(Enum):
    """Why a solver stopped working on a task."""

    CONVERGED = "converged"
    """The residual of the returned solution is at most its bound; ``bound_names`` says whether rtol or atol gave it."""

    MAX_ITERATIONS = "max iterations"
    """Every iteration (for a series, every term) that was allowed is done."""

    PRECISION_LIMIT = "precision limit"
    """The solver's own count of the residual met the bound, b − Ax does not: this precision gives no more."""

    NON_POSITIVE_CURVATURE = "non-positive curvature"
    """A direction p has pᵀAp ≤ 0, so that A is not positive definite; the solution is the iterate before it."""

    INDEFINITE_PRECONDITIONER = "indefinite preconditioner"
    """A residual r has rᵀM⁻¹r ≤ 0, so that M is not positive definite; the solution is the iterate before it."""

    BREAKDOWN = "breakdown"
    """The Krylov space is complete and holds no solution, so that A is singular; the solution is the best in it."""

    NOT_FINITE = "not finite"
    """An infinity or a NaN came up, in the data or in a product."""


@dataclass(frozen=True, eq=False)
class SolverReport:
    """How a solve went, with one entry a task; a right-hand side of shape (n,) is one task.

    All arrays are NumPy arrays on the host, whatever the backend that solved. Norms are Euclidean and in the dtype of
    the right-hand side.

    Attributes
    ----------
    iterations : NDArray, shape (tasks,)
        How often the task's solution was improved.
    initial_residual_norms : NDArray, shape (tasks,)
        ‖b − Ax₀‖ at the starting point.
    residual_norms : NDArray, shape (tasks,)
        ‖b − Ax‖ at the solution that is returned; what measuring adds to it, the solver says.
    stop_reasons : tuple of StopReason
        Why the work on each task ended.
    rhs_norms : NDArray, shape (tasks,)
        ‖b‖.
    bounds : NDArray, shape (tasks,)
        max(rtol ‖b‖, atol): the residual norm at which the task has converged.
    bound_names : tuple of "rtol" or "atol"
        Which of the two is the larger, and so the bound.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.solvers import conjugate_gradient
    >>> solution, report = conjugate_gradient(lambda v: 2.0 * v, np.array([[2.0, 4.0], [0.0, 0.0]]))
    >>> report.iterations
    array([1, 0])
    >>> report.converged
    array([ True,  True])
    >>> report.bounds, report.bound_names
    (array([4.47213595e-10, 0.00000000e+00]), ('rtol', 'rtol'))
    >>> report.residual_history
    array([[4.47213595, 0.        ],
           [0.        ,        nan]])
    """

    iterations: NDArray[np.int64]
    initial_residual_norms: NDArray[Any]
    residual_norms: NDArray[Any]
    stop_reasons: tuple[StopReason, ...]
    rhs_norms: NDArray[Any]
    bounds: NDArray[Any]
    bound_names: tuple[BoundName, ...]
    _squares: tuple[NDArray[Any], ...] = field(default=(), repr=False)
    _scales: NDArray[Any] | None = field(default=None, repr=False)

    @property
    def residual_history(self) -> NDArray[Any]:
        """Residual norms before the first step and after each, (1 + steps, tasks); NaN where a task took no step.

        They are the solver's own, of its recurrence: the measured norms of the solution are ``residual_norms``.
        """
        squares = np.array(self._squares).reshape(-1, len(self.iterations))
        with np.errstate(all="ignore"):
            # Squares of double precision may lie outside the dtype, where their roots do not.
            norms = np.sqrt(squares).astype(self.residual_norms.dtype)
            if self._scales is not None:
                norms = norms / self._scales
        return np.concatenate([self.initial_residual_norms[None], norms])

    def _repr_html_(self) -> str:
        header = ["task", "iterations", "‖b − Ax₀‖", "‖b − Ax‖", "bound", "stopped by"]
        columns = (self.iterations, self.initial_residual_norms, self.residual_norms, self.bounds, self.stop_reasons)
        rows = [
            [str(task), str(count), f"{first:.3g}", f"{last:.3g}", f"{bound:.3g} ({name})", reason.value]
            for task, (count, first, last, bound, reason), name in zip(
                range(_MOST_ROWS), zip(*columns, strict=True), self.bound_names, strict=False
            )
        ]
        tasks, converged = len(self.iterations), int(self.converged.sum())
        note = f"{tasks - _MOST_ROWS} more tasks" if tasks > _MOST_ROWS else ""
        return table(f"{type(self).__name__}: {converged} of {tasks} converged", header, rows, note)

    @property
    def converged(self) -> NDArray[np.bool_]:
        """Which tasks have a solution whose residual met the bound, as booleans of shape (tasks,)."""
        return self.stopped_by(StopReason.CONVERGED)

    def stopped_by(self, reason: StopReason) -> NDArray[np.bool_]:
        """Return for which tasks the work ended for this reason, as booleans of shape (tasks,)."""
        return np.array([given is reason for given in self.stop_reasons], dtype=np.bool_)


@dataclass(frozen=True, eq=False)
class NeumannReport(SolverReport):
    """How a Neumann series went: a `SolverReport`, and the norms of its terms.

    Attributes
    ----------
    term_norms : NDArray, shape (terms, tasks)
        ‖(I − A)ʲb‖ for j = 0, 1, …
    grew : NDArray of bool, shape (tasks,)
        Which series grow instead of shrinking: the last term is no smaller than the one before it. For symmetric A
        the ratio of each term's norm to the one before never falls (Cauchy–Schwarz), so the last ratio shows growth
        first: a series that shrank and has turned is seen here, while its last term may still be smaller than its
        first. One term alone never grew.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.solvers import neumann_series
    >>> _, report = neumann_series(lambda v: np.array([1.5, 4.0])[:, None] * v, np.ones((2, 1)), terms=3)
    >>> report.last_term_norms
    array([0.25, 9.  ])
    >>> report.grew
    array([False,  True])
    """

    term_norms: NDArray[Any] = field(kw_only=True)
    grew: NDArray[np.bool_] = field(kw_only=True)

    @property
    def residual_history(self) -> NDArray[Any]:
        """‖b − Ax‖ before the first term and after each, (1 + terms, tasks): with j terms, the norm of the next."""
        return np.concatenate([self.term_norms, self.residual_norms[None]])

    @property
    def first_term_norms(self) -> NDArray[Any]:
        """The norms of the first terms, ‖b‖, shape (tasks,)."""
        norms: NDArray[Any] = self.term_norms[0]
        return norms

    @property
    def last_term_norms(self) -> NDArray[Any]:
        """The norms of the last terms, shape (tasks,)."""
        norms: NDArray[Any] = self.term_norms[-1]
        return norms
