"""An optimizer as one learner uses it: the object is shared, its memory is the learner's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from aidotnet_py.backends import Array
from aidotnet_py.locks import Lock
from aidotnet_py.meta_learning.learner.journal import Journal
from aidotnet_py.meta_learning.learner.states import copy_of_memory, memory_of
from aidotnet_py.optimizers import IGradientBasedOptimizer
from aidotnet_py.optimizers.protocol import current_rate

__all__ = ["OwnOptimizer", "as_given"]

R = TypeVar("R")

# One for all: nothing tells whether two objects have a part in common.
_LENDING = Lock()


class OwnOptimizer:
    """An `IGradientBasedOptimizer` that works through another one, without leaving a trace in it.

    Each call puts this learner's state into the object given, and takes it out again: learners that were given the same
    object do not see each other's past gradients, and its settings are read when used. For that, ``GetState`` and
    ``SetState`` of the object must hold all that it remembers, as checkpoints want it anyway; what they leave out is
    shared by all who use the object.

    Parameters
    ----------
    given : IGradientBasedOptimizer
        Begins with the state that it has now.

    Attributes
    ----------
    given : IGradientBasedOptimizer
        As given.
    """

    def __init__(self, given: IGradientBasedOptimizer) -> None:
        self.given = given
        self._journal = Journal()
        with _LENDING:
            self._state = memory_of(given)

    def _lend(self, use: Callable[[IGradientBasedOptimizer], R]) -> R:
        """Use the object given in this learner's state, which it takes from it in the end."""
        with _LENDING:
            before = memory_of(self.given)

            def put_back() -> None:
                self.given.SetState(before)

            def work() -> R:
                # A copy, since not every optimizer makes one of what it is given.
                self.given.SetState(copy_of_memory(self._state))
                result, state = use(self.given), memory_of(self.given)
                put_back()
                self._state = state
                return result

            return self._journal.run(lambda: put_back, work)

    def UpdateParameters(self, parameters: Array, gradient: Array) -> Array:
        """Return new parameters after one step; the arguments are not changed."""
        return self._lend(lambda optimizer: optimizer.UpdateParameters(parameters, gradient))

    def Reset(self) -> None:
        """Forget all past gradients."""
        self._lend(lambda optimizer: optimizer.Reset())

    def GetCurrentLearningRate(self) -> float:
        """Return the rate of the next step."""
        return self._lend(current_rate)

    def GetState(self) -> Mapping[str, Any]:
        """Return its memory, by name: arrays and numbers, which nobody writes over."""
        return self._state

    def SetState(self, state: Mapping[str, Any]) -> None:
        """Take up a state that `GetState` returned; one that the object given refuses changes nothing."""
        self._lend(lambda optimizer: optimizer.SetState(state))


def as_given(optimizer: IGradientBasedOptimizer) -> IGradientBasedOptimizer:
    """Return the object of the options that a learner's optimizer works through, or the optimizer itself."""
    return optimizer.given if isinstance(optimizer, OwnOptimizer) else optimizer
