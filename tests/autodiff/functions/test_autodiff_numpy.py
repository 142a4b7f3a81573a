"""NumPy's own rules, kept while tracing: promotion, indexing, axes; and values at the edges of domains."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from amounts import many
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import basic_indices
from numpy.testing import assert_allclose, assert_array_equal

from aidotnet_py import autodiff as ad
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException, NotSupportedException

KINDS = ["bool", "int8", "uint8", "int32", "int64", "uint64", "float16", "float32", "float64"]


def traced(f: Callable[..., Any], *args: Any) -> Any:
    return ad.trace(f, *args)(*args)


def numpy_says(f: Callable[..., Any], *args: Any) -> Any:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return np.asarray(f(*args))


def assert_same(f: Callable[..., Any], *args: Any, rtol: float = 0.0) -> None:
    """Value, shape and dtype are those of NumPy, to a few roundings of that dtype where ``rtol`` counts them."""
    wanted = numpy_says(f, *args)
    found = traced(f, *args)
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    eps = float(np.finfo(wanted.dtype).eps) if wanted.dtype.kind == "f" else 0.0
    assert_allclose(found, wanted, rtol=rtol * eps, atol=rtol * eps)


BINARY = [np.arctan2, np.add, np.multiply, np.divide, np.maximum, np.minimum, np.equal, np.less_equal, np.logical_or]


@pytest.mark.parametrize("f", BINARY, ids=lambda f: f.__name__)
@pytest.mark.parametrize("left", KINDS)
def test_two_arrays_promote_as_in_numpy(f: Any, left: str) -> None:
    x = np.array([0, 1, 1, 1]).astype(left)
    for right in KINDS:
        assert_same(f, x, np.array([1, 1, 0, 1]).astype(right))
        assert_same(lambda a, b: np.where(a > 0, a, b), x, np.array(1).astype(right))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "number", [True, 3, 2.5, np.float32(2.5), np.float64(2.5), np.int16(3), np.bool(True)], ids=repr
)
def test_numbers_are_weak_and_numpy_scalars_are_not(kind: str, number: Any) -> None:
    x = np.array([1, 2, 1]).astype(kind)
    for f in (np.add, np.multiply, np.divide, np.maximum, np.greater):
        assert_same(lambda a, f=f: f(a, number), x)
        assert_same(lambda a, f=f: f(number, a), x)
    assert_same(lambda a: np.where(a > 0, a, number), x)
    if not (kind == "bool" and isinstance(number, (bool, int, np.bool))):
        assert_same(lambda a: a**number, x, rtol=4)
    if kind != "bool":
        assert_same(lambda a: number - a if not isinstance(number, (bool, np.bool)) else a, x)


@pytest.mark.parametrize("kind", KINDS)
def test_one_array_gives_the_dtype_that_numpy_gives(kind: str) -> None:
    x = np.array([1, 0, 1, 1]).astype(kind)
    exact = (np.isfinite, np.logical_not, np.floor, np.ceil)
    rounded = (
        np.exp,
        np.sqrt,
        np.tanh,
        np.log1p,
        np.expm1,
        np.sin,
        np.cos,
        np.exp2,
        np.tan,
        np.arctan,
        np.sinh,
        np.cosh,
    )
    for f in (*exact, *rounded):
        assert_same(f, x, rtol=4)
    for f in (np.sum, np.mean, np.max, np.min, np.var, np.std):
        assert_same(f, x, rtol=4)
    assert_same(np.logaddexp, x, x, rtol=4)
    if kind != "bool":
        for f in (np.absolute, np.sign, np.square):
            assert_same(f, x)
        if not kind.startswith("u"):
            assert_same(np.negative, x)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "int64", "uint64"])
def test_extremes_of_integers_are_not_lost(kind: str) -> None:
    info = np.iinfo(kind)
    x = np.array([[info.min, 1], [info.max, 3]], kind)
    for axis in (None, 0, 1):
        assert_same(lambda a, axis=axis: np.min(a, axis), x)
        assert_same(lambda a, axis=axis: np.max(a, axis), x)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int64", "uint64"])
def test_integers_compare_with_numbers_that_they_cannot_hold(kind: str) -> None:
    """By their values, as in NumPy; a bound of `clip` that they can't reach is none."""
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    x = np.array([low, 1, high], kind)
    for number in (low, high, low - 1, high + 1, -(2**70), 2**70):
        for f in (np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal):
            assert_same(lambda a, f=f, number=number: f(a, number), x)
            assert_same(lambda a, f=f, number=number: f(number, a), x)
    assert_same(lambda a: np.clip(a, low - 1, 1), x)
    assert_same(lambda a: np.clip(a, 1, high + 1), x)


