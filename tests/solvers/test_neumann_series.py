"""The Neumann series: against its closed forms; growth and residuals in its report; what it refuses."""

from __future__ import annotations

import doctest
import importlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import ROOT

from aidotnet_py.backends import Backend, NumPyBackend
from aidotnet_py.exceptions import ArgumentException, ArgumentNullException, ArgumentOutOfRangeException
from aidotnet_py.solvers import StopReason, conjugate_gradient, neumann_series
from aidotnet_py.testing import symmetric_matrices

EPS = float(np.finfo(np.float64).eps)


def symmetric(rng: np.random.Generator, spectrum: np.ndarray) -> np.ndarray:
    return symmetric_matrices(rng, spectrum[None])[0]


def on_rows(backend: Backend, A: np.ndarray) -> Any:
    """A single symmetric matrix as an operator on rows, or on one vector."""
    return lambda v: backend.asarray(backend.to_numpy(v) @ A)


def graded(backend: Backend, d: np.ndarray) -> Any:
    """A diagonal operator, elementwise."""
    device = backend.asarray(d)
    return lambda v: v * device


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 30), terms=st.integers(1, 12), reach=st.floats(0.0, 1.5))
def test_sum_is_the_closed_form(seed: int, n: int, terms: int, reach: float, backend: Backend) -> None:
    # Σ_{j<J} (−λH)ʲ b = Q Σ (−λh)ʲ Qᵀb for the system of iMAML, A = I + λH, shrinking or growing.
    rng = np.random.default_rng(seed)
    h = rng.uniform(-reach, reach, n)
    H, b = symmetric(rng, h), rng.standard_normal((2, n))
    A = np.eye(n) + H
    x, report = neumann_series(on_rows(backend, A), backend.asarray(b), terms=terms)
    expected = sum(b @ np.linalg.matrix_power(-H, j) for j in range(terms))
    size = sum(max(1.0, reach) ** j for j in range(terms))
    rounding = 10 * terms * n * EPS * (1 + reach) * size * np.linalg.norm(b, axis=1)
    assert (np.linalg.norm(backend.to_numpy(x) - expected, axis=1) <= rounding).all()
    for j in range(terms):
        norms = np.linalg.norm(b @ np.linalg.matrix_power(-H, j), axis=1)
        assert (abs(report.term_norms[j] - norms) <= rounding).all()
    # The residual is that of the x returned, and the one that theory gives.
    true = np.linalg.norm(b - backend.to_numpy(x) @ A, axis=1)
    assert (abs(report.residual_norms - true) <= rounding).all()
    theory = np.linalg.norm(b @ np.linalg.matrix_power(-H, terms), axis=1)
    assert (abs(report.residual_norms - theory) <= (2 + reach) * rounding).all()
    assert report.iterations.tolist() == [terms, terms]
    np.testing.assert_allclose(report.initial_residual_norms, np.linalg.norm(b, axis=1), rtol=1e-14)


