"""What changes a learner takes turns: of several threads, one after another, each whole."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import Any, TypeVar, cast

from aidotnet_py.locks import Lock

__all__ = ["Lane", "Turns", "takes_turns"]

M = TypeVar("M", bound=Callable[..., Any])


class Lane(threading.Thread):
    """A thread that does a part of the work of the one that made it, which waits for it."""

    def __init__(self, work: Callable[[int], None], number: int) -> None:
        super().__init__(target=work, args=(number,), name=f"aidotnet_py lane {number}")
        self._for = threading.current_thread()

    @staticmethod
    def works_for(other: threading.Thread | None) -> bool:
        """Whether this thread is a lane of the other one, or a lane of such."""
        thread = threading.current_thread()
        while isinstance(thread, Lane):
            thread = thread._for
            if thread is other:
                return True
        return False


class Turns:
    """A context for one thread at a time, which may enter it again; so may, one at a time, the lanes that it waits for.

    That is for a solver of the user's which, in the middle of a step, saves the learner or trains it.
    """

    def __init__(self) -> None:
        self._lock, self._of_lanes = Lock(), Lock()
        self._holder: threading.Thread | None = None
        self._depth = 0

    def __reduce__(self) -> tuple[type[Turns], tuple[()]]:
        return Turns, ()

    def __enter__(self) -> None:
        if Lane.works_for(self._holder):
            self._of_lanes.__enter__()
            return
        self._lock.__enter__()
        me = threading.current_thread()
        if self._holder is not me:
            # Nobody, or, in a forked process, a thread that is not there any more.
            self._holder, self._depth = me, 0
        self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if Lane.works_for(self._holder):
            self._of_lanes.__exit__(kind, error, trace)
            return
        self._depth -= 1
        if not self._depth:
            self._holder = None
        self._lock.__exit__(kind, error, trace)


def takes_turns(method: M) -> M:
    """Have a learner's method wait until no other thread is in one that takes turns; methods in each other do not."""

    @wraps(method)
    def in_turn(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        with self._turn:
            return method(self, *args, **kwargs)

    return cast(M, in_turn)
