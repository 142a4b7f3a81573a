"""iMAML to the paper's full extent: any inner solver, learned λ, better solves, and how far it was from exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from imaml_reference import LinearTask, batch_on, linear_model, linear_tasks, start
from plain_models import HandWrittenModel
from tanh_network import TanhNetwork, Values, batch_of

from aidotnet_py import (
    AdamOptimizer,
    ArgumentException,
    FunctionModel,
    InvalidOperationException,
    LBFGSMinimizer,
    MetaLearningTask,
    NewtonCGMinimizer,
    NonPositiveCurvatureWarning,
    ProblemConstants,
    SGDOptimizer,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
    meta_gradient_error_bound,
)
from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.meta_learning.algorithms.imaml.warm_starts import SolveMemory
from aidotnet_py.meta_learning.learner.tasks import Tasks

NUMPY = get_backend("numpy")
NETWORK = TanhNetwork()
EXACT = {"GradientClipThreshold": None, "ConjugateGradientIterations": 60, "ConjugateGradientTolerance": 1e-14}
TASKS = linear_tasks(3)
# So small that a Neumann series shrinks.
SMALL: dict[str, Any] = {"LambdaRegularization": 0.02, "InnerLearningRate": 0.01}


class Recorder(SGDOptimizer):
    """Plain descent at rate 1 that keeps the gradients it was given."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.seen: list[Values] = []

    def UpdateParameters(self, parameters: Any, gradient: Any) -> Any:
        self.seen.append(np.array(gradient))
        return super().UpdateParameters(parameters, gradient)


def linear_learner(backend: Backend = NUMPY, tasks: list[LinearTask] = TASKS, **options: Any) -> Any:
    settings = EXACT | {"InnerObjective": "proximal", "InnerLearningRate": 0.2, "AdaptationSteps": 200} | options
    model = linear_model(backend, start(tasks[0].support.x.shape[1]))
    return iMAMLAlgorithm(iMAMLOptions(model, **settings))


def optimum(task: LinearTask, theta: Values, lam: Values | float) -> Values:
    """Where ‖Zφ − y‖²/n + ½ Σ (φᵢ − θᵢ)²/λᵢ is least."""
    weights = np.ones(len(theta)) / lam
    return np.linalg.solve(task.support.hessian + np.diag(weights), task.support.pull + weights * theta)


def outer(theta: Values, lam: Values | float, tasks: list[LinearTask] = TASKS) -> float:
    return float(np.mean([task.query.loss(optimum(task, theta, lam)) for task in tasks]))


def differences(f: Any, x: Values, h: float = 1e-5) -> Values:
    """Central differences, of order four."""
    slopes = []
    for e in np.eye(len(x)):
        near, far = (f(x + k * h * e) - f(x - k * h * e) for k in (1, 2))
        slopes.append((8 * near - far) / (12 * h))
    return np.array(slopes)


