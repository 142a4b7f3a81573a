"""Minimisers against numpy.linalg, SciPy and known minima; rows that see nothing of each other; every refusal."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

from aidotnet_py import (
    ArgumentException,
    ArgumentNullException,
    ArgumentOutOfRangeException,
    NotSupportedException,
)
from aidotnet_py.autodiff import grad, jvp, softplus, trace, value_and_grad, vmap
from aidotnet_py.backends import get_backend
from aidotnet_py.optimizers import LBFGSMinimizer, NewtonCGMinimizer, RowMinimizer

NUMPY = get_backend("numpy")


class Reused:
    """An objective on NumPy whose arrays turn to NaN at the next call, and which counts its calls and keeps vectors."""

    def __init__(self, evaluate, product):
        self._evaluate, self._product = evaluate, product
        self._last, self._last_product = [], []
        self.evaluations = self.curvatures = self.products = 0
        self.vectors = []

    def _spoil(self):
        for array in self._last:
            array[...] = np.nan

    def evaluate(self, points):
        self.evaluations += 1
        self._spoil()
        self._last = [np.array(a) for a in self._evaluate(points)]
        return tuple(self._last)

    def curvature(self, points):
        self.curvatures += 1
        self._spoil()
        here = points.copy()

        def product(v):
            assert np.array_equal(here, points, equal_nan=True)  # nobody may write to the points meanwhile
            self.products += 1
            self.vectors.append(v.copy())
            for array in self._last_product:
                array[...] = np.nan
            self._last_product = [np.array(self._product(points, v))]
            return self._last_product[0]

        return product


class Traced:
    """An objective on any backend, from a function of one vector."""

    def __init__(self, function):
        self._evaluate, self._gradients = vmap(value_and_grad(function)), vmap(grad(function))
        self._programs = None

    def evaluate(self, points):
        if self._programs is None:
            products = trace(lambda x, v: jvp(self._gradients, (x,), (v,))[1], points, points)
            self._programs = trace(self._evaluate, points), products
        return self._programs[0](points)

    def curvature(self, points):
        return lambda v: self._programs[1](points, v)


class Quadratics:
    """½xᵀAx − bᵀx of each row, on any backend."""

    def __init__(self, backend, matrices, sides):
        self._backend = backend
        self._matrices, self._sides = backend.asarray(matrices), backend.asarray(sides)

    def evaluate(self, points):
        products = self.curvature(points)(points)
        return self._backend.vecdot(points, 0.5 * products - self._sides), products - self._sides

    def curvature(self, points):
        tasks, count = points.shape
        columns = (tasks, count, 1)
        return lambda v: self._backend.reshape(
            self._backend.matmul(self._matrices, self._backend.reshape(v, columns)), (tasks, count)
        )


def quadratics(tasks, count, dtype=np.float64, condition=30.0):
    random = np.random.default_rng(2)
    turns = np.linalg.qr(random.standard_normal((tasks, count, count)))[0]
    matrices = (turns * np.geomspace(1.0, condition, count)) @ turns.swapaxes(1, 2)
    return ((matrices + matrices.swapaxes(1, 2)) / 2).astype(dtype), random.standard_normal((tasks, count)).astype(
        dtype
    )


def solutions(matrices, sides):
    return np.linalg.solve(matrices.astype(np.float64), sides.astype(np.float64)[..., None])[..., 0]


def rosenbrock(x):
    return 100.0 * (x[1] - x[0] ** 2) ** 2 + (1.0 - x[0]) ** 2


def logistic(dtype=np.float64, backend=NUMPY):
    """A regularised logistic regression of twelve weights."""
    random = np.random.default_rng(4)
    features = (random.standard_normal((40, 12)) * np.geomspace(1, 0.05, 12)).astype(dtype)
    labels = random.choice([-1.0, 1.0], 40).astype(dtype)
    negated = backend.asarray(-labels[:, None] * features)
    return lambda w: np.mean(softplus(np.matmul(negated, w))) + 0.005 * np.sum(w * w)


def double_wells():
    """Σ x⁴/4 − x²/2 of each row: concave for |x| < 1/√3, least at ±1, and the same bits whatever rows there are."""
    return Reused(
        lambda x: ((x**4 / 4 - x**2 / 2).sum(axis=1), x**3 - x),
        lambda x, v: (3 * x**2 - 1) * v,
    )


def barriers():
    """Σ x − log x of each row, which is no number for x < 0; least at 1."""
    return Reused(lambda x: ((x - np.log(x)).sum(axis=1), 1 - 1 / x), lambda x, v: v / x**2)


@pytest.mark.slow
def test_l_bfgs_ends_at_a_point_of_an_unbounded_function() -> None:
    pytest.importorskip("scipy")
    for f, start in ((lambda x: -np.sum(np.exp(x)), [1.0, 2.0]), (lambda x: -np.sum(x**2), [1.0, 2.0])):
        found = LBFGSMinimizer()(value_and_grad(f), np.array(start))
        assert np.isfinite(found).all()
        assert f(found) < f(np.array(start))


def test_no_minimiser_ends_beyond_the_numbers_of_its_dtype() -> None:
    # exp(−x) has a value at ∞, lower than all others.
    pytest.importorskip("scipy")
    found = LBFGSMinimizer()(lambda x: (1e30 * np.exp(-1e-30 * float(x[0])), -np.ones_like(x)), np.ones(1, np.float16))
    assert 1.0 < found[0] < np.inf

    class Falling:
        """1e38 exp(3 − x/1e38)."""

        def evaluate(self, points):
            e = np.exp(3 - points / np.float32(1e38))
            return (np.float32(1e38) * e).sum(axis=1), -e

        def curvature(self, points):
            e = np.exp(3 - points / np.float32(1e38))
            return lambda v: e * np.float32(1e-38) * v

    found = NewtonCGMinimizer().minimize(Falling(), np.full((1, 1), 3e38, np.float32))
    assert 3e38 < found[0, 0] < np.inf


class TestNewton:
    @pytest.mark.numpy_first
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_solves_quadratics_as_linear_algebra_does(self, backend, dtype):
        matrices, sides = quadratics(4, 9, dtype)
        tolerance = {np.float32: 1e-5, np.float64: 1e-11}[dtype]
        start = backend.asarray(np.zeros((4, 9), dtype))
        result = NewtonCGMinimizer(50, tolerance).minimize(Quadratics(backend, matrices, sides), start)
        assert backend.owns(result)
        assert backend.dtype_of(result) == dtype
        # ‖x − x*‖ ≤ ‖g‖ / 1, the least eigenvalue; and the rounding of the gradient on top.
        rounding = 9 * 30 * np.finfo(dtype).eps
        errors = np.linalg.norm(backend.to_numpy(result) - solutions(matrices, sides), axis=1)
        assert (errors <= np.sqrt(9) * (tolerance + rounding)).all()

    @pytest.mark.numpy_first
    def test_finds_the_minimum_of_rosenbrocks_valley(self, backend):
        starts = backend.asarray(np.array([[-1.2, 1.0], [2.0, -2.0], [1.0, 1.0], [0.0, 0.0]]))
        result = NewtonCGMinimizer(100, 1e-9).minimize(Traced(rosenbrock), starts)
        np.testing.assert_allclose(backend.to_numpy(result), 1.0, atol=1e-8)

    @pytest.mark.slow
    def test_fits_a_logistic_regression_as_scipy_does(self, backend):
        starts = np.random.default_rng(0).standard_normal((2, 12))
        fitted = NewtonCGMinimizer(gradient_tolerance=1e-10).minimize(
            Traced(logistic(backend=backend)), backend.asarray(starts)
        )
        own = scipy.optimize.minimize(
            value_and_grad(logistic()), starts[0], jac=True, method="BFGS", options={"gtol": 1e-9}
        )
        np.testing.assert_allclose(backend.to_numpy(fitted), [own.x, own.x], rtol=0, atol=1e-7)

    def test_converges_fast(self):
        function = Traced(logistic())
        counted = Reused(function.evaluate, lambda x, v: function.curvature(x)(v))
        NewtonCGMinimizer(gradient_tolerance=1e-12).minimize(counted, np.ones((1, 12)))
        assert counted.curvatures <= 8
        assert counted.evaluations == counted.curvatures + 1

    def test_reaches_small_gradients_in_float32_though_losses_of_one_hide_them(self):
        function = logistic(np.float32)
        objective = Traced(lambda w: 1.0 + function(w))
        result = NewtonCGMinimizer(50, 2e-7).minimize(objective, np.zeros((1, 12), np.float32))
        assert result.dtype == np.float32
        assert np.abs(objective.evaluate(result)[1]).max() <= 2e-7

    @pytest.mark.parametrize("start", [[1e-3, -0.2, 0.3], [0.1, 0.5, 2.0], [0.0, -0.1, 1.5]])
    def test_goes_down_where_the_curvature_is_negative(self, start):
        objective = double_wells()
        result = NewtonCGMinimizer(50, 1e-10).minimize(objective, np.array([start]))
        # A saddle's coordinate, 0, has no slope to follow.
        np.testing.assert_allclose(result, np.sign([start]), atol=1e-9)

    def test_keeps_what_was_found_before_negative_curvature(self):
        # CG's first direction, (1, 1), has curvature 10 + 1; the second meets −1.
        curvature = np.array([[10.0, -1.0]])
        objective = Reused(
            lambda x: ((curvature * x**2 / 2 + x**4 / 4).sum(axis=1), curvature * x + x**3),
            lambda x, v: (curvature + 3 * x**2) * v,
        )
        start = np.array([[0.5, 0.1]])
        stepped = NewtonCGMinimizer(1, 1e-10).minimize(objective, start)
        slope = curvature * start + start**3
        along = stepped - start
        # One step of CG goes along −∇f, by the length that is best for the quadratic model.
        curved = (slope * (curvature + 3 * start**2) * slope).sum()
        np.testing.assert_allclose(along, -slope * (slope**2).sum() / curved, rtol=1e-12)
        result = NewtonCGMinimizer(50, 1e-10).minimize(objective, start)
        np.testing.assert_allclose(np.abs(result), [[0.0, 1.0]], atol=1e-9)

    def test_never_goes_up(self):
        objective = double_wells()
        random = np.random.default_rng(1)
        point, before = random.standard_normal((6, 5)), np.inf
        for _ in range(12):
            losses = objective.evaluate(point)[0].copy()
            assert (losses <= before).all()
            point, before = NewtonCGMinimizer(1, 1e-10).minimize(objective, point), losses

    def test_shortens_steps_to_where_the_function_has_no_value(self):
        # The first whole steps lead to −3 and far beyond.
        result = NewtonCGMinimizer(30, 1e-9).minimize(barriers(), np.array([[3.0], [50.0], [0.01]]))
        np.testing.assert_allclose(result, 1.0, atol=1e-8)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("wall", [0.5, 0.2, 0.05, 0.003])
    def test_a_line_that_falls_into_no_number_is_shortened_to_a_tenth(self, value, wall):
        # ½x² from 1: the whole step leads to 0, and a shorter one is good where the function has a value.
        objective = Reused(
            lambda x: (np.where(x < 1 - wall, value, x**2 / 2).sum(axis=1), np.where(x < 1 - wall, np.nan, x)),
            lambda x, v: v,
        )
        result = NewtonCGMinimizer(1).minimize(objective, np.ones((1, 1)))
        tenths = next(k for k in range(10) if 0.1**k <= wall)
        np.testing.assert_allclose(result, [[1 - 0.1**tenths]], rtol=1e-12)
        assert objective.evaluations == 1 + 1 + tenths

    def test_a_line_that_only_falls_too_little_is_shortened_by_its_parabola(self):
        # From 1 by −4 along a curvature that is told four times too small: the parabola's lowest point is a quarter.
        objective = Reused(lambda x: ((x**2 / 2).sum(axis=1), x), lambda x, v: v / 4)
        result = NewtonCGMinimizer(1).minimize(objective, np.ones((1, 1)))
        np.testing.assert_allclose(result, 0.0, atol=1e-15)
        assert objective.evaluations == 3

    def test_warns_of_nothing_where_numbers_overflow(self):
        steep = Reused(
            lambda x: ((np.exp(x**2)).sum(axis=1), 2 * x * np.exp(x**2)),
            lambda x, v: 1e-3 * v,  # so that the first steps are much too long
        )
        result = NewtonCGMinimizer(200, 1e-6).minimize(steep, np.array([[2.0]]))
        assert abs(result[0, 0]) < 2.0

    @pytest.mark.parametrize(("value", "slope"), [(-np.inf, 0.0), (0.0, np.nan), (0.0, np.inf)])
    def test_does_not_go_where_loss_or_gradient_is_no_number(self, value, slope):
        objective = Reused(
            lambda x: (np.where(x < -1, value, x**2).sum(axis=1), np.where(x < -1, slope, 2 * x)),
            lambda x, v: v / 2,  # so that the first step, from 3, would lead to −9
        )
        result = NewtonCGMinimizer(50).minimize(objective, np.array([[3.0]]))
        np.testing.assert_allclose(result, 0.0, atol=1e-6)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
    def test_leaves_a_row_that_starts_where_there_is_no_number(self, bad):
        start = np.array([[3.0, 3.0], [2.0, bad], [0.5, 0.7]])
        result = NewtonCGMinimizer(30, 1e-9).minimize(barriers(), start)
        np.testing.assert_array_equal(result[1], start[1])
        np.testing.assert_allclose(result[[0, 2]], 1.0, atol=1e-8)

    def test_survives_products_that_are_no_numbers(self):
        objective = Reused(lambda x: ((x**2).sum(axis=1), 2 * x), lambda x, v: np.nan * v)
        # Steepest descent does here what it can.
        np.testing.assert_allclose(NewtonCGMinimizer(50).minimize(objective, np.ones((1, 3))), 0.0, atol=1e-6)

    def test_leaves_a_row_that_no_step_makes_better(self):
        # The slopes lie: the function rises where they say that it falls.
        lying = Reused(lambda x: (-x.sum(axis=1), np.ones_like(x)), lambda x, v: v)
        start = np.array([[1.0, -0.0], [2.0, 5.0]])
        result = NewtonCGMinimizer().minimize(lying, start)
        assert result.tobytes() == start.tobytes()
        assert lying.curvatures == 1

    def test_leaves_a_row_that_has_converged_bit_for_bit(self):
        start = np.array([[-0.0, 1.0], [1.0, 1.0 + 1e-7], [0.3, 0.2]])
        objective = double_wells()
        result = NewtonCGMinimizer(50).minimize(objective, start)
        assert result[:2].tobytes() == start[:2].tobytes()
        np.testing.assert_allclose(result[2], 1.0, atol=1e-6)
        # No direction is sought for it.
        assert not np.array(objective.vectors)[:, :2].any()

    @pytest.mark.slow
    @given(st.integers(0, 2**32 - 1), st.sampled_from([np.float32, np.float64]), st.sampled_from(["wells", "barriers"]))
    def test_rows_are_each_as_if_alone_bit_for_bit(self, seed, dtype, which):
        random = np.random.default_rng(seed)
        make = double_wells if which == "wells" else barriers
        starts = (random.standard_normal((5, 3)) * 10.0 ** random.integers(-3, 3, (5, 1))).astype(dtype)
        starts[random.integers(5)] = 1.0
        minimizer = NewtonCGMinimizer(int(random.integers(1, 15)), 1e-5, int(random.integers(1, 5)))
        together = minimizer.minimize(make(), starts)
        for row, start in zip(together, starts, strict=True):
            assert minimizer.minimize(make(), start[None]).tobytes() == row.tobytes()

    @pytest.mark.parametrize(("steps", "products"), [(1, 1), (3, 2), (7, 4)])
    def test_does_no_more_than_it_is_allowed(self, steps, products):
        matrices, sides = quadratics(2, 20, condition=1e4)
        given_ = Quadratics(NUMPY, matrices, sides)
        objective = Reused(given_.evaluate, lambda x, v: given_.curvature(x)(v))
        NewtonCGMinimizer(steps, 0.0, products).minimize(objective, np.zeros((2, 20)))
        assert objective.curvatures == steps
        assert objective.products <= steps * (products + 1)

    def test_does_not_change_its_start(self):
        start = np.full((2, 3), 0.3)
        start.flags.writeable = False
        minimizer = NewtonCGMinimizer()
        assert isinstance(minimizer, RowMinimizer)
        for result in (minimizer.minimize(double_wells(), start), minimizer.minimize(double_wells(), start * 0 + 1)):
            assert not np.shares_memory(result, start)
        assert (start == 0.3).all()

    @pytest.mark.parametrize(
        ("start", "message"),
        [
            ([[1.0]], r"start must be a floating array \(tasks, P\).*, got list"),
            (np.ones(3), r"start must be a floating array \(tasks, P\), not empty, got float64\(3,\) on backend"),
            (np.ones((2, 3), int), r"start must be a floating array \(tasks, P\).*, got int64\(2, 3\) .*"),
            (np.ones((0, 3)), r"start must be .*, not empty, got float64\(0, 3\)"),
            (np.ones((2, 0)), r"start must be .*, not empty, got float64\(2, 0\)"),
        ],
    )
    def test_refuses_what_are_no_rows(self, start, message):
        with pytest.raises(ArgumentException, match=message):
            NewtonCGMinimizer().minimize(double_wells(), start)

    @pytest.mark.parametrize(
        ("losses", "gradients", "message"),
        [
            (0.0, np.ones((2, 3)), r"the objective's losses must be float64\(2,\) on backend 'numpy', got a float"),
            (
                np.ones(3),
                np.ones((2, 3)),
                r"the objective's losses must be float64\(2,\) .*, got float64\(3,\) on backend",
            ),
            (
                np.ones(2),
                np.ones(3),
                r"the objective's gradients must be float64\(2, 3\) .*, got float64\(3,\) on backend",
            ),
            (np.ones(2), np.ones((2, 3), np.float32), r"gradients must be .*, got float32\(2, 3\)"),
        ],
    )
    def test_refuses_results_that_do_not_fit(self, losses, gradients, message):
        class Odd:
            def evaluate(self, points):
                return losses, gradients

            def curvature(self, points):
                raise AssertionError

        with pytest.raises(ArgumentException, match=message):
            NewtonCGMinimizer().minimize(Odd(), np.ones((2, 3)))


class TestLBFGS:
    def test_a_start_in_the_other_byte_order(self):
        found = LBFGSMinimizer()(value_and_grad(lambda x: np.sum((x - 3.0) ** 2)), np.zeros(2, ">f8"))
        assert found.dtype.isnative
        np.testing.assert_allclose(found, 3.0)

    def test_solves_quadratics_as_linear_algebra_does(self):
        matrices, sides = quadratics(1, 9)
        matrix, side = matrices[0], sides[0]
        found = LBFGSMinimizer(gradient_tolerance=1e-7)(
            lambda x: (x @ (0.5 * matrix @ x - side), matrix @ x - side), np.zeros(9)
        )
        # ‖x − x*‖ ≤ ‖g‖ / 1, the least eigenvalue.
        assert np.linalg.norm(found - solutions(matrices, sides)[0]) <= np.sqrt(9) * 1e-7

    def test_finds_the_minimum_of_rosenbrocks_valley(self):
        found = LBFGSMinimizer(gradient_tolerance=1e-9)(value_and_grad(rosenbrock), np.array([-1.2, 1.0]))
        np.testing.assert_allclose(found, 1.0, atol=1e-8)

    def test_fits_a_logistic_regression_as_newton_does(self):
        function, start = logistic(), np.ones(12)
        newton = NewtonCGMinimizer(gradient_tolerance=1e-10).minimize(Traced(function), start[None])[0]
        found = LBFGSMinimizer(200, 1e-9)(value_and_grad(function), start)
        np.testing.assert_allclose(found, newton, rtol=0, atol=1e-7)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_calls_and_answers_in_the_dtype_of_its_start(self, dtype):
        seen = []

        def objective(x):
            seen.append(x.dtype)
            return value_and_grad(logistic(dtype))(x)

        found = LBFGSMinimizer()(objective, np.zeros(12, dtype))
        assert found.dtype == dtype
        assert set(seen) == {np.dtype(dtype)}

    @pytest.mark.parametrize("above", [0.0, 1.0, 100.0])
    def test_reaches_small_gradients_in_float32_though_the_values_hide_them(self, above):
        # Of values near 100, those of points with gradients below about 1e-3 are mostly equal.
        function = logistic(np.float32)
        objective = value_and_grad(lambda w: above + function(w))
        found = LBFGSMinimizer(100, 2e-7)(objective, np.zeros(12, np.float32))
        assert np.abs(objective(found)[1]).max() <= 2e-7

    def test_copies_arrays_that_are_used_again(self):
        calls = []

        def objective(x):
            # So high above 0 that only slopes tell values apart: those at both ends of the first step, from 0 to 1,
            # which goes too far and yet lower.
            calls.append(x)
            buffer[...] = np.sinh(x - 0.6)
            return 1e6 + np.cosh(x - 0.6).sum(), buffer

        buffer, start = np.empty(1), np.zeros(1, np.float32)
        start.flags.writeable = False
        found = LBFGSMinimizer(gradient_tolerance=1e-4)(objective, start)
        np.testing.assert_allclose(found, 0.6, atol=1e-4)
        kept, calls = len(calls), []
        LBFGSMinimizer(gradient_tolerance=1e-4)(lambda x: (objective(x)[0], buffer.copy()), start)
        assert len(calls) == kept

    @pytest.mark.parametrize("start", [0.01, 3.0, 500.0])
    def test_shortens_steps_to_where_the_function_has_no_value(self, start):
        found = LBFGSMinimizer(100, 1e-9)(lambda x: ((x - np.log(x)).sum(), 1 - 1 / x), np.array([start, 2.0]))
        np.testing.assert_allclose(found, 1.0, atol=1e-8)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
    def test_stays_where_it_is_when_there_is_no_number(self, bad):
        start = np.array([2.0, bad])
        found = LBFGSMinimizer()(lambda x: ((x - np.log(x)).sum(), 1 - 1 / x), start)
        np.testing.assert_array_equal(found, start)
        assert not np.shares_memory(found, start)

    def test_takes_no_more_steps_than_it_is_allowed(self):
        calls = []

        def objective(x):
            calls.append(x)
            return value_and_grad(rosenbrock)(x)

        start = np.array([-1.2, 1.0])
        near = LBFGSMinimizer(max_iterations=2)(objective, start)
        assert len(calls) < 10
        far = LBFGSMinimizer(max_iterations=8)(objective, start)
        assert rosenbrock(far) < rosenbrock(near) < rosenbrock(start)

    def test_its_settings_are_those_of_scipy(self):
        start = np.random.default_rng(3).standard_normal(12)
        objective = value_and_grad(logistic())
        np.testing.assert_array_equal(LBFGSMinimizer(gradient_tolerance=1e3)(objective, start), start)
        for history in (1, 3):
            options = {"maxcor": history, "gtol": 1e-8, "maxiter": 9, "ftol": 0.0}
            own = scipy.optimize.minimize(objective, start, method="L-BFGS-B", jac=True, options=options)
            np.testing.assert_array_equal(LBFGSMinimizer(9, 1e-8, history)(objective, start), own.x)

    def test_a_start_beyond_float64_stays_where_it_is(self):
        start = np.array([np.finfo(np.longdouble).max, 1.0], np.longdouble)
        found = LBFGSMinimizer()(lambda x: (float(np.sum(x)), np.ones_like(x)), start)
        np.testing.assert_array_equal(found, start)

    def test_a_history_longer_than_the_work_takes_no_room(self):
        start = np.array([-1.2, 1.0])
        long, short = (LBFGSMinimizer(20, history=m)(value_and_grad(rosenbrock), start) for m in (10**9, 20))
        np.testing.assert_array_equal(long, short)

    def test_refuses_arrays_of_another_library(self):
        start = get_backend("strict").asarray(np.ones(2))
        message = r"theta is on backend 'strict'; SciPy works on NumPy arrays only, NewtonCGMinimizer on any"
        with pytest.raises(NotSupportedException, match=message):
            LBFGSMinimizer()(lambda x: (0.0, x), start)

    @pytest.mark.parametrize(
        ("start", "message"),
        [
            ([1.0], r"theta must be a floating NumPy array \(P,\).*, got list"),
            (np.ones((1, 2)), r"theta must be a floating NumPy array \(P,\).*, got float64\(1, 2\)"),
            (np.ones(2, int), r"theta must be a floating NumPy array \(P,\).*, got int64\(2,\)"),
            (np.ones(0), r"theta must be a floating NumPy array \(P,\).*, got float64\(0,\)"),
        ],
    )
    def test_refuses_what_is_no_vector(self, start, message):
        with pytest.raises(ArgumentException, match=message):
            LBFGSMinimizer()(lambda x: (0.0, x), start)

    def test_says_how_to_get_scipy(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "scipy.optimize", None)
        message = re.escape('LBFGSMinimizer needs SciPy: pip install "aidotnet-py[optimize]"')
        with pytest.raises(ImportError, match=message):
            LBFGSMinimizer()(lambda x: (0.0, x), np.ones(1))


class TestObjectives:
    @pytest.mark.parametrize(
        ("result", "came"),
        [
            (lambda x: (np.sum(x**2), None), r"float64\(\) and None"),
            (lambda x: (np.sum(x**2), 2.0), r"float64\(\) and float64\(\)"),
            (lambda x: (np.sum(x**2), np.ones(3)), r"float64\(\) and float64\(3,\)"),
            (lambda x: (np.sum(x**2), 2 * x[None]), r"float64\(\) and float64\(1, 2\)"),
            (lambda x: (x**2, 2 * x), r"float64\(2,\) and float64\(2,\)"),
            (lambda x: (np.sum(x**2) + 0j, 2 * x), r"complex128\(\) and float64\(2,\)"),
            (lambda x: (None, 2 * x), r"None and float64\(2,\)"),
            (lambda x: (1.0, [1.0, [2.0]]), r"\(1.0, \[1.0, \[2.0\]\]\)"),
            (lambda x: np.sum(x**2), r"5"),
            (lambda x: None, "None"),
        ],
    )
    def test_l_bfgs_refuses_what_is_no_value_and_gradient(self, result, came):
        wanted = rf"the result of objective must be a real number and its gradient of shape \(2,\), got .*{came}"
        with pytest.raises(ArgumentException, match=wanted):
            LBFGSMinimizer()(result, np.array([1.0, 2.0]))

    def test_none_is_no_objective(self):
        with pytest.raises(ArgumentException, match="objective must be a function of a vector, got 3"):
            LBFGSMinimizer()(3, np.ones(2))
        for minimizer, start in ((LBFGSMinimizer(), np.ones(2)), (NewtonCGMinimizer().minimize, np.ones((1, 2)))):
            with pytest.raises(ArgumentNullException, match=r"objective must be .*, got None"):
                minimizer(None, start)
        values_alone = double_wells()
        values_alone.curvature = None
        for objective in (lambda x: x, values_alone):
            with pytest.raises(ArgumentException, match="must be a RowObjective, with evaluate and curvature, got"):
                NewtonCGMinimizer().minimize(objective, np.ones((1, 2)))
        assert values_alone.evaluations == 0

    def test_newton_refuses_what_are_no_losses_and_gradients(self):
        none = double_wells()
        none.evaluate = lambda points: None
        with pytest.raises(
            ArgumentException, match=r"the result of evaluate must be losses \(2,\) and grad.*, got None"
        ):
            NewtonCGMinimizer().minimize(none, np.ones((2, 3)))

    @pytest.mark.parametrize("method", ["evaluate", "curvature"])
    def test_newton_lets_no_objective_write_to_its_points(self, method):
        objective, start = double_wells(), np.full((2, 3), 0.3)
        own = getattr(objective, method)

        def writing(points):
            points *= 0
            return own(points)

        setattr(objective, method, writing)
        with pytest.raises(ValueError, match="read-only"):
            NewtonCGMinimizer().minimize(objective, start)


class TestSettings:
    @pytest.mark.parametrize(
        ("build", "name"),
        [
            (lambda v: NewtonCGMinimizer(max_iterations=v), "max_iterations"),
            (lambda v: NewtonCGMinimizer(cg_iterations=v), "cg_iterations"),
            (lambda v: LBFGSMinimizer(max_iterations=v), "max_iterations"),
            (lambda v: LBFGSMinimizer(history=v), "history"),
        ],
    )
    def test_that_count_start_at_one(self, build, name):
        assert getattr(build(1), name) == 1
        for value in (0, -3):
            with pytest.raises(ArgumentOutOfRangeException, match=rf"{name} must be a whole number of at.*, got "):
                build(value)
        for value in (1.5, "2", None, True):
            with pytest.raises(
                ArgumentException, match=rf"{name} must be a whole number of at least 1.*, got {value!r}"
            ):
                build(value)

    @pytest.mark.parametrize("build", [NewtonCGMinimizer, LBFGSMinimizer])
    def test_of_the_gradient_are_numbers_from_zero(self, build):
        assert build(gradient_tolerance=0).gradient_tolerance == 0
        for value in (-1e-9, float("nan"), float("inf")):
            with pytest.raises(
                ArgumentOutOfRangeException, match=rf"gradient_tolerance must be a finite.*, got {value}"
            ):
                build(gradient_tolerance=value)
        with pytest.raises(ArgumentOutOfRangeException, match=r"gradient_tolerance must be .*, got an integer of"):
            build(gradient_tolerance=10**400)
        with pytest.raises(
            ArgumentException, match=r"gradient_tolerance must be a finite number of at least 0.*, got '0'"
        ):
            build(gradient_tolerance="0")
