"""Descriptions of objects for files, and the differences between two of them."""

from __future__ import annotations

import copy
import json
from enum import Enum
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidotnet_py import AdamOptimizer, CrossEntropyLoss, LBFGSMinimizer, NewtonCGMinimizer, SGDOptimizer
from aidotnet_py.descriptions import describe, differences, join_clauses
from aidotnet_py.nn import (
    AveragePool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Flatten,
    Layer,
    LayerNorm,
    MaxPool2D,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Tanh,
    conv4,
    mlp,
    resnet12,
    resnet18,
)


def between(there, here):
    """Differences after a way through a file."""
    return list(differences(json.loads(json.dumps(describe(there))), describe(here), "it"))


class Scale(Layer):
    def __init__(self, factor, *, power=1):
        self.factor = factor
        self._power = power
        self._cache = object()

    def initialize(self, generator, shape):
        return {}, shape

    def apply(self, parameters, x):
        return x * self.factor**self._power


class Counting(Scale):
    def __init__(self, factor):
        super().__init__(factor)
        self.calls = 0

    def settings(self):
        return {"factor": self.factor}


class Colour(Enum):
    RED = 1


def function(p, x):
    return x


class TestDescriptions:
    @pytest.mark.parametrize(
        ("value", "told"),
        [
            (None, None),
            (True, True),
            (3, 3),
            (0.5, 0.5),
            ("text", "text"),
            (np.float32(0.5), 0.5),
            (np.int64(3), 3),
            (np.True_, True),
            ((1, (2, 3)), [1, [2, 3]]),
            ({"a": (1,)}, {"a": [1]}),
            (Colour.RED, "RED"),
            (function, "function"),
            (Scale, "Scale"),
            (Dense(2).apply, "Dense.apply"),
            (ReLU(), {"type": "ReLU"}),
            (Dense(np.int64(3)), {"type": "Dense", "units": 3, "bias": True}),
            (BatchNorm(epsilon=1e-3), {"type": "BatchNorm", "epsilon": 1e-3, "statistics": "batch"}),
            (Scale(2.0, power=3), {"type": "Scale", "factor": 2.0, "power": 3}),
            (SGDOptimizer(0.1, momentum=0.9), {"type": "SGDOptimizer", "learning_rate": 0.1, "momentum": 0.9}),
            (CrossEntropyLoss(), {"type": "CrossEntropyLoss"}),
            (partial(function, 1), {"type": "partial"}),
            (object(), {"type": "object"}),
            (range(3), {"type": "range"}),
        ],
    )
    def test_are_json_with_types_and_settings(self, value, told):
        assert describe(value) == told
        assert json.loads(json.dumps(describe(value))) == told

    def test_of_networks_hold_every_layer_in_order(self):
        assert describe(mlp(8, 1)) == {
            "type": "Sequential",
            "layers": [
                {"type": "Dense", "units": 8, "bias": True},
                {"type": "ReLU"},
                {"type": "Dense", "units": 1, "bias": True},
            ],
        }
        block = describe(resnet18(2, filters=2))["layers"][8]
        assert (block["type"], block["shortcut"]["layers"][0]["stride"]) == ("Residual", 2)

    def test_of_arrays_tell_them_apart(self):
        one, other = describe(np.zeros(3)), describe(np.array([0.0, 0.0, 1.0]))
        assert one["array"] == other["array"] == "float64(3,)"
        assert one["sha256"] != other["sha256"]

    def test_of_long_sequences_are_short(self):
        one, other = describe(list(range(10**5))), describe([*range(10**5 - 1), 0])
        assert one["length"] == other["length"] == 10**5
        assert one["sha256"] != other["sha256"]

    def test_end_where_objects_hold_each_other(self):
        class Node:
            def __init__(self, other=None):
                self.other = other

        one, two = Node(), Node()
        one.other, two.other = two, [one]
        assert describe(one)["other"]["other"] == [{"type": "Node"}]

    def test_read_no_properties(self):
        class Costly:
            def __init__(self, data=None):
                pass

            @property
            def data(self):
                raise AssertionError

        assert describe(Costly()) == {"type": "Costly"}


