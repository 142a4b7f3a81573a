"""What changes a learner takes turns: of several threads, one after another, each whole."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from aidotnet_py.locks import Lock

__all__ = ["takes_turns"]

P = ParamSpec("P")
R = TypeVar("R")


class _HasTurns(Protocol):
    @property
    def _turn(self) -> Lock: ...


L = TypeVar("L", bound=_HasTurns)


def takes_turns(method: Callable[Concatenate[L, P], R]) -> Callable[Concatenate[L, P], R]:
    """Have a learner's method wait until no other thread is in one that takes turns; methods in each other do not."""

    @wraps(method)
    def in_turn(self: L, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._turn:  # pyright: ignore[reportPrivateUsage] -- a method of the learner, if from elsewhere
            return method(self, *args, **kwargs)

    return in_turn
