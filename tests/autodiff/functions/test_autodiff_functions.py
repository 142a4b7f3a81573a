"""Convolution, pooling, normalisation and their kin against explicit loops and SciPy, for all their options."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.special
from amounts import many
from autodiff_cases import conv2d_reference, fold_reference, patches_reference, pool_reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from aidotnet_py import autodiff as ad
from aidotnet_py.backends import Backend
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException

sizes = st.integers(1, 6)
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
margins = st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2)


def uniform(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).uniform(-1, 1, shape)


def same_margins(image: tuple[int, int], window: tuple[int, int], stride: tuple[int, int]) -> Any:
    """The margins with which ceil(n / stride) windows cover an image, the odd one after."""
    result = []
    for n, k, s in zip(image, window, stride, strict=True):
        count = -(-n // s)
        total = max((count - 1) * s + k - n, 0)
        result.append((total // 2, total - total // 2))
    return tuple(result)


@pytest.mark.numpy_first
@given(
    image=st.tuples(sizes, sizes),
    window=pairs,
    stride=pairs,
    groups=st.integers(1, 3),
    inner=st.integers(1, 2),
    outer=st.integers(1, 2),
    padding=margins | st.sampled_from(["same", "valid"]) | st.integers(0, 2),
    biased=st.booleans(),
)
@settings(max_examples=many(20))
def test_conv2d_is_a_correlation(
    backend: Backend,
    image: tuple[int, int],
    window: tuple[int, int],
    stride: tuple[int, int],
    groups: int,
    inner: int,
    outer: int,
    padding: Any,
    biased: bool,
) -> None:
    around: Any = {"valid": ((0, 0), (0, 0)), "same": same_margins(image, window, stride)}.get(padding, padding)
    around = ((around, around), (around, around)) if isinstance(around, int) else around
    if any(n + sum(m) < k for n, m, k in zip(image, around, window, strict=True)):
        return
    x, w = uniform(0, 2, *image, groups * inner), uniform(1, *window, inner, groups * outer)
    b = uniform(2, groups * outer) if biased else None
    arrays = [None if a is None else backend.asarray(a) for a in (x, w, b)]
    y = ad.conv2d(*arrays, stride=stride, padding=padding, groups=groups)
    assert_allclose(backend.to_numpy(y), conv2d_reference(x, w, b, stride, around, groups), rtol=1e-12, atol=1e-12)
    if padding == "same":
        assert y.shape[1:3] == tuple(-(-n // s) for n, s in zip(image, stride, strict=True))


@given(image=st.tuples(sizes, sizes), window=pairs, stride=pairs)
@settings(max_examples=many(12))
def test_a_convolution_and_its_gradient_are_adjoint(
    image: tuple[int, int], window: tuple[int, int], stride: tuple[int, int]
) -> None:
    if any(n < k for n, k in zip(image, window, strict=True)):
        return
    x, w = uniform(0, 2, *image, 2), uniform(1, *window, 2, 3)
    y, pullback = ad.vjp(lambda a, b: ad.conv2d(a, b, stride=stride, padding="valid"), x, w)
    c = uniform(2, *y.shape)
    to_image, to_weight = pullback(c)
    assert np.sum(to_image * x) == pytest.approx(np.sum(c * y), rel=1e-12)
    assert np.sum(to_weight * w) == pytest.approx(np.sum(c * y), rel=1e-12)
    windows = patches_reference(x, window, stride)
    assert_allclose(to_weight, np.einsum("nijabc,nijf->abcf", windows, c), rtol=1e-12, atol=1e-12)
    spread = np.einsum("nijf,abcf->nijabc", c, w)
    assert_allclose(to_image, fold_reference(spread, image, stride), rtol=1e-12, atol=1e-12)


@pytest.mark.numpy_first
@given(
    image=st.tuples(sizes, sizes),
    window=pairs,
    stride=st.none() | pairs,
    padding=margins | st.sampled_from(["same", "valid"]),
)
@settings(max_examples=many(20))
def test_pooling_reduces_windows(
    backend: Backend, image: tuple[int, int], window: tuple[int, int], stride: Any, padding: Any
) -> None:
    step = stride or window
    around: Any = {"valid": ((0, 0), (0, 0)), "same": same_margins(image, window, step)}.get(padding, padding)
    if any(n + sum(m) < k for n, m, k in zip(image, around, window, strict=True)):
        return
    x = uniform(0, 2, *image, 3)
    array = backend.asarray(x)
    largest = ad.max_pool2d(array, window, stride=stride, padding=padding)
    mean = ad.average_pool2d(array, window, stride=stride, padding=padding)
    assert_array_equal(backend.to_numpy(largest), pool_reference(x, window, step, np.max, around, -math.inf))
    assert_allclose(backend.to_numpy(mean), pool_reference(x, window, step, np.mean, around), rtol=1e-13, atol=1e-13)


def test_windows_take_small_integers_of_numpy() -> None:
    one, many = np.int8(1), np.uint8(200)
    x = uniform(0, 1, 120, 120, 2)
    for f in (
        lambda n, m: ad.conv2d(x, np.ones((1, 1, 1, 2)), stride=(n, n), padding=m, groups=n + n),
        lambda n, m: ad.max_pool2d(x, n, stride=n, padding=((m, m), (n, n))),
    ):
        assert_array_equal(f(one, many), f(1, 200))


def test_max_pooling_shares_ties_also_in_the_tiled_form() -> None:
    x = np.zeros((1, 2, 2, 1))
    tiled = ad.grad(lambda a: np.sum(ad.max_pool2d(a, 2)))(x)
    assert tiled.ravel().tolist() == [0.25] * 4
    overlapping = ad.grad(lambda a: np.sum(ad.max_pool2d(a, 2, stride=1, padding=1)))(x)
    # Each of the nine windows gives 1 to its image pixels, shared equally: 1 + 1/2 + 1/2 + 1/4 for a corner.
    assert_allclose(overlapping.ravel(), [2.25] * 4)


def test_global_pooling_is_a_reduction() -> None:
    x = uniform(0, 2, 3, 5, 2)
    assert_array_equal(ad.max_pool2d(x, (3, 5)), x.max((1, 2), keepdims=True))
    assert_allclose(ad.average_pool2d(x, (3, 5)), x.mean((1, 2), keepdims=True), rtol=1e-14)


def test_batch_norm_has_its_closed_form_gradient(backend: Backend) -> None:
    """dx = (γ/σ) (c − mean(c) − x̂ mean(c x̂)) (Ioffe & Szegedy 2015), over all axes but the last."""
    x, scale, shift, c = uniform(0, 6, 2, 2, 3), uniform(1, 3), uniform(2, 3), uniform(3, 6, 2, 2, 3)
    sigma = np.sqrt(x.var((0, 1, 2)) + 1e-5)
    normal = (x - x.mean((0, 1, 2))) / sigma
    arrays = [backend.asarray(a) for a in (x, scale, shift)]
    y, pullback = ad.vjp(ad.batch_norm, *arrays)
    assert_allclose(backend.to_numpy(y), normal * scale + shift, rtol=1e-12)
    to_x, to_scale, to_shift = (backend.to_numpy(g) for g in pullback(backend.asarray(c)))
    mean, along = c.mean((0, 1, 2)), (c * normal).mean((0, 1, 2))
    assert_allclose(to_x, scale / sigma * (c - mean - normal * along), rtol=1e-11, atol=1e-13)
    assert_allclose(to_scale, (c * normal).sum((0, 1, 2)), rtol=1e-12)
    assert_allclose(to_shift, c.sum((0, 1, 2)), rtol=1e-12)


def test_layer_norm_normalises_each_row() -> None:
    x = uniform(0, 4, 7)
    y = ad.layer_norm(x, epsilon=0.0)
    assert_allclose(y.mean(1), 0, atol=1e-15)
    assert_allclose(y.var(1), 1, rtol=1e-14)
    assert_allclose(ad.layer_norm(x, np.full(7, 2.0), np.ones(7), epsilon=0.0), 2 * y + 1, rtol=1e-14)


@pytest.mark.numpy_first
@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple), data=st.data(), scale=st.floats(0.1, 500))
@settings(max_examples=many(15))
def test_softmax_and_logsumexp_are_those_of_scipy(
    backend: Backend, shape: tuple[int, ...], data: Any, scale: float
) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = uniform(data.draw(st.integers(0, 99)), *shape) * scale
    array = backend.asarray(x)
    for found, wanted in (
        (ad.logsumexp(array, axis), scipy.special.logsumexp(x, axis=axis)),
        (ad.logsumexp(array, keepdims=True), scipy.special.logsumexp(x, keepdims=True)),
        (ad.softmax(array, axis), scipy.special.softmax(x, axis=axis)),
        (ad.log_softmax(array, axis), scipy.special.log_softmax(x, axis=axis)),
    ):
        assert_allclose(backend.to_numpy(found), wanted, rtol=1e-13, atol=1e-15 * scale)


def test_log_softmax_keeps_a_small_loss_at_large_logits() -> None:
    x = np.array([1000.0, 990.0], np.float32)
    assert_allclose(ad.log_softmax(x)[0], -np.log1p(np.exp(-10.0)), rtol=2e-3)


def test_cross_entropy_has_its_closed_form_gradient_and_hessian() -> None:
    """∇ = p − onehot and H v = p∘v − p (p·v), of logsumexp(x) − x_label."""
    x, v = uniform(0, 5) * 3, uniform(1, 5)
    p = scipy.special.softmax(x)

    def loss(a: Any) -> Any:
        return ad.logsumexp(a) - np.sum(a * ad.one_hot(np.array(2), 5))

    assert_allclose(ad.grad(loss)(x), p - np.eye(5)[2], rtol=1e-13, atol=1e-15)
    assert_allclose(ad.hvp(loss, x, v), p * v - p * (p @ v), rtol=1e-12, atol=1e-16)


def test_sigmoid_and_softplus_keep_their_relative_accuracy(backend: Backend) -> None:
    x = np.linspace(-700, 40, 301)
    array = backend.asarray(x)
    assert_allclose(backend.to_numpy(ad.sigmoid(array)), scipy.special.expit(x), rtol=4e-16)
    assert_allclose(backend.to_numpy(ad.softplus(array)), np.log1p(np.exp(x)), rtol=1e-15)


def test_erf_is_accurate_to_a_few_roundings_on_both_sides(backend: Backend) -> None:
    x = np.concatenate([np.linspace(-7, 7, 701), [1e-300, -1e-20, 1e300, np.inf, -np.inf]])
    assert_allclose(backend.to_numpy(ad.erf(backend.asarray(x))), scipy.special.erf(x), rtol=8e-16)
    assert math.isnan(ad.erf(math.nan))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_erf_of_narrow_floats_is_rounded_once(dtype: Any) -> None:
    x = np.linspace(-4, 4, 401).astype(dtype)
    y = ad.erf(x)
    assert y.dtype == dtype
    assert_allclose(y, scipy.special.erf(x.astype(np.float64)), rtol=float(np.finfo(dtype).eps), atol=1e-7)


def test_one_hot_is_zero_out_of_range(backend: Backend) -> None:
    rows = ad.one_hot(backend.asarray([[0, 2], [-1, 3]]), 3, dtype=np.float32)
    assert backend.dtype_of(rows) == np.float32
    assert backend.to_numpy(rows).tolist() == [[[1, 0, 0], [0, 0, 1]], [[0, 0, 0], [0, 0, 0]]]


def test_functions_take_numbers_arrays_and_traced_values_alike(backend: Backend) -> None:
    assert float(ad.relu(-2.0)) == 0.0
    assert float(ad.logsumexp(2.0)) == 2.0
    program = ad.trace(lambda x: x + ad.relu(2.0) + ad.logsumexp(1.0), backend.asarray([1.0]))
    assert backend.to_numpy(program(backend.asarray([1.0]))).tolist() == [4.0]
    held = backend.asarray([-1.0, 5.0])
    program = ad.trace(lambda x: x * ad.relu(held), backend.asarray([1.0, 1.0]))
    assert backend.to_numpy(program(backend.asarray([2.0, 2.0]))).tolist() == [0.0, 10.0]


def test_stop_gradient_is_the_value_and_a_constant() -> None:
    value, gradient = ad.value_and_grad(lambda x: x * ad.stop_gradient(x * x))(3.0)
    assert (float(value), float(gradient)) == (27.0, 9.0)
    assert float(ad.hvp(lambda x: x * ad.stop_gradient(x * x), 3.0, 1.0)) == 0.0


NORMALISED = {
    "average_pool2d": lambda x: ad.average_pool2d(x, 2),
    "batch_norm": ad.batch_norm,
    "layer_norm": ad.layer_norm,
    "max_pool2d": lambda x: ad.max_pool2d(x, 3, stride=1, padding=1),
}


@pytest.mark.parametrize("name", NORMALISED)
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, bool])
def test_small_integers_do_not_overflow(name: str, dtype: Any) -> None:
    x = (200 * np.random.default_rng(0).random((3, 4, 4, 2))).astype(dtype)
    for of in (NORMALISED[name], ad.vmap(lambda a: NORMALISED[name](a[None]))):
        assert_allclose(of(x), of(x.astype(float)), rtol=1e-12)


@pytest.mark.parametrize("name", NORMALISED)
def test_half_precision_adds_up_in_single_precision(name: str) -> None:
    x = (300 + 20 * np.random.default_rng(0).standard_normal((4, 64, 64, 2))).astype(np.float16)
    found, expected = (NORMALISED[name](a) for a in (x, x.astype(float)))
    assert found.dtype == np.float16
    assert_allclose(found.astype(float), expected, rtol=2e-3, atol=2e-3)


MANY = np.full((5000, 2), 1.5)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: ad.vmap(np.sum, 1)(x),
        lambda x: ad.vmap(np.cumsum, 1)(x)[:, -1],
        lambda x: ad.at(x[:2])[np.zeros(5000, int)].add(x),
        lambda x: ad.logsumexp(x, 0),
        lambda x: ad.softmax(x, 0),
        lambda x: ad.log_softmax(x, 0),
        lambda x: ad.grad(lambda b: np.mean(x + b))(x[0]),
        lambda x: ad.grad(lambda b: np.mean(x[np.zeros(5000, int)] * b))(x[0]),
        lambda x: ad.grad(lambda x: np.mean(x[np.arange(10_000) % 2]))(x)[:2],
    ],
)
def test_half_precision_adds_up_many_rows(f: Any) -> None:
    """In half precision, 1 + 1 + … would end at 2048."""
    found = f(MANY.astype(np.float16))
    assert found.dtype == np.float16
    assert_allclose(found.astype(float), f(MANY), rtol=1e-3)


def test_softmax_of_half_precision_is_rounded_once() -> None:
    x = np.random.default_rng(0).standard_normal((4, 100)).astype(np.float16)
    assert_array_equal(ad.softmax(x), ad.softmax(x.astype(np.float32)).astype(np.float16))


image, kernel = np.ones((1, 4, 4, 2)), np.ones((3, 3, 2, 4))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: ad.conv2d(image[0], kernel),
            ArgumentException,
            r"x must be images \(n, height, width, channels\), got shape \(4, 4, 2\)",
        ),
        (
            lambda: ad.conv2d(image, kernel[:, :, :1]),
            ArgumentException,
            r"weight must have shape \(.*, 2, a multiple of 1\) for 1 groups and x of .*, got \(3, 3, 1, 4\)",
        ),
        (
            lambda: ad.conv2d(image, kernel, groups=2),
            ArgumentException,
            r"\(kernel height, kernel width, 1, a multiple of 2",
        ),
        (
            lambda: ad.conv2d(image, kernel, groups=0),
            ArgumentOutOfRangeException,
            "groups must be an int of at least 1, got 0",
        ),
        (
            lambda: ad.conv2d(image, kernel, groups=1.0),
            ArgumentOutOfRangeException,
            "groups must be an int .*, got 1.0",
        ),
        (
            lambda: ad.conv2d(image, kernel, padding=(1, 1)),
            ArgumentException,
            r"padding must be 'same', 'valid', an int or \(\(top, bottom\), \(left, right\)\), got \(1, 1\)",
        ),
        (lambda: ad.conv2d(image, kernel, padding=1.5), ArgumentException, "padding must be .*, got 1.5"),
        (lambda: ad.conv2d(image, kernel, padding=((1.0, 1), (1, 1))), ArgumentException, "padding must be .*, got "),
        (
            lambda: ad.conv2d(image, kernel, stride=1.5),
            ArgumentOutOfRangeException,
            "stride must be an int .*, got 1.5",
        ),
        (
            lambda: ad.conv2d(image, kernel, stride=(1.5, 1)),
            ArgumentOutOfRangeException,
            r"stride must be an int or a pair of ints of at least 1, got \(1.5, 1\)",
        ),
        (lambda: ad.max_pool2d(image, 2.0), ArgumentOutOfRangeException, "window must be an int .*, got 2.0"),
        (
            lambda: ad.conv2d(image, kernel, np.ones(3)),
            ArgumentException,
            r"bias must have shape \(4,\), one number per filter, got \(3,\)",
        ),
        (
            lambda: ad.conv2d(image, kernel, stride=0),
            ArgumentOutOfRangeException,
            "stride must be an int or a pair of ints of at least 1, got 0",
        ),
        (
            lambda: ad.conv2d(image, kernel, padding="full"),
            ArgumentException,
            r"padding must be 'same', 'valid', an int or \(\(top, bottom\), \(left, right\)\), got 'full'",
        ),
        (
            lambda: ad.conv2d(image, kernel, padding=-1),
            ArgumentOutOfRangeException,
            r"padding must be at least 0, got \(\(-1, -1\), \(-1, -1\)\)",
        ),
        (
            lambda: ad.conv2d(image[:, :2], kernel, padding="valid"),
            ArgumentException,
            r"window must be no larger than the \(padded\) image of \(2, 4\), got \(3, 3\)",
        ),
        (
            lambda: ad.max_pool2d(image, 5),
            ArgumentException,
            r"window must be no larger than the \(padded\) image of \(4, 4\), got \(5, 5\)",
        ),
        (
            lambda: ad.max_pool2d(image, (2, 0)),
            ArgumentOutOfRangeException,
            r"window must be an int or a pair of ints of at least 1, got \(2, 0\)",
        ),
        (
            lambda: ad.average_pool2d(image[0], 2),
            ArgumentException,
            r"x must be images \(n, height, width, channels\), got shape \(4, 4, 2\)",
        ),
        (lambda: ad.batch_norm(np.ones((0, 3))), ArgumentException, r"at least 2 elements .* got shape \(0, 3\)"),
        (lambda: ad.batch_norm(np.ones((1, 3))), ArgumentException, r"at least 2 elements .* got shape \(1, 3\)"),
        (lambda: ad.batch_norm(np.ones((1, 1, 3))), ArgumentException, r"at least 2 elements .* got shape \(1, 1, 3\)"),
        (lambda: ad.layer_norm(np.ones((3, 1))), ArgumentException, r"at least 2 elements .* got shape \(3, 1\)"),
        (lambda: ad.layer_norm(np.array(1.0)), ArgumentException, r"at least 2 elements .* got shape \(\)"),
        (lambda: ad.batch_norm(np.ones(3)), ArgumentException, r"at least 2 elements .* got shape \(3,\)"),
        (
            lambda: ad.batch_norm(np.ones((2, 3)), np.ones(2)),
            ArgumentException,
            r"shapes must broadcast together, got \(2, 3\) and \(2,\)",
        ),
        (
            lambda: ad.softmax(np.ones((2, 3)), 2),
            ArgumentException,
            "axis must be distinct axes of an array with 2 axes, got 2",
        ),
        (
            lambda: ad.logsumexp(np.ones((2, 0)), 1),
            ArgumentException,
            r"a maximum must have at least one element, got axes \(1,\) of shape \(2, 0\)",
        ),
        (lambda: ad.one_hot(np.ones(2), 3), ArgumentException, "indices must be integers, got dtype float64"),
        (lambda: ad.relu([1.0]), ArgumentException, "x must be an array or a number, got list"),  # type: ignore[arg-type]
        (lambda: ad.softmax(np.ones(2), 0, 1), TypeError, "too many positional arguments"),  # type: ignore[call-arg]
    ],
)
def test_what_does_not_fit_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
