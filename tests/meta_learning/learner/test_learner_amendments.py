"""The amendments to the contract, read against AiDotNet's source, as far as they concern learners and models."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imaml_reference import LinearTask, batch_on, descent, linear_model, linear_tasks, start
from numpy.typing import NDArray
from plain_models import BareModel
from samplers import ListedSampler
from saved_learners import learner_on
from tanh_network import TanhNetwork

from aidotnet_py import (
    AdamOptimizer,
    ANILAlgorithm,
    ArgumentException,
    ArgumentNullException,
    CrossEntropyLoss,
    FunctionModel,
    ICloneable,
    IFullModel,
    InvalidOperationException,
    MAMLAlgorithm,
    MAMLOptions,
    MeanSquaredErrorLoss,
    MetaLearningTask,
    MetaSGDAlgorithm,
    MetaSGDOptions,
    NeuralNetworkModel,
    SGDOptimizer,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.backends import get_backend
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.generator_state import new_generator, unsigned_seed
from aidotnet_py.nn import mlp
from aidotnet_py.testing.learner_state import bits, state_of, untouched

NUMPY = get_backend("numpy")
K, RATE = 3, 0.1


class ListLoader(SinusoidLoader[Any]):
    """Gives whatever a function makes of the tasks of a batch."""

    def __init__(self, change: Callable[[list[Any]], Any], **options: Any) -> None:
        super().__init__(4, 6, seed=0, dtype=np.float64, **options)
        self._change = change

    def GetTaskBatch(self, numTasks: int) -> Any:
        return self._change(list(super().GetTaskBatch(numTasks)))


class TestBatchesOfLoaders:
    """1. GetTaskBatch may give a list of tasks or a TaskBatch; learners take both. An error in it names the loader."""

    @pytest.mark.parametrize("change", [list, tuple, TaskBatch])
    def test_lists_and_batches_give_the_same_steps(self, change: Callable[[list[Any]], Any]) -> None:
        learners = [
            learner_on(DataLoader=loader, RandomSeed=1) for loader in (ListLoader(change), ListLoader(TaskBatch))
        ]
        steps = [bits([one.MetaTrainStep(2).MetaLoss, one.Evaluate(3).PerTaskLosses]) for one in learners]
        assert steps[0] == steps[1]
        assert state_of(learners[0]) == state_of(learners[1])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda tasks: None, "tasks must be a sequence of tasks, got None"),
            (lambda tasks: [], "tasks must hold at least one task, got none"),
            (lambda tasks: [tasks[0], "task"], r"tasks\[1\] must be an IMetaLearningTask, got a str"),
            (
                lambda tasks: [tasks[0], MetaLearningTask(SupportSetX=np.ones((2, 1)), SupportSetY=np.ones((2, 1)))],
                r"tasks\[1\] .* must have NumWays",
            ),
        ],
    )
    @pytest.mark.parametrize("call", [lambda one: one.MetaTrainStep(2), lambda one: one.Evaluate(2)])
    def test_an_error_names_the_loader(self, change: Any, message: str, call: Callable[[Any], Any]) -> None:
        wanted = f"^GetTaskBatch of ListLoader must return a TaskBatch or a list of tasks: .*{message}"
        with pytest.raises(ArgumentException, match=wanted):
            call(learner_on(DataLoader=ListLoader(change)))

    @pytest.mark.parametrize(("change", "came"), [(lambda tasks: tasks[:2], 2), (lambda tasks: [*tasks, tasks[0]], 4)])
    def test_must_have_as_many_tasks_as_were_asked_for(self, change: Any, came: int) -> None:
        class Odd(ListedSampler):
            def SampleBatch(self, batchSize: int) -> Any:
                return TaskBatch(ListLoader(change).GetTaskBatch(batchSize))

        learner = learner_on(DataLoader=ListLoader(change))
        with (
            untouched(learner),
            pytest.raises(ArgumentException, match=f"^GetTaskBatch .* return 3 tasks, got {came}$"),
        ):
            learner.MetaTrainStep(3)
        with pytest.raises(ArgumentException, match=f"^GetTaskBatch of ListLoader must return 3 tasks, got {came}$"):
            learner.Evaluate(3)
        with untouched(learner), pytest.raises(ArgumentException, match=f"^SampleBatch .* return 3 tasks, got {came}$"):
            learner.MetaTrainStep(Odd([]), 3)

    def test_of_samplers_are_batches(self) -> None:
        class OfLists(ListedSampler):
            def SampleBatch(self, batchSize: int) -> Any:
                return [self.SampleOne().Task for _ in range(batchSize)]

        learner = learner_on()
        message = "^SampleBatch of OfLists must return a TaskBatch, got "
        with untouched(learner), pytest.raises(ArgumentException, match=message):
            learner.MetaTrainStep(OfLists(linear_tasks(3)), 3)


class TestFrequencies:
    """2. EvaluationFrequency = 0 switches evaluation off; CheckpointFrequency = 0 is valid without checkpoints."""

    def test_of_zero(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        never, often = (
            learner_on(NumMetaIterations=3, EvaluationTasks=1, EvaluationFrequency=n, CheckpointFrequency=0)
            for n in (0, 1)
        )
        assert dict(never.Train().AdditionalMetrics) == {}
        assert len(often.Train().AdditionalMetrics) == 6
        assert list(tmp_path.iterdir()) == []


NULLS: dict[str, Callable[[Any], Any]] = {
    "taskBatch": lambda one: one.Evaluate(None),
    "taskBatch of MetaTrain": lambda one: one.MetaTrain(None),
    "task": lambda one: one.Adapt(None),
    "sampler": lambda one: one.MetaTrainStep(None, 2),
    "sampler by name": lambda one: one.MetaTrainStep(sampler=None, batchSize=2),
    "sampler of Train": lambda one: one.Train(None),
    "model": lambda one: one.SetMetaModel(None),
    "input": lambda one: one.Predict(None),
    "input of Train": lambda one: one.Train(None, np.ones((2, 1))),
    "expectedOutput": lambda one: one.Train(np.ones((2, 1)), None),
    "parameters": lambda one: one.SetParameters(None),
    "parameters of WithParameters": lambda one: one.WithParameters(None),
    "data": lambda one: one.Deserialize(None),
    "filePath": lambda one: one.LoadModel(None),
    "filePath of Load": lambda one: one.Load(None),
    "parameters of the model": lambda one: one.BaseModel.SetParameters(None),
    "input of the model": lambda one: one.BaseModel.Predict(None),
    "target of the model": lambda one: one.BaseModel.ComputeGradients(np.ones((2, 1)), None),
    "data of the model": lambda one: one.BaseModel.Deserialize(None),
    "gradient": lambda one: AdamOptimizer(0.1).UpdateParameters(np.ones(2), None),  # type: ignore[arg-type]
    "parameters of the optimizer": lambda one: SGDOptimizer(0.1).UpdateParameters(None, np.ones(2)),  # type: ignore[arg-type]
    "actual": lambda one: MeanSquaredErrorLoss[Any]().CalculateLoss(np.ones((2, 1)), None),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", NULLS)
def test_null_arguments(name: str) -> None:
    """3. null arguments are ArgumentNullException everywhere."""
    with pytest.raises(ArgumentNullException, match=rf"^{name.split(' ')[0]} must be .*, got None$"):
        NULLS[name](learner_on())


def linear_learner(**options: Any) -> MAMLAlgorithm[Any, Any, Any]:
    settings = {"InnerLearningRate": RATE, "AdaptationSteps": K, "MetaBatchSize": 2, **options}
    return MAMLAlgorithm(MAMLOptions(linear_model(NUMPY, start()), **settings))


class TestSamplers:
    """6. MetaTrainStep(sampler, n) leaves UpdateWithFeedback to its caller; Train(sampler) calls it."""

    def test_a_step_tells_the_sampler_nothing(self) -> None:
        sampler = ListedSampler(batch_on(NUMPY, linear_tasks(4)))
        linear_learner().MetaTrainStep(sampler, 3)
        assert sampler.feedback == []

    @pytest.mark.parametrize("named", [False, True])
    def test_train_tells_the_sampler_the_loss_on_each_episode(self, named: bool) -> None:
        tasks = linear_tasks(4)
        sampler = ListedSampler(batch_on(NUMPY, tasks))
        learner = linear_learner(NumMetaIterations=2, MetaOptimizer=SGDOptimizer(1e-300))
        result = learner.Train(sampler=sampler) if named else learner.Train(sampler)
        assert [episodes for episodes, _ in sampler.feedback] == [sampler.episodes[:2], sampler.episodes[2:]]
        # The parameters do not move, so that the loss on a task is the closed form at θ.
        expected = [t.query.loss(descent(start(), t.support, K, RATE)) for t in tasks]
        told = [loss for _, losses in sampler.feedback for loss in losses]
        np.testing.assert_allclose(told, expected, rtol=1e-12)
        assert all(type(loss) is float for loss in told)
        np.testing.assert_allclose(result.LossHistory, [np.mean(expected[:2]), np.mean(expected[2:])], rtol=1e-12)
        assert learner.CurrentIteration == 2

    def test_steps_without_a_record_of_their_own_are_told_anew(self) -> None:
        class Counting(MAMLAlgorithm[Any, Any, Any]):
            count = 0.0

            def MetaTrain(self, taskBatch: Any) -> Any:
                self.count += 1
                return np.float64(self.count)

        sampler = ListedSampler(batch_on(NUMPY, linear_tasks(4)))
        Counting(linear_learner(NumMetaIterations=2).Options).Train(sampler)  # type: ignore[arg-type]
        assert [losses for _, losses in sampler.feedback] == [[1.0, 1.0], [2.0, 2.0]]

    def test_what_a_sampler_picks_must_be_an_episode(self) -> None:
        class OfTasks(ListedSampler):
            def SampleOne(self) -> Any:
                return super().SampleOne().Task

        sampler = OfTasks(batch_on(NUMPY, linear_tasks(2)))
        message = r"^SampleOne of OfTasks must return an IEpisode, got a MetaLearningTask, which lacks Difficulty, "
        with pytest.raises(ArgumentException, match=message):
            linear_learner().Train(sampler)

    def test_train_refuses_what_it_would_not_use(self) -> None:
        learner: Any = linear_learner()
        x, samplers = np.ones((2, 1)), [ListedSampler(batch_on(NUMPY, linear_tasks(4))) for _ in range(2)]
        calls: dict[str, Callable[[], Any]] = {
            "sampler must be left out if one is given by position": lambda: learner.Train(
                samplers[0], sampler=samplers[1]
            ),
            "sampler must be left out if expectedOutput is given": lambda: learner.Train(x, x, sampler=samplers[0]),
            "resume must be left out if expectedOutput is given": lambda: learner.Train(x, x, resume="folder"),
            "callbacks must be left out if expectedOutput is given": lambda: learner.Train(x, x, callbacks=5),
        }
        for message, call in calls.items():
            with untouched(learner), pytest.raises(ArgumentException, match=f"^{message}, got both$"):
                call()

    def test_train_evaluates_on_the_loader_alone(self) -> None:
        sampler = ListedSampler(SinusoidLoader(4, 6, seed=1, dtype=np.float64).GetTaskBatch(4))
        options = {"NumMetaIterations": 2, "EvaluationFrequency": 1, "EvaluationTasks": 2}
        assert len(learner_on(**options).Train(sampler).AdditionalMetrics) == 4
        assert len(learner_on(DataLoader=None, **options).Train(sampler).AdditionalMetrics) == 0
        with pytest.raises(InvalidOperationException, match="DataLoader"):
            learner_on(DataLoader=None).Train()


class TestFiles:
    """7. Load, LoadModel of a missing file: FileNotFoundError; a failed write keeps its OSError."""

    @pytest.mark.parametrize("call", ["Load", "LoadModel"])
    def test_that_are_missing(self, call: str, tmp_path: Path) -> None:
        path = tmp_path / "none"
        for one in (learner_on(), *([learner_on().BaseModel] if call == "LoadModel" else [])):
            with pytest.raises(FileNotFoundError, match="filePath must be an existing file") as error:
                getattr(one, call)(path)
            assert error.value.filename == str(path)

    @pytest.mark.parametrize("call", ["Save", "SaveModel"])
    def test_that_cannot_be_written(self, call: str, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="filePath must lie in an existing folder"):
            getattr(learner_on(), call)(tmp_path / "none" / "file")


class TestNegativeSeeds:
    """8. A negative RandomSeed is valid."""

    def test_are_seeds_of_their_own(self) -> None:
        steps = {seed: bits(learner_on(RandomSeed=seed).MetaTrainStep(2).MetaLoss) for seed in (-5, 5, -6)}
        assert len(set(steps.values())) == 3
        assert bits(learner_on(RandomSeed=-5).MetaTrainStep(2).MetaLoss) == steps[-5]

    def test_count_as_their_remainders(self) -> None:
        assert [unsigned_seed(seed) for seed in (-1, -(2**32), 0, 7, 2**40)] == [2**32 - 1, 0, 0, 7, 2**40]
        assert new_generator(unsigned_seed(-1)).random() == np.random.Generator(np.random.PCG64(2**32 - 1)).random()

    def test_serve_preconditioners(self) -> None:
        assert np.isfinite(learner_on(RandomSeed=-5, PreconditionerProbes=2).MetaTrainStep(2).MetaLoss)


class TestLearnerAsModel:
    """10. a learner is also a model: all of its meta-model."""

    def test_is_one(self) -> None:
        learner = learner_on()
        for one in (learner, learner.BaseModel):
            assert isinstance(one, IFullModel)
            assert isinstance(one, ICloneable)

    def test_has_what_its_meta_model_has(self) -> None:
        learner = learner_on()
        model, x = learner.BaseModel, np.linspace(-1, 1, 5)[:, None]
        assert learner.GetOptions() is learner.Options
        assert learner.DefaultLossFunction is model.DefaultLossFunction
        assert learner.ParameterCount == model.ParameterCount == 19
        assert learner.GetModelMetadata() is model.GetModelMetadata()
        assert learner.Serialize() == model.Serialize()
        np.testing.assert_array_equal(learner.GetParameters(), model.GetParameters())
        np.testing.assert_array_equal(learner.Predict(x), model.Predict(x))
        learner.Options.LossFunction = loss = MeanSquaredErrorLoss()
        assert learner.DefaultLossFunction is loss

    def test_changes_its_meta_model(self, tmp_path: Path) -> None:
        learner, other = learner_on(), learner_on(seed=3)
        vector = np.arange(19.0)
        learner.SetParameters(vector)
        np.testing.assert_array_equal(learner.BaseModel.GetParameters(), vector)
        learner.Deserialize(other.Serialize())
        np.testing.assert_array_equal(learner.GetParameters(), other.GetParameters())
        learner.SaveModel(tmp_path / "model")
        other.SetParameters(vector)
        other.LoadModel(tmp_path / "model")
        np.testing.assert_array_equal(learner.GetParameters(), other.GetParameters())

    def test_trains_its_meta_model_on_a_set_of_examples(self) -> None:
        learner, x = learner_on(), np.linspace(-1, 1, 5)[:, None]
        alone: Any = learner.BaseModel.Clone()
        assert learner.Train(x, np.sin(x)) is None
        alone.Train(x, np.sin(x))
        learner.Train(input=x, expectedOutput=np.sin(x))
        alone.Train(x, np.sin(x))
        np.testing.assert_array_equal(learner.GetParameters(), alone.GetParameters())
        assert learner.CurrentIteration == 0

    @pytest.mark.parametrize("copy", ["DeepCopy", "Clone"])
    @pytest.mark.parametrize("optimizer", [None, AdamOptimizer(0.01)])
    def test_a_copy_is_independent_and_goes_on_with_the_same_bits(self, copy: str, optimizer: Any) -> None:
        learner = learner_on(MetaOptimizer=optimizer, RandomSeed=2)
        learner.MetaTrainStep(2)
        other = getattr(learner, copy)()
        assert type(other) is iMAMLAlgorithm
        assert other.Options is not learner.Options
        assert other.Options.DataLoader is learner.Options.DataLoader
        assert state_of(other) == state_of(learner)
        before = bits(learner.GetParameters())
        losses = [bits(other.MetaTrainStep(2).MetaLoss) for _ in range(3)]
        assert bits(learner.GetParameters()) == before
        assert learner.CurrentIteration == 1
        assert [bits(learner.MetaTrainStep(2).MetaLoss) for _ in range(3)] == losses
        assert bits(learner.GetParameters()) == bits(other.GetParameters())

    def test_a_copy_shares_what_cannot_be_copied(self) -> None:
        class Guarded(SinusoidLoader):
            def __init__(self, seed: int) -> None:
                super().__init__(seed=seed, dtype=np.float64)
                self.guard = threading.Lock()

        class Falling:
            def __init__(self) -> None:
                self.guard = threading.Lock()

            def __call__(self, step: int) -> float:
                return 1 / (1 + step)

        model = NeuralNetworkModel(mlp(4, 1), input_shape=(1,), dtype=np.float64, seed=0)
        options = MAMLOptions(model, DataLoader=Guarded(0), ValidationLoader=Guarded(1), NumMetaIterations=2)
        options.OuterLearningRateSchedule, options.EvaluationTasks = Falling(), 2
        learner: Any = MAMLAlgorithm(options)
        other = learner.Clone()
        for name in ("DataLoader", "ValidationLoader", "OuterLearningRateSchedule"):
            assert getattr(other.Options, name) is getattr(options, name)
        results = [each.Train() for each in (other, learner)]
        assert results[0].LossHistory.tobytes() == results[1].LossHistory.tobytes()
        assert learner._validate().PerTaskLosses.tobytes() == other._validate().PerTaskLosses.tobytes()

    def test_a_copy_keeps_what_is_learned_beside_the_parameters(self) -> None:
        options = MetaSGDOptions(linear_model(NUMPY, start()), InnerLearningRate=RATE, OuterLearningRate=0.1)
        learner = MetaSGDAlgorithm(options)
        learner.MetaTrain(batch_on(NUMPY, linear_tasks()))
        other = learner.DeepCopy()
        rates = learner.LearningRates
        np.testing.assert_array_equal(other.LearningRates, rates)
        other.MetaTrain(batch_on(NUMPY, linear_tasks()))
        np.testing.assert_array_equal(learner.LearningRates, rates)
        assert not np.array_equal(other.LearningRates, rates)

    def test_with_parameters_is_another_learner(self) -> None:
        learner = learner_on()
        before, vector = learner.GetParameters(), np.arange(19.0)
        other = learner.WithParameters(vector)
        np.testing.assert_array_equal(other.GetParameters(), vector)
        np.testing.assert_array_equal(learner.GetParameters(), before)

    def test_a_model_of_ones_own_needs_clone_alone(self) -> None:
        network = TanhNetwork(3, False)
        options = MAMLOptions(BareModel(network, network.start(), NUMPY), UseFirstOrder=True)
        learner = MAMLAlgorithm(options)
        other = learner.DeepCopy()
        other.SetParameters(np.zeros(learner.ParameterCount))
        np.testing.assert_array_equal(learner.GetParameters(), network.start())

    @pytest.mark.parametrize(
        "model", [linear_model(NUMPY, start()), NeuralNetworkModel(mlp(4, 1), input_shape=(1,), seed=0)]
    )
    def test_models_have_deep_copy_too(self, model: Any) -> None:
        other = model.DeepCopy()
        assert type(other) is type(model)
        before = model.GetParameters()
        other.SetParameters(np.zeros_like(before))
        np.testing.assert_array_equal(model.GetParameters(), before)


class SecondOrder(FunctionModel[Any, Any, Any]):
    """y = [x, 1] φ, with MAML's gradient by dense linear algebra: Π (I − αA_k) (A_q φ_K − b_q)."""

    calls: list[Any]

    def __init__(self) -> None:
        super().__init__(lambda p, x: np.matmul(x, p["w"]) + p["b"], {"w": np.zeros((3, 1)), "b": np.zeros(1)})
        self.calls = []

    def ComputeSecondOrderGradients(
        self, adaptationSteps: Any, queryInput: Any, queryTarget: Any, lossFunction: Any, innerLearningRate: float
    ) -> NDArray[np.float64]:
        self.calls.append((adaptationSteps, lossFunction, innerLearningRate))
        phi, steps = self.GetParameters(), []
        for x, y in adaptationSteps:
            a, b = normal_equations(x, y)
            phi = phi - innerLearningRate * (a @ phi - b)
            steps.append(np.eye(4) - innerLearningRate * a)
        a, b = normal_equations(queryInput, queryTarget)
        v = a @ phi - b
        for step in reversed(steps):
            v = step @ v
        return v


