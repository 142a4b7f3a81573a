"""What a learner refuses, in which words, before which work, and that it leaves everything as it was."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from imaml_reference import LeastSquares, LinearTask, batch_on, dense, descent, linear_model, linear_tasks, start
from numpy_doubles import CountingBackend
from plain_models import BareModel, HandWrittenModel
from tanh_network import TanhNetwork, Values, batch_of
from task_batches import Unchecked

from aidotnet_py import (
    AdamOptimizer,
    ArgumentException,
    ArgumentNullException,
    ArgumentOutOfRangeException,
    CrossEntropyLoss,
    FunctionModel,
    InvalidOperationException,
    MAMLAlgorithm,
    MAMLOptions,
    MeanSquaredErrorLoss,
    MetaEvaluationResult,
    MetaLearningTask,
    NeuralNetworkModel,
    SGDOptimizer,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.backends import Backend, backend_of, get_backend
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.nn import mlp
from aidotnet_py.testing.learner_state import bits, untouched

NETWORK = TanhNetwork(outputs=3, classify=True)
SETS = ("SupportSetX", "SupportSetY", "QuerySetX", "QuerySetY")


def trained(model: Any, batch: TaskBatch[Any, Any, Any], **options: Any) -> iMAMLAlgorithm[Any, Any, Any]:
    """A learner with a past: its optimizer has something to lose."""
    learner = iMAMLAlgorithm(iMAMLOptions(model, **({"AdaptationSteps": 2, "LambdaRegularization": 0.1} | options)))
    for _ in range(2):
        learner.MetaTrain(batch)
    return learner


def classifier(backend: Backend, dtype: Any = np.float64) -> Any:
    return NeuralNetworkModel(
        mlp(4, 3), input_shape=(2,), loss=CrossEntropyLoss(), dtype=dtype, backend=backend, seed=0
    )


def with_set(backend: Backend, place: int, change: Callable[[Values], Any], *, at: int = 1) -> TaskBatch[Any, Any, Any]:
    """Three tasks, in one of which one array was changed."""
    sets = [list(four) for four in NETWORK.sets(3)]
    tasks = list(batch_of(backend, NETWORK.sets(3)))
    arrays = [backend.asarray(values) for values in sets[at]]
    arrays[place] = change(sets[at][place])
    tasks[at] = Unchecked(dict(zip(SETS, arrays, strict=True)), Name=f"task {at}")
    return TaskBatch(tasks)


def other(backend: Backend) -> Backend:
    return get_backend("strict") if backend.name in ("numpy", "counting") else get_backend("numpy")


# Which array, what becomes of it, and what is said.
MISFITS: dict[str, tuple[int, Callable[[Backend, Values], Any], str]] = {
    "features": (
        0,
        lambda b, x: b.asarray(x[:, :1]),
        r"^SupportInput of task 1 must have shape \(n, 2\), got \(6, 1\)$",
    ),
    "rank": (
        2,
        lambda b, x: b.asarray(x[:, :, None]),
        r"^QueryInput of task 1 must have shape \(n, 2\), got \(4, 2, 1\); use QueryInput.reshape\(-1, 2\)$",
    ),
    "dtype": (
        0,
        lambda b, x: b.asarray(x.astype(np.float32)),
        r"^SupportInput of task 1 must have the model's dtype float64, got float32; use SupportInput\.astype",
    ),
    "number of examples": (
        0,
        lambda b, x: b.asarray(x[:5]),
        r"^SupportInput of task 1 must have as many examples as SupportOutput of task 1, .* \(5, 2\) and \(6,\)$",
    ),
    "empty set": (
        0,
        lambda b, x: b.asarray(x[:0]),
        r"^SupportInput of task 1 must have .*, at least one, got shapes \(0, 2\) and \(6,\)$",
    ),
    "label above": (
        1,
        lambda b, y: b.asarray(y + 1),
        r"^SupportOutput of task 1 must hold labels from 0 to 2 for predictions of shape \(6, 3\), got 1 to 3",
    ),
    "label below": (
        3,
        lambda b, y: b.asarray(y - 3),
        r"^QueryOutput of task 1 must hold labels from .*, got -\d to -\d",
    ),
    "labels as floats": (
        1,
        lambda b, y: b.asarray(y.astype(np.float64)),
        r"^Support(SetY|Output) of task 1 must (be int64.*|have the model's dtype float32), got float64",
    ),
    "other backend": (
        0,
        lambda b, x: other(b).asarray(x),
        r"^SupportInput of task 1 must be an array on the model's backend '\w+', got one on backend '\w+'; move it",
    ),
    "targets on another backend": (
        3,
        lambda b, y: other(b).asarray(y),
        r"^QueryOutput of task 1 must be int64.* on backend '\w+', like QuerySetY of task 0, got .* on backend '\w+'$",
    ),
    "another device": (
        0,
        lambda b, x: get_backend("strict-device1").asarray(x),
        r"^SupportInput of task 1 must be an array on the model's backend '\w+', got one on backend 'strict-device1'; ",
    ),
    "a list": (
        0,
        lambda b, x: x.tolist(),
        r"^SupportInput of task 1 must be an array, got a list; use np\.asarray\(SupportInput\)$",
    ),
    "nothing": (1, lambda b, y: None, r"^SupportOutput of task 1 must be an array, got None$"),
    "no query inputs": (2, lambda b, x: None, r"^QueryInput of task 1 must be an array, got None$"),
}


@pytest.fixture(scope="module", params=["counting", "strict"])
def watched(request: pytest.FixtureRequest) -> Backend:
    """The NumPy backend, counting, and the strict one."""
    return CountingBackend() if request.param == "counting" else get_backend("strict")


@pytest.fixture(scope="module")
def watching(watched: Backend) -> iMAMLAlgorithm[Any, Any, Any]:
    """A learner on it; what it refuses leaves it as it was."""
    return trained(classifier(watched), batch_of(watched, NETWORK.sets(3)))


@pytest.mark.numpy_first
class TestData:
    @pytest.mark.parametrize("name", MISFITS)
    def test_what_does_not_fit_is_told_before_any_work(
        self, watched: Backend, watching: iMAMLAlgorithm[Any, Any, Any], name: str
    ) -> None:
        place, change, message = MISFITS[name]
        batch = with_set(watched, place, lambda values: change(watched, values))
        if isinstance(watched, CountingBackend):
            watched.calls.clear()
        for call in (watching.MetaTrain, watching.Evaluate):
            with untouched(watching), pytest.raises(ArgumentException, match=message):
                call(batch)
        if isinstance(watched, CountingBackend):
            assert not {"matmul", "relu", "exp", "add", "multiply"} & watched.calls.keys()

    def test_a_task_alone_is_not_numbered(self, backend: Backend) -> None:
        learner = trained(classifier(backend), batch_of(backend, NETWORK.sets(3)))
        task = with_set(backend, 0, lambda x: backend.asarray(x[:, :1]))[1]
        with pytest.raises(ArgumentException, match=r"^SupportInput must have shape \(n, 2\), got \(6, 1\)$"):
            learner.Adapt(task)
        with pytest.raises(ArgumentException, match=r"^SupportInput must have shape \(n, 2\), got \(6, 1\)$"):
            learner.AdaptAndEvaluate(task)

    def test_tasks_of_different_kinds(self, backend: Backend) -> None:
        learner = trained(linear_model(backend, start()), batch_on(backend, linear_tasks()))
        tasks = list(batch_on(backend, linear_tasks()))
        flat = MetaLearningTask(
            SupportSetX=tasks[1].SupportInput,
            SupportSetY=backend.reshape(tasks[1].SupportOutput, (tasks[1].SupportOutput.shape[0],)),
            QuerySetX=tasks[1].QueryInput,
            QuerySetY=tasks[1].QueryOutput,
            NumWays=1,
        )
        message = r"SupportSetY of task 1 must be float64\(\d+, 1\) .*, like SupportSetY of task 0, got float64"
        with untouched(learner), pytest.raises(ArgumentException, match=message):
            learner.MetaTrain(TaskBatch([tasks[0], flat, tasks[2]]))

    def test_targets_of_another_shape_than_the_predictions(self, backend: Backend) -> None:
        learner = trained(linear_model(backend, start()), batch_on(backend, linear_tasks()))
        x = backend.asarray(np.ones((4, 3)))
        task = MetaLearningTask(SupportSetX=x, SupportSetY=backend.asarray(np.ones(4)))
        message = r"^SupportSetY must have the predictions' shape \(4, 1\), got \(4,\); use SupportSetY\.resh"
        with untouched(learner), pytest.raises(ArgumentException, match=message):
            learner.Adapt(task)

    def test_an_input_that_the_function_cannot_take(self, backend: Backend) -> None:
        learner = trained(linear_model(backend, start()), batch_on(backend, linear_tasks()))
        x = backend.asarray(np.ones((4, 2)))
        task = MetaLearningTask(SupportSetX=x, SupportSetY=backend.asarray(np.ones((4, 1))))
        message = r"^SupportSetX must be an input that the model takes, got shape \(4, 2\): .*(\(4, 2\)|4,2)"
        with untouched(learner), pytest.raises(ArgumentException, match=message):
            learner.Adapt(task)

    def test_a_function_that_returns_no_array(self, backend: Backend) -> None:
        model = FunctionModel(lambda p, x: {"y": x @ p["w"]}, {"w": np.ones((3, 1))}, backend=backend)
        with pytest.raises(ArgumentException, match=r"^SupportSetX .*must return one array, got a dict"):
            iMAMLAlgorithm(iMAMLOptions(model)).MetaTrain(batch_on(backend, linear_tasks(1)))

    def test_query_data_is_wanted_to_train_and_evaluate(self, backend: Backend) -> None:
        learner = trained(linear_model(backend, start()), batch_on(backend, linear_tasks()))
        data = linear_tasks(1)[0].support
        task = MetaLearningTask(SupportSetX=backend.asarray(data.x), SupportSetY=backend.asarray(data.y))
        for call in (learner.MetaTrain, learner.Evaluate):
            with (
                untouched(learner),
                pytest.raises(ArgumentException, match=r"^QuerySetX must be an array, got None$"),
            ):
                call(TaskBatch([task]))
        with pytest.raises(ArgumentException, match=r"^QuerySetX must be an array, got None"):
            learner.AdaptAndEvaluate(task)
        assert learner.Adapt(task) is not None

    @pytest.mark.parametrize("cls", [BareModel, HandWrittenModel])
    @pytest.mark.filterwarnings("ignore:.*simultaneous perturbation")
    def test_models_of_other_kinds_check_what_they_can(self, backend: Backend, cls: Any) -> None:
        learner = iMAMLAlgorithm(iMAMLOptions(cls(NETWORK, NETWORK.start(), backend)))
        for place, change, message in (
            (0, lambda x: None, "SupportInput of task 1 must be an array, got None"),
            (0, lambda x: backend.asarray(x[:5]), "as many examples as SupportOutput"),
            (
                0,
                lambda x: backend.asarray(x.astype(np.float32)),
                r"SupportInput of task 1 must be float64.*, got float32\(6, 2\) on backend",
            ),
            (
                2,
                lambda x: backend.asarray(x[:, :1]),
                r"QueryInput of task 1 must be .*, got float64\(4, 1\) on",
            ),
            (2, lambda x: other(backend).asarray(x), "QueryInput of task 1 must be .* on backend"),
        ):
            with untouched(learner), pytest.raises(ArgumentException, match=message):
                learner.MetaTrain(with_set(backend, place, change))

    @pytest.mark.parametrize("cls", [BareModel, HandWrittenModel])
    @pytest.mark.parametrize(
        ("members", "message"),
        [
            # Adaptation moved the meta-model.
            ({"WithParameters": lambda self, v: (self.SetParameters(v), self)[1]}, "a new model, got the same one"),
            ({"WithParameters": lambda self, v: None}, "WithParameters of Own must return a new model, got a NoneType"),
            (
                {"GetParameters": lambda self: np.zeros(13, int)},
                r"of floating-point numbers, got int64\(13,\) on",
            ),
            ({"GetParameters": lambda self: np.zeros((1, 13))}, r"of floating-point numbers, got float64\(1, 13\) on"),
            ({"DefaultLossFunction": None}, "DefaultLossFunction of Own must be an ILossFunction, got None"),
        ],
    )
    @pytest.mark.filterwarnings("ignore:.*simultaneous perturbation")
    def test_models_that_break_their_protocol(self, cls: Any, members: dict[str, Any], message: str) -> None:
        """Such models failed in the depths, on what had come of their members."""
        numpy = get_backend("numpy")
        model = type("Own", (cls,), members)(NETWORK, NETWORK.start(), numpy)
        before = model._phi.copy()
        with pytest.raises(ArgumentException, match=message):
            MAMLAlgorithm(MAMLOptions(model, UseFirstOrder=True)).Adapt(batch_of(numpy, NETWORK.sets(1))[0])
        np.testing.assert_array_equal(model._phi, before)


class TestArguments:
    def learner(self, **options: Any) -> iMAMLAlgorithm[Any, Any, Any]:
        return iMAMLAlgorithm(iMAMLOptions(linear_model(get_backend("numpy"), start()), **options))

    @pytest.mark.parametrize("call", ["MetaTrain", "Evaluate"])
    @pytest.mark.parametrize(
        ("value", "came"),
        [(None, "None"), ([], r"a list; use TaskBatch\(tasks\)"), ({}, "a dict"), ("batch", "a str"), (2.5, "a float")],
    )
    def test_no_batch(self, call: str, value: Any, came: str) -> None:
        with pytest.raises(ArgumentException, match=f"^taskBatch must be a TaskBatch, got {came}$"):
            getattr(self.learner(), call)(value)

    def test_an_empty_batch_cannot_be_made(self) -> None:
        with pytest.raises(ArgumentException, match="tasks must hold at least one task"):
            TaskBatch([])

    @pytest.mark.parametrize("call", ["Adapt", "AdaptAndEvaluate"])
    def test_no_task(self, call: str) -> None:
        with pytest.raises(ArgumentNullException, match=r"^task must be an IMetaLearningTask, got None$"):
            getattr(self.learner(), call)(None)
        lacking = r"^task must be an IMetaLearningTask, got a TaskBatch; pass its tasks one by one$"
        with pytest.raises(ArgumentException, match=lacking):
            getattr(self.learner(), call)(batch_on(get_backend("numpy"), linear_tasks()))

    @pytest.mark.parametrize("size", [0, -3, True, 2.5, "4", None, math.nan])
    def test_senseless_batch_sizes(self, size: Any) -> None:
        learner = self.learner(DataLoader=SinusoidLoader(seed=0))
        with untouched(learner), pytest.raises(ArgumentOutOfRangeException, match=r"^batchSize must be a whole number"):
            learner.MetaTrainStep(size)

    @pytest.mark.parametrize("count", [0, -1, True])
    def test_senseless_numbers_of_tasks(self, count: Any) -> None:
        learner = self.learner(DataLoader=SinusoidLoader(seed=0))
        with untouched(learner), pytest.raises(ArgumentOutOfRangeException, match=r"^numTasks must be a whole number"):
            learner.Evaluate(count)

    def test_nothing_to_draw_from(self) -> None:
        learner = self.learner()
        calls: list[Callable[[], Any]] = [learner.Train, lambda: learner.MetaTrainStep(4), lambda: learner.Evaluate(4)]
        for call in calls:
            with (
                untouched(learner),
                pytest.raises(InvalidOperationException, match=r"^DataLoader of the options must be set .*, got None"),
            ):
                call()

    def test_options_are_checked_before_a_draw(self) -> None:
        learner = self.learner()
        learner.Options.DataLoader = 5  # type: ignore[assignment]
        for call in (lambda: learner.MetaTrainStep(4), lambda: learner.Evaluate(4)):
            with pytest.raises(ArgumentException, match=r"^DataLoader must be an IEpisodicDataLoader, got a int"):
                call()

    def test_no_sampler(self) -> None:
        learner = self.learner()
        with pytest.raises(
            ArgumentException,
            match=r"^sampler must be an ITaskSampler, got a SinusoidLoader, which lacks .*SampleBatch",
        ):
            learner.MetaTrainStep(SinusoidLoader(seed=0), 4)  # type: ignore[arg-type]

    def test_no_model_to_set(self) -> None:
        learner = self.learner()
        before = learner.GetMetaModel()
        with pytest.raises(ArgumentNullException, match=r"^model must be a model, got None$"):
            learner.SetMetaModel(None)  # type: ignore[arg-type]
        with pytest.raises(ArgumentException, match=r"^model must be an IFullModel, got a ndarray, which lacks .*$"):
            learner.SetMetaModel(np.zeros(3))  # type: ignore[arg-type]
        assert learner.GetMetaModel() is before


NOT_FINITE: dict[str, tuple[int, float, str]] = {
    "NaN in the support inputs": (0, math.nan, "support loss"),
    "infinity in the support inputs": (0, math.inf, "support gradient"),
    "NaN in the support targets": (1, math.nan, "support loss"),
    "NaN in the query inputs": (2, math.nan, "query loss"),
    "infinity in the query targets": (3, math.inf, "query loss"),
}


@pytest.mark.numpy_first
class TestNumbers:
    @pytest.mark.parametrize("name", NOT_FINITE)
    def test_data_that_are_not_finite(self, backend: Backend, name: str) -> None:
        place, value, quantity = NOT_FINITE[name]
        network = TanhNetwork()
        learner = trained(network.model(backend, network.start()), batch_of(backend, network.sets(3)))
        sets = network.sets(3)
        sets[1][place][2, 0] = value
        batch = batch_of(backend, sets)
        for call in (learner.MetaTrain, learner.Evaluate):
            with (
                untouched(learner),
                pytest.raises(InvalidOperationException, match=rf"^the {quantity} of task 1 \(task 1\) is not finite"),
            ):
                call(batch)
        with pytest.raises(InvalidOperationException, match=rf"^the {quantity} of task 0 \(task 1\) is not finite"):
            learner.AdaptAndEvaluate(batch[1])
        if quantity.startswith("support"):
            with pytest.raises(InvalidOperationException, match=f"^the {quantity} of task 0"):
                learner.Adapt(batch[1])

    def test_a_task_without_a_name_is_told_by_its_id(self, backend: Backend) -> None:
        learner = trained(linear_model(backend, start()), batch_on(backend, linear_tasks()))
        data = linear_tasks(1)[0].support
        task = MetaLearningTask(
            SupportSetX=backend.asarray(data.x * math.nan), SupportSetY=backend.asarray(data.y), TaskId="no. 7"
        )
        with pytest.raises(InvalidOperationException, match=r"support loss of task 0 \(no\. 7\) is not finite"):
            learner.Adapt(task)

    @pytest.mark.parametrize("optimizer", [None, SGDOptimizer(1e200)])
    def test_an_inner_loop_that_diverges(self, backend: Backend, optimizer: Any) -> None:
        learner = trained(linear_model(backend, start()), batch_on(backend, linear_tasks()))
        learner.Options.InnerLearningRate, learner.Options.InnerOptimizer = 1e160, optimizer
        learner.Options.AdaptationSteps = 5
        batch = batch_on(backend, linear_tasks())
        for call in (learner.MetaTrain, learner.Evaluate):
            with (
                untouched(learner),
                pytest.raises(
                    InvalidOperationException, match=r"^the adapted parameter vector of task 0 .* is not finite"
                ),
            ):
                call(batch)

    def test_a_query_gradient(self, backend: Backend) -> None:
        """√(w x) has a value at x = 0, but no derivative in w."""
        model = FunctionModel(lambda p, x: np.sqrt(p["w"] * x), {"w": np.ones(1)}, backend=backend)
        ones, zero = backend.asarray(np.ones((2, 1))), backend.asarray(np.array([[0.0], [1.0]]))
        batch = TaskBatch([MetaLearningTask(SupportSetX=ones, SupportSetY=ones, QuerySetX=zero, QuerySetY=ones)])
        learner = iMAMLAlgorithm(iMAMLOptions(model))
        with untouched(learner), pytest.raises(InvalidOperationException, match=r"^the query gradient of task 0"):
            learner.MetaTrain(batch)

    @pytest.mark.parametrize("options", [{}, {"UseNeumannApproximation": True}])
    @pytest.mark.filterwarnings("ignore::aidotnet_py.SeriesGrowthWarning")
    def test_a_solve(self, backend: Backend, options: dict[str, Any]) -> None:
        learner = trained(linear_model(backend, start()), batch_on(backend, linear_tasks()), **options)
        learner.Options.LambdaRegularization = 1e308
        with (
            untouched(learner),
            pytest.raises(InvalidOperationException, match=r"^the solve of task 0 .* is not finite"),
        ):
            learner.MetaTrain(batch_on(backend, linear_tasks()))

    def test_a_solve_whose_gradient_has_no_square_is_solved_all_the_same(self, backend: Backend) -> None:
        model = linear_model(backend, start(), np.float32)
        one = linear_tasks(1)[0]
        query = LeastSquares(1e6 * one.query.x, 1e16 * one.query.y)
        options = iMAMLOptions(
            model,
            MetaOptimizer=SGDOptimizer(1.0),
            GradientClipThreshold=1.0,
            AdaptationSteps=3,
            InnerLearningRate=0.1,
            LambdaRegularization=2.0,
        )
        iMAMLAlgorithm(options).MetaTrain(batch_on(backend, [LinearTask(one.support, query)], np.float32))
        adapted = descent(start(), one.support, 3, 0.1)
        v = dense(2.0)(one.support.hessian, query.gradient(adapted))
        # About 1e22, whose square float32 does not know; clipped to norm 1.
        assert np.linalg.norm(v) > 1e20
        moved = start() - backend.to_numpy(model.GetParameters())
        np.testing.assert_allclose(moved, v / np.linalg.norm(v), rtol=1e-4, atol=1e-6)

    def test_clipping_a_gradient_whose_square_overflows(self, backend: Backend) -> None:
        """First order has no solve, and the norm is there where its square is not."""
        model = FunctionModel(lambda p, x: x * p["w"], {"w": np.zeros(2)}, dtype=np.float32, backend=backend)
        one, far = (backend.asarray(np.full((1, 2), v, np.float32)) for v in (1.0, 1e16))
        zeros = backend.asarray(np.zeros((1, 2), np.float32))
        task = MetaLearningTask(SupportSetX=one, SupportSetY=zeros, QuerySetX=far, QuerySetY=zeros + 1e5)
        options = iMAMLOptions(
            model, UseFirstOrder=True, MetaOptimizer=SGDOptimizer(1.0), GradientClipThreshold=1.0, AdaptationSteps=1
        )
        iMAMLAlgorithm(options).MetaTrain(TaskBatch([task]))
        # The gradient is −1e21 in both parameters: clipped to norm 1, downhill is up.
        np.testing.assert_allclose(backend.to_numpy(model.GetParameters()), [math.sqrt(0.5)] * 2, rtol=1e-6)

    @pytest.mark.parametrize(("dtype", "slope", "limit"), [(np.float16, 6e4, 1e-3), (np.float32, 1e38, 1e-9)])
    def test_clipping_by_a_factor_below_the_normal_numbers(self, dtype: Any, slope: float, limit: float) -> None:
        """The factor is rounded away, or to a few bits, where the clipped gradient is not."""

        class Linear(MeanSquaredErrorLoss[Any]):
            def formula(self, predicted: Any, actual: Any) -> Any:
                return (predicted * actual).sum()

        model = FunctionModel(lambda p, x: x * p["w"], {"w": np.zeros(1)}, loss=Linear(), dtype=dtype)
        one, slopes = np.ones((1, 1), dtype), np.full((1, 1), slope, dtype)
        task = MetaLearningTask(SupportSetX=one, SupportSetY=0 * one, QuerySetX=one, QuerySetY=slopes)
        settings = {"UseFirstOrder": True, "MetaOptimizer": SGDOptimizer(1.0), "GradientClipThreshold": limit}
        iMAMLAlgorithm(iMAMLOptions(model, AdaptationSteps=1, **settings)).MetaTrain(TaskBatch([task]))
        np.testing.assert_allclose(model.GetParameters(), [-limit], rtol=4 * np.finfo(dtype).eps)

    def test_a_meta_update(self, backend: Backend) -> None:
        learner = trained(
            linear_model(backend, start()), batch_on(backend, linear_tasks()), MetaOptimizer=SGDOptimizer(0.1, 0.5)
        )
        learner.Options.MetaOptimizer = SGDOptimizer(1.7e308, 0.5)
        tasks = [LinearTask(t.support, LeastSquares(t.query.x, 100 * t.query.y)) for t in linear_tasks()]
        with untouched(learner), pytest.raises(InvalidOperationException, match=r"^the meta-update is not finite"):
            learner.MetaTrain(batch_on(backend, tasks))


# An array of one number would spread over all parameters, and integers would be taken for numbers cut off.
RESULTS: dict[str, Any] = {
    "nothing": lambda parameters: None,
    "a list": lambda parameters: [0.0] * parameters.shape[0],
    "one number": lambda parameters: parameters[:1],
    "a matrix": lambda parameters: parameters[None, :],
    "integers": lambda parameters: backend_of(parameters).asarray(parameters, dtype=np.dtype(np.int64)),  # type: ignore[union-attr]
}


class Faulty:
    """An optimizer of the user's that fails in the middle of its work."""

    def __init__(self, fault: str) -> None:
        self.fault, self.past = fault, 0.0

    def UpdateParameters(self, parameters: Any, gradient: Any) -> Any:
        self.past += 1.0
        if self.fault == "in place":
            parameters[...] = parameters * 0.0
            raise RuntimeError("failed in the middle")
        if self.fault == "raises":
            raise ZeroDivisionError("the user's own")
        if self.fault == "interrupted":
            raise KeyboardInterrupt
        if self.fault in RESULTS:
            return RESULTS[self.fault](parameters)
        if self.fault == "not finite":
            return parameters * math.inf
        return parameters

    def Reset(self) -> None:
        self.past = 0.0

    def GetCurrentLearningRate(self) -> float:
        return 0.1

    def GetState(self) -> dict[str, Any]:
        return {"past": self.past}

    def SetState(self, state: Mapping[str, Any]) -> None:
        self.past = state["past"]


