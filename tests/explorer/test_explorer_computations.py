"""What the explorer computes, against closed forms, SciPy and finite differences; and what it refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import ROOT
from scipy.optimize import minimize

from aidotnet_py import ArgumentException
from aidotnet_py.comparison import PROBLEMS
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.explorer.digits import DigitTask, unseen_images
from aidotnet_py.explorer.inner_problem import SOLVERS, inner_problem, solve_inner_problem
from aidotnet_py.explorer.meta_gradient import compare_meta_gradients
from aidotnet_py.explorer.race import GRID, RACERS, Race, Wave
from aidotnet_py.explorer.strokes import MOST_POINTS, MOST_STROKES, _dense, rasterize
from aidotnet_py.explorer.surfaces import SURFACES

FLAT = [name for name, surface in SURFACES.items() if len(surface.start) == 2]
CONVEX = [name for name, surface in SURFACES.items() if surface.convex]
NAN = float("nan")


class TestInnerProblem:
    def test_the_minimum_of_a_quadratic(self) -> None:
        matrix, centre, theta = np.array([[2.0, 0.6], [0.6, 1.0]]), np.array([1.0, 0.5]), np.array([-1.5, 1.8])
        for strength in (0.0, 0.5, 100.0):
            wanted = np.linalg.solve(matrix + strength * np.eye(2), matrix @ centre + strength * theta)
            solution = solve_inner_problem("bowl", theta, strength, "Newton-CG", 20)
            np.testing.assert_allclose(solution.minimum, wanted, atol=1e-12)
            np.testing.assert_allclose(solution.pull, -matrix @ (wanted - centre), atol=1e-12)
            np.testing.assert_allclose(solution.spring, strength * (theta - wanted), atol=1e-10)

    @pytest.mark.parametrize("surface", SURFACES)
    def test_the_minimum_is_one_for_scipy_too(self, surface: str) -> None:
        start = np.array(SURFACES[surface].start)
        solution = solve_inner_problem(surface, start, 0.5, "L-BFGS", 100)

        def objective(phi: Any) -> float:
            return float(SURFACES[surface].support(phi)) + 0.25 * float(np.sum((phi - start) ** 2))

        found = minimize(objective, solution.minimum + 0.01, method="Nelder-Mead" if len(start) == 2 else "BFGS")
        np.testing.assert_allclose(solution.minimum, found.x, atol=1e-3)

    @pytest.mark.parametrize("solver", SOLVERS)
    @pytest.mark.parametrize("surface", FLAT)
    def test_every_solver_goes_from_theta_downhill(self, surface: str, solver: str) -> None:
        start = SURFACES[surface].start
        objective = inner_problem(surface).objective
        solution = solve_inner_problem(surface, start, 1.0, solver, 200)
        assert solution.path[0].tolist() == list(start)
        assert (
            objective(solution.path[-1], np.array(start), 1.0)[0] < objective(np.array(start), np.array(start), 1.0)[0]
        )
        assert solution.distance < 0.1
        assert solution.imbalance < 1e-9
        assert solution.slope_along_circle is not None
        assert abs(solution.slope_along_circle) < 1e-9

    def test_steps_are_counted(self) -> None:
        for solver in ("gradient descent", "momentum"):
            assert len(solve_inner_problem("bowl", (-1.5, 1.8), 0.5, solver, 7).path) == 8

    def test_a_strong_spring_leaves_no_circle(self) -> None:
        solution = solve_inner_problem("bowl", (1.0, 0.5), 100.0, "Newton-CG", 5)
        assert solution.radius < 1e-9
        assert solution.slope_along_circle is None

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"surface": "moon"}, "surface must be"),
            ({"solver": "luck"}, "solver must be"),
            ({"theta": (1.0,)}, "theta must have 2 numbers"),
            ({"theta": (NAN, 0.0)}, r"theta\[0\] must be a number in"),
            ({"theta": (0.0, 1e300)}, r"theta\[1\] must be a number in"),
            ({"theta": ("1", 0.0)}, r"theta\[0\] must be a number in"),
            ({"strength": -1.0}, "Lambda must be"),
            ({"strength": NAN}, "Lambda must be"),
            ({"steps": 0}, "steps must be"),
            ({"steps": 2.5}, "steps must be"),
        ],
    )
    def test_nonsense(self, changed: dict[str, Any], message: str) -> None:
        good = {"surface": "bowl", "theta": (0.0, 0.0), "strength": 1.0, "solver": "L-BFGS", "steps": 5}
        with pytest.raises(ArgumentException, match=message):
            solve_inner_problem(**good | changed)


class TestMetaGradient:
    @pytest.mark.parametrize("surface", FLAT)
    def test_exact_means_the_slope_of_the_query_loss_at_the_minimum(self, surface: str) -> None:
        theta, step = np.array(SURFACES[surface].start), 1e-5
        found = compare_meta_gradients(surface, theta, 1.0, 200, 2)
        problem = inner_problem(surface)
        slopes = []
        for move in step * np.eye(2):
            ends = [problem.query(problem.minimum(found.minimum, theta + sign * move, 1.0))[0] for sign in (1, -1)]
            slopes.append((float(ends[0]) - float(ends[1])) / (2 * step))
        np.testing.assert_allclose(found.exact, slopes, rtol=1e-5, atol=1e-7)

    def test_more_steps_and_iterations_are_more_exact(self) -> None:
        theta = SURFACES["regression with 40 weights"].start
        errors = [
            compare_meta_gradients("regression with 40 weights", theta, 0.5, steps, iterations).error
            for steps, iterations in ((2, 1), (20, 5), (200, 60))
        ]
        assert errors[0] > errors[1] > errors[2]
        assert errors[2] < 1e-3

    @pytest.mark.parametrize("surface", CONVEX)
    @pytest.mark.parametrize(("steps", "iterations"), [(1, 1), (5, 1), (5, 2), (40, 10)])
    def test_the_bound_holds(self, surface: str, steps: int, iterations: int) -> None:
        for strength in (0.1, 1.0, 10.0):
            found = compare_meta_gradients(surface, SURFACES[surface].start, strength, steps, iterations)
            assert found.bound is not None
            # Both may be nothing but rounding.
            assert found.error <= found.bound + 1e-13

    def test_the_residual_curve_is_that_of_the_solve(self) -> None:
        found = compare_meta_gradients("regression with 40 weights", (0.0,) * 40, 0.5, 5, 12)
        matrix = np.eye(40) + 2.0 * inner_problem("regression with 40 weights").hessian(found.adapted)
        left = np.linalg.norm(found.first_order - matrix @ found.implicit) / np.linalg.norm(found.first_order)
        assert len(found.residuals) == 13
        np.testing.assert_allclose(found.residuals[-1], left, rtol=1e-9)

    def test_in_a_plane_lengths_and_the_angle_stay(self) -> None:
        found = compare_meta_gradients("regression with 40 weights", (0.0,) * 40, 0.5, 5, 12)
        plane = found.in_a_plane()
        np.testing.assert_allclose(plane["exact"], [np.linalg.norm(found.exact), 0.0], atol=1e-12)
        assert plane["first order"] @ plane["exact"] == pytest.approx(found.first_order @ found.exact)
        assert np.linalg.norm(plane["first order"]) == pytest.approx(np.linalg.norm(found.first_order))

    @pytest.mark.parametrize(
        ("changed", "message"),
        [({"strength": 0.0}, "Lambda must be"), ({"iterations": 0}, "iterations must be"), ({"steps": 999}, "steps")],
    )
    def test_nonsense(self, changed: dict[str, Any], message: str) -> None:
        good = {"surface": "bowl", "theta": (0.0, 0.0), "strength": 1.0, "steps": 5, "iterations": 5}
        with pytest.raises(ArgumentException, match=message):
            compare_meta_gradients(**good | changed)

    @pytest.mark.parametrize("strength", [1, np.float32(1.0), Fraction(1)])
    def test_a_strength_of_any_real_type(self, strength: Any) -> None:
        """One that is no float64 passed the check, and failed in the path of the steps."""
        given, wanted = (compare_meta_gradients("bowl", (0.0, 0.0), s, 5, 5) for s in (strength, 1.0))
        np.testing.assert_array_equal(given.implicit, wanted.implicit)


class TestRace:
    @pytest.mark.slow
    def test_all_begin_alike_and_random_stays(self) -> None:
        race = Race(seed=1)
        start = race.adapt(Wave(2.0, 1.0))
        assert all(np.array_equal(one.before, start["random"].before) for one in start.values())
        for _ in range(10):
            race.step()
        end = race.adapt(Wave(2.0, 1.0))
        assert np.array_equal(end["random"].after, start["random"].after)
        assert race.iterations == [0, 10]
        assert race.losses["random"][0] == race.losses["random"][1]
        for name in RACERS[1:]:
            assert race.losses[name][1] < race.losses[name][0], name
            assert not np.array_equal(end[name].before, start[name].before), name

    def test_the_wave_is_that_of_the_loader(self) -> None:
        task = SinusoidLoader(seed=3).GetNextTask()
        wave = Wave(task.Metadata["Amplitude"], task.Metadata["Phase"])
        np.testing.assert_allclose(wave.at(task.SupportInput), task.SupportOutput, atol=1e-6)

    def test_errors_are_those_on_the_grid(self) -> None:
        wave = Wave(3.0, 0.5)
        found = Race(seed=0).adapt(wave)["MAML"]
        truth = 3.0 * np.sin(GRID.ravel().astype(np.float64) - 0.5)
        assert found.loss_after == pytest.approx(np.mean((found.after - truth) ** 2), rel=1e-5)
        assert found.loss_before == pytest.approx(np.mean((found.before - truth) ** 2), rel=1e-5)
        before = PROBLEMS["sinusoid"].model(0).Predict(GRID)
        np.testing.assert_array_equal(found.before, np.asarray(before).ravel())

    @pytest.mark.parametrize(("amplitude", "phase"), [(NAN, 1.0), (6.0, 1.0), (1.0, -0.1), ("1", 1.0), (0.0, 1.0)])
    def test_nonsense(self, amplitude: Any, phase: Any) -> None:
        with pytest.raises(ArgumentException, match="must be a number in"):
            Wave(amplitude, phase)

    def test_seeds_that_are_none(self) -> None:
        with pytest.raises(ArgumentException, match="seeds must be"):
            Race(seed=-1)


SEVEN = [([0.0, 1.0, 0.4], [1.0, 1.0, -0.2])]


class TestStrokes:
    def test_a_vertical_line_fills_the_height_in_the_middle(self) -> None:
        image = rasterize([([3.0, 3.0], [0.0, 8.0])])
        assert image.shape == (8, 8)
        # 4 of 32 pixels wide, halves of two columns of blocks.
        np.testing.assert_allclose(image[1:7, 3:5], 0.5)
        assert image[:, [0, 1, 2, 5, 6, 7]].sum() == 0

    def test_the_unit_does_not_matter(self) -> None:
        large = [([100.0 * x - 7 for x in xs], [100.0 * y + 3 for y in ys]) for xs, ys in SEVEN]
        np.testing.assert_array_equal(rasterize(SEVEN), rasterize(large))
        np.testing.assert_array_equal(rasterize([([1e308, 1.5e308], [0, 0])]), rasterize([([0, 1], [0, 0])]))

    @pytest.mark.parametrize("length", [0.0, 0.4, 0.5, 0.9, 10.3])
    def test_dots_of_a_line_are_half_a_pixel_apart_at_most(self, length: float) -> None:
        """A line of 0.9 had its two ends alone, and one of 0.4 its first."""
        dots = _dense(np.array([[1.0, 0.0], [1.0 + length, 0.0]]))[:, 0]
        assert (dots[0], dots[-1]) == (1.0, 1.0 + length)
        assert np.diff(dots).max(initial=0.0) <= 0.5 + 1e-12

    def test_up_is_up(self) -> None:
        assert rasterize(SEVEN)[0].sum() > rasterize(SEVEN)[7].sum()

    def test_a_dot_stays_a_dot(self) -> None:
        image = rasterize([([1.0], [1.0])])
        # Of the 4 × 4 pixels round the middle, the corners are out of the pen's reach.
        np.testing.assert_array_equal(image[3:5, 3:5], 3 / 16)
        assert image.sum() == 3 / 4

    @pytest.mark.parametrize(
        ("strokes", "message"),
        [
            ([], "must have a stroke"),
            ([([], [])], "must have a stroke"),
            ([([1.0], [1.0, 2.0])], "as many xs as ys"),
            ([([NAN], [1.0])], "finite"),
            ([(["a"], [1.0])], "must be numbers"),
            ([(np.zeros(MOST_POINTS + 1), np.zeros(MOST_POINTS + 1))], "at most"),
            ([([0.0], [0.0])] * (MOST_STROKES + 1), "at most 200 strokes, got 201"),
        ],
    )
    def test_nonsense(self, strokes: Any, message: str) -> None:
        with pytest.raises(ArgumentException, match=message):
            rasterize(strokes)


class TestDigits:
    def test_the_start_has_not_seen_them(self) -> None:
        assert list(unseen_images()) == ["2", "3", "4", "5", "7"]

    @pytest.mark.slow
    def test_the_adapted_model_knows_them(self) -> None:
        right = []
        for seed in range(10):
            task = DigitTask(5, 5, seed)
            for _ in range(20):
                image, digit = task.question()
                right.append(task.digits[int(task.answer(image).argmax())] == digit)
        # The start's own figure is 80 %, chance 20 %.
        assert np.mean(right) > 0.7

    def test_a_drawn_seven_is_one(self) -> None:
        assert DigitTask(5, 5, seed=0).answer(rasterize(SEVEN)).argmax() == 4

    def test_the_support_set_decides(self) -> None:
        task = DigitTask(2, 1, seed=0)
        image = task.images[0, 0].copy()
        before = task.answer(image)
        assert before.shape == (2,)
        assert before.sum() == pytest.approx(1.0)
        task.draw(0, 0, task.images[1, 0].copy())
        task.draw(1, 0, image)
        assert task.drawn.all()
        assert before.argmax() == 0
        assert task.answer(image).argmax() == 1
        task.pick(1, 0)
        assert task.drawn.tolist() == [[True], [False]]

    def test_a_question_is_not_in_the_support_set(self) -> None:
        task = DigitTask(3, 5, seed=2)
        for _ in range(20):
            image, digit = task.question()
            assert digit in task.digits
            assert not (task.images == image).all(axis=(2, 3)).any()

    def test_nonsense(self) -> None:
        for ways, shots in ((1, 1), (6, 1), (2, 0), (2, 6), (2.5, 1)):
            with pytest.raises(ArgumentException, match="must be a whole number from"):
                DigitTask(ways, shots)  # type: ignore[arg-type]
        task = DigitTask(2, 1)
        with pytest.raises(ArgumentException, match="way must be"):
            task.pick(2, 0)
        with pytest.raises(ArgumentException, match="image must have shape"):
            task.draw(0, 0, np.zeros((4, 4), np.float32))


@pytest.mark.slow
def test_a_package_inside_of_an_archive_has_its_weights(tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "package"), "zip", ROOT, "aidotnet_py")
    code = "from aidotnet_py.explorer.digits import DigitTask as D; print(len(D().answer(D().question()[0])))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "package.zip")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("5\n", "")
