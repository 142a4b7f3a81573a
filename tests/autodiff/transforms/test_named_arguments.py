"""Arguments by name through every transform and Program; derivatives in several arguments at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from aidotnet_py import autodiff as ad
from aidotnet_py.backends import Backend

x, y, w = np.array([1.0, 2.0, 3.0]), np.array([0.5, -1.0, 2.0]), np.array([2.0, 3.0, 5.0])


def scaled(a: Any, b: Any, *, scale: Any = 1.0, weights: Any) -> Any:
    """scale Σ weights a² b, with derivatives 2 scale weights a b in a and scale weights a² in b."""
    return np.sum(scale * weights * a**2 * b)


@pytest.mark.parametrize("argument", [(0, 1), [0, 1], (-2, 1), (np.int64(0), -1)])
def test_a_tuple_of_arguments_gives_a_tuple_of_gradients(argument: Any) -> None:
    value, gradients = ad.value_and_grad(scaled, argument)(x, y, weights=w)
    assert float(value) == np.sum(w * x**2 * y)
    assert isinstance(gradients, tuple)
    assert_array_equal(gradients[0], 2 * w * x * y)
    assert_array_equal(gradients[1], w * x**2)


def test_gradients_come_in_the_order_asked_for_and_nested_like_their_arguments() -> None:
    def f(a: Any, b: Any, c: Any) -> Any:
        return np.sum(a["u"] * b) + 3.0 * c * np.sum(a["v"][0])

    tree = {"u": x, "v": [y]}
    of_c, of_a = ad.grad(f, (2, 0))(tree, w, 2.0)
    assert float(of_c) == 3.0 * y.sum()
    assert_array_equal(of_a["u"], w)
    assert_array_equal(of_a["v"][0], np.full(3, 6.0))
    (alone,) = ad.grad(f, (1,))(tree, w, 2.0)
    assert_array_equal(alone, x)


def test_derivatives_hold_arguments_by_name_fixed(backend: Backend) -> None:
    a, b, weights, t = (backend.asarray(v) for v in (x, y, w, np.array([1.0, 0.0, -1.0])))

    def check(found: Any, wanted: Any) -> None:
        assert_allclose(backend.to_numpy(found), wanted, rtol=1e-14)

    named = {"scale": 2.0, "weights": weights}
    direction = np.array([1.0, 0.0, -1.0])
    check(ad.grad(scaled)(a, b, **named), 4 * w * x * y)
    check(ad.jvp(scaled, (a, b), (t, b), **named)[1], np.sum(4 * w * x * y * direction) + np.sum(2 * w * x**2 * y))
    value, pullback = ad.vjp(scaled, a, b, **named)
    check(value, 2 * np.sum(w * x**2 * y))
    of_a, of_b = pullback(backend.asarray(1.0))
    check(of_a, 4 * w * x * y)
    check(of_b, 2 * w * x**2)
    check(ad.hvp(lambda c, **k: scaled(c, b, **k), a, t, **named), 4 * w * y * direction)
    value, linear = ad.linearize(lambda c, **k: scaled(c, b, **k), a, **named)
    check(linear(t), np.sum(4 * w * x * y * direction))


def test_names_need_not_be_arrays_where_they_are_fixed() -> None:
    def power(a: Any, *, kind: str, deep: bool = False) -> Any:
        return np.sum(a**3 if kind == "cube" and deep else a)

    assert_array_equal(ad.grad(power)(x, kind="cube", deep=True), 3 * x**2)
    assert_array_equal(ad.grad(power)(x, kind="plain"), np.ones(3))


def test_vmap_maps_arguments_by_name_along_their_first_axis(backend: Backend) -> None:
    rows = np.stack([w, 2 * w])
    a, weights, b = (backend.asarray(v) for v in (np.stack([x, -x], 1), rows, y))
    found = ad.vmap(lambda c, d, *, weights: scaled(c, d, weights=weights), in_axes=(1, None))(a, b, weights=weights)
    assert_allclose(backend.to_numpy(found), [np.sum(w * x**2 * y), 2 * np.sum(w * x**2 * y)], rtol=1e-14)
    alone = ad.vmap(lambda *, weights: np.sum(weights))(weights=weights)
    assert_allclose(backend.to_numpy(alone), rows.sum(1), rtol=1e-14)


def test_a_program_takes_arguments_by_the_names_of_its_examples(backend: Backend) -> None:
    a, b, weights = (backend.asarray(v) for v in (x, y, w))
    program = ad.trace(scaled, a, b, weights=weights, scale=2.0)
    wanted = 2 * np.sum(w * x**2 * y)
    assert_allclose(backend.to_numpy(program(a, b, weights=weights, scale=2.0)), wanted, rtol=1e-14)
    assert_allclose(backend.to_numpy(program(a, b, scale=-1.0, weights=weights)), -wanted / 2, rtol=1e-14)
    curved = ad.grad(lambda c: program(c, b, scale=2.0, weights=weights))(a)
    assert_allclose(backend.to_numpy(curved), 4 * w * x * y, rtol=1e-14)
    tree = ad.trace(lambda *, p: p["u"] * p["v"][0], p={"u": a, "v": [b]})
    assert_allclose(backend.to_numpy(tree(p={"u": b, "v": [weights]})), y * w, rtol=1e-14)


def test_names_of_the_transforms_own_arguments_are_free_for_f() -> None:
    def f(a: Any, *, function: Any, named: Any) -> Any:
        return np.sum(a * function * named)

    assert ad.trace(f, x, function=y, named=w)(x, function=y, named=w) == np.sum(x * y * w)
    assert_array_equal(ad.vjp(lambda a, f: a * f, x, f=w)[1](np.ones(3))[0], w)
    assert_array_equal(ad.grad(lambda a, argument: np.sum(a * argument))(x, argument=w), w)
    assert ad.trace(lambda a, self: np.sum(a * self), x, self=w)(x, self=w) == np.sum(x * w)

    def cubes(a: Any, **named: Any) -> Any:
        (factor,) = named.values()
        return np.sum(factor * a**3)

    for name in ("f", "x", "v"):
        assert_array_equal(ad.hvp(cubes, x, y, **{name: w}), 6 * w * x * y)
    for name in ("f", "primals", "tangents"):
        assert_allclose(ad.jvp(cubes, (x,), (y,), **{name: w})[1], np.sum(3 * w * x**2 * y))
    for name in ("f", "x"):
        assert_allclose(ad.linearize(cubes, x, **{name: w})[1](y), np.sum(3 * w * x**2 * y))


def test_names_of_outer_traced_values_are_differentiated_by_the_outer_transform() -> None:
    def outer(s: Any) -> Any:
        return np.sum(ad.grad(scaled)(x, y, scale=s * s, weights=w))

    assert float(ad.grad(outer)(3.0)) == 6.0 * np.sum(2 * w * x * y)
