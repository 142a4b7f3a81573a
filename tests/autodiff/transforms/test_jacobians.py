"""Jacobians and Hessians against closed forms, rows of `vjp` and products of `hvp`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from amounts import many
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from aidotnet_py import autodiff as ad
from aidotnet_py.backends import Backend
from aidotnet_py.exceptions import ArgumentException

lengths = st.lists(st.integers(0, 3), max_size=2).map(tuple)


@pytest.mark.numpy_first
@given(out=lengths, shape=lengths, seed=st.integers(0, 2**32 - 1))
@settings(max_examples=many(15))
def test_the_jacobian_of_a_linear_function_is_its_tensor(backend: Backend, out: Any, shape: Any, seed: int) -> None:
    """In forward mode and in reverse mode, as the sizes have it."""
    rng = np.random.default_rng(seed)
    tensor = rng.normal(size=(*out, *shape))
    held, point = backend.asarray(tensor), backend.asarray(rng.normal(size=shape))

    def f(x: Any, *, by: Any) -> Any:
        return np.tensordot(by, np.sin(x) - 1.0, len(shape)) if shape else by * (np.sin(x) - 1.0)

    found = ad.jacobian(f)(point, by=held)
    assert found.shape == (*out, *shape)
    assert_allclose(backend.to_numpy(found), tensor * np.cos(backend.to_numpy(point)), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("rows", [1, 20])
def test_results_and_arguments_are_nested(rows: int) -> None:
    x, y = np.arange(1.0, 4.0), np.arange(8.0).reshape(4, 2)

    def f(tree: Any, z: Any) -> Any:
        return {"u": np.sum(tree["x"]) * tree["y"], "v": [np.broadcast_to(z * tree["x"], (rows, 3))]}

    tree = {"x": x, "y": y}
    found = ad.jacobian(f)(tree, 2.0)
    assert_array_equal(found["u"]["x"], np.broadcast_to(y[..., None], (4, 2, 3)))
    assert_array_equal(found["u"]["y"], 6.0 * np.eye(8).reshape(4, 2, 4, 2))
    assert_array_equal(found["v"][0]["x"], np.broadcast_to(2.0 * np.eye(3), (rows, 3, 3)))
    assert_array_equal(found["v"][0]["y"], np.zeros((rows, 3, 4, 2)))
    of_z, of_tree = ad.jacobian(f, (1, 0))(tree, 2.0)["v"][0]
    assert_array_equal(of_z, np.broadcast_to(x, (rows, 3)))
    assert_array_equal(of_tree["x"], found["v"][0]["x"])


def quartic(x: Any, y: Any, *, scale: Any = 1.0) -> Any:
    return scale * np.sum(x**3) * np.sum(y**2)


def test_hessians_have_their_closed_form(backend: Backend) -> None:
    x, y = np.array([1.0, 2.0, -1.0]), np.array([[0.5], [2.0]])
    arrays = backend.asarray(x), backend.asarray(y)

    def close(found: Any, wanted: Any) -> None:
        assert_allclose(backend.to_numpy(found), wanted, rtol=1e-13)

    close(ad.hessian(quartic)(*arrays, scale=2.0), 2.0 * np.diag(6 * x) * np.sum(y**2))
    (xx, xy), (yx, yy) = ad.hessian(quartic, (0, 1))(*arrays)
    close(xx, np.diag(6 * x) * np.sum(y**2))
    close(xy, np.multiply.outer(3 * x**2, 2 * y))
    close(yx, np.multiply.outer(2 * y, 3 * x**2))
    close(yy, 2.0 * np.sum(x**3) * np.eye(2).reshape(2, 1, 2, 1))
    tree = ad.hessian(lambda t: quartic(t["x"], t["y"]))({"x": arrays[0], "y": arrays[1]})
    close(tree["y"]["x"], np.multiply.outer(2 * y, 3 * x**2))


def test_they_nest_in_other_transforms() -> None:
    x, v = np.array([0.3, -0.7]), np.array([1.0, 2.0])

    def f(a: Any) -> Any:
        return np.sin(a[0]) * np.exp(a[1])

    assert_allclose(ad.hessian(f)(x) @ v, ad.hvp(f, x, v), rtol=1e-14)
    assert_allclose(ad.jacobian(ad.grad(f))(x), ad.hessian(f)(x), rtol=1e-14)
    third = ad.jacobian(ad.hessian(f))(x)
    assert_allclose(third @ v, ad.jvp(ad.hessian(f), (x,), (v,))[1], rtol=1e-13)
    assert third[0, 0, 0] == pytest.approx(-np.cos(0.3) * np.exp(-0.7), rel=1e-14)
    rows = np.stack([x, v, -x])
    assert_allclose(ad.vmap(ad.hessian(f))(rows), np.stack([ad.hessian(f)(row) for row in rows]), rtol=1e-14)
    assert_allclose(ad.trace(ad.hessian(f), x)(v), ad.hessian(f)(v), rtol=1e-14)


def test_a_narrow_function_is_differentiated_in_reverse_and_a_wide_one_forwards() -> None:
    wide, narrow = np.ones((3, 40)), np.ones(40)
    reverse = ad.trace(ad.jacobian(lambda x: wide @ np.tanh(x)), narrow)
    forward = ad.trace(ad.jacobian(lambda x: np.tanh(x) @ wide), np.ones(3))
    for program in (reverse, forward):
        # Three vectors of forty numbers, not forty.
        assert max(e.output.type.size for e in program.equations) < 40 * 40


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ad.jacobian(1.0), "f must be a function, got float"),  # type: ignore[arg-type]
        (lambda: ad.jacobian(np.sin, "x"), "argument must be an int, or a tuple of ints"),  # type: ignore[arg-type]
        (lambda: ad.jacobian(lambda x: x > 0)(1.0), r"must return floating values to have a Jacobian, got bool\[\]"),
        (lambda: ad.hessian(np.sin)(np.ones(2)), "must return one floating scalar"),
        (lambda: ad.hessian(np.sum)(np.arange(2)), r"arguments\[0\] must have a floating dtype"),
    ],
)
def test_what_has_no_jacobian_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArgumentException, match=message):
        call()


def test_of_no_arguments_there_are_no_derivatives() -> None:
    assert ad.jacobian(lambda t, x: [x, x])({}, 1.0) == [{}, {}]
    assert ad.hessian(lambda t, x: x)({}, 1.0) == {}
