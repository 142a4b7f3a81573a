"""The error function, which NumPy lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["erf"]

# W. J. Cody, Rational Chebyshev approximations for the error function, Mathematics of Computation 23, 1969: the
# coefficients, from the highest power, of erf(x)/x in x² for |x| ≤ 1/2, and of erfc(x) exp(x²) in x beyond. The second
# is meant for x ≤ 4; further out it may be less accurate, for erfc is less than 2e-8 there.
_CENTRE = (
    (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2, 3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)
_TAIL = (
    (
        *(2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1),
        *(2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3),
        1.23033935479799725e3,
    ),
    (
        *(1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3),
        *(3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3),
    ),
)
# From here on erf is 1 in float64.
_ONE = 6.0


def erf(x: Any, out: Any = None) -> Any:
    """Compute 2/√π ∫₀ˣ exp(−t²) dt, to a few roundings of float64."""
    x = np.asarray(x)
    wide = np.clip(x, -_ONE, _ONE, dtype=np.float64)
    distance = np.abs(wide)
    square = np.square(wide)
    tail = np.copysign(1.0 - np.exp(-square) * _quotient(_TAIL, distance), wide)
    value = cast(Any, np.where(distance <= 0.5, wide * _quotient(_CENTRE, square), tail))
    if out is None:
        return value.astype(x.dtype)
    np.copyto(out, value, casting="same_kind")
    return out


def _quotient(polynomials: tuple[Sequence[float], Sequence[float]], x: NDArray[np.float64]) -> Any:
    above, below = (_polynomial(coefficients, x) for coefficients in polynomials)
    return np.divide(above, below, out=above)


def _polynomial(coefficients: Sequence[float], x: NDArray[np.float64]) -> NDArray[np.float64]:
    value = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value *= x
        value += coefficient
    return value
