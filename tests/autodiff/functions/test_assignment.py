"""`at(x)[index].set` and `.add` against NumPy's assignment: values, derivatives, batches, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from amounts import many
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, basic_indices
from numpy.testing import assert_allclose, assert_array_equal

from aidotnet_py import autodiff as ad
from aidotnet_py.backends import Backend
from aidotnet_py.exceptions import ArgumentException


@st.composite
def places(draw: st.DrawFn) -> tuple[tuple[int, ...], Any]:
    """A shape, and an index into it: basic, or with a list of integers at one axis, repeats among them."""
    shape = draw(array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4))
    if draw(st.booleans()):
        return shape, draw(basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    axis = draw(st.integers(0, len(shape) - 1))
    of_axis = st.integers(-shape[axis], shape[axis] - 1)
    listed = draw(st.lists(of_axis, max_size=4) | st.lists(st.lists(of_axis, min_size=2, max_size=2), max_size=2))
    key: list[Any] = [
        draw(st.integers(0, n - 1) | st.sampled_from([slice(None), slice(None, None, -2), slice(1, None)]))
        for n in shape
    ]
    key[axis] = np.asarray(listed, np.int64)
    return shape, tuple(key[: draw(st.integers(axis + 1, len(shape)))])


def assigned(x: Any, key: Any, value: Any) -> Any:
    """NumPy's assignment, one value after the other, so that the last one at a place stays."""
    y = x.copy()
    order = np.arange(x.size).reshape(x.shape)[key]
    for place, number in zip(np.ravel(order), np.ravel(np.broadcast_to(value, np.shape(order))), strict=True):
        y.flat[place] = number
    return y


def added(x: Any, key: Any, value: Any) -> Any:
    y = x.copy()
    np.add.at(y, key, value)
    return y


METHODS: list[tuple[Callable[..., Any], Callable[..., Any]]] = [
    (lambda x, key, value: ad.at(x)[key].set(value), assigned),
    (lambda x, key, value: ad.at(x)[key].add(value), added),
]