def test_a_shrinking_series_tends_to_the_solution(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    A = symmetric(rng, np.linspace(0.6, 1.4, 12))
    b = rng.standard_normal(12)
    x, report = neumann_series(on_rows(backend, A), backend.asarray(b), terms=60)
    np.testing.assert_allclose(backend.to_numpy(x), np.linalg.solve(A, b), rtol=1e-12)
    assert not report.grew.any()
    solution, _ = conjugate_gradient(on_rows(backend, A), backend.asarray(b))
    np.testing.assert_allclose(backend.to_numpy(x), backend.to_numpy(solution), rtol=1e-9)


def test_one_term_is_the_right_hand_side(backend: Backend) -> None:
    b = backend.asarray(np.array([1.0, -2.0]))
    x, report = neumann_series(lambda v: 5.0 * v, b, terms=1)
    np.testing.assert_array_equal(backend.to_numpy(x), [1, -2])
    assert not np.shares_memory(backend.to_numpy(x), backend.to_numpy(b))
    np.testing.assert_allclose(report.residual_norms, 4 * np.sqrt(5))
    assert not report.grew.any()


@pytest.mark.parametrize("terms", [1, 2, 5])
def test_a_product_a_term(terms: int, backend: Backend) -> None:
    calls: list[tuple[int, ...]] = []

    def operator(v: Any) -> Any:
        calls.append(tuple(v.shape))
        return 1.25 * v

    neumann_series(operator, backend.asarray(np.ones((3, 4))), terms=terms)
    assert calls == [(3, 4)] * terms


@pytest.mark.parametrize("terms", [2, 20])
def test_the_host_does_not_look_at_every_term(terms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    plain = NumPyBackend.to_numpy

    def to_numpy(self: NumPyBackend, array: Any) -> Any:
        nonlocal looks
        looks += 1
        return plain(self, array)

    monkeypatch.setattr(NumPyBackend, "to_numpy", to_numpy)
    neumann_series(lambda v: 1.5 * v, np.ones((2, 5)), terms=terms)
    # ‖b‖ at the start, and what has become of terms and residual in the end.
    assert looks == 3


# --- growth -----------------------------------------------------------------------------------------------------------


def test_growth_is_told_task_by_task(backend: Backend) -> None:
    d = np.array([[1.5], [3.0], [2.0], [1.0], [0.1], [-1.0]])
    _, report = neumann_series(graded(backend, d), backend.asarray(np.full((6, 1), 2.0)), terms=4)
    # Ratios −0.5, −2, −1 (it stays, and never converges), 0, 0.9, 2.
    assert report.grew.tolist() == [False, True, True, False, False, True]
    np.testing.assert_array_equal(report.first_term_norms, [2] * 6)
    np.testing.assert_allclose(report.last_term_norms, [0.25, 16, 2, 0, 2 * 0.9**3, 16], rtol=1e-14)


def test_a_series_that_turns_is_seen_before_its_last_term_passes_the_first(backend: Backend) -> None:
    # The large component dies out while the small one doubles: the sum has the divergence in it already.
    d = np.array([[1.1, 3.0]])
    _, report = neumann_series(graded(backend, d), backend.asarray(np.array([[1.0, 1e-3]])), terms=6)
    assert report.last_term_norms[0] < report.first_term_norms[0]
    assert report.term_norms[-1, 0] > report.term_norms[-2, 0]
    assert report.grew.all()


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 20), terms=st.integers(2, 10), reach=st.floats(0.01, 0.95))
def test_a_contraction_never_grew(seed: int, n: int, terms: int, reach: float, backend: Backend) -> None:
    rng = np.random.default_rng(seed)
    A = np.eye(n) + symmetric(rng, rng.uniform(-reach, reach, n))
    _, report = neumann_series(on_rows(backend, A), backend.asarray(rng.standard_normal((3, n))), terms=terms)
    assert not report.grew.any()
    assert (report.residual_norms < report.initial_residual_norms).all()


@pytest.mark.numpy_first
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 20), reach=st.floats(1.2, 4))
def test_an_expansion_is_seen_in_the_end(seed: int, n: int, reach: float, backend: Backend) -> None:
    rng = np.random.default_rng(seed)
    spectrum = rng.uniform(-1, 1, n)
    spectrum[0] = reach
    A = np.eye(n) + symmetric(rng, spectrum)
    _, report = neumann_series(on_rows(backend, A), backend.asarray(rng.standard_normal((2, n))), terms=60)
    assert report.grew.all()


def test_a_series_at_its_rounding_did_not_grow(backend: Backend) -> None:
    rng = np.random.default_rng(1)
    A = np.eye(8) + symmetric(rng, rng.uniform(-0.5, 0.5, 8))
    _, report = neumann_series(on_rows(backend, A), backend.asarray(rng.standard_normal((2, 8))), terms=200)
    assert not report.grew.any()
    # The terms have gone far below what x can hold; the residual has not, for it is measured.
    assert (report.last_term_norms < 1e-40).all()
    assert (report.residual_norms > 1e-18).all()


@pytest.mark.numpy_first
def test_a_series_that_fades_to_nothing_did_not_grow(backend: Backend) -> None:
    # Squares of the terms go through the subnormal numbers of float32, where two in a row are often equal.
    for terms in (485, 488, 489, 493):
        _, report = neumann_series(lambda v: 0.1 * v, backend.asarray(np.ones(1, np.float32)), terms=terms)
        assert not report.grew.any()


@pytest.mark.parametrize("factor", [1e200, -1e200])
def test_overflow_is_growth_and_is_named(factor: float, backend: Backend) -> None:
    d, b = np.array([[factor], [1.5]]), np.full((2, 3), 2.0)
    with backend.errors_ignored():
        _, report = neumann_series(graded(backend, d), backend.asarray(b), terms=5)
    assert report.grew.tolist() == [True, False]
    assert report.stop_reasons == (StopReason.NOT_FINITE, StopReason.MAX_ITERATIONS)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_that_is_not_finite_touches_no_other(bad: float, backend: Backend) -> None:
    d = np.array([[1.5, 0.75, 1.25]])
    b = np.random.default_rng(2).standard_normal((3, 3))
    good, good_report = neumann_series(graded(backend, d), backend.asarray(b), terms=4)
    b[1, 1] = bad
    x, report = neumann_series(graded(backend, d), backend.asarray(b), terms=4)
    assert backend.to_numpy(x)[::2].tobytes() == backend.to_numpy(good)[::2].tobytes()
    assert report.residual_norms[::2].tobytes() == good_report.residual_norms[::2].tobytes()
    assert report.stop_reasons[1] is StopReason.NOT_FINITE
    # What came in broken did not grow.
    assert not report.grew.any()


