"""Assignment of values to memory: values whose lives do not overlap share a slot."""

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
    """Memory that several lives use, one after another.

    Attributes
    ----------
    dtype, size : numpy.dtype, int
        Type and number of elements.
    internal : bool
        Whether only uncompiled calls need the slot.
    lives : list of Life
        The lives in the slot, in order of their first calls.
    """

    dtype: np.dtype[Any]
    size: int
    internal: bool
    lives: list[Life] = field(default_factory=list["Life"])

    def place_of(self, life: Life) -> int | None:
        """Return the index at which a life fits among those in the slot, None if it overlaps with another one."""
        place = bisect_left(self.lives, life.first, key=_first)
        if place and self.lives[place - 1].last >= life.first:
            return None
        if place < len(self.lives) and self.lives[place].first <= life.last:
            return None
        # A second run of another stage would write over a value that outlives the run of its own stage.
        lives = [*self.lives[:1], *self.lives[-1:], life]
        kept = any(other.last == FOREVER for other in lives)
        return None if kept and any(other.stage != life.stage for other in lives) else place


@dataclass(eq=False)
class Life:
    """The life of a value, or of several values, each written over the one before it.

    Attributes
    ----------
    dtype, size : numpy.dtype, int
        Type and number of elements.
    stage : int
        The stage that computes the values.
    internal : bool
        Whether only uncompiled calls need the values in memory.
    first, last : int, float
        Indices of the first and the last call that need the values; the last is `FOREVER` if they outlive the run of
        their stage.
    """

    dtype: np.dtype[Any]
    size: int
    stage: int
    internal: bool
    first: int
    last: float


def _first(life: Life) -> int:
    return life.first


def share_slots(lives: Iterable[Life], *, apart: int = 0, apart_within: float = math.inf) -> dict[Life, Slot]:
    """Assign a slot to each life; all slots take little more memory than the values alive at one time.

    The largest lives choose first, so that smaller ones fill the gaps between them, and each takes the smallest slot
    with room for it ("greedy by size" of Pisarchyk & Lee 2020, Efficient memory management for deep neural net
    inference). Lives of fewer bytes than ``apart`` take slots of their own size alone, unless all slots would then take
    more bytes than ``apart_within``.
    """
    lives = sorted(lives, key=lambda life: -life.size)
    slot_of = _share(lives, apart)
    if apart and sum(slot.size * slot.dtype.itemsize for slot in set(slot_of.values())) > apart_within:
        return _share(lives, 0)
    return slot_of


def _share(lives: Iterable[Life], apart: int) -> dict[Life, Slot]:
    """Assign a slot to each life, the largest first."""
    slot_of: dict[Life, Slot] = {}
    made: defaultdict[tuple[np.dtype[Any], bool], list[Slot]] = defaultdict(list)
    for life in lives:
        is_apart = life.size * life.dtype.itemsize < apart
        slots = made[life.dtype, life.internal]
        for slot in reversed(slots):
            place = None if is_apart and slot.size != life.size else slot.place_of(life)
            if place is not None:
                break
        else:
            slot, place = Slot(life.dtype, life.size, life.internal), 0
            slots.append(slot)
        slot.lives.insert(place, life)
        slot_of[life] = slot
    return slot_of
