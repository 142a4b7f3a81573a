"""What is known of one system beside others: the numbers and the reason of its own solve, wherever the others end."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from aidotnet_py.backends import Backend
from aidotnet_py.solvers import SolverReport, StopReason, conjugate_gradient, gmres

Solve = Callable[..., tuple[Any, SolverReport]]

SOLVERS: list[Solve] = [conjugate_gradient, gmres]


def diagonal(backend: Backend, d: np.ndarray) -> Callable[[Any], Any]:
    """Return v ↦ Dv, a diagonal for each row."""
    factors = backend.asarray(d)

    def product(v: Any) -> Any:
        with backend.errors_ignored():
            return backend.elementwise("multiply")(v, factors)

    return product


def assert_rows_are_those_of_solves_alone(
    backend: Backend, solve: Solve, d: np.ndarray, b: np.ndarray, **options: Any
) -> SolverReport:
    x, together = solve(diagonal(backend, d), backend.asarray(b), **options)
    for row in range(len(b)):
        part = slice(row, row + 1)
        one, alone = solve(diagonal(backend, d[part]), backend.asarray(b[part]), **options)
        np.testing.assert_array_equal(backend.to_numpy(x)[part], backend.to_numpy(one))
        assert together.stop_reasons[row] is alone.stop_reasons[0]
        for name in ("iterations", "initial_residual_norms", "residual_norms", "rhs_norms", "bounds"):
            np.testing.assert_array_equal(getattr(together, name)[part], getattr(alone, name), err_msg=name)
    return together


def preconditioned(*args: Any, **options: Any) -> tuple[Any, SolverReport]:
    return conjugate_gradient(*args, preconditioner=lambda r: r, **options)


@pytest.mark.parametrize("solve", [preconditioned, gmres])
def test_a_row_that_took_no_step_is_not_measured(solve: Solve, backend: Backend) -> None:
    # Its products are no numbers, and nobody needs one: its start is within the bound.
    d, b = np.array([[1.0, 2.0], [np.inf, 1.0]]), np.array([[3.0, 4.0], [0.1, 0.0]])
    report = assert_rows_are_those_of_solves_alone(backend, solve, d, b, atol=0.5)
    assert report.stop_reasons[1] is StopReason.CONVERGED
    assert report.residual_norms[1] == 0.1


def test_a_row_that_broke_down_at_once_is_not_measured(backend: Backend) -> None:
    d, b = np.array([[1.0, 2.0], [0.0, np.inf]]), np.array([[3.0, 4.0], [1.0, 1.0]])
    report = assert_rows_are_those_of_solves_alone(backend, gmres, d, b)
    assert report.stop_reasons[1] is StopReason.NOT_FINITE
    assert report.residual_norms[1] == np.sqrt(2)


def test_a_row_is_not_measured_because_another_left_the_dtype(backend: Backend) -> None:
    # In 20 rows, rounding shows somewhere in the last digits of b − Ax, next to those of the recurrence.
    d, b = np.random.default_rng(0).uniform(1, 3, (2, 21, 8))
    d[20], b[20] = 1e-300, 1e200
    report = assert_rows_are_those_of_solves_alone(backend, conjugate_gradient, d, b, max_iterations=2)
    assert report.stop_reasons[20] is StopReason.NOT_FINITE


@pytest.mark.parametrize("solve", SOLVERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_start_that_b_s_units_cannot_hold(solve: Solve, dtype: Any, backend: Backend) -> None:
    small, large = (1e-20, 1e30) if dtype is np.float32 else (1e-200, 1e300)
    d = np.array([[1.0, 0.0]], dtype)
    # The start's second unknown is in the null space: b − Ax is b's first.
    x, report = solve(
        diagonal(backend, d),
        backend.asarray(np.array([[small, 0.0]], dtype)),
        initial=backend.asarray(np.array([[0.0, large]], dtype)),
        atol=10 * small,
    )
    np.testing.assert_array_equal(backend.to_numpy(x), np.array([[0.0, large]], dtype))
    assert report.converged.all()
    np.testing.assert_allclose(report.residual_norms, small, rtol=1e-6)


@pytest.mark.parametrize("size", [1e25, 1e-25])
def test_the_history_of_gmres_is_what_its_callback_saw(size: float, backend: Backend) -> None:
    seen: list[Any] = []
    b = np.array([[1.0, 2.0, 3.0]], np.float32) * np.float32(size)
    d = np.array([[1.0, 1.0, 2.0]], np.float32)
    start = np.array([[-1.0, 0.0, 1.0]], np.float32) * np.float32(size)
    _, report = gmres(
        diagonal(backend, d),
        backend.asarray(b),
        initial=backend.asarray(start),
        rtol=0.0,
        callback=lambda _, norms: seen.append(norms),
    )
    assert [norms.dtype for norms in seen] == [np.dtype(np.float32)] * len(seen)
    np.testing.assert_array_equal(np.array(seen), report.residual_history[1:])
    assert report.residual_history[1] > 0


@pytest.mark.parametrize("solve", SOLVERS)
@pytest.mark.parametrize("size", [1e300, 1e-300, 1e-320])
def test_numpy_set_to_raise_does_not_get_in_the_way(solve: Solve, size: float, backend: Backend) -> None:
    d = np.array([[0.5, 1.0, 1.5], [1e-200, 1.0, 2e-200], [1.0, 1e200, 3.0]])
    b = np.array([[1.0, 2.0, 3.0], [size, 1.0, 0.0], [size, size, size]])
    options: dict[str, Any] = {"callback": lambda *_: None, "initial": backend.asarray(b[::-1] * 1e-3)}
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        _, report = solve(diagonal(backend, d), backend.asarray(b), atol=1e-10, rtol=1e-5, **options)
        assert report.residual_history.shape[1] == 3