class TestLearnedLambda:
    @pytest.mark.parametrize("kind", ["scalar", "per-parameter"])
    def test_its_gradient_is_that_of_the_whole_procedure(self, kind: Any) -> None:
        recorder, lam = Recorder(), 0.7
        learner = linear_learner(LearnedLambda=kind, LambdaRegularization=lam, MetaOptimizer=recorder)
        learner.MetaTrain(batch_on(NUMPY, TASKS))
        theta = start()
        count = 1 if kind == "scalar" else len(theta)
        slopes = differences(lambda logs: outer(theta, np.exp(logs)), np.full(count, np.log(lam)))
        np.testing.assert_allclose(
            recorder.seen[0][: len(theta)], differences(lambda t: outer(t, lam), theta), rtol=1e-8
        )
        np.testing.assert_allclose(recorder.seen[0][len(theta) :], slopes, rtol=1e-8)
        assert np.abs(slopes).min() > 1e-5

    def test_every_parameter_by_its_own_lambda(self) -> None:
        """Once they have parted, θ's gradient is that of the procedure with all of them."""
        recorder = Recorder()
        learner = linear_learner(LearnedLambda="per-parameter", MetaOptimizer=recorder, AdaptationSteps=2000)
        theta = start()
        lam = np.array([0.3, 2.0, 0.9, 0.5])
        learner._set_meta_parameters(np.concatenate([theta, np.log(lam)]))
        learner.MetaTrain(batch_on(NUMPY, TASKS))
        expected = [
            differences(lambda t: outer(t, lam), theta),
            differences(lambda logs: outer(theta, np.exp(logs)), np.log(lam)),
        ]
        np.testing.assert_allclose(recorder.seen[0], np.concatenate(expected), rtol=1e-8)

    @pytest.mark.numpy_first
    def test_on_a_network_and_on_every_backend(self, backend: Backend) -> None:
        theta, sets, lam, h = NETWORK.start(), NETWORK.sets(2), 0.4, 1e-5

        def learner(value: float, kind: str | None) -> Any:
            options: dict[str, Any] = EXACT | {"InnerLearningRate": 0.1, "AdaptationSteps": 400}
            return iMAMLAlgorithm(
                iMAMLOptions(
                    NETWORK.model(backend, theta),
                    MetaOptimizer=SGDOptimizer(1.0),
                    LambdaRegularization=value,
                    InnerObjective="proximal",
                    LearnedLambda=kind,
                    **options,
                )
            )

        batch = batch_of(backend, sets)
        ahead, behind = (float(learner(lam * np.exp(s), None).Evaluate(batch)) for s in (h, -h))
        for kind in ("scalar", "per-parameter"):
            moved = learner(lam, kind)
            moved.MetaTrain(batch)
            found = moved.LambdaRegularization if kind == "scalar" else backend.to_numpy(moved.LambdaRegularization)
            # One step of descent at rate 1 in log λ.
            slope = float(np.sum(np.log(lam) - np.log(found)))
            assert slope == pytest.approx((ahead - behind) / (2 * h), rel=1e-6)

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", ["scalar", "per-parameter"])
    def test_learning_it_lowers_the_loss(self, kind: Any) -> None:
        # From a λ so small that nothing can be learned of a task.
        fixed, learned = (
            linear_learner(
                LambdaRegularization=0.01,
                LearnedLambda=k,
                MetaOptimizer=AdamOptimizer(0.05),
                InnerOptimizer=NewtonCGMinimizer(),
            )
            for k in (None, kind)
        )
        batch = batch_on(NUMPY, TASKS)
        losses = [[float(learner.MetaTrain(batch)) for _ in range(150)] for learner in (fixed, learned)]
        assert losses[1][-1] < 0.2 * losses[0][-1]
        if kind == "per-parameter":
            # Tasks differ in their slopes and have the same intercept: that one is learned once, and not adapted.
            *slopes, intercept = learned.LambdaRegularization
            assert min(slopes) > 1.0 > 0.05 > intercept

    def test_saved_loaded_and_reset_with_the_rest(self, tmp_path: Any) -> None:
        def new() -> Any:
            return linear_learner(LearnedLambda="per-parameter", LambdaRegularization=0.3)

        batch = batch_on(NUMPY, TASKS)
        first, second = new(), new()
        first.MetaTrain(batch)
        first.Save(tmp_path / "learner.safetensors")
        second.Load(tmp_path / "learner.safetensors")
        assert np.array_equal(first.LambdaRegularization, second.LambdaRegularization)
        assert not np.allclose(first.LambdaRegularization, 0.3, rtol=1e-6)
        assert first.MetaTrain(batch) == second.MetaTrain(batch)
        assert np.array_equal(first.LambdaRegularization, second.LambdaRegularization)
        first.Reset()
        np.testing.assert_allclose(first.LambdaRegularization, 0.3, rtol=1e-14)

    @pytest.mark.parametrize("kind", ["scalar", "per-parameter"])
    def test_another_model_through_the_options_is_told_of(self, kind: Any) -> None:
        learner = linear_learner(LearnedLambda=kind, LambdaRegularization=0.5)
        learner.MetaTrain(batch_on(NUMPY, TASKS))
        tasks = linear_tasks(2, features=2)
        learner.Options.MetaModel = linear_model(NUMPY, start(2))
        with pytest.raises(
            InvalidOperationException, match=r"MetaModel must be .* float64\(4,\), got another with float64\(3,\)"
        ):
            learner.MetaTrain(batch_on(NUMPY, tasks))
        learner.SetMetaModel(linear_model(NUMPY, start(2)))
        learner.MetaTrain(batch_on(NUMPY, tasks))
        assert np.shape(learner.LambdaRegularization) in ((), (3,))

    def test_a_learner_without_it_does_not_take_it_up(self, tmp_path: Any) -> None:
        learner = linear_learner(LearnedLambda="scalar")
        learner.Save(tmp_path / "learner.safetensors")
        with pytest.raises(ArgumentException, match=r"vector is float64\(5,\) there and float64\(4,\) here"):
            linear_learner().Load(tmp_path / "learner.safetensors")

    @pytest.mark.parametrize(("kind", "where"), [("scalar", "inf…inf"), ("per-parameter", "0…inf")])
    def test_gone_to_zero_or_beyond_it_is_an_error_and_nothing_is_changed(self, kind: Any, where: str) -> None:
        learner = linear_learner(LearnedLambda=kind, MetaOptimizer=SGDOptimizer(1e6, momentum=0.5))
        before = np.array(learner.BaseModel.GetParameters())
        with pytest.raises(InvalidOperationException, match=f"learned λ must be .*, got {where}.*nothing was changed"):
            learner.MetaTrain(batch_on(NUMPY, TASKS))
        assert np.array_equal(before, learner.BaseModel.GetParameters())
        assert np.all(learner.LambdaRegularization == 1.0)
        assert learner._meta_optimizer().GetState() == {"steps": 0}

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("lam", [np.inf, np.nan, 0.0, "largest", "subnormal"])
    def test_one_of_many_that_is_no_number_is_an_error(self, lam: Any, dtype: Any, backend: Backend) -> None:
        numbers = np.finfo(dtype)
        special = {
            "largest": float(np.log(numbers.max)) * 1.01,
            "subnormal": float(np.log(numbers.smallest_normal)) - 3,
        }
        with np.errstate(divide="ignore"):
            logarithm = special[lam] if isinstance(lam, str) else np.log(lam)
        (kind,) = linear_learner(LearnedLambda="per-parameter").learned()
        check: Any = kind.check
        for place in range(3):
            logarithms = np.zeros(3, dtype)
            logarithms[place] = logarithm
            with pytest.raises(InvalidOperationException, match=r"the learned λ must be .*, got .*nothing was changed"):
                check(backend.asarray(logarithms))

    def test_one_step_that_takes_one_of_many_too_far_changes_nothing(self) -> None:
        learner = linear_learner(LearnedLambda="per-parameter", MetaOptimizer=OneTooFar(1.0))
        before = np.array(learner.BaseModel.GetParameters())
        with pytest.raises(InvalidOperationException, match=r"learned λ must be .*, got .*…inf.*nothing was changed"):
            learner.MetaTrain(batch_on(NUMPY, TASKS))
        assert np.array_equal(before, learner.BaseModel.GetParameters())
        assert np.all(learner.LambdaRegularization == 1.0)


