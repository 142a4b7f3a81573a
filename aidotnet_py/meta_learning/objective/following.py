"""What inner steps follow: the gradients of the support losses, or what an algorithm makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aidotnet_py.backends import Array

__all__ = ["SUPPORT_GRADIENT", "Following", "along_proximal_gradient"]


@dataclass(frozen=True)
class Following:
    """``formula(points, start, gradients, *values)``, element by element, on stacked parameters (tasks, P).

    Attributes
    ----------
    formula : callable
        Array code that can be traced, the same object at every step, so that it is traced once.
    values : tuple of array or float
        What changes from one meta-training step to the next: numbers, or arrays that go with (tasks, P).
    """

    formula: Callable[..., Array]
    values: tuple[Array | float, ...] = ()

    def __call__(self, points: Array, start: Array, gradients: Array) -> Array:
        """What to follow, given φ, θ and ∇L_s(φ); it may be the gradients themselves."""
        return self.formula(points, start, gradients, *self.values)


def _gradients(points: Array, start: Array, gradients: Array) -> Array:
    return gradients


def _proximal(points: Array, start: Array, gradients: Array, strength: Array | float) -> Array:
    return gradients + (points - start) * strength


SUPPORT_GRADIENT = Following(_gradients)


def along_proximal_gradient(strength: Array | float) -> Following:
    """∇L_s(φ) + (φ − θ) · strength, the gradient with a proximal term of that strength, 1/λ."""
    return Following(_proximal, (strength,))
