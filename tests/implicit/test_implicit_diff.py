"""Implicit derivatives: against closed forms, dense linear algebra, unrolled iterations and iMAML; what is refused."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st
from small_learners import meta_gradient
from tanh_network import TanhNetwork, apply, batch_of

from aidotnet_py import autodiff as ad
from aidotnet_py.backends import Backend, available_backends, get_backend
from aidotnet_py.exceptions import (
    ArgumentException,
    ArgumentNullException,
    ArgumentOutOfRangeException,
    InvalidOperationException,
)
from aidotnet_py.implicit import UnconvergedSolveWarning, checked_solve, implicit_diff
from aidotnet_py.solvers import conjugate_gradient, gmres

Values = Any


def sums(tree: Any) -> Any:
    """A scalar that depends on every number of a vector, unevenly."""
    return np.sum(np.sin(tree) * np.arange(1.0, tree.size + 1))


def sums_gradient(x: Values) -> Values:
    return np.cos(x) * np.arange(1.0, x.size + 1)


# --- ridge regression -------------------------------------------------------------------------------------------------


@implicit_diff(lambda w, lam, X, y: X.T @ (X @ w - y) + lam * w, symmetric=True, rtol=1e-13)
def ridge(initial: Any, lam: Any, X: Any, y: Any) -> Any:
    """Not to be traced: branches, SciPy, arrays on the host."""
    backend = BACKEND_OF[type(X)]
    host, right, strength = backend.to_numpy(X), backend.to_numpy(y), float(lam)
    if strength <= 0:
        raise ValueError("no strength")
    factor = scipy.linalg.cho_factor(host.T @ host + strength * np.eye(host.shape[1]))
    return backend.asarray(scipy.linalg.cho_solve(factor, host.T @ right))


BACKENDS = [get_backend(name) for name in ("numpy", "strict", "simulated", "cupy") if name in available_backends()]
BACKEND_OF = {type(backend.empty((1,), float)): backend for backend in BACKENDS}


def regression(seed: int = 0) -> tuple[Values, Values]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((9, 4)), rng.standard_normal(9)


def ridge_tangent(lam: float, X: Values, y: Values, dlam: float, dX: Values, dy: Values) -> tuple[Values, Values]:
    """w*, and its derivative along (dλ, dX, dy), from (XᵀX + λ)w = Xᵀy."""
    A = X.T @ X + lam * np.eye(X.shape[1])
    w = np.linalg.solve(A, X.T @ y)
    return w, np.linalg.solve(A, dX.T @ y + X.T @ dy - (dX.T @ X + X.T @ dX + dlam * np.eye(len(w))) @ w)


@pytest.mark.numpy_first
@given(seed=st.integers(0, 2**32 - 1), lam=st.floats(0.1, 10))
def test_ridge_in_forward_mode(seed: int, lam: float, backend: Backend) -> None:
    X, y = regression(seed)
    rng = np.random.default_rng(seed + 1)
    dlam, dX, dy = rng.standard_normal(()), rng.standard_normal(X.shape), rng.standard_normal(y.shape)
    w, dw = ridge_tangent(lam, X, y, float(dlam), dX, dy)
    move = backend.asarray
    value, tangent = ad.jvp(
        lambda *theta: ridge(move(np.zeros(4)), *theta),
        (move(np.float64(lam)), move(X), move(y)),
        (move(dlam), move(dX), move(dy)),
    )
    assert backend.owns(value)
    np.testing.assert_allclose(backend.to_numpy(value), w, rtol=1e-10)
    np.testing.assert_allclose(backend.to_numpy(tangent), dw, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("argument", [0, 1, 2])
def test_ridge_in_reverse_mode(argument: int, backend: Backend) -> None:
    X, y = regression()
    lam = 0.7
    theta = [np.float64(lam), X, y]
    w, _ = ridge_tangent(lam, X, y, 0.0, 0 * X, 0 * y)
    expected = np.zeros(np.shape(theta[argument]))
    for place in np.ndindex(expected.shape):
        moved = [np.zeros_like(t) for t in theta]
        moved[argument] = np.zeros(expected.shape)
        moved[argument][place] = 1.0
        expected[place] = sums_gradient(w) @ ridge_tangent(lam, X, y, *moved)[1]
    weights = backend.asarray(np.arange(1.0, 5.0))
    found = ad.grad(
        lambda *t: np.sum(ad.vmap(np.multiply)(np.sin(ridge(backend.asarray(np.zeros(4)), *t)), weights)), argument
    )(*map(backend.asarray, theta))
    np.testing.assert_allclose(backend.to_numpy(found), expected, rtol=1e-9, atol=1e-11)


def test_ridge_has_the_second_derivative_of_its_closed_form() -> None:
    X, y = regression()

    def closed(lam: float) -> tuple[float, float]:
        A = X.T @ X + lam * np.eye(4)
        w = np.linalg.solve(A, X.T @ y)
        dw = -np.linalg.solve(A, w)
        ddw = -2 * np.linalg.solve(A, dw)
        k = np.arange(1.0, 5.0)
        return float(k @ (np.cos(w) * dw)), float(k @ (np.cos(w) * ddw - np.sin(w) * dw**2))

    def loss(lam: Any) -> Any:
        return sums(ridge(np.zeros(4), lam, X, y))

    for lam in (0.3, 2.0):
        first, second = closed(lam)
        assert float(ad.grad(loss)(lam)) == pytest.approx(first, rel=1e-10)
        assert float(ad.grad(ad.grad(loss))(lam)) == pytest.approx(second, rel=1e-9)
        assert float(ad.hvp(loss, lam, 1.0)) == pytest.approx(second, rel=1e-9)
        forward = ad.jvp(lambda t: ad.jvp(loss, (t,), (1.0,))[1], (lam,), (1.0,))[1]
        assert float(forward) == pytest.approx(second, rel=1e-9)


def test_a_traced_gradient_is_replayed_with_the_arguments_of_the_call() -> None:
    X, y = regression()
    gradient = ad.grad(lambda lam: sums(ridge(np.zeros(4), lam, X, y)))
    program = ad.trace(gradient, 1.0)
    assert program.count("solution") == 1
    assert program.count("linear_solve") == 1
    assert "solution root=ridge" in str(program)
    for lam in (0.2, 3.0, 0.2, 0.5):
        assert float(program(lam)) == float(gradient(lam))


def test_a_value_and_its_derivatives_share_one_solution() -> None:
    calls = 0

    @implicit_diff(lambda phi, theta: phi**3 + phi - theta)
    def cubic(initial: Any, theta: Any) -> Any:
        nonlocal calls
        calls += 1
        return np.array(scipy.optimize.brentq(lambda p: p**3 + p - float(theta), -10, 10, xtol=1e-15))

    def loss(theta: Any) -> Any:
        return cubic(0.0, theta) ** 2

    ad.value_and_grad(loss)(1.5)
    ad.hvp(loss, 1.5, 1.0)
    assert calls == 2
    value, pullback = ad.vjp(loss, 1.5)
    slopes = [float(pullback(np.array(c))[0]) for c in (1.0, 2.0, 3.0)]
    assert calls == 3
    p = np.sqrt(float(value))
    np.testing.assert_allclose(slopes, np.array([1, 2, 3]) * 2 * p / (3 * p**2 + 1), rtol=1e-12)


# --- a fixed point ----------------------------------------------------------------------------------------------------


def layer(phi: Any, W: Any, x: Any) -> Any:
    return np.tanh(W @ phi + x)


@implicit_diff(lambda phi, W, x: phi - layer(phi, W, x), rtol=1e-14)
def equilibrium(initial: Any, W: Any, x: Any) -> Any:
    phi = initial
    for _ in range(500):
        after = layer(phi, W, x)
        if np.max(np.abs(after - phi)) < 1e-16:
            break
        phi = after
    return phi


def contraction(n: int = 5, seed: int = 3) -> tuple[Values, Values]:
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((n, n))
    return 0.7 * W / np.linalg.norm(W, 2), rng.standard_normal(n)


def test_a_fixed_point_has_the_derivative_of_a_dense_solve() -> None:
    W, x = contraction()
    phi = equilibrium(np.zeros(5), W, x)
    slope = np.diag(1 - phi**2)
    # dφ = S(W dφ + dW φ + dx) with S = diag(1 − φ²), so that w = (I − SW)⁻ᵀ c gives c·dφ = wᵀS(dW φ + dx).
    w = slope @ np.linalg.solve((np.eye(5) - slope @ W).T, sums_gradient(phi))
    by_W, by_x = (ad.grad(lambda *t: sums(equilibrium(np.zeros(5), *t)), place)(W, x) for place in (0, 1))
    np.testing.assert_allclose(by_W, np.outer(w, phi), rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(by_x, w, rtol=1e-10)


@pytest.mark.slow
def test_a_fixed_point_has_the_derivatives_of_unrolled_iterations() -> None:
    W, x = contraction(3)

    def unrolled(x: Any) -> Any:
        phi = np.zeros(3)
        for _ in range(120):
            phi = layer(phi, W, x)
        return sums(phi)

    def implicit(x: Any) -> Any:
        return sums(equilibrium(np.zeros(3), W, x))

    np.testing.assert_allclose(ad.grad(implicit)(x), ad.grad(unrolled)(x), rtol=1e-10)
    v = np.array([1.0, -2.0, 0.5])
    np.testing.assert_allclose(ad.hvp(implicit, x, v), ad.hvp(unrolled, x, v), rtol=1e-9)


# --- constraints ------------------------------------------------------------------------------------------------------


def test_a_constrained_minimum_through_its_kkt_conditions() -> None:
    rng = np.random.default_rng(5)
    Q = np.diag(rng.uniform(1, 3, 4)) + 0.2 * np.ones((4, 4))
    A, b, c = rng.standard_normal((2, 4)), rng.standard_normal(2), rng.standard_normal(4)

    def kkt(phi: Any, b: Any, c: Any) -> Any:
        return {"x": Q @ phi["x"] - c + A.T @ phi["multipliers"], "multipliers": A @ phi["x"] - b}

    @implicit_diff(kkt, rtol=1e-14)
    def minimum(initial: Any, b: Any, c: Any) -> Any:
        found = scipy.optimize.minimize(
            lambda x: 0.5 * x @ Q @ x - c @ x,
            initial["x"],
            jac=lambda x: Q @ x - c,
            constraints={"type": "eq", "fun": lambda x: A @ x - b, "jac": lambda x: A},
            method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 200},
        )
        return {"x": found.x, "multipliers": np.linalg.lstsq(A.T, c - Q @ found.x)[0]}

    start = {"x": np.zeros(4), "multipliers": np.zeros(2)}
    phi = minimum(start, b, c)
    inverse = np.linalg.inv(Q)
    schur = np.linalg.inv(A @ inverse @ A.T)
    np.testing.assert_allclose(phi["x"], inverse @ (c - A.T @ schur @ (A @ inverse @ c - b)), rtol=1e-6)
    by_b = np.stack([ad.jvp(lambda b: minimum(start, b, c)["x"], (b,), (e,))[1] for e in np.eye(2)], axis=1)
    np.testing.assert_allclose(by_b, inverse @ A.T @ schur, rtol=1e-10)
    by_c = np.stack([ad.vjp(lambda c: minimum(start, b, c)["x"], c)[1](e)[0] for e in np.eye(4)])
    np.testing.assert_allclose(by_c, inverse - inverse @ A.T @ schur @ A @ inverse, rtol=1e-10, atol=1e-13)


# --- the square root, and transforms of it ----------------------------------------------------------------------------


@implicit_diff(lambda phi, theta: phi**2 - theta)
def root(initial: Any, theta: Any) -> Any:
    return float(np.sqrt(float(theta)))


def test_a_root_to_the_third_derivative() -> None:
    def f(theta: Any) -> Any:
        return root(1.0, theta)

    assert float(f(4.0)) == 2.0
    assert float(ad.grad(f)(4.0)) == pytest.approx(4**-0.5 / 2, rel=1e-12)
    assert float(ad.grad(ad.grad(f))(4.0)) == pytest.approx(-(4**-1.5) / 4, rel=1e-12)
    assert float(ad.grad(ad.grad(ad.grad(f)))(4.0)) == pytest.approx(3 * 4**-2.5 / 8, rel=1e-12)


def test_vmap_over_arguments_and_derivatives() -> None:
    thetas = np.array([[0.5, 1.0, 4.0], [9.0, 2.0, 3.0]])
    over = ad.vmap(ad.vmap(lambda t: root(1.0, t)))
    np.testing.assert_allclose(over(thetas), np.sqrt(thetas), rtol=1e-14)
    np.testing.assert_allclose(
        ad.vmap(ad.vmap(ad.grad(lambda t: root(1.0, t))))(thetas), 0.5 / np.sqrt(thetas), rtol=1e-12
    )
    by_all = ad.grad(lambda t: np.sum(over(t) ** 3))(thetas)
    np.testing.assert_allclose(by_all, 1.5 * np.sqrt(thetas), rtol=1e-12)
    second = ad.hvp(lambda t: np.sum(over(t) ** 3), thetas, np.ones_like(thetas))
    np.testing.assert_allclose(second, 0.75 / np.sqrt(thetas), rtol=1e-11)


def test_vmap_over_some_arguments_and_over_starts(backend: Backend) -> None:
    X, y = regression()
    lams = np.array([0.3, 1.0, 5.0])
    starts = backend.asarray(np.zeros((3, 4)))
    move = backend.asarray
    expected = np.stack([ridge_tangent(lam, X, y, 1.0, 0 * X, 0 * y)[1] for lam in lams])

    def tangent(start: Any, lam: Any) -> Any:
        return ad.jvp(lambda t: ridge(start, t, move(X), move(y)), (lam,), (move(np.float64(1.0)),))[1]

    both = ad.vmap(tangent)(starts, move(lams))
    np.testing.assert_allclose(backend.to_numpy(both), expected, rtol=1e-9)
    one = ad.vmap(tangent, in_axes=(None, 0))(move(np.zeros(4)), move(lams))
    np.testing.assert_allclose(backend.to_numpy(one), expected, rtol=1e-9)
    only_starts = ad.vmap(tangent, in_axes=(0, None))(starts, move(lams[1]))
    np.testing.assert_allclose(backend.to_numpy(only_starts), np.stack([expected[1]] * 3), rtol=1e-9)


def test_rows_of_cotangents_at_one_point_are_one_solve() -> None:
    W, x = contraction()
    _, pullback = ad.vjp(lambda x: equilibrium(np.zeros(5), W, x), x)
    jacobian = np.stack([pullback(e)[0] for e in np.eye(5)])
    program = ad.trace(ad.vmap(lambda c: ad.vjp(lambda x: equilibrium(np.zeros(5), W, x), x)[1](c)[0]), np.eye(5))
    assert program.count("linear_solve") == 1
    np.testing.assert_allclose(program(np.eye(5)), jacobian, rtol=1e-10, atol=1e-14)
    phi = equilibrium(np.zeros(5), W, x)
    slope = np.diag(1 - phi**2)
    np.testing.assert_allclose(jacobian, np.linalg.solve(np.eye(5) - slope @ W, slope), rtol=1e-10, atol=1e-14)


# --- nesting ----------------------------------------------------------------------------------------------------------


def test_nested_solutions_and_arguments() -> None:
    theta = {"scale": np.array([2.0, 4.0]), "rest": [np.array([[3.0]]), 5.0]}

    def condition(phi: Any, t: Any) -> Any:
        return {"a": phi["a"] * t["scale"] - t["rest"][1], "b": (phi["b"][0] - t["rest"][0] * phi["a"][0],)}

    @implicit_diff(condition)
    def solve(initial: Any, t: Any) -> Any:
        assert initial["b"][0].shape == (1, 1)
        a = t["rest"][1] / t["scale"]
        return {"a": a, "b": (t["rest"][0] * a[0],)}

    start = {"a": np.zeros(2), "b": (np.zeros((1, 1)),)}
    phi = solve(start, theta)
    assert phi["a"].tolist() == [2.5, 1.25]
    assert phi["b"][0].tolist() == [[7.5]]
    found = ad.grad(lambda t: solve(start, t)["b"][0][0, 0] + np.sum(solve(start, t)["a"]))(theta)
    # b + Σa = 3·5/2 + 5/2 + 5/4.
    np.testing.assert_allclose(found["scale"], [-3 * 5 / 4 - 5 / 4, -5 / 16], rtol=1e-12)
    np.testing.assert_allclose(found["rest"][0], [[2.5]], rtol=1e-12)
    np.testing.assert_allclose(found["rest"][1], 3 / 2 + 1 / 2 + 1 / 4, rtol=1e-12)


def test_a_condition_may_hold_a_solution_itself() -> None:
    # ψ² = θ and φ³ = ψ: φ = θ^(1/6).
    @implicit_diff(lambda phi, theta: phi**3 - root(1.0, theta))
    def sixth(initial: Any, theta: Any) -> Any:
        return np.cbrt(np.sqrt(float(theta)))

    def f(theta: Any) -> Any:
        return sixth(1.0, theta)

    assert float(ad.grad(f)(3.0)) == pytest.approx(3 ** (-5 / 6) / 6, rel=1e-11)
    assert float(ad.grad(ad.grad(f))(3.0)) == pytest.approx(-5 * 3 ** (-11 / 6) / 36, rel=1e-10)


def test_what_a_condition_captures_is_differentiated_too() -> None:
    # θ reaches the condition past its arguments: no derivative may be lost.
    def f(theta: Any) -> Any:
        @implicit_diff(lambda phi, shift: phi - theta**2 - shift)
        def solve(initial: Any, shift: Any) -> Any:
            return initial + shift

        return solve(np.array([4.0]), 0.0)[0]

    assert float(ad.grad(f)(2.0)) == 4.0
    np.testing.assert_array_equal(ad.vmap(ad.grad(f))(np.array([2.0, 3.0])), [4.0, 6.0])


def test_indices_and_integers_pass_through() -> None:
    order = np.array([2, 0, 1])

    @implicit_diff(lambda phi, x, labels: 2 * phi - x[[1, 2, 0]] * np.take(x, labels))
    def solve(initial: Any, x: Any, labels: Any) -> Any:
        assert labels.dtype.kind == "i"
        return x[[1, 2, 0]] * x[labels] / 2

    x = np.array([1.0, 2.0, 5.0])
    # φ = (x₁x₂, x₂x₀, x₀x₁)/2.
    _, tangent = ad.jvp(lambda x: solve(np.zeros(3), x, order), (x,), (np.array([1.0, 0.0, 0.0]),))
    np.testing.assert_allclose(tangent, [0.0, 2.5, 1.0], atol=1e-12)
    several = ad.vmap(ad.grad(lambda x: np.sum(solve(np.zeros(3), x, order))))(np.stack([x, 2 * x]))
    np.testing.assert_allclose(several, [[3.5, 3.0, 1.5], [7.0, 6.0, 3.0]], atol=1e-12)


def test_integers_alone_are_arguments_too() -> None:
    @implicit_diff(lambda phi, theta: phi**2 - theta)
    def root(initial: Any, theta: Any) -> Any:
        return np.sqrt(theta)

    assert float(root(1.0, 4)) == 2.0
    np.testing.assert_array_equal(ad.vmap(lambda theta: root(1.0, theta))(np.array([4, 9])), [2.0, 3.0])
    with pytest.raises(ArgumentException, match="must have a floating dtype to be differentiated, got int64"):
        ad.grad(lambda theta: root(1.0, theta))(4)


@pytest.mark.parametrize("symmetric", [False, True])
def test_derivatives_of_an_empty_batch_are_empty(symmetric: bool) -> None:
    @implicit_diff(lambda phi, theta: phi**3 - theta, symmetric=symmetric)
    def root(initial: Any, theta: Any) -> Any:
        return np.cbrt(theta)

    slopes = ad.vmap(ad.grad(lambda theta: root(1.0, theta)))(np.zeros(0))
    assert (slopes.shape, slopes.dtype) == ((0,), np.float64)
    assert ad.vmap(lambda theta: ad.hvp(lambda t: root(1.0, t), theta, 1.0))(np.zeros(0)).shape == (0,)


def test_an_argument_that_the_condition_ignores_has_derivative_zero() -> None:
    @implicit_diff(lambda phi, theta, rate: phi - theta)
    def solve(initial: Any, theta: Any, rate: Any) -> Any:
        return np.asarray(theta)

    assert float(ad.grad(lambda rate: solve(0.0, 3.0, rate))(0.1)) == 0.0
    assert float(ad.grad(lambda start: solve(start, 3.0, 0.1))(0.1)) == 0.0
    assert float(ad.grad(lambda theta: solve(0.0, theta, 0.1))(3.0)) == 1.0


# --- iMAML ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [1.5, pytest.param(6.0, marks=pytest.mark.slow)])
def test_it_gives_the_meta_gradient_of_imaml(strength: float) -> None:
    network, backend = TanhNetwork(), get_backend("numpy")
    start, ((x, y, query_x, query_y),) = network.start(), network.sets(1)
    lam = 1 / strength

    def support(phi: Any) -> Any:
        return np.mean((apply(phi, x) - y) ** 2)

    def stationary(phi: Any, theta: Any) -> Any:
        slopes = ad.grad(support)(phi)
        return {k: slopes[k] + (phi[k] - theta[k]) / lam for k in phi}

    @implicit_diff(stationary, symmetric=True, rtol=1e-14, max_iterations=200)
    def adapted(initial: Any, theta: Any) -> Any:
        flat = origin = np.concatenate([theta[k].ravel() for k in network.shapes])
        for step in range(500):
            slope = network.gradient(flat, x, y) + (flat - origin) / lam
            if np.linalg.norm(slope) <= 1e-13:
                break
            # Descent first, Newton's method when it is near.
            matrix = network.hessian(flat, x, y) + np.eye(len(flat)) / lam
            flat = flat - (np.linalg.solve(matrix, slope) if step > 100 else 0.1 * slope)
        assert np.linalg.norm(slope) <= 1e-12
        return network.parts(flat)

    def query(theta: Any) -> Any:
        return np.mean((apply(adapted(theta, theta), query_x) - query_y) ** 2)

    found = ad.grad(query)(network.parts(start))
    learnt = meta_gradient(
        network.model(backend, start),
        batch_of(backend, [(x, y, query_x, query_y)]),
        AdaptationSteps=400,
        InnerLearningRate=0.1,
        LambdaRegularization=lam,
        InnerObjective="proximal",
    )
    ours = np.concatenate([found[k].ravel() for k in network.shapes])
    assert np.linalg.norm(learnt) > 1e-2
    assert np.linalg.norm(ours - learnt) <= 1e-9 * np.linalg.norm(learnt)


# --- the solver's side ------------------------------------------------------------------------------------------------


def test_the_solver_gets_arrays_of_its_own() -> None:
    kept: list[Any] = []

    @implicit_diff(lambda phi, theta: phi - 2 * theta)
    def solve(initial: Any, theta: Any) -> Any:
        kept.append(initial)
        initial += 1.0
        theta *= 2.0
        return theta

    start, theta = np.zeros(2), np.array([1.0, 3.0])
    program = ad.trace(lambda t: solve(start, t) + t, theta)
    for scale in (1.0, 1.0, 2.0):
        np.testing.assert_array_equal(program(scale * theta), 3 * scale * theta)
    np.testing.assert_array_equal(start, 0.0)
    np.testing.assert_array_equal(theta, [1.0, 3.0])
    assert [k.tolist() for k in kept] == [[1.0, 1.0]] * 3


def test_the_solver_keeps_its_name_and_may_use_the_engine() -> None:
    def objective(phi: Any, theta: Any) -> Any:
        return np.sum((phi - theta) ** 2 + phi**4)

    @implicit_diff(ad.grad(objective), symmetric=True)
    def minimise(initial: Any, theta: Any) -> Any:
        """Newton's method, elementwise."""
        phi = initial
        for _ in range(50):
            phi = phi - ad.grad(objective)(phi, theta) / (2 + 12 * phi**2)
        return phi

    assert minimise.__name__ == "minimise"
    assert minimise.__doc__ == "Newton's method, elementwise."
    theta = np.array([0.5, -2.0])
    phi = minimise(np.zeros(2), theta)
    np.testing.assert_allclose(phi + 2 * phi**3, theta, rtol=1e-12)
    by_theta = ad.grad(lambda t: np.sum(minimise(np.zeros(2), t)))(theta)
    np.testing.assert_allclose(by_theta, 1 / (1 + 6 * phi**2), rtol=1e-10)


