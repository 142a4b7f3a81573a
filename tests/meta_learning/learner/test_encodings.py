"""How raw data became the inputs of tasks: a learner keeps it, whichever way it was trained, and its files have it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from plain_models import BareModel
from tanh_network import TanhNetwork

import aidotnet_py
from aidotnet_py import (
    ArgumentException,
    CrossEntropyLoss,
    MAMLAlgorithm,
    MAMLOptions,
    MetaLearningTask,
    NeuralNetworkModel,
    ProtoNetsAlgorithm,
    ProtoNetsOptions,
    ReptileAlgorithm,
    ReptileOptions,
    RunFolder,
    TaskBatch,
)
from aidotnet_py.backends import get_backend
from aidotnet_py.data import DigitsLoader, ImageFolderLoader, SinusoidLoader, TableLoader, UniformTaskSampler
from aidotnet_py.nn import BatchNorm, Dense, Flatten, Sequential, mlp
from aidotnet_py.runs import open_learner

OTHERWISE = r"tasks should be encoded as those that the model learned from \(there\), got others \(here\): "


def table(scale: float = 1.0) -> TableLoader[np.float32]:
    """Eight groups of six rows, y = ax, with x far from 0."""
    rng = np.random.default_rng(0)
    x = rng.uniform(100, 200, 48)
    columns = {"group": np.repeat(np.arange(8), 6), "x": scale * x, "y": np.repeat(np.arange(1, 9), 6) * x}
    return TableLoader(columns, task="group", target="y", seed=0)


def model() -> NeuralNetworkModel[np.float32]:
    return NeuralNetworkModel(mlp(4, 1), input_shape=(1,), seed=0)


def learner(**options: Any) -> MAMLAlgorithm[Any, Any, Any, Any]:
    settings = {"NumMetaIterations": 2, "EvaluationFrequency": 0, "UseFirstOrder": True, "AdaptationSteps": 1}
    return MAMLAlgorithm(MAMLOptions(model(), **(settings | options)))


class _Tokens:
    """An encoding of one's own."""

    def __init__(self, settings: Any) -> None:
        self._settings = settings

    def settings(self) -> Any:
        return self._settings


def encoded(encoding: Any, **notes: Any) -> TaskBatch[Any, Any, Any]:
    x = np.ones((2, 1), np.float32)
    notes["Encoding"] = encoding
    return TaskBatch([MetaLearningTask(SupportSetX=x, SupportSetY=x, QuerySetX=x, QuerySetY=x, Metadata=notes)])


def bare(batch: Any) -> Any:
    """Return the same tasks without metadata."""
    sets = ("SupportSetX", "SupportSetY", "QuerySetX", "QuerySetY", "NumWays", "NumShots", "NumQueryPerClass")
    return TaskBatch([MetaLearningTask(**{name: getattr(task, name) for name in sets}) for task in batch])


def known(item: Any) -> Any:
    return item.GetModelMetadata().Properties.get("encoding")


class _OwnStep(MAMLAlgorithm[Any, Any, Any, Any]):
    def MetaTrain(self, batch: Any) -> Any:
        return np.float32(0.0) if batch is None else super().MetaTrain(batch)


def _by_batches(loader: Any) -> Any:
    made = learner()
    made.MetaTrain(loader.GetTaskBatch(4))
    return made


def _by_steps(loader: Any) -> Any:
    made = learner(DataLoader=loader)
    made.MetaTrainStep(4)
    made.Options.DataLoader = None
    return made


def _by_a_run(loader: Any) -> Any:
    made = learner(DataLoader=loader)
    made.Train()
    made.Options.DataLoader = None
    return made


def _by_its_own_step(loader: Any) -> Any:
    made = _OwnStep(MAMLOptions(model()))
    made.MetaTrain(batch=loader.GetTaskBatch(4))
    return made


def _by_serial_updates(loader: Any) -> Any:
    made = ReptileAlgorithm(ReptileOptions(model(), UseSerialUpdate=True))
    made.MetaTrain(loader.GetTaskBatch(4))
    return made


WAYS: list[Callable[[Any], Any]] = [_by_batches, _by_steps, _by_a_run, _by_its_own_step, _by_serial_updates]


@pytest.mark.parametrize("train", WAYS)
def test_is_in_the_file_whichever_way_the_learner_was_trained(train: Callable[[Any], Any], tmp_path: Path) -> None:
    loader = table()
    made = train(loader)
    assert known(made) == loader.encoding.settings()
    made.Save(tmp_path / "learner.safetensors")
    assert open_learner(tmp_path / "learner.safetensors")[1] == loader.encoding
    made.GetMetaModel().SaveModel(tmp_path / "model.safetensors")
    assert open_learner(tmp_path / "model.safetensors")[1] == loader.encoding


