"""Conjugate gradient: against its theory, SciPy and NumPy; its report; what it refuses."""

from __future__ import annotations

import doctest
import importlib
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg
from amounts import many
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import until_all_is_compiled

from aidotnet_py.autodiff import grad
from aidotnet_py.backends import Backend, NumPyBackend, get_backend
from aidotnet_py.exceptions import ArgumentException, ArgumentNullException, ArgumentOutOfRangeException
from aidotnet_py.solvers import SolverReport, StopReason, borrowing, conjugate_gradient, gmres, neumann_series
from aidotnet_py.testing import LinearSystem, MatrixOperator, symmetric_matrices
from aidotnet_py.testing.strategies import indefinite_systems, spd_systems

NUMPY = get_backend("numpy")
EPS = float(np.finfo(np.float64).eps)
EPS32 = float(np.finfo(np.float32).eps)


def solved(backend: Backend, A: np.ndarray, b: np.ndarray, **options: Any) -> tuple[np.ndarray, SolverReport]:
    """The solution on the host, and the report."""
    for name in {"initial"} & options.keys():
        options[name] = backend.asarray(options[name])
    x, report = conjugate_gradient(MatrixOperator(A, backend), backend.asarray(b), **options)
    assert backend.owns(x)
    assert backend.dtype_of(x) == b.dtype
    assert tuple(x.shape) == b.shape
    return backend.to_numpy(x), report


def energy_norms(A: np.ndarray, e: np.ndarray) -> np.ndarray:
    """√(eᵀAe) of each task."""
    return np.sqrt(np.maximum(np.einsum("ti,tij,tj->t", e, A, e), 0))


def norms(v: np.ndarray) -> np.ndarray:
    return np.linalg.norm(v, axis=-1)


# --- theory -----------------------------------------------------------------------------------------------------------


@given(spd_systems(unknowns=8, condition=10.0))
def test_ends_at_the_solution_after_n_iterations(system: LinearSystem) -> None:
    # 64 bits of mantissa stand for exact arithmetic, so that 1e-10 leaves nothing to rounding.
    A, exact = system.A.astype(np.longdouble), system.b.astype(np.longdouble)
    b = np.einsum("tij,tj->ti", A, exact)
    x, report = conjugate_gradient(
        lambda v: np.einsum("tij,tj->ti", A, v), b, max_iterations=system.n, rtol=0.0, atol=0.0
    )
    assert (report.iterations <= system.n).all()
    assert (energy_norms(A, x - exact) <= 1e-10 * energy_norms(A, exact)).all()


def test_by_itself_it_goes_on_where_rounding_delays_the_end() -> None:
    A = np.array([[1.0 / (i + j + 1) for i in range(8)] for j in range(8)])
    for rows in (1, 3):
        b = np.ones((rows, 8))
        _, report = conjugate_gradient(lambda v: v @ A, b, rtol=1e-9)
        assert report.converged.all()
        assert (report.iterations > 8).all()


@pytest.mark.parametrize("solver", [conjugate_gradient, gmres])
def test_rows_that_the_operator_mixes_are_warned_of(solver: Any) -> None:
    A = np.array([[4.0, 1.0], [1.0, 3.0]])
    column, columns = np.array([[1.0], [2.0]]), np.array([[1.0, 5.0], [-2.0, 3.0]])
    for b, remedy in ((column, r"rhs\.ravel\(\) for one system"), (columns, "v @ A.T")):
        with pytest.warns(UserWarning, match=rf"rhs of shape .* must be 2 systems, one a row, but .* mixes.*{remedy}"):
            solver(lambda v: A @ v, b)
    # Systems that are apart, and that have no solution, or none within the limit.
    solver(lambda v: v * np.array([[1.0], [0.0]]), columns)
    with np.errstate(invalid="ignore"):
        solver(lambda v: v * np.array([[np.inf], [1.0]]), columns)
    solver(lambda v: v @ A, columns, max_iterations=1, rtol=0.0)
    solver(lambda v: v @ A, columns)
    for rtol in (None, 0.0):
        x, _ = solver(lambda v: np.array([[3.0], [7.0]]) * v, column, rtol=rtol)
        np.testing.assert_allclose(x, [[1 / 3], [2 / 7]], rtol=1e-15)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_needs_as_many_iterations_as_there_are_distinct_eigenvalues(seed: int, distinct: int) -> None:
    rng = np.random.default_rng(seed)
    spectrum = np.tile(np.arange(1.0, distinct + 1), 8)[None, :]
    A, b = symmetric_matrices(rng, spectrum), rng.standard_normal((1, spectrum.size))
    _, report = conjugate_gradient(lambda v: v @ A[0], b)
    assert report.converged.all()
    assert report.iterations[0] == distinct


@given(system=spd_systems())
def test_error_falls_in_the_energy_norm_at_every_iteration(system: LinearSystem) -> None:
    exact = system.solution
    # Rounding holds ‖b − Ax‖ at about n ε ‖A‖ ‖x‖, an energy norm of that over √λ_min; the witness x* adds its own.
    slack = 10 * system.n * EPS * system.largest * norms(exact) / np.sqrt(system.least)
    last = energy_norms(system.A, exact)
    for k in range(1, min(system.n, 8) + 1):
        x, _ = solved(NUMPY, system.A, system.b, max_iterations=k)
        error = energy_norms(system.A, x - exact)
        assert (error <= last + slack).all()
        last = error


