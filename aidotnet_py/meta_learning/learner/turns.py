"""Turns of threads at changing a learner: one after another, each whole."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from aidotnet_py.locks import Lock

__all__ = ["Lane", "Turns", "takes_turns"]

R = TypeVar("R")
M = TypeVar("M", bound=Callable[..., Any])


class Lane(threading.Thread):
    """A thread that does a part of the work of the one that made it, which waits for it."""

    def __init__(self, work: Callable[[int], None], number: int) -> None:
        # The thread that made it waits for it in any case. After an interrupt inside Python's own `start`, though, it
        # may be neither begun nor ended, and would keep the process from its end.
        super().__init__(target=work, args=(number,), name=f"aidotnet_py lane {number}", daemon=True)
        self._for = threading.current_thread()
        self._begun, self._over = False, threading.Event()

    def run(self) -> None:
        """Do the work."""
        self._begun = True
        try:
            super().run()
        finally:
            self._over.set()

    def finish(self) -> None:
        """Wait until the work is done, if it has begun.

        An interrupted `join` takes a living thread for one that has ended, up to Python 3.12.
        """
        if self._begun:
            self._over.wait()

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
    """Turns of one thread at a time, which may take another in its own; so may, one at a time, the lanes it waits for.

    That is for a solver of the user's which, in the middle of a step, saves the learner or trains it.
    """

    def __init__(self) -> None:
        self._lock, self._of_lanes = Lock(), Lock()
        self._holder: threading.Thread | None = None

    def __reduce__(self) -> tuple[type[Turns], tuple[()]]:
        return Turns, ()

    def take(self, work: Callable[[], R]) -> R:
        """Do something when it is this thread's turn.

        No context of Python's own: an interrupt at its end would leave the turn taken for ever. Within a thread's turn
        the holder is that thread; whom one took it from that was forked away, is of no matter.
        """
        if Lane.works_for(self._holder):
            with self._of_lanes:
                return work()
        me = threading.current_thread()
        with self._lock:
            before = self._holder
            try:
                self._holder = me
                return work()
            finally:
                self._holder = before


def takes_turns(method: M) -> M:
    """Have a learner's method wait until no other thread is in one that takes turns; methods in each other do not."""

    @wraps(method)
    def in_turn(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return self._turn.take(lambda: method(self, *args, **kwargs))

    return cast(M, in_turn)