def test_is_in_each_file_of_a_run_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aidotnet_py.runs.folder.draw_training", lambda *_: (_ for _ in ()).throw(ImportError()))
    loader = table()
    learner(DataLoader=loader, CheckpointFrequency=1).Train(run=RunFolder(tmp_path / "run"))
    files = RunFolder(tmp_path / "run").checkpoints
    # The first is from before the first step.
    assert [file.stem.rpartition("_")[2] for file in files] == ["0", "1", "2"]
    assert [open_learner(file)[1] for file in [*files, tmp_path / "run"]] == [loader.encoding] * 4


@pytest.mark.parametrize("by_sampler", [False, True])
def test_of_images_is_kept_too(by_sampler: bool, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for shade, name in enumerate(["dusk", "night", "noon"]):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            image.new("RGB", (8, 8), (80 * shade,) * 3).save(tmp_path / "photos" / name / f"{number}.png")
    loader: Any = ImageFolderLoader(tmp_path / "photos", 2, 1, 2, size=4, color=False, cache=tmp_path / "cache", seed=0)
    network = Sequential(Flatten(), Dense(2))
    scores = NeuralNetworkModel(network, input_shape=(4, 4, 1), loss=CrossEntropyLoss(), seed=0)
    made = MAMLAlgorithm(MAMLOptions(scores, NumMetaIterations=1, EvaluationFrequency=0))
    if by_sampler:
        made.Train(UniformTaskSampler(loader.dataset(seed=0), 2, 1, 2))
    else:
        made.MetaTrain(loader.GetTaskBatch(4))
    made.Save(tmp_path / "learner.safetensors")
    assert open_learner(tmp_path / "learner.safetensors")[1] == loader.encoding


class _Encoded(DigitsLoader[Any]):
    """Digits whose tasks say how they were encoded."""

    def GetTaskBatch(self, numTasks: int) -> Any:
        notes = {"Encoding": _Tokens({"kind": "images", "height": 8})}
        return TaskBatch(
            [
                MetaLearningTask(
                    SupportSetX=task.SupportInput,
                    SupportSetY=task.SupportOutput,
                    QuerySetX=task.QueryInput,
                    QuerySetY=task.QueryOutput,
                    NumWays=task.NumWays,
                    Metadata=notes,
                )
                for task in super().GetTaskBatch(numTasks)
            ]
        )


class TestAnotherEncoding:
    def test_is_told_and_is_the_one_that_stays(self) -> None:
        made, other = _by_batches(table()), table(scale=3.0)
        with pytest.warns(
            UserWarning, match=OTHERWISE + r"encoding\.features\[0\]\.mean is 1.* there and 4.* here, .*; pass"
        ):
            made.MetaTrain(other.GetTaskBatch(4))
        assert known(made) == other.encoding.settings()

    def test_within_one_batch_is_told(self) -> None:
        tasks = [table().GetNextTask(), table(scale=3.0).GetNextTask()]
        with pytest.warns(UserWarning, match=OTHERWISE):
            learner().MetaTrain(TaskBatch(tasks))

    @pytest.mark.parametrize("options", [{}, {"MicroBatchSize": 1}])
    def test_is_told_once_in_a_step(self, options: Any) -> None:
        tasks: list[Any] = [table(scale).GetNextTask() for scale in (1.0, 3.0, 5.0)]
        x = np.ones((3, 1), np.float32)
        numbers = {"NumWays": 1, "NumShots": 3, "NumQueryPerClass": 3}
        bare = MetaLearningTask(SupportSetX=x, SupportSetY=x, QuerySetX=x, QuerySetY=x, **numbers)
        batch = TaskBatch([*tasks, bare])
        made = learner(**options)
        made.MetaTrain(table().GetTaskBatch(2))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            made.MetaTrain(batch)
        assert len(told) == 1
        assert "is missing here, encoding.features[0].mean" in str(told[0].message)

    def test_is_told_once_in_serial_updates(self) -> None:
        made = _by_serial_updates(table())
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            made.MetaTrain(table(scale=3.0).GetTaskBatch(3))
        assert len(told) == 1

    def test_is_told_of_tasks_without_one(self) -> None:
        loader = table()
        made, x = _by_batches(loader), np.ones((2, 1), np.float32)
        task = MetaLearningTask(SupportSetX=x, SupportSetY=x, QuerySetX=x, QuerySetY=x, NumWays=1)
        with pytest.warns(UserWarning, match=OTHERWISE + r"Metadata\['Encoding'\] is missing here; pass"):
            made.MetaTrain(TaskBatch([task]))
        assert known(made) == loader.encoding.settings()

    @pytest.mark.parametrize("use", ["Adapt", "AdaptAndEvaluate", "Evaluate", "adaptation_curve", "mean_meta_gradient"])
    def test_is_told_after_training_without_one(self, use: str) -> None:
        made, batch = learner(), table().GetTaskBatch(2)
        made.MetaTrain(bare(batch))
        with pytest.warns(UserWarning, match=OTHERWISE + r"Metadata\['Encoding'\] is missing there; pass"):
            getattr(made, use)(batch[0] if use.startswith("Adapt") else batch)

    def test_is_told_by_a_step_that_takes_up_the_first(self) -> None:
        made, loader = learner(), table()
        made.MetaTrain(bare(loader.GetTaskBatch(2)))
        with pytest.warns(UserWarning, match=OTHERWISE + r"Metadata\['Encoding'\] is missing there; pass"):
            made.MetaTrain(loader.GetTaskBatch(2))
        assert known(made) == loader.encoding.settings()

    @pytest.mark.parametrize("use", ["Adapt", "AdaptAndEvaluate", "Evaluate", "mean_meta_gradient"])
    def test_is_told_by_what_does_not_learn_from_it(self, use: str) -> None:
        loader = table()
        made, batch = _by_batches(loader), table(scale=3.0).GetTaskBatch(2)
        with pytest.warns(UserWarning, match=OTHERWISE):
            getattr(made, use)(batch[0] if use.startswith("Adapt") else batch)
        assert known(made) == loader.encoding.settings()

    @pytest.mark.parametrize("kind", ["MAML", "ProtoNets"])
    def test_is_told_once_in_an_evaluation(self, kind: str) -> None:
        loader: Any = _Encoded(NWay=2, QueryShots=3, seed=0)
        network = Sequential(Flatten(), Dense(2), BatchNorm())
        of = NeuralNetworkModel(network, input_shape=(8, 8, 1), loss=CrossEntropyLoss(), seed=0)
        of.GetModelMetadata().SetProperty("encoding", {"kind": "images", "height": 16})
        made: Any = {
            "MAML": lambda: MAMLAlgorithm(MAMLOptions(of, DataLoader=loader, MetaBatchSize=2)),
            "ProtoNets": lambda: ProtoNetsAlgorithm(ProtoNetsOptions(of, DataLoader=loader, MetaBatchSize=2)),
        }[kind]()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            # In three batches; the accuracies of queries alone are of models of their own.
            result = made.Evaluate(6)
        assert result.normalization == "batch"
        assert len(told) == 1
        assert "encoding.height is 16 there and 8 here" in str(told[0].message)

    def test_is_not_told_of_the_other_part_of_a_split(self) -> None:
        train, test = table().split(5, 3, seed=0)
        made = _by_batches(train)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made.MetaTrain(train.GetTaskBatch(4))
            made.Evaluate(test.GetTaskBatch(3))
            made.Adapt(test.encoding.task({"x": [1.0, 2.0], "y": [1.0, 2.0]}))

    def test_where_warnings_are_errors_changes_nothing(self) -> None:
        loader = table()
        made = _by_batches(loader)
        before = made.GetParameters()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(UserWarning, match=OTHERWISE):
                made.MetaTrain(table(scale=3.0).GetTaskBatch(4))
        assert known(made) == loader.encoding.settings()
        np.testing.assert_array_equal(made.GetParameters(), before)


class TestAdaptedModels:
    """What they say of raw data is in their files."""

    def test_of_a_table(self, tmp_path: Path) -> None:
        loader = table()
        made, rows = _by_batches(loader), {"x": [110.0, 150.0], "y": [220.0, 300.0]}
        task = loader.encoding.task(rows)
        # A task of arrays alone has the encoding of the learner.
        bare = MetaLearningTask(SupportSetX=task.SupportInput, SupportSetY=task.SupportOutput, NumWays=1)
        for given in (task, bare):
            adapted = made.Adapt(given)
            aidotnet_py.save(adapted, tmp_path / "adapted.safetensors")
            again, encoding = open_learner(tmp_path / "adapted.safetensors")
            assert encoding == loader.encoding
            assert "classes" not in again.GetModelMetadata().Properties
            found = encoding.decode(again.Predict(encoding.inputs(rows)))
            np.testing.assert_array_equal(found, loader.encoding.decode(adapted.Predict(task.SupportInput)))

    def test_of_a_learner_that_knows_none(self) -> None:
        loader = table()
        assert known(learner().Adapt(loader.GetNextTask())) == loader.encoding.settings()

    @pytest.mark.parametrize("algorithm", ["MAML", "ProtoNets"])
    def test_of_classes(self, algorithm: str) -> None:
        loader: Any = DigitsLoader(NWay=2, KShot=2, QueryShots=3, seed=0)
        network = NeuralNetworkModel(Sequential(Flatten(), Dense(2)), input_shape=(8, 8, 1), loss=CrossEntropyLoss())
        made: Any = {
            "MAML": lambda: MAMLAlgorithm(MAMLOptions(network)),
            "ProtoNets": lambda: ProtoNetsAlgorithm(ProtoNetsOptions(network)),
        }[algorithm]()
        settings = {"kind": "images", "height": 8}
        network.GetModelMetadata().SetProperty("encoding", settings)
        task = loader.GetNextTask()
        properties = made.Adapt(task).GetModelMetadata().Properties
        assert properties == {"encoding": settings, "classes": list(task.Metadata["Classes"])}
        # As NumPy's numbers they would be in no file.
        x, y = np.zeros((2, 8, 8, 1), np.float32), np.array([0, 1])
        names = {"Classes": tuple(np.array([7, 3]))}
        numbered = MetaLearningTask(SupportSetX=x, SupportSetY=y, NumWays=2, Metadata=names)
        assert json.dumps(made.Adapt(numbered).GetModelMetadata().Properties["classes"]) == "[7, 3]"
        assert "classes" not in network.GetModelMetadata().Properties

    def test_not_of_the_classes_before(self) -> None:
        made = _by_batches(table())
        (task,) = encoded(None, Classes=("a", "b"))
        first = made.Adapt(task)
        assert first.GetModelMetadata().Properties["classes"] == ["a", "b"]
        second = MAMLAlgorithm(MAMLOptions(first)).Adapt(encoded(None)[0])
        assert "classes" not in second.GetModelMetadata().Properties
        # Values that are no list of classes are the user's own.
        first.GetModelMetadata().SetProperty("classes", 3)
        assert MAMLAlgorithm(MAMLOptions(first)).Adapt(task).GetModelMetadata().Properties["classes"] == 3


class _Pinned(NeuralNetworkModel[Any]):
    """A model whose properties are whatever it was given."""

    properties: Any = None

    def GetModelMetadata(self) -> Any:
        return replace(super().GetModelMetadata(), Properties=self.properties)


class TestOfOnesOwn:
    """Properties and encodings that are not this package's are left alone."""

    def test_property_stays_and_is_told(self, tmp_path: Path) -> None:
        made = learner()
        made.BaseModel.GetModelMetadata().SetProperty("encoding", "utf-8")
        with pytest.warns(UserWarning, match="property 'encoding' of NeuralNetworkModel should be free .* got 'utf-8'"):
            made.MetaTrain(table().GetTaskBatch(2))
        assert known(made) == "utf-8"
        assert known(made.Adapt(table().GetNextTask())) == "utf-8"
        _by_batches(table()).SaveModel(tmp_path / "model.safetensors")
        made.BaseModel.LoadModel(tmp_path / "model.safetensors")
        assert known(made) == "utf-8"

    @pytest.mark.parametrize("own", ["utf-8", {"kind": "table", "of": "mine"}, {"kind": 3}])
    def test_property_is_back_where_a_step_fails(self, own: Any) -> None:
        made = learner(InnerLearningRate=1e30, AdaptationSteps=20)
        made.BaseModel.GetModelMetadata().SetProperty("encoding", own)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(aidotnet_py.InvalidOperationException, match="is not finite"):
                made.MetaTrain(table().GetTaskBatch(4))
        assert known(made) is own

    @pytest.mark.parametrize("properties", [None, MappingProxyType({"a": 1})])
    def test_properties_that_cannot_change(self, properties: Any, tmp_path: Path) -> None:
        network = _Pinned(mlp(4, 1), input_shape=(1,), seed=0)
        network.properties = properties
        made, loader = MAMLAlgorithm(MAMLOptions(network)), table()
        made.Adapt(loader.GetNextTask())
        with pytest.warns(UserWarning, match="Properties of the metadata of _Pinned should be a dict, got "):
            made.MetaTrain(loader.GetTaskBatch(2))
        made.Save(tmp_path / "learner.safetensors")
        made.Load(tmp_path / "learner.safetensors")
        assert network.properties is properties

    @pytest.mark.parametrize(
        "encoding",
        [type("Odd", (), {"settings": 3})(), _Tokens, _Tokens({"size": 3}), _Tokens({"kind": 3}), _Tokens(None)],
    )
    def test_what_is_no_encoding_is_passed_over(self, encoding: Any) -> None:
        made, batch = learner(), encoded(encoding)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made.MetaTrain(batch)
            made.Adapt(batch[0])
        assert known(made) is None

    def test_kind_is_kept_and_opened_without(self, tmp_path: Path) -> None:
        made, settings = learner(), {"kind": "tokens", "size": 3}
        made.MetaTrain(encoded(_Tokens(settings)))
        made.Save(tmp_path / "learner.safetensors")
        with pytest.warns(UserWarning, match="encoding's kind should be 'images' or 'table', got 'tokens'"):
            again, encoding = open_learner(tmp_path / "learner.safetensors")
        assert encoding is None
        assert known(again) == settings


def test_of_a_run_of_an_older_version_is_in_run_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aidotnet_py.runs.folder.draw_training", lambda *_: (_ for _ in ()).throw(ImportError()))
    loader = table()
    folder = RunFolder(tmp_path / "run", settings={"encoding": loader.encoding.settings()})
    learner(DataLoader=SinusoidLoader(seed=0)).Train(run=folder)
    for path in (folder.path, folder.checkpoints[-1]):
        made, encoding = open_learner(path)
        assert encoding == loader.encoding
        assert known(made) == loader.encoding.settings()
    # Not where the model knows better.
    other = table(scale=3.0).encoding
    made.BaseModel.GetModelMetadata().SetProperty("encoding", other.settings())
    made.Save(tmp_path / "run" / "other.safetensors")
    assert open_learner(tmp_path / "run" / "other.safetensors")[1] == other


def test_a_model_beside_a_run_json_of_another_program(tmp_path: Path) -> None:
    """The name is a usual one; such a file kept an intact model from being opened."""
    learner().Save(tmp_path / "learner.safetensors")
    learner().Save(tmp_path / "best.safetensors")
    (tmp_path / "run.json").write_text('{"id": 7}')
    made, encoding = open_learner(tmp_path / "learner.safetensors")
    assert (made.CurrentIteration, encoding) == (0, None)
    # A file of a run may need it.
    for path in (tmp_path, tmp_path / "best.safetensors"):
        with pytest.raises(ArgumentException, match=r"run\.json must hold a run with its sessions"):
            open_learner(path)


class TestGoesWithTheParameters:
    def test_classes_out_of_files(self, tmp_path: Path) -> None:
        first, second = model(), model()
        first.GetModelMetadata().SetProperty("classes", ["cat", "dog"])
        first.SaveModel(tmp_path / "model.safetensors")
        second.LoadModel(tmp_path / "model.safetensors")
        assert second.GetModelMetadata().Properties == {"classes": ["cat", "dog"]}
        second.Deserialize(model().Serialize())
        assert second.GetModelMetadata().Properties == {}

    def test_back_where_a_step_fails(self) -> None:
        made = learner(InnerLearningRate=1e30, AdaptationSteps=20)
        with pytest.raises(aidotnet_py.InvalidOperationException, match="is not finite"):
            made.MetaTrain(table().GetTaskBatch(4))
        assert known(made) is None

    def test_out_of_files(self, tmp_path: Path) -> None:
        loader = table()
        made = _by_batches(loader)
        made.Save(tmp_path / "learner.safetensors")
        made.SaveModel(tmp_path / "model.safetensors")
        whole, alone = learner(), model()
        whole.Load(tmp_path / "learner.safetensors")
        alone.LoadModel(tmp_path / "model.safetensors")
        assert known(whole) == known(alone) == loader.encoding.settings()
        learner().Save(tmp_path / "learner.safetensors")
        model().SaveModel(tmp_path / "model.safetensors")
        whole.Load(tmp_path / "learner.safetensors")
        alone.LoadModel(tmp_path / "model.safetensors")
        assert known(whole) is known(alone) is None

    def test_not_to_another_model(self) -> None:
        made = _by_batches(table())
        made.SetMetaModel(model())
        assert known(made) is None

    @pytest.mark.slow
    def test_but_not_where_the_model_forgets_its_properties(self) -> None:
        network = TanhNetwork(inputs=1)
        bare: Any = BareModel(network, network.start(), get_backend("numpy"), np.float32)
        made: Any = MAMLAlgorithm(MAMLOptions(bare))
        forgets = "GetModelMetadata of BareModel should return the same Properties"
        with pytest.warns(UserWarning, match="BareModel lacks"), pytest.warns(UserWarning, match=forgets):
            made.MetaTrain(table().GetTaskBatch(2))
