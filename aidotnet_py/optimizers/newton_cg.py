"""Newton's method with directions by conjugate gradient, for many functions at once: one a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import COUNT, NON_NEGATIVE, check_given, pair_of, refusal
from aidotnet_py.backends import Array, Backend, backend_of, described
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.optimizers.minimizer import RowMinimizer, RowObjective
from aidotnet_py.representations import concise_repr
from aidotnet_py.solvers import conjugate_gradient

__all__ = ["NewtonCGMinimizer"]

# One number a row, on the host.
_Numbers: TypeAlias = NDArray[np.float64]

# Of the decrease that the slope promises, what a step must keep (Nocedal & Wright 2006, 3.4), and the part of the
# slope that may be left where the losses are too close to tell (Hager & Zhang 2005).
_DECREASE, _SLOPE_LEFT = 1e-4, 0.9
# Two losses closer than so many units in the last place are not told apart.
_ROUNDINGS = 16
# How often a step may be shortened: at least by a half, at most to a tenth.
_TRIALS, _LEAST, _MOST = 30, 0.1, 0.5


@suggests_keywords(maxiter="max_iterations", gtol="gradient_tolerance")
@dataclass(frozen=True)
class NewtonCGMinimizer(RowMinimizer):
    r"""Minimise smooth functions by inexact Newton steps, with exact curvature products and no Hessian.

    .. math::
        \varphi_{k+1} = \varphi_k + \alpha_k p_k, \qquad
        \|\nabla^2 f(\varphi_k)\, p_k + \nabla f(\varphi_k)\| \le \eta_k \|\nabla f(\varphi_k)\|, \qquad
        \eta_k = \min\left(\tfrac12, \sqrt{\frac{\max|\nabla f(\varphi_k)|}{\max|\nabla f(\varphi_0)|}}\right)

    The system is solved more and more exactly, so that convergence is superlinear. Where conjugate gradient meets
    negative curvature, what it has found so far is the direction; if that is nothing, or a product is not finite, −∇f
    is. Steps are shortened from α = 1 until the function falls by a part of what its slope promises; where rounding
    hides the fall, until the slope has.

    Each row is minimised as if it were alone: its bits depend on the rows beside it only as far as those of the
    objective do. A row that has converged, or can find no better point, stays where it is.

    It is a `RowMinimizer`, with `minimize` for a `RowObjective`, and cannot be called like `LBFGSMinimizer`, an
    `InnerSolver`: a function of value and gradient has no curvature to take products with. As InnerOptimizer, either
    serves.

    Parameters
    ----------
    max_iterations : int
        The most steps for a row, at least 1.
    gradient_tolerance : float
        A row has converged when no entry of its gradient is larger: ‖∇f‖∞ ≤ gradient_tolerance, at least 0.
    cg_iterations : int
        The most products with the curvature for one direction, at least 1; one more checks the last of them.

    Raises
    ------
    ArgumentException
        When a number is of another kind.
    ArgumentOutOfRangeException
        When a number lies outside its range.

    References
    ----------
    Nocedal, J. & Wright, S. J. (2006). Numerical optimization, 2nd edition, algorithm 7.1. Dembo, R. S., Eisenstat,
    S. C. & Steihaug, T. (1982). Inexact Newton methods. SIAM J. Numer. Anal. 19(2), 400–408, theorem 3.3. Hager, W. W.
    & Zhang, H. (2005). A new conjugate gradient method with guaranteed descent and an efficient line search. SIAM J.
    Optim. 16(1), 170–192, section 4.

    Examples
    --------
    Of a function of one vector, from three starts:

    >>> import numpy as np
    >>> from aidotnet_py.autodiff import grad, linearize, value_and_grad, vmap
    >>> def rosenbrock(x):
    ...     return 100.0 * (x[1] - x[0] ** 2) ** 2 + (1.0 - x[0]) ** 2
    >>> class Rows:
    ...     def evaluate(self, points):
    ...         return vmap(value_and_grad(rosenbrock))(points)
    ...
    ...     def curvature(self, points):
    ...         return linearize(vmap(grad(rosenbrock)), points)[1]
    >>> starts = np.array([[-1.2, 1.0], [2.0, -2.0], [0.0, 0.0]])
    >>> NewtonCGMinimizer(max_iterations=100).minimize(Rows(), starts).round(6)
    array([[1., 1.],
           [1., 1.],
           [1., 1.]])
    """

    __repr__ = concise_repr

    max_iterations: int = 20
    gradient_tolerance: float = 1e-6
    cg_iterations: int = 20

    def __post_init__(self) -> None:
        COUNT.check("max_iterations", self.max_iterations)
        NON_NEGATIVE.check("gradient_tolerance", self.gradient_tolerance)
        COUNT.check("cg_iterations", self.cg_iterations)

    def minimize(self, objective: RowObjective, start: Array) -> Array:
        """Return the points (tasks, P) that the rows reach from ``start``, in a new array.

        Parameters
        ----------
        objective : RowObjective
            The functions, and products with their curvature.
        start : array, shape (tasks, P)
            Of a floating dtype, on any backend; it is not changed.

        Raises
        ------
        ArgumentException
            When start is no such array, or what the objective returns does not fit it.
        """
        check_given("objective", objective, "a RowObjective")
        if not all(callable(getattr(objective, name, None)) for name in ("evaluate", "curvature")):
            raise ArgumentException(refusal("objective", "a RowObjective, with evaluate and curvature", objective))
        backend = _checked(start)
        with backend.errors_ignored():
            rows = _Rows(backend, objective, start)
            first = rows.largest
            for _ in range(self.max_iterations):
                rows.running &= rows.largest > self.gradient_tolerance
                if not rows.running.any():
                    break
                rows.search(*rows.direction(first, self.cg_iterations))
        return rows.points


class _Rows:
    """The rows under way: arrays (tasks, P) where the backend keeps them, numbers (tasks,) on the host."""

    def __init__(self, backend: Backend, objective: RowObjective, start: Array) -> None:
        self.backend, self.objective = backend, objective
        self.shape: tuple[int, ...] = tuple(start.shape)
        self.dtype = backend.dtype_of(start)
        self.points = backend.asarray(start)
        losses, gradients = self.evaluated(self.points)
        self.gradients = backend.asarray(gradients)
        self.losses, self.largest = self.host(losses), self.largest_of(gradients)
        self.running: NDArray[np.bool_] = np.isfinite(self.losses) & np.isfinite(self.largest)

    def evaluated(self, points: Array) -> tuple[Array, Array]:
        """Return losses and gradients, once they fit."""
        wanted = f"losses {self.shape[:1]} and gradients {self.shape}"
        losses, gradients = pair_of("the result of evaluate", wanted, self.objective.evaluate(_read_only(points)))
        for name, array, shape in (("losses", losses, self.shape[:1]), ("gradients", gradients, self.shape)):
            if (
                not self.backend.owns(array)
                or tuple(array.shape) != shape
                or self.dtype != self.backend.dtype_of(array)
            ):
                raise ArgumentException(
                    f"the objective's {name} must be {self.dtype}{shape} on backend {self.backend.name!r}, "
                    f"got {described(array)}"
                )
        return losses, gradients

    def host(self, values: Array) -> _Numbers:
        """Return a copy of numbers (tasks,), in float64."""
        return np.array(self.backend.to_numpy(values), dtype=np.float64)

    def device(self, values: NDArray[Any]) -> Array:
        """Return the host's numbers or booleans (tasks,), each repeated along its row."""
        kind = values.dtype if values.dtype == np.bool_ else self.dtype
        column = self.backend.reshape(self.backend.asarray(values, kind), (self.shape[0], 1))
        return self.backend.broadcast_to(column, self.shape)

    def largest_of(self, vectors: Array) -> _Numbers:
        """Return the largest |x| of each row; NaN for a row that has one."""
        return self.host(self.backend.max(self.backend.elementwise("abs")(vectors), (1,)))

    def products(self, x: Array, y: Array) -> _Numbers:
        """Return xᵀy of each row."""
        return self.host(self.backend.vecdot(x, y))

    def direction(self, first: _Numbers, cg_iterations: int) -> tuple[Array, _Numbers]:
        """Return the direction of each row that runs, and the slope along it."""
        where, divide, multiply = map(self.backend.elementwise, ("where", "divide", "multiply"))
        # Its largest entry 1, no row's norm can overflow; and with its norm 1/η, the one bound 1 fits every row.
        largest = np.where(self.running, self.largest, 1.0)
        rhs = divide(self.gradients, self.device(largest))
        forcing = np.minimum(0.5, np.sqrt(largest / np.where(self.running, first, 1.0)))
        factors = forcing * np.sqrt(self.products(rhs, rhs))
        rhs = divide(rhs, self.device(-factors), out=rhs)
        rhs = where(self.device(self.running), rhs, 0.0)
        curvature = self.objective.curvature(_read_only(self.points))
        solution, _ = conjugate_gradient(curvature, rhs, max_iterations=cg_iterations, rtol=0.0, atol=1.0)
        direction = multiply(solution, self.device(np.where(self.running, factors * largest, 0.0)), out=solution)
        slopes = self.products(self.gradients, direction)
        steepest = self.running & ~(np.isfinite(slopes) & (slopes < 0))
        if steepest.any():
            negative = self.backend.elementwise("negative")(self.gradients)
            direction = where(self.device(steepest), negative, direction)
            slopes = self.products(self.gradients, direction)
        return direction, slopes

    def search(self, direction: Array, slopes: _Numbers) -> None:
        """Step along the direction, as far as it is good; a row that finds no better point stops."""
        where = self.backend.elementwise("where")
        multiply, add = self.backend.elementwise("multiply"), self.backend.elementwise("add")
        before, pending, trial = self.losses, self.running.copy(), self.points
        lengths, most = np.ones_like(before), float(np.finfo(self.dtype).max)
        here, far = self.largest_of(self.points), self.largest_of(direction)
        for _ in range(_TRIALS):
            stepped = multiply(direction, self.device(lengths))
            stepped = add(self.points, stepped, out=stepped)
            # Rows that have their step are evaluated there again, and others where they stay.
            trial = where(self.device(pending), stepped, trial)
            losses, gradients = self.evaluated(trial)
            there, largest, along = self.host(losses), self.largest_of(gradients), self.products(gradients, direction)
            # A point beyond the dtype is no minimum, although a function such as exp(−x) has a value there.
            good = pending & np.isfinite(there) & np.isfinite(largest) & (here + lengths * far <= most)
            good &= _is_lower(before, there, lengths * slopes) | _is_flatter(before, there, slopes, along, self.dtype)
            self.gradients = where(self.device(good), gradients, self.gradients)
            self.losses, self.largest = np.where(good, there, self.losses), np.where(good, largest, self.largest)
            pending &= ~good
            if not pending.any():
                break
            lengths = np.where(pending, lengths * _shortening(before, there, lengths * slopes), lengths)
        self.points = where(self.device(pending), self.points, trial)
        self.running &= ~pending


