"""Checks of arguments: which values they take, what they return, and their messages."""

from __future__ import annotations

import itertools
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidotnet_py import ArgumentException, ArgumentNullException, ArgumentOutOfRangeException
from aidotnet_py.arguments import (
    COUNT,
    FINITE,
    NON_NEGATIVE,
    POSITIVE,
    SEED,
    SWITCH,
    Choice,
    Constraint,
    Number,
    OrNone,
    Whole,
    array_hint,
    check_given,
    shown,
)

NORM = Choice("batch", "support", "layer")
FRACTION = Number(least=0, below=1)


@pytest.mark.parametrize(
    ("wanted", "value", "plain"),
    [
        (COUNT, 1, 1),
        (COUNT, np.uint8(7), 7),
        (COUNT, 2**63 - 1, 2**63 - 1),
        (Whole(0, 9), 0, 0),
        (SEED, 2**128, 2**128),
        (POSITIVE, np.float32(0.5), 0.5),
        (POSITIVE, Fraction(1, 4), 0.25),
        (POSITIVE, 2, 2.0),
        (NON_NEGATIVE, 0, 0.0),
        (FINITE, -1e300, -1e300),
        (FRACTION, 0, 0.0),
        (Number(above=0, most=1), 1, 1.0),
        (SWITCH, np.True_, True),
        (SWITCH, False, False),
        (NORM, "support", "support"),
        (NORM, np.str_("support"), "support"),
        (Choice(None, "sqrt"), None, None),
        (OrNone(POSITIVE), None, None),
        (OrNone(POSITIVE), 2, 2.0),
    ],
)
def test_good_values_come_back_as_plain_ones(wanted: Constraint[Any], value: Any, plain: Any) -> None:
    checked = wanted.check("x", value)
    assert checked == plain
    assert type(checked) is type(plain)
    assert wanted.problem("x", value) is None


@pytest.mark.parametrize(
    ("wanted", "value", "message"),
    [
        (COUNT, 2.5, "x must be a whole number of at least 1, got 2.5"),
        (COUNT, 2.0, "x must be a whole number of at least 1, got 2.0"),
        (COUNT, True, "x must be a whole number of at least 1, got True"),
        (COUNT, np.True_, "x must be a whole number of at least 1, got True"),
        (COUNT, "3", "x must be a whole number of at least 1, got '3'"),
        (COUNT, None, "x must be a whole number of at least 1, got None"),
        (COUNT, np.ones((2, 3)), "x must be a whole number of at least 1, got ndarray of shape (2, 3)"),
        (POSITIVE, True, "x must be a finite number above 0, got True"),
        (POSITIVE, 1j, "x must be a finite number above 0, got 1j"),
        (POSITIVE, Decimal(1), "x must be a finite number above 0, got Decimal('1')"),
        (FRACTION, "0.5", "x must be a number in [0, 1), got '0.5'"),
        (SWITCH, 1, "x must be True or False, got 1"),
        (NORM, "Batch", "x must be 'batch', 'support' or 'layer', got 'Batch'; did you mean 'batch'?"),
        (NORM, np.array(["batch"]), "x must be 'batch', 'support' or 'layer', got ndarray of shape (1,)"),
        (Choice("hessian"), None, "x must be 'hessian', got None"),
        (Choice(None, "sqrt"), "", "x must be None or 'sqrt', got ''"),
        (OrNone(SEED), "0", "x must be a whole number of at least 0 or None, got '0'"),
    ],
)
def test_wrong_types(wanted: Constraint[Any], value: Any, message: str) -> None:
    assert wanted.problem("x", value) == message
    with pytest.raises(ArgumentException) as refused:
        wanted.check("x", value)
    assert type(refused.value) is ArgumentException
    assert str(refused.value) == message
    with pytest.raises(ArgumentOutOfRangeException):
        wanted.check("x", value, type_error=ArgumentOutOfRangeException)