@pytest.mark.numpy_first
class TestFaultsOfOthers:
    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            ("raises", ZeroDivisionError),
            ("in place", RuntimeError),
            ("interrupted", KeyboardInterrupt),
            *((fault, ArgumentException) for fault in RESULTS),
            ("not finite", InvalidOperationException),
        ],
    )
    def test_a_meta_optimizer(self, backend: Backend, fault: str, error: type[BaseException]) -> None:
        optimizer = Faulty("")
        learner = trained(linear_model(backend, start()), batch_on(backend, linear_tasks()), MetaOptimizer=optimizer)
        assert learner._meta_optimizer().GetState() == {"past": 2.0}
        optimizer.fault = fault
        with untouched(learner), pytest.raises(error):
            learner.MetaTrain(batch_on(backend, linear_tasks()))

    def test_a_model_that_gives_its_own_array_away_and_fails_in_the_middle(self, backend: Backend) -> None:
        network = TanhNetwork(1, 2)

        class Leaky(HandWrittenModel):
            failing = False

            def GetParameters(self) -> Any:
                self.given = getattr(self, "given", backend.asarray(self._phi))
                return self.given

            def SetParameters(self, parameters: Any) -> None:
                super().SetParameters(parameters)
                backend.copyto(self.GetParameters(), parameters)
                if self.failing:
                    self.failing = False
                    raise TimeoutError("half way")

        model = Leaky(network, network.start(), backend)
        learner = trained(model, batch_of(backend, network.sets(2)))
        model.failing = True
        with untouched(learner), pytest.raises(TimeoutError):
            learner.MetaTrain(batch_of(backend, network.sets(2)))
        assert not model.failing
        learner.Options.MetaOptimizer = Faulty("in place")
        if backend.name == "numpy":
            with untouched(learner), pytest.raises(RuntimeError):
                learner.MetaTrain(batch_of(backend, network.sets(2)))

    def test_an_inner_optimizer(self, backend: Backend) -> None:
        learner = trained(linear_model(backend, start()), batch_on(backend, linear_tasks()))
        learner.Options.InnerOptimizer = Faulty("raises")
        with untouched(learner), pytest.raises(ZeroDivisionError, match="the user's own"):
            learner.MetaTrain(batch_on(backend, linear_tasks()))
        assert learner.Options.InnerOptimizer.past == 0.0

    @pytest.mark.parametrize("result", RESULTS)
    def test_what_an_inner_optimizer_returns(self, backend: Backend, result: str) -> None:
        learner = trained(linear_model(backend, start()), batch_on(backend, linear_tasks()))
        learner.Options.InnerOptimizer = Faulty(result)
        with untouched(learner), pytest.raises(ArgumentException, match="the result of UpdateParameters must be a new"):
            learner.MetaTrain(batch_on(backend, linear_tasks()))

    def test_a_loss(self, backend: Backend) -> None:
        class Broken(MeanSquaredErrorLoss[Any]):
            def formula(self, predicted: Any, actual: Any) -> Any:
                raise LookupError("the user's own")

        learner = trained(linear_model(backend, start()), batch_on(backend, linear_tasks()))
        learner.Options.LossFunction = Broken()
        with untouched(learner), pytest.raises(LookupError, match="the user's own"):
            learner.MetaTrain(batch_on(backend, linear_tasks()))
        learner.Options.LossFunction = None
        learner.MetaTrain(batch_on(backend, linear_tasks()))

    def test_a_loss_that_is_no_scalar(self, backend: Backend) -> None:
        class PerExample(MeanSquaredErrorLoss[Any]):
            def formula(self, predicted: Any, actual: Any) -> Any:
                return (predicted - actual) ** 2

        learner = trained(linear_model(backend, start()), batch_on(backend, linear_tasks()))
        learner.Options.LossFunction = PerExample()
        with (
            untouched(learner),
            pytest.raises(ArgumentException, match=r"PerExample\.formula must return one floating scalar"),
        ):
            learner.MetaTrain(batch_on(backend, linear_tasks()))

    def test_a_loader(self) -> None:
        class Dry(SinusoidLoader[Any]):
            def GetTaskBatch(self, n: int) -> Any:
                raise EOFError("no more tasks")

        backend = get_backend("numpy")
        learner = iMAMLAlgorithm(
            iMAMLOptions(FunctionModel(lambda p, x: x * p["w"], {"w": np.ones(1)}), DataLoader=Dry(seed=0))
        )
        assert backend.owns(learner.BaseModel.GetParameters())
        with untouched(learner), pytest.raises(EOFError):
            learner.MetaTrainStep(2)
        with untouched(learner), pytest.raises(EOFError):
            learner.Train()

    def test_a_failed_step_of_a_run_is_not_counted(self) -> None:
        network = TanhNetwork(1, 3)
        options = iMAMLOptions(
            network.model(get_backend("numpy"), network.start()), DataLoader=SinusoidLoader(seed=0, dtype=np.float64)
        )
        learner = iMAMLAlgorithm(options)
        learner.MetaTrainStep(2)
        learner.Options.InnerLearningRate = 1e200
        before = copy.deepcopy(bits(learner.BaseModel.GetParameters()))
        with pytest.raises(InvalidOperationException):
            learner.MetaTrainStep(2)
        assert learner.CurrentIteration == 1
        assert bits(learner.BaseModel.GetParameters()) == before


