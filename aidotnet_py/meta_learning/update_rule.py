"""One step of an inner optimizer, differentiated: what a change of its result asks of what went into it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aidotnet_py.autodiff import trace, vjp
from aidotnet_py.backends import Array, Backend
from aidotnet_py.meta_learning.adaptation import InnerState
from aidotnet_py.optimizers import ElementwiseOptimizer, SGDOptimizer

__all__ = ["UpdateRule"]


class UpdateRule:
    """(φ, m), ∇ ↦ (φ′, m′), one step of an optimizer with memory m, pulled back by the engine's vjp of its formula.

    Parameters
    ----------
    optimizer : ElementwiseOptimizer
        With a formula.
    backend : Backend
        Where its arrays are.
    """

    def __init__(self, optimizer: ElementwiseOptimizer, backend: Backend) -> None:
        self._optimizer = optimizer
        self._backend = backend
        self._program: Any = None
        # The cotangents of the memory after the step that comes before; none after the last.
        self._memory: list[Array] = []

    @property
    def rate(self) -> float | None:
        """α where a step is φ − α∇, and nothing else."""
        plain = type(self._optimizer) is SGDOptimizer and not self._optimizer.memory
        return self._optimizer.GetCurrentLearningRate() if plain else None

    def pull(self, state: InnerState, gradients: Array, v: Array) -> tuple[Array, Array]:
        """The cotangents of φ and of ∇, from that of φ′; those of m and m′ are kept from one call to the next.

        Calls go from the last step to the first; ``state`` is the one before the step.
        """
        names = self._optimizer.memory
        if not self._memory:
            self._memory = [self._zeros(v) for _ in names]
        memory = [state.memory[name] if name in state.memory else self._zeros(v) for name in names]
        coefficients = self._optimizer.coefficients(int(state.memory["steps"]) + 1)
        if self._program is None:
            self._program = self._traced(state.points, len(names), len(coefficients))
        arguments = (state.points, gradients, memory, coefficients, v, self._memory)
        points, slopes, self._memory = self._program(*arguments)
        return points, slopes

    def _traced(self, like: Array, memory: int, coefficients: int) -> Any:
        optimizer = self._optimizer

        def pulled(points: Any, gradients: Any, before: Any, numbers: Sequence[Any], v: Any, after: Any) -> Any:
            def step(points: Any, gradients: Any, before: Any) -> Any:
                return optimizer.formula(points, gradients, before, numbers)

            return vjp(step, points, gradients, before)[1]((v, after))

        number = self._backend.empty((), self._backend.dtype_of(like))
        return trace(pulled, like, like, [like] * memory, (number,) * coefficients, like, [like] * memory)

    def _zeros(self, like: Array) -> Array:
        zeros = self._backend.empty(tuple(like.shape), self._backend.dtype_of(like))
        self._backend.copyto(zeros, 0)
        return zeros
