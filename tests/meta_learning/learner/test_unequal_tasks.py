"""Tasks of unequal size in one batch: the step, the losses and the curves of the same tasks one by one."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from memory import bytes_of_arrays, bytes_of_objects
from numpy_doubles import Threads

from aidotnet_py import (
    AdamOptimizer,
    ANILAlgorithm,
    ANILOptions,
    ArgumentException,
    BOILAlgorithm,
    BOILOptions,
    CrossEntropyLoss,
    FunctionModel,
    InvalidOperationException,
    LBFGSMinimizer,
    MAMLAlgorithm,
    MAMLOptions,
    MeanSquaredErrorLoss,
    MetaLearningTask,
    MetaSGDAlgorithm,
    MetaSGDOptions,
    NeuralNetworkModel,
    NewtonCGMinimizer,
    ReptileAlgorithm,
    ReptileOptions,
    SGDOptimizer,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.backends import NumPyBackend
from aidotnet_py.losses import LossFunctionBase
from aidotnet_py.nn import BatchNorm, Dense, Dropout, Sequential, Tanh

SIZES = [(4, 5), (6, 5), (4, 3), (2, 7), (4, 5), (9, 2), (5, 6), (10, 5), (7, 8)]
Options = dict[str, Any]


def a_model(*layers: Any) -> Any:
    network = Sequential(Dense(5), *layers, Tanh(), Dense(3))
    return NeuralNetworkModel(network, input_shape=(2,), loss=CrossEntropyLoss(), dtype=np.float64, seed=0)


def a_task(support: int, query: int, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    x, q = rng.normal(size=(support, 2)), rng.normal(size=(query, 2))
    y, p = rng.integers(0, 3, support), rng.integers(0, 3, query)
    return MetaLearningTask(SupportSetX=x, SupportSetY=y, QuerySetX=q, QuerySetY=p, NumWays=3, TaskId=seed)


TASKS = [a_task(*sizes, seed) for seed, sizes in enumerate(SIZES)]

LEARNERS: dict[str, Callable[[], Any]] = {
    "MAML": lambda: MAMLAlgorithm(MAMLOptions(a_model(), **still())),
    "MAML, first order": lambda: MAMLAlgorithm(MAMLOptions(a_model(), UseFirstOrder=True, **still())),
    "MAML through Adam": lambda: MAMLAlgorithm(MAMLOptions(a_model(), InnerOptimizer=AdamOptimizer(0.05), **still())),
    "iMAML": lambda: iMAMLAlgorithm(iMAMLOptions(a_model(), LambdaRegularization=0.1, **still())),
    "iMAML, learned λ": lambda: iMAMLAlgorithm(
        iMAMLOptions(
            a_model(), LambdaRegularization=0.1, InnerObjective="proximal", LearnedLambda="per-parameter", **still()
        )
    ),
    "iMAML by Newton-CG": lambda: iMAMLAlgorithm(
        iMAMLOptions(
            a_model(),
            LambdaRegularization=0.1,
            InnerObjective="proximal",
            InnerOptimizer=NewtonCGMinimizer(),
            **still(),
        )
    ),
    "iMAML by L-BFGS": lambda: iMAMLAlgorithm(
        iMAMLOptions(
            a_model(), LambdaRegularization=0.1, InnerObjective="proximal", InnerOptimizer=LBFGSMinimizer(), **still()
        )
    ),
    "Reptile": lambda: ReptileAlgorithm(ReptileOptions(a_model(), **still())),
    "Meta-SGD": lambda: MetaSGDAlgorithm(MetaSGDOptions(a_model(), **{**still(), "MetaOptimizer": SGDOptimizer(1e-3)})),
    "ANIL": lambda: ANILAlgorithm(ANILOptions(a_model(), **still())),
    "BOIL": lambda: BOILAlgorithm(BOILOptions(a_model(), **still())),
    "MAML, batch statistics": lambda: MAMLAlgorithm(MAMLOptions(a_model(BatchNorm()), **still())),
    "MAML, support statistics": lambda: MAMLAlgorithm(MAMLOptions(a_model(BatchNorm(statistics="support")), **still())),
}


def still() -> Options:
    """A meta-optimizer that moves by the mean meta-gradient itself."""
    return {"MetaOptimizer": SGDOptimizer(1.0), "GradientClipThreshold": None, "AdaptationSteps": 3}


def moved(learner: Any, tasks: list[Any]) -> tuple[Any, Any, list[float]]:
    """Return the step of all that is learned, the mean loss, and the losses."""
    before = np.array(learner._meta_parameters())
    loss = learner.MetaTrain(TaskBatch(tasks))
    return before - learner._meta_parameters(), loss, list(learner._record.losses)


@pytest.fixture(params=["little work", "much work"])
def work(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """All tasks in one size, and each in the next size that is a power of two or three quarters of one."""
    if request.param == "much work":
        monkeypatch.setattr(NumPyBackend, "flops_at_once", 1)
    return str(request.param)


# `check_algorithm` asks it of each algorithm, on few tasks; here it is about how sizes are brought together.
DEFAULT = {"iMAML"}


@pytest.mark.slow
@pytest.mark.usefixtures("work")
@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in DEFAULT else pytest.mark.slow) for n in LEARNERS])
def test_a_step_is_the_mean_of_the_steps_on_the_tasks_one_by_one(name: str) -> None:
    alone = [moved(LEARNERS[name](), [task]) for task in TASKS]
    step, loss, losses = moved(LEARNERS[name](), TASKS)
    # What is learned is of the order of 1, and differences of it are rounded as that is.
    np.testing.assert_allclose(step, np.mean([s for s, _, _ in alone], axis=0), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(loss, np.mean([one for _, one, _ in alone]), rtol=1e-12)
    np.testing.assert_allclose(losses, [one for _, one, _ in alone], rtol=1e-12)


@pytest.mark.slow
def test_serial_reptile_takes_them_in_their_order() -> None:
    options = {**still(), "UseSerialUpdate": True}
    learner, other = (ReptileAlgorithm(ReptileOptions(a_model(), **options)) for _ in range(2))
    learner.MetaTrain(TaskBatch(TASKS))
    for task in TASKS:
        other.MetaTrain(TaskBatch([task]))
    np.testing.assert_allclose(learner.BaseModel.GetParameters(), other.BaseModel.GetParameters(), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_the_order_of_the_batch(threads: int) -> None:
    model = NeuralNetworkModel(
        Sequential(Dense(3)),
        input_shape=(2,),
        loss=CrossEntropyLoss(),
        dtype=np.float64,
        backend=Threads(threads),
        seed=0,
    )
    learner = MAMLAlgorithm(MAMLOptions(model))
    curve = learner.adaptation_curve(TaskBatch(TASKS))
    for place, task in enumerate(TASKS):
        alone = learner.adaptation_curve(TaskBatch([task]))
        np.testing.assert_allclose(curve.losses[place], alone.losses[0], rtol=1e-12)
        np.testing.assert_array_equal(curve.accuracies[place], alone.accuracies[0])
    means = [learner.Evaluate(TaskBatch([task])) for task in TASKS]
    np.testing.assert_allclose(learner.Evaluate(TaskBatch(TASKS)), np.mean(means), rtol=1e-12)


@pytest.mark.parametrize("layers", [(), (Dropout(0.5),)])
def test_inputs_of_another_width_are_named(layers: Any) -> None:
    network = Sequential(Dense(5), *layers, Tanh(), Dense(3))
    other = NeuralNetworkModel(network, input_shape=(4,), loss=CrossEntropyLoss(), dtype=np.float64, seed=0)
    learner = MAMLAlgorithm(MAMLOptions(other))
    for call in (learner.MetaTrain, learner.Evaluate):
        with pytest.raises(ArgumentException, match=r"^SupportSetX of task 0 must have shape \(n, 4\), got \(4, 2\)$"):
            call(TaskBatch(TASKS))


@pytest.mark.slow
def test_support_sets_in_batches_may_be_of_unequal_size_and_number() -> None:
    def in_batches(task: Any, count: int) -> Any:
        xs, ys = np.array_split(task.SupportInput, count), np.array_split(task.SupportOutput, count)
        return MetaLearningTask(
            SupportSetX=xs, SupportSetY=ys, QuerySetX=task.QueryInput, QuerySetY=task.QueryOutput, NumWays=3
        )

    tasks = [in_batches(TASKS[0], 2), in_batches(TASKS[1], 3), in_batches(TASKS[4], 2), TASKS[2]]
    alone = [moved(LEARNERS["MAML"](), [task])[0] for task in tasks]
    step, _, _ = moved(LEARNERS["MAML"](), tasks)
    np.testing.assert_allclose(step, np.mean(alone, axis=0), rtol=1e-12, atol=1e-14)


def test_a_task_that_fails_is_named_by_its_place() -> None:
    tasks = list(TASKS)
    broken = np.array(tasks[3].SupportInput)
    broken[0] = np.nan
    tasks[3] = MetaLearningTask(
        SupportSetX=broken,
        SupportSetY=tasks[3].SupportOutput,
        QuerySetX=tasks[3].QueryInput,
        QuerySetY=tasks[3].QueryOutput,
        NumWays=3,
    )
    learner = LEARNERS["MAML"]()
    with pytest.raises(InvalidOperationException, match=r"of task 3 \("):
        learner.MetaTrain(TaskBatch(tasks))


def groups_of(learner: Any, tasks: list[Any]) -> list[list[int]]:
    return [list(group.places) for group in learner._open(tasks, "Support", "Query")]


def test_examples_are_padded_where_model_and_loss_treat_each_by_itself(work: str) -> None:
    groups = {"little work": [[*range(9)]], "much work": [[0, 4], [1, 6], [2], [3], [5], [7], [8]]}
    assert groups_of(LEARNERS["MAML"](), TASKS) == groups[work]
    assert groups_of(LEARNERS["MAML"](), [TASKS[0], TASKS[4]]) == [[0, 1]]


def test_nothing_is_padded_where_examples_mix() -> None:
    sizes = list(dict.fromkeys(SIZES))
    assert len(groups_of(LEARNERS["MAML, batch statistics"](), TASKS)) == len(sizes)
    noisy = NeuralNetworkModel(
        Sequential(Dense(5), Dropout(0.5), Dense(3)),
        input_shape=(2,),
        loss=CrossEntropyLoss(),
        dtype=np.float64,
        seed=0,
    )
    assert len(groups_of(MAMLAlgorithm(MAMLOptions(noisy)), TASKS)) == len(sizes)


class SumOfSquares(LossFunctionBase[Any]):
    """No mean over examples: twice as many give twice the loss."""

    def formula(self, predicted: Any, actual: Any) -> Any:
        return ((predicted - actual) ** 2).sum()


def regression(support: int, query: int, seed: int, dtype: Any = np.float64) -> Any:
    rng = np.random.default_rng(seed)
    (x, y), (q, p) = ((rng.normal(size=(n, 2)), rng.normal(size=(n, 2)).astype(dtype)) for n in (support, query))
    return MetaLearningTask(SupportSetX=x, SupportSetY=y, QuerySetX=q, QuerySetY=p, NumWays=1)


def line(loss: Any, backend: Any = "numpy") -> Any:
    return NeuralNetworkModel(
        Sequential(Dense(3), Tanh(), Dense(2)), input_shape=(2,), loss=loss, dtype=np.float64, backend=backend, seed=0
    )


@pytest.mark.slow
@pytest.mark.parametrize("loss", [MeanSquaredErrorLoss(), SumOfSquares()])
def test_losses_of_real_numbers(loss: Any) -> None:
    tasks = [regression(n, m, n) for n, m in ((3, 5), (5, 5), (6, 6), (2, 4))]
    alone = [moved(MAMLAlgorithm(MAMLOptions(line(loss), **still())), [task])[0] for task in tasks]
    learner = MAMLAlgorithm(MAMLOptions(line(loss), **still()))
    assert len(groups_of(learner, tasks)) == (4 if isinstance(loss, SumOfSquares) else 1)
    np.testing.assert_allclose(moved(learner, tasks)[0], np.mean(alone, axis=0), rtol=1e-12, atol=1e-15)


def test_a_target_that_is_no_number_is_named_and_not_taken_for_a_mark() -> None:
    tasks = [regression(n, 5, n) for n in (3, 5, 6)]
    tasks[1].SupportOutput[2] = np.nan
    learner = MAMLAlgorithm(MAMLOptions(line(MeanSquaredErrorLoss())))
    with pytest.raises(InvalidOperationException, match=r"of task 1 \("):
        learner.MetaTrain(TaskBatch(tasks))


def test_on_every_backend(backend: Any) -> None:
    tasks = [regression(n, m, n) for n, m in ((3, 5), (5, 5), (6, 6))]

    def on(task: Any) -> Any:
        x, y, q, p = (backend.asarray(getattr(task, name)) for name in NAMES)
        return MetaLearningTask(SupportSetX=x, SupportSetY=y, QuerySetX=q, QuerySetY=p, NumWays=1)

    learner, other = (
        iMAMLAlgorithm(iMAMLOptions(line(MeanSquaredErrorLoss(), of), LambdaRegularization=0.1, **still()))
        for of in (backend, "numpy")
    )
    learner.MetaTrain(TaskBatch([on(task) for task in tasks]))
    other.MetaTrain(TaskBatch(tasks))
    given = backend.to_numpy(learner.BaseModel.GetParameters())
    np.testing.assert_allclose(given, other.BaseModel.GetParameters(), rtol=1e-10)


NAMES = ("SupportInput", "SupportOutput", "QueryInput", "QueryOutput")


@pytest.mark.slow
def test_memory_is_bounded_over_a_thousand_sizes() -> None:
    learner, rng = MAMLAlgorithm(MAMLOptions(line(MeanSquaredErrorLoss()), AdaptationSteps=2)), np.random.default_rng(0)

    def train(steps: int) -> int:
        for _ in range(steps):
            learner.MetaTrain(TaskBatch([regression(*rng.integers(1, 32, 2), 0) for _ in range(4)]))
        return bytes_of_arrays() + bytes_of_objects()

    tracemalloc.start()
    try:
        first = train(250)
        assert train(250) < 1.2 * first
    finally:
        tracemalloc.stop()


class Root(LossFunctionBase[Any]):
    """No mean over examples, although that of a single example looks like one."""

    def formula(self, predicted: Any, actual: Any) -> Any:
        return np.sqrt(np.mean((predicted - actual) ** 2))


class Observed(LossFunctionBase[Any]):
    """A mean over the targets that were measured, -99 for those that were not; over all if all were."""

    def formula(self, predicted: Any, actual: Any) -> Any:
        seen = (actual != -99.0).astype(predicted.dtype)
        return np.sum(seen * (predicted - actual) ** 2) / np.maximum(np.sum(seen), 1.0)


def a_regression(size: int, missing: int = 0) -> Any:
    x = np.linspace(1.0, 2.0, 2 * size).reshape(size, 2)
    y = x[:, :1] ** 2
    y[:missing] = -99.0
    return MetaLearningTask(SupportSetX=x, SupportSetY=y, QuerySetX=x, QuerySetY=y, NumWays=1)


BY_SIZE: dict[str, Callable[[Any, Any], Any]] = {
    "linear": lambda p, x: x @ p["w"],
    "a branch": lambda p, x: (x if len(x) < 4 else x - 1.0) @ p["w"],
    "divided by the size": lambda p, x: x @ p["w"] / len(x),
    "columns from a list": lambda p, x: x[:, [1, 0]] @ p["w"],
    "a solve": lambda p, x: np.linalg.solve(np.eye(2) * 2.0, x.T).T @ p["w"],
}


BY_TARGETS: dict[str, Any] = {"mean": MeanSquaredErrorLoss(), "root": Root(), "observed": Observed()}


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize("sizes", [[(1, 0), (4, 0)], [(4, 0), (1, 0)], [(4, 0), (6, 4)], [(2, 0), (5, 0), (3, 1)]])
@pytest.mark.parametrize(
    ("name", "loss"),
    [
        # By default, models with an ordinary loss, and losses with an ordinary model.
        pytest.param(
            name, loss, marks=() if name == "linear" or kind == "mean" else pytest.mark.slow, id=f"{name}-{kind}"
        )
        for name in BY_SIZE
        for kind, loss in BY_TARGETS.items()
    ],
)
def test_models_and_losses_that_depend_on_the_size_or_the_targets(
    name: str, loss: Any, sizes: list[tuple[int, int]]
) -> None:
    def learner() -> Any:
        model = FunctionModel(BY_SIZE[name], {"w": np.ones((2, 1))})
        return MAMLAlgorithm(MAMLOptions(model, LossFunction=loss, InnerLearningRate=0.01, **still()))

    tasks = [a_regression(*size) for size in sizes]
    alone = [moved(learner(), [task])[:2] for task in tasks]
    step, value, _ = moved(learner(), tasks)
    np.testing.assert_allclose(value, np.mean([one for _, one in alone]), rtol=1e-12)
    np.testing.assert_allclose(step, np.mean([one for one, _ in alone], axis=0), rtol=1e-11)
