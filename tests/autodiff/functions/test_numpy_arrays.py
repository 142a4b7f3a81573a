"""Products, cumulative sums, orders, diagonals and contractions for all their arguments, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from amounts import many
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes
from numpy.testing import assert_allclose, assert_array_equal

from aidotnet_py import autodiff as ad
from aidotnet_py.backends import Backend

KINDS = ["bool", "int8", "uint8", "int32", "float16", "float32", "float64"]
SEEDS = st.integers(0, 2**32 - 1)


def assert_same(f: Callable[..., Any], *args: Any) -> None:
    """The traced function has NumPy's value, shape and dtype, to the rounding of a few operations."""
    wanted = np.asarray(f(*args))
    found = ad.trace(f, *args)(*args)
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    eps = float(np.finfo(wanted.dtype).eps) if wanted.dtype.kind == "f" else 0.0
    assert_allclose(found, wanted, rtol=60 * eps, atol=60 * eps)


@st.composite
def arrays(draw: st.DrawFn, min_dims: int = 1) -> Any:
    """Arrays with lengths of 0 and 1 among others, of few distinct numbers, so that many tie."""
    shape = draw(array_shapes(min_dims=min_dims, max_dims=3, min_side=0, max_side=5))
    numbers = np.random.default_rng(draw(SEEDS)).integers(-2, 3, shape)
    return numbers.astype(draw(st.sampled_from(KINDS)))


def an_axis(data: st.DataObject, x: Any) -> int | None:
    return data.draw(st.none() | st.integers(-x.ndim, x.ndim - 1))


@given(x=arrays(), data=st.data())
@settings(max_examples=many(20))
def test_products_and_cumulative_sums(x: Any, data: st.DataObject) -> None:
    axis, keepdims = an_axis(data, x), data.draw(st.booleans())
    assert_same(lambda a: np.prod(a, axis=axis, keepdims=keepdims), x)
    assert_same(lambda a: np.prod(a, axis=tuple(range(x.ndim - 1, -1, -2))), x)
    assert_same(lambda a: a.prod(axis) + a.cumsum(axis).sum(), x)
    assert_same(lambda a: np.cumsum(a, axis), x)


@given(x=arrays(), data=st.data())
@settings(max_examples=many(20))
def test_orders_and_places_of_extremes_also_where_elements_tie(x: Any, data: st.DataObject) -> None:
    axis, keepdims = an_axis(data, x), data.draw(st.booleans())
    assert_same(lambda a: np.argsort(a, axis, kind="stable"), x)
    assert_same(lambda a: np.sort(a, axis), x)
    if x.size if axis is None else x.shape[axis]:
        assert_same(lambda a: np.argmax(a, axis, keepdims=keepdims), x)
        assert_same(lambda a: a.argmin(axis, keepdims=keepdims), x)


def test_nan_is_last_in_order_and_first_of_extremes(backend: Backend) -> None:
    x = np.array([[1.0, np.nan, -np.inf, np.nan], [np.inf, 2.0, -0.0, 0.0]])
    for f in (np.sort, lambda a: np.argsort(a, kind="stable"), lambda a: np.argmax(a, 1), lambda a: np.argmin(a, 1)):
        array = backend.asarray(x)
        assert_array_equal(backend.to_numpy(ad.trace(f, array)(array)), f(x))


@given(x=arrays(min_dims=2), k=st.integers(-6, 6), data=st.data())
@settings(max_examples=many(20))
def test_diagonals_and_triangles(x: Any, k: int, data: st.DataObject) -> None:
    first, second = data.draw(st.permutations(range(-x.ndim, 0)))[:2]
    assert_same(lambda a: np.diagonal(a, k, first, second), x)
    assert_same(lambda a: np.trace(a, k, first, second), x)
    assert_same(lambda a: np.tril(a, k), x)
    assert_same(lambda a: np.triu(a, k), x)
    assert_same(lambda a: np.diag(a.ravel(), k), x)
    assert_same(lambda a: a.trace(), x)
    if x.ndim == 2:
        assert_same(lambda a: np.diag(a, k), x)


@given(x=arrays(), y=arrays())
@settings(max_examples=many(15))
def test_stacks_of_rows_and_columns(x: Any, y: Any) -> None:
    assert_same(lambda a: np.vstack([a, a]), x)
    assert_same(lambda a: np.hstack((a, a)), x)
    assert_same(lambda a, b: np.vstack([a, b]), x.ravel(), np.ones((2, x.size), y.dtype))
    assert_same(lambda a, b: np.hstack([a, b]), x.ravel(), y.ravel())
    assert_same(lambda a: np.hstack([a, 2.0]) + np.vstack([a, 1.0]).sum(), np.array(3.0))