def test_threads_share_a_traced_gradient() -> None:
    W, x = contraction()
    program = ad.trace(ad.grad(lambda x: sums(equilibrium(np.zeros(5), W, x))), x)
    points = [x * s for s in np.linspace(0.1, 1, 8)]
    expected = [program(p) for p in points]
    found: list[Any] = [None] * 8

    def work(place: int) -> None:
        for _ in range(3):
            found[place] = program(points[place])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(found, expected)


# --- precision --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1.0, 1e200])
def test_a_derivative_is_linear_however_small_or_large(scale: float) -> None:
    W, x = contraction()
    f = ad.grad(lambda x: sums(equilibrium(np.zeros(5), W, x)) * scale)
    np.testing.assert_allclose(f(x) / scale, ad.grad(lambda x: sums(equilibrium(np.zeros(5), W, x)))(x), rtol=1e-12)


def test_float32_needs_no_tolerance_of_its_own() -> None:
    X, y = (a.astype(np.float32) for a in regression())

    @implicit_diff(lambda w, lam: X.T @ (X @ w - y) + lam * w)
    def solve(initial: Any, lam: Any) -> Any:
        return np.linalg.solve(X.T @ X + lam * np.eye(4, dtype=np.float32), X.T @ y)

    found = ad.jvp(lambda t: solve(np.zeros(4, np.float32), t), (np.float32(0.5),), (np.float32(1),))[1]
    assert found.dtype == np.float32
    A = X.astype(np.float64).T @ X.astype(np.float64) + 0.5 * np.eye(4)
    exact = -np.linalg.solve(A, np.linalg.solve(A, X.astype(np.float64).T @ y))
    # A hundred roundings of the right-hand side, times the condition.
    bound = 200 * np.finfo(np.float32).eps * np.linalg.cond(A) * np.linalg.norm(exact)
    assert np.linalg.norm(found - exact) <= bound


