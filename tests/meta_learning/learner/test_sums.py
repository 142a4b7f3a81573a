"""The sum over a batch has the same bits however its tasks are parted, and little is sent of a part."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.meta_learning.learner.sums import SumOfTasks

VECTORS = np.random.default_rng(0).standard_normal((700, 3)).astype(np.float32) * 1e3


def summed(backend: Backend, count: int, edges: list[int]) -> np.ndarray:
    """Add up parts apart, and then the parts."""
    total = SumOfTasks(backend)
    bounds = [0, *edges, count]
    for start, stop in pairwise(bounds):
        part = SumOfTasks(backend)
        if stop > start:
            part.add_rows(start, backend.asarray(VECTORS[start:stop]))
        total.add(part.pieces)
    return backend.to_numpy(total.total())


@given(data=st.data(), count=st.integers(1, 700))
def test_bits_do_not_depend_on_the_parts(data: st.DataObject, count: int) -> None:
    edges = sorted(data.draw(st.lists(st.integers(0, count), max_size=12)))
    backend = get_backend("numpy")
    whole = summed(backend, count, [])
    np.testing.assert_array_equal(summed(backend, count, edges), whole)
    np.testing.assert_allclose(whole, VECTORS[:count].astype(np.float64).sum(axis=0), rtol=1e-4, atol=1e-2)


def test_on_every_backend(backend: Backend) -> None:
    np.testing.assert_allclose(summed(backend, 77, [5, 30]), VECTORS[:77].sum(axis=0), rtol=1e-4, atol=1e-2)


def test_up_to_eight_tasks_are_added_one_by_one() -> None:
    for count in range(1, 9):
        wanted = VECTORS[0].copy()
        for row in VECTORS[1:count]:
            wanted += row
        np.testing.assert_array_equal(summed(get_backend("numpy"), count, []), wanted)


@pytest.mark.parametrize(("start", "stop"), [(0, 8), (0, 512), (3, 700), (250, 500), (64, 128), (699, 700)])
def test_a_part_is_a_few_sums(start: int, stop: int) -> None:
    part = SumOfTasks(get_backend("numpy"))
    part.add_rows(start, VECTORS[start:stop])
    assert part.pieces[0].start == start
    assert part.pieces[-1].stop == stop
    rows = sum(len(piece.rows) for piece in part.pieces)
    assert rows <= 14 * max(1, math.ceil(math.log(stop - start, 8)))
    if (start, stop) in {(0, 8), (0, 512), (64, 128)}:
        assert rows == 1
