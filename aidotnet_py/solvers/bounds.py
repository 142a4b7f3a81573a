"""When a residual is small enough: next to the right-hand side, or by itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import NON_NEGATIVE
from aidotnet_py.caller import level_outside
from aidotnet_py.solvers.report import BoundName

__all__ = ["Bounds", "renames_tolerance"]

P = ParamSpec("P")
R = TypeVar("R")

# Of the default rtol: what iterations reach where the dtype allows it, else a hundred roundings.
_RTOL, _ROUNDINGS = 1e-10, 100


@dataclass(frozen=True)
class Bounds:
    """‖b − Ax‖ ≤ max(rtol ‖b‖, atol), as SciPy has it.

    Attributes
    ----------
    rtol : float or None
        Relative to the right-hand side, at least 0; None stands for 1e-10, or for a hundred roundings where the dtype
        has fewer digits than that needs (1.2e-5 in float32).
    atol : float
        Absolute, at least 0.

    Raises
    ------
    ArgumentOutOfRangeException
        When one is no finite number of at least 0.
    """

    rtol: float | None
    atol: float

    def __post_init__(self) -> None:
        if self.rtol is not None:
            object.__setattr__(self, "rtol", NON_NEGATIVE.check("rtol", self.rtol))
        object.__setattr__(self, "atol", NON_NEGATIVE.check("atol", self.atol))

    def of(self, rhs_norms: NDArray[Any], scales: NDArray[Any] | None) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return the bound of each system whose right-hand side has this norm, and whether it is the relative bound.

        Right-hand sides were multiplied by ``scales``; atol has the units from before.
        """
        numbers = _Numbers.of(rhs_norms.dtype)
        rtol = numbers.rtol if self.rtol is None else self.rtol
        if rtol == 0 and scales is None:
            # The same for all, at a tenth of the time.
            bound = np.full(rhs_norms.shape, min(self.atol, numbers.max), rhs_norms.dtype)
            return bound, np.full(rhs_norms.shape, self.atol == 0)
        with np.errstate(all="ignore"):
            relative = rtol * np.where(np.isfinite(rhs_norms), rhs_norms, 0.0).astype(numbers.wide)
            absolute = self.atol if scales is None else self.atol * scales.astype(numbers.wide)
            bounds = np.minimum(np.maximum(relative, absolute), numbers.max).astype(rhs_norms.dtype)
        return bounds, relative >= absolute


class _Numbers(NamedTuple):
    """Numbers of a dtype that every solve needs, and for which NumPy takes the time of an iteration."""

    rtol: float
    max: float
    wide: np.dtype[Any]

    @staticmethod
    @lru_cache
    def of(dtype: np.dtype[Any]) -> _Numbers:
        numbers = np.finfo(dtype)
        rtol = max(_RTOL, _ROUNDINGS * float(numbers.eps))
        return _Numbers(rtol, float(numbers.max), np.result_type(dtype, np.float64))


def renames_tolerance(stands_for: BoundName) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function that once took ``tolerance``: it still does, as the bound that it was, with a warning."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            if "tolerance" in kwargs:
                changed = cast("Callable[..., R]", function)
                return changed(*args, **_renamed(function.__name__, stands_for, kwargs))
            return function(*args, **kwargs)

        return called

    return decorate


def _renamed(function: str, stands_for: BoundName, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords with rtol and atol in the place of tolerance."""
    if "rtol" in keywords or "atol" in keywords:
        raise TypeError(f"{function}() must be called with rtol and atol alone, got tolerance beside them")
    others = dict(keywords)
    value = others.pop("tolerance")
    bounds = {"rtol": value} if stands_for == "rtol" else {"rtol": 0.0, "atol": value}
    now = ", ".join(f"{name}={bound!r:.40}" for name, bound in bounds.items())
    warnings.warn(
        f"tolerance of {function} is now {now}: a linear solve ends when ‖b − Ax‖ ≤ max(rtol·‖b‖, atol); version 0.4 "
        f"removes tolerance",
        DeprecationWarning,
        stacklevel=level_outside(),
    )
    return others | bounds