class OneTooFar(SGDOptimizer):
    """Plain descent, but for the last parameter, the logarithm of a λ."""

    def UpdateParameters(self, parameters: Any, gradient: Any) -> Any:
        moved = np.array(super().UpdateParameters(parameters, gradient))
        moved[-1] = 1e4
        return moved


def one_step(objective: Any, theta: Values) -> Values:
    return theta - 0.1 * objective(theta)[1]


class TestInnerSolvers:
    @pytest.mark.slow
    def test_all_find_the_same_meta_gradient(self) -> None:
        theta, lam = start(), 0.5

        def exact(objective: Any, point: Values) -> Values:
            """Newton's step with a Hessian from gradients alone: one is enough for a quadratic."""
            _, slope = objective(point)
            hessian = np.array([objective(point + e)[1] - slope for e in np.eye(len(point))])
            return point - np.linalg.solve(hessian, slope)

        expected = differences(lambda t: outer(t, lam), theta)
        for solver in (
            exact,
            NewtonCGMinimizer(gradient_tolerance=1e-12),
            LBFGSMinimizer(max_iterations=200, gradient_tolerance=1e-12),
            AdamOptimizer(0.05),
            SGDOptimizer(0.1, momentum=0.5),
        ):
            recorder = Recorder()
            learner = linear_learner(
                LambdaRegularization=lam, InnerOptimizer=solver, MetaOptimizer=recorder, AdaptationSteps=1500
            )
            learner.MetaTrain(batch_on(NUMPY, TASKS))
            np.testing.assert_allclose(recorder.seen[0], expected, rtol=1e-6)

    def test_newton_on_every_backend(self, backend: Backend) -> None:
        learner = linear_learner(backend, InnerOptimizer=NewtonCGMinimizer(gradient_tolerance=1e-12))
        task = batch_on(backend, TASKS)[1]
        adapted = backend.to_numpy(learner.Adapt(task).GetParameters())
        np.testing.assert_allclose(adapted, optimum(TASKS[1], start(), 1.0), rtol=1e-10)

    def test_adapt_evaluate_and_measure_use_it(self) -> None:
        learner = linear_learner(InnerOptimizer=LBFGSMinimizer(gradient_tolerance=1e-12))
        batch = batch_on(NUMPY, TASKS)
        assert float(learner.Evaluate(batch)) == pytest.approx(outer(start(), 1.0), rel=1e-9)
        result = learner.AdaptAndEvaluate(batch[0])
        before, after = (TASKS[0].support.loss(p) for p in (start(), optimum(TASKS[0], start(), 1.0)))
        np.testing.assert_allclose(result.PerStepLosses, [before, after], rtol=1e-9)
        assert result.AdaptationSteps == 1

    def test_one_that_returns_all_solutions_in_one_array(self) -> None:
        solve, buffer = LBFGSMinimizer(gradient_tolerance=1e-12), np.empty_like(start())

        def solve_in_place(objective: Any, theta: Values) -> Values:
            buffer[:] = solve(objective, theta)
            return buffer

        one, new = (
            linear_learner(InnerOptimizer=solver).mean_meta_gradient(batch_on(NUMPY, TASKS))
            for solver in (solve_in_place, solve)
        )
        assert (one.parameters == new.parameters).all()

    @pytest.mark.parametrize("solver", [LBFGSMinimizer(), one_step])
    def test_tasks_of_a_model_without_a_trace_are_solved_each_by_itself(self, solver: Any) -> None:
        batch, recorder = batch_of(NUMPY, NETWORK.sets(3)), Recorder()

        def learner() -> Any:
            model = HandWrittenModel(NETWORK, NETWORK.start(), NUMPY)
            options: Any = {"InnerObjective": "proximal", "UseFirstOrder": True, "GradientClipThreshold": None}
            return iMAMLAlgorithm(iMAMLOptions(model, InnerOptimizer=solver, MetaOptimizer=recorder, **options))

        losses = [learner().MetaTrain(TaskBatch([task])) for task in batch]
        assert learner().MetaTrain(batch) == pytest.approx(np.mean(losses))
        *alone, together = recorder.seen
        np.testing.assert_allclose(together, np.mean(alone, axis=0), rtol=1e-12)

    def test_one_that_returns_the_wrong_shape(self) -> None:
        learner = linear_learner(InnerOptimizer=lambda objective, theta: theta[:-1])
        before = np.array(learner.BaseModel.GetParameters())
        with pytest.raises(
            ArgumentException, match=r"result of InnerOptimizer for task 0 must be float64\(4,\).*got float64\(3,\)"
        ):
            learner.MetaTrain(batch_on(NUMPY, TASKS))
        assert np.array_equal(before, learner.BaseModel.GetParameters())

    def test_one_that_returns_no_array(self) -> None:
        learner = linear_learner(InnerOptimizer=lambda objective, theta: None)
        message = r"the result of InnerOptimizer for task 0 must be float64\(4,\).*got a NoneType$"
        with pytest.raises(ArgumentException, match=message):
            learner.MetaTrain(batch_on(NUMPY, TASKS))

    def test_one_that_asks_with_the_wrong_dtype(self) -> None:
        learner = linear_learner(InnerOptimizer=lambda objective, theta: objective(theta.astype(np.float32))[1])
        message = r"argument of InnerOptimizer's objective must be float64\(4,\) .*, got float32\(4,\)"
        with pytest.raises(ArgumentException, match=message):
            learner.MetaTrain(batch_on(NUMPY, TASKS))

    def test_one_that_returns_nan(self) -> None:
        def lost(objective: Any, theta: Values) -> Values:
            return theta * np.nan if abs(objective(theta)[0] - TASKS[1].support.loss(start())) < 1e-12 else theta

        learner = linear_learner(InnerOptimizer=lost)
        with pytest.raises(
            InvalidOperationException, match=r"that InnerOptimizer returned of task 1 .*nothing was changed$"
        ):
            learner.MetaTrain(batch_on(NUMPY, TASKS))

    @pytest.mark.parametrize("solver", [NewtonCGMinimizer(), LBFGSMinimizer(), lambda objective, theta: theta])
    @pytest.mark.parametrize("bad", [np.nan, 1e200])
    def test_a_task_without_a_finite_loss_is_told_of(self, solver: Any, bad: float) -> None:
        x = np.full((3, 3), bad)
        spoilt: Any = MetaLearningTask(
            SupportSetX=x, SupportSetY=x[:, :1], QuerySetX=np.ones((2, 3)), QuerySetY=np.ones((2, 1)), NumWays=1
        )
        batch = TaskBatch([batch_on(NUMPY, TASKS)[0], spoilt])
        learner = linear_learner(InnerOptimizer=solver)
        calls: list[tuple[int, Any]] = [
            (1, lambda: learner.MetaTrain(batch)),
            (1, lambda: learner.Evaluate(batch)),
            (1, lambda: linear_learner(InnerOptimizer=solver, UseFirstOrder=True).MetaTrain(batch)),
            (0, lambda: learner.Adapt(spoilt)),
        ]
        for place, call in calls:
            with pytest.raises(
                InvalidOperationException, match=rf"^the support loss of task {place} .* is not finite; nothing was ch"
            ):
                call()

    def test_a_task_that_is_at_its_minimum_stays_there(self) -> None:
        x = TASKS[0].support.x
        solved: Any = MetaLearningTask(SupportSetX=x, SupportSetY=np.zeros((len(x), 1)), NumWays=1)
        learner = linear_learner(InnerOptimizer=NewtonCGMinimizer(), LambdaRegularization=1.0)
        learner.BaseModel.SetParameters(np.zeros(4))
        np.testing.assert_array_equal(learner.Adapt(solved).GetParameters(), np.zeros(4))

    def test_its_own_errors_come_through(self) -> None:
        def broken(objective: Any, theta: Values) -> Values:
            raise ZeroDivisionError("mine")

        with pytest.raises(ZeroDivisionError, match="mine"):
            linear_learner(InnerOptimizer=broken).MetaTrain(batch_on(NUMPY, TASKS))

    def test_a_class_is_no_solver(self) -> None:
        options = iMAMLOptions(linear_model(NUMPY, start()), InnerOptimizer=NewtonCGMinimizer)  # type: ignore[arg-type]
        with pytest.raises(
            ArgumentException, match=r"InnerOptimizer must be .*, got the class NewtonCGMinimizer; use an object"
        ):
            iMAMLAlgorithm(options)


