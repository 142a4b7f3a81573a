"""The inner problem of iMAML on a surface: the path of a solver, the minimum φ*, and the two forces there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import Choice, Number, Whole
from aidotnet_py.autodiff import hessian, hvp, trace, value_and_grad, vmap
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.explorer.surfaces import SURFACES, VIEW, Surface
from aidotnet_py.optimizers import LBFGSMinimizer, NewtonCGMinimizer, SGDOptimizer

__all__ = [
    "GRID",
    "SOLVERS",
    "STEPS",
    "InnerProblem",
    "InnerSolution",
    "inner_problem",
    "solve_inner_problem",
]

Vector = NDArray[np.float64]

GRID = np.linspace(-VIEW, VIEW, 61)
STEPS = Whole(1, 200)
# Λ; the largest that a page offers, and more, keeps φ* where θ is.
_STRENGTH = Number(least=0.0, most=1e4)

_MOMENTUM = 0.8
_COORDINATE = Number(least=-VIEW, most=VIEW)
# The minimum is where this solver finds no lower point.
_EXACT = NewtonCGMinimizer(max_iterations=100, gradient_tolerance=1e-12)


class InnerProblem:
    """The functions of a surface as Programs: traced once, replayed at each θ, φ and Λ.

    F(φ) = L_s(φ) + (Λ/2) ‖φ − θ‖².
    """

    def __init__(self, surface: Surface) -> None:
        self.surface = surface
        point, rows = np.array(surface.start), np.array([surface.start])

        def regularized(phi: Any, theta: Any, strength: Any) -> Any:
            return surface.support(phi) + 0.5 * strength * np.sum((phi - theta) ** 2)

        def product(phi: Any, vector: Any) -> Any:
            return hvp(surface.support, phi, vector)

        self.support = trace(value_and_grad(surface.support), point)
        self.query = trace(value_and_grad(surface.query), point)
        self.objective = trace(value_and_grad(regularized), point, point, 1.0)
        self.objective_of_rows = trace(vmap(value_and_grad(regularized), in_axes=(0, None, None)), rows, point, 1.0)
        self.product = trace(product, point, point)
        self.product_of_rows = trace(vmap(product), rows, rows)
        self.hessian = trace(hessian(surface.support), point)
        self._regularized = regularized

    @cached_property
    def levels(self) -> Callable[[Vector, float], Vector]:
        """From θ and Λ to F at the points of the grid, shape (61, 61), the second parameter along the rows."""
        points = np.stack([np.tile(GRID, len(GRID)), np.repeat(GRID, len(GRID))], axis=1)
        program = trace(vmap(self._regularized, in_axes=(0, None, None)), points, np.zeros(2), 1.0)
        return lambda theta, strength: np.asarray(program(points, theta, strength)).reshape(len(GRID), len(GRID))

    @cached_property
    def _in_view(self) -> tuple[Vector, Vector]:
        """L_s and the largest curvature of it at points in view."""
        along = np.linspace(-VIEW, VIEW, 13)
        points = np.stack([np.tile(along, len(along)), np.repeat(along, len(along))], axis=1)
        heights = np.array([self.support(point)[0] for point in points])
        return heights, np.array([self._curvature(point) for point in points])

    def _curvature(self, point: Vector) -> float:
        return float(np.abs(np.linalg.eigvalsh(self.hessian(point))).max())

    def rate(self, theta: Vector, strength: float) -> float:
        """Return the length of steps along the gradient of F: the inverse of its largest curvature on their way.

        Steps of that length never climb. Where the curvature is not known everywhere, it is that at θ and at lower
        points in view.
        """
        if self.surface.constants is not None:
            return 1.0 / (self.surface.constants.smoothness + strength)
        heights, curvatures = self._in_view
        lower = curvatures[heights <= self.support(theta)[0]]
        return 1.0 / (max([self._curvature(theta), *map(float, lower)]) + strength)

    def minimum(self, near: Vector, theta: Vector, strength: float) -> Vector:
        """Return the minimum of F that Newton-CG reaches from a point, as exact as float64 allows."""
        return np.asarray(_EXACT.minimize(_Rows(self, theta, strength), near[None])[0])


@lru_cache(maxsize=len(SURFACES))
def inner_problem(name: str) -> InnerProblem:
    """Return the problem of a surface in `SURFACES`, the same for all sessions."""
    return InnerProblem(SURFACES[name])


class _Rows:
    """F as a `RowObjective` of one row, which keeps the points whose curvature was asked for: Newton's iterates."""

    def __init__(self, problem: InnerProblem, theta: Vector, strength: float) -> None:
        self._problem, self._theta, self._strength = problem, theta, strength
        self.iterates: list[Vector] = []

    def evaluate(self, points: Vector) -> tuple[Vector, Vector]:
        losses, gradients = self._problem.objective_of_rows(points, self._theta, self._strength)
        return losses, gradients

    def curvature(self, points: Vector) -> Callable[[Vector], Vector]:
        self.iterates.append(points[0].copy())
        return lambda vectors: self._problem.product_of_rows(points, vectors) + self._strength * vectors


