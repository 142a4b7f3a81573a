"""What changes a learner takes turns: of several threads, one after another, each whole."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

__all__ = ["takes_turns"]

M = TypeVar("M", bound=Callable[..., Any])


def takes_turns(method: M) -> M:
    """Have a learner's method wait until no other thread is in one that takes turns; methods in each other do not."""

    @wraps(method)
    def in_turn(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        with self._turn:
            return method(self, *args, **kwargs)

    return cast(M, in_turn)
