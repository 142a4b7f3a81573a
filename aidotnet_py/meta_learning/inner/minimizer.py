"""The inner problem as a function to minimise, for solvers other than optimizer steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from aidotnet_py.backends import Array, Backend, described
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning.objective.chunk import Chunk
from aidotnet_py.meta_learning.objective.stacking import row_views, stack_rows
from aidotnet_py.optimizers import InnerSolver, RowMinimizer, VectorObjective

__all__ = ["Follow", "InnerProblem", "minimize"]

# (points, start, gradients of the support losses) ↦ gradients of the inner problem.
Follow: TypeAlias = Callable[[Array, Array, Array], Array]


class InnerProblem:
    """L_support(φ) + ½ Σ sᵢ(φᵢ − θᵢ)² for every task of a chunk, a `RowObjective`.

    Parameters
    ----------
    chunk : Chunk
        The tasks with their support sets.
    start : array, shape (tasks, P)
        θ, a row for each task.
    follow : callable
        (points, start, gradients of the support losses) ↦ gradients of the inner problem.
    strength : float, array of shape (P,) or None
        s; None for 0.
    """

    def __init__(self, chunk: Chunk, start: Array, follow: Follow, strength: Array | float | None) -> None:
        self._chunk, self._start, self._follow, self._strength = chunk, start, follow, strength

    def evaluate(self, points: Array) -> tuple[Array, Array]:
        """Return the losses (tasks,) and their gradients (tasks, P)."""
        losses, gradients = self._chunk.support.evaluate(points)
        if self._strength is not None:
            moved = points - self._start
            losses = losses + self._chunk.backend.vecdot(moved * self._strength, moved) * 0.5
        return losses, self._follow(points, self._start, gradients)

    def curvature(self, points: Array) -> Callable[[Array], Array]:
        """Return v ↦ (H + diag(s)) v at these points."""
        strength = self._strength
        if strength is None or isinstance(strength, float):
            return self._chunk.support.curvature(points, "hessian", identity=strength or 0.0)[1]
        product = self._chunk.support.curvature(points, "hessian")[1]
        return lambda v: product(v) + v * strength


def minimize(
    chunk: Chunk, start: Array, solver: InnerSolver | RowMinimizer, follow: Follow, strength: Array | float | None
) -> Array:
    """Run a solver from θ for every task, and return its solutions; see `InnerProblem` for the arguments.

    Raises
    ------
    ArgumentException
        If the solver returns anything but a vector like θ.
    """
    backend = chunk.backend
    if isinstance(solver, RowMinimizer):
        solutions = solver.minimize(InnerProblem(chunk, start, follow, strength), start)
        _require_like(backend, solutions, start, "the result of InnerOptimizer")
        return backend.asarray(solutions)
    rows: list[Array] = []
    for place, row in enumerate(row_views(backend, start)):
        alone = chunk.part(place, place + 1, chunk.lane)
        problem = InnerProblem(alone, backend.reshape(row, (1, *row.shape)), follow, strength)
        phi = solver(_of_vectors(problem, backend, row), backend.asarray(row))
        _require_like(backend, phi, row, f"the result of InnerOptimizer for task {chunk.places[place]}")
        # A copy, since the next task's solution may come in the same array.
        rows.append(backend.asarray(phi))
    return stack_rows(backend, rows)


def _of_vectors(problem: InnerProblem, backend: Backend, like: Array) -> VectorObjective:
    """Return the problem of one task as a function of a vector (P,): its loss, a float, and a new gradient array."""

    def objective(phi: Array) -> tuple[float, Array]:
        _require_like(backend, phi, like, "the argument of InnerOptimizer's objective")
        losses, gradients = problem.evaluate(backend.reshape(phi, (1, *like.shape)))
        return float(backend.to_numpy(losses)[0]), backend.asarray(backend.reshape(gradients, tuple(like.shape)))

    return objective


def _require_like(backend: Backend, came: Any, wanted: Array, name: str) -> None:
    kind = described(wanted)
    if described(came) != kind or not backend.owns(came):
        raise ArgumentException(f"{name} must be {kind} like θ, got {described(came)}")