class TestEarlyEnd:
    def test_each_task_ends_by_its_own_gradient(self) -> None:
        tolerance, rate, lam = 1e-3, 0.2, 1.0
        learner = linear_learner(InnerGradientTolerance=tolerance, InnerLearningRate=rate, AdaptationSteps=1000)
        batch = batch_on(NUMPY, TASKS)
        counts = []
        for task, one in zip(TASKS, batch, strict=True):
            phi, taken = start(), 0
            while np.linalg.norm(slope := task.support.gradient(phi) + (phi - start()) / lam) > tolerance:
                phi, taken = phi - rate * slope, taken + 1
            counts.append(taken)
            result = learner.AdaptAndEvaluate(one, keep_steps=True)
            assert result.AdaptationSteps == taken
            assert result.PerStepLosses.shape == (taken + 1,)
            assert result.step_parameters is not None
            assert result.step_parameters.shape == (taken, len(phi))
            np.testing.assert_allclose(result.step_parameters[-1], phi, rtol=1e-12)
            np.testing.assert_allclose(learner.Adapt(one).GetParameters(), phi, rtol=1e-12)
        assert len(set(counts)) > 1
        # In a batch they stop just where they do alone.
        (whole,) = learner._open(list(batch), "Support")
        adapted = Tasks(whole.part(0, 3, 0), learner).adapt()
        np.testing.assert_allclose(adapted, [learner.Adapt(one).GetParameters() for one in batch], rtol=1e-12)

    @pytest.mark.parametrize("optimizer", [SGDOptimizer(0.1, momentum=0.8), AdamOptimizer(0.05)])
    def test_memory_does_not_carry_a_task_on(self, optimizer: Any) -> None:
        learner = linear_learner(InnerGradientTolerance=1e-2, InnerOptimizer=optimizer, AdaptationSteps=3000)
        batch = batch_on(NUMPY, TASKS)
        adapted = Tasks(learner._open(list(batch), "Support")[0].part(0, 3, 0), learner).adapt()
        for row, task in zip(np.array(adapted), TASKS, strict=True):
            assert np.linalg.norm(task.support.gradient(row) + row - start()) <= 1e-2

    def test_one_batch_does_not_tell_for_all(self) -> None:
        x = TASKS[0].support.x
        task: Any = MetaLearningTask(SupportSetX=[x, x], SupportSetY=[x[:, :1], x[:, :1]], NumWays=1)
        with pytest.raises(
            ArgumentException, match=r"InnerGradientTolerance must be None if .* task 0 is a list .*, got 0\.01"
        ):
            linear_learner(InnerGradientTolerance=1e-2).Adapt(task)

    def test_data_that_is_not_finite_is_told_of(self) -> None:
        x = np.full((3, 3), np.nan)
        task: Any = MetaLearningTask(SupportSetX=x, SupportSetY=x[:, :1], NumWays=1, Name="spoilt")
        with pytest.raises(InvalidOperationException, match="support loss of task 0"):
            linear_learner(InnerGradientTolerance=1e-2).Adapt(task)