@given(system=spd_systems(unknowns=15, condition=1e3))
def test_iterates_are_those_of_scipy(system: LinearSystem) -> None:
    # Rounding turns search directions by about ε κ, and an iterate weighs them by up to κ: two runs of the same
    # recurrence part by ε κ², however the products are summed.
    apart = 100 * system.n * EPS * (system.largest / system.least) ** 2
    for k in range(1, min(system.n, 6) + 1):
        x, _ = solved(NUMPY, system.A, system.b, max_iterations=k, rtol=0.0, atol=1e-13)
        for A, b, ours, bound in zip(system.A, system.b, x, apart, strict=True):
            theirs, _ = scipy.sparse.linalg.cg(A, b, rtol=0, atol=1e-13, maxiter=k)
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=bound * norms(theirs))


@pytest.mark.numpy_first
@given(system=spd_systems())
def test_solution_is_that_of_a_direct_solve(system: LinearSystem, backend: Backend) -> None:
    x, report = solved(backend, system.A, system.b, max_iterations=50 * system.n)
    direct = system.solution
    # ‖x − x*‖ ≤ ‖r‖/λ_min, for both: the reported residual, and the rounding of the two solves.
    rounding = 10 * system.n * EPS * system.largest * norms(direct)
    assert (norms(x - direct) <= (report.residual_norms + rounding) / system.least).all()
    # And the residual is as small as it was asked for, or as the precision allows after the recurrence has wandered.
    wandering = 50 * system.n * EPS * system.largest * norms(direct)
    assert (report.residual_norms <= np.maximum(1e-10 * norms(system.b), wandering)).all()


@given(system=spd_systems(condition=1e4), damping=st.floats(0, 10))
def test_damping_is_a_shift_of_the_diagonal(system: LinearSystem, damping: float) -> None:
    shifted = system.A + damping * np.eye(system.n)
    tolerance = 1e-7
    x, report = solved(
        NUMPY, system.A, system.b, damping=damping, rtol=0.0, atol=tolerance, max_iterations=20 * system.n + 20
    )
    assert report.converged.all()
    true = norms(system.b - np.einsum("tij,tj->ti", shifted, x))
    rounding = 10 * system.n * EPS * (system.largest + damping) * norms(x)
    assert (abs(report.residual_norms - true) <= rounding).all()


# --- batches ----------------------------------------------------------------------------------------------------------


def graded(backend: Backend, n: int, dtype: Any = np.float64, least: float = 1e-4) -> Callable[[Any], Any]:
    """A diagonal operator, elementwise, with the same n eigenvalues for every row."""
    d = backend.reshape(backend.asarray(np.geomspace(least, 1.0, n).astype(dtype)), (1, n))
    return lambda v: v * d


@pytest.mark.numpy_first
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(2, 30),
    tasks=st.integers(2, 5),
    precision=st.sampled_from([(np.float64, 1e-10), (np.float32, 1e-10), (np.float32, 3e-5)]),
)
def test_a_row_has_the_same_bits_in_any_batch(
    seed: int, n: int, tasks: int, precision: tuple[Any, float], backend: Backend
) -> None:
    if backend.name == "cupy":
        pytest.skip("CUDA divides sums by the sizes of the whole batch")
    rng = np.random.default_rng(seed)
    dtype, tolerance = precision
    # Rows that touch few eigenvalues are done early, and must stay as they are while the others go on. Starts that are
    # far make claims that fail, for some rows in one round and for others in another.
    b = rng.standard_normal((tasks, n)) * (rng.uniform(size=(tasks, n)) < rng.uniform(size=(tasks, 1)))
    start = rng.standard_normal((tasks, n)) * rng.choice([0.0, 1.0, 300.0], size=(tasks, 1))
    start[0] = -0.0
    operator = graded(backend, n, dtype, 0.1)

    def solve(rows: list[int]) -> tuple[np.ndarray, SolverReport]:
        rhs, initial = backend.asarray(b[rows].astype(dtype)), backend.asarray(start[rows].astype(dtype))
        x, report = conjugate_gradient(operator, rhs, initial=initial, rtol=0.0, atol=tolerance, max_iterations=2 * n)
        return backend.to_numpy(x), report

    whole, report = solve(list(range(tasks)))
    for row in range(tasks):
        batch = [row] if row % 2 else [row, row, (row + 1) % tasks]
        part, part_report = solve(batch)
        assert part[0].tobytes() == whole[row].tobytes()
        assert part_report.iterations[0] == report.iterations[row]
        assert part_report.residual_norms[0].tobytes() == report.residual_norms[row].tobytes()
        assert part_report.stop_reasons[0] is report.stop_reasons[row]


