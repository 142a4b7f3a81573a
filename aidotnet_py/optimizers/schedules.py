"""Learning-rate schedules: pure functions from the number of a step to a factor of the rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from aidotnet_py.arguments import COUNT, COUNT_OR_ZERO, POSITIVE, refusal
from aidotnet_py.descriptions import Described
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException

__all__ = ["ConstantSchedule", "CosineSchedule", "LearningRateSchedule", "StepSchedule", "WarmUpSchedule"]

# A rate must stay above 0, and finite.
_LEAST, _MOST = 1e-300, 1e300


class LearningRateSchedule(Protocol):
    """A function of the number of a step, from 0 on, to the factor > 0 of the learning rate.

    It depends on the number alone, so that a run that goes on has the rates of one that was not stopped.
    """

    def __call__(self, step: int, /) -> float:
        """Return the factor."""
        ...


@dataclass(frozen=True)
class ConstantSchedule(Described):
    """The same factor at every step.

    Parameters
    ----------
    factor : float
        The factor, > 0.

    Raises
    ------
    ArgumentOutOfRangeException
        When the factor is not above 0.

    Examples
    --------
    >>> ConstantSchedule()(1000)
    1.0
    """

    factor: float = 1.0

    def __post_init__(self) -> None:
        POSITIVE.check("factor", self.factor)

    def __call__(self, step: int, /) -> float:
        """Return the factor."""
        return self.factor


@dataclass(frozen=True)
class CosineSchedule(Described):
    """Half a cosine from 1 to ``final``: f + (1 − f)(1 + cos(πt/n))/2, and f from step n on.

    Loshchilov & Hutter 2017, eq. 5, without restarts.

    Parameters
    ----------
    steps : int
        n, > 0.
    final : float
        f > 0.

    Raises
    ------
    ArgumentException, ArgumentOutOfRangeException
        When a parameter is none of these.

    Examples
    --------
    >>> schedule = CosineSchedule(100, final=0.1)
    >>> [round(schedule(step), 3) for step in (0, 50, 100, 1000)]
    [1.0, 0.55, 0.1, 0.1]
    """

    steps: int
    final: float = 0.01

    def __post_init__(self) -> None:
        COUNT.check("steps", self.steps, type_error=ArgumentOutOfRangeException)
        POSITIVE.check("final", self.final)

    def __call__(self, step: int, /) -> float:
        """Return the factor."""
        if step >= self.steps:
            return self.final
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * step / self.steps))


@dataclass(frozen=True)
class StepSchedule(Described):
    """A factor to the number of times that ``every`` steps have passed: f^⌊t/n⌋.

    Parameters
    ----------
    every : int
        n, > 0.
    factor : float
        f > 0.

    Raises
    ------
    ArgumentException, ArgumentOutOfRangeException
        When a parameter is none of these.

    Examples
    --------
    >>> [StepSchedule(100, factor=0.5)(step) for step in (99, 100, 200)]
    [1.0, 0.5, 0.25]
    """

    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        COUNT.check("every", self.every, type_error=ArgumentOutOfRangeException)
        POSITIVE.check("factor", self.factor)

    def __call__(self, step: int, /) -> float:
        """Return the factor."""
        try:
            return min(max(float(self.factor) ** (step // self.every), _LEAST), _MOST)
        except OverflowError:
            return _MOST


@dataclass(frozen=True)
class WarmUpSchedule(Described):
    """A straight line to 1 over the first steps, (t + 1)/n, and another schedule after them, at t − n.

    Parameters
    ----------
    steps : int
        n ≥ 0.
    then : LearningRateSchedule
        The schedule after the warm-up.

    Raises
    ------
    ArgumentException, ArgumentOutOfRangeException
        When a parameter is none of these.

    Examples
    --------
    >>> schedule = WarmUpSchedule(4, then=StepSchedule(10))
    >>> [schedule(step) for step in (0, 1, 3, 4, 14)]
    [0.25, 0.5, 1.0, 1.0, 0.1]
    """

    steps: int
    then: LearningRateSchedule = ConstantSchedule()

    def __post_init__(self) -> None:
        COUNT_OR_ZERO.check("steps", self.steps, type_error=ArgumentOutOfRangeException)
        if isinstance(self.then, type) or not callable(self.then):
            raise ArgumentException(refusal("then", "a schedule, such as CosineSchedule(1000)", self.then))

    def __call__(self, step: int, /) -> float:
        """Return the factor."""
        return (step + 1) / self.steps if step < self.steps else self.then(step - self.steps)
