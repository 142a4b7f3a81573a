"""Values share memory only while they never meet, in whatever order their stages run, and little is left over."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aidotnet_py.autodiff.execution.memory import FOREVER, Life, share_slots

CALLS = 40


@st.composite
def some_lives(draw: st.DrawFn) -> list[Life]:
    """Lives within stages that run one after another, some of them kept for later stages."""
    edges = sorted(draw(st.sets(st.integers(1, CALLS - 1), max_size=2)) | {0, CALLS})
    found: list[Life] = []
    for _ in range(draw(st.integers(1, 25))):
        first = draw(st.integers(0, CALLS - 1))
        stage = max(s for s, edge in enumerate(edges) if edge <= first)
        last = FOREVER if draw(st.booleans()) else draw(st.integers(first, edges[stage + 1] - 1))
        dtype = np.dtype(draw(st.sampled_from(["float32", "float64"])))
        found.append(Life(dtype, draw(st.integers(1, 100)), stage, draw(st.booleans()), first, last))
    return found


@pytest.mark.slow
@given(lives=some_lives())
@settings(max_examples=200)
def test_lives_in_one_slot_never_meet(lives: list[Life]) -> None:
    slots = share_slots(lives)
    assert set(slots) == set(lives)
    for life, slot in slots.items():
        assert (life.dtype, life.internal) == (slot.dtype, slot.internal)
        assert life.size <= slot.size
    for one, other in combinations(lives, 2):
        if slots[one] is slots[other]:
            assert one.last < other.first or other.last < one.first
            # A stage that runs again must not write over what another has left.
            assert one.stage == other.stage or FOREVER not in (one.last, other.last)
    for slot in slots.values():
        assert slot.size == max(life.size for life in slot.lives)


def test_a_small_value_does_not_take_the_place_of_a_large_one() -> None:
    dtype = np.dtype("float32")
    large, small, next_large = (
        Life(dtype, size, 0, False, first, last) for size, first, last in [(100, 0, 1), (1, 2, 5), (100, 3, 4)]
    )
    slots = share_slots([large, small, next_large])
    assert slots[large] is slots[next_large]
    assert sorted(slot.size for slot in set(slots.values())) == [1, 100]


def test_values_of_one_size_take_no_more_than_is_alive_at_once() -> None:
    dtype = np.dtype("float64")
    lives = [Life(dtype, 7, 0, False, first, first + 4) for first in range(0, 60, 2)]
    assert len(set(share_slots(lives).values())) == 3


def test_values_apart_by_size_unless_that_takes_too_much() -> None:
    dtype = np.dtype("float32")
    large, small = Life(dtype, 100, 0, False, 0, 1), Life(dtype, 10, 0, False, 2, 3)
    together = share_slots([large, small])
    assert together[large] is together[small]
    apart = share_slots([large, small], apart=50, apart_within=440)
    assert apart[large] is not apart[small]
    beyond = share_slots([large, small], apart=50, apart_within=439)
    assert beyond[large] is beyond[small]
