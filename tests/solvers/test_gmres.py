"""GMRES: against NumPy, SciPy and its theory; its report; what it refuses."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg
from hypothesis import given
from hypothesis import strategies as st
from waiting import until_all_is_compiled

from aidotnet_py.backends import Backend, NumPyBackend, get_backend
from aidotnet_py.exceptions import ArgumentException, ArgumentNullException, ArgumentOutOfRangeException
from aidotnet_py.solvers import SolverReport, StopReason, gmres
from aidotnet_py.testing import LinearSystem, MatrixOperator
from aidotnet_py.testing.strategies import indefinite_systems, nonsymmetric_systems

NUMPY = get_backend("numpy")
EPS = float(np.finfo(np.float64).eps)
EPS32 = float(np.finfo(np.float32).eps)


def solved(backend: Backend, A: np.ndarray, b: np.ndarray, **options: Any) -> tuple[np.ndarray, SolverReport]:
    """The solution on the host, and the report."""
    for name in {"initial"} & options.keys():
        options[name] = backend.asarray(options[name])
    x, report = gmres(MatrixOperator(A, backend), backend.asarray(b), **options)
    assert backend.owns(x)
    assert backend.dtype_of(x) == b.dtype
    assert tuple(x.shape) == b.shape
    return backend.to_numpy(x), report


def products(A: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.matmul(A, v[..., None])[..., 0]


def norms(v: np.ndarray) -> np.ndarray:
    return np.linalg.norm(v, axis=-1)


# --- theory -----------------------------------------------------------------------------------------------------------


@pytest.mark.numpy_first
@given(system=nonsymmetric_systems())
def test_solution_is_that_of_a_direct_solve(system: LinearSystem, backend: Backend) -> None:
    x, report = solved(backend, system.A, system.b, max_iterations=10 * system.n)
    direct = system.solution
    rounding = 30 * system.n * EPS * system.largest * norms(direct)
    # ‖x − x*‖ ≤ ‖r‖/σ_min, for both: the reported residual, and the rounding of the two solves.
    assert (norms(x - direct) <= (report.residual_norms + rounding) / system.least).all()
    # And the residual is as small as it was asked for, or as the precision allows.
    assert (report.residual_norms <= np.maximum(1e-10 * norms(system.b), rounding)).all()


@given(system=nonsymmetric_systems(condition=1e4))
def test_no_vector_of_the_krylov_space_has_a_smaller_residual(system: LinearSystem) -> None:
    for k in range(1, min(system.n, 5) + 1):
        _, report = solved(NUMPY, system.A, system.b, max_iterations=k)
        for task, (A, b) in enumerate(zip(system.A, system.b, strict=True)):
            basis, v = [], b
            for _ in range(k):
                basis.append(v / np.linalg.norm(v))
                v = A @ basis[-1]
            image = A @ np.linalg.qr(np.stack(basis, axis=1))[0]
            best = np.linalg.norm(b - image @ np.linalg.lstsq(image, b)[0])
            assert abs(report.residual_norms[task] - best) <= 1e-9 * np.linalg.norm(b)


@given(system=nonsymmetric_systems(unknowns=12, condition=1e3))
def test_iterates_are_those_of_scipy(system: LinearSystem) -> None:
    for k in range(1, min(system.n, 5) + 1):
        x, _ = solved(NUMPY, system.A, system.b, max_iterations=k, rtol=0.0, atol=0.0)
        for A, b, ours in zip(system.A, system.b, x, strict=True):
            theirs, _ = scipy.sparse.linalg.gmres(A, b, rtol=0, atol=0, restart=k, maxiter=1)
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9 * max(norms(theirs), norms(ours)))


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_needs_as_many_iterations_as_the_minimal_polynomial_has_degree(seed: int, degree: int) -> None:
    rng = np.random.default_rng(seed)
    S = rng.standard_normal((12, 12)) + 5 * np.eye(12)
    values = np.resize(np.array([1.0, -2.0, 3.0, -4.0])[:degree], 12)
    A, b = S @ np.diag(values) @ np.linalg.inv(S), rng.standard_normal(12)
    _, report = gmres(lambda v: A @ v, b)
    assert report.converged.all()
    assert report.iterations[0] == degree


@given(system=indefinite_systems(unknowns=15, condition=1e3))
def test_indefinite_symmetric_systems_are_solved(system: LinearSystem) -> None:
    # On many of them conjugate gradient stops at once.
    x, report = solved(NUMPY, system.A, system.b, max_iterations=10 * system.n)
    assert report.converged.all()
    assert (norms(x - system.solution) <= 1e-9 * norms(system.b) / system.least).all()


@pytest.mark.parametrize("shift", [2, 5, 9])
def test_a_cyclic_shift_stands_still_until_its_space_is_complete(shift: int, backend: Backend) -> None:
    # The classic of Nachtigal, Reddy & Trefethen (1992): no progress at all for n − 1 iterations.
    A, b = np.roll(np.eye(shift), 1, axis=0), np.eye(shift)[0]
    _, before = solved(backend, A, b, max_iterations=max(shift - 1, 1))
    assert before.residual_norms.tolist() == [1.0]
    assert before.stop_reasons == (StopReason.MAX_ITERATIONS,)
    x, report = solved(backend, A, b)
    assert report.iterations.tolist() == [shift]
    assert report.converged.all()
    np.testing.assert_allclose(A @ x, b, atol=1e-14)


@pytest.mark.numpy_first
def test_a_large_space_stays_orthogonal(backend: Backend) -> None:
    # Singular values over eight decades: Gram–Schmidt done once would lose the basis. Eighty vectors are three blocks.
    rng = np.random.default_rng(12)
    U, V = (np.linalg.qr(rng.standard_normal((80, 80)))[0] for _ in range(2))
    A, b = U * np.geomspace(1e-8, 1, 80) @ V, rng.standard_normal(80)
    seen: list[np.ndarray] = []

    def operator(v: Any) -> Any:
        seen.append(backend.to_numpy(v).copy())
        return backend.asarray(A @ seen[-1])

    x, report = gmres(operator, backend.asarray(b), max_iterations=80)
    assert report.iterations[0] == 80
    basis = np.stack(seen[:80])
    np.testing.assert_allclose(basis @ basis.T, np.eye(80), atol=1e-14)
    true = norms(b - A @ backend.to_numpy(x))
    assert report.residual_norms[0] == pytest.approx(true, rel=0.5)
    assert true <= 100 * EPS * norms(backend.to_numpy(x))


def test_memory_is_a_vector_an_iteration() -> None:
    n = 20_000
    d, out, b = np.geomspace(1, 100, n), np.empty(n), np.ones(n)

    def peak(iterations: int) -> int:
        tracemalloc.start()
        gmres(lambda v: np.multiply(v, d, out=out), b, max_iterations=iterations)
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    # What other tests have left to compile allocates too.
    until_all_is_compiled()
    peak(1)
    assert peak(30) <= (30 + 8) * b.nbytes


# --- batches ----------------------------------------------------------------------------------------------------------


def twisted(backend: Backend, n: int, dtype: Any = np.float64) -> Any:
    """Elementwise and with a flip of each row: nonsymmetric, and no product handed to BLAS."""
    d = backend.reshape(backend.asarray(np.geomspace(0.1, 1.0, n).astype(dtype)), (1, n))
    flipped = (slice(None), slice(None, None, -1))
    return lambda v: v * d + 0.5 * backend.index(v, flipped) * d


@pytest.mark.numpy_first
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(2, 8),
    tasks=st.integers(2, 4),
    precision=st.sampled_from([(np.float64, 1e-10), (np.float32, 1e-10), (np.float32, 3e-5)]),
)
def test_a_row_has_the_same_bits_in_any_batch(
    seed: int, n: int, tasks: int, precision: tuple[Any, float], backend: Backend
) -> None:
    if backend.name == "cupy":
        pytest.skip("CUDA divides sums by the sizes of the whole batch")
    rng = np.random.default_rng(seed)
    dtype, tolerance = precision
    b = rng.standard_normal((tasks, n)) * (rng.uniform(size=(tasks, n)) < rng.uniform(size=(tasks, 1)))
    start = rng.standard_normal((tasks, n)) * rng.choice([0.0, 1.0, 300.0], size=(tasks, 1))
    start[0] = -0.0
    operator = twisted(backend, n, dtype)

    def solve(rows: list[int]) -> tuple[np.ndarray, SolverReport]:
        rhs, initial = backend.asarray(b[rows].astype(dtype)), backend.asarray(start[rows].astype(dtype))
        x, report = gmres(operator, rhs, initial=initial, rtol=0.0, atol=tolerance, max_iterations=2 * n)
        return backend.to_numpy(x), report

    whole, report = solve(list(range(tasks)))
    for row in range(tasks):
        batch = [row] if row % 2 else [row, row, (row + 1) % tasks]
        part, part_report = solve(batch)
        assert part[0].tobytes() == whole[row].tobytes()
        assert part_report.iterations[0] == report.iterations[row]
        assert part_report.residual_norms[0].tobytes() == report.residual_norms[row].tobytes()
        assert part_report.stop_reasons[0] is report.stop_reasons[row]


def test_a_row_has_the_same_bits_beside_rows_of_longer_solves() -> None:
    n = 70
    b = np.random.default_rng(13).standard_normal((3, n))
    b[0, 5:-5] = 0.0
    b[1] = np.eye(n)[3]
    operator = twisted(get_backend("numpy"), n)
    whole, report = gmres(operator, b)
    assert len(set(report.iterations.tolist())) == 3
    assert report.iterations.max() > 32
    for row in range(3):
        alone, _ = gmres(operator, b[[row]])
        assert alone[0].tobytes() == whole[row].tobytes()


def test_the_operator_sees_zeros_where_a_row_has_stopped(backend: Backend) -> None:
    # One row each: solved at the start though not exactly, done after one iteration, running, singular.
    d = np.geomspace(1, 9, 6) * np.array([[1.0], [1.0], [1.0], [0.0]])
    b = np.ones((4, 6))
    b[1] = np.eye(6)[2]
    start = np.zeros((4, 6))
    start[0] = 1 / d[0] * (1 + 1e-12)
    device, seen = backend.asarray(d), []

    def operator(v: Any) -> Any:
        seen.append(backend.to_numpy(v).copy())
        return v * device

    x, report = gmres(operator, backend.asarray(b), initial=backend.asarray(start), max_iterations=5)
    assert report.iterations.tolist() == [0, 1, 5, 0]
    assert report.stop_reasons[3] is StopReason.BREAKDOWN
    # The first product measures the start, the last the solution.
    for k, v in enumerate(seen[1:-1]):
        assert v.any(axis=1).tolist() == [False, k < 1, True, k < 1]
    np.testing.assert_array_equal(backend.to_numpy(x)[[0, 3]], start[[0, 3]])


def test_one_product_an_iteration_for_all_rows_and_one_for_the_report(backend: Backend) -> None:
    rng = np.random.default_rng(2)
    operator = MatrixOperator(rng.standard_normal((4, 12, 12)), backend)
    _, report = gmres(operator, backend.asarray(rng.standard_normal((4, 12))), max_iterations=7)
    assert report.iterations.tolist() == [7] * 4
    assert operator.calls == 8


def test_the_host_looks_once_an_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    plain = NumPyBackend.to_numpy

    def to_numpy(self: NumPyBackend, array: Any) -> Any:
        nonlocal looks
        looks += 1
        return plain(self, array)

    monkeypatch.setattr(NumPyBackend, "to_numpy", to_numpy)
    d = np.geomspace(1e-3, 1, 40)
    gmres(lambda v: v * d, np.ones((2, 40)), max_iterations=20)
    # Twenty for the iterations; norms at the start and at the end.
    assert looks == 20 + 2


# --- numbers that are not finite --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_touches_no_other(bad: float, backend: Backend) -> None:
    b = np.random.default_rng(0).standard_normal((3, 9))
    good, good_report = gmres(twisted(backend, 9), backend.asarray(b))
    b[1, 4] = bad
    x, report = gmres(twisted(backend, 9), backend.asarray(b))
    assert backend.to_numpy(x)[::2].tobytes() == backend.to_numpy(good)[::2].tobytes()
    assert (report.iterations[::2] == good_report.iterations[::2]).all()
    assert report.stop_reasons[1] is StopReason.NOT_FINITE
    assert not np.isfinite(report.residual_norms[1])
    assert (backend.to_numpy(x)[1] == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("call", [1, 3])
def test_a_product_that_is_not_finite_ends_its_row_at_the_last_iterate(bad: float, call: int, backend: Backend) -> None:
    b = np.random.default_rng(1).standard_normal((3, 8))
    calls = 0

    def operator(v: Any) -> Any:
        nonlocal calls
        calls += 1
        product = backend.to_numpy(twisted(backend, 8)(v)).copy()
        if calls == call:
            product[1, 2] = bad
        return backend.asarray(product)

    x, report = gmres(operator, backend.asarray(b), max_iterations=6)
    assert report.stop_reasons[1] is StopReason.NOT_FINITE
    assert report.iterations.tolist() == [6, call - 1, 6]
    before = np.zeros((3, 8))
    if call > 1:
        before = backend.to_numpy(gmres(twisted(backend, 8), backend.asarray(b), max_iterations=call - 1)[0])
    assert backend.to_numpy(x)[1].tobytes() == before[1].tobytes()
    six, _ = gmres(twisted(backend, 8), backend.asarray(b), max_iterations=6)
    assert backend.to_numpy(x)[::2].tobytes() == backend.to_numpy(six)[::2].tobytes()
    assert np.isfinite(report.residual_norms).all()


def test_a_last_product_that_is_not_finite_is_named(backend: Backend) -> None:
    factors = iter([2.0, np.nan])
    _, report = gmres(lambda v: v * next(factors), backend.asarray(np.ones(3)))
    assert report.iterations.tolist() == [1]
    assert report.stop_reasons == (StopReason.NOT_FINITE,)


def test_a_solution_that_overflows_is_not_taken(backend: Backend) -> None:
    # 1e19 / 1e-22 is beyond float32, and no product on the way there is.
    d = backend.asarray(np.array([[1.0], [1e-22]], np.float32))
    x, report = gmres(lambda v: v * d, backend.asarray(np.array([[1.0], [1e19]], np.float32)))
    assert report.stop_reasons == (StopReason.CONVERGED, StopReason.NOT_FINITE)
    np.testing.assert_array_equal(backend.to_numpy(x), [[1], [0]])
    assert report.iterations.tolist() == [1, 0]


# --- singular systems -------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 15), rank=st.integers(0, 14))
def test_a_singular_inconsistent_system_is_not_claimed(seed: int, n: int, rank: int) -> None:
    rng = np.random.default_rng(seed)
    rank = min(rank, n - 1)
    A = (rng.standard_normal((n, rank)) @ rng.standard_normal((rank, n)))[None]
    b = rng.standard_normal((1, n))
    x, report = solved(NUMPY, A, b)
    assert not report.converged.any()
    true = norms(b - products(A, x))
    rounding = 30 * n * EPS * (np.linalg.norm(A[0]) * norms(x) + norms(b))
    assert (abs(report.residual_norms - true) <= rounding).all()
    outside = np.linalg.svd(A[0])[0][:, rank:]
    assert report.residual_norms[0] >= (1 - 1e-6) * norms(outside.T @ b[0]) - rounding[0]


def test_a_breakdown_keeps_the_best_solution(backend: Backend) -> None:
    # A nilpotent shift: A²b = 0, and of the multiples of b, whose images are those of e₄, 4/3 b comes nearest.
    A = np.eye(4, k=-1)
    x, report = solved(backend, A, np.array([0.0, 0.0, 3.0, 4.0]))
    assert report.stop_reasons == (StopReason.BREAKDOWN,)
    np.testing.assert_allclose(x, [0, 0, 4, 16 / 3], atol=1e-14)
    np.testing.assert_allclose(report.residual_norms, [3.0])


def test_a_singular_consistent_system_is_solved(backend: Backend) -> None:
    rng = np.random.default_rng(3)
    S = rng.standard_normal((5, 5))
    A = S @ np.diag([0.0, 0.0, 1.0, 2.0, 3.0]) @ np.linalg.inv(S)
    b = A @ rng.standard_normal(5)
    x, report = solved(backend, A, b)
    assert report.converged.all()
    assert report.iterations[0] == 3
    np.testing.assert_allclose(A @ x, b, atol=1e-10)


@pytest.mark.parametrize("shape", [(4,), (3, 4)])
def test_a_zero_right_hand_side_needs_no_product(shape: tuple[int, ...], backend: Backend) -> None:
    def operator(v: Any) -> Any:
        raise AssertionError("called")

    x, report = gmres(operator, backend.asarray(np.zeros(shape)))
    assert (backend.to_numpy(x) == 0).all()
    assert report.converged.all()
    assert (report.residual_norms == 0).all()


def test_a_start_at_the_solution_needs_one_product_and_no_iteration(backend: Backend) -> None:
    rng = np.random.default_rng(4)
    A, exact = rng.standard_normal((2, 6, 6)), rng.standard_normal((2, 6))
    operator = MatrixOperator(A, backend)
    x, report = gmres(operator, backend.asarray(products(A, exact)), initial=backend.asarray(exact))
    assert operator.calls == 1
    assert report.converged.all()
    np.testing.assert_array_equal(backend.to_numpy(x), exact)


# --- the honesty of the residual --------------------------------------------------------------------------------------


@given(system=nonsymmetric_systems(dtype=np.float32), factor=st.sampled_from([0.3, 1.0, 10.0]))
def test_reported_residual_is_the_true_one_in_float32(system: LinearSystem, factor: float) -> None:
    x, report = solved(NUMPY, system.A, system.b, max_iterations=max(1, int(factor * system.n)))
    assert x.dtype == report.residual_norms.dtype == np.float32
    A, b, x = (v.astype(np.float64) for v in (system.A, system.b, x))
    true = norms(b - products(A, x))
    # A residual computed in float32 is off by (n + 1) ε (|A||x| + |b|), its norm by another (n/2 + 1) ε of itself.
    model = (system.n + 1) * EPS32 * (norms(products(abs(A), abs(x))) + norms(b))
    assert (abs(report.residual_norms - true) <= model + (system.n / 2 + 1) * EPS32 * true).all()
    assert (report.converged == (report.residual_norms <= report.bounds)).all()
    np.testing.assert_allclose(report.bounds, 100 * EPS32 * norms(b), rtol=1e-5)


@given(system=nonsymmetric_systems(condition=1e3, dtype=np.float32))
def test_float32_reaches_its_precision(system: LinearSystem) -> None:
    x, report = solved(NUMPY, system.A, system.b, max_iterations=4 * system.n)
    # Backward stable (Paige, Rozložník & Strakoš 2006): a residual of some roundings of ‖A‖‖x‖.
    assert (report.residual_norms <= 10 * system.n * EPS32 * (system.largest * norms(x) + norms(system.b))).all()


def test_a_claim_that_can_be_made_good_is(backend: Backend) -> None:
    # So far a start that b − Ax₀ is known to 1e-3 only; the tolerance is within reach from the measured residual.
    rng = np.random.default_rng(7)
    A = (2 * np.eye(20) + 0.2 * rng.standard_normal((20, 20)))[None].astype(np.float32)
    b, far = rng.standard_normal((1, 20)).astype(np.float32), np.full((1, 20), 1e4, np.float32)
    x, report = solved(backend, A, b, initial=far, rtol=0.0, atol=2e-5, max_iterations=100)
    assert report.converged.all()
    assert norms(b - products(A.astype(np.float64), x))[0] <= 2.1e-5
    short, _ = solved(backend, A, b, initial=far, rtol=0.0, atol=2e-5, max_iterations=int(report.iterations[0]) - 1)
    assert norms(b - products(A.astype(np.float64), short))[0] > 2e-5


def test_a_tolerance_below_the_precision_is_not_claimed(backend: Backend) -> None:
    rng = np.random.default_rng(6)
    A, b = rng.standard_normal((1, 20, 20)).astype(np.float32), np.ones((1, 20), np.float32)
    _, report = solved(backend, A, b, rtol=1e-10, max_iterations=2000)
    assert report.stop_reasons == (StopReason.PRECISION_LIMIT,)
    assert report.iterations[0] <= 60


# --- shapes, ownership, what is refused -------------------------------------------------------------------------------


def test_a_vector_is_one_task(backend: Backend) -> None:
    rng = np.random.default_rng(9)
    A, b = rng.standard_normal((7, 7)), rng.standard_normal(7)
    vector, report = solved(backend, A, b, initial=np.ones(7))
    row, _ = solved(backend, A[None], b[None], initial=np.ones((1, 7)))
    assert vector.tobytes() == row.tobytes()
    for field in (report.iterations, report.residual_norms, report.initial_residual_norms, report.converged):
        assert field.shape == (1,)


def test_arguments_are_left_as_they_were(backend: Backend) -> None:
    rng = np.random.default_rng(10)
    b, start = backend.asarray(rng.standard_normal((2, 5))), backend.asarray(rng.standard_normal((2, 5)))
    before = backend.to_numpy(b).copy(), backend.to_numpy(start).copy()
    # An operator that gives back what it was handed.
    x, _ = gmres(lambda v: v, b, initial=start)
    y, _ = gmres(lambda v: v, b, initial=start, rtol=0.0, atol=1e9)
    for result in (x, y):
        assert not np.shares_memory(backend.to_numpy(result), backend.to_numpy(b))
        assert not np.shares_memory(backend.to_numpy(result), backend.to_numpy(start))
    np.testing.assert_array_equal(backend.to_numpy(b), before[0])
    np.testing.assert_array_equal(backend.to_numpy(start), before[1])
    np.testing.assert_allclose(backend.to_numpy(x), before[0], atol=1e-14)


def test_an_operator_may_reuse_its_array() -> None:
    rng = np.random.default_rng(11)
    A, b, out = rng.standard_normal((9, 9)), rng.standard_normal(9), np.empty(9)
    fresh, _ = gmres(lambda v: A @ v, b)
    reused, _ = gmres(lambda v: np.matmul(A, v, out=out), b)
    assert fresh.tobytes() == reused.tobytes()


def refuse(v: Any) -> Any:
    raise AssertionError("work was done")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"max_iterations": 0},
            ArgumentOutOfRangeException,
            r"max_iterations must be a whole number of at least.*, got 0",
        ),
        ({"max_iterations": 2.0}, ArgumentException, r"max_iterations must be a whole number.*, got 2\.0"),
        ({"rtol": -1e-3}, ArgumentOutOfRangeException, r"rtol must be a finite number.*, got -0\.001"),
        ({"atol": -1e-3}, ArgumentOutOfRangeException, r"atol must be a finite number.*, got -0\.001"),
        ({"rtol": 10**400}, ArgumentOutOfRangeException, r"rtol must be a finite number.*, got an integer of"),
        ({"atol": -(10**5000)}, ArgumentOutOfRangeException, r"atol must be .*, got an integer of"),
        ({"max_iterations": 10**5000}, ArgumentOutOfRangeException, r"max_iterations must be .*, got an integer of"),
        ({"rtol": float("nan")}, ArgumentOutOfRangeException, r"rtol must be .*, got nan"),
        ({"rtol": "small"}, ArgumentException, r"rtol must be .*, got 'small'"),
        ({"atol": None}, ArgumentException, r"atol must be .*, got None"),
        ({"initial": [0.0] * 3}, ArgumentException, r"initial must have shape \(2, 3\) and dtype float64.*, got list"),
    ],
)
def test_settings_out_of_range_are_refused(
    options: dict[str, Any], error: type[Exception], message: str, backend: Backend
) -> None:
    with pytest.raises(error, match=message):
        gmres(refuse, backend.asarray(np.ones((2, 3))), **options)


def test_what_is_no_system_is_refused() -> None:
    with pytest.raises(ArgumentException, match=r"rhs must have shape \(n,\).*, got shape \(3,\) and dtype int64"):
        gmres(refuse, np.ones(3, np.int64))
    with pytest.raises(ArgumentNullException, match=r"operator must be a function of an array.*, got None"):
        gmres(None, np.ones(2))  # type: ignore[arg-type]
    with pytest.raises(
        ArgumentException, match=r"the result of operator must have shape \(3,\).*, got shape \(2,\) .*"
    ):
        gmres(lambda v: v[:2], np.ones(3))
    here, there = get_backend("strict"), get_backend("strict-device1")
    with pytest.raises(ArgumentException, match=r"initial must have .* 'strict'.*, got .* on backend 'strict-device1'"):
        gmres(refuse, here.asarray(np.ones(3)), initial=there.asarray(np.ones(3)))
