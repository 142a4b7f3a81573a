"""L-BFGS by SciPy (the ``optimize`` extra), one vector at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import COUNT, NON_NEGATIVE, check_given, pair_of, refusal, shown
from aidotnet_py.backends import Array, backend_of
from aidotnet_py.exceptions import ArgumentException, NotSupportedException
from aidotnet_py.keywords import suggests_keywords
from aidotnet_py.optimizers.minimizer import VectorObjective
from aidotnet_py.representations import concise_repr

__all__ = ["LBFGSMinimizer"]

_Vector: TypeAlias = NDArray[np.float64]

# Two values closer than so many units in the last place are not told apart.
_ROUNDINGS = 16


@suggests_keywords(maxiter="max_iterations", gtol="gradient_tolerance", maxcor="history")
@dataclass(frozen=True)
class LBFGSMinimizer:
    r"""Minimise a smooth function of one vector by L-BFGS, as ``scipy.optimize.minimize`` has it.

    .. math:: \varphi_{k+1} = \varphi_k - \alpha_k B_k \nabla f(\varphi_k)

    with the inverse Hessian B that the last steps and changes of the gradient suggest, and α by a line search (strong
    Wolfe conditions). SciPy works in float64 and on NumPy arrays; the function is called in the dtype of the start,
    and so is the result. It is an `InnerSolver`, called with a function of one vector; `NewtonCGMinimizer`, which needs
    the curvature too, has `minimize` for functions of many rows. As InnerOptimizer, either serves.

    Parameters
    ----------
    max_iterations : int
        The most steps, at least 1; the function is called at least once a step.
    gradient_tolerance : float
        The work ends when no entry of the gradient is larger: ‖∇f‖∞ ≤ gradient_tolerance, at least 0.
    history : int
        How many of the last steps B is made from, at least 1.

    Raises
    ------
    ArgumentException
        When a number is of another kind; or, in the call, when the start is no floating vector, or what the objective
        returns is not a number and a gradient of the same shape.
    ArgumentOutOfRangeException
        When a number lies outside its range.
    NotSupportedException
        When the start is not a NumPy array.
    ImportError
        When SciPy is not installed.

    Notes
    -----
    Values that are not finite, and points that the dtype cannot hold, are taken for a wall: SciPy is told of one higher
    than all that it has seen, and shortens its step. If they are there at the start, that is the result. Values that
    rounding makes equal are told apart by the slopes, so that float32 gets as far as float64: to gradients of about
    1e-8 where values are about 1, and of about 1e-3 where they are about 1e12, since SciPy's values are in float64.

    References
    ----------
    Nocedal, J. & Wright, S. J. (2006). Numerical optimization, 2nd edition, algorithm 7.5. Zhu, C., Byrd, R. H., Lu, P.
    & Nocedal, J. (1997). Algorithm 778: L-BFGS-B. ACM Trans. Math. Softw. 23(4), 550–560.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.autodiff import value_and_grad
    >>> def rosenbrock(x):
    ...     return 100.0 * (x[1] - x[0] ** 2) ** 2 + (1.0 - x[0]) ** 2
    >>> LBFGSMinimizer()(value_and_grad(rosenbrock), np.array([-1.2, 1.0])).round(6)
    array([1., 1.])
    """

    __repr__ = concise_repr

    max_iterations: int = 50
    gradient_tolerance: float = 1e-6
    history: int = 10

    def __post_init__(self) -> None:
        COUNT.check("max_iterations", self.max_iterations)
        NON_NEGATIVE.check("gradient_tolerance", self.gradient_tolerance)
        COUNT.check("history", self.history)

    def __call__(self, objective: VectorObjective, theta: Array, /) -> Array:
        """Where the function is small, as found from ``theta``; see `InnerSolver`."""
        check_given("objective", objective, "a function of a vector")
        if not callable(objective):
            raise ArgumentException(refusal("objective", "a function of a vector", objective))
        start = _checked(theta)
        try:
            from scipy.optimize import minimize
        except ImportError as error:
            raise ImportError('LBFGSMinimizer needs SciPy: pip install "aidotnet-py[optimize]"') from error
        levels = _Levels(objective, start.dtype)
        with np.errstate(over="ignore"):
            wide = start.astype(np.float64)
        found = minimize(
            levels,
            wide,
            method="L-BFGS-B",
            jac=True,
            options={
                "maxiter": int(self.max_iterations),
                "gtol": float(self.gradient_tolerance),
                # SciPy makes room for all at once, and there are no more than steps.
                "maxcor": int(min(self.history, self.max_iterations)),
                # A small fall is no reason to stop: what the minimum is wanted for hangs on its gradient.
                "ftol": 0.0,
                # More than any line search makes: the iterations are the bound.
                "maxfun": 100 * int(self.max_iterations),
            },
        )
        # From a wall, SciPy's interpolation may end at NaN.
        best = found.x if np.isfinite(found.x).all() else levels.lowest_point(start)
        result: NDArray[Any] = best.astype(start.dtype)
        return result


class _Levels:
    """The function as SciPy sees it: in float64, with a wall where it is not finite, and falling where it does.

    SciPy's search compares values. Near a minimum they differ by less than their rounding, in float32 as soon as the
    gradient is about 1e-4; the slopes at both ends of a step still tell how much the function fell between them.
    """

    def __init__(self, objective: VectorObjective, dtype: np.dtype[Any]) -> None:
        self._objective, self._dtype = objective, dtype
        self._noise = _ROUNDINGS * float(np.finfo(dtype).eps)
        self._highest = 0.0
        # The lowest point: where it is, its value and slope, and the level that SciPy was told.
        self._lowest: tuple[_Vector, float, _Vector, float] | None = None

    def __call__(self, point: _Vector) -> tuple[float, _Vector]:
        with np.errstate(all="ignore"):
            rounded = point.astype(self._dtype)
            place = rounded.astype(np.float64)
            height, slope = _heights(self._objective(rounded), rounded)
        # A point beyond the dtype is no minimum, although a function such as exp(−x) has a value there.
        if math.isfinite(height) and np.isfinite(slope).all() and np.isfinite(place).all():
            self._highest = max(self._highest, height)
            return self._level(place, height, slope), slope
        # No higher than it takes to turn the search around: from a very high wall it would come back too far.
        return 2 * self._highest + 1.0, np.zeros_like(slope)

    def lowest_point(self, start: NDArray[Any]) -> NDArray[Any]:
        """Return the lowest point so far; the start if the function was finite nowhere."""
        return start if self._lowest is None else self._lowest[0]

    def _level(self, place: _Vector, value: float, slope: _Vector) -> float:
        if self._lowest is None:
            self._lowest = (place, value, slope, value)
            return value
        at, least, slope_there, level_there = self._lowest
        if abs(value - least) <= self._noise * abs(least):
            level = level_there + 0.5 * float((slope + slope_there) @ (place - at))
        else:
            level = value + (level_there - least)
        if level < level_there:
            self._lowest = (place, value, slope, level)
        return level


def _heights(result: Any, point: NDArray[Any]) -> tuple[float, _Vector]:
    """Return what the objective returned, once it is a value and a gradient, in float64."""
    wanted = f"a real number and its gradient of shape {point.shape}"
    value, gradient = pair_of("the result of objective", wanted, result)
    try:
        height, slope = np.asarray(value), np.array(gradient)
    except (TypeError, ValueError) as error:
        raise ArgumentException(refusal("the result of objective", wanted, (value, gradient))) from error
    if height.ndim or slope.shape != point.shape or height.dtype.kind not in "fiub" or slope.dtype.kind not in "fiub":
        came = " and ".join(f"{a.dtype}{a.shape}" if a.dtype != object else shown(a.tolist()) for a in (height, slope))
        raise ArgumentException(f"the result of objective must be {wanted}, got {came}")
    return float(height), slope.astype(np.float64, copy=False)


def _checked(theta: Array) -> NDArray[Any]:
    backend = backend_of(theta)
    if backend is None:
        raise ArgumentException(f"theta must be a floating NumPy array (P,), got {type(theta).__name__}")
    if not isinstance(theta, np.ndarray):
        raise NotSupportedException(
            f"theta is on backend {backend.name!r}; SciPy works on NumPy arrays only, NewtonCGMinimizer on any"
        )
    vector = cast("NDArray[Any]", theta)
    if vector.dtype.kind != "f" or vector.ndim != 1 or vector.size == 0:
        raise ArgumentException(f"theta must be a floating NumPy array (P,), got {vector.dtype}{vector.shape}")
    return vector.astype(backend.dtype_of(vector), copy=False)