def test_half_precision_adds_up_means_in_single_precision() -> None:
    assert float(traced(np.mean, np.ones(70_000, np.float16))) == 1.0
    x = np.linspace(100, 300, 1000).astype(np.float16)
    for f in (np.var, np.std):
        found = traced(f, x)
        assert found.dtype == np.float16
        assert_allclose(found, f(x.astype(np.float64)), rtol=1e-3)


def test_gradients_keep_the_dtype_of_what_they_are_of() -> None:
    x, y = np.ones(3, np.float32), np.full(3, 2.0, np.float16)
    gradient = ad.grad(lambda p: np.sum(p[0] * p[1] * np.float64(3.0)))((x, y))
    assert [g.dtype for g in gradient] == [np.float32, np.float16]
    assert_array_equal(gradient[0], np.full(3, 6.0))
    assert ad.hvp(lambda a: np.sum(a**3), y, y).dtype == np.float16


def test_scalars_of_numpy_count_as_arrays_of_their_dtype() -> None:
    assert ad.grad(np.sin)(np.float32(0.0)).dtype == np.float32
    assert ad.grad(np.sin)(0.0).dtype == np.float64
    program = ad.trace(lambda x: x * 2, np.float32(1.0))
    assert program(1.5).dtype == np.float32
    with pytest.raises(
        ArgumentException,
        match=r"arguments\[0\] must be float32\[\] like the example that the program was traced on, got float64\[\]",
    ):
        program(np.float64(1.5))
    with pytest.raises(
        ArgumentException,
        match=r"arguments\[0\] must be int64\[\] like the example that the program was traced on, got float64\[\]",
    ):
        ad.trace(lambda x: x * 2, 1)(1.5)


@given(data=st.data(), shape=st.lists(st.integers(0, 4), max_size=4).map(tuple))
@settings(max_examples=many(30))
def test_basic_indexing_is_that_of_numpy(data: Any, shape: tuple[int, ...]) -> None:
    x = np.arange(float(math.prod(shape))).reshape(shape)
    key = data.draw(basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    assert_same(lambda a: a[key], x)


@given(data=st.data(), shape=st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple))
@settings(max_examples=many(30))
def test_indexing_with_one_array_is_that_of_numpy(data: Any, shape: tuple[int, ...]) -> None:
    x = np.arange(float(math.prod(shape))).reshape(shape)
    axis = data.draw(st.integers(0, len(shape) - 1))
    other = st.one_of(st.just(slice(None)), st.just(slice(None, None, -1)), st.integers(-1, 0))
    key: list[Any] = [data.draw(other) for _ in shape]
    n = shape[axis]
    flat, nested = st.lists(st.integers(-n, n - 1), max_size=3), st.lists(st.just([0, 0]), max_size=2)
    indices = data.draw(flat | nested)
    key[axis] = indices
    extra = data.draw(st.sampled_from([None, Ellipsis, "none"]))
    if extra != "none":
        key.insert(data.draw(st.integers(0, len(key))), extra)
    array = np.asarray(indices, dtype=data.draw(st.sampled_from([np.int64, np.int8])))
    places = [array if k is indices else k for k in key]
    wanted = x[tuple(places)]
    assert_array_equal(traced(lambda a: a[tuple(key)], x), wanted)
    assert_array_equal(traced(lambda a: a[tuple(places)], x), wanted)
    by_tracer = traced(lambda a, i: a[tuple(i if k is indices else k for k in key)], x, array)
    assert_array_equal(by_tracer, wanted)


def test_small_integers_index_long_axes_and_batches() -> None:
    x = np.arange(20 * 300.0).reshape(20, 300)
    near_end = np.full((20, 2), -1, np.int8)
    assert_array_equal(ad.vmap(lambda a, i: np.take(a, i))(x, near_end), x[:, [-1, -1]])
    far = np.full((20, 2), 255, np.uint8)
    assert_array_equal(ad.vmap(lambda a, i: a[i])(x, far), x[:, [255, 255]])
    pulled = ad.grad(lambda a: np.sum(ad.vmap(lambda r, i: r[i])(a, far)))(x)
    assert pulled[:, 255].tolist() == [2.0] * 20
    assert pulled.sum() == 40
    assert ad.one_hot(np.array([3], np.int8), 200).sum() == 1.0