class TestWarmStarts:
    def test_the_same_tasks_need_fewer_products(self) -> None:
        batch = batch_on(NUMPY, TASKS)

        def iterations(warm: bool) -> list[float]:
            learner = linear_learner(
                WarmStartSolves=warm,
                MetaOptimizer=SGDOptimizer(1e-4),
                ConjugateGradientIterations=20,
                ConjugateGradientTolerance=1e-3,
            )
            counts = []
            for _ in range(4):
                learner.MetaTrain(batch)
                counts.append(learner._record.metrics["SolverIterations"])
            return counts

        cold, warm = iterations(False), iterations(True)
        assert warm[0] == cold[0] > 1
        assert max(warm[1:]) <= 1 < min(cold[1:])

    def test_what_is_solved_is_the_same(self) -> None:
        recorder = Recorder()
        learner = linear_learner(WarmStartSolves=True, MetaOptimizer=recorder)
        theta = start()
        learner.MetaTrain(batch_on(NUMPY, TASKS))
        moved = theta - recorder.seen[0]
        # Tasks again, one of them new: told by TaskId, in another order.
        batch = [task.on(NUMPY) for task in TASKS]
        learner.BaseModel.SetParameters(theta)
        learner.MetaTrain(TaskBatch(batch))
        learner.BaseModel.SetParameters(moved)
        learner.MetaTrain(TaskBatch([batch[2], batch[0], TASKS[1].on(NUMPY)]))
        expected = differences(lambda t: outer(t, 1.0), moved)
        np.testing.assert_allclose(recorder.seen[-1], expected, rtol=1e-6)

    def test_saved_and_taken_up_again_bit_for_bit(self, tmp_path: Any) -> None:
        def new() -> Any:
            return linear_learner(
                WarmStartSolves=True,
                ConjugateGradientIterations=2,
                AdaptationSteps=20,
                MetaOptimizer=AdamOptimizer(0.01),
            )

        tasks = [
            MetaLearningTask(
                SupportSetX=t.support.x,
                SupportSetY=t.support.y,
                QuerySetX=t.query.x,
                QuerySetY=t.query.y,
                NumWays=1,
                TaskId=one,
            )
            for t, one in zip(TASKS, (0, "0", "a:b"), strict=True)
        ]
        first, second, cold = new(), new(), new()
        first.MetaTrain(TaskBatch(tasks))
        first.Save(tmp_path / "learner.safetensors")
        second.Load(tmp_path / "learner.safetensors")
        cold.BaseModel.SetParameters(first.BaseModel.GetParameters())
        cold._meta_optimizer().SetState(first._meta_optimizer().GetState())
        for learner in (first, second, cold):
            learner.MetaTrain(TaskBatch(tasks))
        after = [np.array(learner.BaseModel.GetParameters()) for learner in (first, second, cold)]
        assert np.array_equal(after[0], after[1])
        assert not np.array_equal(after[0], after[2])

    def test_ids_of_other_kinds(self, tmp_path: Any) -> None:
        def batch(*ids: Any) -> Any:
            data = [(t.support.x, t.support.y, t.query.x, t.query.y) for t in TASKS]
            names = ("SupportSetX", "SupportSetY", "QuerySetX", "QuerySetY")
            sets = [dict(zip(names, four, strict=True)) for four in data]
            return TaskBatch([MetaLearningTask(**s, NumWays=1, TaskId=i) for s, i in zip(sets, ids, strict=True)])

        learner = linear_learner(WarmStartSolves=True)
        learner.MetaTrain(batch(np.int64(7), 8, "7"))
        assert set(learner._extra_state()) == {"int:7", "int:8", "str:7"}
        learner.Save(tmp_path / "learner.safetensors")
        learner.Load(tmp_path / "learner.safetensors")
        for odd in (True, (1, 2), 10**30, "\ud800"):
            with pytest.raises(
                ArgumentException, match=r"TaskId of task 1 must be a whole number or a printable string"
            ):
                learner.MetaTrain(batch(0, odd, 2))

    def test_a_saved_solution_of_another_kind_is_refused_and_nothing_changed(self, tmp_path: Any) -> None:
        learner = linear_learner(WarmStartSolves=True)
        learner.MetaTrain(batch_on(NUMPY, TASKS))
        before = learner._extra_state()
        wide = {"int:0": np.zeros(4, np.float32), **before}
        with pytest.raises(ArgumentException, match=r"the solution int:0 must be float64\(4,\), got float32\(4,\)"):
            learner._set_extra_state(wide)
        assert learner._extra_state().keys() == before.keys()

    def test_a_start_that_no_step_can_mend_gives_way_to_the_gradient(self) -> None:
        model = FunctionModel(lambda p, x: p["w"] ** 3 * x, {"w": np.ones(1)})
        options: Any = {"InnerLearningRate": 1e-4, "AdaptationSteps": 1, "MetaOptimizer": SGDOptimizer(1e-9)}
        learner = iMAMLAlgorithm(iMAMLOptions(model, LambdaRegularization=5.0, WarmStartSolves=True, **options))

        def step(w: float, slope: float, name: str) -> float:
            x = np.ones((2, 1))
            task = MetaLearningTask(
                SupportSetX=x, SupportSetY=slope * x, QuerySetX=x, QuerySetY=-slope * x, NumWays=1, TaskId=name
            )
            model.SetParameters(np.array([w]))
            gradient = float(learner.mean_meta_gradient(TaskBatch([task])).parameters[0])
            learner.MetaTrain(TaskBatch([task]))
            return gradient

        assert 0 < step(1.0, 1.0, "old") < 1
        # I + λH is negative from here on: the solution of the first step was that of all others.
        with pytest.warns(NonPositiveCurvatureWarning):
            gradients = [step(w, slope, "old") for w, slope in ((0.5, 3.0), (-0.5, -3.0))]
        assert gradients == [step(0.5, 3.0, "new"), step(-0.5, -3.0, "newer")]
        assert gradients[0] == -gradients[1] > 4

    def test_a_failed_step_keeps_nothing(self) -> None:
        learner = linear_learner(WarmStartSolves=True)
        batch = batch_on(NUMPY, TASKS)
        batch[2].QueryInput[0, 0] = np.inf
        with pytest.raises(InvalidOperationException, match="query loss of task 2"):
            learner.MetaTrain(batch)
        assert not learner._extra_state()