def test_the_operator_sees_zeros_where_a_row_has_stopped(backend: Backend) -> None:
    # One row each: solved at the start though not exactly, done after one iteration, running, indefinite.
    d = np.geomspace(1, 9, 6) * np.array([[1.0], [1.0], [1.0], [-1.0]])
    b = np.ones((4, 6)) * np.array([[1.0], [0.0], [1.0], [1.0]])
    b[1, 2] = 1.0
    start = np.zeros((4, 6))
    start[0] = 1 / d[0] * (1 + 1e-12)
    device, seen = backend.asarray(d), []

    def operator(v: Any) -> Any:
        seen.append(backend.to_numpy(v).copy())
        return v * device

    x, report = conjugate_gradient(operator, backend.asarray(b), initial=backend.asarray(start), max_iterations=5)
    assert report.iterations.tolist() == [0, 1, 5, 0]
    # The first product measures the start, the last the solution.
    for k, v in enumerate(seen[1:-1]):
        assert v.any(axis=1).tolist() == [False, k < 1, True, k < 1]
    np.testing.assert_array_equal(backend.to_numpy(x)[[0, 3]], start[[0, 3]])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_touches_no_other(bad: float, backend: Backend) -> None:
    b = np.random.default_rng(0).standard_normal((3, 9))
    good, good_report = conjugate_gradient(graded(backend, 9), backend.asarray(b))
    b[1, 4] = bad
    x, report = conjugate_gradient(graded(backend, 9), backend.asarray(b))
    assert backend.to_numpy(x)[::2].tobytes() == backend.to_numpy(good)[::2].tobytes()
    assert (report.iterations[::2] == good_report.iterations[::2]).all()
    assert report.stop_reasons[1] is StopReason.NOT_FINITE
    assert not np.isfinite(report.residual_norms[1])
    assert (backend.to_numpy(x)[1] == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_product_that_is_not_finite_ends_its_row_at_the_last_iterate(bad: float, backend: Backend) -> None:
    rng = np.random.default_rng(1)
    b = rng.standard_normal((3, 8))
    calls = 0

    def operator(v: Any) -> Any:
        nonlocal calls
        calls += 1
        product = backend.to_numpy(graded(backend, 8)(v)).copy()
        if calls == 3:
            product[1, 2] = bad
        return backend.asarray(product)

    x, report = conjugate_gradient(operator, backend.asarray(b), max_iterations=6)
    two, _ = conjugate_gradient(graded(backend, 8), backend.asarray(b), max_iterations=2)
    six, _ = conjugate_gradient(graded(backend, 8), backend.asarray(b), max_iterations=6)
    assert report.stop_reasons[1] is StopReason.NOT_FINITE
    assert report.iterations.tolist() == [6, 2, 6]
    assert backend.to_numpy(x)[1].tobytes() == backend.to_numpy(two)[1].tobytes()
    assert backend.to_numpy(x)[::2].tobytes() == backend.to_numpy(six)[::2].tobytes()
    assert np.isfinite(report.residual_norms).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("culprit", ["operator", "preconditioner"])
def test_a_row_whose_products_are_never_finite_keeps_its_start(culprit: str, bad: float, backend: Backend) -> None:
    rng = np.random.default_rng(11)
    b, start = rng.standard_normal((3, 8)), rng.standard_normal((3, 8))
    calls = 0

    def spoilt(v: Any) -> Any:
        nonlocal calls
        calls += 1
        product = backend.to_numpy(graded(backend, 8)(v)).copy()
        # Not in the first product of the operator, which measures the start.
        if calls > (culprit == "operator"):
            product[1] = bad
        return backend.asarray(product)

    functions = {"operator": graded(backend, 8), "preconditioner": lambda r: r}
    options: dict[str, Any] = {"initial": backend.asarray(start), "max_iterations": 5}
    good, _ = conjugate_gradient(rhs=backend.asarray(b), **functions, **options)
    x, report = conjugate_gradient(rhs=backend.asarray(b), **{**functions, culprit: spoilt}, **options)
    assert report.stop_reasons[1] is StopReason.NOT_FINITE
    assert report.iterations[1] == 0
    np.testing.assert_array_equal(backend.to_numpy(x)[1], start[1])
    if culprit == "operator":
        assert backend.to_numpy(x)[::2].tobytes() == backend.to_numpy(good)[::2].tobytes()


def test_a_step_that_overflows_is_not_taken(backend: Backend) -> None:
    if backend.name == "cupy":
        pytest.skip("products of CuPy's own are zero below the normal numbers")
    # The curvature 1e-44 is positive and ‖r‖² / 1e-44 is beyond float32: α is infinite.
    d = backend.asarray(np.array([[1.0], [1e-44]], np.float32))
    x, report = conjugate_gradient(lambda v: v * d, backend.asarray(np.ones((2, 1), np.float32)))
    assert report.stop_reasons == (StopReason.CONVERGED, StopReason.NOT_FINITE)
    np.testing.assert_array_equal(backend.to_numpy(x), [[1], [0]])
    np.testing.assert_array_equal(report.residual_norms, [0, 1])


def test_one_product_an_iteration_for_all_rows_and_none_for_residuals_that_rounding_cannot_reach(
    backend: Backend,
) -> None:
    rng = np.random.default_rng(2)
    spectra = np.geomspace(1, [2.0, 1e3, 1e3, 1e2], 12).T
    operator = MatrixOperator(symmetric_matrices(rng, spectra), backend)
    b = backend.asarray(rng.standard_normal((4, 12)))
    _, report = conjugate_gradient(operator, b, max_iterations=7)
    assert operator.calls == report.iterations.max() == 7


def test_the_host_looks_once_an_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    plain = NumPyBackend.to_numpy

    def to_numpy(self: NumPyBackend, array: Any) -> Any:
        nonlocal looks
        looks += 1
        return plain(self, array)

    monkeypatch.setattr(NumPyBackend, "to_numpy", to_numpy)
    d = np.geomspace(1e-3, 1, 40)
    conjugate_gradient(lambda v: v * d, np.ones((2, 40)), max_iterations=30)
    # Thirty for the iterations; the norms at the start, and how long the solution is.
    assert looks == 30 + 2


@pytest.mark.slow
def test_iterations_allocate_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not compiled: when that is ready depends on the tests before, and it has other, small, objects.
    monkeypatch.setattr(borrowing, "_PATIENCE", 10**9)
    tasks = 4

    def peak(n: int, iterations: int) -> int:
        d, out, b = np.linspace(1, 100, n), np.empty((tasks, n)), np.ones((tasks, n))
        tracemalloc.start()
        conjugate_gradient(lambda v: np.multiply(v, d, out=out), b, max_iterations=iterations, damping=0.1)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    def growth(n: int) -> int:
        peak(n, 1)
        # The least of three: once in a hundred times a table of the interpreter grows by a megabyte meanwhile.
        most, least = (min(peak(n, iterations) for _ in range(3)) for iterations in (30, 3))
        return most - least

    # What other tests have left to compile allocates too.
    until_all_is_compiled()
    # What grows is the record of the scalars, which knows nothing of n.
    assert growth(20_000) <= growth(100) + 10_000
    # x, r, p and one buffer to work in.
    assert min(peak(20_000, 3) for _ in range(3)) <= 4.2 * tasks * 20_000 * 8


# --- reasons to stop --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [None, [[0.5, -1.0, 2.0]]])
def test_negative_curvature_at_once_keeps_the_start(start: Any, backend: Backend) -> None:
    options = {} if start is None else {"initial": np.array(start)}
    x, report = solved(backend, -np.eye(3)[None], np.array([[1.0, 2.0, 3.0]]), **options)
    np.testing.assert_array_equal(x, np.zeros((1, 3)) if start is None else np.array(start))
    assert report.stop_reasons == (StopReason.NON_POSITIVE_CURVATURE,)
    assert report.iterations.tolist() == [0]
    assert report.residual_norms.tolist() == report.initial_residual_norms.tolist()


@given(system=indefinite_systems(unknowns=20))
def test_an_indefinite_system_is_never_claimed_falsely(system: LinearSystem) -> None:
    x, report = solved(NUMPY, system.A, system.b, max_iterations=3 * system.n)
    rounding = 10 * system.n * EPS * system.largest * (norms(x) + norms(system.solution))
    assert (abs(report.residual_norms - system.residual_norms(x)) <= 0.1 * report.residual_norms + rounding).all()
    assert (report.residual_norms[report.converged] <= report.bounds[report.converged]).all()
    assert set(report.stop_reasons) <= {StopReason.CONVERGED, StopReason.NON_POSITIVE_CURVATURE}


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 20))
def test_negative_curvature_later_keeps_the_last_iterate(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    spectra = rng.uniform(0.5, 2, (2, n))
    spectra[1, 0] = -rng.uniform(0.5, 2)
    A, b = symmetric_matrices(rng, spectra), rng.standard_normal((2, n))
    x, report = solved(NUMPY, A, b)
    assert report.stop_reasons[1] is StopReason.NON_POSITIVE_CURVATURE
    k = int(report.iterations[1])
    assert k < n
    before = solved(NUMPY, A, b, max_iterations=k)[0][1] if k else np.zeros(n)
    np.testing.assert_array_equal(x[1], before)
    # The witness: A restricted to the Krylov space of k + 1 products is indefinite, that of k is positive definite.
    basis = np.linalg.qr(np.stack([np.linalg.matrix_power(A[1], j) @ b[1] for j in range(k + 1)], axis=1))[0]
    assert np.linalg.eigvalsh(basis.T @ A[1] @ basis).min() < 1e-6
    assert k == 0 or np.linalg.eigvalsh(basis[:, :k].T @ A[1] @ basis[:, :k]).min() > -1e-6


def test_what_is_known_is_not_measured_again(backend: Backend) -> None:
    operator = MatrixOperator(-np.eye(3), backend)
    conjugate_gradient(operator, backend.asarray(np.ones((2, 3))), max_iterations=3)
    assert operator.calls == 1


def test_no_row_is_looked_at_on_account_of_another(backend: Backend) -> None:
    rng = np.random.default_rng(4)
    spectra = np.stack([np.linspace(1, 3, 12), np.append(np.linspace(1, 30, 11), -20.0), np.geomspace(1, 1e5, 12)])
    A, b = symmetric_matrices(rng, spectra), rng.standard_normal((3, 12))
    _, together = solved(backend, A, b, max_iterations=9, rtol=1e-3)
    assert together.iterations.all()
    reasons = StopReason.CONVERGED, StopReason.NON_POSITIVE_CURVATURE, StopReason.MAX_ITERATIONS
    assert together.stop_reasons == reasons
    for row in range(3):
        _, alone = solved(backend, A[row : row + 1], b[row : row + 1], max_iterations=9, rtol=1e-3)
        assert alone.residual_norms[0] == together.residual_norms[row]
        assert alone.stop_reasons[0] == together.stop_reasons[row]


def test_a_singular_consistent_system_is_solved(backend: Backend) -> None:
    rng = np.random.default_rng(3)
    A = symmetric_matrices(rng, np.array([[0.0, 0.0, 1.0, 2.0, 3.0]]))
    b = np.einsum("tij,tj->ti", A, rng.standard_normal((1, 5)))
    x, report = solved(backend, A, b)
    assert report.converged.all()
    assert report.iterations[0] == 3
    # From zero, conjugate gradient stays in the range of A: its solution is the one of least norm.
    np.testing.assert_allclose(x[0], np.linalg.pinv(A[0], rcond=1e-10) @ b[0], atol=1e-10)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 15), rank=st.integers(0, 14))
