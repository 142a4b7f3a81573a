"""Which kernels go by rows, and which of them may run on some rows while others run elsewhere: by what they touch."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidotnet_py.backends.kernel import Factor, Kernel, LoopNest, Operand, Product, Step
from aidotnet_py.backends.rows import Access, ByRows, all_apart, are_apart

F4, F8 = "float32", "float64"


def nest(shape: tuple[int, ...], out: Operand, *read: Operand) -> LoopNest:
    """A nest that writes the sum of what it reads."""
    steps = [Step("identity", (read[0],), out.dtype)]
    for place, operand in enumerate(read[1:]):
        steps.append(Step("add", (place, operand), out.dtype))
    return LoopNest(shape, tuple(steps), ((out, len(steps) - 1),))


def of(*nests: LoopNest | Product) -> ByRows | None:
    arguments = 1 + max(o.argument for one in nests for o in one.operands)
    return ByRows.of(Kernel(nests, arguments))


class TestByRows:
    def test_the_first_axis_of_most_nests_has_the_rows(self) -> None:
        found = of(
            nest((7, 3), Operand(1, F4, (3, 1)), Operand(0, F4, (3, 1))),
            nest((7,), Operand(2, F4, (1,)), Operand(1, F4, (3,))),
            nest((3,), Operand(3, F4, (1,)), Operand(4, F4, (1,))),
        )
        assert found is None  # the last has no axis of 7
        found = of(
            nest((7, 3), Operand(1, F4, (3, 1)), Operand(0, F4, (3, 1))),
            nest((7,), Operand(2, F4, (1,)), Operand(1, F4, (3,))),
            nest((2, 7), Operand(3, F4, (7, 1)), Operand(4, F4, (7, 1))),
        )
        assert found is not None
        assert found.length == 7
        assert [one.shape for one in found.nests] == [(7, 3), (7,), (7, 2)]

    def test_others_of_many_elements_stay_as_they_are(self) -> None:
        def small_and(columns: int) -> ByRows | None:
            small = nest((4,), Operand(1, F4, (1,)), Operand(0, F4, (1,)))
            return of(small, small, nest((columns, 4), Operand(2, F4, (4, 1)), Operand(3, F4, (4, 1))))

        assert small_and(2**12) is not None
        assert small_and(2**12 + 1) is None

    def test_a_sum_over_rows_has_none(self) -> None:
        total = LoopNest((5, 3), (), (), ((Operand(1, F8, (0, 1)), Operand(0, F8, (3, 1))),))
        assert of(total) is None
        of_columns = LoopNest((5, 3), (), (), ((Operand(1, F8, (1, 0)), Operand(0, F8, (3, 1))),))
        assert of(of_columns) is not None

    def test_a_nest_that_reads_other_rows_of_what_it_writes_has_none(self) -> None:
        shift = nest((4, 3), Operand(0, F8, (3, 1)), Operand(0, F8, (3, 1), 3))
        assert of(shift) is None

    @pytest.mark.parametrize("is_first", [True, False])
    def test_other_nests_tell_which_of_two_axes_of_one_length_has_the_rows(self, is_first: bool) -> None:
        """Records of four numbers of four tasks, shifted by one record: as conjugate gradient has them."""
        shift = nest((3, 4, 4), Operand(1, F4, (16, 4, 1)), Operand(0, F4, (16, 4, 1), 16))
        latest = nest((4, 4), Operand(1, F4, (4, 1), 48), Operand(2, F4, (4, 1)))
        first = nest((4,), Operand(2, F4, (1,)), Operand(3, F4, (1,)))
        found = of(first, latest, shift) if is_first else of(first, shift, latest)
        assert found is not None
        # The tasks, one number apart, not the records.
        assert [one.operands[-1].strides[0] for one in found.nests if one.written[0].argument == 1] == [1, 1]
        assert all_apart([(found, [0, 1000, 2000, 3000])])

    def test_products_count_one_matrix_a_row(self) -> None:
        x, y, out = (Factor(Operand(i, F4, (6,)), 3, 1) for i in range(3))
        found = of(Product((5,), (2, 3, 3), x, y, out))
        assert found is not None
        assert (found.length, found.work) == (5, 5 * (2 * 3 * 3 // 8))
        # One matrix for all rows.
        assert of(Product((), (2, 3, 3), x, y, out)) is None


class TestApart:
    """By absolute addresses, of all kernels of a chain."""

    SIZE = 4

    def pair(self, shape: tuple[int, ...], strides: tuple[int, ...], address: int) -> tuple[ByRows, list[int]]:
        """A kernel that reads memory of its own and writes at an address."""
        found = of(nest(shape, Operand(0, F4, strides), Operand(1, F4, tuple(0 for _ in shape))))
        assert found is not None
        return found, [address, 10**6]

    def test_values_of_one_size_may_share_memory(self) -> None:
        assert all_apart([self.pair((5, 6), (6, 1), 0), self.pair((5, 3, 2), (6, 2, 1), 0)])

    def test_values_of_different_sizes_may_not(self) -> None:
        assert not all_apart([self.pair((5, 6), (6, 1), 0), self.pair((5, 2), (2, 1), 0)])
        assert all_apart([self.pair((5, 6), (6, 1), 0), self.pair((5, 2), (2, 1), 5 * 6 * self.SIZE)])

    def test_neighbours_in_a_row_may_lie_side_by_side(self) -> None:
        """As the parameters of a task do in its vector."""
        assert all_apart([self.pair((5, 4), (6, 1), 0), self.pair((5, 2), (6, 1), 4 * self.SIZE)])
        assert not all_apart([self.pair((5, 4), (6, 1), 0), self.pair((5, 3), (6, 1), 4 * self.SIZE)])

    def test_interlaced_rows(self) -> None:
        """As records (steps, tasks) have them."""
        assert all_apart([self.pair((5, 3), (1, 5), 0), self.pair((5, 2), (1, 5), 5 * self.SIZE)])
        assert not all_apart([self.pair((5, 3), (1, 5), 0), self.pair((5, 2), (1, 5), 6 * self.SIZE)])

    def test_all_kernels_have_as_many_rows(self) -> None:
        assert not all_apart([self.pair((5, 2), (2, 1), 0), self.pair((4, 2), (2, 1), 1000)])

    def test_what_nobody_writes_may_be_read_in_any_way(self) -> None:
        first = of(nest((5, 6), Operand(0, F4, (6, 1)), Operand(1, F4, (6, 1)), Operand(1, F4, (0, 1))))
        assert first is not None
        assert all_apart([(first, [0, 1000])])
        # Unless another kernel writes there.
        assert not all_apart([(first, [0, 1000]), self.pair((5, 6), (6, 1), 1000)])

    def test_backwards_along_rows_is_refused(self) -> None:
        found = of(nest((5,), Operand(0, F4, (1,)), Operand(1, F4, (-1,), 4)))
        assert found is not None
        assert not all_apart([(found, [0, 1000])])


def places_of(access: Access, row: int) -> set[int]:
    """The bytes that an access touches in a row."""
    starts = [
        access.offset + row * access.row + sum(i * s for i, (_, s) in zip(at, access.others, strict=True))
        for at in product(*(range(n) for n, _ in access.others))
    ]
    return {start + byte for start in starts for byte in range(access.size)}


@st.composite
def accesses(draw: st.DrawFn) -> Access:
    others = draw(st.lists(st.tuples(st.integers(2, 3), st.integers(-9, 9).filter(bool)), max_size=2))
    return Access(draw(st.integers(1, 12)), tuple(others), draw(st.integers(0, 30)), draw(st.sampled_from([1, 2, 4])))


@given(st.lists(accesses(), min_size=1, max_size=3), st.integers(2, 4))
def test_rows_said_to_be_apart_touch_no_byte_in_common(group: list[Access], length: int) -> None:
    size = group[0].size
    group = [Access(a.row * size, tuple((n, s * size) for n, s in a.others), a.offset * size, size) for a in group]
    touched: list[Any] = [set().union(*(places_of(a, row) for a in group)) for row in range(length)]
    meet = any(touched[i] & touched[j] for i, j in product(range(length), repeat=2) if i < j)
    if are_apart(group, length):
        assert not meet


@pytest.mark.parametrize("length", [2, 5])
@pytest.mark.parametrize("columns", [1, 4])
def test_rows_of_plain_arrays_are_apart(length: int, columns: int) -> None:
    """Both ways round: else the test above could hold of a function that refuses all."""
    array = np.zeros((length, columns), np.float32)
    by_row, by_column = (Access(s[0], ((columns, s[1]),), 0, 4) for s in (array.strides, array.T.copy().T.strides))
    assert are_apart([by_row], length)
    assert are_apart([by_column], length)
    assert math.prod(array.shape) == length * columns
