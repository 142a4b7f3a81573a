"""Linear systems, inverses, Cholesky factors, determinants: stacks, derivatives in closed form, singular matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from aidotnet_py import autodiff as ad
from aidotnet_py.backends import Backend

LEADS: list[tuple[int, ...]] = [(), (2,), (2, 3), (0,), (1, 1)]


def matrices(seed: int, lead: tuple[int, ...], n: int, dtype: Any = np.float64) -> Any:
    """Positive definite matrices, not symmetric."""
    rng = np.random.default_rng(seed)
    return (rng.uniform(-0.5, 0.5, (*lead, n, n)) + n * np.eye(n)).astype(dtype)


def check(found: Any, wanted: Any, rtol: float) -> None:
    assert (found.dtype, found.shape) == (wanted.dtype, np.shape(wanted))
    assert_allclose(found, wanted, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("lead", LEADS, ids=str)
@given(n=st.sampled_from([0, 1, 2, 4]), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=6)
def test_values_are_those_of_numpy_for_stacks_of_matrices(dtype: Any, lead: Any, n: int, seed: int) -> None:
    a, rng = matrices(seed, lead, n, dtype), np.random.default_rng(seed)
    rtol = 100 * float(np.finfo(dtype).eps)
    for f in (np.linalg.inv, np.linalg.det, np.linalg.cholesky, lambda x: np.linalg.cholesky(x, upper=True)):
        check(ad.trace(f, a)(a), np.asarray(f(a)), rtol)
    for part, wanted in zip(ad.trace(np.linalg.slogdet, -a)(-a), np.linalg.slogdet(-a), strict=True):
        check(part, np.asarray(wanted), rtol)
    for shape in ((n,), (n, 2), (*lead, n, 3), (2, *(1 for _ in lead), n, 1)):
        b = rng.normal(size=shape).astype(dtype)
        check(ad.trace(np.linalg.solve, a, b)(a, b), np.linalg.solve(a, b), rtol)


def test_dtypes_are_those_of_numpy() -> None:
    whole = np.array([[2, 1], [1, 3]])
    for f in (np.linalg.inv, np.linalg.det, np.linalg.cholesky):
        check(ad.trace(f, whole)(whole), np.asarray(f(whole)), 1e-14)
    a, b = whole.astype(np.float32), np.ones(2)
    check(ad.trace(np.linalg.solve, a, b)(a, b), np.linalg.solve(a, b), 1e-14)
    check(ad.trace(np.linalg.solve, a, whole)(a, whole), np.linalg.solve(a, whole), 1e-14)
    named = ad.trace(np.linalg.slogdet, b := np.eye(2))(b)
    assert (float(named.sign), float(named.logabsdet)) == (1.0, 0.0)


def test_derivatives_have_their_closed_forms(backend: Backend) -> None:
    """∇det = det A⁻ᵀ, ∇log det = A⁻ᵀ, d inv = −A⁻¹ E A⁻¹, d² inv = 2 A⁻¹ E A⁻¹ E A⁻¹, d³ inv = −6 (A⁻¹ E)³ A⁻¹."""
    a, e = matrices(0, (), 4), np.random.default_rng(1).normal(size=(4, 4))
    inverse = np.linalg.inv(a)
    array, direction = backend.asarray(a), backend.asarray(e)

    def close(found: Any, wanted: Any) -> None:
        assert_allclose(backend.to_numpy(found), wanted, rtol=1e-12, atol=1e-13)

    def along(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda x: ad.jvp(f, (x,), (direction,))[1]

    close(ad.grad(np.linalg.det)(array), np.linalg.det(a) * inverse.T)
    close(ad.grad(lambda x: np.linalg.slogdet(x)[1])(array), inverse.T)
    close(ad.hvp(lambda x: np.linalg.slogdet(x)[1], array, direction), -(inverse @ e @ inverse).T)
    first, moved = along(np.linalg.inv), inverse @ e
    close(first(array), -moved @ inverse)
    close(along(first)(array), 2 * moved @ moved @ inverse)
    close(along(along(first))(array), -6 * moved @ moved @ moved @ inverse)
    b = np.arange(4.0)
    x, pullback = ad.vjp(np.linalg.solve, array, backend.asarray(b))
    c = np.array([1.0, -1.0, 2.0, 0.5])
    of_a, of_b = pullback(backend.asarray(c))
    close(x, inverse @ b)
    close(of_b, inverse.T @ c)
    close(of_a, -np.outer(inverse.T @ c, inverse @ b))


def test_derivatives_of_cholesky_agree_with_many_digits() -> None:
    """Three derivatives of a sum of the factor's elements along a line, by mpmath's differences at 60 digits."""
    a, e = matrices(0, (), 3), np.random.default_rng(2).normal(size=(3, 3))
    weights = np.arange(1.0, 10.0).reshape(3, 3)

    def exact(t: Any) -> Any:
        # The factor of the matrix that has the lower triangle of a + t e.
        places = [[(max(i, j), min(i, j)) for j in range(3)] for i in range(3)]
        factor = mpmath.cholesky(mpmath.matrix([[mpmath.mpf(a[p]) + t * e[p] for p in row] for row in places]))
        return sum(factor[i, j] * weights[i, j] for i in range(3) for j in range(3))

    def value(x: Any) -> Any:
        return np.sum(np.linalg.cholesky(x) * weights)

    def along(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda x: ad.jvp(f, (x,), (e,))[1]

    f = value
    with mpmath.workdps(60):
        for order in (1, 2, 3):
            f = along(f)
            assert float(f(a)) == pytest.approx(float(mpmath.diff(exact, 0, order)), rel=1e-10)
    gradient = ad.grad(value)(a)
    assert_array_equal(gradient, np.tril(gradient))


SINGULAR = np.array([[1.0, 2.0], [2.0, 4.0]])
INDEFINITE = np.array([[1.0, 2.0], [2.0, 1.0]])


@pytest.mark.parametrize(
    ("f", "bad", "message"),
    [
        (np.linalg.inv, SINGULAR, "Singular matrix"),
        (lambda a: np.linalg.solve(a, np.ones(2)), SINGULAR, "Singular matrix"),
        (np.linalg.cholesky, INDEFINITE, "not positive definite"),
        (ad.grad(np.linalg.det), SINGULAR, "Singular matrix"),
        (ad.grad(lambda a: np.linalg.slogdet(a)[1]), SINGULAR, "Singular matrix"),
    ],
)
def test_singular_matrices_are_refused_as_by_numpy(f: Callable[..., Any], bad: Any, message: str) -> None:
    good = np.eye(2)
    program = ad.trace(f, good)
    with pytest.raises(np.linalg.LinAlgError, match=message):
        program(bad)
    with pytest.raises(np.linalg.LinAlgError, match=message):
        ad.vmap(f)(np.stack([good, bad]))
    # The Program serves on.
    assert np.all(np.isfinite(program(good)))


def test_each_backend_refuses_singular_matrices(backend: Backend) -> None:
    for f, bad in ((np.linalg.inv, SINGULAR), (np.linalg.cholesky, INDEFINITE)):
        array = backend.asarray(np.stack([np.eye(2), bad]))
        with pytest.raises(np.linalg.LinAlgError):
            ad.trace(f, array)(array)


def test_determinants_of_singular_matrices_have_values() -> None:
    assert float(ad.trace(np.linalg.det, SINGULAR)(SINGULAR)) == 0.0
    sign, logarithm = ad.trace(np.linalg.slogdet, SINGULAR)(SINGULAR)
    assert (float(sign), float(logarithm)) == (0.0, -np.inf)


def test_one_matrix_for_a_batch_is_factored_once() -> None:
    a, rows = matrices(0, (), 5), np.random.default_rng(0).normal(size=(7, 5))
    solutions = ad.trace(ad.vmap(lambda b: np.linalg.solve(a, b)), rows)
    assert [e.output.type.shape for e in solutions.equations if e.primitive.name == "solve"] == [(5, 7)]
    assert_allclose(solutions(rows), np.linalg.solve(a, rows.T).T, rtol=1e-13)