def test_a_singular_inconsistent_system_is_not_claimed(seed: int, n: int, rank: int) -> None:
    rng = np.random.default_rng(seed)
    spectra = np.where(np.arange(n) < min(rank, n - 1), 1.0 + np.arange(n), 0.0)[None, :]
    A, b = symmetric_matrices(rng, spectra), rng.standard_normal((1, n))
    null = np.linalg.eigh(A[0])[1][:, : n - min(rank, n - 1)]
    x, report = solved(NUMPY, A, b, max_iterations=3 * n)
    assert not report.converged.any()
    true = norms(b - np.einsum("tij,tj->ti", A, x))
    rounding = 10 * n * EPS * (np.linalg.norm(A[0]) * norms(x) + norms(b))
    assert (abs(report.residual_norms - true) <= rounding).all()
    # No x does better than what b has outside the range.
    assert report.residual_norms[0] >= (1 - 1e-6) * norms(null.T @ b[0]) - rounding[0]


@pytest.mark.parametrize("shape", [(4,), (3, 4)])
def test_a_zero_right_hand_side_needs_no_product(shape: tuple[int, ...], backend: Backend) -> None:
    def operator(v: Any) -> Any:
        raise AssertionError("called")

    x, report = conjugate_gradient(operator, backend.asarray(np.zeros(shape)))
    assert (backend.to_numpy(x) == 0).all()
    assert report.converged.all()
    assert report.iterations.tolist() == [0] * report.converged.size
    assert (report.residual_norms == 0).all()


