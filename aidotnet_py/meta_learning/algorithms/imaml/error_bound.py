"""The iMAML paper's bound on the error of an implicit meta-gradient, in quantities that a step measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import NON_NEGATIVE
from aidotnet_py.exceptions import ArgumentOutOfRangeException

__all__ = ["ProblemConstants", "meta_gradient_error_bound"]

Norms = NDArray[Any] | float


@dataclass(frozen=True)
class ProblemConstants:
    """Constants of the losses near the solution of the inner problem, for a bound.

    Parameters
    ----------
    strong_convexity : float
        μ ≥ 0: the Hessian of the support loss is at least μI.
    smoothness : float
        L ≥ 0: the gradient of the query loss is L-Lipschitz.
    hessian_lipschitz : float
        ρ ≥ 0: the Hessian of the support loss is ρ-Lipschitz; 0 for a quadratic.

    Raises
    ------
    ArgumentOutOfRangeException
        When a constant is not a finite number of at least 0.
    """

    strong_convexity: float
    smoothness: float
    hessian_lipschitz: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            NON_NEGATIVE.check(name, value, type_error=ArgumentOutOfRangeException)


def meta_gradient_error_bound(
    inner_gradient_norm: Norms,
    residual_norm: Norms,
    query_gradient_norm: Norms,
    lam: float,
    constants: ProblemConstants,
) -> NDArray[np.float64]:
    r"""Bound ‖v − v*‖, for v computed at φ by a solve that leaves a residual r, v* exact at the inner minimum φ*.

    .. math::
        \delta = \frac{\lambda \|\nabla F(\phi)\|}{1 + \lambda\mu}, \qquad
        \|v - v^*\| \le \frac{L\,\delta}{1 + \lambda\mu}
        + \frac{\lambda\rho\,\delta\,(\|g\| + L\delta)}{(1 + \lambda\mu)^2} + \frac{\|r\|}{1 + \lambda\mu}

    with F(φ) = L_support(φ) + ‖φ − θ‖²/(2λ) and g = ∇L_query(φ). δ bounds ‖φ − φ*‖ by F's strong convexity, and
    ‖g‖ + Lδ the query gradient at φ*; both stand for constants that the paper takes as given. With its λ_p = 1/λ this
    is its bound: λ/(1 + λμ) is 1/(λ_p + μ).

    Parameters
    ----------
    inner_gradient_norm : float or array, shape (tasks,)
        ‖∇F(φ)‖.
    residual_norm : float or array, shape (tasks,)
        ‖g − (I + λH)v‖.
    query_gradient_norm : float or array, shape (tasks,)
        ‖g‖.
    lam : float
        λ > 0.
    constants : ProblemConstants
        μ, L and ρ.

    Returns
    -------
    NDArray, float64
        The bounds.

    References
    ----------
    Rajeswaran, A. et al. (2019). Meta-learning with implicit gradients. NeurIPS, Definition 2 and Theorem 1, with the
    lemma on implicit gradients of its appendix.

    Examples
    --------
    >>> from aidotnet_py.meta_learning import ProblemConstants, meta_gradient_error_bound
    >>> quadratic = ProblemConstants(strong_convexity=1.0, smoothness=2.0, hessian_lipschitz=0.0)
    >>> float(meta_gradient_error_bound(0.01, 0.001, 3.0, lam=1.0, constants=quadratic))
    0.0055
    """
    mu, smoothness, rho = constants.strong_convexity, constants.smoothness, constants.hessian_lipschitz
    stiffness = 1.0 + lam * mu
    distance = lam * np.asarray(inner_gradient_norm, dtype=np.float64) / stiffness
    at_minimum = np.asarray(query_gradient_norm, dtype=np.float64) + smoothness * distance
    lipschitz_term = lam * rho * distance * at_minimum / stiffness**2
    return smoothness * distance / stiffness + lipschitz_term + np.asarray(residual_norm, dtype=np.float64) / stiffness