@st.composite
def contractions(draw: st.DrawFn) -> tuple[str, list[Any]]:
    """Subscripts over letters of fixed lengths, and operands."""
    size = dict(zip("abcde", draw(st.lists(st.integers(0, 3), min_size=5, max_size=5)), strict=True))
    parts = draw(st.lists(st.text("abcde", max_size=3), min_size=1, max_size=4))
    used = sorted(set("".join(parts)))
    result = "".join(draw(st.permutations(used)))[: draw(st.integers(0, len(used)))]
    rng = np.random.default_rng(draw(SEEDS))
    dtype = draw(st.sampled_from(["int64", "float64"]))
    operands = [rng.integers(-3, 4, [size[c] for c in part]).astype(dtype) for part in parts]
    spaced = " , ".join(parts)
    return (spaced + draw(st.sampled_from(["", f" -> {result}"]))), operands


@given(drawn=contractions())
@settings(max_examples=many(40))
def test_einsum_of_any_number_of_operands(drawn: Any) -> None:
    subscripts, operands = drawn
    assert_same(lambda *xs: np.einsum(subscripts, *xs), *operands)


def test_a_chain_of_products_goes_the_short_way() -> None:
    """(n, n) (n, n) (n,): 2 · 2n² operations from the right, 2n³ from the left."""
    n = 50
    program = ad.trace(
        lambda a, b, x: np.einsum("ij,jk,k->i", a, b, x, optimize=True), np.ones((n, n)), np.ones((n, n)), np.ones(n)
    )
    assert program.flops == 2 * 2 * n * n


@pytest.mark.slow
@given(x=arrays(), y=arrays(), data=st.data())
@settings(max_examples=many(20))
def test_sums_of_products_over_pairs_of_axes(x: Any, y: Any, data: st.DataObject) -> None:
    x, y = x.astype(float), y.astype(float)
    pairs = [(i, j) for i in range(x.ndim) for j in range(y.ndim) if x.shape[i] == y.shape[j]]
    if pairs:
        i, j = data.draw(st.sampled_from(pairs))
        assert_same(lambda a, b: np.tensordot(a, b, (i - x.ndim, j)), x, y)
        assert_same(lambda a, b: np.tensordot(a, b, [[i], [j]]), x, y)
    assert_same(lambda a, b: np.tensordot(a, b, 0), x, y)
    assert_same(lambda a: np.tensordot(a, a, a.ndim), x)
    assert_same(np.inner, x, np.resize(y, (2, x.shape[-1])))
    assert_same(lambda a: np.inner(a, a) + np.inner(a.sum(), 2.0), x)


@pytest.mark.parametrize("product", [np.dot, np.inner])
@pytest.mark.parametrize(
    ("x", "number"),
    [(np.array([100, 2], np.int8), 2), (np.array([1, 2], np.uint8), -1), (np.array([1e38], np.float32), 10.0)],
)
def test_products_take_a_plain_number_for_an_array(product: Callable[..., Any], x: Any, number: float) -> None:
    """Of int64 or float64, unlike `*`."""
    assert_same(lambda a: product(a, number), x)
    assert_same(lambda a: product(number, a), x)


def test_derivatives_of_a_product_hold_where_factors_are_zero() -> None:
    """Each is the product of the factors that are left; the third of x y z in all three is 1."""
    x = np.array([0.0, 0.0, 3.0, 4.0])
    assert ad.grad(np.prod)(x).tolist() == [0.0] * 4
    assert ad.hvp(np.prod, x, np.array([1.0, 0.0, 0.0, 0.0])).tolist() == [0.0, 12.0, 0.0, 0.0]
    third = ad.jvp(lambda a: ad.hvp(np.prod, a, np.eye(4)[0]), (x,), (np.eye(4)[1],))[1]
    assert third.tolist() == [0.0, 0.0, 4.0, 3.0]


def test_derivatives_of_sorted_elements_go_with_the_elements() -> None:
    x, w = np.array([2.0, 1.0, 2.0, -1.0]), np.array([1.0, 10.0, 100.0, 1000.0])
    # Equal elements keep their order: the first 2.0 has the third place.
    assert ad.grad(lambda a: np.sum(np.sort(a) * w))(x).tolist() == [100.0, 10.0, 1000.0, 1.0]
    assert ad.grad(lambda a: np.sum(a * np.argmax(a)))(x).tolist() == [0.0] * 4


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_the_gradient_of_a_cumulative_sum_adds_up_from_the_end(backend: Backend, axis: int) -> None:
    w = np.random.default_rng(0).normal(size=(3, 7))
    pulled = ad.vjp(lambda a: np.cumsum(a, axis), backend.asarray(np.zeros((3, 7))))[1](backend.asarray(w))[0]
    assert_allclose(backend.to_numpy(pulled), np.flip(np.cumsum(np.flip(w, axis), axis), axis), rtol=1e-14, atol=1e-14)
