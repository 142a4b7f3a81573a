"""Whether rows stay apart: what the analysis says of functions, against the functions' values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from aidotnet_py.autodiff import conv2d, relu, softmax, trace
from aidotnet_py.autodiff.transforms.rows import has_independent_rows

W = np.random.default_rng(0).normal(size=(4, 5))
FILTERS = np.random.default_rng(1).normal(size=(2, 2, 1, 3))

APART: dict[str, Callable[[Any], Any]] = {
    "elementwise": lambda x: np.tanh(x) * 2.0 + x**2,
    "a product": lambda x: x @ W,
    "a product from the left": lambda x: (W.T @ x.T).T,
    "a bias": lambda x: x @ W + np.arange(5.0),
    "a network": lambda x: relu(x @ W + 1.0) @ W.T,
    "statistics of a row": lambda x: (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True),
    "a softmax": lambda x: softmax(x),
    "the largest of a row": lambda x: x.max(axis=1),
    "a reshape and back": lambda x: (x.reshape(-1, 2) @ W[:2]).reshape(-1, 2, 5).sum(axis=1),
    "an axis more": lambda x: x[:, None, :] * np.ones((1, 3, 1)),
    "columns": lambda x: x[:, 1:3],
    "columns beside others": lambda x: np.concatenate([x, x[:, ::-1]], axis=1),
    "a padded row": lambda x: np.pad(x, ((0, 0), (1, 2))),
    "rows as columns": lambda x: x.T.reshape(2, 2, -1).sum(axis=0).T,
    "a stack of matrices": lambda x: (x.reshape(-1, 2, 2) @ x.reshape(-1, 2, 2)).reshape(-1, 4),
    "a convolution": lambda x: conv2d(x.reshape(-1, 2, 2, 1), FILTERS).reshape(len(x), -1),
    "a choice": lambda x: np.where(x > 0.0, x, x @ W @ W.T),
}
MIXED: dict[str, Callable[[Any], Any]] = {
    "the mean of a column": lambda x: x - x.mean(axis=0),
    "the first row": lambda x: x - x[:1],
    "rows in another order": lambda x: x[::-1],
    "products of rows": lambda x: x @ x.T @ x,
    "the largest of a column": lambda x: x / x.max(axis=0),
    "the place of a row": lambda x: x * np.arange(6.0)[:, None],
    "a place hidden in a product": lambda x: np.diag(np.arange(6.0)) @ x,
    "a row of zeros more, and the last away": lambda x: np.pad(x, ((1, 0), (0, 0)))[:6],
    "no dependence at all": lambda x: np.ones((6, 2)),
    "all in one": lambda x: x.sum(),
    "a reshape across rows": lambda x: x.reshape(4, 6).T,
}


def says(function: Callable[[Any], Any]) -> bool:
    return has_independent_rows(trace(function, np.ones((6, 4))), 0)


@pytest.mark.parametrize("name", APART)
def test_rows_that_stay_apart(name: str) -> None:
    function, x = APART[name], np.random.default_rng(2).normal(size=(6, 4))
    assert says(function)
    whole, order = function(x), np.array([3, 0, 5, 2, 1, 4])
    np.testing.assert_allclose(function(x[order]), whole[order], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(function(x[:2]), whole[:2], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", MIXED)
def test_rows_that_do_not(name: str) -> None:
    function, x = MIXED[name], np.random.default_rng(3).normal(size=(6, 4))
    assert not says(function)
    whole = function(x)
    if np.shape(whole)[:1] == (6,) and name != "no dependence at all":
        order, others = np.array([3, 0, 5, 2, 1, 4]), np.concatenate([x[:3], 2 * x[3:]])
        assert max(np.abs(function(x[order]) - whole[order]).max(), np.abs(function(others) - whole)[:3].max()) > 1e-3