def normal_equations(x: Any, y: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    z = np.hstack([x, np.ones((len(x), 1))])
    return 2 * z.T @ z / len(x), 2 * z.T @ y[:, 0] / len(x)


class Doubled(SecondOrder):
    """Gives twice the gradient, to be told from what the engine computes."""

    def ComputeSecondOrderGradients(self, *arguments: Any) -> Any:
        return 2 * super().ComputeSecondOrderGradients(*arguments)


def tasks_of(*, batches: int = 1) -> TaskBatch[Any, Any, Any]:
    return TaskBatch([in_parts(task, batches) for task in linear_tasks(3)])


def in_parts(task: LinearTask, count: int) -> MetaLearningTask[Any, Any, Any]:
    x, y = (np.array_split(v, count) for v in (task.support.x, task.support.y))
    one = count == 1
    return MetaLearningTask(
        SupportSetX=x[0] if one else x,
        SupportSetY=y[0] if one else y,
        QuerySetX=task.query.x,
        QuerySetY=task.query.y,
    )


def moved(model: Any, batch: Any, algorithm: Any = MAMLAlgorithm, **options: Any) -> Any:
    """How far one step of gradient descent at rate 1 moves the parameters: minus the mean meta-gradient."""
    settings = {"InnerLearningRate": RATE, "AdaptationSteps": K, "GradientClipThreshold": None, **options}
    before = model.GetParameters()
    kind = MAMLOptions if algorithm is MAMLAlgorithm else algorithm._options_type
    loss = algorithm(kind(model, MetaOptimizer=SGDOptimizer(1.0), **settings)).MetaTrain(batch)
    return loss, model.GetParameters() - before


class TestSecondOrder:
    """11. ComputeSecondOrderGradients is asked where a model has it."""

    @pytest.mark.parametrize("batches", [1, 2])
    def test_it_is_the_step(self, batches: int) -> None:
        plain = FunctionModel(lambda p, x: x @ p["w"] + p["b"], {"w": np.zeros((3, 1)), "b": np.zeros(1)})
        loss, exact = moved(plain, tasks_of(batches=batches))
        own_loss, own = moved(SecondOrder(), tasks_of(batches=batches))
        np.testing.assert_allclose(own, exact, rtol=1e-10)
        np.testing.assert_allclose(own_loss, loss, rtol=1e-12)
        np.testing.assert_allclose(moved(Doubled(), tasks_of(batches=batches))[1], 2 * exact, rtol=1e-10)

    def test_it_gets_the_steps_the_loss_and_the_rate(self) -> None:
        model, loss, batch = SecondOrder(), MeanSquaredErrorLoss[Any](), tasks_of()
        moved(model, batch, LossFunction=loss)
        assert len(model.calls) == 3
        for (steps, given, rate), task in zip(model.calls, batch, strict=True):
            assert given is loss
            assert rate == RATE
            assert len(steps) == K
            assert all(x is task.SupportInput and y is task.SupportOutput for x, y in steps)

    @pytest.mark.parametrize(
        "options",
        [
            {"UseFirstOrder": True},
            {"InnerOptimizer": SGDOptimizer(RATE, momentum=0.5)},
            {"InnerObjective": "proximal"},
        ],
        ids=lambda o: next(iter(o)),
    )
    def test_other_steps_are_the_engines(self, options: dict[str, Any]) -> None:
        model = SecondOrder()
        moved(model, tasks_of(), **options)
        assert model.calls == []

    def test_nor_is_it_asked_for_some_of_the_parameters(self) -> None:
        model = SecondOrder()
        moved(model, tasks_of(), ANILAlgorithm, AdaptedLayers=["b"])
        assert model.calls == []

    def test_another_result_is_refused(self) -> None:
        class Wrong(SecondOrder):
            def ComputeSecondOrderGradients(self, *arguments: Any) -> Any:
                return np.ones(3)

        message = r"^ComputeSecondOrderGradients of Wrong must return float64\(4,\) .*, got float64\(3,\)"
        with pytest.raises(ArgumentException, match=message):
            moved(Wrong(), tasks_of())


class Table:
    """What a pandas DataFrame shows of itself to a check: a shape, and the method that makes an array of it."""

    def __init__(self, values: Any) -> None:
        self.values, self.shape = values, values.shape

    def to_numpy(self) -> Any:
        return self.values

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Any:
        return iter(self.values)


class TestMessages:
    def test_names_are_those_typed(self) -> None:
        x, learner = np.ones((4, 3)), linear_learner()
        task = MetaLearningTask(SupportSetX=x, SupportSetY=np.ones(4), QuerySetX=x, QuerySetY=np.ones((4, 1)))
        with pytest.raises(ArgumentException, match=r"^SupportSetY must have the predictions' shape \(4, 1\)"):
            learner.Adapt(task)
        task = MetaLearningTask(SupportSetX=x, SupportSetY=np.ones((4, 1)), QuerySetX=x, QuerySetY=np.ones(4))
        with pytest.raises(ArgumentException, match=r"^QuerySetY must have the predictions' shape \(4, 1\)"):
            learner.MetaTrain(TaskBatch([task]))

    def test_a_table_is_told_to_convert_itself(self) -> None:
        x, learner = np.ones((4, 3)), linear_learner()
        with pytest.raises(ArgumentException, match=r"^SupportSetX must be an array.*; use SupportSetX\.to_numpy\(\)$"):
            learner.Adapt(MetaLearningTask(SupportSetX=Table(x), SupportSetY=np.ones((4, 1))))
        with pytest.raises(ArgumentException, match=r"^input must be an array .*; use input\.to_numpy\(\)$"):
            learner.Predict(Table(x))
        with pytest.raises(ArgumentException, match=r"^actual must be an array, .*; use actual\.to_numpy\(\)$"):
            MeanSquaredErrorLoss[Any]().CalculateLoss(np.ones((4, 1)), Table(x))

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (
                np.array(["cat", "dog"] * 2),
                r"must be class indices, .* got dtype <U3; number the classes from 0",
            ),
            (np.array([0.0, 1.0] * 2), "must be class indices, integers from 0 to 1, got dtype float64"),
            (np.array([1, 2] * 2), "must hold labels from 0 to 1 for .*, got 1 to 2"),
        ],
    )
    def test_of_labels_say_which_are_wanted(self, labels: Any, message: str) -> None:
        model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((3, 2))}, CrossEntropyLoss())
        learner = iMAMLAlgorithm(iMAMLOptions(model))
        with pytest.raises(ArgumentException, match=f"^SupportSetY {message}"):
            learner.Adapt(MetaLearningTask(SupportSetX=np.ones((4, 3)), SupportSetY=labels))