def _by_gradients(momentum: float) -> Callable[[InnerProblem, Vector, float, int], list[Vector]]:
    def path(problem: InnerProblem, theta: Vector, strength: float, steps: int) -> list[Vector]:
        optimizer = SGDOptimizer(problem.rate(theta, strength), momentum=momentum)
        points = [theta]
        for _ in range(steps):
            _, gradient = problem.objective(points[-1], theta, strength)
            points.append(np.asarray(optimizer.UpdateParameters(points[-1], gradient)))
        return points

    return path


def _by_lbfgs(problem: InnerProblem, theta: Vector, strength: float, steps: int) -> list[Vector]:
    """Return the points that L-BFGS asks about, trials of its line search included, with its result at the end."""
    points: list[Vector] = []

    def objective(phi: Vector) -> tuple[Any, Vector]:
        points.append(phi.copy())
        value, gradient = problem.objective(phi, theta, strength)
        return value, gradient

    end = LBFGSMinimizer(max_iterations=steps)(objective, theta)
    return [*points, np.asarray(end)]


def _by_newton_cg(problem: InnerProblem, theta: Vector, strength: float, steps: int) -> list[Vector]:
    rows = _Rows(problem, theta, strength)
    end = NewtonCGMinimizer(max_iterations=steps).minimize(rows, theta[None])
    return [*rows.iterates, np.asarray(end[0])]


# From a problem, θ, Λ and the most steps to the points of the way, θ first.
SOLVERS: dict[str, Callable[[InnerProblem, Vector, float, int], list[Vector]]] = {
    "gradient descent": _by_gradients(0.0),
    "momentum": _by_gradients(_MOMENTUM),
    "L-BFGS": _by_lbfgs,
    "Newton-CG": _by_newton_cg,
}

_SURFACE, _SOLVER = Choice(*SURFACES), Choice(*SOLVERS)


@dataclass(frozen=True)
class InnerSolution:
    """Where an inner problem is solved, and how a solver gets there.

    Attributes
    ----------
    theta : NDArray, shape (P,)
        θ.
    path : NDArray, shape (points, P)
        From θ to φ, where the solver stops.
    minimum : NDArray, shape (P,)
        φ*, the minimum of F that lies downhill of φ.
    pull, spring : NDArray, shape (P,)
        The forces at φ*: −∇L_s(φ*), and Λ(θ − φ*).
    gradient_norm : float
        ‖∇F(φ)‖.
    """

    theta: Vector
    path: Vector
    minimum: Vector
    pull: Vector
    spring: Vector
    gradient_norm: float

    @property
    def distance(self) -> float:
        """‖φ − φ*‖."""
        return float(np.linalg.norm(self.path[-1] - self.minimum))

    @property
    def imbalance(self) -> float:
        """‖−∇L_s(φ*) + Λ(θ − φ*)‖, which is 0 at a minimum."""
        return float(np.linalg.norm(self.pull + self.spring))

    @property
    def radius(self) -> float:
        """‖φ* − θ‖, the radius of the circle round θ through φ*."""
        return float(np.linalg.norm(self.minimum - self.theta))

    @property
    def slope_along_circle(self) -> float | None:
        """∇L_s(φ*) along the unit tangent of the circle at φ*, 0 at a minimum; None where the circle is a point."""
        if self.radius < 1e-9:
            return None
        x, y = (self.minimum - self.theta) / self.radius
        return float(-self.pull @ np.array([-y, x]))


def as_point(name: str, values: Sequence[object], size: int) -> Vector:
    """Return numbers within the view as a vector.

    Raises
    ------
    ArgumentException
        When their number is another, or one of them is none.
    ArgumentOutOfRangeException
        When one lies outside the view.
    """
    if len(values) != size:
        raise ArgumentException(f"{name} must have {size} numbers, got {len(values)}")
    return np.array([_COORDINATE.check(f"{name}[{place}]", value) for place, value in enumerate(values)])


def solve_inner_problem(
    surface: str, theta: Sequence[object], strength: float, solver: str, steps: int
) -> InnerSolution:
    """Solve the inner problem of a surface by a solver.

    Parameters
    ----------
    surface, solver : str
        Names in `SURFACES` and `SOLVERS`.
    theta : sequence of float, length P
        θ, within the view.
    strength : float
        Λ, from 0 to 10⁴.
    steps : int
        The most steps of the solver, from 1 to 200.

    Raises
    ------
    ArgumentException
        When a value is of another kind, or a name is unknown.
    ArgumentOutOfRangeException
        When a number lies outside its range.
    """
    problem = inner_problem(_SURFACE.check("surface", surface))
    start = as_point("theta", theta, len(problem.surface.start))
    strength = _STRENGTH.check("Lambda", strength)
    path = np.stack(SOLVERS[_SOLVER.check("solver", solver)](problem, start, strength, STEPS.check("steps", steps)))
    minimum = problem.minimum(path[-1], start, strength)
    _, gradient = problem.objective(path[-1], start, strength)
    _, slope = problem.support(minimum)
    return InnerSolution(
        start, path, minimum, -np.asarray(slope), strength * (start - minimum), float(np.linalg.norm(gradient))
    )
