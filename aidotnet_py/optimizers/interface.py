"""What an optimizer offers, and the base of those that treat every parameter alike."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol, Self, runtime_checkable

from aidotnet_py.backends import Array, Backend, backend_of
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException

__all__ = ["ElementwiseOptimizer", "IGradientBasedOptimizer", "in_range", "positive"]


@runtime_checkable
class IGradientBasedOptimizer(Protocol):
    """Turns gradients into parameter updates, and can put its memory of past ones aside and take it up again."""

    def UpdateParameters(self, parameters: Array, gradient: Array) -> Array:
        """New parameters after one step; the arguments are not changed."""
        ...

    def Reset(self) -> None:
        """Forget all past gradients."""
        ...

    def GetCurrentLearningRate(self) -> float:
        """The rate of the next step."""
        ...

    def GetState(self) -> Mapping[str, Any]:
        """What it remembers, by name: arrays and numbers, copies."""
        ...

    def SetState(self, state: Mapping[str, Any]) -> None:
        """Take up what `GetState` gave."""
        ...


def positive(value: float, name: str) -> float:
    """The value, if it is a finite number above 0."""
    if not (math.isfinite(value) and value > 0):
        raise ArgumentOutOfRangeException(f"{name} is {value}; a finite number above 0 is wanted")
    return float(value)


def in_range(value: float, name: str) -> float:
    """The value, if it lies in [0, 1)."""
    if not 0 <= value < 1:
        raise ArgumentOutOfRangeException(f"{name} is {value}; a number in [0, 1) is wanted")
    return float(value)


class ElementwiseOptimizer(ABC):
    """An optimizer whose every step is the same formula for each parameter.

    It therefore works on one vector (P,) or on the stacked vectors of many tasks (tasks, P) at once, each row as if it
    were alone.
    """

    # Names of the arrays that a step reads and writes; each has the parameters' shape and starts at zero.
    _memory: tuple[str, ...] = ()

    def __init__(self, learning_rate: float) -> None:
        self._learning_rate = positive(learning_rate, "learning_rate")
        self._steps = 0
        self._arrays: dict[str, Array] = {}

    def UpdateParameters(self, parameters: Array, gradient: Array) -> Array:
        """New parameters after one step.

        Parameters
        ----------
        parameters, gradient : array, shape (P,) or (tasks, P)
            Of one shape, dtype and backend, the same at each step until `Reset`.

        Raises
        ------
        ArgumentException
            When they differ from each other or from earlier steps.
        """
        backend = self._checked(parameters, gradient)
        if not self._arrays:
            self._arrays = {name: _zeros(backend, parameters) for name in self._memory}
        self._steps += 1
        return self._step(backend, parameters, gradient)

    @abstractmethod
    def _step(self, backend: Backend, parameters: Array, gradient: Array) -> Array:
        """The formula; ``self._arrays`` are its memory and ``self._steps`` counts this step."""

    def _checked(self, parameters: Array, gradient: Array) -> Backend:
        backend = backend_of(parameters, gradient)
        if backend is None:
            raise ArgumentException(f"parameters is a {type(parameters).__name__}; an array is wanted")
        for name, other in (("gradient", gradient), *self._arrays.items()):
            if tuple(other.shape) != tuple(parameters.shape) or other.dtype != parameters.dtype:
                raise ArgumentException(
                    f"{name} is {other.dtype}{tuple(other.shape)}; the parameters are "
                    f"{parameters.dtype}{tuple(parameters.shape)}"
                )
        return backend

    def Reset(self) -> None:
        """Forget all past gradients."""
        self._steps = 0
        self._arrays = {}

    def GetCurrentLearningRate(self) -> float:
        """The rate of the next step."""
        return self._learning_rate

    def fresh(self) -> Self:
        """The same optimizer with no past."""
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.Reset()
        return other

    def GetState(self) -> dict[str, Any]:
        """The number of steps taken, and a copy of each array remembered."""
        state: dict[str, Any] = {"steps": self._steps}
        for name, array in self._arrays.items():
            backend = backend_of(array)
            assert backend is not None
            state[name] = backend.asarray(array)
        return state

    def SetState(self, state: Mapping[str, Any]) -> None:
        """Take up what `GetState` gave.

        Raises
        ------
        ArgumentException
            When it is not the state of such an optimizer.
        """
        arrays = {name: value for name, value in state.items() if name != "steps"}
        steps = state.get("steps")
        if not isinstance(steps, int) or steps < 0 or (arrays and set(arrays) != set(self._memory)):
            raise ArgumentException(f"state has {sorted(state)}; steps, a count, and {sorted(self._memory)} are wanted")
        if bool(arrays) != (steps > 0 and bool(self._memory)):
            raise ArgumentException(f"state has {steps} steps and arrays {sorted(arrays)}; they do not belong together")
        self._steps = steps
        self._arrays = {}
        for name, array in arrays.items():
            backend = backend_of(array)
            if backend is None:
                raise ArgumentException(f"state {name!r} is a {type(array).__name__}; an array is wanted")
            self._arrays[name] = backend.asarray(array)


def _zeros(backend: Backend, like: Array) -> Array:
    array = backend.empty(tuple(like.shape), backend.dtype_of(like))
    backend.copyto(array, 0)
    return array
