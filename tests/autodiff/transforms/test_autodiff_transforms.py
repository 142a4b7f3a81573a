"""The transforms: their errors, how they nest, and that no perturbation is taken for another."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from amounts import many
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from random_programs import a_type, random_program

from aidotnet_py import autodiff as ad
from aidotnet_py.autodiff.tracing.emission import inline
from aidotnet_py.backends import Backend
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException, InvalidOperationException

ones = np.ones(3)


def product(a: Any, b: Any) -> Any:
    return np.sum(a * b)


def sum_w(tree: Any) -> Any:
    return sum(np.sum(leaf) for leaf in tree["w"])


def derivative(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: ad.jvp(f, (x,), (1.0,))[1]


MODES = {"forward": derivative, "reverse": ad.grad}


@pytest.mark.parametrize("outer", MODES)
@pytest.mark.parametrize("inner", MODES)
def test_perturbations_are_not_confused(outer: str, inner: str) -> None:
    """d/dx [x · d/dy (x + y)] is 1, not 2 (Siskind & Pearlmutter 2005), and its kin."""
    d, e = MODES[outer], MODES[inner]
    assert float(d(lambda x: x * e(lambda y: x + y)(1.0))(1.0)) == 1.0
    assert float(d(lambda x: x * e(lambda y: x * y)(2.0))(3.0)) == 6.0
    assert float(d(lambda x: e(lambda y: e(lambda z: x * y * z * z)(1.0))(x))(5.0)) == 2.0
    assert float(d(lambda x: e(lambda y: x)(x))(1.0)) == 0.0
    # A derivative at a point that depends on x, of a function that depends on x.
    found = d(lambda x: e(lambda y: np.sin(x * y))(x * x))(0.7)
    x = 0.7
    assert float(found) == pytest.approx(math.cos(x**3) - 3 * x**3 * math.sin(x**3), rel=1e-14)


def test_a_derivative_under_a_vmap_sees_only_its_own_element() -> None:
    x = np.arange(1.0, 4.0)
    found = ad.vmap(lambda a: ad.grad(lambda b: ad.vmap(lambda c: a * b * c)(x)[0])(2.0))(x)
    assert found.tolist() == (x * x[0]).tolist()
    outer = ad.grad(lambda a: np.sum(ad.vmap(lambda c: ad.grad(lambda b: a * b**2 * c)(a))(x)))(3.0)
    assert float(outer) == pytest.approx(4 * 3.0 * x.sum(), rel=1e-15)


def test_derivatives_of_sine_nest_to_the_sixth_order() -> None:
    for mode in MODES.values():
        f: Callable[[Any], Any] = np.sin
        for k in range(1, 7):
            f = mode(f)
            assert float(f(0.3)) == pytest.approx(math.sin(0.3 + k * math.pi / 2), abs=1e-15)


def test_closures_over_outer_traced_values() -> None:
    def f(x: Any) -> Any:
        y = np.sin(x)
        inner = ad.grad(lambda z: np.sum(np.exp(y * z)))
        linear = ad.linearize(lambda z: z * y, x)[1]
        pulled = ad.vjp(lambda z: z * y * x, x)[1](ones)[0]
        return np.sum(inner(x) + linear(x) + pulled)

    x = np.array([0.3, 0.5, 0.7])
    s = np.sin(x)
    assert float(ad.trace(f, x)(x)) == pytest.approx(np.sum(s * np.exp(s * x) + 2 * x * s), rel=1e-14)
    slopes = [(np.sum(f_at(f, x, k, 1e-5)) - np.sum(f_at(f, x, k, -1e-5))) / 2e-5 for k in range(3)]
    assert_allclose(ad.grad(f)(x), slopes, rtol=1e-8)


def f_at(f: Callable[[Any], Any], x: Any, k: int, h: float) -> Any:
    moved = x + h * np.eye(3)[k]
    return ad.trace(f, moved)(moved)


def test_pullbacks_and_linear_maps_can_be_used_again_and_inside_other_transforms(backend: Backend) -> None:
    x = backend.asarray([0.1, 0.2])
    value, pullback = ad.vjp(np.sin, x)
    _, linear = ad.linearize(np.sin, x)
    c = backend.asarray([1.0, 2.0])
    wanted = np.cos([0.1, 0.2]) * [1.0, 2.0]
    for _ in range(2):
        assert_allclose(backend.to_numpy(pullback(c)[0]), wanted, rtol=1e-15)
        assert_allclose(backend.to_numpy(linear(c)), wanted, rtol=1e-15)
    assert_allclose(backend.to_numpy(value), np.sin([0.1, 0.2]), rtol=1e-15)
    through = ad.grad(lambda t: np.sum(linear(t) + pullback(t)[0]))(c)
    assert_allclose(backend.to_numpy(through), 2 * np.cos([0.1, 0.2]), rtol=1e-15)


def test_a_linear_map_keeps_its_point_and_outlives_the_trace_it_was_made_in() -> None:
    x = np.array([0.1, 0.2])
    kept: list[Any] = [ad.linearize(np.sin, x)[1], ad.vjp(np.sin, x)[1]]
    ad.trace(lambda t: (kept.append(ad.vjp(np.sin, np.array([0.1, 0.2]))[1]), t)[1], 1.0)
    x[...] = 9.0
    for linear in kept:
        found = linear(np.ones(2))
        assert_allclose(found[0] if isinstance(found, tuple) else found, np.cos([0.1, 0.2]), rtol=1e-15)

    def leaves_its_map(a: Any) -> Any:
        kept.append(ad.vjp(np.sin, a)[1])
        return a

    ad.trace(leaves_its_map, x)
    with pytest.raises(InvalidOperationException, match="used after its trace had ended"):
        kept[-1](np.ones(2))


def test_linearize_computes_what_depends_on_the_point_alone_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    from aidotnet_py.backends import NumPyBackend

    original = NumPyBackend.elementwise

    def counted(self: Any, name: str) -> Any:
        calls.append(name)
        return original(self, name)

    monkeypatch.setattr(NumPyBackend, "elementwise", counted)
    for make in (ad.linearize, ad.vjp):
        _, linear = make(lambda x: np.sin(np.exp(x)), ones)
        assert "exp" in calls
        calls.clear()
        linear(ones)
        assert set(calls) == {"multiply"}


def test_a_function_of_several_arguments() -> None:
    def f(x: Any, y: Any, *, z: float = 2.0) -> Any:
        return np.sum(x * y) * z

    x, y = np.arange(3.0), np.array([2.0, 5.0, 7.0])
    assert ad.grad(f, argument=1)(x, y).tolist() == (2 * x).tolist()
    assert ad.grad(f, argument=-1)(x, y).tolist() == (2 * x).tolist()
    value, gradient = ad.value_and_grad(f)(x, y)
    assert (float(value), gradient.tolist()) == (38.0, (2 * y).tolist())


def test_a_gradient_of_what_does_not_depend_on_the_argument_is_zero() -> None:
    assert ad.grad(lambda x: 3.0)(ones).tolist() == [0, 0, 0]
    assert ad.grad(lambda x, y: np.sum(y))(ones, ones).tolist() == [0, 0, 0]
    assert ad.hvp(lambda x: np.sum(x), ones, ones).tolist() == [0, 0, 0]
    assert ad.jvp(lambda x: np.sum(ones), (ones,), (ones,))[1] == 0.0
    assert ad.grad(lambda d: 1.0)({}) == {}
    assert ad.grad(lambda x: np.sum(np.sign(x) + ad.one_hot(x.astype(int), 2)[..., 0]))(ones).tolist() == [0, 0, 0]


def test_empty_and_scalar_arrays_are_differentiated() -> None:
    for shape in ((), (0,), (1,), (2, 0), (1, 1)):
        x = np.full(shape, 0.5)
        gradient = ad.grad(lambda a: np.sum(np.sin(a)))(x)
        assert gradient.shape == shape
        assert_allclose(gradient, np.cos(x), rtol=1e-15)
        product = ad.hvp(lambda a: np.sum(np.sin(a) * np.sum(a)), x, np.ones(shape))
        assert product.shape == shape


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: ad.grad(np.sin)(ones),
            ArgumentException,
            r"the function must return one floating scalar to have a gradient, got float64\[3\]",
        ),
        (
            lambda: ad.grad(lambda x: (x[0], x[1]))(ones),
            ArgumentException,
            r"the function must return one floating scalar to have a gradient, got float64\[\], float64\[\]",
        ),
        (
            lambda: ad.grad(lambda x: None)(ones),
            ArgumentException,
            "the function must return one floating scalar to have a gradient, got nothing",
        ),
        (
            lambda: ad.grad(lambda x: np.sum(x > 0))(ones),
            ArgumentException,
            r"the function must return one floating scalar to have a gradient, got int64\[\]",
        ),
        (
            lambda: ad.grad(np.sum)(np.arange(3)),
            ArgumentException,
            r"arguments\[0\] must have a floating dtype to be differentiated, got int64",
        ),
        (
            lambda: ad.grad(np.sum)([1.0, True]),
            ArgumentException,
            r"arguments\[0\]\[1\] must have a floating dtype to be differentiated, got bool",
        ),
        (
            lambda: ad.grad(np.sum)(),
            ArgumentOutOfRangeException,
            "argument must be the place of one of 0 arguments, got 0",
        ),
        (
            lambda: ad.grad(np.sum, 2)(ones),
            ArgumentOutOfRangeException,
            "argument must be the place of one of 1 arguments, got 2",
        ),
        (
            lambda: ad.jvp(np.sin, (ones,), (ones, ones)),
            ArgumentException,
            "tangents must be nested like primals, with as many entries",
        ),
        (
            lambda: ad.jvp(np.sin, (ones,), (ones[:2],)),
            ArgumentException,
            r"tangents\[0\] must be float64\[3\] like primals, got float64\[2\]",
        ),
        (
            lambda: ad.jvp(np.sin, (1,), (1.0,)),
            ArgumentException,
            r"primals\[0\] must have a floating dtype to be differentiated, got int64",
        ),
        (
            lambda: ad.jvp(np.sin, (1.0,), (np.float32(1),)),
            ArgumentException,
            r"tangents\[0\] must be float64\[\] like primals, got float32\[\]",
        ),
        (
            lambda: ad.vjp(np.sin, np.arange(3)),
            ArgumentException,
            r"primals\[0\] must have a floating dtype to be differentiated, got int64",
        ),
        (
            lambda: ad.vjp(np.sin, ones)[1]((ones,)),
            ArgumentException,
            "cotangent must be nested like the function's value, with as many entries",
        ),
        (
            lambda: ad.vjp(np.sin, ones)[1](ones[:1]),
            ArgumentException,
            r"cotangent must be float64\[3\] like the function's value, got float64\[1\]",
        ),
        (
            lambda: ad.hvp(np.sum, ones, ones[:1]),
            ArgumentException,
            r"^v must be float64\[3\] like x, got float64\[1\]",
        ),
        (
            lambda: ad.hvp(np.sin, ones, ones),
            ArgumentException,
            r"the function must return one floating scalar to have a gradient, got float64\[3\]",
        ),
        (
            lambda: ad.linearize(np.sin, np.arange(2)),
            ArgumentException,
            "x must have a floating dtype to be differentiated, got int64",
        ),
        (
            lambda: ad.linearize(np.sin, ones)[1](1.0),
            ArgumentException,
            r"^t must be float64\[3\] like x, got float64\[\]",
        ),
        (
            lambda: ad.vmap(np.add)(ones, np.ones(2)),
            ArgumentException,
            r"mapped axes must have one length, got \[2, 3\]",
        ),
        (
            lambda: ad.vmap(np.sin, in_axes=None)(ones),
            ArgumentException,
            "in_axes must map at least one argument, got None for all of them",
        ),
        (
            lambda: ad.vmap(np.sin, in_axes=1)(ones),
            ArgumentException,
            r"in_axes must be axes of the arguments, got 1 for arguments\[0\] of shape \(3,\)",
        ),
        (
            lambda: ad.vmap(np.sin)(1.0),
            ArgumentException,
            r"in_axes must be axes of the arguments, got 0 for arguments\[0\] of shape \(\)",
        ),
        (
            lambda: ad.vmap(np.add, in_axes=(0,))(ones, ones),
            ArgumentException,
            "in_axes must have one entry for each of 2 arguments, got 1",
        ),
        *(
            (lambda a=in_axes: ad.vmap(np.add, in_axes=a), ArgumentException, "in_axes must be an int or None, or one")
            for in_axes in ("0", 0.0, True, (0, 1.0), ((0,), 0), {0: 0}, np.array([0, 0]))
        ),
        *(
            (lambda a=argument: ad.grad(product, a), ArgumentException, "argument must be an int, or a tuple of ints")
            for argument in ((), (0, 1.0), (0, (1,)), None, "b", 1.0, True, (True, False))
        ),
        (
            lambda: ad.grad(product, (1, -1))(ones, ones),
            ArgumentException,
            r"argument must have each place once, got \(1, -1\) of 2 arguments",
        ),
        (lambda: ad.grad(product, (0, 2))(ones, ones), ArgumentOutOfRangeException, "one of 2 arguments, got 2"),
        (
            lambda: ad.grad(product, (0, 1))(ones, np.arange(3)),
            ArgumentException,
            r"arguments\[1\] must have a floating dtype to be differentiated, got int64",
        ),
        (lambda: ad.grad(product)(b=ones), ArgumentOutOfRangeException, "place of one of 0 arguments, got 0"),
        (lambda: ad.vmap(product, None)(ones, b=1.0), ArgumentException, r"got 0 for arguments\['b'\] of shape \(\)"),
        (lambda: ad.trace(product, ones, b="text"), ArgumentException, "must consist of arrays"),
        *(
            (lambda c=call: c(ad.trace(product, ones, b=ones)), ArgumentException, "by place or by name like these")
            for call in (lambda p: p(ones, ones), lambda p: p(ones), lambda p: p(ones, c=ones), lambda p: p(b=ones))
        ),
        (lambda: ad.trace(product, ones, ones)(ones, b=ones), ArgumentException, "by place or by name like these"),
        (
            lambda: ad.trace(product, ones, b=ones)(ones, b=ones[:2]),
            ArgumentException,
            r"arguments\['b'\] must be float64\[3\] like the example .* got float64\[2\]",
        ),
        *(
            (
                lambda f=transform: f(ones, product),
                ArgumentException,
                "f must be a function, got ndarray; it comes first",
            )
            for transform in (ad.grad, ad.value_and_grad, ad.vjp, ad.vmap, ad.linearize)
        ),
        (lambda: ad.hvp(ones, product, ones), ArgumentException, "f must be a function, got ndarray"),
        (lambda: ad.jvp((ones,), product, (ones,)), ArgumentException, "f must be a function, got tuple"),
        (lambda: ad.trace(ones, product), ArgumentException, "function must be a function, got ndarray"),
        (
            lambda: ad.hvp(np.sum, np.arange(3), ones),
            ArgumentException,
            "^x must have a floating dtype to be differentiated, got int64",
        ),
        (
            lambda: ad.hvp(sum_w, {"w": ones}, {"v": ones}),
            ArgumentException,
            "^v must be nested like x, with as many entries",
        ),
        (
            lambda: ad.hvp(sum_w, {"w": ones}, {"w": ones[:2]}),
            ArgumentException,
            r"^v\['w'\] must be float64\[3\] like x, got float64\[2\]",
        ),
        (
            lambda: ad.hvp(sum_w, {"w": [1]}, {"w": [1.0]}),
            ArgumentException,
            r"^x\['w'\]\[0\] must have a floating dtype to be differentiated, got int64",
        ),
        (
            lambda: ad.hvp(np.sum, ones, 1j * ones),
            ArgumentException,
            "^v must hold booleans, integers or floats, got dtype complex128",
        ),
        (
            lambda: ad.linearize(np.sum, 1j * ones),
            ArgumentException,
            "^x must hold booleans, integers or floats, got dtype complex128",
        ),
        (
            lambda: ad.grad(product, 1)(ones, 1j * ones),
            ArgumentException,
            r"^arguments\[1\] must hold booleans, integers or floats, got dtype complex128",
        ),
        (
            lambda: ad.grad(product)(ones, 1j * ones),
            ArgumentException,
            r"^arguments\[1\] must hold booleans, integers or floats, got dtype complex128",
        ),
        (
            lambda: ad.vmap(product)(ones, 1j * ones),
            ArgumentException,
            r"^arguments\[1\] must hold booleans, integers or floats, got dtype complex128",
        ),
        (
            lambda: ad.vmap(product, (0, 3))(ones, ones),
            ArgumentException,
            r"in_axes must be axes of the arguments, got 3 for arguments\[1\] of shape \(3,\)",
        ),
    ],
)
def test_what_a_transform_cannot_take_is_refused(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_vmap_of_constants_trees_and_shared_arguments(backend: Backend) -> None:
    x = backend.asarray([1.0, 2.0, 3.0])
    w = backend.asarray([10.0, 20.0])
    result = ad.vmap(lambda p, shared: {"a": p["x"] * shared, "b": 3.0, "c": shared}, in_axes=(0, None))({"x": x}, w)
    assert backend.to_numpy(result["a"]).tolist() == [[10, 20], [20, 40], [30, 60]]
    assert backend.to_numpy(result["b"]).tolist() == [3, 3, 3]
    assert backend.to_numpy(result["c"]).tolist() == [[10, 20]] * 3


def test_vmap_negative_axes() -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    assert_allclose(ad.vmap(np.sum, in_axes=-1)(x), x.sum((0, 1)))
    assert_allclose(
        ad.vmap(lambda a, b: a @ b, in_axes=(-2, 1))(x, x.transpose(2, 1, 0)), [x[:, k] @ x[:, k].T for k in range(3)]
    )


def test_the_gradient_runs_under_trace_as_one_program() -> None:
    program = ad.trace(ad.value_and_grad(lambda w, x: np.sum(np.tanh(x @ w) ** 2)), np.ones((3, 2)), np.ones((4, 3)))
    value, gradient = program(np.full((3, 2), 0.1), np.ones((4, 3)))
    t = np.tanh(0.3)
    assert float(value) == pytest.approx(8 * t * t, rel=1e-14)
    assert_allclose(gradient, np.full((3, 2), 4 * 2 * t * (1 - t * t)), rtol=1e-14)
    assert program.count("tanh") == 1


def check_transforms_of_a_random_program(rng: np.random.Generator) -> None:
    """⟨w, J v⟩ = ⟨Jᵀ w, v⟩, also under a second derivative; and vmap is a loop."""
    program = random_program(rng, [a_type(rng) for _ in range(3)], int(rng.integers(5, 20)), precise=True)
    points = [np.asarray(rng.uniform(-1.5, 1.5, t.shape)) for t in program.input_types]
    lines = [np.asarray(rng.uniform(-1, 1, t.shape)) for t in program.input_types]

    def f(*xs: Any) -> Any:
        return inline(program, xs)

    outputs, tangents = ad.jvp(f, points, lines)
    weights = [np.asarray(rng.uniform(-1, 1, y.shape)) for y in outputs]
    pulled = ad.vjp(f, *points)[1](weights)

    def dot(xs: Any, ys: Any) -> Any:
        return sum((np.sum(x * y) for x, y in zip(xs, ys, strict=True)), np.float64(0.0))

    def value(xs: Any) -> Any:
        return dot(f(*xs), weights)

    size = sum(float(np.sum(np.abs(t))) for t in tangents) + 1
    assert_allclose(dot(tangents, weights), dot(pulled, lines), atol=1e-11 * size)
    forward = ad.hvp(value, points, lines)
    reverse = ad.grad(lambda xs: ad.jvp(value, (xs,), (lines,))[1])(points)
    for x, y in zip(forward, reverse, strict=True):
        assert_allclose(x, y, rtol=1e-9, atol=1e-9 * (1 + np.abs(x).max(initial=0)))
    batched = [bool(b) for b in rng.random(3) < 0.6] if rng.random() < 0.9 else [True, False, False]
    batched[0] |= not any(batched)
    stacked = [np.stack([x, -0.5 * x]) if b else x for x, b in zip(points, batched, strict=True)]
    together = ad.vmap(f, in_axes=[0 if b else None for b in batched])(*stacked)
    for k in range(2):
        alone = ad.trace(f, *points)(*(x[k] if b else x for x, b in zip(stacked, batched, strict=True)))
        for y, z in zip(together, alone, strict=True):
            assert_allclose(y[k], z, rtol=1e-11, atol=1e-11)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_transforms_of_random_programs(seed: int) -> None:
    check_transforms_of_a_random_program(np.random.default_rng(seed))


@pytest.mark.slow
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=many(200))
def test_transforms_of_many_random_programs(seed: int) -> None:
    check_transforms_of_a_random_program(np.random.default_rng(seed))
