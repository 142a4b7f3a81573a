"""Draw the next tasks in advance, and use them only if a draw would give the same."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from aidotnet_py.data.random_stream import RandomStream
from aidotnet_py.locks import Lock

__all__ = ["Prefetcher"]

Drawn = TypeVar("Drawn")


@dataclass(frozen=True)
class _Guess(Generic[Drawn]):
    """A draw in progress: the position of the stream that it starts from, its count, its result and end."""

    begin: dict[str, Any]
    count: int
    future: Future[tuple[Drawn, dict[str, Any]]]


class Prefetcher(Generic[Drawn]):
    """Draw from a stream; after two requests in a row for the same count, draw the next one while the caller works.

    A draw in advance uses a copy of the stream, so the caller's stream is always where it would be without prefetching.
    It serves the next request if that has the same position and count, whatever was drawn or set in between. Otherwise
    it is dropped, and so is a draw that failed, which then fails again for the caller.

    Parameters
    ----------
    draw : callable
        Draws ``count`` tasks from a stream; the result depends on these two alone.
    again : callable
        Takes the last result and returns a function that draws as `draw` does, for one call on another thread.

    Examples
    --------
    >>> from aidotnet_py.data.prefetch import Prefetcher
    >>> from aidotnet_py.data.random_stream import RandomStream
    >>> stream, same = RandomStream(0), RandomStream(0)
    >>> def draw(stream, count):
    ...     return stream.generator.random(count)
    >>> prefetcher = Prefetcher(draw, lambda last: draw)
    >>> for _ in range(4):
    ...     assert (prefetcher.draw(stream, 3) == same.generator.random(3)).all()
    ...     assert stream.state() == same.state()
    """

    def __init__(
        self,
        draw: Callable[[RandomStream, int], Drawn],
        again: Callable[[Drawn], Callable[[RandomStream, int], Drawn]],
    ) -> None:
        self._draw = draw
        self._again = again
        self._lock = Lock()
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tasks-ahead")
        # The position of the stream after the last request, and the count of that request.
        self._last: tuple[dict[str, Any], int] | None = None
        self._guess: _Guess[Drawn] | None = None

    def draw(self, stream: RandomStream, count: int) -> Drawn:
        """Draw ``count`` tasks."""
        with self._lock:
            if self._process != os.getpid():
                # A forked process has no worker and no draw in progress.
                self._start()
            begin = stream.state()
            drawn = self._take_guess(stream, begin, count)
            if drawn is None:
                drawn = self._draw(stream, count)
            end = stream.state()
            if self._last == (begin, count) and (self._guess is None or self._guess.begin != end):
                self._begin(drawn, stream, count)
            self._last = end, count
            return drawn

    def _begin(self, last: Drawn, stream: RandomStream, count: int) -> None:
        self._guess = None
        # Without memory for two batches at a time, there may be enough for one after the other. Once the main thread
        # has ended, the other threads get no worker.
        with suppress(MemoryError, RuntimeError):
            draw, ahead = self._again(last), copy.deepcopy(stream)
            self._guess = _Guess(stream.state(), count, self._worker.submit(_draw_from, draw, ahead, count))

    def _take_guess(self, stream: RandomStream, begin: dict[str, Any], count: int) -> Drawn | None:
        """Return the tasks drawn in advance if they fit the request, and move the stream behind them."""
        guess = self._guess
        if guess is None or (guess.begin, guess.count) != (begin, count):
            return None
        self._guess = None
        if guess.future.exception() is not None:
            return None
        drawn, end = guess.future.result()
        stream.restore(end)
        return drawn


def _draw_from(
    draw: Callable[[RandomStream, int], Drawn], stream: RandomStream, count: int
) -> tuple[Drawn, dict[str, Any]]:
    return draw(stream, count), stream.state()