class TestDifferences:
    @pytest.mark.parametrize(
        "value",
        [
            *(
                conv4(5),
                conv4(5, reduction="pool"),
                resnet18(5, filters=4),
                resnet12(5),
                Scale(2.0, power=2),
                Counting(1.0),
            ),
            *(AdamOptimizer(0.1), LBFGSMinimizer(), NewtonCGMinimizer(), function, np.zeros(3), {"nan": np.nan}),
        ],
    )
    def test_there_are_none_from_itself(self, value):
        assert between(value, value) == []

    @pytest.mark.parametrize(
        ("there", "here", "told"),
        [
            (mlp(8, 1), mlp(9, 2), ["layers[0].units is 8 there and 9 here", "layers[2].units is 1 there and 2 here"]),
            (Sequential(ReLU()), Sequential(Tanh()), ["layers[0] is ReLU there and Tanh here"]),
            (Sequential(Sigmoid()), Sequential(Tanh()), ["layers[0] is Sigmoid there and Tanh here"]),
            (Sequential(Dense(2), ReLU()), Sequential(Dense(2)), ["layers has length 2 there and 1 here"]),
            (Sequential(Flatten()), Flatten(), [" is Sequential there and Flatten here"]),
            (Conv2D(4), Conv2D(4, stride=2), ["stride is 1 there and 2 here"]),
            (Conv2D(4), Conv2D(4, padding=1), ["padding is 'same' there and 1 here"]),
            (Conv2D(4, (3, 5)), Conv2D(4, (5, 5)), ["kernel[0] is 3 there and 5 here"]),
            (Conv2D(4), Conv2D(4, groups=2), ["groups is 1 there and 2 here"]),
            (MaxPool2D(2), AveragePool2D(2), [" is MaxPool2D there and AveragePool2D here"]),
            (MaxPool2D(2), MaxPool2D(2, stride=1), ["stride is None there and 1 here"]),
            (BatchNorm(), LayerNorm(), [" is BatchNorm there and LayerNorm here"]),
            (BatchNorm(), BatchNorm(epsilon=1e-3), ["epsilon is 1e-05 there and 0.001 here"]),
            (Residual(ReLU()), Residual(ReLU(), Tanh()), ["shortcut is None there and Tanh here"]),
            (Residual(mlp(1, 2)), Residual(mlp(1, 3)), ["body.layers[2].units is 2 there and 3 here"]),
            (Scale(2.0), Scale(3.0), ["factor is 2.0 there and 3.0 here"]),
            (Scale(2.0), Scale(2.0, power=2), ["power is 1 there and 2 here"]),
            (AdamOptimizer(0.1), AdamOptimizer(0.2), ["learning_rate is 0.1 there and 0.2 here"]),
            ([1.0], [1.0, 2.0], [" has length 1 there and 2 here"]),
        ],
    )  # fmt: skip
    def test_are_told_by_name(self, there, here, told):
        found = [clause.removeprefix("it").removeprefix(".") for clause in between(there, here)]
        assert found == told

    def test_of_counters_are_none_where_a_class_says_so(self):
        one, other = Counting(1.0), Counting(1.0)
        other.calls = 7
        assert between(one, other) == []
        assert between(one, Counting(2.0)) == ["it.factor is 1.0 there and 2.0 here"]

    def test_of_a_setting_that_is_newer_than_the_file(self):
        """It is what it was, unless it is given otherwise."""
        held = {"type": "Conv2D", "filters": 4, "kernel": [3, 3], "stride": 1, "padding": "same", "bias": True}
        assert list(differences(held, describe(Conv2D(4)), "it")) == []
        assert list(differences(held, describe(Conv2D(4, groups=2)), "it")) == ["it.groups is unknown there and 2 here"]

    def test_of_a_setting_that_is_newer_than_the_library(self):
        held = {**describe(Dense(4)), "sparsity": 0.5}
        assert list(differences(held, describe(Dense(4)), "it")) == ["it.sparsity is 0.5 there and unknown here"]

    def test_whole_numbers_and_floats_are_alike(self):
        assert between({"rate": 1}, {"rate": 1.0}) == []

    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)

    @given(
        st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner), max_leaves=20)
    )
    def test_of_what_any_file_may_hold_are_short_texts(self, held):
        for own in (conv4(5), {"type": "x"}, [held], None):
            assert all(len(clause) < 400 for clause in differences(held, describe(own), "it"))
        assert list(differences({"a": held}, {"a": held})) == []

    def test_of_deep_and_huge_files_are_short_texts(self):
        deep = []
        for _ in range(900):
            deep = [deep]
        for held in (deep, {"type": deep}, "x" * 10**6, [0] * 10**6, 10**4000, {"type": "x" * 10**6}):
            for own in (SimpleNamespace(), [1], {"a": 1}, 3):
                assert all(len(clause) < 400 for clause in differences(held, describe(own), "it"))
            assert all(
                len(clause) < 400 for clause in differences({"filters": held, "type": "Conv2D"}, describe(Conv2D(4)))
            )

    def test_beyond_twenty_are_counted(self):
        clauses = [str(i) for i in range(30)]
        assert join_clauses(clauses).endswith("18; 19; and 10 more")
        assert join_clauses(clauses[:20]).endswith("18; 19")


@pytest.mark.parametrize(
    ("there", "here"),
    [
        ({1}, {2}),
        (frozenset("a"), frozenset("b")),
        (b"\x01", b"\x02"),
        (1j, 2j),
        (np.complex128(1j), np.complex128(2j)),
        (np.longdouble(1), np.longdouble(2)),
        (np.dtype("f4"), np.dtype("f8")),
        (np.array([1, "a"], object), np.array([1, "b"], object)),
    ],
)
def test_settings_of_every_kind_tell_objects_apart(there, here) -> None:
    assert between(Scale(there), Scale(here))
    assert not between(Scale(there), Scale(copy.deepcopy(there)))


def test_a_setting_called_type_is_not_the_class() -> None:
    class Typed(Scale):
        def __init__(self, type="batch"):
            self.type = type

    assert describe(Typed("group")) == {"type": "Typed", "type_": "group"}
    assert between(Typed("group"), Typed()) == ["it.type_ is 'group' there and 'batch' here"]
    # A file that is older than the setting.
    assert list(differences({"type": "Typed"}, describe(Typed()), "it")) == []


def test_an_object_within_itself_is_told_by_its_type() -> None:
    outer = Scale(2.0)
    outer.inner = Scale(outer)
    assert describe(outer)["inner"]["factor"] == {"type": "Scale"}