# --- what is refused, and what is warned of ---------------------------------------------------------------------------


def never(*args: Any) -> Any:
    raise AssertionError("the solver ran")


def doubled(phi: Any, theta: Any) -> Any:
    return phi - 2 * theta


@pytest.mark.parametrize(
    ("condition", "initial", "message"),
    [
        (
            lambda phi, theta: phi[:1] - theta,
            np.zeros(3),
            r"condition must return float64\[3\] like initial, got float64\[1\]",
        ),
        (
            lambda phi, theta: np.sum(phi) - theta,
            np.zeros(3),
            r"condition must return float64\[3\] like initial, got float64\[\]",
        ),
        (
            lambda phi, theta: phi * theta,
            np.zeros(3, np.float32),
            r"condition must return float32\[3\] like initial, got float64\[3\]",
        ),
        (
            lambda phi, theta: [phi["a"] - theta],
            {"a": np.zeros(2)},
            r"condition must return {'a': float64\[2\]} like initial, got \[float64\[2\]\]",
        ),
        (lambda phi, theta: None, np.zeros(3), r"condition must return float64\[3\] like initial, got None"),
        (
            lambda phi, theta: np.ones(3) * theta,
            np.zeros(3),
            "condition must depend on its first argument, φ, got one that does not; it determines no solution",
        ),
        (
            lambda phi, theta: ad.stop_gradient(phi) - theta,
            np.zeros(3),
            "condition must depend on its first argument, φ",
        ),
        (
            lambda phi, theta: phi - 1.0,
            np.zeros(3),
            "condition must have a derivative with respect to one of the 1 arrays that never was called with after "
            "initial, got none; every derivative of the solution would be zero. Pass the arrays that it "
            "uses as arguments",
        ),
        (
            lambda phi, theta: phi - ad.stop_gradient(theta) - (theta > 0),
            np.zeros(3),
            "condition must have a derivative with respect to one of the 1 arrays",
        ),
        (doubled, np.zeros(3, np.int64), "initial must have one floating dtype for all of φ, got int64"),
        (
            doubled,
            [np.zeros(3), np.zeros(3, np.float32)],
            "initial must have one floating dtype for all of φ, got float32, float64",
        ),
        (doubled, [], "initial must have at least one element, got none"),
        (doubled, np.zeros((0, 2)), "initial must have at least one element, got none"),
        (doubled, None, "initial must have at least one element, got none"),
    ],
)
def test_conditions_that_do_not_fit_are_refused_before_any_work(condition: Any, initial: Any, message: str) -> None:
    solve = implicit_diff(condition)(never)
    with pytest.raises(ArgumentException, match=message):
        solve(initial, 1.5)
    with pytest.raises(ArgumentException, match=message):
        ad.grad(lambda theta: solve(initial, theta))(1.5)