class TestPreconditioning:
    @staticmethod
    def scaled(count: int = 2) -> list[LinearTask]:
        """Features whose scales are far apart, so that the curvature's diagonal is too."""
        tasks = linear_tasks(count, features=5)
        for task in tasks:
            for data in (task.support, task.query):
                data.x[:] = data.x * np.array([30.0, 10.0, 3.0, 1.0, 0.3])
        return tasks

    def test_fewer_iterations_to_the_same_solution(self) -> None:
        tasks = self.scaled()
        batch = batch_on(NUMPY, tasks)
        found, counts = [], []
        for probes in (0, 64):
            recorder = Recorder()
            learner = linear_learner(
                tasks=tasks,
                PreconditionerProbes=probes,
                MetaOptimizer=recorder,
                InnerOptimizer=NewtonCGMinimizer(gradient_tolerance=1e-11, cg_iterations=50),
                ConjugateGradientTolerance=1e-6,
            )
            learner.MetaTrain(batch)
            found.append(recorder.seen[0])
            counts.append(learner._record.metrics["SolverIterations"])
        expected = differences(lambda t: outer(t, 1.0, tasks), start(5))
        for one in found:
            np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-6)
        assert counts[1] < counts[0]

    def test_a_diagonal_curvature_is_estimated_exactly_by_one_vector_of_signs(self) -> None:
        # z ∘ Az is the diagonal whatever the signs, and nothing else than signs has z ∘ z = 1.
        width = 8
        x = np.sqrt(width * np.geomspace(0.5, 200, width))[:, None] * np.eye(width)
        model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((width, 1))})
        query = np.random.default_rng(0).standard_normal((5, width))
        task = MetaLearningTask(
            SupportSetX=x, SupportSetY=x[:, :1] + 1.0, QuerySetX=query, QuerySetY=query[:, :1], NumWays=1
        )
        counts = {}
        for probes in (0, 1, 3):
            learner = iMAMLAlgorithm(
                iMAMLOptions(
                    model,
                    PreconditionerProbes=probes,
                    InnerLearningRate=1e-4,
                    ConjugateGradientIterations=30,
                    ConjugateGradientTolerance=1e-9,
                )
            )
            learner.MetaTrain(TaskBatch([task]))
            counts[probes] = learner._record.metrics["SolverIterations"]
        assert counts[1] == counts[3] == 1
        assert counts[0] >= width

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_probes_are_signs_of_both_kinds(self, dtype: Any, backend: Backend) -> None:
        options = iMAMLOptions(linear_model(backend, start()), PreconditionerProbes=7, RandomSeed=1)
        probes = SolveMemory(options).probes_like(backend.asarray(np.zeros((2, 301), dtype)))
        assert probes is not None
        values = backend.to_numpy(probes)
        assert values.shape == (7, 301)
        assert values.dtype == dtype
        assert set(np.unique(values)) == {-1.0, 1.0}
        # Fair, and independent of each other: five standard deviations.
        assert abs(values.mean()) < 5 / np.sqrt(values.size)
        products = values @ values.T / 301
        assert np.abs(products - np.eye(7)).max() < 5 / np.sqrt(301)

    def test_the_same_at_every_step_and_for_every_split(self) -> None:
        found = []
        for seed in (3, 3, 4):
            recorder = Recorder()
            learner = linear_learner(
                PreconditionerProbes=2,
                RandomSeed=seed,
                MetaOptimizer=recorder,
                ConjugateGradientIterations=2,
                AdaptationSteps=5,
            )
            learner.MetaTrain(batch_on(NUMPY, TASKS))
            found.append(recorder.seen[0])
        assert np.array_equal(found[0], found[1])
        assert not np.array_equal(found[0], found[2])

    def test_options_that_change_between_steps_are_followed(self) -> None:
        batch, recorder = batch_on(NUMPY, TASKS), Recorder()
        settings = {"AdaptationSteps": 5, "ConjugateGradientIterations": 2, "RandomSeed": 3}
        learner = linear_learner(PreconditionerProbes=2, MetaOptimizer=recorder, **settings)
        for probes in (2, 5, 0):
            learner.Options.PreconditionerProbes = probes
            learner.BaseModel.SetParameters(start())
            learner.MetaTrain(batch)
            alone = Recorder()
            linear_learner(PreconditionerProbes=probes, MetaOptimizer=alone, **settings).MetaTrain(batch)
            assert np.array_equal(recorder.seen[-1], alone.seen[0])
        assert not np.array_equal(recorder.seen[0], recorder.seen[1])


