"""JSON that gives mappings back as they are, or refuses them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidotnet_py.json_text import json_text


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    )
)
def test_values_come_back(value):
    assert json.loads(json_text(value)) == value


@pytest.mark.parametrize("value", [{1: "a", "1": "b"}, {"a": [({None: 0},)]}, {"a": {"b": {1.5: 0}}}, {(): 0}])
def test_names_that_are_no_strings_are_refused(value):
    with pytest.raises(TypeError, match=r"names in a mapping must be strings, got (1|None|1\.5|\(\)); use str of it$"):
        json_text(value)
