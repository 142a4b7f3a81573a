"""When solvers stop: rtol and atol as in SciPy, at every size that numbers can have."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg
from hypothesis import given
from hypothesis import strategies as st

from aidotnet_py import autodiff as ad
from aidotnet_py.backends import Backend
from aidotnet_py.exceptions import ArgumentOutOfRangeException
from aidotnet_py.implicit import implicit_diff
from aidotnet_py.solvers import SolverReport, StopReason, conjugate_gradient, gmres, neumann_series

SOLVERS = {"cg": conjugate_gradient, "gmres": gmres}
D = np.array([1.0, 2.0, 4.0, 5.0])
B = np.array([1.0, -3.0, 2.0, 0.5])
# Of each dtype, magnitudes whose squares it cannot hold, and ordinary ones.
SIZES = [(np.float64, u) for u in (1e-300, 1e-200, 1e-11, 1.0, 1e11, 1e200, 1e300)]
SIZES += [(np.float32, u) for u in (1e-35, 1e-25, 1e-11, 1.0, 1e11, 1e25, 1e35)]


def diagonal(backend: Backend, d: np.ndarray, dtype: Any = np.float64) -> Any:
    device = backend.asarray(d.astype(dtype))
    return lambda v: v * device


def solved(solve: Any, backend: Backend, d: np.ndarray, b: np.ndarray, **options: Any) -> tuple[Any, SolverReport]:
    x, report = solve(diagonal(backend, d, b.dtype), backend.asarray(b), **options)
    return backend.to_numpy(x), report


# --- which bound, and what it means -----------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("rtol", "atol"), [(1e-3, 0.0), (0.0, 0.01), (1e-6, 1e-2), (1e-1, 1e-12), (0.3, 0.1)])
def test_the_larger_bound_ends_the_work_where_scipy_ends_it(solver: str, rtol: float, atol: float) -> None:
    rng = np.random.default_rng(0)
    d, b = np.geomspace(1, 300, 40), rng.standard_normal(40)
    _, report = SOLVERS[solver](lambda v: d * v, b, rtol=rtol, atol=atol)
    bound = max(rtol * np.linalg.norm(b), atol)
    assert report.bounds[0] == pytest.approx(bound, rel=1e-14)
    assert report.bound_names == ("rtol" if rtol * np.linalg.norm(b) > atol else "atol",)
    assert report.rhs_norms[0] == pytest.approx(np.linalg.norm(b), rel=1e-14)
    assert report.converged.all()
    assert report.residual_norms[0] <= bound
    if solver == "cg":
        steps: list[Any] = []
        scipy.sparse.linalg.cg(np.diag(d), b, rtol=rtol, atol=atol, callback=steps.append)
        assert report.iterations[0] == len(steps)
    else:
        _, short = gmres(lambda v: d * v, b, rtol=rtol, atol=atol, max_iterations=int(report.iterations[0]) - 1)
        assert short.residual_norms[0] > bound


@pytest.mark.parametrize("solver", SOLVERS)
def test_each_row_has_a_bound_of_its_own(solver: str, backend: Backend) -> None:
    units = np.array([[1e-9], [1.0], [1e9]])
    _, report = solved(SOLVERS[solver], backend, D, units * B, rtol=1e-6, atol=1e-6)
    assert report.bound_names == ("atol", "rtol", "rtol")
    np.testing.assert_allclose(report.bounds, [1e-6, 1e-6 * np.linalg.norm(B), 1e3 * np.linalg.norm(B)])
    assert report.iterations.tolist() == [0, 4, 4]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 100 * 2.0**-23), (np.float64, 1e-10)])
def test_the_default_is_relative_and_within_reach_of_the_dtype(solver: str, dtype: Any, rtol: float) -> None:
    b = B.astype(dtype)
    _, report = SOLVERS[solver](lambda v: D.astype(dtype) * v, b)
    assert report.bounds[0] == pytest.approx(rtol * np.linalg.norm(b), rel=1e-6)
    assert report.converged.all()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("bounds", [{"rtol": 1e-10}, {"rtol": 0.0}, {"rtol": 0.0, "atol": 1e-12}])
def test_a_bound_below_the_precision_ends_in_a_reason(solver: str, bounds: dict[str, float], backend: Backend) -> None:
    rng = np.random.default_rng(1)
    d, b = np.geomspace(1, 100, 30), rng.standard_normal(30).astype(np.float32)
    _, report = solved(SOLVERS[solver], backend, d, b, max_iterations=100_000, **bounds)
    assert report.stop_reasons == (StopReason.PRECISION_LIMIT,)
    assert report.iterations[0] < 1000
    assert 0 < report.residual_norms[0] < 1e-5 * np.linalg.norm(b)


def test_a_series_is_judged_and_not_cut_short(backend: Backend) -> None:
    d, b = np.array([[1.5], [0.9], [3.0]]), np.full((3, 1), 2.0)
    for terms in (3, 20):
        x, report = solved(neumann_series, backend, d, b, terms=terms, rtol=1e-5, atol=1e-7)
        assert report.iterations.tolist() == [terms] * 3
        np.testing.assert_allclose(x, b / d * (1 - (1 - d) ** terms), rtol=1e-12)
        np.testing.assert_allclose(report.residual_norms, 2 * np.abs(1 - d[:, 0]) ** terms, atol=1e-14)
        assert report.converged.tolist() == [terms == 20, terms == 20, False]
    _, report = solved(neumann_series, backend, d, b, terms=20)
    assert report.converged.tolist() == [False, True, False]
    _, report = solved(neumann_series, backend, d, b, terms=3, atol=10.0)
    assert report.converged.tolist() == [True, True, False]
    assert report.bound_names == ("atol",) * 3


@pytest.mark.parametrize("bounds", [{"rtol": -1.0}, {"atol": float("nan")}, {"rtol": 10**400}])
def test_bounds_of_a_series_are_checked_before_any_work(bounds: dict[str, Any], backend: Backend) -> None:
    with pytest.raises(
        ArgumentOutOfRangeException, match=rf"{next(iter(bounds))} must be a finite number of at.*, got .*"
    ):
        neumann_series(never, backend.asarray(B), terms=2, **bounds)


def never(v: Any) -> Any:
    raise AssertionError("work was done")


# --- all sizes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("dtype", "unit"), SIZES)
def test_a_right_hand_side_of_any_size_is_solved(solver: str, dtype: Any, unit: float, backend: Backend) -> None:
    b = np.multiply(B, unit).astype(dtype)
    x, report = solved(SOLVERS[solver], backend, D, b)
    assert report.converged.all()
    np.testing.assert_allclose(x.astype(np.longdouble) / unit, B / D, rtol=1e-4 if dtype is np.float32 else 1e-9)
    np.testing.assert_allclose(report.rhs_norms / dtype(unit), np.linalg.norm(B), rtol=1e-6)
    assert 0 < report.iterations[0] <= 5


@pytest.mark.numpy_first
@given(seed=st.integers(0, 2**32 - 1), solver=st.sampled_from(sorted(SOLVERS)), single=st.booleans())
def test_rows_of_all_sizes_beside_each_other(seed: int, solver: str, single: bool, backend: Backend) -> None:
    """Right-hand sides, matrices and starts from 1e-200 to 1e200, in float32 from 1e-25 to 1e25."""
    rng = np.random.default_rng(seed)
    dtype, most = (np.float32, 25) if single else (np.float64, 200)
    eps = float(np.finfo(dtype).eps)
    tasks, n = int(rng.integers(1, 5)), int(rng.integers(1, 8))
    powers = rng.integers(-most, most + 1, (tasks, 1)).astype(float)
    b = (10.0**powers * rng.standard_normal((tasks, n))).astype(dtype)
    # So that x and A·x stay within the dtype.
    matrix_powers = np.clip(rng.integers(-most // 2, most // 2 + 1, (tasks, 1)), powers - most, powers + most)
    d = (10.0**matrix_powers * rng.uniform(1, 3, (tasks, n))).astype(dtype)
    exact = b.astype(np.longdouble) / d.astype(np.longdouble)
    options: dict[str, Any] = {"max_iterations": 10 * n}
    if rng.random() < 0.4:
        options["initial"] = backend.asarray((exact * rng.uniform(0.5, 2, (tasks, n))).astype(dtype))
    x, report = solved(SOLVERS[solver], backend, d, b, **options)
    true = np.linalg.norm((b - d.astype(np.longdouble) * x).astype(np.longdouble), axis=1)
    size = np.sqrt(np.sum(np.square(b.astype(np.longdouble)), axis=1))
    assert report.converged.all()
    assert (true <= 1.1 * max(1e-10, 100 * eps) * size).all()
    assert (np.abs(report.residual_norms - true) <= 0.1 * true + 10 * n * eps * size).all()
    if backend.name == "cupy":
        return  # CUDA divides sums by the sizes of the whole batch
    # Whoever is beside a row does not change its bits.
    row = int(rng.integers(tasks))
    if "initial" in options:
        options["initial"] = backend.asarray(backend.to_numpy(options["initial"])[[row]])
    alone, _ = solved(SOLVERS[solver], backend, d[[row]], b[[row]], **options)
    assert alone.tobytes() == x[[row]].tobytes()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("dtype", "powers"), [(np.float64, (-600, -20, 20, 600)), (np.float32, (-80, -5, 5, 80))])
def test_powers_of_two_change_no_digit(solver: str, dtype: Any, powers: tuple[int, ...], backend: Backend) -> None:
    rng = np.random.default_rng(3)
    d, b = np.geomspace(1, 50, 12), rng.standard_normal(12).astype(dtype)
    start = rng.standard_normal(12).astype(dtype)
    for options in ({}, {"initial": start}):
        plain, report = solved(SOLVERS[solver], backend, d, b, **{k: backend.asarray(v) for k, v in options.items()})
        for power in powers:
            moved = {k: backend.asarray(np.ldexp(v, power)) for k, v in options.items()}
            x, other = solved(SOLVERS[solver], backend, d, np.ldexp(b, power), **moved)
            assert np.ldexp(x, -power).tobytes() == plain.tobytes()
            assert other.iterations.tolist() == report.iterations.tolist()
            assert np.ldexp(other.residual_norms, -power).tobytes() == report.residual_norms.tobytes()


@pytest.mark.parametrize("power", [-600, 600])
def test_a_matrix_of_any_size_is_not_called_singular(power: int, backend: Backend) -> None:
    rng = np.random.default_rng(4)
    A, b = rng.standard_normal((12, 12)), rng.standard_normal(12)

    def operator(scale: float) -> Any:
        return lambda v: backend.asarray(A @ backend.to_numpy(v) * scale)

    plain, _ = gmres(operator(1.0), backend.asarray(b))
    x, report = gmres(operator(float(np.ldexp(1.0, power))), backend.asarray(b))
    assert report.converged.all()
    assert np.ldexp(backend.to_numpy(x), power).tobytes() == backend.to_numpy(plain).tobytes()


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_solution_that_the_dtype_cannot_hold_is_not_claimed(solver: str, backend: Backend) -> None:
    # 1e-500, 1e500, and one that is subnormal and has few digits.
    b = np.array([[1e-250], [1e250], [1e-200], [2.0]])
    d = np.array([[1e250], [1e-250], [3e120], [1.0]])
    x, report = solved(SOLVERS[solver], backend, d, b)
    assert report.stop_reasons == (
        StopReason.PRECISION_LIMIT,
        StopReason.NOT_FINITE,
        StopReason.PRECISION_LIMIT,
        StopReason.CONVERGED,
    )
    np.testing.assert_allclose(x[[0, 1, 3], 0], [0.0, 0.0, 2.0])
    assert x[2, 0] == 1e-200 / 3e120
    true = np.abs(b - d * x)[:, 0]
    np.testing.assert_allclose(report.residual_norms[[0, 2]], true[[0, 2]], rtol=1e-9)
    assert true[2] > 1e-10 * b[2, 0]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("start", [None, 7.0])
def test_no_solution_has_numbers_that_are_not_finite(solver: str, start: float | None, backend: Backend) -> None:
    # 1e376; the norm of b is of a size that is not scaled.
    b, d = np.full((2, 3), 1e76), np.array([[1e-300], [1.0]]) * [1.0, 2.0, 3.0]
    options = {} if start is None else {"initial": backend.asarray(np.full((2, 3), start))}
    x, report = solved(SOLVERS[solver], backend, d, b, **options)
    assert report.stop_reasons == (StopReason.NOT_FINITE, StopReason.CONVERGED)
    assert np.isfinite(x).all()
    assert report.iterations[0] == 0
    np.testing.assert_allclose(report.residual_norms[0], np.linalg.norm(b[0]), rtol=1e-9)
    np.testing.assert_allclose(x[1], b[1] / d[1], rtol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_zero_right_hand_side_is_solved_from_any_start(solver: str, backend: Backend) -> None:
    b, start = np.array([[0.0] * 4, B]), np.ones((2, 4))
    x, report = solved(SOLVERS[solver], backend, D, b, initial=backend.asarray(start))
    np.testing.assert_allclose(x, b / D, atol=1e-12)
    assert (x[0] == 0).all()
    assert report.iterations[0] == 0
    assert report.converged.all()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_named_beside_what_is_huge(solver: str, bad: float, backend: Backend) -> None:
    b = np.stack([1e200 * B, B, 1e-200 * B])
    b[1, 2] = bad
    x, report = solved(SOLVERS[solver], backend, D, b)
    assert report.stop_reasons == (StopReason.CONVERGED, StopReason.NOT_FINITE, StopReason.CONVERGED)
    np.testing.assert_allclose(x[[0, 2]] / [[1e200], [1e-200]], [B / D] * 2, rtol=1e-9)


@pytest.mark.parametrize(
    ("dtype", "power"), [(np.float64, -600), (np.float64, 600), (np.float32, -80), (np.float32, 80)]
)
def test_a_series_of_any_size(dtype: Any, power: int, backend: Backend) -> None:
    d, b = np.array([1.5, 0.75, 1.25]), np.array([1.0, 3.0, -2.0], dtype)
    plain, report = solved(neumann_series, backend, d, b, terms=6)
    x, other = solved(neumann_series, backend, d, np.ldexp(b, power), terms=6)
    assert np.ldexp(x, -power).tobytes() == plain.tobytes()
    assert np.ldexp(other.term_norms, -power).tobytes() == report.term_norms.tobytes()
    assert np.ldexp(other.residual_norms, -power).tobytes() == report.residual_norms.tobytes()
    _, growing = solved(neumann_series, backend, np.array([2.5]), np.ldexp(b[:1], power), terms=4)
    assert growing.grew.all()


# --- the keyword of old -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS)
def test_tolerance_is_the_absolute_bound_that_it_was_and_says_so(solver: str) -> None:
    solve: Any = SOLVERS[solver]
    d, b = np.geomspace(1, 300, 40), 1e-3 * np.ones(40)
    with pytest.warns(DeprecationWarning, match=rf"tolerance of {solve.__name__} is now rtol=0\.0, atol=1e-05") as said:
        x, report = solve(lambda v: d * v, b, tolerance=1e-5)
    assert said[0].filename == __file__
    right, wanted = solve(lambda v: d * v, b, rtol=0.0, atol=1e-5)
    assert x.tobytes() == right.tobytes()
    assert report.bound_names == wanted.bound_names == ("atol",)
    with pytest.raises(TypeError, match=r"must be called with rtol and atol alone, got tolerance beside them"):
        solve(lambda v: v, b, tolerance=1e-5, rtol=0.0)
    with (
        pytest.warns(DeprecationWarning, match=r"version 0\.4 removes tolerance"),
        pytest.raises(ArgumentOutOfRangeException, match=r"atol must be .*, got -1\.0"),
    ):
        solve(lambda v: v, b, tolerance=-1.0)


def test_tolerance_of_implicit_diff_is_rtol() -> None:
    with pytest.warns(DeprecationWarning, match=r"tolerance of implicit_diff is now rtol=0\.5"):
        decorate = implicit_diff(lambda phi, theta: D * phi - theta, tolerance=0.5)
    solution = decorate(lambda initial, theta: theta / D)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loose = ad.grad(lambda t: np.sum(solution(np.zeros(4), t)))(B)
    assert 1e-3 < np.linalg.norm(loose - 1 / D) < 0.5 * 2


# --- implicit_diff ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("unit", [1e-300, 1e-200, 1e-12, 1.0, 1e200])
def test_a_derivative_of_any_size(symmetric: bool, unit: float) -> None:
    solution = implicit_diff(lambda phi, theta: D * phi - theta, symmetric=symmetric)(lambda initial, theta: theta / D)
    g = ad.grad(lambda t: unit * np.sum(solution(np.zeros(4), t)))(B)
    np.testing.assert_allclose(g / unit, 1 / D, rtol=1e-9)


def test_atol_is_for_the_residual_itself() -> None:
    solution = implicit_diff(lambda phi, theta: D * phi - theta, rtol=0.0, atol=1e-3)(lambda initial, theta: theta / D)
    g = ad.grad(lambda t: np.sum(solution(np.zeros(4), t)))(B)
    np.testing.assert_allclose(g, 1 / D, rtol=1e-2)
    # A cotangent of norm 2e-6 is below it: zero is within the bound that was asked for.
    g = ad.grad(lambda t: 1e-6 * np.sum(solution(np.zeros(4), t)))(B)
    np.testing.assert_array_equal(g, np.zeros(4))
