"""Inner steps on a traced objective: its gradients and the optimizer's formula, in turn, in the programs' buffers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from aidotnet_py.autodiff import trace
from aidotnet_py.autodiff.execution import Executable, Run, Schedule
from aidotnet_py.autodiff.program import Program
from aidotnet_py.autodiff.tracing.captured_state import CapturedState
from aidotnet_py.backends import Array, Backend
from aidotnet_py.meta_learning.objective.following import Following
from aidotnet_py.optimizers import ElementwiseOptimizer

__all__ = ["Descent", "numbers_of"]


class Descent:
    """Steps of an optimizer with a formula; once all is compiled, steps that are alike are one call.

    Parameters
    ----------
    backend : Backend
        Of all arrays.
    points, gradients : array, shape (tasks, P)
        What the evaluation reads and writes.
    evaluation : (Executable, int)
        What computes the gradients, and the stage that does.
    optimizer : ElementwiseOptimizer
        With a formula.
    following : Following
        What the steps follow; later ones may have other values of the same shapes.
    """

    def __init__(
        self,
        backend: Backend,
        points: Array,
        gradients: Array,
        evaluation: tuple[Executable, int],
        optimizer: ElementwiseOptimizer,
        following: Following,
    ) -> None:
        self._backend = backend
        self._points = points
        self._optimizer, self._formula, self._shapes = optimizer, following.formula, _shapes(following)
        program = _program(backend, points, optimizer, following)
        self._settings = CapturedState(optimizer.formula)
        memory = len(optimizer.memory)
        self.update = Executable(
            program,
            backend,
            inputs=[points, None, gradients, *[None] * (len(program.inputs) - 3)],
            carried={0: 0, **{1 + i: 3 + i for i in range(memory)}},
        )
        _, self._start, _, *others = self.update.inputs
        self._reads_start = any(program.inputs[1] in equation.variables for equation in program.equations)
        self._memory, others = others[:memory], others[memory:]
        self._values, self._coefficients = others[: len(following.values)], others[len(following.values) :]
        self._rounds = Schedule(backend, Run(*evaluation), Run(self.update, 0))

    @property
    def nbytes(self) -> int:
        """Bytes of its own buffers."""
        own = (self._start, *self._memory, *self._values)
        size = sum(int(math.prod(array.shape)) for array in own)
        return self.update.nbytes + size * self._backend.dtype_of(self._start).itemsize

    def serves(self, optimizer: ElementwiseOptimizer, following: Following) -> bool:
        """Whether its program is that of these steps too."""
        alike = optimizer.shares_formula(self._optimizer) and optimizer.memory == self._optimizer.memory
        same = following.formula is self._formula and _shapes(following) == self._shapes
        return alike and same and not self._settings.changed(optimizer)

    def load(self, start: Array, following: Following) -> None:
        """Have the next steps begin at θ, and follow this."""
        copyto = self._backend.copyto
        copyto(self._points, start)
        if self._reads_start:
            copyto(self._start, start)
        for array, value in zip(self._values, following.values, strict=True):
            copyto(array, value)

    def take(self, optimizer: ElementwiseOptimizer, steps: int) -> None:
        """Take so many steps; what they are depends on nothing else than `load` and `numbers_of`."""
        copyto = self._backend.copyto
        for array in self._memory:
            copyto(array, 0)
        for count, coefficients in numbers_of(optimizer, steps):
            for array, number in zip(self._coefficients, coefficients, strict=True):
                copyto(array, number)
            self._rounds.run(count)


def _shapes(following: Following) -> list[tuple[int, ...]]:
    return [tuple(getattr(value, "shape", ())) for value in following.values]


def numbers_of(optimizer: ElementwiseOptimizer, steps: int) -> tuple[tuple[int, tuple[float, ...]], ...]:
    """Steps in a row that are taken with the same numbers: how many, and those."""
    # 0 and −0 are equal, and a formula may tell them apart.
    groups = (list(group) for _, group in groupby(optimizer.fresh().coefficients_ahead(steps), key=repr))
    return tuple((len(group), group[0]) for group in groups)


def _program(backend: Backend, points: Array, optimizer: ElementwiseOptimizer, following: Following) -> Program:
    """(φ, θ, ∇, memory, values, coefficients) ↦ (φ′, memory′)."""
    formula: Callable[..., Array] = following.formula

    def step(
        points: Any, start: Any, gradients: Any, memory: Sequence[Any], values: Sequence[Any], numbers: Sequence[Any]
    ) -> Any:
        return optimizer.formula(points, formula(points, start, gradients, *values), memory, numbers)

    number = backend.empty((), backend.dtype_of(points))
    values = [number if isinstance(value, (int, float)) else value for value in following.values]
    memory = [points] * len(optimizer.memory)
    coefficients = [number] * len(*optimizer.fresh().coefficients_ahead(1))
    program = trace(step, points, points, points, memory, values, coefficients)
    optimizer.require_result(program)
    return program
