"""The implicit meta-gradient on a surface beside the exact one, as inner steps and CG iterations vary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import Choice, Number, Whole
from aidotnet_py.explorer.inner_problem import SOLVERS, STEPS, as_point, inner_problem
from aidotnet_py.explorer.surfaces import SURFACES
from aidotnet_py.meta_learning import meta_gradient_error_bound
from aidotnet_py.solvers import SolverReport, conjugate_gradient

__all__ = ["ITERATIONS", "MetaGradients", "compare_meta_gradients"]

Vector = NDArray[np.float64]

ITERATIONS = Whole(1, 60)
# Λ; 0 has no implicit gradient.
_STRENGTH = Number(least=1e-3, most=1e4)
_SURFACE = Choice(*SURFACES)


@dataclass(frozen=True)
class MetaGradients:
    """Gradients of the query loss in θ, at one θ.

    Attributes
    ----------
    adapted, minimum : NDArray, shape (P,)
        φ, after the inner steps, and φ*.
    first_order : NDArray, shape (P,)
        g = ∇L_q(φ), what first-order methods take.
    implicit : NDArray, shape (P,)
        v, with (I + H/Λ) v = g solved by conjugate gradient, H the Hessian of the support loss at φ.
    exact : NDArray, shape (P,)
        v*: the same at φ*, by a dense solve.
    report : SolverReport
        Of the solve.
    bound : float or None
        The paper's bound on ‖v − v*‖; None for a surface without constants.
    """

    adapted: Vector
    minimum: Vector
    first_order: Vector
    implicit: Vector
    exact: Vector
    report: SolverReport
    bound: float | None

    @property
    def error(self) -> float:
        """‖v − v*‖."""
        return float(np.linalg.norm(self.implicit - self.exact))

    @property
    def first_order_error(self) -> float:
        """‖g − v*‖."""
        return float(np.linalg.norm(self.first_order - self.exact))

    @property
    def residuals(self) -> Vector:
        """‖g − (I + H/Λ) v‖ / ‖g‖ before the first iteration and after each."""
        history = self.report.residual_history[:, 0]
        return np.asarray(history / self.report.rhs_norms[0])

    def in_a_plane(self) -> dict[str, Vector]:
        """Return g, v and v* as vectors of two numbers.

        Of two parameters they stay as they are. Of more, the first axis is that of v*, g lies in the plane of both, and
        v is what falls into it.
        """
        vectors = {"first order": self.first_order, "implicit": self.implicit, "exact": self.exact}
        if len(self.exact) == 2:
            return vectors
        along = self.exact / np.linalg.norm(self.exact)
        across = self.first_order - (self.first_order @ along) * along
        across = across / np.linalg.norm(across)
        return {name: np.array([vector @ along, vector @ across]) for name, vector in vectors.items()}


def compare_meta_gradients(
    surface: str, theta: Sequence[object], strength: float, steps: int, iterations: int
) -> MetaGradients:
    """Compute the implicit meta-gradient after some steps of gradient descent, and the exact one.

    Parameters
    ----------
    surface : str
        A name in `SURFACES`.
    theta : sequence of float, length P
        θ.
    strength : float
        Λ, from 10⁻³ to 10⁴.
    steps : int
        Inner steps, from 1 to 200.
    iterations : int
        The most iterations of conjugate gradient, from 1 to 60.

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
    lam = 1.0 / strength
    limit = ITERATIONS.check("iterations", iterations)
    adapted = SOLVERS["gradient descent"](problem, start, strength, STEPS.check("steps", steps))[-1]
    _, first_order = problem.query(adapted)
    implicit, report = conjugate_gradient(
        lambda vector: vector + lam * problem.product(adapted, vector), np.asarray(first_order), max_iterations=limit
    )
    minimum = problem.minimum(adapted, start, strength)
    _, at_minimum = problem.query(minimum)
    system = np.eye(len(start)) + lam * np.asarray(problem.hessian(minimum))
    exact: Vector = np.asarray(np.linalg.solve(system, np.asarray(at_minimum)), np.float64)
    bound = None
    if problem.surface.constants is not None:
        _, gradient = problem.objective(adapted, start, strength)
        norms = (float(np.linalg.norm(gradient)), float(report.residual_norms[0]), float(np.linalg.norm(first_order)))
        bound = float(meta_gradient_error_bound(*norms, lam=lam, constants=problem.surface.constants))
    return MetaGradients(adapted, minimum, np.asarray(first_order), np.asarray(implicit), exact, report, bound)
