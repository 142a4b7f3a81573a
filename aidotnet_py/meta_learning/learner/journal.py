"""Changes of a learner that are made whole or not at all, whatever stops them: an error, Ctrl-C, a fork."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast
from weakref import WeakSet

from aidotnet_py import locks

__all__ = ["Journal", "whole"]

R = TypeVar("R")
M = TypeVar("M", bound=Callable[..., Any])


class Journal:
    """How to undo the change that is being made; nothing between changes.

    An interrupt may come between any two calls. A change therefore counts from the moment that its undoing is thrown
    away, in one assignment: whatever comes before that undoes it, whatever comes later leaves it. For one thread at a
    time, as `takes_turns` sees to it.

    Examples
    --------
    >>> from aidotnet_py.meta_learning.learner.journal import Journal
    >>> numbers = [1, 2]
    >>> def aside():
    ...     kept = list(numbers)
    ...     return lambda: numbers.__setitem__(slice(None), kept)
    >>> def change():
    ...     numbers.append(3)
    ...     raise KeyboardInterrupt
    >>> try:
    ...     Journal().run(aside, change)
    ... except KeyboardInterrupt:
    ...     print(numbers)
    [1, 2]
    """

    def __init__(self) -> None:
        self._undo: Callable[[], None] | None = None
        self._handed_on = False
        self._thread = 0
        _ALL.add(self)

    def __reduce__(self) -> tuple[type[Journal], tuple[()]]:
        return Journal, ()

    def run(self, put_aside: Callable[[], Callable[[], None]], change: Callable[[], R]) -> R:
        """Make a change; if anything is raised, undo it.

        ``put_aside`` keeps all that may be changed, and returns what puts it back, which may be called more than once.
        A change within another one is undone for itself, if it fails, and with the other, if that does.
        """
        if self._undo is not None:
            return self._run_within(put_aside, change)
        try:
            self._thread, self._handed_on = threading.get_ident(), False
            self._undo = put_aside()
            result = change()
            self._undo = None
            return result
        except BaseException as stopped:
            # Not in a method of its own: at its beginning, a second interrupt would find nothing undone.
            again: KeyboardInterrupt | None = None
            while self._undo is not None:
                try:
                    self._undo()
                    self._undo = None
                except KeyboardInterrupt as error:
                    again = error
                except BaseException:
                    self._undo = None
                    raise
            if again is not None:
                raise again from stopped
            raise

    def run_and_undo(self, put_aside: Callable[[], Callable[[], None]], change: Callable[[], R]) -> R:
        """Make a change, undo it and return its result; ``put_aside`` is as for `run`."""
        undo: Callable[[], None] | None = None

        def keep() -> Callable[[], None]:
            nonlocal undo
            undo = put_aside()
            return undo

        def change_and_undo() -> R:
            result = change()
            assert undo is not None
            undo()
            return result

        return self.run(keep, change_and_undo)

    def _run_within(self, put_aside: Callable[[], Callable[[], None]], change: Callable[[], R]) -> R:
        handed_on, self._handed_on = self._handed_on, False
        undo = None if handed_on else put_aside()
        try:
            return change()
        except BaseException:
            # It may have failed between handing on and the change that was meant.
            self._handed_on = False
            if undo is not None:
                undo()
            raise

    def hand_on(self) -> None:
        """Take the next change within the one being made for its end: if it fails, so does all, and is undone once."""
        self._handed_on = True

    def also(self, undo: Callable[[], None]) -> None:
        """Undo this too, before the rest, if the change that is being made is undone."""
        rest = self._undo
        assert rest is not None

        def both() -> None:
            undo()
            rest()

        self._undo = both

    def undo_for_others(self) -> None:
        """In a forked process: undo what a thread was changing that is not there any more."""
        if self._undo is not None and self._thread != threading.get_ident():
            undo, self._undo = self._undo, None
            undo()


_ALL: WeakSet[Journal] = WeakSet()


def _undo_all() -> None:
    for journal in list(_ALL):
        journal.undo_for_others()


# After the locks, which the undoing takes, have been freed.
locks.after_fork(_undo_all)


def whole(method: M) -> M:
    """Have a learner's method run to its end or leave the learner as it was."""

    @wraps(method)
    def run(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return self._journal.run(self._put_aside, lambda: method(self, *args, **kwargs))

    return cast(M, run)
