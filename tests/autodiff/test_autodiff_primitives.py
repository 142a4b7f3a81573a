"""Every primitive and function: values, derivatives to the third order, batching and float32, on one table of cases."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import pytest
from amounts import many
from autodiff_cases import CASES, Case, all_primitives
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from aidotnet_py import autodiff as ad
from aidotnet_py.autodiff.primitive import Primitive
from aidotnet_py.backends import Backend, get_backend

SMOOTH = [case for case in CASES if case.smooth]
# The default tests have each function in one form by the first word of its name, the slow ones those that follow too.
_FIRST = {re.split("[ ,]", case.name)[0]: case.name for case in reversed(CASES)}
FORMS = [pytest.param(case, marks=() if case.name in _FIRST.values() else pytest.mark.slow) for case in CASES]
every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_form = pytest.mark.parametrize("case", FORMS, ids=str)
every_smooth_case = pytest.mark.parametrize("case", SMOOTH, ids=str)
every_smooth_form = pytest.mark.parametrize("case", [form for form in FORMS if form.values[0].smooth], ids=str)


def shapes(case: Case) -> st.SearchStrategy[tuple[int, ...]]:
    """The first example, which a failure also shrinks to, has the most axes and is the longest along each."""
    lengths = st.integers(case.least, 3).map(lambda n: 3 + case.least - n)
    axes = st.integers(*case.axes).map(lambda n: sum(case.axes) - n)
    return axes.flatmap(lambda n: st.tuples(*[lengths] * n))


def arguments(case: Case, seed: int, shape: tuple[int, ...]) -> tuple[np.random.Generator, list[Any]]:
    rng = np.random.default_rng(seed)
    return rng, case.draw(rng, shape)


def floating(args: Sequence[Any]) -> list[int]:
    return [i for i, a in enumerate(args) if a.dtype.kind == "f"]


def of_floats(case: Case, args: Sequence[Any], put: Callable[[Any], Any] = np.asarray) -> Callable[..., Any]:
    """The function of its floating arguments alone, the others closed over."""
    places = floating(args)
    held = [put(a) for a in args]

    def function(*floats: Any) -> Any:
        full = list(held)
        for place, value in zip(places, floats, strict=True):
            full[place] = value
        return case.function(*full)

    return function


def seeds() -> st.SearchStrategy[int]:
    return st.integers(0, 2**32 - 1)


@every_case
@given(data=st.data(), seed=seeds())
@settings(max_examples=many(2))
def test_values_types_and_shapes_are_those_of_numpy(case: Case, backend: Backend, data: Any, seed: int) -> None:
    _, args = arguments(case, seed, data.draw(shapes(case)))
    wanted = np.asarray(case.reference(*args))
    arrays = [backend.asarray(a) for a in args]
    result = ad.trace(case.function, *arrays)(*arrays)
    assert backend.owns(result)
    assert (result.shape, backend.dtype_of(result)) == (wanted.shape, wanted.dtype)
    assert_allclose(backend.to_numpy(result), wanted, rtol=1e-13, atol=1e-13)


# Central differences of order 8: their error is h⁸ f⁽⁹⁾ / 630 and rounding of about eps |f| / h.
STENCIL = {1: 4 / 5, 2: -1 / 5, 3: 4 / 105, 4: -1 / 280}
STEP = 2.0**-8


def difference(at: dict[int, float]) -> float:
    return sum(c * (at[k] - at[-k]) for k, c in STENCIL.items()) / STEP


@every_smooth_form
@given(data=st.data(), seed=seeds())
@settings(max_examples=many(1))
def test_three_derivatives_along_a_line_agree_with_differences(case: Case, data: Any, seed: int) -> None:
    """Each order against differences of the one before it, the first against those of NumPy's values."""
    rng, args = arguments(case, seed, data.draw(shapes(case)))
    places = floating(args)
    points = [args[i] for i in places]
    lines = [np.asarray(rng.uniform(-1, 1, p.shape)) for p in points]
    weights = np.asarray(rng.uniform(-1, 1, np.shape(case.reference(*args))))
    f = of_floats(case, args)

    def value(t: Any, *xs: Any) -> Any:
        return np.sum(f(*(x + t * v for x, v in zip(xs, lines, strict=True))) * weights)

    def along(g: Callable[..., Any]) -> Callable[..., Any]:
        """What g gives, in a flat list, and after it the derivatives of that."""

        def with_derivatives(t: Any, *xs: Any) -> list[Any]:
            values, derivatives = ad.jvp(lambda s: g(s, *xs), (t,), (1.0,))
            return [*values, *derivatives]

        return with_derivatives

    in_turn = along(along(along(lambda t, *xs: [value(t, *xs)])))
    program = ad.trace(in_turn, 0.0, *points)
    steps = list(range(-4, 5))
    # Of the order 0, 1, 1, 2, 1, 2, 2 and 3.
    orders = {k: [float(y) for y in itemgetter(0, 1, 3, 7)(program(k * STEP, *points))] for k in steps}

    def reference(k: int) -> float:
        moved = list(args)
        for i, p, v in zip(places, points, lines, strict=True):
            moved[i] = p + k * STEP * v
        return float(np.sum(case.reference(*moved) * weights))

    before = {k: reference(k) for k in steps}
    for order in (1, 2, 3):
        scale = 1 + max(map(abs, before.values())) + abs(orders[0][order])
        assert orders[0][order] == pytest.approx(difference(before), abs=1e-9 * scale), f"order {order}"
        before = {k: orders[k][order] for k in steps}