@pytest.mark.parametrize(
    ("wanted", "value", "message"),
    [
        (COUNT, 0, "x must be a whole number of at least 1, got 0"),
        (COUNT, np.int64(-3), "x must be a whole number of at least 1, got -3"),
        (COUNT, 10**20, "x must be a whole number of at least 1, got 100000000000000000000"),
        (COUNT, 10**5000, "x must be a whole number of at least 1, got an integer of 16610 bits"),
        (Whole(0, 9), 10, "x must be a whole number from 0 to 9, got 10"),
        (SEED, -1, "x must be a whole number of at least 0, got -1"),
        (POSITIVE, 0.0, "x must be a finite number above 0, got 0.0"),
        (POSITIVE, np.float32("nan"), "x must be a finite number above 0, got nan"),
        (POSITIVE, 10**400, "x must be a finite number above 0, got an integer of 1329 bits"),
        (NON_NEGATIVE, -1e-9, "x must be a finite number of at least 0, got -1e-09"),
        (NON_NEGATIVE, math.inf, "x must be a finite number of at least 0, got inf"),
        (
            NON_NEGATIVE,
            -Fraction(10**400, 3),
            f"x must be a finite number of at least 0, got {shown(-Fraction(10**400, 3))}",
        ),
        (FINITE, -(10**400), "x must be a finite number, got an integer of 1329 bits"),
        (FRACTION, 1, "x must be a number in [0, 1), got 1"),
        (Number(above=0, most=1), 0, "x must be a number in (0, 1], got 0"),
        (OrNone(SEED), -1, "x must be a whole number of at least 0 or None, got -1"),
        (Number(below=3), 3, "x must be a finite number below 3, got 3"),
        (Number(most=3), 4, "x must be a finite number of at most 3, got 4"),
    ],
    # Python does not write integers of thousands of digits.
    ids=itertools.count(),
)
def test_values_out_of_range(wanted: Constraint[Any], value: Any, message: str) -> None:
    assert wanted.problem("x", value) == message
    with pytest.raises(ArgumentOutOfRangeException) as refused:
        wanted.check("x", value)
    assert str(refused.value) == message


@given(st.integers() | st.floats() | st.booleans() | st.text() | st.none() | st.complex_numbers() | st.fractions())
def test_checks_and_problems_agree(value: Any) -> None:
    for wanted in (COUNT, SEED, FINITE, POSITIVE, FRACTION, SWITCH, NORM):
        problem = wanted.problem("x", value)
        if problem is None:
            assert wanted.check("x", value) == (float(value) if isinstance(value, Fraction) else value)
        else:
            with pytest.raises(ArgumentException) as refused:
                wanted.check("x", value)
            assert str(refused.value) == problem


def test_a_missing_argument() -> None:
    check_given("model", 0, "a model")
    with pytest.raises(ArgumentNullException, match=r"^model must be a model, got None$"):
        check_given("model", None, "a model")


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("half-built")


class Unready:
    @property
    def shape(self) -> tuple[int, ...]:
        raise RuntimeError("half-built")


class TestShown:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (1.5, "1.5"),
            (np.float32(1.5), "1.5"),
            ("a\nb", r"'a\nb'"),
            (int, "<class 'int'>"),
            (np.ndarray, "<class 'numpy.ndarray'>"),
            ([1, 2], "[1, 2]"),
            (-(10**100), "an integer of 333 bits"),
            (Broken(), "<Broken instance at 0x"),
            (Unready(), "<Unready>"),
        ],
    )
    def test_values(self, value: Any, text: str) -> None:
        assert shown(value)[: len(text)] == text

    @given(st.recursive(st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
    def test_one_line_of_bounded_length(self, value: Any) -> None:
        text = shown(value)
        assert len(text) <= 80
        assert len(text.splitlines()) == 1
        assert shown("x" * 1000) == f"'{'x' * 37}...{'x' * 38}'"


@pytest.mark.parametrize("value", [{"a": np.zeros(3)}, (np.zeros((5, 3)), np.zeros((5, 2))), [np.zeros(3), 1.0]])
def test_several_arrays_for_one_are_told_from_a_list_of_numbers(value: object) -> None:
    assert array_hint("x", value) == "; put its arrays side by side in one array"
    assert array_hint("x", [np.zeros(3), np.zeros(3)]) == array_hint("x", [1.0, 2]) == "; use np.asarray(x)"


@pytest.mark.parametrize("value", [np.ma.zeros(3), np.recarray((3,), [("a", float)])])
def test_arrays_of_other_classes_are_converted(value: object) -> None:
    """A task of a MetaLearningTask with one was told to become a MetaLearningTask."""
    assert array_hint("SupportSetX of task 0", value) == "; use np.asarray(SupportSetX)"