def test_a_start_at_the_solution_needs_one_product_and_no_iteration(backend: Backend) -> None:
    rng = np.random.default_rng(4)
    A = symmetric_matrices(rng, np.geomspace(1, [10.0, 1e3], 6).T)
    b = rng.standard_normal((2, 6))
    exact = np.linalg.solve(A, b[..., None])[..., 0]
    operator = MatrixOperator(A, backend)
    x, report = conjugate_gradient(operator, backend.asarray(b), initial=backend.asarray(exact))
    assert operator.calls == 1
    assert report.iterations.tolist() == [0, 0]
    assert report.converged.all()
    np.testing.assert_array_equal(backend.to_numpy(x), exact)


def test_a_start_nearer_to_the_solution_saves_iterations(backend: Backend) -> None:
    rng = np.random.default_rng(5)
    A, b = symmetric_matrices(rng, np.linspace(1, 50, 30)[None, :]), rng.standard_normal((1, 30))
    exact = np.linalg.solve(A, b[..., None])[..., 0]
    _, cold = solved(backend, A, b, rtol=0.0, atol=1e-8)
    _, warm = solved(backend, A, b, rtol=0.0, atol=1e-8, initial=exact * (1 + 1e-6))
    assert cold.converged.all()
    assert warm.converged.all()
    assert warm.iterations[0] < cold.iterations[0]
    np.testing.assert_allclose(warm.initial_residual_norms, 1e-6 * norms(b), rtol=1e-6)


# --- the honesty of the residual --------------------------------------------------------------------------------------


@given(system=spd_systems(dtype=np.float32), factor=st.sampled_from([0.3, 1.0, 10.0]))
def test_reported_residual_is_the_true_one_in_float32(system: LinearSystem, factor: float) -> None:
    x, report = solved(NUMPY, system.A, system.b, max_iterations=max(1, int(factor * system.n)))
    assert x.dtype == report.residual_norms.dtype == np.float32
    A, b, x = (v.astype(np.float64) for v in (system.A, system.b, x))
    true = norms(b - np.einsum("tij,tj->ti", A, x))
    # A residual computed in float32 is off by (n + 1) ε (|A||x| + |b|), its norm by another (n/2 + 1) ε of itself.
    model = (system.n + 1) * EPS32 * (norms(np.einsum("tij,tj->ti", abs(A), abs(x))) + norms(b))
    assert (abs(report.residual_norms - true) <= model + (system.n / 2 + 1) * EPS32 * true).all()
    assert (report.converged == (report.residual_norms <= report.bounds)).all()
    np.testing.assert_allclose(report.bounds, 100 * EPS32 * norms(b), rtol=1e-5)


@pytest.mark.numpy_first
@pytest.mark.parametrize("tolerance", [1e-10, 3e-6])
def test_a_recurrence_that_claims_too_much_is_not_believed(tolerance: float, backend: Backend) -> None:
    # The first tolerance lies under the rounding of b; the second does not, but under that of Ax.
    rng = np.random.default_rng(6)
    A = symmetric_matrices(rng, np.geomspace(1e-4, 1, 20)[None, :], np.float32)
    b = rng.standard_normal((1, 20)).astype(np.float32)
    _, report = solved(backend, A, b, rtol=0.0, atol=tolerance, max_iterations=2000)
    assert report.stop_reasons == (StopReason.PRECISION_LIMIT,)
    assert report.iterations[0] < 500
    assert report.residual_norms[0] > tolerance