def dot(xs: Sequence[Any], ys: Sequence[Any]) -> Any:
    return sum((np.sum(x * y) for x, y in zip(xs, ys, strict=True)), np.float64(0.0))


@pytest.mark.slow
@every_smooth_case
@given(data=st.data(), seed=seeds())
@settings(max_examples=2)
def test_reverse_and_forward_mode_agree_to_the_third_order(case: Case, data: Any, seed: int) -> None:
    rng, args = arguments(case, seed, data.draw(shapes(case)))
    points = [args[i] for i in floating(args)]
    v = [np.asarray(rng.uniform(-1, 1, p.shape)) for p in points]
    weights = np.asarray(rng.uniform(-1, 1, np.shape(case.reference(*args))))
    f = of_floats(case, args)

    def value(xs: Any) -> Any:
        return np.sum(f(*xs) * weights)

    def forward(g: Callable[..., Any]) -> Callable[..., Any]:
        return lambda xs: ad.jvp(g, (xs,), (v,))[1]

    gradient = ad.grad(value)
    over = {
        "forward of reverse": ad.hvp(value, points, v),
        "reverse of forward": ad.grad(forward(value))(points),
        "reverse of reverse": ad.grad(lambda xs: dot(gradient(xs), v))(points),
    }
    tangent, pulled = ad.jvp(f, points, v)[1], ad.vjp(f, *points)[1](weights)
    assert_allclose(dot(pulled, v), np.sum(tangent * weights), rtol=1e-12, atol=1e-12)
    for x, y in zip(gradient(points), pulled, strict=True):
        assert_allclose(x, y, rtol=1e-12, atol=1e-13)
    for name, product in over.items():
        for x, y in zip(product, over["forward of reverse"], strict=True):
            assert_allclose(x, y, rtol=1e-11, atol=1e-11, err_msg=name)
    thirds = forward(forward(gradient))(points), ad.grad(forward(forward(value)))(points)
    for x, y in zip(*thirds, strict=True):
        assert_allclose(x, y, rtol=1e-10, atol=1e-10)


@every_smooth_form
def test_derivatives_on_the_strict_backend_are_those_on_numpy(case: Case) -> None:
    strict = get_backend("strict")
    rng, args = arguments(case, 0, (2, 3)[: case.axes[1]])
    points = [args[i] for i in floating(args)]
    v = [np.asarray(rng.uniform(-1, 1, p.shape)) for p in points]
    weights = np.asarray(rng.uniform(-1, 1, np.shape(case.reference(*args))))

    def derivatives(put: Callable[[Any], Any]) -> list[Any]:
        f = of_floats(case, args, put)
        w = put(weights)

        def value(xs: Any) -> Any:
            return np.sum(f(*xs) * w)

        xs, vs = [put(p) for p in points], [put(t) for t in v]
        return [*ad.grad(value)(xs), *ad.hvp(value, xs, vs)]

    for x, y in zip(derivatives(strict.asarray), derivatives(np.asarray), strict=True):
        assert strict.owns(x)
        assert_allclose(strict.to_numpy(x), y, rtol=1e-12, atol=1e-13)


def batch_of(rng: np.random.Generator, a: Any, size: int, axis: int | None) -> Any:
    """Variants of an array along a new axis, each within the domain of the first."""
    if axis is None:
        return a
    variants = [np.roll(a, k) * (1 - 0.01 * k) if a.dtype.kind == "f" else np.roll(a, k) for k in range(size)]
    return np.stack(variants, axis)


def element(a: Any, axis: int | None, k: int) -> Any:
    return a if axis is None else np.take(a, k, axis)


@every_form
@given(data=st.data(), seed=seeds())
@settings(max_examples=many(2))
def test_vmap_is_a_loop(case: Case, data: Any, seed: int) -> None:
    rng, args = arguments(case, seed, data.draw(shapes(case)))
    size = data.draw(st.integers(1, 3))
    axes = [data.draw(st.none() | st.integers(-a.ndim - 1, a.ndim)) for a in args]
    if all(a is None for a in axes):
        axes[-1] = 0
    stacked = [batch_of(rng, a, size, axis) for a, axis in zip(args, axes, strict=True)]
    result = ad.vmap(case.function, in_axes=axes)(*stacked)
    loop = [case.reference(*(element(a, axis, k) for a, axis in zip(stacked, axes, strict=True))) for k in range(size)]
    assert result.dtype == np.asarray(loop[0]).dtype
    assert_allclose(result, np.stack(loop), rtol=1e-13, atol=1e-13)
    outer = [batch_of(rng, a, 2, 0) for a in stacked]
    nested = ad.vmap(ad.vmap(case.function, in_axes=axes))(*outer)
    assert_allclose(nested[0], result, rtol=1e-13, atol=1e-13)
    empty = [a if axis is None else np.moveaxis(a, axis, 0)[:0] for a, axis in zip(stacked, axes, strict=True)]
    of_none = ad.vmap(case.function, in_axes=[None if axis is None else 0 for axis in axes])(*empty)
    assert of_none.shape == (0, *result.shape[1:])