@pytest.mark.numpy_first
@given(place=places(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=many(20))
def test_values_are_those_of_numpy_on_arrays_and_traced(backend: Backend, place: Any, seed: int) -> None:
    (shape, key), rng = place, np.random.default_rng(seed)
    x = rng.normal(size=shape)
    value = rng.normal(size=tuple(n if rng.random() < 0.7 else 1 for n in x[key].shape))
    key = tuple(k.tolist() if isinstance(k, np.ndarray) else k for k in key) if isinstance(key, tuple) else key
    as_numpy = tuple(np.asarray(k, int) if isinstance(k, list) else k for k in key) if isinstance(key, tuple) else key
    arrays = backend.asarray(x), backend.asarray(value)
    for method, wanted in METHODS:
        for f in (method, lambda a, k, v, m=method: ad.trace(lambda b, w: m(b, k, w), a, v)(a, v)):
            result = f(arrays[0], key, arrays[1])
            assert backend.owns(result)
            assert_allclose(backend.to_numpy(result), wanted(x, as_numpy, value), rtol=1e-15, atol=1e-15)
        assert_array_equal(backend.to_numpy(arrays[0]), x)


@given(place=places(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=many(15))
def test_gradients_go_to_what_is_left(place: Any, seed: int) -> None:
    """d/dx is w where x stays, d/dv is w where the value stays: of repeated places, at the last."""
    (shape, key), rng = place, np.random.default_rng(seed)
    x, w = rng.normal(size=shape), rng.normal(size=shape)
    value = rng.normal(size=x[key].shape)
    set_, add = (lambda a, v, m=m: np.sum(m(a, key, v) * w) for m, _ in METHODS)
    of_x, of_value = ad.grad(set_, (0, 1))(x, value)
    assert_array_equal(of_x, assigned(w, key, 0.0))
    numbers = 1 + np.arange(value.size).reshape(value.shape)
    last = assigned(np.zeros(shape), key, numbers)[key] == numbers
    assert_array_equal(of_value, np.where(last, w[key], 0.0))
    of_x, of_value = ad.grad(add, (0, 1))(x, value)
    assert_array_equal(of_x, w)
    assert_array_equal(of_value, w[key])


@pytest.mark.numpy_first
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=many(8))
def test_traced_indices_are_those_of_each_row(backend: Backend, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, value, i = rng.normal(size=(3, 4, 2)), rng.normal(size=(3, 5, 2)), rng.integers(-4, 4, (3, 5))
    arrays = [backend.asarray(a) for a in (x, value, i)]
    for method, wanted in METHODS:
        result = ad.vmap(lambda a, v, k, m=method: m(a, k, v))(*arrays)
        rows = [wanted(*row) for row in zip(x, i, value, strict=True)]
        assert_allclose(backend.to_numpy(result), rows, rtol=1e-15, atol=1e-15)
    gradient = ad.vmap(lambda a, v, k: ad.grad(lambda u: np.sum(a.at[k].set(u) ** 2))(v))(*arrays)
    last = [[all(k[n] % 4 != j % 4 for n in range(m + 1, 5)) for m, j in enumerate(k)] for k in i]
    assert_allclose(backend.to_numpy(gradient), np.where(np.array(last)[..., None], 2 * value, 0.0), rtol=1e-15)


def test_one_function_serves_arrays_and_traced_values() -> None:
    def running(x: Any) -> Any:
        out = np.zeros(4)
        for k in range(3):
            out = ad.at(out)[k + 1].set(ad.at(out)[k].add(1.0)[k] * x[k])
        return out

    x = np.array([2.0, 3.0, 5.0])
    assert running(x).tolist() == [0.0, 2.0, 9.0, 50.0]
    assert ad.trace(running, x)(x).tolist() == [0.0, 2.0, 9.0, 50.0]
    # out[3] = (1 + (1 + x0) x1) x2 = x2 + x1 x2 + x0 x1 x2.
    gradient, third = (
        ad.grad(lambda a: running(a)[3])(x),
        ad.grad(lambda a: ad.hvp(lambda b: running(b)[3], a, e1)[1])(x),
    )
    assert gradient.tolist() == [15.0, 15.0, 10.0]
    assert third.tolist() == [1.0, 0.0, 0.0]


e1 = np.array([0.0, 0.0, 1.0])


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int64", "float16", "float32", "float64"])
def test_the_dtype_is_that_of_the_array(dtype: str) -> None:
    x = np.ones(3, dtype)
    for value in (True, np.zeros(2, "bool"), x[:2]):
        result = ad.at(x)[1:].set(value)
        assert (result.dtype, result.tolist()) == (x.dtype, assigned(x, slice(1, None), value).tolist())
    narrow = ad.at(np.zeros(2, np.float32))[0].add(np.float64(0.1))
    assert (narrow.dtype, narrow[0]) == (np.float32, np.float32(0.1))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: ad.at([1.0])[0].set(1.0), ArgumentException, "x must be an array, got list; make it one with np.as"),
        (lambda x: ad.at(x)[0].set("a"), ArgumentException, "value must be an array or a number, got str"),
        (lambda x: ad.at(x)[0].set(None), ArgumentException, "value must be an array or a number, got NoneType"),
        (
            lambda x: ad.at(x)[0].set(np.ones(2)),
            ArgumentException,
            r"value must broadcast to the shape \(3,\) of x\[index\], got \(2,\)",
        ),
        (
            lambda x: ad.at(x.astype(int))[0].add(0.5),
            ArgumentException,
            r"value must fit the dtype int64 of x, got float64\[\]; convert x with astype",
        ),
        (lambda x: ad.at(x)[2].set(1.0), IndexError, "index 2 is out of bounds for an axis of length 2"),
        (lambda x: ad.at(x)[:, [0, 3]].add(1.0), IndexError, r"index 3 is out of bounds for an axis of length 3 \(at"),
        (lambda x: ad.at(x)[x > 1].set(1.0), ArgumentException, "dtype bool; for a mask, use np.where"),
        (lambda x: ad.at(x)[0, 0, 0].set(1.0), ArgumentException, r"index must fit a traced array of shape \(2, 3\)"),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, error: type[Exception], message: str) -> None:
    x = np.ones((2, 3))
    for run in (lambda: call(x), lambda: ad.trace(call, x)):
        with pytest.raises(error, match=message):
            run()


def test_an_index_out_of_bounds_under_vmap_is_named() -> None:
    x, i = np.zeros((2, 3)), np.array([[0, 1], [1, 3]])
    for method, _ in METHODS:
        with pytest.raises(IndexError, match=r"index 3 is out of bounds for an axis of length 3 \(at \(1, 1\)"):
            ad.vmap(lambda a, k, m=method: m(a, k, 1.0))(x, i)
