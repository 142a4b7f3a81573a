"""The protocol of optimizers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from aidotnet_py.backends import Array

__all__ = ["IGradientBasedOptimizer"]


@runtime_checkable
class IGradientBasedOptimizer(Protocol):
    """Turns gradients into parameter updates, and can put its memory of past ones aside and take it up again."""

    def UpdateParameters(self, parameters: Array, gradient: Array) -> Array:
        """Return new parameters after one step; the arguments are not changed."""
        ...

    def Reset(self) -> None:
        """Forget all past gradients."""
        ...

    def GetCurrentLearningRate(self) -> float:
        """Return the rate of the next step."""
        ...

    def GetState(self) -> Mapping[str, Any]:
        """Return the memory by name: copies of arrays and numbers."""
        ...

    def SetState(self, state: Mapping[str, Any]) -> None:
        """Set the memory to a result of `GetState`."""
        ...
