"""Whether rows stay apart: what the analysis says of functions, against the functions' values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from aidotnet_py.autodiff import conv2d, relu, softmax, trace
from aidotnet_py.autodiff.transforms.row_counts import is_mean_over_rows, treats_rows_alike
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
    "columns from a list": lambda x: x[:, [1, 0]],
    "a solve": lambda x: np.linalg.solve(np.eye(6) + 1.0, x),
}
# Unknown to the analysis, which takes them for mixing, as well they might.
UNKNOWN = ("columns from a list",)


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
    if np.shape(whole)[:1] == (6,) and name not in ("no dependence at all", *UNKNOWN):
        order, others = np.array([3, 0, 5, 2, 1, 4]), np.concatenate([x[:3], 2 * x[3:]])
        assert max(np.abs(function(x[order]) - whole[order]).max(), np.abs(function(others) - whole)[:3].max()) > 1e-3


# With another number of rows they do something else, although each number of rows keeps its rows apart.
BY_COUNT: dict[str, Callable[[Any], Any]] = {
    "a number": lambda x: x / len(x),
    "a power": lambda x: x * x.shape[0] ** -0.5,
    "a branch": lambda x: x if len(x) < 5 else x - 1.0,
    "one more operation": lambda x: x if len(x) < 5 else x + 0.0 * x,
    "columns": lambda x: x[:, : len(x) // 3],
    "a part of a table": lambda x: x * np.sum(np.arange(20.0)[: len(x)]),
    "an entry of a table": lambda x: x + W[len(x) % 4, 0],
    "a sum of ones": lambda x: x / np.sum(np.ones_like(x[:, :1])),
    "the length of ones": lambda x: x * np.linalg.norm(np.full_like(x[:, 0], 2.0)),
    "a filled row": lambda x: x + np.full(4, float(len(x))),
    "a margin": lambda x: np.pad(x, ((0, 0), (0, len(x)))).sum(axis=1),
}


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("name", APART)
def test_rows_that_are_treated_alike(name: str, rows: int) -> None:
    few, many = (trace(APART[name], np.ones((n, 4))) for n in (6, rows))
    # Some reshapes of one row are none, and the programs differ.
    assert treats_rows_alike(few, many, 0) or rows == 1
    assert treats_rows_alike(few, few, 0)


@pytest.mark.parametrize("name", BY_COUNT)
def test_rows_that_are_not(name: str) -> None:
    few, many = (trace(BY_COUNT[name], np.ones((n, 4))) for n in (4, 7))
    assert not treats_rows_alike(few, many, 0)


MEANS: dict[str, Callable[[Any, Any], Any]] = {
    "squares": lambda p, y: np.mean((p - y) ** 2),
    "a mean of means": lambda p, y: np.mean(np.mean(abs(p - y), axis=1)),
    "weights of columns": lambda p, y: np.mean(np.mean((p - y) ** 2, axis=0) * np.array([1.0, 2.0, 3.0, 4.0])),
    "two terms": lambda p, y: np.mean((p - y) ** 2) - 0.5 * np.mean(abs(p - y)),
    "half of it": lambda p, y: np.sum((p - y) ** 2) / (2.0 * len(p)),
    "a likelihood": lambda p, y: -np.mean(np.sum(y * np.log(softmax(p)), axis=1)),
    "Huber's": lambda p, y: np.mean(np.where(abs(p - y) < 1, 0.5 * (p - y) ** 2, abs(p - y) - 0.5)),
}
NO_MEANS: dict[str, Callable[[Any, Any], Any]] = {
    "a root": lambda p, y: np.sqrt(np.mean((p - y) ** 2)),
    "a sum": lambda p, y: np.sum((p - y) ** 2),
    "the largest": lambda p, y: np.max((p - y) ** 2),
    "the measured": lambda p, y: np.sum((y > 0) * (p - y) ** 2) / np.maximum(np.sum((y > 0).astype(float)), 1.0),
    "pairs": lambda p, y: np.mean((p - p[::-1]) ** 2),
    "a centred one": lambda p, y: np.mean((p - np.mean(p, axis=0) - y) ** 2),
    "a fixed term": lambda p, y: np.mean((p - y) ** 2) + 0.1,
    "a product of means": lambda p, y: np.mean(p) * np.mean(y),
    "one over a mean": lambda p, y: 1.0 / np.mean(p),
    "two terms, of which one is a sum": lambda p, y: np.mean(p) + np.sum(y),
    "by the square of the number": lambda p, y: np.sum(p * y) / len(p) ** 2,
}


@pytest.mark.parametrize("rows", [1, 2, 9])
@pytest.mark.parametrize("name", [*MEANS, *NO_MEANS])
def test_means_over_rows(name: str, rows: int) -> None:
    function, rng = (MEANS | NO_MEANS)[name], np.random.default_rng(4)
    few, many = (trace(function, np.ones((n, 4)), np.ones((n, 4))) for n in (5, rows))
    assert is_mean_over_rows(few, many, 0, 1) == (name in MEANS)
    if name in MEANS:
        p, y = rng.random((rows, 4)), rng.random((rows, 4))
        ones = [function(p[i : i + 1], y[i : i + 1]) for i in range(rows)]
        np.testing.assert_allclose(function(p, y), np.mean(ones), rtol=1e-12)


def test_a_mean_that_is_another_with_few_rows() -> None:
    def function(p: Any, y: Any) -> Any:
        return np.mean(p * y) if len(p) > 4 else np.mean(p * y * y)

    many, few = (trace(function, np.ones((n, 4)), np.ones((n, 4))) for n in (5, 2))
    assert not is_mean_over_rows(many, few, 0, 1)