def test_a_call_without_arguments_is_refused() -> None:
    with pytest.raises(ArgumentException, match="with respect to one of the 0 arrays that never was called with"):
        implicit_diff(lambda phi: phi - 1.0)(never)(np.zeros(2))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"condition": None}, ArgumentNullException, "condition must be a function of φ and its arguments, got None"),
        (
            {"condition": np.ones(2)},
            ArgumentException,
            "condition must be a function of φ and its arguments, got ndarray",
        ),
        (
            {"max_iterations": 0},
            ArgumentOutOfRangeException,
            r"max_iterations must be a whole number of at least 1.*, got 0",
        ),
        ({"max_iterations": 1.5}, ArgumentException, r"max_iterations must be .*, got 1\.5"),
        ({"rtol": -1.0}, ArgumentOutOfRangeException, r"rtol must be a finite number of at least 0.*, got -1\.0"),
        ({"rtol": "tight"}, ArgumentException, r"rtol must be .*, got 'tight'"),
        ({"rtol": 10**400}, ArgumentOutOfRangeException, r"rtol must be .*, got an integer of"),
        ({"atol": float("inf")}, ArgumentOutOfRangeException, r"atol must be .*, got inf"),
        ({"symmetric": "yes"}, ArgumentException, "symmetric must be True or False, got 'yes'"),
        ({"symmetric": None}, ArgumentException, "symmetric must be True or False, got None"),
        ({"symmetric": np.ones(2)}, ArgumentException, r"symmetric must be True or False, got array\(\[1\."),
    ],
)
def test_settings_are_refused_at_once(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        implicit_diff(**{"condition": doubled, **options})


@pytest.mark.parametrize("bad", ["abc", {1, 2}, object(), np.ones(3) * 1j, np.array(["a"] * 3), 10**400])
def test_a_refusal_names_what_it_is_about(bad: Any) -> None:
    x = np.ones(3)
    solve = implicit_diff(doubled)(lambda initial, theta: theta / 2)
    for run in (lambda f: f(), lambda f: ad.grad(lambda t: np.sum(f() * t))(1.0)):
        with pytest.raises(ArgumentException, match=r"^initial must (be|consist of|hold) .*, got "):
            run(lambda: solve(bad, x))
        with pytest.raises(ArgumentException, match=r"^argument 1 of <lambda> must (be|consist of|hold) .*, got "):
            run(lambda: solve(x, bad))
        with pytest.raises(ArgumentException, match=r"^the result of condition must (be|consist of|hold) .*, got "):
            run(lambda: implicit_diff(lambda phi, theta: bad)(never)(x, x))
        with pytest.raises(ArgumentException, match=r"^the result of <lambda> must (be|consist of|hold) .*, got "):
            run(lambda: implicit_diff(doubled)(lambda initial, theta: bad)(x, x))


def test_a_solver_must_be_a_function() -> None:
    with pytest.raises(ArgumentException, match="the solver must be a function of φ and its arguments, got ndarray"):
        implicit_diff(doubled)(np.ones(2))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (np.zeros(2), r"solve must return float64\[3\] like initial, got float64\[2\]"),
        (np.zeros(3, np.float32), r"solve must return float64\[3\] like initial, got float32\[3\]"),
        ([np.zeros(3)], r"solve must return float64\[3\] like initial, got \[float64\[3\]\]"),
        (1.0, r"solve must return float64\[3\] like initial, got float64\[\]"),
        (None, r"solve must return float64\[3\] like initial, got None"),
    ],
)
def test_a_solution_that_does_not_fit_is_refused(result: Any, message: str) -> None:
    def solve(initial: Any, theta: Any) -> Any:
        return result

    solution = implicit_diff(doubled)(solve)
    with pytest.raises(ArgumentException, match=message):
        solution(np.zeros(3), np.zeros(3))
    with pytest.raises(ArgumentException, match=message):
        ad.grad(lambda t: np.sum(solution(np.zeros(3), t)))(np.zeros(3))