@pytest.mark.slow
@every_smooth_case
@given(data=st.data(), seed=seeds())
@settings(max_examples=2)
def test_vmap_and_derivatives_nest_in_any_order(case: Case, data: Any, seed: int) -> None:
    rng, args = arguments(case, seed, data.draw(shapes(case)))
    places = floating(args)
    axes = [data.draw(st.sampled_from([None, 0])) for _ in places]
    axes[0] = 0
    points = [batch_of(rng, args[i], 2, axis) for i, axis in zip(places, axes, strict=True)]
    lines = [np.asarray(rng.uniform(-1, 1, p.shape)) for p in points]
    f = of_floats(case, args)
    weights = np.asarray(rng.uniform(-1, 1, np.shape(case.reference(*args))))

    def value(*xs: Any) -> Any:
        return np.sum(f(*xs) * weights)

    def products(xs: Any, vs: Any) -> Any:
        return ad.hvp(lambda ys: value(*ys), xs, vs)

    def part(values: Sequence[Any], k: int) -> list[Any]:
        return [element(x, axis, k) for x, axis in zip(values, axes, strict=True)]

    gradients = ad.vmap(lambda *xs: ad.grad(lambda ys: value(*ys))(xs), in_axes=axes)(*points)
    curved = ad.vmap(lambda *xv: products(xv[: len(xv) // 2], xv[len(xv) // 2 :]), in_axes=axes * 2)(*points, *lines)
    for k in range(2):
        looped = ad.grad(lambda ys: value(*ys))(part(points, k))
        for x, y in zip(gradients, looped, strict=True):
            assert_allclose(x[k], y, rtol=1e-12, atol=1e-13)
        for x, y in zip(curved, products(part(points, k), part(lines, k)), strict=True):
            assert_allclose(x[k], y, rtol=1e-11, atol=1e-12)
    outer = ad.grad(lambda xs: np.sum(ad.vmap(value, in_axes=axes)(*xs)))(points)
    for x, y, axis in zip(outer, gradients, axes, strict=True):
        assert_allclose(x, y if axis == 0 else y.sum(0), rtol=1e-12, atol=1e-12)


def jacobian(f: Callable[[Any], Any], x: np.ndarray) -> np.ndarray:
    return np.moveaxis(ad.vmap(lambda v: ad.jvp(f, (x,), (v,))[1])(np.eye(x.size)), 0, -1)


@pytest.mark.slow
@every_smooth_case
@given(seed=seeds())
@settings(max_examples=2)
def test_float32_stays_within_its_rounding_errors(case: Case, seed: int) -> None:
    """Error ≤ k u (|y| + |J| |x| + 1/8): k roundings of the result, the inputs, or a term of order 1/8.

    u is half of eps; k counts the equations and, for sums, the elements that one of them adds up.
    """
    _, args = arguments(case, seed, (2, 3)[: case.axes[1]])
    places = floating(args)
    narrow = [args[i].astype(np.float32) for i in places]
    shapes_, sizes = [a.shape for a in narrow], [a.size for a in narrow]
    flat = np.concatenate([a.ravel().astype(np.float64) for a in narrow])
    f = of_floats(case, args)

    def value(x: Any) -> Any:
        parts = np.cumsum([0, *sizes])
        xs = [x[a:b].reshape(s) for a, b, s in zip(parts, parts[1:], shapes_, strict=False)]
        return np.sum(f(*xs))

    for g in (value, ad.grad(value)):
        wide = ad.trace(g, flat)(flat)
        result = ad.trace(g, flat.astype(np.float32))(flat.astype(np.float32))
        if case.name != "float_power":
            assert result.dtype == np.float32
        condition = np.abs(jacobian(g, flat)) @ np.abs(flat)
        k = len(ad.trace(g, flat).equations) + max(sizes)
        bound = k * np.finfo(np.float32).eps / 2 * (np.abs(wide) + condition + 0.125)
        assert np.all(np.abs(result - wide) <= bound)


def test_every_primitive_has_a_case() -> None:
    used: set[Primitive] = set()
    for case in CASES:
        _, args = arguments(case, 0, (2, 3)[: case.axes[1]])
        used |= {e.primitive for e in ad.trace(case.function, *args).equations}
    assert len(all_primitives()) > 40
    assert {p.name for p in all_primitives() - used} == set()
