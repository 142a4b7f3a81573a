"""Powers of two for vectors whose squares would leave the normal numbers of their dtype."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["all_in_range", "in_range", "powers_for", "scales_for"]


def in_range(norms: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which norms leave room, in a dtype's exponents, for their squares and for a solve that shrinks them.

    A quarter of the exponents to either side of 1: 1e-77 to 1e77 in float64, 5e-10 to 4e9 in float32.
    """
    least, most = _range_of(norms.dtype)
    within: NDArray[np.bool_] = (norms >= least) & (norms <= most)
    return within


def scales_for(norms: NDArray[Any]) -> NDArray[Any] | None:
    """Return powers of two for vectors of these norms, 1 where they may stay as they are; None where all may."""
    if all_in_range(norms):
        return None
    far = np.isfinite(norms) & (norms > 0) & ~in_range(norms)
    return np.where(far, powers_for(norms), np.ones_like(norms)) if far.any() else None


def all_in_range(norms: NDArray[Any]) -> bool:
    """Return whether all norms are in range."""
    least, most = _range_of(norms.dtype)
    # A few numbers are looked at faster one by one, and this is asked several times a solve.
    for norm in norms.tolist():  # noqa: SIM110
        if not least <= norm <= most:
            return False
    return True


@lru_cache
def _range_of(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    numbers, one = np.finfo(dtype), np.ones((), dtype)
    return np.ldexp(one, int(numbers.minexp) // 4).item(), np.ldexp(one, int(numbers.maxexp) // 4).item()


def powers_for(norms: NDArray[Any]) -> NDArray[Any]:
    """Return powers of two that bring these numbers close to 1; exactly 1 for what is zero or not finite."""
    numbers = np.finfo(norms.dtype)
    usable = np.isfinite(norms) & (norms > 0)
    _, exponents = np.frexp(np.where(usable, norms, 0.5))
    exponents = np.clip(-exponents, int(numbers.minexp), int(numbers.maxexp) - 1)
    powers: NDArray[Any] = np.ldexp(np.ones_like(norms), exponents)
    return powers