@pytest.mark.parametrize(
    ("f", "counts"),
    [
        (lambda x: np.repeat(x, [1, 0, 2], axis=1), [[1, 0, 2], [1, 0, 2]]),
        (lambda x: np.roll(x, (1, 2), axis=(0, 1)), [[1, 1, 1], [1, 1, 1]]),
        (lambda x: np.pad(x, 1, constant_values=(3, 4)), [[1, 1, 1], [1, 1, 1]]),
    ],
)
def test_derivatives_count_how_often_an_element_is_there(f: Callable[..., Any], counts: Any) -> None:
    assert_array_equal(ad.grad(lambda x: np.sum(f(x)))(x23), np.array(counts, float))
    assert_array_equal(ad.vmap(f)(np.stack([x23, -x23])), [f(x23), f(-x23)])


def test_repeated_indices_add_their_derivatives_up() -> None:
    gradient = ad.grad(lambda x: np.sum(x[[0, 2, 0, 0]] * np.arange(1.0, 5.0)))(np.zeros(3))
    assert gradient.tolist() == [8.0, 0.0, 2.0]


x23 = np.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: np.sum(x, axis=np.int64(0)),
        lambda x: np.reshape(x, shape=(3, 2)),
        lambda x: x.reshape(np.int64(6)),
        lambda x: x.reshape([3, -1]),
        lambda x: x.reshape(()) if x.size == 1 else x,
        lambda x: np.moveaxis(x, -1, -2),
        lambda x: np.transpose(x, (-1, 0)),
        lambda x: x.transpose(1, 0),
        lambda x: x.transpose(),
        lambda x: x.T.mT,
        lambda x: np.squeeze(x[:, :1]),
        lambda x: x.astype(np.float32, copy=False),
        lambda x: x.clip(min=1, max=4),
        lambda x: np.clip(x, 1, None),
        lambda x: x.mean(0) + x.sum(axis=0) + x.max(0) + x.min(0) + x.std(0) + x.var(0),
        lambda x: x.flatten() + x.ravel() + x.copy().repeat(1),
        lambda x: x.dot(np.ones(3)) + x.take([0, 1]),
        lambda x: np.linalg.norm(x, axis=1, keepdims=True),
        lambda x: np.linalg.norm(x[0], 2),
        lambda x: np.concatenate([x, x.astype(np.float32)], axis=None),
        lambda x: np.concatenate([x, np.ones((2, 1))], axis=-1),
        lambda x: np.stack([x[0, 0], 1.0]),
        lambda x: np.where(True, x, 0.0),
        lambda x: -x + abs(x) - (+x) * x / (1 + x) ** 2,
        lambda x: (x >= 1) & (x != 2) | ~(x < 3),
        lambda x: np.expand_dims(x, (0, 2)),
        lambda x: x[np.array(1)],
        lambda x: np.broadcast_to(x[:1], (4, 3)),
        lambda x: np.pad(x, 1),
        lambda x: np.pad(x, (1, 2), constant_values=-1.0),
        lambda x: np.log10(10.0 ** np.floor(x * 3)) + np.floor(np.log10(1000.0 + 0.0 * x)),
        lambda x: np.log2(2.0 ** np.floor(x * 3 - 5)),
        lambda x: np.fabs((x - 3).astype(np.int8)),
        lambda x: np.arctan2(x.astype(np.uint8), 0.5),
        lambda x: np.float_power(x.astype(np.float16), 2),
        lambda x: np.float_power(0.5, x.astype(np.float16)),
        lambda x: np.logaddexp(np.where(x > 2, np.inf, x), np.nan),
        lambda x: np.logaddexp(np.where(x > 2, np.inf, -np.inf), np.where(x > 3, np.inf, -np.inf)),
        lambda x: np.einsum(",ij->ji", 2.0, x),
        lambda x: np.argmax(x, axis=1, keepdims=True) + np.argmin(x, keepdims=True),
        lambda x: np.pad(x, 1, constant_values=(1, 2)),
        lambda x: np.pad(x, ((1, 0), (2, 1)), constant_values=((1, 2), (3, 4))),
        lambda x: np.roll(x, 4),
        lambda x: np.roll(x, (1, 2)),
        lambda x: np.roll(x, (1, -2), axis=(0, 1)),
        lambda x: np.roll(x, 1, axis=(0, -1)),
        lambda x: np.roll(x, (1, 1), axis=1),
        lambda x: np.tile(x, 2),
        lambda x: np.repeat(x, 2),
        lambda x: np.repeat(x, 0, axis=1),
        lambda x: np.repeat(x, [2], axis=1),
        lambda x: np.repeat(x, [1, 3], axis=0),
        lambda x: np.repeat(x, np.array([1, 0, 2]), axis=-1),
        lambda x: np.repeat(x, [1, 0, 2, 0, 0, 1]),
        lambda x: np.shape(x)[0] + np.ndim(x) + np.size(x) + len(x) + x.ndim + x.size + 0 * x,
        lambda x: sum(row for row in x),
        lambda x: np.matrix_transpose(x),
        lambda x: np.zeros_like(x, np.int8) + np.ones_like(x, dtype=bool) + np.full_like(x, 2, int),
        lambda x: np.zeros_like(x, shape=3) + np.ones_like(x, shape=np.array([2, 1])),
        lambda x: x.reshape(np.array([3, 2])),
        lambda x: np.broadcast_to(x[0], np.array([2, 3])),
        lambda x: np.tile(x, np.int64(2)),
        lambda x: np.logaddexp((x - 3).astype(np.int8), 300),
        lambda x: np.logaddexp((x - 3).astype(np.int8), x.astype(np.uint8)),
        lambda x: np.arctan2(x > 1, 2) + np.arctan2(3, x.astype(np.int8)),
        lambda x: np.square(x > 1) + (x > 1) ** (x > 2) + (x > 1) ** True + True ** (x > 1),
        lambda x: np.linalg.norm(x.astype(np.longdouble), axis=1),
    ],
)
def test_spellings_of_numpy_are_understood(f: Callable[..., Any]) -> None:
    assert_same(f, x23, rtol=4)


