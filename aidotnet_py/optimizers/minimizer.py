"""The protocols of minimisers: of stacked rows at once, or of one vector by a function that a user may write."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from aidotnet_py.backends import Array

__all__ = ["InnerSolver", "RowMinimizer", "RowObjective", "VectorObjective"]

#: A function of one vector (P,): its value there, a number or an array of no axes, and its gradient (P,).
VectorObjective: TypeAlias = Callable[[Array], tuple[Any, Array]]


class RowObjective(Protocol):
    """A function of stacked rows (tasks, P), with one loss a row that depends on that row alone.

    Points and results have one backend and one floating dtype. Losses and gradients are valid until the objective is
    asked again, and a product until the next one: whoever keeps them longer copies them. Nobody writes to the points,
    neither the objective nor, while products with the curvature there are asked for, a minimiser.
    """

    def evaluate(self, points: Array) -> tuple[Array, Array]:
        """Return the losses (tasks,) and their gradients (tasks, P) at these points."""
        ...

    def curvature(self, points: Array) -> Callable[[Array], Array]:
        """Return v ↦ Hv for stacked vectors (tasks, P): each row by its own Hessian at these points."""
        ...


class RowMinimizer(ABC):
    """Minimises every row of a `RowObjective`, all of them at once."""

    @abstractmethod
    def minimize(self, objective: RowObjective, start: Array) -> Array:
        """Return the points (tasks, P) that the minimiser reaches from ``start``, in a new array.

        A row whose loss or gradient is not finite at the start stays where it is.
        """


class InnerSolver(Protocol):
    """A minimiser of a function of one vector: any callable with two arguments.

    It need not know what it solves, nor tell how. It is handed the function and where to start, both of one backend
    and floating dtype, and returns a vector of the same. Each call of the function computes a loss and its gradient,
    whose array is valid until the next call.

    Examples
    --------
    Gradient descent that tries a longer step after each success, and half of one after a failure:

    >>> import numpy as np
    >>> def bold_driver(objective, theta):
    ...     phi, rate = theta, 1.0
    ...     value, gradient = objective(phi)
    ...     for _ in range(100):
    ...         trial = phi - rate * gradient
    ...         value_there, gradient_there = objective(trial)
    ...         if value_there < value:
    ...             phi, value, gradient, rate = trial, value_there, gradient_there, 1.2 * rate
    ...         else:
    ...             value, gradient = objective(phi)
    ...             rate = rate / 2
    ...     return phi
    >>> bold_driver(lambda x: (np.sum((x - 3.0) ** 2), 2.0 * (x - 3.0)), np.zeros(2)).round(6)
    array([3., 3.])
    """

    def __call__(self, objective: VectorObjective, theta: Array, /) -> Array:
        """Return a vector at which ``objective(phi) -> (value, gradient)`` is small, from ``theta``, which stays."""
        ...