def test_a_claim_that_can_be_made_good_is(backend: Backend) -> None:
    # So far a start that b − Ax₀ is known to 1e-3 only; the tolerance is within reach from the measured residual.
    rng = np.random.default_rng(7)
    A = symmetric_matrices(rng, np.linspace(1, 5, 20)[None, :], np.float32)
    b = rng.standard_normal((1, 20)).astype(np.float32)
    far = np.full((1, 20), 1e4, np.float32)
    x, report = solved(backend, A, b, initial=far, rtol=0.0, atol=2e-5, max_iterations=100)
    assert report.converged.all()
    assert norms(b - A[0].astype(np.float64) @ x[0])[0] <= 2.1e-5
    short, _ = solved(backend, A, b, initial=far, rtol=0.0, atol=2e-5, max_iterations=int(report.iterations[0]) - 1)
    assert norms(b - A[0].astype(np.float64) @ short[0])[0] > 2e-5


@pytest.mark.numpy_first
def test_claims_are_refined_within_the_limit_of_iterations(backend: Backend) -> None:
    rng = np.random.default_rng(7)
    A = symmetric_matrices(rng, np.geomspace(1, 60, 20)[None, :], np.float32)
    b, far = np.ones((1, 20), np.float32), np.full((1, 20), 1e4, np.float32)
    # array-api-strict and the simulation take a tenth of a second for each.
    limits = range(1, 80, 1 if backend.name == "numpy" else 13)
    reports = [solved(backend, A, b, initial=far, rtol=0.0, atol=1e-4, max_iterations=limit)[1] for limit in limits]
    for limit, report in zip(limits, reports, strict=True):
        assert report.iterations[0] <= limit
        assert report.converged[0] == (report.residual_norms[0] <= np.float32(1e-4))
        assert report.stop_reasons[0] in (StopReason.CONVERGED, StopReason.MAX_ITERATIONS)
    assert reports[-1].converged.all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_last_product_that_is_not_finite_is_named(bad: float, backend: Backend) -> None:
    factors = iter([2.0, bad])
    _, report = conjugate_gradient(lambda v: v * next(factors), backend.asarray(np.ones(3)))
    assert report.iterations.tolist() == [1]
    assert report.stop_reasons == (StopReason.NOT_FINITE,)


# --- preconditioning --------------------------------------------------------------------------------------------------


@given(system=spd_systems(condition=1e5))
def test_the_inverse_as_preconditioner_needs_one_iteration(system: LinearSystem) -> None:
    inverse = MatrixOperator(np.linalg.inv(system.A), NUMPY)
    tolerance = 100 * system.n * EPS * float((system.largest / system.least * norms(system.b)).max())
    _, report = solved(NUMPY, system.A, system.b, preconditioner=inverse, rtol=0.0, atol=tolerance)
    assert report.converged.all()
    assert (report.iterations <= 1).all()


@pytest.mark.numpy_first
def test_the_diagonal_as_preconditioner_saves_iterations(backend: Backend) -> None:
    rng = np.random.default_rng(8)
    scales = np.geomspace(1, 1e3, 40)
    A = scales[:, None] * symmetric_matrices(rng, np.linspace(1, 3, 40)[None, :]) * scales
    b = rng.standard_normal((1, 40))
    inverse = backend.asarray(1 / np.diagonal(A[0])[None, :])
    plain_x, plain = solved(backend, A, b, rtol=0.0, atol=1e-8, max_iterations=4000)
    x, report = solved(backend, A, b, rtol=0.0, atol=1e-8, max_iterations=4000, preconditioner=lambda r: r * inverse)
    assert plain.converged.all()
    assert report.converged.all()
    assert report.iterations[0] < plain.iterations[0] / 4
    np.testing.assert_allclose(x, plain_x, rtol=1e-6, atol=1e-9)


@given(system=spd_systems(unknowns=12, condition=1e2))
def test_preconditioned_iterates_are_those_of_scipy(system: LinearSystem) -> None:
    diagonal = np.einsum("tii->ti", system.A)
    for k in range(1, min(system.n, 5) + 1):
        x, _ = solved(
            NUMPY,
            system.A,
            system.b,
            max_iterations=k,
            rtol=0.0,
            atol=1e-13,
            preconditioner=lambda r: r / NUMPY.asarray(diagonal),
        )
        for A, b, d, ours in zip(system.A, system.b, diagonal, x, strict=True):
            theirs, _ = scipy.sparse.linalg.cg(A, b, rtol=0, atol=1e-13, maxiter=k, M=np.diag(1 / d))
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10 * norms(theirs))


def test_an_indefinite_preconditioner_is_named(backend: Backend) -> None:
    signs = backend.asarray(np.array([[1.0], [-1.0]]))
    x, report = solved(backend, np.eye(3) * 2, np.ones((2, 3)), preconditioner=lambda r: r * signs)
    assert report.stop_reasons == (StopReason.CONVERGED, StopReason.INDEFINITE_PRECONDITIONER)
    np.testing.assert_array_equal(x, [[0.5] * 3, [0.0] * 3])
    assert report.iterations.tolist() == [1, 0]


# --- shapes and ownership ---------------------------------------------------------------------------------------------


def test_a_vector_is_one_task(backend: Backend) -> None:
    rng = np.random.default_rng(9)
    A, b = symmetric_matrices(rng, np.linspace(1, 4, 7)[None, :])[0], rng.standard_normal(7)
    inverse = backend.asarray(1 / np.diagonal(A))
    vector, report = solved(backend, A, b, initial=np.ones(7), preconditioner=lambda r: r * inverse)
    row, _ = solved(backend, A[None], b[None], initial=np.ones((1, 7)), preconditioner=lambda r: r * inverse[None, :])
    assert vector.tobytes() == row.tobytes()
    for field in (report.iterations, report.residual_norms, report.initial_residual_norms, report.converged):
        assert field.shape == (1,)
    assert len(report.stop_reasons) == 1