class TestBound:
    @pytest.mark.parametrize("steps", [1, 3, 10, 40])
    @pytest.mark.parametrize("iterations", [1, 2, 4])
    def test_the_error_is_within_it(self, steps: int, iterations: int) -> None:
        lam, rate, theta = 0.8, 0.2, start()
        support = np.concatenate([np.linalg.eigvalsh(task.support.hessian) for task in TASKS])
        query = np.concatenate([np.linalg.eigvalsh(task.query.hessian) for task in TASKS])
        constants = ProblemConstants(max(float(support.min()), 0.0), float(query.max()), 0.0)
        recorder = Recorder()
        learner = linear_learner(
            LambdaRegularization=lam,
            AdaptationSteps=steps,
            InnerLearningRate=rate,
            ConjugateGradientIterations=iterations,
            MetaOptimizer=recorder,
            ErrorConstants=constants,
        )
        learner.MetaTrain(batch_on(NUMPY, TASKS))
        error = np.linalg.norm(recorder.seen[0] - differences(lambda t: outer(t, lam), theta))
        metrics = learner._record.metrics
        assert error <= metrics["MetaGradientErrorBound"] <= 200 * error + 1e-6
        # They were measured at the θ of before the step.
        learner.BaseModel.SetParameters(theta)
        distances = [
            float(np.linalg.norm(learner.Adapt(one).GetParameters() - optimum(task, theta, lam)))
            for task, one in zip(TASKS, batch_on(NUMPY, TASKS), strict=True)
        ]
        assert max(distances) <= metrics["InnerDistance"] + 1e-12

    def test_with_curvature_that_changes(self) -> None:
        """A support loss ½φ² + ρ(φ³/6) on φ ≥ 0 has curvature 1 + ρφ; everything is a number there."""
        rho, lam, theta, rate = 0.8, 0.7, 2.0, 0.1
        constants = ProblemConstants(1.0, 3.0, rho)

        def inner(phi: float) -> float:
            return phi + rho * phi**2 / 2 + (phi - theta) / lam

        best = 0.5
        for _ in range(50):
            best -= inner(best) / (1 + rho * best + 1 / lam)
        exact = 3.0 * best / (1 + lam * (1 + rho * best))
        phi = theta
        for _ in range(30):
            v = 3.0 * phi / (1 + lam * (1 + rho * phi))
            bound = meta_gradient_error_bound(abs(inner(phi)), 0.0, 3.0 * phi, lam, constants)
            assert abs(v - exact) <= float(bound)
            phi -= rate * inner(phi)
        assert float(bound) < 1e-2

    def test_without_constants_distances_are_reported_all_the_same(self) -> None:
        learner = linear_learner(AdaptationSteps=3, ConjugateGradientIterations=2)
        learner.MetaTrain(batch_on(NUMPY, TASKS))
        metrics = learner._record.metrics
        assert metrics["InnerDistance"] == pytest.approx(metrics["InnerGradientNorm"])
        assert metrics["SolveError"] == metrics["SolverResidual"]
        assert "MetaGradientErrorBound" not in metrics


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"InnerGradientTolerance": 0.0}, "InnerGradientTolerance must be a finite number above 0 or None, got 0.0"),
        (
            {"InnerGradientTolerance": 0.1, "InnerOptimizer": NewtonCGMinimizer()},
            r"InnerGradientTolerance must be None if InnerOptimizer is a solver, .*, got 0\.1",
        ),
        ({"LearnedLambda": "each"}, "LearnedLambda must be None, 'scalar' or 'per-parameter', got 'each'"),
        (
            {"LearnedLambda": "scalar", "InnerObjective": "support"},
            "LearnedLambda must be None unless InnerObjective is 'proximal', .*, got 'scalar'",
        ),
        (
            {"LearnedLambda": "scalar", "LambdaRegularization": 0},
            "LambdaRegularization must be above 0 for InnerObjective",
        ),
        ({"PreconditionerProbes": -1}, "PreconditionerProbes must be a whole number of at least 0, got -1"),
        ({"PreconditionerProbes": True}, "PreconditionerProbes must be a whole number of at least 0, got True"),
        ({"PreconditionerProbes": 1.5}, "PreconditionerProbes must be a whole number of at least 0, got 1.5"),
        ({"WarmStartSolves": 1}, "WarmStartSolves must be True or False, got 1"),
        (
            {"WarmStartSolves": True, "UseNeumannApproximation": True},
            "WarmStartSolves must be False with UseNeumannApproximation, got True",
        ),
        (
            {"PreconditionerProbes": 2, "UseNeumannApproximation": True},
            "PreconditionerProbes must be 0 with UseNeumannApproximation, got 2",
        ),
        ({"ErrorConstants": (1, 2, 3)}, r"ErrorConstants must be ProblemConstants or None, got \(1, 2, 3\)"),
        (
            {"ErrorConstants": ProblemConstants(0, 1, 0), "InnerObjective": "support"},
            "InnerObjective must be 'proximal' for the bound",
        ),
        (
            {"ErrorConstants": ProblemConstants(0, 1, 0), "LearnedLambda": "per-parameter"},
            "LearnedLambda must be None or 'scalar' for the",
        ),
        (
            {"ErrorConstants": ProblemConstants(0, 1, 0), "Curvature": "gauss-newton"},
            "Curvature must be 'hessian' for the bound",
        ),
        (
            {"ErrorConstants": ProblemConstants(0, 1, 0), "ConjugateGradientDamping": 0.5},
            "ConjugateGradientDamping must be 0.0 for the bound of ErrorConstants, got 0.5",
        ),
        (
            {"ErrorConstants": ProblemConstants(0, 1, 0), "UseFirstOrder": True},
            "UseFirstOrder must be False for the bound",
        ),
        ({"InnerOptimizer": 3}, "InnerOptimizer must be an IGradientBasedOptimizer, got a int, which lacks"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentException, match=message):
        linear_learner(**options)