def test_an_exact_sum_has_converged(backend: Backend) -> None:
    _, report = neumann_series(lambda v: v, backend.asarray(np.array([[1.0, 2.0], [0.0, 0.0]])), terms=3)
    assert report.converged.all()
    _, report = neumann_series(lambda v: 1.5 * v, backend.asarray(np.array([[1.0, 2.0], [0.0, 0.0]])), terms=3)
    assert report.converged.tolist() == [False, True]


# --- shapes, dtypes, ownership ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(5,), (3, 5)])
def test_shape_and_dtype_are_those_of_the_right_hand_side(shape: tuple[int, ...], dtype: Any, backend: Backend) -> None:
    b = np.random.default_rng(3).standard_normal(shape).astype(dtype)
    rhs = backend.asarray(b)
    x, report = neumann_series(lambda v: 1.5 * v, rhs, terms=3)
    assert backend.owns(x)
    assert tuple(x.shape) == shape
    assert backend.dtype_of(x) == report.residual_norms.dtype == report.term_norms.dtype == dtype
    assert report.term_norms.shape == (3, 3 if len(shape) == 2 else 1)
    np.testing.assert_allclose(backend.to_numpy(x), 0.75 * b, rtol=4 * float(np.finfo(dtype).eps))
    np.testing.assert_array_equal(backend.to_numpy(rhs), b)


def test_an_operator_may_return_its_argument_or_one_buffer(backend: Backend) -> None:
    b = backend.asarray(np.ones((2, 3)))
    buffer = backend.asarray(np.ones((2, 3)))

    def operator(v: Any) -> Any:
        backend.copyto(buffer, 1.5 * v)
        return buffer

    x, _ = neumann_series(operator, b, terms=3)
    np.testing.assert_array_equal(backend.to_numpy(x), np.full((2, 3), 0.75))
    x, _ = neumann_series(lambda v: v, b, terms=3)
    np.testing.assert_array_equal(backend.to_numpy(x), np.ones((2, 3)))


# --- what is refused --------------------------------------------------------------------------------------------------


def refuse(v: Any) -> Any:
    raise AssertionError("work was done")


@pytest.mark.parametrize(
    ("terms", "error", "message"),
    [
        (0, ArgumentOutOfRangeException, r"terms must be a whole number of at least 1.*, got 0"),
        (-1, ArgumentOutOfRangeException, r"terms must be .*, got -1"),
        (2.5, ArgumentException, r"terms must be a whole number.*, got 2\.5"),
        (None, ArgumentException, r"terms must be .*, got None"),
        (True, ArgumentException, r"terms must be .*, got True"),
    ],
)
def test_terms_out_of_range_are_refused(terms: Any, error: type[Exception], message: str, backend: Backend) -> None:
    with pytest.raises(error, match=message):
        neumann_series(refuse, backend.asarray(np.ones(3)), terms=terms)


def test_arguments_that_do_not_fit_are_refused(backend: Backend) -> None:
    with pytest.raises(ArgumentException, match=r"rhs must have .*, got shape \(3,\) and dtype int64"):
        neumann_series(refuse, backend.asarray(np.ones(3, np.int64)), terms=2)
    with pytest.raises(ArgumentNullException, match=r"rhs must be .*, got None"):
        neumann_series(refuse, None, terms=2)
    with pytest.raises(ArgumentNullException, match=r"operator must be .*, got None"):
        neumann_series(None, backend.asarray(np.ones(3)), terms=2)  # type: ignore[arg-type]
    with pytest.raises(
        ArgumentException, match=r"the result of operator must have shape \(3,\).*, got shape \(2,\) .*"
    ):
        neumann_series(lambda v: backend.asarray(np.ones(2)), backend.asarray(np.ones(3)), terms=2)
    with pytest.raises(ArgumentException, match=r"result of operator must have .* float64 .*, got .* float32"):
        neumann_series(lambda v: backend.astype(v, np.float32), backend.asarray(np.ones(3)), terms=1)


# --- documentation ----------------------------------------------------------------------------------------------------


def test_examples_run() -> None:
    # Not an import statement: in the package, the solver's name stands for the function.
    result = doctest.testmod(importlib.import_module("aidotnet_py.solvers.neumann_series"))
    assert result.attempted > 0
    assert result.failed == 0


def test_examples_of_the_page_run() -> None:
    page = ROOT / "docs" / "solvers.md"
    result = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert result.attempted > 10
    assert result.failed == 0
