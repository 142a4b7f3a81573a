"""Which values lie in which memory: lives that never meet take turns in one slot."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["FOREVER", "Life", "Slot", "share_slots"]

FOREVER = math.inf


@dataclass(eq=False)
class Slot:
    """Memory that lives take turns in.

    Attributes
    ----------
    dtype, size : numpy.dtype, int
        What to allocate.
    internal : bool
        Whether nobody needs it once units run as compiled loops.
    lives : list of Life
        Those that it holds, in their order.
    """

    dtype: np.dtype[Any]
    size: int
    internal: bool
    lives: list[Life] = field(default_factory=list["Life"])

    def place_of(self, life: Life) -> int | None:
        """Where among those that it holds a life would come; None where it does not fit in."""
        place = bisect_left(self.lives, life.first, key=_first)
        if place and self.lives[place - 1].last >= life.first:
            return None
        if place < len(self.lives) and self.lives[place].first <= life.last:
            return None
        # What outlives its stage must not lie where an earlier stage, run again, would write over it.
        lives = [*self.lives[:1], *self.lives[-1:], life]
        kept = any(other.last == FOREVER for other in lives)
        return None if kept and any(other.stage != life.stage for other in lives) else place


@dataclass(eq=False)
class Life:
    """A value, or several of which each is written over the one before it, in one slot.

    Attributes
    ----------
    dtype, size : numpy.dtype, int
        What it takes.
    stage : int
        The stage that its values are made in.
    internal : bool
        Whether it lies in slots apart, those that compiled loops do without.
    first, last : int, float
        The calls from which and until which it is needed; the last is `FOREVER` for what outlives the run of its stage.
    """

    dtype: np.dtype[Any]
    size: int
    stage: int
    internal: bool
    first: int
    last: float


def _first(life: Life) -> int:
    return life.first


def share_slots(lives: Iterable[Life]) -> dict[Life, Slot]:
    """A slot for each life, in all not much more memory than is needed at one time.

    The largest choose first, so that smaller ones fill the times which those leave, and each takes the smallest slot
    in which it fits ("greedy by size" of Pisarchyk & Lee 2020, Efficient memory management for deep neural net
    inference).
    """
    found: dict[Life, Slot] = {}
    made: defaultdict[tuple[np.dtype[Any], bool], list[Slot]] = defaultdict(list)
    for life in sorted(lives, key=lambda life: -life.size):
        slots = made[life.dtype, life.internal]
        for slot in reversed(slots):
            place = slot.place_of(life)
            if place is not None:
                break
        else:
            slot, place = Slot(life.dtype, life.size, life.internal), 0
            slots.append(slot)
        slot.lives.insert(place, life)
        found[life] = slot
    return found
