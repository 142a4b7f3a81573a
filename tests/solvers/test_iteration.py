"""The iteration on Python functions: the bits of the eager form, and buffers that no two solves share."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from amounts import many
from eager_solver import eager_conjugate_gradient
from hypothesis import given, settings
from hypothesis import strategies as st

from aidotnet_py.backends import NumPyBackend
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.solvers import borrowing, conjugate_gradient, gmres, neumann_series


@pytest.fixture(autouse=True)
def pool(monkeypatch: pytest.MonkeyPatch) -> Any:
    own = borrowing._Pool()
    monkeypatch.setattr(borrowing, "_POOL", own)
    return own


def a_system(rng: np.random.Generator, tasks: int, n: int, dtype: Any, low: float = 0.1) -> tuple[Any, Any]:
    d = rng.uniform(low, 3, (tasks, n)).astype(dtype)
    return d, rng.standard_normal((tasks, n)).astype(dtype)


def same(solve: Any, wanted: Any) -> None:
    (x, report), (right, expected) = solve, wanted
    assert x.tobytes() == right.tobytes()
    assert report.stop_reasons == expected.stop_reasons
    np.testing.assert_array_equal(report.iterations, expected.iterations)
    np.testing.assert_array_equal(report.residual_norms, expected.residual_norms)


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**32 - 1),
    tasks=st.integers(1, 4),
    n=st.sampled_from([1, 2, 9, 30]),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    preconditioned=st.booleans(),
)
@settings(max_examples=many(30), deadline=None)
def test_bits_are_those_of_the_eager_form(seed: int, tasks: int, n: int, dtype: Any, preconditioned: bool) -> None:
    rng = np.random.default_rng(seed)
    for low in (0.1, -0.3):
        d, b = a_system(rng, tasks, n, dtype, low)
        how: dict[str, Any] = {"max_iterations": int(rng.integers(1, 40)), "rtol": (None, 0.0, 1e-3)[rng.integers(3)]}
        if rng.random() < 0.3:
            how["initial"] = rng.standard_normal((tasks, n)).astype(dtype)
        if preconditioned:
            scale = rng.uniform(-0.1 if rng.random() < 0.3 else 0.1, 1, (tasks, n)).astype(dtype)
            how["preconditioner"] = lambda r, scale=scale: r * scale
        same(
            conjugate_gradient(lambda v, d=d: v * d, b, **how), eager_conjugate_gradient(lambda v, d=d: v * d, b, **how)
        )


@pytest.mark.skipif(NumPyBackend().compiler is None, reason="llvmlite is not installed")
@pytest.mark.parametrize("preconditioned", [False, True])
def test_a_shape_that_comes_often_is_compiled_and_keeps_its_bits(preconditioned: bool, pool: Any) -> None:
    d, b = a_system(np.random.default_rng(0), 3, 19, np.float64)
    how: dict[str, Any] = {"preconditioner": lambda r: r / (1 + d)} if preconditioned else {}
    wanted = eager_conjugate_gradient(lambda v: d * v, b, **how)
    rounds = 0
    while rounds <= borrowing._PATIENCE:
        solve = conjugate_gradient(lambda v: d * v, b, **how)
        same(solve, wanted)
        rounds += int(solve[1].iterations.max())
    (buffers,) = pool._idle
    # Compiling has begun by itself, and only has to be waited for.
    assert all(
        e._compiling is None or e._compiling._compilation is not None for e in buffers.iteration._executables[:1]
    )
    buffers.iteration.compile()
    # Nothing is left to NumPy: an operator of the engine runs many rounds in one call then.
    assert all(executable.kernels(0) is not None for executable in buffers.iteration._executables)
    same(conjugate_gradient(lambda v: d * v, b, **how), wanted)
    buffers.iteration.compile()
    assert all(any(part.compiled for part in e.parts(0)) for e in buffers.iteration._executables)
    same(conjugate_gradient(lambda v: d * v, b, **how), wanted)


def test_a_solve_inside_a_solve_has_buffers_of_its_own() -> None:
    d, b = a_system(np.random.default_rng(1), 2, 8, np.float64)
    inner: list[Any] = []

    def operator(v: Any) -> Any:
        inner.append(conjugate_gradient(lambda u: u * d, b))
        return v * d

    wanted = eager_conjugate_gradient(lambda v: v * d, b)
    same(conjugate_gradient(operator, b), wanted)
    assert len(inner) > 3
    for solve in inner:
        same(solve, wanted)


def test_threads_have_buffers_of_their_own() -> None:
    systems = [a_system(np.random.default_rng(seed), 2, 8, np.float64) for seed in range(40)]
    barrier = threading.Barrier(4)

    def solve(place: int) -> Any:
        if place < 4:
            barrier.wait()
        d, b = systems[place]
        return conjugate_gradient(lambda v: v * d, b)

    with ThreadPoolExecutor(4) as threads:
        for (d, b), result in zip(systems, threads.map(solve, range(40)), strict=True):
            same(result, eager_conjugate_gradient(lambda v, d=d: v * d, b))


def test_a_solution_is_not_written_by_the_next_solve() -> None:
    d, b = a_system(np.random.default_rng(2), 2, 8, np.float64)
    x, _ = conjugate_gradient(lambda v: v * d, b)
    kept = x.copy()
    conjugate_gradient(lambda v: v * d, -b)
    np.testing.assert_array_equal(x, kept)


def test_buffers_of_a_solve_that_failed_are_not_used_again(pool: Any) -> None:
    d, b = a_system(np.random.default_rng(3), 1, 5, np.float64)
    conjugate_gradient(lambda v: v * d, b)
    with pytest.raises(ZeroDivisionError):
        conjugate_gradient(lambda v: v / 0 if v is None else 1 // 0, b)
    assert pool._idle == []
    same(conjugate_gradient(lambda v: v * d, b), eager_conjugate_gradient(lambda v: v * d, b))


@pytest.mark.slow
def test_the_pool_is_bounded_in_number_and_bytes(pool: Any) -> None:
    for n in range(1, 30):
        conjugate_gradient(lambda v: v, np.ones(n))
    assert len(pool._idle) == borrowing._MOST_IDLE
    conjugate_gradient(lambda v: v, np.ones(borrowing._MOST_BYTES // 8))
    assert sum(buffers.iteration.nbytes for buffers in pool._idle) < 10_000


def test_neither_functions_nor_large_buffers_outlive_a_solve() -> None:
    class Operator:
        def __call__(self, v: Any) -> Any:
            return v

    operator = Operator()
    alive = weakref.ref(operator)
    gc.disable()
    try:
        conjugate_gradient(operator, np.ones(7))
        del operator
        assert alive() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("solver", [conjugate_gradient, gmres])
def test_histories_are_the_residuals_of_the_iterates(solver: Any) -> None:
    rng = np.random.default_rng(4)
    d, b = a_system(rng, 3, 12, np.float64)
    b[1] = 0
    seen: list[tuple[int, Any]] = []
    _, report = solver(lambda v: v * d, b, rtol=1e-6, callback=lambda k, norms: seen.append((k, norms)))
    history = report.residual_history
    steps = int(report.iterations.max())
    assert history.shape == (1 + steps, 3)
    assert [k for k, _ in seen] == [*range(1, 1 + steps)]
    np.testing.assert_array_equal(np.array([norms for _, norms in seen]), history[1:])
    np.testing.assert_array_equal(np.isfinite(history).sum(axis=0), 1 + report.iterations)
    for k in range(1, 1 + steps):
        x, _ = solver(lambda v: v * d, b, rtol=1e-6, max_iterations=k)
        residuals = np.linalg.norm(b - d * x, axis=1)
        took = np.isfinite(history[k])
        np.testing.assert_allclose(residuals[took], history[k][took], rtol=1e-6, atol=1e-12)


def test_the_history_has_the_units_of_the_right_hand_side() -> None:
    d, b = a_system(np.random.default_rng(5), 2, 6, np.float64)
    plain, scaled = (conjugate_gradient(lambda v: v * d, b * unit)[1].residual_history for unit in (1.0, 2.0**-300))
    np.testing.assert_array_equal(plain, scaled * 2.0**300)


def test_a_series_has_a_history_too() -> None:
    a, b = np.array([[1.5, 0.7]]), np.array([[1.0, 2.0]])
    _, report = neumann_series(lambda v: a * v, b, terms=4)
    wanted = [np.linalg.norm((1 - a) ** j * b) for j in range(5)]
    np.testing.assert_allclose(report.residual_history[:, 0], wanted)


def test_a_callback_must_be_a_function() -> None:
    with pytest.raises(ArgumentException, match="callback must be a function"):
        conjugate_gradient(lambda v: v, np.ones(3), callback=3)  # type: ignore[arg-type]
