"""The inner problem as a function to be minimised, for solvers that are not a row of optimizer steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from aidotnet_py.backends import Array, Backend, described
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning.objective.chunk import Chunk
from aidotnet_py.meta_learning.objective.stacking import row_views, stack_rows
from aidotnet_py.optimizers import InnerSolver, RowMinimizer, VectorObjective

__all__ = ["Follow", "InnerProblem", "minimized"]

# The gradients of a problem at some points, from the start and the gradients of the support losses there.
Follow: TypeAlias = Callable[[Array, Array, Array], Array]


class InnerProblem:
    """L_support(φ) + ½ Σ sᵢ(φᵢ − θᵢ)² for every task of a chunk, a `RowObjective`.

    Parameters
    ----------
    chunk : Chunk
        With its support sets.
    start : array, shape (tasks, P)
        θ, once a task.
    follow : callable
        The gradients of the problem, from those of the support losses.
    strength : float, array of shape (P,) or None
        s; None for 0.
    """

    def __init__(self, chunk: Chunk, start: Array, follow: Follow, strength: Array | float | None) -> None:
        self._chunk, self._start, self._follow, self._strength = chunk, start, follow, strength

    def evaluate(self, points: Array) -> tuple[Array, Array]:
        """The losses (tasks,) and their gradients (tasks, P)."""
        losses, gradients = self._chunk.support.evaluate(points)
        if self._strength is not None:
            moved = points - self._start
            losses = losses + self._chunk.backend.vecdot(moved * self._strength, moved) * 0.5
        return losses, self._follow(points, self._start, gradients)

    def curvature(self, points: Array) -> Callable[[Array], Array]:
        """V ↦ (H + diag(s)) v at these points."""
        strength = self._strength
        if strength is None or isinstance(strength, float):
            return self._chunk.support.curvature(points, "hessian", identity=strength or 0.0)[1]
        product = self._chunk.support.curvature(points, "hessian")[1]
        return lambda v: product(v) + v * strength


def minimized(
    chunk: Chunk, start: Array, solver: InnerSolver | RowMinimizer, follow: Follow, strength: Array | float | None
) -> Array:
    """Where a solver comes to for every task, from θ; see `InnerProblem` for the arguments.

    Raises
    ------
    ArgumentException
        When the solver returns something else than a vector like θ.
    """
    backend = chunk.backend
    if isinstance(solver, RowMinimizer):
        found = solver.minimize(InnerProblem(chunk, start, follow, strength), start)
        _require_like(backend, found, start, "InnerOptimizer returned")
        return found
    rows: list[Array] = []
    for place, row in enumerate(row_views(backend, start)):
        alone = chunk.part(place, place + 1, chunk.lane)
        problem = InnerProblem(alone, backend.reshape(row, (1, *row.shape)), follow, strength)
        phi = solver(_of_vectors(problem, backend, row), backend.asarray(row))
        _require_like(backend, phi, row, f"InnerOptimizer returned, for task {chunk.places[place]},")
        rows.append(phi)
    return stack_rows(backend, rows)


def _of_vectors(problem: InnerProblem, backend: Backend, like: Array) -> VectorObjective:
    """The problem of one task as a function of a vector (P,): a float, and a gradient of its own."""

    def objective(phi: Array) -> tuple[float, Array]:
        _require_like(backend, phi, like, "the objective of InnerOptimizer was called with")
        losses, gradients = problem.evaluate(backend.reshape(phi, (1, *like.shape)))
        return float(backend.to_numpy(losses)[0]), backend.asarray(backend.reshape(gradients, tuple(like.shape)))

    return objective


def _require_like(backend: Backend, came: Any, wanted: Array, what: str) -> None:
    kind = described(wanted)
    if described(came) != kind or not backend.owns(came):
        raise ArgumentException(f"{what} {described(came)}; {kind} is wanted")
