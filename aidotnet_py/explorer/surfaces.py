"""The losses that the explorer's pages are about: of two parameters, to be drawn, and of forty, for longer solves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.autodiff import softplus
from aidotnet_py.meta_learning import ProblemConstants

__all__ = ["SURFACES", "VIEW", "Surface"]

Vector = NDArray[np.float64]

# Drawn are both parameters from −VIEW to VIEW.
VIEW = 3.0
# The largest |d³/dz³ log cosh z|.
_LOG_COSH_THIRD = 4 / (3 * math.sqrt(3))
_WEIGHTS, _ROWS = 40, 80


@dataclass(frozen=True)
class Surface:
    """A support loss, and the query loss: the same function, with its minimum moved by a shift.

    Attributes
    ----------
    support : callable
        L_s, from an array (P,) to a number, in array code that can be traced.
    start : tuple of float
        θ to begin with, shape (P,).
    shift : float
        Of both of the first two parameters, between the minima of support and query loss.
    convex : bool
        Whether L_s is convex.
    constants : ProblemConstants or None
        μ, L and ρ of the losses everywhere, for the paper's bound; None if there are none.
    """

    support: Callable[[Any], Any]
    start: tuple[float, ...]
    convex: bool
    constants: ProblemConstants | None = None
    shift: float = 0.5

    @cached_property
    def moved(self) -> Vector:
        """The minimum of the query loss minus that of the support loss, shape (P,)."""
        moved = np.zeros(len(self.start))
        moved[:2] = self.shift, -self.shift
        return moved

    def query(self, phi: Any) -> Any:
        """L_q, traceable like ``support``."""
        return self.support(phi - self.moved)


def _quadratic(matrix: Vector, centre: Vector) -> tuple[Callable[[Any], Any], ProblemConstants]:
    """Return ½ (φ − c)ᵀ A (φ − c) with its constants."""
    eigenvalues = np.linalg.eigvalsh(matrix)
    constants = ProblemConstants(float(eigenvalues[0]), float(eigenvalues[-1]), 0.0)

    def loss(phi: Any) -> Any:
        away = phi - centre
        return 0.5 * np.sum(away * (matrix @ away))

    return loss, constants


def _bowl() -> Surface:
    loss, constants = _quadratic(np.array([[2.0, 0.6], [0.6, 1.0]]), np.array([1.0, 0.5]))
    return Surface(loss, (-1.5, 1.8), True, constants)


def _valley() -> Surface:
    turned = np.array([[math.cos(0.5), -math.sin(0.5)], [math.sin(0.5), math.cos(0.5)]])
    loss, constants = _quadratic(turned @ np.diag([0.2, 8.0]) @ turned.T, np.array([1.2, 0.2]))
    return Surface(loss, (-2.0, 0.8), True, constants)


def _log_cosh() -> Surface:
    directions, centre = np.array([[2.0, 0.5], [-0.4, 1.2]]), np.array([0.8, -0.3])

    def loss(phi: Any) -> Any:
        z = directions @ (phi - centre)
        return np.sum(softplus(2.0 * z) - z - math.log(2.0))

    smoothness = float(np.linalg.eigvalsh(directions.T @ directions)[-1])
    third = _LOG_COSH_THIRD * float(np.sum(np.linalg.norm(directions, axis=1) ** 3))
    return Surface(loss, (-1.6, 1.6), True, ProblemConstants(0.0, smoothness, third))


def _two_minima() -> Surface:
    return Surface(
        lambda phi: 0.5 * (phi[0] ** 2 - 1.6) ** 2 + 0.3 * phi[0] + (phi[1] - 0.4 * phi[0]) ** 2, (0.3, 2.0), False
    )


def _banana() -> Surface:
    return Surface(lambda phi: 0.5 * (1.0 - phi[0]) ** 2 + 2.0 * (phi[1] - phi[0] ** 2 + 1.0) ** 2, (-1.5, 1.8), False)


def _ripples() -> Surface:
    return Surface(lambda phi: 0.25 * np.sum((phi - 0.6) ** 2) - 0.6 * np.sum(np.cos(2.5 * phi)), (-1.6, 1.9), False)


def _regression() -> Surface:
    """Return the squared error of a linear model on random rows, whose features have falling scales."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(_ROWS, _WEIGHTS)) * np.geomspace(3.0, 0.05, _WEIGHTS)
    loss, constants = _quadratic(2.0 * rows.T @ rows / _ROWS, generator.normal(size=_WEIGHTS))
    return Surface(loss, (0.0,) * _WEIGHTS, True, constants)


# In the order of their list on the page.
SURFACES: Mapping[str, Surface] = {
    "bowl": _bowl(),
    "narrow valley": _valley(),
    "log-cosh": _log_cosh(),
    "two minima": _two_minima(),
    "banana": _banana(),
    "ripples": _ripples(),
    "regression with 40 weights": _regression(),
}