@pytest.mark.parametrize("values", [(-1.0, 1.0, 1.0), (0.0, np.nan, 0.0), (0.0, 1.0, np.inf)])
def test_impossible_constants(values: tuple[float, float, float]) -> None:
    with pytest.raises(ArgumentException, match="must be a finite number of at least 0, got"):
        ProblemConstants(*values)


@pytest.mark.costly
@pytest.mark.numpy_first
@pytest.mark.parametrize(
    "options",
    [
        {"LearnedLambda": "per-parameter", "PreconditionerProbes": 3, "WarmStartSolves": True},
        {"LearnedLambda": "scalar", "Curvature": "gauss-newton", "UseNeumannApproximation": True, **SMALL},
        {"LearnedLambda": "per-parameter", "UseNeumannApproximation": True, "ConjugateGradientDamping": 0.1, **SMALL},
        {"LearnedLambda": "scalar", "UseFirstOrder": True, "InnerGradientTolerance": 0.3},
        {"LearnedLambda": "per-parameter", "InnerOptimizer": NewtonCGMinimizer()},
        {"ErrorConstants": ProblemConstants(0.1, 2.0, 0.3), "InnerGradientTolerance": 0.1},
        {"InnerObjective": "support", "PreconditionerProbes": 1, "WarmStartSolves": True},
    ],
    ids=lambda o: "-".join(o),
)
def test_all_together_on_every_backend(backend: Backend, options: dict[str, Any]) -> None:
    theta, sets = NETWORK.start(), NETWORK.sets(3)

    def trained(where: Backend) -> tuple[Values, list[float], dict[str, float]]:
        settings: dict[str, Any] = {
            "InnerObjective": "proximal",
            "LambdaRegularization": 0.2,
            "AdaptationSteps": 5,
            "InnerLearningRate": 0.1,
            "MetaOptimizer": SGDOptimizer(0.1),
        }
        model = NETWORK.model(where, theta)
        learner = iMAMLAlgorithm(iMAMLOptions(model, **(settings | options)))
        batch = batch_of(where, sets)
        losses = [float(learner.MetaTrain(batch)) for _ in range(3)]
        assert learner._record is not None
        return where.to_numpy(learner._meta_parameters()), losses, learner._record.metrics

    here, there = trained(NUMPY), trained(backend)
    np.testing.assert_allclose(there[0], here[0], rtol=1e-9)
    np.testing.assert_allclose(there[1], here[1], rtol=1e-10)
    assert here[2].keys() == there[2].keys()
    for name, value in here[2].items():
        assert there[2][name] == pytest.approx(value, rel=1e-6, abs=1e-9), name
    assert here[1][0] != here[1][1]
