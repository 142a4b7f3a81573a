"""Every call of the contract: what it returns, what it changes, and what it leaves alone."""

from __future__ import annotations

import errno
import io
import math
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from imaml_reference import LeastSquares, batch_on, descent, linear_model, linear_tasks, start
from samplers import ListedSampler
from saved_learners import learner_on
from tanh_network import TanhNetwork, batch_of
from task_batches import Unchecked

from aidotnet_py import (
    AdamOptimizer,
    ANILAlgorithm,
    ANILOptions,
    ArgumentException,
    FunctionModel,
    IMetaLearner,
    InvalidOperationException,
    MAMLAlgorithm,
    MAMLOptions,
    MetaAdaptationResult,
    MetaEvaluationResult,
    MetaLearnerBase,
    MetaLearningAlgorithmType,
    MetaLearningTask,
    MetaSGDAlgorithm,
    MetaSGDOptions,
    MetaTrainingResult,
    NewtonCGMinimizer,
    ReptileAlgorithm,
    ReptileOptions,
    SGDOptimizer,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.losses import LossFunctionBase
from aidotnet_py.meta_learning.learner.tasks import Tasks
from aidotnet_py.testing.learner_state import bits, state_of, untouched

CLASSIFIER = TanhNetwork(outputs=3, classify=True)


def linear_learner(backend: Backend, **options: Any) -> iMAMLAlgorithm[Any, Any, Any]:
    return iMAMLAlgorithm(iMAMLOptions(linear_model(backend, start()), **options))


class TestAdapt:
    def test_the_inner_steps_and_nothing_else(self, backend: Backend) -> None:
        task = linear_tasks(1)[0]
        learner = linear_learner(backend, AdaptationSteps=7, InnerLearningRate=0.15)
        with untouched(learner):
            adapted = learner.Adapt(task.on(backend))
        assert isinstance(adapted, FunctionModel)
        assert adapted is not learner.GetMetaModel()
        expected = descent(start(), task.support, 7, 0.15)
        np.testing.assert_allclose(backend.to_numpy(adapted.GetParameters()), expected, rtol=1e-12)
        x = backend.asarray(task.query.x)
        np.testing.assert_allclose(backend.to_numpy(adapted.Predict(x)), (task.query.z @ expected)[:, None], rtol=1e-12)

    def test_with_the_proximal_term(self, backend: Backend) -> None:
        task = linear_tasks(1)[0]
        learner = iMAMLAlgorithm(
            iMAMLOptions.FromPaper(linear_model(backend, start()), Lambda=3.0, InnerLearningRate=0.1)
        )
        adapted: Any = learner.Adapt(task.on(backend))
        expected = descent(start(), task.support, 10, 0.1, 3.0)
        np.testing.assert_allclose(backend.to_numpy(adapted.GetParameters()), expected, rtol=1e-12)

    def test_query_data_is_never_read(self, backend: Backend) -> None:
        class Private(MetaLearningTask[Any, Any, Any]):
            @property
            def QueryInput(self) -> Any:
                raise AssertionError("Adapt read the query set")

        data = linear_tasks(1)[0].support
        Private.Validate = lambda self: None  # type: ignore[method-assign]
        task = Private(SupportSetX=backend.asarray(data.x), SupportSetY=backend.asarray(data.y))
        assert linear_learner(backend).Adapt(task) is not None

    def test_the_result_is_the_callers_own(self, backend: Backend) -> None:
        learner, batch = linear_learner(backend), batch_on(backend, linear_tasks())
        adapted: Any = learner.Adapt(batch[0])
        before = bits(adapted.GetParameters())
        learner.MetaTrain(batch)
        learner.Adapt(batch[1])
        assert bits(adapted.GetParameters()) == before
        with untouched(learner):
            adapted.SetParameters(adapted.GetParameters() * 2.0)
            adapted.Train(batch[0].SupportInput, batch[0].SupportOutput)

    def test_a_task_of_another_size_than_in_training(self, backend: Backend) -> None:
        learner = linear_learner(backend, InnerLearningRate=0.1)
        learner.MetaTrain(batch_on(backend, linear_tasks()))
        theta = backend.to_numpy(learner.BaseModel.GetParameters())
        x = np.random.default_rng(1).standard_normal((2, 3))
        support = LeastSquares(x, x[:, :1])
        task = MetaLearningTask(SupportSetX=backend.asarray(support.x), SupportSetY=backend.asarray(support.y))
        adapted: Any = learner.Adapt(task)
        np.testing.assert_allclose(
            backend.to_numpy(adapted.GetParameters()), descent(theta, support, 10, 0.1), rtol=1e-11
        )


class TestAdaptAndEvaluate:
    def test_of_a_regression(self, backend: Backend) -> None:
        task = linear_tasks(1)[0]
        learner = linear_learner(backend, AdaptationSteps=4, InnerLearningRate=0.15)
        with untouched(learner):
            result = learner.AdaptAndEvaluate(task.on(backend))
        points = [descent(start(), task.support, k, 0.15) for k in range(5)]
        assert isinstance(result, MetaAdaptationResult)
        np.testing.assert_allclose(result.PerStepLosses, [task.support.loss(p) for p in points], rtol=1e-11)
        np.testing.assert_allclose(result.QueryLoss, task.query.loss(points[-1]), rtol=1e-11)
        assert result.SupportLoss == result.PerStepLosses[-1]
        assert math.isnan(result.QueryAccuracy)
        assert math.isnan(result.SupportAccuracy)
        assert result.AdaptationSteps == 4
        assert result.AdaptationTimeMs > 0
        assert isinstance(result.QueryLoss, np.float64)
        assert result.DidConverge(float(result.PerStepLosses[0] - result.PerStepLosses[-1]))
        assert result.step_parameters is None

    def test_with_the_parameters_after_each_step(self, backend: Backend) -> None:
        task = linear_tasks(1)[0]
        learner = linear_learner(backend, AdaptationSteps=4, InnerLearningRate=0.15)
        with untouched(learner):
            result = learner.AdaptAndEvaluate(task.on(backend), keep_steps=True)
        expected = [descent(start(), task.support, k, 0.15) for k in range(1, 5)]
        assert isinstance(result.step_parameters, np.ndarray)
        np.testing.assert_allclose(result.step_parameters, expected, rtol=1e-11)
        learner.AdaptAndEvaluate(linear_tasks(2)[1].on(backend), keep_steps=True)
        np.testing.assert_allclose(result.step_parameters, expected, rtol=1e-11, err_msg="the result is the caller's")
        with pytest.raises(ArgumentException, match="keep_steps must be True or False, got 3"):
            learner.AdaptAndEvaluate(task.on(backend), keep_steps=3)  # type: ignore[arg-type]

    def test_with_the_parameters_that_a_solver_returned(self, backend: Backend) -> None:
        task = linear_tasks(1)[0]
        options = iMAMLOptions.FromPaper(linear_model(backend, start()), Lambda=3.0, InnerOptimizer=NewtonCGMinimizer())
        learner = iMAMLAlgorithm(options)
        adapted: Any = learner.Adapt(task.on(backend))
        kept = learner.AdaptAndEvaluate(task.on(backend), keep_steps=True).step_parameters
        np.testing.assert_allclose(kept, [backend.to_numpy(adapted.GetParameters())], rtol=1e-11)

    def test_of_a_classifier(self, backend: Backend) -> None:
        phi, (x, y, query_x, query_y) = CLASSIFIER.start(), CLASSIFIER.sets(1)[0]
        learner = iMAMLAlgorithm(iMAMLOptions(CLASSIFIER.model(backend, phi), AdaptationSteps=3, InnerLearningRate=0.5))
        result = learner.AdaptAndEvaluate(batch_of(backend, [(x, y, query_x, query_y)])[0])
        for _ in range(3):
            phi = phi - 0.5 * CLASSIFIER.gradient(phi, x, y)
        for accuracy, inputs, labels in (
            (result.SupportAccuracy, x, y),
            (result.QueryAccuracy, query_x, query_y),
        ):
            guessed = np.argmax(CLASSIFIER.predictions(phi, inputs), axis=1)
            np.testing.assert_allclose(accuracy, np.mean(guessed == labels))
        np.testing.assert_allclose(result.QueryLoss, CLASSIFIER.loss(phi, query_x, query_y), rtol=1e-11)

    def test_in_single_precision(self, backend: Backend) -> None:
        task = linear_tasks(1)[0]
        learner = iMAMLAlgorithm(iMAMLOptions(linear_model(backend, start(), np.float32)))
        result = learner.AdaptAndEvaluate(task.on(backend, np.float32))
        for number in (result.QueryLoss, result.SupportLoss, result.QueryAccuracy, result.SupportAccuracy):
            assert isinstance(number, np.float32)
        assert result.PerStepLosses.dtype == np.float32
        assert result.PerStepLosses.shape == (11,)


class TestEvaluate:
    def test_a_batch(self, backend: Backend) -> None:
        tasks, learner = linear_tasks(), linear_learner(backend, InnerLearningRate=0.1)
        with untouched(learner):
            loss = learner.Evaluate(batch_on(backend, tasks))
        expected = np.mean([t.query.loss(descent(start(), t.support, 10, 0.1)) for t in tasks])
        np.testing.assert_allclose(loss, expected, rtol=1e-11)
        assert isinstance(loss, np.float64)
        assert learner.Evaluate(taskBatch=batch_on(backend, tasks)) == loss
        assert learner.MetaTrain(batch_on(backend, tasks)) == loss

    @pytest.mark.numpy_first
    @pytest.mark.parametrize("count", [1, 3, 7, np.int64(4)])
    def test_a_number_of_tasks(self, backend: Backend, count: Any) -> None:
        learner = learner_on(backend, RandomSeed=2)
        parameters = bits(learner.BaseModel.GetParameters())
        result = learner.Evaluate(count)
        assert isinstance(result, MetaEvaluationResult)
        assert result.NumTasks == count
        loader = SinusoidLoader(4, 6, seed=2, dtype=np.float64, backend=backend)
        alone = [learner.AdaptAndEvaluate(loader.GetNextTask()).QueryLoss for _ in range(count)]
        np.testing.assert_allclose(result.PerTaskLosses, alone, rtol=1e-12)
        assert np.isnan(result.PerTaskAccuracies).all()
        assert bits(learner.BaseModel.GetParameters()) == parameters

    def test_by_keyword(self) -> None:
        result = learner_on().Evaluate(numTasks=2)
        assert result.NumTasks == 2


class TestMetaTrainStep:
    def test_from_the_loader(self, backend: Backend) -> None:
        learner, twin = learner_on(backend, RandomSeed=2), learner_on(backend, RandomSeed=2)
        loader = SinusoidLoader(4, 6, seed=2, dtype=np.float64, backend=backend)
        step = learner.MetaTrainStep(3)
        assert step.MetaLoss == twin.MetaTrain(loader.GetTaskBatch(3))
        assert (step.Iteration, learner.CurrentIteration, twin.CurrentIteration) == (1, 1, 0)
        assert step.NumTasks == 3
        assert isinstance(step.MetaLoss, np.float64)
        assert learner.MetaTrainStep(batchSize=np.int64(2)).Iteration == 2

    def test_from_a_sampler(self, backend: Backend) -> None:
        sampler = ListedSampler(SinusoidLoader(4, 6, seed=4, dtype=np.float64, backend=backend).GetTaskBatch(5))
        learner, alone = learner_on(backend), learner_on(backend)
        learner.Options.DataLoader = None
        step = learner.MetaTrainStep(sampler, 3)
        expected = [alone.AdaptAndEvaluate(task).QueryLoss for task in sampler.tasks[:3]]
        np.testing.assert_allclose(step.MetaLoss, np.mean(expected), rtol=1e-12)
        assert learner.MetaTrainStep(sampler=sampler, batchSize=2).NumTasks == 2

    def test_the_accuracy_of_a_classifier(self, backend: Backend) -> None:
        class Loader(SinusoidLoader[Any]):
            def GetTaskBatch(self, n: int) -> Any:
                return batch_of(backend, CLASSIFIER.sets(n))

        options = iMAMLOptions(CLASSIFIER.model(backend, CLASSIFIER.start()), DataLoader=Loader(seed=0))
        learner, alone = iMAMLAlgorithm(options), iMAMLAlgorithm(options)
        expected = [alone.AdaptAndEvaluate(task).QueryAccuracy for task in batch_of(backend, CLASSIFIER.sets(3))]
        step = learner.MetaTrainStep(3)
        np.testing.assert_allclose(step.Accuracy, np.mean(expected))
        assert 0 <= step.Accuracy <= 1


class TestTrain:
    def test_history_evaluations_and_checkpoints(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        learner = learner_on(
            NumMetaIterations=7,
            EvaluationFrequency=3,
            EvaluationTasks=5,
            EnableCheckpointing=True,
            CheckpointFrequency=2,
            RandomSeed=1,
            OuterLearningRate=0.01,
        )
        result = learner.Train()
        assert isinstance(result, MetaTrainingResult)
        assert result.TotalIterations == learner.CurrentIteration == 7
        assert result.TrainingTime.total_seconds() > 0
        assert sorted(p.name for p in tmp_path.iterdir()) == [f"checkpoint_iMAML_{i}.safetensors" for i in (2, 4, 6)]
        assert list(result.AdditionalMetrics) == [
            *("EvaluationLoss@3", "EvaluationAccuracy@3", "EvaluationLoss@6", "EvaluationAccuracy@6")
        ]
        again = learner_on(seed=5, RandomSeed=1, OuterLearningRate=0.01)
        again.Load("checkpoint_iMAML_6.safetensors")
        assert again.MetaTrainStep(3).MetaLoss == result.LossHistory[6]

    def test_by_hand(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        options = {"NumMetaIterations": 4, "EvaluationFrequency": 2, "EvaluationTasks": 3, "RandomSeed": 1}
        result, learner = learner_on(**options).Train(), learner_on(**options)
        losses, means = [], []
        for iteration in range(1, 5):
            losses.append(learner.MetaTrainStep(3).MetaLoss)
            if iteration % 2 == 0:
                loader = learner.Options.DataLoader
                place = loader.GetState()
                means.append(learner.Evaluate(3).LossStats.Mean)
                loader.SetState(place)
        np.testing.assert_array_equal(result.LossHistory, losses)
        assert [result.AdditionalMetrics[f"EvaluationLoss@{i}"] for i in (2, 4)] == means
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.slow
    def test_evaluations_do_not_change_what_is_trained_on(self) -> None:
        runs = [learner_on(NumMetaIterations=6, EvaluationFrequency=n, RandomSeed=1).Train() for n in (1, 2, 100)]
        for run in runs[1:]:
            np.testing.assert_array_equal(run.LossHistory, runs[0].LossHistory)

    def test_it_goes_on_from_where_it_is(self) -> None:
        learner = learner_on(NumMetaIterations=2, EvaluationFrequency=100)
        learner.Train()
        assert learner.Train().TotalIterations == 2
        assert learner.CurrentIteration == 4

    def test_no_progress_bar_where_there_is_no_terminal(self, capfd: pytest.CaptureFixture[str]) -> None:
        learner_on(NumMetaIterations=2).Train()
        assert capfd.readouterr() == ("", "")

    def test_a_progress_bar_that_moves_where_there_is_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        result = learner_on(NumMetaIterations=3).Train()
        first, *_, last = terminal.getvalue().strip().split("\r")
        assert "iMAML:   0%" in first
        assert "0/3" in first
        assert "iMAML: 100%" in last
        assert "3/3" in last
        assert f"loss={float(result.FinalLoss):.4f}" in last

    def test_learners_of_two_kinds_in_one_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        options = {"NumMetaIterations": 2, "EnableCheckpointing": True, "CheckpointFrequency": 2}
        learner = learner_on(**options)
        loader = SinusoidLoader(4, 6, seed=0, dtype=np.float64)
        other = MAMLAlgorithm(MAMLOptions(learner.BaseModel.Clone(), DataLoader=loader, **options))
        learner.Train()
        other.Train()
        assert sorted(p.name for p in tmp_path.iterdir()) == [
            *("checkpoint_MAML_2.safetensors", "checkpoint_iMAML_2.safetensors")
        ]
        learner.Load("checkpoint_iMAML_2.safetensors")
        other.Load("checkpoint_MAML_2.safetensors")

    def test_a_folder_that_takes_no_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Is found before the first step; also by root, for whom all modes are open."""
        learner = learner_on(NumMetaIterations=2, EnableCheckpointing=True, CheckpointFrequency=1000)
        gone = tmp_path / "gone"
        gone.mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
        with (
            untouched(learner),
            pytest.raises(
                FileNotFoundError,
                match="EnableCheckpointing must be False, as no checkpoint can be written: No such file",
            ),
        ):
            learner.Train()
        monkeypatch.chdir(tmp_path)

        def refused(*arguments: Any, **options: Any) -> Any:
            raise OSError(errno.EROFS, "Read-only file system")

        with monkeypatch.context() as patch, untouched(learner):
            patch.setattr(tempfile, "NamedTemporaryFile", refused)
            with pytest.raises(OSError, match="no checkpoint can be written: Read-only file system") as found:
                learner.Train()
            assert (found.value.errno, found.value.filename) == (errno.EROFS, str(tmp_path))
            learner.Options.EnableCheckpointing = False
        learner.Train()
        assert list(tmp_path.iterdir()) == []

    def test_checkpoints_stay_in_the_folder_of_the_beginning(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        learner = learner_on(
            NumMetaIterations=2, EnableCheckpointing=True, CheckpointFrequency=2, EvaluationFrequency=1
        )
        (tmp_path / "elsewhere").mkdir()
        evaluate = learner.Evaluate
        monkeypatch.setattr(learner, "Evaluate", lambda count: (os.chdir(tmp_path / "elsewhere"), evaluate(count))[1])
        learner.Train()
        assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint_iMAML_2.safetensors", "elsewhere"]

    @pytest.mark.slow
    def test_it_learns(self) -> None:
        learner = learner_on(
            NumMetaIterations=150,
            EvaluationFrequency=1000,
            OuterLearningRate=0.02,
            InnerLearningRate=0.05,
            InnerObjective="proximal",
            Curvature="gauss-newton",
            RandomSeed=0,
        )
        before = learner.Evaluate(30).LossStats.Mean
        learner.Train()
        assert learner.Evaluate(30).LossStats.Mean < 0.8 * before


@pytest.mark.numpy_first
class TestReset:
    @pytest.mark.parametrize("optimizer", [None, lambda: AdamOptimizer(0.1), lambda: SGDOptimizer(0.1, momentum=0.5)])
    def test_as_at_construction_but_for_the_parameters(self, backend: Backend, optimizer: Any) -> None:
        learner = learner_on(backend, MetaOptimizer=optimizer and optimizer(), RandomSeed=3)
        theta, before = learner.BaseModel.GetParameters(), state_of(learner)
        losses = [learner.MetaTrainStep(2).MetaLoss for _ in range(3)]
        moved = bits(learner.BaseModel.GetParameters())
        learner.Reset()
        assert bits(learner.BaseModel.GetParameters()) == moved
        learner.BaseModel.SetParameters(theta)
        assert state_of(learner) == before
        assert [learner.MetaTrainStep(2).MetaLoss for _ in range(3)] == losses

    def test_an_unseeded_loader_that_knows_its_state_is_rewound(self) -> None:
        learner = learner_on()
        first = learner.Options.DataLoader.GetNextTask()  # type: ignore[union-attr]
        learner = learner_on()
        learner.Evaluate(5)
        learner.Reset()
        again = learner.Options.DataLoader.GetNextTask()  # type: ignore[union-attr]
        np.testing.assert_array_equal(again.SupportInput, first.SupportInput)

    def test_a_loader_without_a_state_is_seeded_anew(self) -> None:
        class Plain:
            NWay, KShot, QueryShots, AvailableClasses = 1, 4, 6, 1

            def __init__(self) -> None:
                self.inner, self.seeds = SinusoidLoader(4, 6, seed=0, dtype=np.float64), []

            def GetNextTask(self) -> Any:
                return self.inner.GetNextTask()

            def GetTaskBatch(self, n: int) -> Any:
                return self.inner.GetTaskBatch(n)

            def SetSeed(self, seed: int) -> None:
                self.seeds.append(seed)
                self.inner.SetSeed(seed)

        loader = Plain()
        model = learner_on().BaseModel
        learner = iMAMLAlgorithm(iMAMLOptions(model, DataLoader=loader, RandomSeed=7))
        learner.MetaTrainStep(2)
        learner.Reset()
        assert loader.seeds == [7, 7]
        later = Plain()
        learner.Options.DataLoader = later
        learner.Reset()
        assert later.seeds == [7]
        learner.Options.RandomSeed = None
        learner.Reset()
        assert later.seeds == [7]


@pytest.mark.numpy_first
class TestModels:
    def test_another_model_starts_the_optimizer_anew(self, backend: Backend) -> None:
        for optimizer in (None, AdamOptimizer(0.1)):
            learner = linear_learner(backend, MetaOptimizer=optimizer)
            learner.MetaTrain(batch_on(backend, linear_tasks()))
            old = learner.GetMetaModel()
            kept = bits(old.GetParameters())
            other = FunctionModel(lambda p, x: np.tanh(x @ p["w"]), {"w": np.full((3, 1), 0.3)}, backend=backend)
            learner.SetMetaModel(other)
            assert learner.GetMetaModel() is other
            assert learner.BaseModel is learner.Options.MetaModel is other
            assert learner._meta_optimizer().GetState() == {"steps": 0}
            learner.MetaTrain(batch_on(backend, linear_tasks()))
            assert bits(old.GetParameters()) == kept

    @pytest.mark.parametrize("dimensions", [2, 3])
    @pytest.mark.parametrize(
        ("algorithm", "options", "given"),
        [
            (MAMLAlgorithm, MAMLOptions, {}),
            (MetaSGDAlgorithm, MetaSGDOptions, {}),
            (iMAMLAlgorithm, iMAMLOptions, {"WarmStartSolves": True}),
        ],
    )
    def test_one_put_into_the_options_is_not_trained_with_what_was_kept_for_another(
        self, algorithm: Any, options: Any, given: dict[str, Any], dimensions: int, tmp_path: Path
    ) -> None:
        def batch(features: int) -> TaskBatch[Any, Any, Any]:
            return batch_on(get_backend("numpy"), linear_tasks(2, features=features))

        learner = algorithm(options(linear_model(get_backend("numpy"), start(2)), **given))
        learner.MetaTrain(batch(2))
        other, fresh = (linear_model(get_backend("numpy"), start(dimensions)) for _ in range(2))
        learner.Options.MetaModel = other
        if algorithm is MetaSGDAlgorithm:
            kept = bits(other.GetParameters())
            for call in (learner.MetaTrain, learner.mean_meta_gradient, lambda _: learner.Save(tmp_path / "kept")):
                with pytest.raises(
                    InvalidOperationException, match=r"^MetaModel must be the model .*; use SetMetaModel"
                ):
                    call(batch(dimensions))
            assert bits(other.GetParameters()) == kept
            learner.SetMetaModel(other)
        expected, tasks = algorithm(options(fresh, **given)), batch(dimensions)
        for one in (learner, expected):
            one.MetaTrain(tasks)
        for part in ("parameters", "optimizer", "extra"):
            assert state_of(learner)[part] == state_of(expected)[part]

    def test_one_put_into_the_options_is_saved_without_the_momentum_of_another(self, tmp_path: Path) -> None:
        backend = get_backend("numpy")
        learner, fresh = linear_learner(backend), linear_learner(backend)
        learner.MetaTrain(batch_on(backend, linear_tasks()))
        learner.Options.MetaModel = linear_model(backend, start())
        learner.Save(tmp_path / "one.safetensors")
        learner.MetaTrain(batch_on(backend, linear_tasks()))
        fresh.Load(tmp_path / "one.safetensors")
        fresh.MetaTrain(batch_on(backend, linear_tasks()))
        assert state_of(fresh) == state_of(learner)

    def test_what_is_none_in_the_options_leaves_the_momentum(self) -> None:
        learner, batch = linear_learner(get_backend("numpy")), batch_on(get_backend("numpy"), linear_tasks())
        learner.MetaTrain(batch)
        model, before, none = learner.GetMetaModel(), state_of(learner), cast(Any, 5)
        learner.Options.MetaModel = none
        with pytest.raises(ArgumentException, match="MetaModel must be"):
            learner.MetaTrain(batch)
        learner.Options.MetaModel = model
        assert state_of(learner) == before

    def test_one_put_into_the_options_is_evaluated(self) -> None:
        batch = batch_on(get_backend("numpy"), linear_tasks())
        learner = linear_learner(get_backend("numpy"))
        expected = learner.Evaluate(batch)
        learner.MetaTrain(batch)
        learner.Options.MetaModel = linear_model(get_backend("numpy"), start())
        assert learner.Evaluate(batch) == expected

    def test_a_clone_is_learned_for_itself(self, backend: Backend) -> None:
        learner, batch = linear_learner(backend), batch_on(backend, linear_tasks())
        first = learner.MetaTrain(batch)
        original = learner.GetMetaModel()
        kept = bits(original.GetParameters())
        learner.SetMetaModel(original.Clone())
        assert learner.Evaluate(batch) != first
        learner.MetaTrain(batch)
        assert bits(original.GetParameters()) == kept
        assert bits(learner.BaseModel.GetParameters()) != kept

    def test_parameters_set_from_outside_are_used(self, backend: Backend) -> None:
        learner, batch = linear_learner(backend), batch_on(backend, linear_tasks())
        theta, before = learner.BaseModel.GetParameters(), learner.Evaluate(batch)
        learner.MetaTrain(batch)
        learner.BaseModel.SetParameters(theta)
        assert learner.Evaluate(batch) == before

    def test_inputs_that_are_indices(self, backend: Backend) -> None:
        model = FunctionModel(lambda p, x: np.take(p["table"], x, axis=0), {"table": np.zeros((5, 2))}, backend=backend)
        x, y = backend.asarray(np.array([0, 2, 2, 4])), backend.asarray(np.ones((4, 2)))
        task = MetaLearningTask(SupportSetX=x, SupportSetY=y, QuerySetX=x, QuerySetY=y)
        learner = iMAMLAlgorithm(iMAMLOptions(model, InnerLearningRate=0.5, MetaOptimizer=SGDOptimizer(0.5)))
        losses = [float(learner.MetaTrain(TaskBatch([task]))) for _ in range(5)]
        assert losses == sorted(losses, reverse=True)
        table = backend.to_numpy(model.GetParameters()).reshape(5, 2)
        assert (table[[1, 3]] == 0).all()
        assert (table[[0, 2, 4]] > 0).all()

    def test_integer_inputs_leave_single_precision_single(self, backend: Backend) -> None:
        model = linear_model(backend, start(), np.float32)
        x, y = backend.asarray(np.arange(12).reshape(4, 3) % 5), backend.asarray(np.ones((4, 1), np.float32))
        task = MetaLearningTask(SupportSetX=x, SupportSetY=y, QuerySetX=x, QuerySetY=y)
        loss = iMAMLAlgorithm(iMAMLOptions(model, InnerLearningRate=0.001)).MetaTrain(TaskBatch([task]))
        assert isinstance(loss, np.float32)
        assert backend.dtype_of(model.GetParameters()) == np.float32


class TestSubclasses:
    def test_imaml_is_a_meta_learner(self) -> None:
        learner = linear_learner(get_backend("numpy"))
        assert isinstance(learner, MetaLearnerBase)
        assert isinstance(learner, IMetaLearner)
        assert learner.AlgorithmType is MetaLearningAlgorithmType.iMAML

    def test_an_algorithm_of_ones_own_is_its_formula(self, backend: Backend) -> None:
        """Reptile: θ − φ for a meta-gradient."""

        class Reptile(MetaLearnerBase[Any, Any, Any]):
            AlgorithmType = MetaLearningAlgorithmType.iMAML  # type: ignore[assignment]

            def meta_gradient(self, tasks: Tasks) -> Any:
                return tasks.start - tasks.adapt()

        tasks = linear_tasks()
        options = iMAMLOptions(linear_model(backend, start()), MetaOptimizer=SGDOptimizer(0.5), InnerLearningRate=0.1)
        learner = Reptile(options)

        class Sampler:
            NumWays = NumShots = NumQueryPerClass = 1

            def SampleBatch(self, batchSize: int) -> Any:
                return batch_on(backend, tasks)

            def SampleOne(self) -> Any: ...

            def UpdateWithFeedback(self, episodes: Any, losses: Any) -> None: ...

            def SetSeed(self, seed: int) -> None: ...

        step = learner.MetaTrainStep(Sampler(), 3)
        adapted = [descent(start(), t.support, 10, 0.1) for t in tasks]
        expected = start() - 0.5 * (start() - np.mean(adapted, axis=0))
        np.testing.assert_allclose(backend.to_numpy(learner.BaseModel.GetParameters()), expected, rtol=1e-12)
        assert math.isnan(step.Accuracy)
        assert set(step.AdditionalMetrics) == {"MetaGradientNorm"}

    def test_tasks_of_ones_own(self, backend: Backend) -> None:
        data = linear_tasks(1)[0]
        plain = data.on(backend)
        own = Unchecked(
            {
                "SupportSetX": plain.SupportInput,
                "SupportSetY": plain.SupportOutput,
                "QuerySetX": plain.QueryInput,
                "QuerySetY": plain.QueryOutput,
            },
            NumWays=1,
        )
        learner = linear_learner(backend)
        assert learner.Evaluate(TaskBatch([own])) == learner.Evaluate(TaskBatch([plain]))


class Heavyball:
    """A stateful optimizer that is none of ours: it can only be copied, and steps one vector at a time."""

    def __init__(self) -> None:
        self.velocity: Any = None

    def UpdateParameters(self, parameters: Any, gradient: Any) -> Any:
        assert len(parameters.shape) == 1
        self.velocity = gradient if self.velocity is None else 0.5 * self.velocity + gradient
        return parameters - 0.1 * self.velocity

    def Reset(self) -> None:
        self.velocity = None

    def GetCurrentLearningRate(self) -> float:
        return 0.1

    def GetState(self) -> Mapping[str, Any]:
        return {} if self.velocity is None else {"velocity": self.velocity}

    def SetState(self, state: Mapping[str, Any]) -> None:
        self.velocity = state.get("velocity")


def test_any_inner_optimizer_is_fresh_for_each_task(backend: Backend) -> None:
    given = Heavyball()
    given.velocity = backend.asarray(np.full(4, 1e6))
    batch = batch_on(backend, linear_tasks())
    found = [linear_learner(backend, InnerOptimizer=o).Evaluate(batch) for o in (given, SGDOptimizer(0.1, 0.5))]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-13)
    assert backend.to_numpy(given.velocity)[0] == 1e6


@pytest.mark.parametrize("told", [None, "0.1", float("nan"), np.ones(2)], ids=str)
def test_the_rates_of_a_learner_are_numbers(told: Any) -> None:
    class Telling(Heavyball):
        def GetCurrentLearningRate(self) -> Any:
            return told

    learner = linear_learner(get_backend("numpy"), InnerOptimizer=Telling(), MetaOptimizer=Telling())
    for ask in (lambda: learner.InnerLearningRate, lambda: learner.OuterLearningRate):
        with pytest.raises(
            ArgumentException, match=r"result of Telling\.GetCurrentLearningRate must be a finite number"
        ):
            ask()


@pytest.mark.numpy_first
def test_any_meta_optimizer(backend: Backend) -> None:
    ours, theirs = linear_learner(backend, MetaOptimizer=SGDOptimizer(0.1, 0.5)), linear_learner(backend)
    theirs.Options.MetaOptimizer = Heavyball()
    for seed in range(3):
        batch = batch_on(backend, linear_tasks(seed=seed))
        assert ours.MetaTrain(batch) == pytest.approx(float(theirs.MetaTrain(batch)), rel=1e-13)


@pytest.mark.parametrize(
    "make",
    [
        lambda model: iMAMLAlgorithm(iMAMLOptions(model)),
        lambda model: MAMLAlgorithm(MAMLOptions(model)),
        lambda model: ReptileAlgorithm(ReptileOptions(model)),
        lambda model: ReptileAlgorithm(ReptileOptions(model, UseSerialUpdate=True)),
    ],
    ids=["iMAML", "MAML", "Reptile", "serial Reptile"],
)
def test_the_mean_loss_of_a_float32_model_is_taken_in_float64(make: Any) -> None:
    """2**24 + 1 is no float32: a sum in float32 would lose three of four losses."""
    model = FunctionModel(lambda p, x: x * p["w"], {"w": np.zeros(1, np.float32)})
    zero, one = np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32)
    targets = [4096.0, 1.0, 1.0, 1.0]
    tasks = [
        MetaLearningTask(SupportSetX=zero, SupportSetY=zero, QuerySetX=zero, QuerySetY=one * np.float32(y), NumWays=1)
        for y in targets
    ]
    mean = np.float32((2**24 + 3) / 4)
    learner = make(model)
    assert learner.Evaluate(TaskBatch(tasks)) == mean
    assert learner.MetaTrain(TaskBatch(tasks)) == mean


class _Sum(LossFunctionBase[Any]):
    """Σ (predicted − actual), whose gradient in a linear model's parameters is the same everywhere."""

    def formula(self, predicted: Any, actual: Any) -> Any:
        return np.sum(predicted - actual)


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        (MAMLAlgorithm, MAMLOptions),
        (iMAMLAlgorithm, iMAMLOptions),
        (ReptileAlgorithm, ReptileOptions),
        (MetaSGDAlgorithm, MetaSGDOptions),
        (ANILAlgorithm, ANILOptions),
    ],
)
def test_gradients_that_are_the_same_everywhere_stay_so(algorithm: Any, options: Any, backend: Backend) -> None:
    """L = x·w with x = (3, 4): k steps of rate α from 0 are at −kαx, where the loss is −25kα."""
    model: Any = FunctionModel(
        lambda p, x: x @ p["head.w"] + 0 * p["body.b"],
        {"body.b": np.zeros(1), "head.w": np.zeros((2, 1))},
        _Sum(),
        backend=backend,
    )
    x, y = backend.asarray(np.array([[3.0, 4.0]])), backend.asarray(np.zeros((1, 1)))
    task = MetaLearningTask(SupportSetX=x, SupportSetY=y, QuerySetX=x, QuerySetY=y, NumWays=1)
    learner = algorithm(options(model, InnerLearningRate=0.1, AdaptationSteps=3))
    batch, losses = TaskBatch([task]), [0.0, -2.5, -5.0, -7.5]
    for _ in range(2):
        np.testing.assert_allclose(learner.adaptation_curve(batch, steps=3).losses, [losses], rtol=1e-12)
        np.testing.assert_allclose(learner.AdaptAndEvaluate(task).PerStepLosses, losses, rtol=1e-12)
        np.testing.assert_allclose(learner.Evaluate(batch), losses[-1], rtol=1e-12)
    np.testing.assert_allclose(learner.MetaTrain(batch), losses[-1], rtol=1e-12)