def test_arguments_are_left_as_they_were(backend: Backend) -> None:
    rng = np.random.default_rng(10)
    b, start = backend.asarray(rng.standard_normal((2, 5))), backend.asarray(rng.standard_normal((2, 5)))
    before = backend.to_numpy(b).copy(), backend.to_numpy(start).copy()
    x, _ = conjugate_gradient(lambda v: v, b, initial=start, damping=0.5)
    y, _ = conjugate_gradient(lambda v: v, b, initial=start, rtol=0.0, atol=1e9)
    for result in (x, y):
        assert not np.shares_memory(backend.to_numpy(result), backend.to_numpy(b))
        assert not np.shares_memory(backend.to_numpy(result), backend.to_numpy(start))
    np.testing.assert_array_equal(backend.to_numpy(b), before[0])
    np.testing.assert_array_equal(backend.to_numpy(start), before[1])
    np.testing.assert_allclose(backend.to_numpy(x), before[0] / 1.5)


def test_strided_rows_are_read(backend: Backend) -> None:
    b = np.arange(24.0).reshape(3, 8)
    view = backend.index(backend.asarray(b), (slice(None), slice(0, 8, 2)))
    x, report = conjugate_gradient(lambda v: 4.0 * v, view)
    np.testing.assert_allclose(backend.to_numpy(x), b[:, ::2] / 4)
    assert report.converged.all()


# --- what is refused --------------------------------------------------------------------------------------------------


def refuse(v: Any) -> Any:
    raise AssertionError("work was done")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"max_iterations": 0},
            ArgumentOutOfRangeException,
            r"max_iterations must be a whole number of at least 1.*, got 0",
        ),
        ({"max_iterations": -3}, ArgumentOutOfRangeException, r"max_iterations must be .*, got -3"),
        ({"max_iterations": 2.0}, ArgumentException, r"max_iterations must be a whole number.*, got 2\.0"),
        ({"max_iterations": True}, ArgumentException, r"max_iterations must be .*, got True"),
        ({"rtol": -1e-3}, ArgumentOutOfRangeException, r"rtol must be a finite number.*, got -0\.001"),
        ({"atol": -1e-3}, ArgumentOutOfRangeException, r"atol must be a finite number.*, got -0\.001"),
        ({"rtol": 10**400}, ArgumentOutOfRangeException, r"rtol must be a finite number.*, got an integer of"),
        ({"atol": -(10**5000)}, ArgumentOutOfRangeException, r"atol must be .*, got an integer of"),
        ({"max_iterations": 10**5000}, ArgumentOutOfRangeException, r"max_iterations must be .*, got an integer of"),
        ({"rtol": float("nan")}, ArgumentOutOfRangeException, r"rtol must be .*, got nan"),
        ({"atol": float("inf")}, ArgumentOutOfRangeException, r"atol must be .*, got inf"),
        ({"rtol": "small"}, ArgumentException, r"rtol must be .*, got 'small'"),
        ({"atol": None}, ArgumentException, r"atol must be .*, got None"),
        ({"damping": -0.5}, ArgumentOutOfRangeException, r"damping must be .*, got -0\.5"),
        ({"damping": None}, ArgumentException, r"damping must be .*, got None"),
        ({"preconditioner": 3}, ArgumentException, r"preconditioner must be a function .* shape \(2, 3\), got 3"),
        ({"initial": [0.0] * 3}, ArgumentException, r"initial must have shape \(2, 3\) and dtype float64.*, got list"),
    ],
)
def test_settings_out_of_range_are_refused(
    options: dict[str, Any], error: type[Exception], message: str, backend: Backend
) -> None:
    with pytest.raises(error, match=message):
        conjugate_gradient(refuse, backend.asarray(np.ones((2, 3))), **options)


def test_whole_numbers_of_numpy_are_counts(backend: Backend) -> None:
    _, report = conjugate_gradient(lambda v: v, backend.asarray(np.ones(3)), max_iterations=np.int64(2))
    assert report.converged.all()


@pytest.mark.parametrize(
    ("rhs", "message"),
    [
        (np.ones(3, np.int64), r"rhs must have shape \(n,\) or \(tasks, n\), not.*, got shape \(3,\) and dtype int64"),
        (np.ones((2, 2), np.complex128), "dtype complex128"),
        (np.ones((2, 2), np.bool_), "dtype bool"),
        (np.ones((2, 2, 2)), r"rhs must have .*, got shape \(2, 2, 2\)"),
        (np.ones(()), r"rhs must have .*, got shape \(\)"),
        (np.ones((0, 3)), r"rhs must have .*, got shape \(0, 3\)"),
        (np.ones(0), r"rhs must have .* not empty, .*, got shape \(0,\)"),
    ],
)
def test_a_right_hand_side_that_is_none_is_refused(rhs: np.ndarray, message: str, backend: Backend) -> None:
    with pytest.raises(ArgumentException, match=message):
        conjugate_gradient(refuse, backend.asarray(rhs))


def test_a_right_hand_side_must_be_an_array() -> None:
    with pytest.raises(ArgumentException, match=r"rhs must be an array of one of the backends numpy, .*, got list"):
        conjugate_gradient(refuse, [1.0, 2.0])
    with pytest.raises(ArgumentNullException, match=r"rhs must be .*, got None"):
        conjugate_gradient(refuse, None)


