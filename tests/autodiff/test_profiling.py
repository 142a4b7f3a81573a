"""Where the time of a Program goes."""

from __future__ import annotations

import numpy as np
import pytest

from aidotnet_py import autodiff as ad
from aidotnet_py.backends import Backend, NumPyBackend
from aidotnet_py.exceptions import ArgumentOutOfRangeException


def program() -> ad.Program:
    w = np.ones((30, 30))
    return ad.trace(ad.grad(lambda w: np.sum(np.exp(np.maximum(w @ w, 0.0)))), w)


def test_every_operation_is_counted(backend: Backend) -> None:
    found = ad.profile(program(), backend, repeats=2)
    assert sum(row.flops for row in found.rows) == program().flops
    assert all(row.seconds > 0 and row.calls > 0 for row in found.rows)
    assert found.seconds == pytest.approx(sum(row.seconds for row in found.rows))
    assert [row.seconds for row in found.rows] == sorted((row.seconds for row in found.rows), reverse=True)
    products = [row for row in found.rows if row.work == "matmul (30, 30) (30, 30)"]
    assert sum(row.calls for row in products) == program().count("matmul")


def test_what_is_compiled_and_what_is_not() -> None:
    by_work = {row.work: row.compiled for row in ad.profile(program(), NumPyBackend()).rows}
    assert by_work["exp (30, 30)"] is False
    assert any(compiled for compiled in by_work.values())
    assert not any(row.compiled for row in ad.profile(program(), NumPyBackend(compiled=False)).rows)


def test_printed_it_is_a_table() -> None:
    text = str(ad.profile(program()))
    header, *rows, total = text.splitlines()
    assert header.split() == ["ms", "share", "calls", "GFLOP/s", "work"]
    assert any("exp (30, 30)  (not compiled)" in row for row in rows)
    assert total.split()[1] == "100%"


def test_indices_of_an_axis_of_length_one() -> None:
    program = ad.trace(lambda x, i: np.sum(np.take(x, i, axis=0)), np.ones((1, 3)), np.zeros(4, np.int64))
    assert program.profile(repeats=1).rows


def test_repeats_below_one() -> None:
    with pytest.raises(ArgumentOutOfRangeException, match="repeats must be at least 1, got 0"):
        ad.profile(program(), repeats=0)