def _is_lower(before: _Numbers, there: _Numbers, promised: _Numbers) -> NDArray[np.bool_]:
    """Whether the losses fell by enough of what the slopes promised."""
    lower: NDArray[np.bool_] = (there < before) & (there <= before + _DECREASE * promised)
    return lower


def _is_flatter(
    before: _Numbers, there: _Numbers, slope: _Numbers, slope_there: _Numbers, dtype: np.dtype[Any]
) -> NDArray[np.bool_]:
    """Whether the losses cannot be told apart, and the slopes show that the minimum came closer."""
    close = there <= before + _ROUNDINGS * float(np.finfo(dtype).eps) * np.abs(before)
    flatter: NDArray[np.bool_] = (_SLOPE_LEFT * slope <= slope_there) & (slope_there <= (2 * _DECREASE - 1) * slope)
    return close & flatter


def _shortening(before: _Numbers, there: _Numbers, promised: _Numbers) -> _Numbers:
    """Return the part of the step to try next: the lowest point of the parabola through the losses and the slope."""
    part = -promised / (2 * (there - before - promised))
    # Losses that are not finite are far off; a parabola that opens downwards is the work of rounding.
    part = np.where(np.isfinite(there), np.where(part > 0, part, _MOST), _LEAST)
    return np.clip(part, _LEAST, _MOST)


def _read_only(points: Array) -> Array:
    """Return the points as the objective gets them: NumPy's as a view that it cannot write to."""
    if not isinstance(points, np.ndarray):
        return points
    view = cast("NDArray[Any]", points).view()
    view.flags.writeable = False
    return view


def _checked(start: Array) -> Backend:
    backend = backend_of(start)
    if backend is None:
        raise ArgumentException(f"start must be a floating array (tasks, P), got {type(start).__name__}")
    if backend.dtype_of(start).kind != "f" or len(start.shape) != 2 or 0 in start.shape:
        raise ArgumentException(f"start must be a floating array (tasks, P), not empty, got {described(start)}")
    return backend