def test_a_solution_of_another_backend_is_refused() -> None:
    strict = get_backend("strict")
    solve = implicit_diff(doubled)(lambda initial, theta: np.zeros(3))
    with pytest.raises(
        ArgumentException, match="<lambda> must return arrays of backend 'strict' like initial, got others"
    ):
        solve(strict.asarray(np.zeros(3)), strict.asarray(np.zeros(3)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_solution_that_is_not_finite_is_an_error(bad: float) -> None:
    def solve(initial: Any, theta: Any) -> Any:
        return np.array([1.0, bad, bad])

    solution = implicit_diff(doubled)(solve)
    with pytest.raises(InvalidOperationException, match="solve must return finite numbers, got 2 of 3 that are not"):
        solution(np.zeros(3), np.zeros(3))


def test_a_linear_solve_that_is_not_finite_is_an_error() -> None:
    @implicit_diff(lambda phi, theta: np.sqrt(phi) * theta)
    def solve(initial: Any, theta: Any) -> Any:
        return np.zeros(2)

    message = "the linear solve for a derivative of solve met numbers that are not finite in 1 of 1 systems"
    with pytest.raises(InvalidOperationException, match=message):
        ad.grad(lambda t: np.sum(solve(np.zeros(2), t)))(1.0)


def test_a_singular_system_is_warned_of() -> None:
    # ∂F/∂φ has rank one.
    @implicit_diff(lambda phi, theta: np.array([[1.0, 2.0], [2.0, 4.0]]) @ phi - theta)
    def solve(initial: Any, theta: Any) -> Any:
        return theta

    with pytest.warns(
        UnconvergedSolveWarning,
        match="the linear solve for a derivative of solve did not converge in 1 of 1 systems; the worst, row 0, "
        r"stopped at 'breakdown' with the residual norm 0\.894, where rtol·‖b‖ = 1e-10, after \d iterations",
    ):
        ad.jvp(lambda t: solve(np.zeros(2), t), (np.zeros(2),), (np.array([1.0, 0.0]),))


def test_a_limit_of_iterations_is_warned_of_and_kept() -> None:
    rng = np.random.default_rng(0)
    A = np.diag(np.geomspace(1, 1e4, 30))

    @implicit_diff(lambda phi, theta: A @ phi - theta, symmetric=True, max_iterations=3)
    def solve(initial: Any, theta: Any) -> Any:
        return theta / np.diag(A)

    with pytest.warns(UnconvergedSolveWarning, match=r"'max iterations' with the residual norm .* after 3 iterations"):
        ad.jvp(lambda t: solve(np.zeros(30), t), (np.ones(30),), (rng.standard_normal(30),))


def test_symmetric_is_for_positive_definite_systems() -> None:
    solve = implicit_diff(lambda phi, theta: theta - phi, symmetric=True)(lambda initial, theta: theta)
    with pytest.warns(UnconvergedSolveWarning, match="stopped at 'non-positive curvature'"):
        ad.jvp(lambda t: solve(np.zeros(2), t), (np.ones(2),), (np.ones(2),))


@pytest.mark.parametrize("skew", [1e-6, 1e-3, 0.1, 1.0])
def test_a_matrix_that_is_said_to_be_symmetric_and_is_not_is_refused(skew: float) -> None:
    # Solved as if it were its own transpose, with a residual that shows nothing.
    A = np.eye(6) + skew * np.triu(np.ones((6, 6)), 1)
    solve = implicit_diff(lambda phi, theta: A @ phi - theta, symmetric=True, max_iterations=1000)(
        lambda initial, theta: np.linalg.solve(A, theta)
    )
    c = np.arange(1.0, 7.0)
    with warnings.catch_warnings():
        # With a skew part that is large, conjugate gradient does not end well, which is said as well.
        warnings.simplefilter("error" if skew < 0.1 else "ignore", UnconvergedSolveWarning)
        with pytest.raises(ArgumentException, match="symmetric must be False for <lambda>, got True: ∂F/∂φ is not sy"):
            ad.grad(lambda t: np.sum(c * solve(np.zeros(6), t)))(np.ones(6))
    right = implicit_diff(lambda phi, theta: A @ phi - theta)(lambda initial, theta: np.linalg.solve(A, theta))
    found = ad.grad(lambda t: np.sum(c * right(np.zeros(6), t)))(np.ones(6))
    np.testing.assert_allclose(found, np.linalg.solve(A.T, c), rtol=1e-8)


def derivative_said_to_be_symmetric(A: Values, c: Values) -> Values:
    solve = implicit_diff(lambda phi, theta: A @ phi - theta, symmetric=True)(
        lambda initial, theta: np.linalg.solve(A, theta)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnconvergedSolveWarning)
        return ad.grad(lambda t: np.sum(c * solve(np.zeros(len(A)), t)))(np.ones(len(A)))


@pytest.mark.slow
@pytest.mark.parametrize("n", range(2, 9))
def test_no_small_matrix_that_is_not_symmetric_is_taken_for_one(n: int) -> None:
    rng = np.random.default_rng(n)
    chain = rng.random((n, n))
    made = [np.eye(n) - 0.9 * chain / chain.sum(axis=1, keepdims=True)]
    made += [3 * np.eye(n) + scale * rng.standard_normal((n, n)) for scale in (1e-4, 1.0) for _ in range(3)]
    signs = [np.where(np.arange(n) >> bit & 1, -1.0, 1.0) for bit in range(2)]
    for A in made:
        for c in (*signs, A @ signs[0], A @ signs[1], A @ A.T @ signs[1]):
            with pytest.raises(ArgumentException, match="symmetric must be False"):
                derivative_said_to_be_symmetric(A, c)
            symmetric = A @ A.T
            found = derivative_said_to_be_symmetric(symmetric, c)
            np.testing.assert_allclose(found, np.linalg.solve(symmetric, c), rtol=1e-5, atol=1e-7)


def test_a_small_part_that_is_not_symmetric_shows_in_the_solution() -> None:
    # Beside 1e9, a random vector does not show it.
    A = scipy.linalg.block_diag(1e9, [[1.0, 0.5], [-0.5, 1.0]])
    with pytest.raises(ArgumentException, match="for a random vector u and the solution w, in row 0"):
        derivative_said_to_be_symmetric(A, np.array([1.0, 1.0, 2.0]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("condition", [1.0, 1e4, 1e8])
def test_a_symmetric_matrix_is_taken_for_one(dtype: Any, condition: float) -> None:
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.standard_normal((40, 40)))[0]
    # Made with roundings of its own at each product.
    root = (Q * np.geomspace(condition**-0.5, 1, 40)).astype(dtype)
    solve = implicit_diff(lambda phi, theta: root @ (root.T @ phi) - theta, symmetric=True)(
        lambda initial, theta: np.linalg.lstsq(root @ root.T, theta)[0]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnconvergedSolveWarning)
        ad.grad(lambda t: np.sum(solve(np.zeros(40, dtype), t)))(rng.standard_normal(40).astype(dtype))


def test_a_checked_solve_names_the_worst_row() -> None:
    rhs = np.array([[1.0, 1.0], [1.0, 2.0], [3.0, 4.0]])
    d = np.array([[1.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    with pytest.warns(
        UnconvergedSolveWarning,
        match=r"the solve did not converge in 2 of 3 systems; the worst, row 1, .* norm 2, where rtol.* = 2\.24e-10,",
    ):
        x, report = checked_solve(gmres, lambda v: d * v, rhs, what="the solve")
    assert report.converged.tolist() == [True, False, False]
    np.testing.assert_allclose(x[0], [1.0, 1.0])
    with pytest.raises(
        InvalidOperationException, match=r"the linear solve met numbers .* in 1 of 3 systems, first in row 1"
    ):
        checked_solve(conjugate_gradient, lambda v: v, np.where(d > 0, rhs, [[0.0], [np.nan], [0.0]]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checked_solve(conjugate_gradient, lambda v: 2.0 * v, rhs)


def test_a_checked_solve_needs_a_solver() -> None:
    with pytest.raises(ArgumentNullException, match=r"solver must be a function of an operator and a right.*got None"):
        checked_solve(None, lambda v: v, np.ones(2))  # type: ignore[arg-type]
    with pytest.raises(ArgumentException, match=r"solver must be a function of .*, got 3"):
        checked_solve(3, lambda v: v, np.ones(2))  # type: ignore[arg-type]
    # SciPy's solvers return a solution and a number.
    for result in ((np.ones(2), 0), np.ones(2), None):
        with pytest.raises(
            ArgumentException, match="the result of solver must be a solution and its SolverReport, got"
        ):
            checked_solve(lambda operator, rhs, r=result: r, lambda v: v, np.ones(2))  # type: ignore[arg-type, misc]


def test_a_solver_in_the_place_of_its_condition() -> None:
    @implicit_diff
    def root(initial: Any, theta: Any) -> Any:
        return np.sqrt(theta)

    with pytest.raises(
        ArgumentException,
        match=r"implicit_diff must get the condition first, then the solver, as in @implicit_diff\(condition\), got a",
    ):
        root(np.ones(1), np.ones(1))


def test_arguments_by_name() -> None:
    @implicit_diff(lambda phi, theta: phi**2 - theta)
    def root(initial: Any, theta: Any) -> Any:
        return np.sqrt(theta)

    with pytest.raises(ArgumentException, match="arguments of root must be given by their places, got theta by name"):
        root(np.ones(1), theta=np.ones(1))
