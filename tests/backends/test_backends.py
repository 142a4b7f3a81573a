"""The backends against plain NumPy, method by method, with ``out`` and without; and their registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.special
from autodiff_cases import fold_reference, patches_reference
from numpy.testing import assert_allclose, assert_array_equal

from aidotnet_py.backends import (
    Backend,
    NumPyBackend,
    available_backends,
    backend_of,
    get_backend,
    register_backend,
)
from aidotnet_py.backends.protocol import ELEMENTWISE_NAMES
from aidotnet_py.exceptions import ArgumentException

UNARY = ["abs", "atan", "ceil", "cos", "cosh", "erf", "exp", "expm1", "floor", "isfinite", "log", "log1p", "negative"]
UNARY += ["relu", "sigmoid", "sign", "sin", "sinh", "softplus", "sqrt", "tan", "tanh"]
LOGICAL = ["logical_and", "logical_or", "logical_not"]
OTHERS: dict[str, Callable[..., Any]] = {
    "erf": scipy.special.erf,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.log1p(np.exp(x)),
}


def reference(name: str) -> Callable[..., Any]:
    return OTHERS.get(name) or getattr(np, name)


def with_and_without_out(backend: Backend, f: Callable[..., Any], *args: Any, wanted: Any) -> None:
    wanted = np.asarray(wanted)
    result = f(*args)
    out = backend.empty(wanted.shape, wanted.dtype)
    returned = f(*args, out=out)
    for found in (result, out, returned):
        assert backend.owns(found)
        assert backend.dtype_of(found) == wanted.dtype
        assert_allclose(backend.to_numpy(found), wanted, rtol=1e-14)
    # An `out` that is a view with strides of its own is written in place.
    buffer = backend.empty((*wanted.shape[::-1], 2), wanted.dtype)
    turned = backend.permute_dims(buffer, tuple(range(wanted.ndim, -1, -1)))
    view = backend.reshape(backend.index(turned, (slice(1, 2), *[slice(None)] * wanted.ndim)), wanted.shape)
    f(*args, out=view)
    assert_allclose(backend.to_numpy(buffer)[..., 1].T, wanted, rtol=1e-14)


@pytest.mark.parametrize("name", UNARY)
def test_elementwise_functions_of_one_array(backend: Backend, name: str) -> None:
    x = np.linspace(0.1, 2.0, 6).reshape(2, 3)
    f = backend.elementwise(name)
    with_and_without_out(backend, f, backend.asarray(x), wanted=reference(name)(x))


@pytest.mark.parametrize("name", [n for n in ELEMENTWISE_NAMES if n not in (*UNARY, *LOGICAL, "where")])
def test_elementwise_functions_of_two_arrays_or_a_number(backend: Backend, name: str) -> None:
    x, y = np.linspace(0.1, 2.0, 6), np.linspace(2.0, 0.1, 6)
    f = backend.elementwise(name)
    with_and_without_out(backend, f, backend.asarray(x), backend.asarray(y), wanted=reference(name)(x, y))
    with_and_without_out(backend, f, backend.asarray(x), 2.0, wanted=reference(name)(x, 2.0))
    with_and_without_out(backend, f, 2.0, backend.asarray(x), wanted=reference(name)(2.0, x))


def test_logical_functions_and_choice(backend: Backend) -> None:
    a, b = np.array([True, True, False]), np.array([True, False, False])
    with_and_without_out(backend, backend.elementwise("logical_not"), backend.asarray(a), wanted=~a)
    for name in ("logical_and", "logical_or"):
        f = backend.elementwise(name)
        with_and_without_out(backend, f, backend.asarray(a), backend.asarray(b), wanted=reference(name)(a, b))
    x, y = np.arange(3.0), -np.arange(3.0)
    where, mask = backend.elementwise("where"), backend.asarray(a)
    with_and_without_out(backend, where, mask, backend.asarray(x), backend.asarray(y), wanted=np.where(a, x, y))
    out = backend.empty((3,), np.float64)
    for operands in ((backend.asarray(x), 7.0), (7.0, backend.asarray(x)), (7.0, 8.0)):
        where(mask, *operands, out=out)
        plain = [v if isinstance(v, float) else x for v in operands]
        assert_array_equal(backend.to_numpy(out), np.where(a, *plain))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("gap", [2, 3, 8])
def test_functions_of_one_array_write_every_element_whatever_the_strides(dtype: str, gap: int) -> None:
    """np.negative of NumPy 2.4 did not, for x with a stride of 8 and out with gaps."""
    numpy = get_backend("numpy")
    for step in (4, 8, 16, -8):
        x = np.zeros(6 * abs(step), dtype)[::step]
        x[...] = [0, 1, -2, 3, -4, 5]
        for name in ("abs", "negative", "sign", "relu"):
            out = np.full(6 * gap, 77, dtype)[::gap]
            numpy.elementwise(name)(x, out=out)
            assert_array_equal(out, numpy.elementwise(name)(x.copy()))
            assert_array_equal(np.signbit(out), np.signbit(numpy.elementwise(name)(x.copy())))


@pytest.mark.parametrize("name", ELEMENTWISE_NAMES)
def test_every_elementwise_name_exists(backend: Backend, name: str) -> None:
    assert callable(backend.elementwise(name))


def test_elementwise_functions_may_write_over_their_operand(backend: Backend) -> None:
    """The executor lets an output take over the memory of an operand that ends."""
    x, y = np.linspace(0.1, 2.0, 6), np.linspace(2.0, 0.1, 6)
    for name in ELEMENTWISE_NAMES:
        if name in LOGICAL or name == "where":
            continue
        operands = (x,) if name in UNARY else (x, y)
        wanted = np.asarray(reference(name)(*operands))
        if wanted.dtype != np.float64:
            continue
        for place in range(len(operands)):
            arrays = [backend.asarray(v) for v in operands]
            backend.elementwise(name)(*arrays, out=arrays[place])
            assert_allclose(backend.to_numpy(arrays[place]), wanted, rtol=1e-14, err_msg=name)


def test_reductions(backend: Backend) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    array = backend.asarray(x)
    for axes in ((0,), (1, 2), (0, 1, 2)):
        for name in ("sum", "max"):
            f = getattr(backend, name)
            with_and_without_out(
                backend, lambda a, f=f, axes=axes, **o: f(a, axes, **o), array, wanted=getattr(x, name)(axes)
            )
    small = backend.asarray(np.array([100, 100], np.int8))
    assert backend.dtype_of(backend.sum(small, (0,))) == np.int8
    nan = backend.max(backend.asarray([1.0, float("nan")]), (0,))
    assert np.isnan(backend.to_numpy(nan))


def test_products(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 4, 5))
    with_and_without_out(backend, backend.matmul, backend.asarray(x), backend.asarray(y), wanted=x @ y)
    with_and_without_out(
        backend, backend.vecdot, backend.asarray(x), backend.asarray(2 * x), wanted=2 * (x * x).sum(-1)
    )


def test_cumulative_sums(backend: Backend) -> None:
    x = np.random.default_rng(0).normal(size=(3, 9, 2))
    for axis in range(3):
        f: Callable[..., Any] = lambda a, i=axis, **o: backend.cumulative_sum(a, i, **o)  # noqa: E731
        with_and_without_out(backend, f, backend.asarray(x), wanted=np.cumsum(x, axis))
        assert f(backend.asarray(x[:0])).shape == (0, 9, 2)
    whole = np.arange(-3, 4, dtype=np.int16)
    along: Callable[..., Any] = lambda a, **o: backend.cumulative_sum(a, 0, **o)  # noqa: E731
    with_and_without_out(backend, along, backend.asarray(whole), wanted=np.cumsum(whole, dtype=np.int16))


def test_linear_algebra(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform(-0.5, 0.5, (2, 4, 4)) + 4 * np.eye(4), rng.normal(size=(2, 4, 3))
    array = backend.asarray(a)
    with_and_without_out(backend, backend.solve, array, backend.asarray(b), wanted=np.linalg.solve(a, b))
    with_and_without_out(backend, backend.cholesky, array, wanted=np.linalg.cholesky(a))
    with_and_without_out(backend, backend.slogdet, backend.asarray(-a), wanted=np.stack(np.linalg.slogdet(-a), -1))
    turned = backend.permute_dims(array, (0, 2, 1))
    with_and_without_out(backend, backend.solve, turned, backend.asarray(b), wanted=np.linalg.solve(a.mT, b))


def test_concatenation_and_rows(backend: Backend) -> None:
    x, i = np.arange(12.0).reshape(4, 3), np.array([[3, 0], [0, 0]])
    arrays = [backend.asarray(x), backend.asarray(-x)]
    wanted = np.concatenate([x, -x], 1)
    with_and_without_out(backend, lambda a, **o: backend.concat(a, 1, **o), arrays, wanted=wanted)
    with_and_without_out(backend, backend.take, arrays[0], backend.asarray(i), wanted=x[i])
    out = backend.empty((5, 3), np.float64)
    backend.scatter_add(backend.asarray(x[i]), backend.asarray(i), out)
    assert_array_equal(backend.to_numpy(out), [3 * x[0], 0 * x[0], 0 * x[0], x[3], 0 * x[0]])


def test_the_order_of_the_last_axis(backend: Backend) -> None:
    x = np.array([[2.0, np.nan, -1.0, 2.0], [0.0, 1.0, -np.inf, np.inf], [1.0, 1.0, 1.0, 1.0]])
    wanted = np.array([[2, 0, 3, 1], [2, 0, 1, 3], [0, 1, 2, 3]])
    with_and_without_out(backend, backend.argsort, backend.asarray(x), wanted=wanted)
    assert backend.argsort(backend.asarray(np.zeros((2, 0)))).shape == (2, 0)


@pytest.mark.parametrize("place", [-1, 4])
def test_rows_out_of_range_are_refused_by_numpy(place: int) -> None:
    x, out = np.ones((4, 3)), np.empty((1, 3))
    with pytest.raises(IndexError, match=r"indices must be from 0 to 3|out of bounds"):
        get_backend("numpy").take(x, np.array([place]), out=out)


def test_windows_and_their_transpose(backend: Backend) -> None:
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 3))
    for window, stride in (((3, 2), (2, 1)), ((1, 1), (3, 3)), ((7, 6), (1, 1))):
        wanted = patches_reference(x, window, stride)
        f: Callable[..., Any] = lambda a, w=window, s=stride, **o: backend.patches(a, w, s, **o)  # noqa: E731
        with_and_without_out(backend, f, backend.asarray(x), wanted=wanted)
        turned = backend.permute_dims(backend.asarray(x.transpose(3, 1, 2, 0)), (3, 1, 2, 0))
        assert_array_equal(backend.to_numpy(f(turned)), wanted)
        out = backend.empty(x.shape, np.float64)
        backend.fold(backend.asarray(wanted), stride, out)
        assert_allclose(backend.to_numpy(out), fold_reference(wanted, x.shape[1:3], stride), rtol=1e-14)


def test_arrays_are_made_copied_converted_and_viewed(backend: Backend) -> None:
    x = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    array = backend.asarray(x)
    assert backend.strides_of(array) == (3, 1)
    x[...] = 9.0
    assert backend.to_numpy(array).tolist() == [[0, 1, 2], [3, 4, 5]]
    copy = backend.asarray(backend.permute_dims(array, (1, 0)))
    assert backend.strides_of(copy) == (2, 1)
    backend.copyto(array, 0.0)
    assert backend.to_numpy(copy).tolist() == [[0, 3], [1, 4], [2, 5]]
    view = backend.reshape(backend.index(copy, (slice(1, 3), slice(0, 2))), (4,))
    backend.copyto(view, 7.0)
    assert backend.to_numpy(copy).tolist() == [[0, 3], [7, 7], [7, 7]]
    with_and_without_out(
        backend,
        lambda a, **o: backend.astype(a, np.int32, **o),
        copy,
        wanted=np.array([[0, 3], [7, 7], [7, 7]], np.int32),
    )
    wide = backend.broadcast_to(backend.asarray([[1.0], [2.0]]), (2, 3))
    assert backend.strides_of(wide)[1] == 0
    assert backend.dtype_of(backend.asarray([1, 2], np.float32)) == np.float32
    assert backend.empty((2, 0), np.int64).shape == (2, 0)
    assert backend.index(backend.asarray(3.0), ()).shape == ()
    with backend.errors_ignored():
        backend.elementwise("log")(backend.asarray([0.0, -1.0]))
    backend.synchronize()


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
