"""An inner loop run to its end and walked back from there: all its states, of which some are made again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, TypeAlias

from aidotnet_py.meta_learning.contract.options import is_count, number_of
from aidotnet_py.meta_learning.inner.steps import InnerLoop, InnerState

__all__ = ["InnerPath", "Segments", "invalid_segments", "segment_starts"]

Segments: TypeAlias = int | Literal["sqrt"] | None


def invalid_segments(segments: object, steps: object) -> Iterator[str]:
    """What is wrong with an option CheckpointSegments beside AdaptationSteps, if anything is."""
    counted = is_count(segments) and number_of(segments) <= number_of(steps)
    if not (segments is None or (isinstance(segments, str) and segments == "sqrt") or counted):
        yield (
            f"CheckpointSegments is {segments!r}; None, 'sqrt' or a whole number from 1 to AdaptationSteps, "
            f"{steps!r}, is wanted"
        )


def segment_starts(steps: int, segments: Segments) -> list[int]:
    """The first step of each segment: one segment a step for None, ⌈√steps⌉ for "sqrt", lengths as equal as can be."""
    count = math.isqrt(steps - 1) + 1 if segments == "sqrt" else steps if segments is None else segments
    return [steps * i // count for i in range(count)]


class InnerPath:
    """The states φ_0 … φ_{K−1} of an inner loop, and its end.

    Kept are the states at the beginnings of the segments, and those of one segment at a time, which are made again
    from its beginning (Griewank & Walther 2000): with S segments S + K/S states instead of K, for at most one more
    pass through the loop. What is made again has the same bits.

    Parameters
    ----------
    loop : InnerLoop
        Before its first step; of an elementwise optimizer.
    steps : int
        K.
    segments : int, "sqrt" or None
        S; see `segment_starts`.

    Attributes
    ----------
    loop : InnerLoop
        As given.
    """

    def __init__(self, loop: InnerLoop, steps: int, segments: Segments) -> None:
        self.loop = loop
        starts = segment_starts(steps, segments)
        self._ends = [*starts[1:], steps]
        self._starts: list[InnerState] = []
        for end in self._ends[:-1]:
            self._starts.append(loop.state())
            while loop.taken < end:
                loop.step()
        # The last segment is the first that is walked back, so its states are kept at once.
        self._last = self._states_from(loop.state(), steps)
        loop.step()

    def _states_from(self, first: InnerState, end: int) -> list[InnerState]:
        """The states before each of the steps up to ``end``; the loop, at the first, does not take the last step."""
        states = [first]
        while self.loop.taken < end - 1:
            self.loop.step()
            states.append(self.loop.state())
        return states

    def backwards(self) -> Iterator[InnerState]:
        """The state before each step, from the last step to the first; once, and each is let go of after its turn."""
        states, self._last = self._last, []
        while True:
            while states:
                yield states.pop()
            if not self._starts:
                return
            begin = self._starts.pop()
            self.loop.restore(begin)
            states = self._states_from(begin, self._ends[len(self._starts)])
