"""The backends by the suite that is everyone's, NumPy's own peculiarities, and the registry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from aidotnet_py.backends import (
    Backend,
    NumPyBackend,
    available_backends,
    backend_of,
    get_backend,
    register_backend,
)
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.testing import check_backend


@pytest.mark.slow
@pytest.mark.numpy_first
def test_a_backend_passes_the_suite(backend: Backend) -> None:
    check_backend(backend)


@pytest.mark.parametrize("name", ["numpy", "simulated", "cupy"])
def test_half_precision_adds_up_in_single_precision(name: str) -> None:
    """In half precision, 1 + 1 + … would end at 2048."""
    if name not in available_backends():
        pytest.skip(f"{name} is not available")
    backend = get_backend(name)
    ones = backend.asarray(np.ones((5000, 2), np.float16))
    columns = backend.permute_dims(ones, (1, 0))
    rows, out = backend.asarray(np.zeros(5000, np.int64)), backend.empty((1, 2), np.float16)
    for sums in (
        backend.sum(ones, (0,)),
        backend.index(backend.cumulative_sum(ones, 0), (slice(4999, None),)),
        backend.vecdot(columns, columns),
        backend.scatter_add(ones, rows, out),
    ):
        assert backend.dtype_of(sums) == np.float16
        assert_array_equal(backend.to_numpy(sums).ravel(), [5000.0, 5000.0])


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("gap", [2, 3, 8])
def test_functions_of_one_array_write_every_element_whatever_the_strides(dtype: str, gap: int) -> None:
    """np.negative of NumPy 2.4 did not, for x with a stride of 8 and out with gaps; nor np.isfinite into any gaps."""
    numpy = get_backend("numpy")
    for step in (4, 8, 16, -8):
        x = np.zeros(6 * abs(step), dtype)[::step]
        x[...] = [0, 1, -2, 3, -4, 5]
        for name in ("abs", "negative", "sign", "relu"):
            out = np.full(6 * gap, 77, dtype)[::gap]
            numpy.elementwise(name)(x, out=out)
            assert_array_equal(out, numpy.elementwise(name)(x.copy()))
            assert_array_equal(np.signbit(out), np.signbit(numpy.elementwise(name)(x.copy())))
        finite = np.zeros(6 * gap, bool)[::gap]
        numpy.elementwise("isfinite")(x, out=finite)
        assert finite.all()


@pytest.mark.parametrize("place", [-1, 4])
def test_rows_out_of_range_are_refused_by_numpy(place: int) -> None:
    x, out = np.ones((4, 3)), np.empty((1, 3))
    with pytest.raises(IndexError, match=r"indices must be from 0 to 3|out of bounds"):
        get_backend("numpy").take(x, np.array([place]), out=out)


def test_a_backend_meets_the_protocol(backend: Backend) -> None:
    assert isinstance(backend, Backend)
    assert backend.name in available_backends()
    assert get_backend(backend.name) is backend
    assert get_backend(backend) is backend


def test_an_unknown_backend_is_named_with_those_there_are() -> None:
    with pytest.raises(ArgumentException, match=r"backend must be a Backend or one of 'numpy', .*got 'numpi'"):
        get_backend("numpi")


def test_what_does_not_meet_the_protocol_is_not_registered() -> None:
    class Half:
        name = "half"

        def owns(self, value: object) -> bool:
            return False

    with pytest.raises(
        ArgumentException, match=r"backend must be a Backend, got a Half, which lacks argsort, asarray, .*take"
    ):
        register_backend(Half())  # type: ignore[arg-type]
    assert "half" not in available_backends()


def test_arrays_find_their_backend() -> None:
    strict, device = get_backend("strict"), get_backend("strict-device1")
    x, y, z = np.ones(2), strict.asarray([1.0]), device.asarray([1.0])
    assert isinstance(backend_of(x), NumPyBackend)
    assert backend_of(x, 1.0, np.float32(2.0), x) is get_backend("numpy")
    assert backend_of(y, 2) is strict
    assert backend_of(z) is device
    assert backend_of(1.0, "text", None) is None
    assert backend_of() is None
    for pair in ((x, y), (y, z), (z, x)):
        with pytest.raises(ArgumentException, match=r"arrays must be on one backend, got .* and .*; move them"):
            backend_of(*pair)


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        (NumPyBackend, r"backend must be an object, got <class .*; use NumPyBackend\(\)"),
        (type("Unnamed", (NumPyBackend,), {"name": ""})(), "name of Unnamed must be a string, got ''"),
        (type("Numbered", (NumPyBackend,), {"name": 3})(), "name of Numbered must be a string, got 3"),
    ],
)
def test_a_class_and_a_name_that_is_none_are_not_registered(backend: Any, message: str) -> None:
    before = tuple(available_backends())
    with pytest.raises(ArgumentException, match=message):
        register_backend(backend)
    assert tuple(available_backends()) == before
