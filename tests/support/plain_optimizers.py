"""Optimizers of a user's own: one without a formula, one with a formula and memory."""

from __future__ import annotations

from typing import Any

from aidotnet_py.backends import Backend
from aidotnet_py.optimizers import ElementwiseOptimizer

__all__ = ["Decaying", "Halving"]


class Halving:
    """An optimizer that knows no formula, nor that it could step all tasks at once."""

    def UpdateParameters(self, parameters: Any, gradient: Any) -> Any:
        return parameters - 0.05 * gradient

    def Reset(self) -> None:
        pass

    def GetCurrentLearningRate(self) -> float:
        return 0.05

    def GetState(self) -> dict[str, Any]:
        return {}

    def SetState(self, state: Any) -> None:
        pass


class Decaying(ElementwiseOptimizer):
    """A user's own, whose step moves parameters without gradients too and remembers two things."""

    memory = ("sum", "last")

    def coefficients(self, step: int) -> tuple[float, ...]:
        return self._learning_rate / step, 0.9

    def formula(self, parameters: Any, gradient: Any, memory: Any, coefficients: Any) -> Any:
        rate, keep = coefficients
        total = memory[0] * keep + gradient * memory[1] + gradient
        return parameters * keep - total * rate, [total, gradient]

    def _step(self, backend: Backend, parameters: Any, gradient: Any) -> Any:
        memory = [self._arrays[name] for name in self.memory]
        parameters, after = self.formula(parameters, gradient, memory, self.coefficients(self._steps))
        self._arrays = {name: backend.asarray(a) for name, a in zip(self.memory, after, strict=True)}
        return parameters
