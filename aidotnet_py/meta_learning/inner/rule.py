"""One inner step as a traced function, and its vjp; every inner loop and every way back is made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aidotnet_py.arguments import shown
from aidotnet_py.autodiff import trace, vjp
from aidotnet_py.autodiff.extend import CapturedState, Program, trace_pure
from aidotnet_py.backends import Array, Backend
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.optimizers import ElementwiseOptimizer, IGradientBasedOptimizer, SGDOptimizer
from aidotnet_py.optimizers.row_formula import formula_of_rows

__all__ = ["InnerRule", "along_gradient", "along_proximal_gradient", "TracedRule"]


def along_gradient(points: Array, start: Array, gradients: Array) -> Array:
    """Return ∇L_s(φ).

    Parameters
    ----------
    points, start, gradients : array, shape (tasks, P)
        φ, θ and ∇L_s(φ).

    Returns
    -------
    array, shape (tasks, P)
        The gradients themselves.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.meta_learning.extend import along_gradient
    >>> along_gradient(np.ones((1, 2)), np.zeros((1, 2)), np.full((1, 2), 3.0))
    array([[3., 3.]])
    """
    return gradients


def along_proximal_gradient(points: Array, start: Array, gradients: Array, strength: Array | float) -> Array:
    """Return ∇L_s(φ) + (φ − θ) · strength, the gradient with a proximal term of strength 1/λ.

    Parameters
    ----------
    points, start, gradients : array, shape (tasks, P)
        φ, θ and ∇L_s(φ).
    strength : float or array
        1/λ; an array broadcasts with (tasks, P).

    Returns
    -------
    array, shape (tasks, P)

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py.meta_learning.extend import along_proximal_gradient
    >>> along_proximal_gradient(np.ones((1, 2)), np.zeros((1, 2)), np.full((1, 2), 3.0), 0.5)
    array([[3.5, 3.5]])
    """
    return gradients + (points - start) * strength


@dataclass(frozen=True)
class InnerRule:
    """(φ, θ, ∇, memory, values) ↦ (φ′, memory′): a direction, and an optimizer's step along it.

    Attributes
    ----------
    optimizer : IGradientBasedOptimizer
        The optimizer that takes the step; the rule does not change it.
    direction : callable
        ``direction(points, start, gradients, *values)`` on (tasks, P), in traceable array code. It may mix the entries
        of a row, and never those of two rows. Pass the same object at every step, so that it is traced once.
    values : tuple of array or float
        Values of the direction that may differ from one meta-training step to the next: numbers, or arrays that
        broadcast with (tasks, P).
    learned_names : tuple of str
        Names of the learned vectors, which are the first values; the way back returns their cotangents, a row a task.
    tolerance : float, optional
        A task stops moving once the norm of its direction is at most this.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py import SGDOptimizer
    >>> from aidotnet_py.meta_learning.extend import InnerRule, along_proximal_gradient
    >>> rule = InnerRule(SGDOptimizer(0.1), along_proximal_gradient, (0.5,))
    >>> phi, theta, gradients = np.ones((1, 2)), np.zeros((1, 2)), np.full((1, 2), 3.0)
    >>> rule.follow(phi, theta, gradients), rule.strength, rule.is_differentiable
    (array([[3.5, 3.5]]), 0.5, True)
    """

    optimizer: IGradientBasedOptimizer
    direction: Callable[..., Array] = along_gradient
    values: tuple[Array | float, ...] = ()
    learned_names: tuple[str, ...] = ()
    tolerance: float | None = None

    @property
    def learned(self) -> int:
        """The number of learned values."""
        return len(self.learned_names)

    @property
    def strength(self) -> Array | float | None:
        """The strength of the proximal term, 1/λ; None without one."""
        return self.values[0] if self.direction is along_proximal_gradient else None

    def follow(self, points: Array, start: Array, gradients: Array) -> Array:
        """Return the direction at φ, given θ and ∇L_s(φ); it may be the gradients themselves."""
        return self.direction(points, start, gradients, *self.values)

    def take(
        self,
        points: Array,
        start: Array,
        gradients: Array,
        memory: Sequence[Array],
        values: Sequence[Array],
        coefficients: Sequence[Any],
    ) -> tuple[Array, list[Array]]:
        """Return φ′ and memory′ of a differentiable rule."""
        assert isinstance(self.optimizer, ElementwiseOptimizer)
        direction = self.direction(points, start, gradients, *values)
        if getattr(direction, "shape", None) != points.shape:
            raise ArgumentException(
                f"the direction of an InnerRule must have the shape of the gradients, {tuple(points.shape)}, got "
                f"{shown(direction)}"
            )
        return formula_of_rows(self.optimizer.checked_formula, points, direction, memory, coefficients)

    @property
    def memory(self) -> tuple[str, ...]:
        """Names of the arrays that a step reads and writes beside φ."""
        assert isinstance(self.optimizer, ElementwiseOptimizer)
        return self.optimizer.memory

    @property
    def is_differentiable(self) -> bool:
        """Whether a step can be traced: the optimizer has a formula."""
        return isinstance(self.optimizer, ElementwiseOptimizer) and self.optimizer.has_formula

    @property
    def plain_rate(self) -> float | None:
        """α if a step is φ − α∇ and nothing else."""
        optimizer = self.optimizer
        plain = self.direction is along_gradient and type(optimizer) is SGDOptimizer and not optimizer.memory
        return optimizer.GetCurrentLearningRate() if plain else None


class TracedRule:
    """The Programs of a rule for arrays of one shape.

    Parameters
    ----------
    rule : InnerRule
        A differentiable rule.
    backend : Backend
        The backend of all arrays.
    like : array, shape (tasks, P)
        An example of φ.

    Attributes
    ----------
    step : Program
        (φ, θ, ∇, memory, values, coefficients) ↦ (φ′, memory′); the coefficients are one vector.
    memory, values, learned, coefficients : int
        The numbers of memory arrays, values, learned values, and coefficients.
    """

    def __init__(self, rule: InnerRule, backend: Backend, like: Array) -> None:
        assert isinstance(rule.optimizer, ElementwiseOptimizer)
        self._rule, self._optimizer = rule, rule.optimizer
        self._settings = CapturedState(self._optimizer.formula)
        self.memory, self.values, self.learned = len(rule.memory), len(rule.values), rule.learned
        self.coefficients = len(*self._optimizer.first_coefficients(1))
        self._shapes = _shapes(rule)
        dtype = backend.dtype_of(like)
        number = backend.empty((), dtype)
        # A learned value has a row for each task, since each task has a cotangent of its own.
        rows = [backend.empty((like.shape[0], *shape), dtype) for shape in self._shapes[: rule.learned]]
        others = [number if isinstance(v, (int, float)) else v for v in rule.values[rule.learned :]]
        vector = backend.empty((max(1, self.coefficients),), dtype)
        self._examples = (like, like, like, [like] * self.memory, [*rows, *others], vector)
        name = f"{type(rule.optimizer).__name__}.formula, or the direction of the inner rule,"
        self.step: Program = trace_pure(name, self._take, *self._examples)
        self._optimizer.require_result(self.step, self.memory)
        place = self.step.inputs[1]
        self.reads_start = any(place in equation.variables for equation in self.step.equations)

    def serves(self, rule: InnerRule) -> bool:
        """Return whether the Programs are also those of another rule."""
        optimizer = rule.optimizer
        if not isinstance(optimizer, ElementwiseOptimizer) or not optimizer.shares_formula(self._optimizer):
            return False
        same = type(rule) is type(self._rule) and rule.direction is self._rule.direction
        alike = rule.memory == self._rule.memory and rule.learned == self._rule.learned
        return same and alike and _shapes(rule) == self._shapes and not self._settings.changed(optimizer)

    def _take(
        self, points: Any, start: Any, gradients: Any, memory: Sequence[Any], values: Sequence[Any], vector: Any
    ) -> Any:
        numbers = [vector[i] for i in range(self.coefficients)]
        return self._rule.take(points, start, gradients, memory, values, numbers)

    def pull_back(self) -> Program:
        """Return the vjp of a step, with sums from one step to the one before it.

        (φ, θ, ∇, memory, values, coefficients, a, b, m̄, θ̄, ū) ↦ (φ̄, ∇̄, m̄′, θ̄′, ū′): a + b is the cotangent of φ′, m̄ is
        that of memory′, and the step adds its own cotangents to θ̄ and to ū of the learned values.
        """

        def pull(
            points: Any,
            start: Any,
            gradients: Any,
            memory: Sequence[Any],
            values: Sequence[Any],
            vector: Any,
            a: Any,
            b: Any,
            after: Sequence[Any],
            of_start: Any,
            of_learned: Sequence[Any],
        ) -> Any:
            def step(points: Any, start: Any, gradients: Any, memory: Any, learned: Any) -> Any:
                return self._take(points, start, gradients, memory, [*learned, *values[len(learned) :]], vector)

            learned = values[: self._rule.learned]
            pullback = vjp(step, points, start, gradients, memory, learned)[1]
            points_, start_, gradients_, memory_, learned_ = pullback((a + b, after))
            sums = [sum_ + of_step for sum_, of_step in zip(of_learned, learned_, strict=True)]
            return points_, gradients_, memory_, of_start + start_, sums

        like, _, _, memory, values, _ = self._examples
        return trace(pull, *self._examples, like, like, memory, like, values[: self._rule.learned])


def _shapes(rule: InnerRule) -> list[tuple[int, ...]]:
    return [tuple(getattr(value, "shape", ())) for value in rule.values]