def test_an_operator_must_be_a_function() -> None:
    with pytest.raises(
        ArgumentNullException, match=r"operator must be a function of an array of shape \(2,\).*, got None"
    ):
        conjugate_gradient(None, np.ones(2))  # type: ignore[arg-type]
    with pytest.raises(ArgumentException, match=r"operator must be .*, got ndarray"):
        conjugate_gradient(np.eye(2), np.ones(2))  # type: ignore[arg-type]


@pytest.mark.parametrize("argument", ["operator", "preconditioner"])
@pytest.mark.parametrize(
    ("result", "message"),
    [
        (np.ones(3), r"must have shape \(2, 3\) and dtype float64 .*, got shape \(3,\) and dtype float64 on backend"),
        (np.ones((2, 3), np.float32), r"must have .* float64 .*, got shape \(2, 3\) and dtype float32 on backend"),
        (np.ones((2, 3), np.int64), ".* dtype int64"),
    ],
)
def test_results_that_do_not_fit_are_refused(argument: str, result: np.ndarray, message: str, backend: Backend) -> None:
    functions: dict[str, Any] = {"operator": lambda v: v, argument: lambda v: backend.asarray(result)}
    with pytest.raises(ArgumentException, match=f"the result of {argument} {message}"):
        conjugate_gradient(rhs=backend.asarray(np.ones((2, 3))), **functions)


def test_a_result_that_is_no_array_is_refused(backend: Backend) -> None:
    with pytest.raises(ArgumentException, match=r"the result of operator must have shape.*, got NoneType"):
        conjugate_gradient(lambda v: None, backend.asarray(np.ones((2, 3))))


@pytest.mark.parametrize("solver", [conjugate_gradient, gmres, partial(neumann_series, terms=2)])
def test_a_traced_solve_is_told_what_differentiates_it(solver: Any) -> None:
    for solve in (lambda t: solver(lambda v: 2.0 * v, t), lambda t: solver(lambda v: t * v, np.ones(2))):
        with pytest.raises(ArgumentException, match=r"got Tracer; .* aidotnet_py\.implicit differentiates it"):
            grad(lambda t, solve=solve: np.sum(solve(t)[0]))(np.ones(2))


def test_arrays_of_another_backend_are_refused() -> None:
    here, there = get_backend("strict"), get_backend("strict-device1")
    rhs = here.asarray(np.ones(3))
    with pytest.raises(ArgumentException, match=r"initial must have .* 'strict'.*, got .* on backend 'strict-device1'"):
        conjugate_gradient(refuse, rhs, initial=there.asarray(np.ones(3)))
    with pytest.raises(
        ArgumentException, match=r"result of operator must have .* 'strict'.*, got .* on backend 'numpy'"
    ):
        conjugate_gradient(lambda v: np.ones(3), rhs)


@pytest.mark.parametrize("initial", [np.ones(3), np.ones((3, 2)), np.ones((2, 3), np.float32)])
def test_a_start_that_does_not_fit_is_refused(initial: np.ndarray, backend: Backend) -> None:
    with pytest.raises(
        ArgumentException, match=r"initial must have shape \(2, 3\) and dtype float64 .*rhs.*, got shape .*"
    ):
        conjugate_gradient(refuse, backend.asarray(np.ones((2, 3))), initial=backend.asarray(initial))


@pytest.mark.parametrize("options", [{"atol": 1e300}, {"rtol": 1e300}, {"damping": 1e300}])
def test_settings_beyond_the_dtype_do_no_harm(options: dict[str, float], backend: Backend) -> None:
    x, report = solved(backend, np.eye(3, dtype=np.float32), np.ones((1, 3), np.float32), **options)
    assert np.isfinite(x).all()
    assert report.converged.all() == ("damping" not in options)


@pytest.mark.parametrize("name", ["conjugate_gradient", "report"])
def test_examples_run(name: str) -> None:
    # Not an import statement: in the package, the solver's name stands for the function.
    result = doctest.testmod(importlib.import_module(f"aidotnet_py.solvers.{name}"))
    assert result.attempted > 0
    assert result.failed == 0


@given(seed=st.integers(0, 2**32 - 1), condition=st.floats(0, 7), steps=st.integers(1, 25))
@settings(max_examples=many(70))
def test_reported_residuals_are_those_of_the_solution_whether_measured_or_not(
    seed: int, condition: float, steps: int
) -> None:
    """In float32 against float64: within a tenth where no product was spent on it, within rounding where one was."""
    rng = np.random.default_rng(seed)
    a = symmetric_matrices(rng, np.geomspace(1, 10**condition, 30)[None])[0].astype(np.float32)
    b = rng.standard_normal((1, 30)).astype(np.float32)
    calls = 0

    def operator(v: Any) -> Any:
        nonlocal calls
        calls += 1
        return (a @ v[..., None])[..., 0]

    x, report = conjugate_gradient(operator, b, max_iterations=steps, rtol=0.0, atol=1e-6)
    exact = np.linalg.norm(b.astype(np.float64) - x.astype(np.float64) @ a.astype(np.float64))
    found = float(report.residual_norms[0])
    if calls == report.iterations[0]:
        assert abs(found - exact) <= 0.1 * exact
    else:
        rounding = 30 * np.finfo(np.float32).eps * np.linalg.norm(a, 2) * np.linalg.norm(x)
        assert abs(found - exact) <= 0.01 * exact + rounding + 1e-6
