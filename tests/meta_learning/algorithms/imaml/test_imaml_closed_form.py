"""One meta-training step on linear least squares is the closed form's, for every option."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from imaml_reference import (
    LinearTask,
    Optimizer,
    Solver,
    Vector,
    adam,
    batch_on,
    dense,
    descent,
    first_order,
    followed,
    linear_model,
    linear_tasks,
    mean_query_loss,
    meta_gradient,
    series,
    sgd,
    start,
    textbook_conjugate_gradient,
)

from aidotnet_py import (
    AdamOptimizer,
    FunctionModel,
    LooseToleranceWarning,
    MetaLearningTask,
    SeriesGrowthWarning,
    SGDOptimizer,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.backends import Backend, get_backend

K, RATE, OUTER = 6, 0.15, 0.3


def learner_on(backend: Backend, **options: Any) -> iMAMLAlgorithm[Any, Any, Any]:
    settings = {
        "AdaptationSteps": K,
        "InnerLearningRate": RATE,
        "MetaOptimizer": SGDOptimizer(OUTER),
        "GradientClipThreshold": None,
    }
    return iMAMLAlgorithm(iMAMLOptions(linear_model(backend, start()), **(settings | options)))


def parameters_of(learner: iMAMLAlgorithm[Any, Any, Any], backend: Backend) -> Vector:
    return backend.to_numpy(learner.GetMetaModel().GetParameters())


def check_step(
    backend: Backend,
    options: dict[str, Any],
    solve: Solver,
    *,
    proximal: float = 0.0,
    steps: int = K,
    tasks: list[LinearTask] | None = None,
) -> None:
    tasks = linear_tasks() if tasks is None else tasks
    learner = learner_on(backend, **options)
    loss = learner.MetaTrain(batch_on(backend, tasks))
    adapted = [descent(start(), task.support, steps, RATE, proximal) for task in tasks]
    expected = start() - OUTER * meta_gradient(adapted, tasks, solve)
    np.testing.assert_allclose(parameters_of(learner, backend), expected, rtol=1e-10, atol=1e-10)
    assert math.isclose(float(loss), mean_query_loss(adapted, tasks), rel_tol=1e-11)
    assert isinstance(loss, np.float64)


@pytest.mark.parametrize("steps", [1, 2, 7, 40])
def test_inner_steps(backend: Backend, steps: int) -> None:
    check_step(backend, {"AdaptationSteps": steps}, dense(1.0), steps=steps)


@pytest.mark.numpy_first
@pytest.mark.parametrize("lam", [0.0, 1e-3, 0.5, 2.0, 50.0])
def test_regularization(backend: Backend, lam: float) -> None:
    check_step(backend, {"LambdaRegularization": lam, "ConjugateGradientIterations": 30}, dense(lam))


@pytest.mark.parametrize("lam", [0.25, 1.0, 3.0])
def test_the_proximal_inner_objective(backend: Backend, lam: float) -> None:
    options = {"LambdaRegularization": lam, "InnerObjective": "proximal"}
    check_step(backend, options, dense(lam), proximal=1 / lam)


@pytest.mark.slow
@given(
    st.floats(0.3, 5.0), st.integers(1, 20), st.integers(1, 5), st.integers(1, 6), st.booleans(), st.integers(0, 10**6)
)
def test_any_of_them_together(lam: float, steps: int, count: int, features: int, proximal: bool, seed: int) -> None:
    backend, tasks = get_backend("numpy"), linear_tasks(count, features=features, seed=seed)
    theta, strength = start(features, seed), 1 / lam if proximal else 0.0
    options = iMAMLOptions(
        linear_model(backend, theta),
        AdaptationSteps=steps,
        InnerLearningRate=0.1,
        LambdaRegularization=lam,
        InnerObjective="proximal" if proximal else "support",
        MetaOptimizer=SGDOptimizer(OUTER),
        GradientClipThreshold=None,
        ConjugateGradientIterations=2 * features + 4,
    )
    learner = iMAMLAlgorithm(options)
    loss = learner.MetaTrain(batch_on(backend, tasks))
    adapted = [descent(theta, task.support, steps, 0.1, strength) for task in tasks]
    expected = theta - OUTER * meta_gradient(adapted, tasks, dense(lam))
    np.testing.assert_allclose(parameters_of(learner, backend), expected, rtol=1e-9, atol=1e-9)
    assert math.isclose(float(loss), mean_query_loss(adapted, tasks), rel_tol=1e-9, abs_tol=1e-12)


@pytest.mark.parametrize("strength", [0.5, 2.0])
def test_the_options_of_the_paper(backend: Backend, strength: float) -> None:
    options = iMAMLOptions.FromPaper(
        linear_model(backend, start()),
        Lambda=strength,
        AdaptationSteps=K,
        InnerLearningRate=RATE,
        MetaOptimizer=SGDOptimizer(OUTER),
    )
    learner = iMAMLAlgorithm(options)
    tasks = linear_tasks()
    learner.MetaTrain(batch_on(backend, tasks))
    adapted = [descent(start(), task.support, K, RATE, strength) for task in tasks]

    def solve(h: Vector, g: Vector) -> Vector:
        return np.linalg.solve(np.eye(len(g)) + h / strength, g)

    expected = start() - OUTER * meta_gradient(adapted, tasks, solve)
    np.testing.assert_allclose(parameters_of(learner, backend), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("objective", ["support", "proximal"])
def test_first_order(backend: Backend, objective: str) -> None:
    options = {"UseFirstOrder": True, "InnerObjective": objective, "LambdaRegularization": 2.0}
    check_step(backend, options, first_order, proximal=0.5 if objective == "proximal" else 0.0)


def test_first_order_comes_before_the_series(backend: Backend) -> None:
    check_step(backend, {"UseFirstOrder": True, "UseNeumannApproximation": True}, first_order)


@pytest.mark.parametrize("terms", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("lam", [0.1, 0.3])
def test_neumann_series(backend: Backend, terms: int, lam: float) -> None:
    options = {"UseNeumannApproximation": True, "NeumannSeriesTerms": terms, "LambdaRegularization": lam}
    check_step(backend, options, series(lam, terms))


def test_a_damped_neumann_series(backend: Backend) -> None:
    options = {"UseNeumannApproximation": True, "LambdaRegularization": 0.1, "ConjugateGradientDamping": 0.25}
    check_step(backend, options, series(0.1, 5, 0.25))


def test_a_series_that_grows_is_summed_and_told(backend: Backend) -> None:
    tasks = linear_tasks()
    last = [np.linalg.matrix_power(-40.0 * t.support.hessian, 4) for t in tasks]
    adapted = [descent(start(), t.support, K, RATE) for t in tasks]
    norms = [np.linalg.norm(m @ t.query.gradient(phi)) for m, t, phi in zip(last, tasks, adapted, strict=True)]
    with pytest.warns(SeriesGrowthWarning, match=r"series of task 0 \(.+\) grows: .* norms .* and ") as told:
        check_step_loosely(backend, tasks)
    assert f"{norms[0]:.4g}" in str(told[0].message)


def check_step_loosely(backend: Backend, tasks: list[LinearTask]) -> None:
    learner = learner_on(backend, UseNeumannApproximation=True, LambdaRegularization=40.0)
    learner.MetaTrain(batch_on(backend, tasks))
    adapted = [descent(start(), task.support, K, RATE) for task in tasks]
    expected = start() - OUTER * meta_gradient(adapted, tasks, series(40.0, 5))
    np.testing.assert_allclose(parameters_of(learner, backend), expected, rtol=1e-9)


@pytest.mark.parametrize("damping", [0.125, 3.0])
def test_damping(backend: Backend, damping: float) -> None:
    check_step(backend, {"ConjugateGradientDamping": damping}, dense(1.0, damping))


def test_gauss_newton_is_the_hessian_of_a_linear_model(backend: Backend) -> None:
    check_step(backend, {"Curvature": "gauss-newton", "LambdaRegularization": 2.0}, dense(2.0))


@pytest.mark.parametrize("iterations", [1, 2, 3, 4])
def test_few_conjugate_gradient_iterations(backend: Backend, iterations: int) -> None:
    options = {"ConjugateGradientIterations": iterations, "LambdaRegularization": 4.0}
    check_step(backend, options, textbook_conjugate_gradient(4.0, iterations))


@pytest.mark.parametrize("tolerance", [0.5, 0.05, 1e-3])
def test_tolerance_ends_a_solve(backend: Backend, tolerance: float) -> None:
    options = {"ConjugateGradientTolerance": tolerance, "LambdaRegularization": 4.0}
    # The loosest is a large part of the gradients.
    with pytest.warns(LooseToleranceWarning) if tolerance == 0.5 else nullcontext():
        check_step(backend, options, textbook_conjugate_gradient(4.0, 10, tolerance))


@pytest.mark.parametrize("threshold", [10.0, 0.01, None, 0, -1.0])
def test_clipping_by_global_norm(backend: Backend, threshold: float | None) -> None:
    tasks = linear_tasks()
    adapted = [descent(start(), task.support, K, RATE) for task in tasks]
    gradient = meta_gradient(adapted, tasks, dense(1.0))
    norm = float(np.linalg.norm(gradient))
    assert 0.01 < norm < 10
    scale = 0.01 / norm if threshold == 0.01 else 1.0
    learner = learner_on(backend, GradientClipThreshold=threshold)
    learner.MetaTrain(batch_on(backend, tasks))
    np.testing.assert_allclose(
        parameters_of(learner, backend), start() - OUTER * scale * gradient, rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("count", [1, 2, 8])
def test_the_mean_over_tasks(backend: Backend, count: int) -> None:
    check_step(backend, {}, dense(1.0), tasks=linear_tasks(count, seed=3))


INNER: dict[str, tuple[Callable[[], Any], Callable[[], Optimizer]]] = {
    "sgd": (lambda: SGDOptimizer(0.1), lambda: sgd(0.1)),
    "momentum": (lambda: SGDOptimizer(0.05, momentum=0.8), lambda: sgd(0.05, 0.8)),
    "adam": (lambda: AdamOptimizer(0.05), lambda: adam(0.05)),
    "adam of other decays": (lambda: AdamOptimizer(0.1, 0.5, 0.9, 1e-3), lambda: adam(0.1, 0.5, 0.9, 1e-3)),
}


@pytest.mark.numpy_first
@pytest.mark.parametrize("name", INNER)
@pytest.mark.parametrize("proximal", [0.0, 2.0])
def test_inner_optimizers(backend: Backend, name: str, proximal: float) -> None:
    make, reference = INNER[name]
    lam = 1 / proximal if proximal else 1.0
    learner = learner_on(
        backend,
        InnerOptimizer=make(),
        LambdaRegularization=lam,
        InnerObjective="proximal" if proximal else "support",
    )
    tasks, theta = linear_tasks(), start()
    # Twice: the optimizer is fresh for each task of each step.
    for _ in range(2):
        adapted = [followed(theta, t.support, K, reference(), proximal) for t in tasks]
        learner.MetaTrain(batch_on(backend, tasks))
        theta = theta - OUTER * meta_gradient(adapted, tasks, dense(lam))
        np.testing.assert_allclose(parameters_of(learner, backend), theta, rtol=1e-10, atol=1e-10)


@pytest.mark.costly
@pytest.mark.numpy_first
@pytest.mark.parametrize("name", [*INNER, "the default"])
def test_meta_optimizers(backend: Backend, name: str) -> None:
    make, reference = INNER.get(name, (lambda: None, lambda: adam(0.02)))
    learner, step = learner_on(backend, MetaOptimizer=make(), OuterLearningRate=0.02), reference()
    theta = start()
    for t in range(1, 6):
        tasks = linear_tasks(seed=t)
        adapted = [descent(theta, task.support, K, RATE) for task in tasks]
        theta = step(theta, meta_gradient(adapted, tasks, dense(1.0)), t)
        learner.MetaTrain(batch_on(backend, tasks))
        np.testing.assert_allclose(parameters_of(learner, backend), theta, rtol=1e-10, atol=1e-10)


def test_single_precision_follows_the_same_closed_form(backend: Backend) -> None:
    tasks, theta = linear_tasks(), start()
    options = iMAMLOptions(
        linear_model(backend, theta, np.float32),
        AdaptationSteps=K,
        InnerLearningRate=RATE,
        MetaOptimizer=SGDOptimizer(OUTER),
        # Numbers of other types than float must not widen the arrays.
        LambdaRegularization=np.float64(1.0),
        ConjugateGradientDamping=np.float64(0.5),
        GradientClipThreshold=np.float64(0.25),
    )
    learner = iMAMLAlgorithm(options)
    loss = learner.MetaTrain(batch_on(backend, tasks, np.float32))
    adapted = [descent(theta, t.support, K, RATE) for t in tasks]
    gradient = meta_gradient(adapted, tasks, dense(1.0, 0.5))
    gradient *= min(1.0, 0.25 / float(np.linalg.norm(gradient)))
    found = parameters_of(learner, backend)
    assert found.dtype == np.float32
    assert isinstance(loss, np.float32)
    # A few hundred roundings of numbers of order one.
    np.testing.assert_allclose(found, theta - OUTER * gradient, atol=300 * np.finfo(np.float32).eps)


def test_what_a_step_reports(backend: Backend) -> None:
    class Repeating:
        NumWays, NumShots, NumQueryPerClass = 1, 1, 15

        def SampleBatch(self, batchSize: int) -> Any:
            return batch_on(backend, linear_tasks(batchSize))

        def SampleOne(self) -> Any:
            raise AssertionError

        def UpdateWithFeedback(self, episodes: Any, losses: Any) -> None:
            raise AssertionError

        def SetSeed(self, seed: int) -> None:
            raise AssertionError

    sampler, tasks = Repeating(), linear_tasks(3)
    learner = learner_on(backend, InnerObjective="proximal", LambdaRegularization=0.5)
    step = learner.MetaTrainStep(sampler, 3)
    adapted = [descent(start(), t.support, K, RATE, 2.0) for t in tasks]
    gradient = meta_gradient(adapted, tasks, dense(0.5))
    slopes = [t.support.gradient(phi) + 2.0 * (phi - start()) for t, phi in zip(tasks, adapted, strict=True)]
    metrics = step.AdditionalMetrics
    np.testing.assert_allclose(metrics["MetaGradientNorm"], np.linalg.norm(gradient), rtol=1e-9)
    np.testing.assert_allclose(metrics["InnerGradientNorm"], max(map(np.linalg.norm, slopes)), rtol=1e-9)
    assert metrics["SolverIterations"] == 4
    assert metrics["SolverResidual"] <= 1e-10
    assert metrics["NonPositiveCurvatureTasks"] == 0
    np.testing.assert_allclose(step.TaskLoss, mean_query_loss(adapted, tasks))
    assert step.TaskLoss == step.MetaLoss
    assert (step.NumTasks, step.Iteration) == (3, 1)
    assert step.TimeMs > 0
    assert math.isnan(step.Accuracy)


def test_negative_curvature_ends_a_solve_where_it_is_met(backend: Backend) -> None:
    """y = w²/2 has the loss (w²/2 − t)², of second derivative 3w² − 2t: negative for the second target.

    There the operator 1 + λ(3w² − 2t) is negative at once, and v is g; for the first, v is g / (1 + λ(3w² − 2t)).
    """
    model = FunctionModel(lambda p, x: 0.5 * p["w"] ** 2 * x, {"w": np.array([1.0])}, backend=backend)
    one = backend.asarray(np.ones((1, 1)))
    targets = (0.25, 5.0)
    tasks = [
        MetaLearningTask(SupportSetX=one, SupportSetY=t * one, QuerySetX=one, QuerySetY=0.0 * one) for t in targets
    ]
    lam, rate = 2.0, 0.01
    learner = iMAMLAlgorithm(
        iMAMLOptions(
            model,
            AdaptationSteps=1,
            InnerLearningRate=rate,
            LambdaRegularization=lam,
            MetaOptimizer=SGDOptimizer(1.0),
            DataLoader=Fixed(TaskBatch(tasks)),
        )
    )
    step = learner.MetaTrainStep(2)
    adapted = [1.0 - rate * 2 * (0.5 - t) for t in targets]
    operators = [1 + lam * (3 * w**2 - 2 * t) for w, t in zip(adapted, targets, strict=True)]
    assert operators[0] > 0 > operators[1]
    gradients = [w**3 for w in adapted]
    expected = 1.0 - np.mean([gradients[0] / operators[0], gradients[1]])
    np.testing.assert_allclose(parameters_of(learner, backend), [expected], rtol=1e-12)
    assert step.AdditionalMetrics["NonPositiveCurvatureTasks"] == 1


class Fixed:
    """A loader of one batch."""

    NWay = KShot = QueryShots = AvailableClasses = 1

    def __init__(self, batch: TaskBatch[Any, Any, Any]) -> None:
        self.batch = batch

    def GetNextTask(self) -> Any:
        return self.batch[0]

    def GetTaskBatch(self, n: int) -> Any:
        return self.batch

    def SetSeed(self, seed: int) -> None:
        pass
