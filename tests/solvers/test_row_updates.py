"""Updates of rows by scalars: that compiled passes are taken where they can be, and never where they cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aidotnet_py.backends import NumPyBackend
from aidotnet_py.solvers import conjugate_gradient
from aidotnet_py.solvers.row_updates import RowUpdates

pytestmark = pytest.mark.skipif(NumPyBackend().compiler is None, reason="llvmlite is not installed")

UPDATES = {
    "subtract_multiple": lambda target, scalars, other: target - scalars[:, None] * other,
    "add_multiple": lambda target, scalars, other: target + scalars[:, None] * other,
    "scale_and_add": lambda target, scalars, other: scalars[:, None] * target + other,
}


def compiled(tasks: int, n: int, dtype: Any) -> RowUpdates:
    """As a solve has them whose shape has come often enough, once all is compiled."""
    for _ in range(5):
        updates = RowUpdates(NumPyBackend(), tasks, n, np.dtype(dtype))
    shape = updates._compiled
    assert shape is not None
    assert shape._compilation is not None
    shape._compilation.result(wait=True)
    return RowUpdates(NumPyBackend(), tasks, n, np.dtype(dtype))


def fail(*arguments: Any) -> Any:
    raise AssertionError("done array by array")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", UPDATES)
def test_rows_in_c_order_are_updated_in_one_compiled_pass(
    name: str, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    updates = compiled(3, 17, dtype)
    # What the array by array way takes its blocks from: without it, there is the compiled one alone.
    monkeypatch.setattr(updates, "_parts", fail)
    for _ in range(3):
        target, other = (rng.standard_normal((3, 17)).astype(dtype) for _ in range(2))
        scalars = rng.standard_normal(3).astype(dtype)
        wanted = UPDATES[name](target, scalars, other)
        getattr(updates, name)(target, scalars, other)
        assert target.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("name", UPDATES)
def test_an_array_laid_out_otherwise_where_a_plain_one_was_is_read_as_it_is(name: str) -> None:
    rng = np.random.default_rng(1)
    updates, memory = compiled(2, 5, np.float64), np.empty((2, 10))
    plain, strided = memory.reshape(-1)[:10].reshape(2, 5), memory[:, ::2]
    assert plain.ctypes.data == strided.ctypes.data
    target, scalars = rng.standard_normal((2, 5)), rng.standard_normal(2)
    for other in (plain, strided, plain):
        other[...] = rng.standard_normal((2, 5))
        wanted = UPDATES[name](target, scalars, other)
        getattr(updates, name)(target, scalars, other)
        assert target.tobytes() == wanted.tobytes()


def test_a_solve_of_a_shape_that_came_often_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled(3, 19, np.float64)
    d, b = np.linspace(1, 3, 19), np.random.default_rng(2).standard_normal((3, 19))
    # Any number that the array by array way has to do with would show.
    monkeypatch.setattr(RowUpdates, "_combine", fail)
    monkeypatch.setattr(RowUpdates, "_parts", fail)
    x, report = conjugate_gradient(lambda v: d * v, b)
    assert report.converged.all()
    np.testing.assert_allclose(x, b / d, rtol=1e-8)