@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        (lambda x: x @ np.ones(4), ArgumentException, r"shapes must fit a matrix product, got \(2, 3\) and \(4,\)"),
        (
            lambda x: x + np.ones((4, 3)),
            ArgumentException,
            r"shapes must broadcast together, got \(2, 3\) and \(4, 3\)",
        ),
        (
            lambda x: np.where(x > 0, x, np.ones(2)),
            ArgumentException,
            r"shapes must broadcast together, got \(2, 3\) and \(2,\)",
        ),
        (lambda x: x.reshape(4, 2), ArgumentException, r"shape must have 6 elements like \(2, 3\), got \(4, 2\)"),
        (lambda x: x.reshape(4, -1), ArgumentException, r"shape must fit an array of shape \(2, 3\), got \(4, -1\)"),
        (lambda x: x.reshape(-1, -1), ArgumentException, r"shape must have 6 elements like \(2, 3\), got \(-1, -1\)"),
        (lambda x: np.reshape(x, 6, order="F"), NotSupportedException, "order must be 'C' for a traced value, got 'F'"),
        (lambda x: np.sum(x, axis=2), ArgumentException, "axis must be distinct axes of an array with 2 axes, got 2"),
        (
            lambda x: np.repeat(x, [1, 2], axis=1),
            ArgumentException,
            r"repeats must be an integer of at least 0, or one for each of the 3 entries of axis 1, got \[1, 2\]",
        ),
        *(
            (lambda x, f=f: f(x), ArgumentException, r"axis must be one integer, got \(1, 0\)")
            for f in (
                lambda x: np.argmax(x, axis=(1, 0)),
                lambda x: np.argmin(x, axis=(1, 0)),
                lambda x: np.sort(x, axis=(1, 0)),
                lambda x: np.argsort(x, axis=(1, 0)),
                lambda x: np.cumsum(x, axis=(1, 0)),
                lambda x: np.take(x, [0], axis=(1, 0)),
                lambda x: np.concatenate([x, x], axis=(1, 0)),
                lambda x: np.stack([x, x], axis=(1, 0)),
            )
        ),
        (lambda x: x.reshape(6, -1, -1), ArgumentException, r"shape must have 6 elements .*, got \(6, -1, -1\)"),
        (lambda x: x.reshape(-2, -3), ArgumentException, r"shape must have 6 elements .*, got \(-2, -3\)"),
        (lambda x: np.broadcast_to(x, (-1, 3)), ArgumentException, "shape must have lengths of at least 0, got"),
        (lambda x: np.pad(x, 1.5), ArgumentException, "pad_width must be integers of at least 0, got 1.5"),
        (lambda x: np.reciprocal(x.astype(int)), ArgumentException, r"x must be floating, .* write 1\.0 / x"),
        (lambda x: x.sum(dtype=np.float32), NotSupportedException, "np.sum cannot be traced as it was called here"),
        (lambda x: x.take([0], mode="clip"), NotSupportedException, "np.take cannot be traced as it was called here"),
        (lambda x: np.repeat(x, -1), ArgumentException, "repeats must be an integer of at least 0"),
        (lambda x: np.repeat(x, 1.5), ArgumentException, "repeats must be an integer of at least 0"),
        (
            lambda x: np.sum(x, axis=(0, 0)),
            ArgumentException,
            r"axis must be distinct axes of an array with 2 axes, got \(0, 0\)",
        ),
        (
            lambda x: np.transpose(x, (0, 2)),
            ArgumentException,
            r"axis must be distinct axes of an array with 2 axes, got \(0, 2\)",
        ),
        (lambda x: np.transpose(x, (0,)), ArgumentException, r"axes must have each of 2 axes once, got \(0,\)"),
        (
            lambda x: np.swapaxes(x, 0, 3),
            ArgumentException,
            "axis must be distinct axes of an array with 2 axes, got 3",
        ),
        (
            lambda x: np.moveaxis(x, 0, 3),
            ArgumentException,
            "axis must be distinct axes of an array with 2 axes, got 3",
        ),
        (
            lambda x: np.moveaxis(x, (0, 1), 0),
            ArgumentException,
            r"source and destination must have one length, got \(0, 1\) and 0",
        ),
        (lambda x: np.squeeze(x, 0), ArgumentException, r"axis must be axes of length 1 of shape \(2, 3\), got 0"),
        (
            lambda x: np.broadcast_to(x, (2, 4)),
            ArgumentException,
            r"shape must be one that \(2, 3\) broadcasts to, got \(2, 4\)",
        ),
        (
            lambda x: np.concatenate([x, x.T]),
            ArgumentException,
            r"arrays must have equal shapes except along axis 0, got \(2, 3\) and \(3, 2\)",
        ),
        (
            lambda x: np.stack([x, x.T]),
            ArgumentException,
            r"arrays must have one shape to be stacked, got \[\(2, 3\), \(3, 2\)\]",
        ),
        (
            lambda x: np.max(x[:0], axis=0),
            ArgumentException,
            r"a maximum must have at least one element, got axes \(0,\) of shape \(0, 3\)",
        ),
        (
            lambda x: np.mean(x[:0]),
            ArgumentException,
            r"a mean must have at least one element, got axes \(0, 1\) of shape \(0, 3\)",
        ),
        (
            lambda x: np.var(x, ddof=6),
            ArgumentException,
            r"ddof must be less than the 6 elements of axes \(0, 1\), got 6",
        ),
        (lambda x: x[0, 0, 0], ArgumentException, r"index must fit a traced array of shape \(2, 3\), got \(0, 0, 0\)"),
        (lambda x: x[2], IndexError, "index 2 is out of bounds for an axis of length 2"),
        (lambda x: x[[0, 5]], IndexError, r"index 5 is out of bounds for an axis of length 2 \(at \(1,\) in indices"),
        (lambda x: x[[0.5]], ArgumentException, "indices must be integers, got dtype float64"),
        (lambda x: x[x > 0], ArgumentException, r"indices must be integers, got dtype bool; for a mask, use np\.where"),
        (
            lambda x: x[[0], [1]],
            NotSupportedException,
            r"index must have at most one array for a traced value, got 2; use np\.take",
        ),
        (
            lambda x: np.take_along_axis(x, np.array([0]), 1),
            ArgumentException,
            r"indices must have as many axes as \(2, 3\), got shape \(1,\)",
        ),
        (lambda x: np.einsum("ij,jk->ik", x, np.ones((4, 5))), ArgumentException, r"shapes \(2, 3\) and \(4, 5\)"),
        (lambda x: np.einsum("ijk,jk->ik", x, np.ones((4, 5))), ArgumentException, r"shapes \(2, 3\) and \(4, 5\)"),
        (
            lambda x: np.einsum("ij,jk->iz", x, np.ones((3, 5))),
            ArgumentException,
            "einsum must have only letters of its operands in the result, each once, got 'ij,jk->iz'",
        ),
        (
            lambda x: np.einsum("ii,jk->i", x, x),
            ArgumentException,
            r"fit the shapes \(2, 3\) and \(2, 3\), got 'ii,jk->i'",
        ),
        (lambda x: np.einsum("ij,jk->ik", x), ArgumentException, r"fit the shapes \(2, 3\), got 'ij,jk->ik'"),
        (lambda x: np.einsum("ij->ii", x), ArgumentException, "letters of its operands in the result, each once"),
        (lambda x: np.einsum("i...->i", x), NotSupportedException, "letters, without an ellipsis, to be traced"),
        (lambda x: np.einsum(x, [0, 1], [1]), NotSupportedException, "subscripts first, as a text, to be traced"),
        (lambda x: np.tensordot(x, x, 1), ArgumentException, r"axes must pair axes of one length .* got 1"),
        (lambda x: np.tensordot(x, x, 3), ArgumentException, "axes must be a number of axes of the shapes"),
        (lambda x: np.argmax(x[:0], 0), ArgumentException, "a maximum must have at least one element"),
        (lambda x: np.sort(x, order="f"), NotSupportedException, "order must be None for a traced value, got 'f'"),
        (lambda x: np.diag(x[None]), ArgumentException, r"v must be a vector or a matrix, got shape \(1, 2, 3\)"),
        (lambda x: np.trace(x[0]), ArgumentException, r"a must have two axes to have a diagonal, got shape \(3,\)"),
        (lambda x: np.diagonal(x, 0, 1, -1), ArgumentException, "axis1 and axis2 must be two axes, got 1 and -1"),
        (lambda x: np.cumsum(x, 2), ArgumentException, "axis must be distinct axes of an array with 2 axes, got 2"),
        (
            lambda x: np.linalg.inv(x),
            ArgumentException,
            r"a must be a square matrix, or a stack of these, got shape \(2",
        ),
        (
            lambda x: np.linalg.solve(x @ x.T, x.T),
            ArgumentException,
            r"b must have 2 rows like a of shape \(2, 2\), got shape \(3, 2\)",
        ),
        (
            lambda x: np.linalg.solve(np.stack([x[:, :2]] * 3), np.stack([x] * 2)),
            ArgumentException,
            r"leading axes must broadcast together, got shapes \(3, 2, 2\) and \(2, 2, 3\)",
        ),
        (lambda x: np.linalg.det(x[:, 1:].astype(np.float16)), ArgumentException, "float32 or float64 .*, got float16"),
        (
            lambda x: np.cumsum(x, axis=np.array([0, 1])),
            ArgumentException,
            r"axis must be one integer, got \[0 1\]",
        ),
        (lambda x: np.tile(x, -1), ArgumentException, "reps must be integers of at least 0, got -1"),
        (
            lambda x: np.linalg.norm(x, 1),
            NotSupportedException,
            "ord must be None, 1, 2 or inf over one axis, or None or 'fro' over two, for a traced value, got 1 over",
        ),
        (
            lambda x: np.pad(x, 1, mode="edge"),
            NotSupportedException,
            "mode must be 'constant' for a traced value, got 'edge'",
        ),
        (lambda x: np.pad(x, -1), ArgumentException, "pad_width must be integers of at least 0, got -1"),
        (
            lambda x: x.astype(np.int64) ** -1,
            ArgumentException,
            r"power must be at least 0 for a base int64\[2,3\], got -1; convert the base to floats",
        ),
        (
            lambda x: (x > 0) - (x > 1),
            ArgumentException,
            "subtract must have numbers as operands, got booleans; convert them with astype",
        ),
        (
            lambda x: -(x > 0),
            ArgumentException,
            "negative must have numbers as operands, got booleans; convert them with astype",
        ),
        (
            lambda x: ad.relu(x > 0),
            ArgumentException,
            "relu must have numbers as operands, got booleans; convert them with astype",
        ),
        (
            lambda x: ~x,
            NotSupportedException,
            "operands of bitwise operators must be booleans to be traced, got other dtypes",
        ),
        (
            lambda x: np.dot(x, np.ones((2, 3, 1))),
            NotSupportedException,
            r"np\.dot must have at most two axes on the right for a traced value, got more; use np\.matmul",
        ),
        (
            lambda x: np.add(x, [1, 2, 3]),
            ArgumentException,
            "a value must be an array or a number, got list",
        ),
        (lambda x: np.sum(x, dtype=np.float32), NotSupportedException, "np.sum cannot be traced as it was called here"),
        (lambda x: np.cumprod(x), NotSupportedException, "np.cumprod is not among the functions that can be traced"),
        (lambda x: np.add.reduce(x), NotSupportedException, r"np.add.reduce is not among"),
        (lambda x: np.linalg.pinv(x), NotSupportedException, r"np.linalg.pinv is not among"),
        (lambda x: np.emath.sqrt(x), NotSupportedException, r"np.emath.sqrt is not among"),
        (lambda x: np.full_like(x, 300, np.uint8), OverflowError, "300 out of bounds for uint8"),
        *(
            (lambda x, f=f: f(x), ArgumentException, "dtype must be of booleans, integers or floats, got ")
            for f in (
                lambda x: x.astype(complex),
                lambda x: x.astype("S3"),
                lambda x: np.zeros_like(x, object),
                lambda x: np.full_like(x, 1, "datetime64[s]"),
                lambda x: ad.one_hot(np.arange(2), 3, complex),
            )
        ),
    ],
)
def test_what_cannot_be_is_refused_while_tracing(f: Callable[..., Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ad.trace(f, x23)


# -- edges of domains -----------------------------------------------------------------------------------------------

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("f", "x", "value", "slope"),
    [
        (np.log, 0.0, -INF, INF),
        (np.sqrt, 0.0, 0.0, INF),
        (np.absolute, 0.0, 0.0, 0.0),
        (np.sign, 0.0, 0.0, 0.0),
        (ad.relu, 0.0, 0.0, 0.0),
        (lambda x: x**0, 0.0, 1.0, 0.0),
        (lambda x: x**1, 0.0, 0.0, 1.0),
        (lambda x: x**0.5, 0.0, 0.0, INF),
        (lambda x: x**3, -2.0, -8.0, 12.0),
        (lambda x: x**-3, -2.0, -0.125, -0.1875),
        (lambda x: x**5.0, -1.0, -1.0, 5.0),
        (lambda x: x**0.5, -1.0, NAN, NAN),
        (lambda x: np.power(0.0, x), 2.0, 0.0, 0.0),
        (lambda x: np.power(0.0, x), 0.0, 1.0, 0.0),
        (lambda x: np.power(-2.0, x), 2.0, 4.0, NAN),
        (lambda x: np.maximum(x, 1.0), 1.0, 1.0, 0.5),
        (lambda x: np.minimum(1.0, x), 1.0, 1.0, 0.5),
        (lambda x: np.max(np.stack([x, x, 0 * x])), 1.0, 1.0, 1.0),
        (lambda x: np.where(x > 0, np.log(np.where(x > 0, x, 1.0)), 0.0), 0.0, 0.0, 0.0),
        (lambda x: np.where(x > 0, x, 7.0), 0.0, 7.0, 0.0),
        (ad.sigmoid, 800.0, 1.0, 0.0),
        (ad.sigmoid, -800.0, 0.0, 0.0),
        (ad.softplus, 800.0, 800.0, 1.0),
        (ad.softplus, -800.0, 0.0, 0.0),
        (lambda x: np.logaddexp(x, 0.0), 0.0, math.log(2), 0.5),
        (lambda x: np.logaddexp(x, 800.0), 800.0, 800 + math.log(2), 0.5),
        (lambda x: np.logaddexp(x, -INF), 3.0, 3.0, 1.0),
        (lambda x: np.logaddexp(-INF, x), -INF, -INF, None),
        (lambda x: np.logaddexp(INF, x), 1.0, INF, 0.0),
        (lambda x: ad.logsumexp(np.stack([x, np.full_like(x, -INF)])), 1.0, 1.0, 1.0),
        (lambda x: ad.logsumexp(np.stack([x, x])), 1000.0, 1000 + math.log(2), 1.0),
        (lambda x: ad.logsumexp(np.stack([x, x])), -1000.0, -1000 + math.log(2), 1.0),
        (lambda x: ad.logsumexp(np.stack([x, x])), -INF, -INF, None),
        (lambda x: ad.logsumexp(np.stack([x, np.full_like(x, INF)])), 1.0, INF, None),
        (lambda x: np.exp(ad.log_softmax(np.stack([x, np.full_like(x, -INF), 0 * x])))[0], 0.0, 0.5, 0.25),
        (np.tanh, 800.0, 1.0, 0.0),
        (np.expm1, -800.0, -1.0, 0.0),
    ],
)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_values_and_derivatives_at_the_edges(
    f: Callable[..., Any], x: float, value: float, slope: float | None, kind: Any
) -> None:
    found, derivative = ad.value_and_grad(f)(kind(x))
    assert (found.dtype, derivative.dtype) == (kind, kind)
    rtol = 4 * float(np.finfo(kind).eps)
    assert_allclose(found, value, rtol=rtol)
    if slope is not None:
        assert_allclose(derivative, slope, rtol=rtol, atol=rtol)
        assert_allclose(ad.jvp(f, (kind(x),), (kind(1),))[1], slope, rtol=rtol, atol=rtol)


@pytest.mark.parametrize(
    ("f", "x", "curvature"),
    [
        (lambda x: np.logaddexp(x, 0.0), 0.0, 0.25),
        (lambda x: np.logaddexp(x, x), 0.0, 0.0),
        (lambda x: ad.logsumexp(np.stack([x, 0.0])), 0.0, 0.25),
        (ad.softplus, 0.0, 0.25),
        (lambda x: x**2, 0.0, 2.0),
        (lambda x: x**3, 0.0, 0.0),
        (lambda x: x**1, 0.0, 0.0),
        (lambda x: np.power(x, np.float64(2.0)), 0.0, 2.0),
        (lambda x: np.power(x, np.array(1.0)), 0.0, 0.0),
    ],
)
def test_curvature_where_a_formula_has_a_case_of_its_own(f: Callable[..., Any], x: float, curvature: float) -> None:
    assert float(ad.grad(ad.grad(f))(x)) == pytest.approx(curvature, abs=1e-14)


@pytest.mark.parametrize("y", [-1.5, 0.0, 1.0, 2.0])
def test_mixed_derivatives_of_a_power(y: float) -> None:
    """∂²/∂x∂y of xʸ is xʸ⁻¹ (1 + y log x), also where y = 0."""
    x = 3.0
    mixed = ad.grad(lambda b: ad.grad(lambda a: np.power(a, b))(x))(y)
    assert float(mixed) == pytest.approx(x ** (y - 1) * (1 + y * math.log(x)), rel=1e-14)


def test_a_power_of_zero_to_an_array_of_exponents_has_finite_derivatives() -> None:
    base, exponents = np.zeros(4), np.array([0.0, 1.0, 2.0, 3.0])
    gradient = ad.grad(lambda p: np.sum(np.power(p[0], p[1])))((base, exponents))
    assert gradient[0].tolist() == [0.0, 1.0, 0.0, 0.0]
    assert gradient[1].tolist() == [0.0, 0.0, 0.0, 0.0]


def test_ties_share_the_derivative_of_an_extremum() -> None:
    x = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    gradient = ad.grad(lambda a: np.sum(np.max(a, axis=1)))(x)
    assert_allclose(gradient, [[0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]], rtol=1e-15)
    pair = ad.grad(lambda p: np.sum(np.maximum(p[0], p[1])))((np.ones(2), np.array([1.0, 0.0])))
    assert [g.tolist() for g in pair] == [[0.5, 1.0], [0.5, 0.0]]


def test_a_choice_keeps_the_nan_of_the_branch_not_taken_out_of_its_derivative() -> None:
    x = np.array([-1.0, 4.0])
    assert ad.grad(lambda a: np.sum(np.where(a > 0, a * a, np.inf * 0.0)))(np.array([2.0])).tolist() == [4.0]
    safe = ad.grad(lambda a: np.sum(np.where(a > 0, np.sqrt(np.where(a > 0, a, 1.0)), 0.0)))(x)
    assert safe.tolist() == [0.0, 0.25]


def test_nan_and_infinities_make_no_warnings() -> None:
    x = np.array([0.0, INF, NAN, -1.0])
    for f in (np.log, np.sqrt, np.reciprocal, np.exp, lambda a: a / a, lambda a: a**-0.5, ad.softmax):
        ad.trace(f, x)(x)
        ad.grad(lambda a, f=f: np.sum(f(a)))(x)


def test_float16_derivatives_are_within_its_rounding() -> None:
    x = np.linspace(0.2, 2.0, 7)
    narrow = x.astype(np.float16)

    def f(a: Any) -> Any:
        return np.sum(np.tanh(a) * np.log(a) + ad.softplus(a))

    gradient, product = ad.grad(f)(narrow), ad.hvp(f, narrow, np.ones_like(narrow))
    assert (gradient.dtype, product.dtype) == (np.float16, np.float16)
    wide = narrow.astype(np.float64)
    scale = 30 * float(np.finfo(np.float16).eps)
    assert_allclose(gradient, ad.grad(f)(wide), atol=scale)
    assert_allclose(product, ad.hvp(f, wide, np.ones_like(wide)), atol=3 * scale)


def test_options_out_of_range_say_so() -> None:
    with pytest.raises(ArgumentOutOfRangeException, match="argument must be the place of one of 1 arguments, got 1"):
        ad.grad(np.sin, argument=1)(0.0)