def test_numpy_set_to_raise_does_not_get_in_the_way() -> None:
    """Overflow is told with its task, whatever NumPy was told to do about it."""
    backend = get_backend("numpy")
    learner = trained(
        linear_model(backend, start()), batch_on(backend, linear_tasks()), MetaOptimizer=AdamOptimizer(0.1)
    )
    learner.Options.InnerLearningRate = 1e160
    with np.errstate(all="raise"), untouched(learner), pytest.raises(InvalidOperationException, match="is not finite"):
        learner.MetaTrain(batch_on(backend, linear_tasks()))
    learner.Options.InnerLearningRate, learner.Options.LambdaRegularization = 0.1, 1e308
    with np.errstate(all="raise"), untouched(learner), pytest.raises(InvalidOperationException, match="is not finite"):
        learner.MetaTrain(batch_on(backend, linear_tasks()))


class TestLargeNumbers:
    """What fits the dtype only by itself is no error, and no warning of NumPy either."""

    @staticmethod
    def _learner(dtype: Any, size: float, tasks: int, **options: Any) -> tuple[Any, TaskBatch[Any, Any, Any]]:
        """Return a learner and tasks of this query loss, whose gradient has the same size in each of two places."""

        class Linear(MeanSquaredErrorLoss[Any]):
            def formula(self, predicted: Any, actual: Any) -> Any:
                return (predicted * actual).sum()

        model = FunctionModel(lambda p, x: x * p["w"], {"w": np.array([1, 0], dtype)}, loss=Linear(), dtype=dtype)
        one = np.ones((1, 2), dtype)
        batch = [
            MetaLearningTask(SupportSetX=one, SupportSetY=0 * one, QuerySetX=one, QuerySetY=one * dtype(size))
            for _ in range(tasks)
        ]
        return MAMLAlgorithm(MAMLOptions(model, MetaOptimizer=SGDOptimizer(1e-300), **options)), TaskBatch(batch)

    def test_the_mean_of_losses_whose_sum_overflows(self) -> None:
        learner, batch = self._learner(np.float64, 8e307, 3)
        with np.errstate(all="raise"):
            assert learner.Evaluate(batch) == pytest.approx(8e307)
        losses = np.full(3, 8e307)
        assert MetaEvaluationResult(np.ones(3), losses, timedelta(0)).LossStats.Mean == pytest.approx(8e307)

    def test_a_norm_beyond_the_dtype_is_reported_as_infinite(self) -> None:
        learner, batch = self._learner(np.float32, 3e38, 1, GradientClipThreshold=None)

        class Same(SinusoidLoader[Any]):
            def GetTaskBatch(self, numTasks: int) -> Any:
                return batch

        learner.Options.DataLoader = Same(seed=0)
        with np.errstate(all="raise"):
            result = learner.MetaTrainStep(1)
        assert result.MetaLoss == np.float32(3e38)
        assert result.AdditionalMetrics["MetaGradientNorm"] == np.inf
        assert learner.CurrentIteration == 1
