"""Tasks drawn before they are asked for: a guess that is taken only where it is what would be drawn."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from aidotnet_py.data.random_stream import RandomStream
from aidotnet_py.locks import Lock

__all__ = ["DrawnAhead"]

Drawn = TypeVar("Drawn")


@dataclass(frozen=True)
class _Guess(Generic[Drawn]):
    """What is being drawn from a position of the stream, and the position after it."""

    begin: dict[str, Any]
    count: int
    future: Future[tuple[Drawn, dict[str, Any]]]


class DrawnAhead(Generic[Drawn]):
    """Draws from a stream; once asked for as much twice in a row, it draws as much again while the caller is at work.

    That is done on a stream of its own, so that the caller's is always where it would be without it. It serves the next
    request if that is for as much from the same position, whatever was drawn or set in between; otherwise it is
    forgotten, as it is where drawing failed, which then fails again for the caller.

    Parameters
    ----------
    draw : callable
        Draws ``count`` tasks from a generator; what it gives depends on these two alone.
    again : callable
        Given what was drawn last, a function that draws as much as `draw` would, to be called once on another thread.

    Examples
    --------
    >>> from aidotnet_py.data.prefetch import DrawnAhead
    >>> from aidotnet_py.data.random_stream import RandomStream
    >>> stream, same = RandomStream(0), RandomStream(0)
    >>> def draw(generator, count):
    ...     return generator.random(count)
    >>> ahead = DrawnAhead(draw, lambda last: draw)
    >>> for _ in range(4):
    ...     assert (ahead.draw(stream, 3) == same.generator.random(3)).all()
    ...     assert stream.state() == same.state()
    """

    def __init__(
        self,
        draw: Callable[[np.random.Generator, int], Drawn],
        again: Callable[[Drawn], Callable[[np.random.Generator, int], Drawn]],
    ) -> None:
        self._draw = draw
        self._again = again
        self._lock = Lock()
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tasks-ahead")
        # Where the last request left the stream, and how much it was for.
        self._last: tuple[dict[str, Any], int] | None = None
        self._guess: _Guess[Drawn] | None = None

    def draw(self, stream: RandomStream, count: int) -> Drawn:
        """Draw so many tasks."""
        with self._lock:
            if self._process != os.getpid():
                # A forked process has neither the worker nor what it was at.
                self._start()
            begin = stream.state()
            drawn = self._guessed(stream, begin, count)
            if drawn is None:
                drawn = self._draw(stream.generator, count)
            end = stream.state()
            if self._last == (begin, count) and (self._guess is None or self._guess.begin != end):
                self._begin(drawn, end, count)
            self._last = end, count
            return drawn

    def _begin(self, last: Drawn, place: dict[str, Any], count: int) -> None:
        self._guess = None
        # Where there is no room for two batches, one after the other may still do.
        with suppress(MemoryError):
            draw = self._again(last)
            self._guess = _Guess(place, count, self._worker.submit(_drawn_from, draw, place, count))

    def _guessed(self, stream: RandomStream, begin: dict[str, Any], count: int) -> Drawn | None:
        """What was drawn ahead, if it is that, and the stream moved on by it."""
        guess = self._guess
        if guess is None or (guess.begin, guess.count) != (begin, count):
            return None
        self._guess = None
        if guess.future.exception() is not None:
            return None
        drawn, end = guess.future.result()
        stream.restore(end)
        return drawn


def _drawn_from(
    draw: Callable[[np.random.Generator, int], Drawn], begin: dict[str, Any], count: int
) -> tuple[Drawn, dict[str, Any]]:
    stream = RandomStream(0)
    stream.restore(begin)
    return draw(stream.generator, count), stream.state()
