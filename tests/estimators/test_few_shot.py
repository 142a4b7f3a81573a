"""Estimators that adapt a learner: scikit-learn's own checks, its tools around them, and predictions as by hand."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars
import pyarrow
import pytest
from any_width import classifying, regressing
from command_line import run_command
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.model_selection import GroupKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_regressor_multioutput, parametrize_with_checks

import aidotnet_py
from aidotnet_py import (
    ArgumentException,
    BinaryCrossEntropyLoss,
    CrossEntropyLoss,
    MAMLAlgorithm,
    MAMLOptions,
    MetaLearningTask,
    NeuralNetworkModel,
    ProtoNetsOptions,
    RunFolder,
)
from aidotnet_py.backends import Backend
from aidotnet_py.data import DigitsLoader, ImageEncoding, TableLoader
from aidotnet_py.estimators import FewShotClassifier, FewShotRegressor
from aidotnet_py.nn import conv4, mlp

# How many targets there are is the learner's to say. Five, as many as this check has, are tested below.
FAILED = {"check_regressor_multioutput": "the learner predicts one target, and the check has five"}


@parametrize_with_checks(
    [FewShotClassifier(classifying()), FewShotRegressor(regressing())],
    expected_failed_checks=lambda estimator: FAILED if isinstance(estimator, FewShotRegressor) else {},
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def test_several_targets() -> None:
    check_regressor_multioutput("FewShotRegressor", FewShotRegressor(regressing(5)))


def digits_learner(backend: str | Backend = "numpy") -> MAMLAlgorithm[Any, Any, Any, Any]:
    model = NeuralNetworkModel(
        conv4(5, filters=4), input_shape=(8, 8, 1), loss=CrossEntropyLoss(), backend=backend, seed=0
    )
    return MAMLAlgorithm(MAMLOptions(model, InnerLearningRate=0.1, AdaptationSteps=3))


class TestLabels:
    @pytest.mark.parametrize("names", [["cat", "ant", "bee"], [7, -2, 3], [True, False]], ids=["str", "int", "bool"])
    def test_of_any_kind(self, names: list[Any]) -> None:
        task = DigitsLoader(NWay=len(names), KShot=2, split="test", seed=0).GetNextTask()
        y = np.array(names)[task.SupportOutput]
        learner = digits_learner()
        classifier = FewShotClassifier(learner).fit(task.SupportInput, y)
        assert classifier.classes_.tolist() == sorted(names)
        assert classifier.classes_.dtype == y.dtype
        labels = np.array([sorted(names).index(name) for name in y.tolist()])
        adapted = learner.Adapt(MetaLearningTask(SupportSetX=task.SupportInput, SupportSetY=labels))
        shares = softmax(adapted.Predict(task.QueryInput).astype(float)[:, : len(names)], axis=1)
        np.testing.assert_allclose(classifier.predict_proba(task.QueryInput), shares, rtol=1e-12)
        predicted = classifier.predict(task.QueryInput)
        assert predicted.tolist() == [sorted(names)[place] for place in shares.argmax(1)]
        truth = np.array(names)[task.QueryOutput]
        assert classifier.score(task.QueryInput, truth) == np.mean(predicted == truth)

    def test_of_pandas(self) -> None:
        task = DigitsLoader(NWay=3, split="test", seed=0).GetNextTask()
        y = pd.Series(["x", "y", "z"]).take(task.SupportOutput).astype("category")
        classifier = FewShotClassifier(digits_learner()).fit(task.SupportInput, y)
        assert classifier.classes_.tolist() == ["x", "y", "z"]

    @pytest.mark.parametrize(
        "y",
        [
            pd.Series(["x", "y", None], dtype=object),
            pd.Series(["x", "y", np.nan], dtype=object),
            pd.Series(["x", "y", None], dtype="category"),
            pd.Series(["x", "y", pd.NA], dtype="string"),
            pd.Series([1, 2, None], dtype="Int64"),
            polars.Series(["x", "y", None]),
            ["x", "y", None],
            ["x", "y", float("nan")],
            np.array([0.0, 1.0, np.nan]),
        ],
        ids=lambda y: f"{type(y).__name__}-{getattr(y, 'dtype', '')}",
    )
    def test_that_are_missing(self, y: Any) -> None:
        message = "y must hold a label for each example, got .* at 2; drop such examples"
        with pytest.raises(ArgumentException, match=message):
            FewShotClassifier(classifying()).fit(np.eye(3), y)

    def test_of_two_kinds(self) -> None:
        with pytest.raises(ArgumentException, match=r"y must hold labels of one kind, .*, got 1 at 0"):
            FewShotClassifier(classifying()).fit(np.eye(2), [1, "1"])

    def test_large_integers_of_pandas(self) -> None:
        y = pd.Series([2**60, 2**60 + 1], dtype="Int64")
        assert FewShotClassifier(classifying()).fit(np.eye(2), y).classes_.tolist() == [2**60, 2**60 + 1]

    def test_of_pyarrow(self) -> None:
        strings = pyarrow.array(["x", "y", "x"])
        for y in (strings, strings.dictionary_encode(), pyarrow.chunked_array([strings])):
            assert FewShotClassifier(classifying()).fit(np.eye(3), y).classes_.tolist() == ["x", "y"]
        with pytest.raises(ArgumentException, match=r"y must hold a label for each example, got None at 1"):
            FewShotClassifier(classifying()).fit(np.eye(2), pyarrow.array(["x", None]))

    def test_two_by_one_score(self) -> None:
        model = NeuralNetworkModel(mlp(8, 1), input_shape=(2,), loss=BinaryCrossEntropyLoss(), dtype=np.float64, seed=0)
        learner = MAMLAlgorithm(MAMLOptions(model, InnerLearningRate=0.5, AdaptationSteps=50))
        rng = np.random.default_rng(0)
        X = np.concatenate([rng.normal(-1, 0.3, (8, 2)), rng.normal(1, 0.3, (8, 2))])
        y = np.repeat(["low", "top"], 8)
        classifier = FewShotClassifier(learner).fit(X, y)
        shares = classifier.predict_proba(X)
        np.testing.assert_allclose(shares[:, 1], expit(classifier.adapted_.Predict(X)[:, 0]), rtol=1e-12)
        assert classifier.score(X, y) == 1.0

    def test_more_than_scores(self) -> None:
        task = DigitsLoader(NWay=6, split="test", seed=0).GetNextTask()
        with pytest.raises(ArgumentException, match=r"y must have at most 5 classes, .*, got 6"):
            FewShotClassifier(digits_learner()).fit(task.SupportInput, task.SupportOutput)


class TestShapes:
    def test_images_as_they_are_or_flat(self) -> None:
        task = DigitsLoader(split="test", seed=0).GetNextTask()
        images = FewShotClassifier(digits_learner()).fit(task.SupportInput, task.SupportOutput)
        flat = FewShotClassifier(digits_learner()).fit(task.SupportInput.reshape(5, 64), task.SupportOutput)
        assert images.n_features_in_ == flat.n_features_in_ == 64
        queries = task.QueryInput
        np.testing.assert_array_equal(images.predict_proba(queries), flat.predict_proba(queries.reshape(75, 64)))
        np.testing.assert_array_equal(images.predict(queries), images.predict(queries.reshape(75, 64)))

    def test_other_images(self) -> None:
        with pytest.raises(ArgumentException, match=r"X must have rows of shape \(8, 8, 1\), or these laid out flat"):
            FewShotClassifier(digits_learner()).fit(np.zeros((4, 9, 9, 1)), [0, 0, 1, 1])

    @pytest.mark.slow
    def test_on_other_backends(self, backend: Backend) -> None:
        task = DigitsLoader(split="test", seed=0).GetNextTask()
        classifier = FewShotClassifier(digits_learner(backend)).fit(task.SupportInput, task.SupportOutput)
        other = FewShotClassifier(digits_learner()).fit(task.SupportInput, task.SupportOutput)
        shares = classifier.predict_proba(task.QueryInput)
        assert isinstance(shares, np.ndarray)
        np.testing.assert_allclose(shares, other.predict_proba(task.QueryInput), rtol=1e-4)


class TestScikitLearnsTools:
    def test_parameters(self) -> None:
        learner = digits_learner()
        classifier = FewShotClassifier(learner)
        assert classifier.get_params() == {"learner": learner}
        copy = clone(classifier)
        assert copy.learner is not learner
        np.testing.assert_array_equal(copy.learner.GetParameters(), learner.GetParameters())
        assert classifier.set_params(learner="runs/first").learner == "runs/first"
        with pytest.raises(NotFittedError):
            FewShotClassifier(learner).predict(np.zeros((1, 64)))

    def test_a_fit_leaves_the_learner(self) -> None:
        learner = digits_learner()
        before = pickle.dumps(learner)
        FewShotClassifier(learner).fit(np.random.default_rng(0).random((4, 64)), [0, 0, 1, 1])
        assert pickle.dumps(learner) == before

    def test_pipelines_with_frames(self) -> None:
        rng = np.random.default_rng(0)
        X = pd.DataFrame(rng.normal(5, 10, (30, 3)), columns=["a", "b", "c"])
        y = np.where(X["a"] > 5, "many", "few")
        pipeline = make_pipeline(StandardScaler(), FewShotClassifier(classifying())).set_output(transform="pandas")
        assert pipeline.fit(X, y).score(X, y) > 0.9
        assert pipeline[-1].feature_names_in_.tolist() == ["a", "b", "c"]
        with pytest.raises(ValueError, match="feature names should match"):
            pipeline[-1].predict(X.rename(columns={"a": "d"}))

    @pytest.mark.parametrize("jobs", [None, pytest.param(2, marks=pytest.mark.slow)])
    def test_cross_validation_by_groups(self, jobs: int | None) -> None:
        rng = np.random.default_rng(0)
        X, groups = rng.normal(size=(60, 4)), np.repeat(np.arange(12), 5)
        y = np.array(["no", "yes"])[(X[:, 0] > 0).astype(int)]
        scores = cross_val_score(
            FewShotClassifier(classifying()), X, y, groups=groups, cv=GroupKFold(4), scoring="roc_auc", n_jobs=jobs
        )
        assert scores.shape == (4,)
        assert scores.min() > 0.9
        target = X @ [1.0, -2.0, 0.5, 0.0]
        predicted = cross_val_predict(FewShotRegressor(regressing()), X, target, groups=groups, cv=GroupKFold(4))
        assert np.corrcoef(predicted, target)[0, 1] > 0.9


def heights(groups: int, seed: int) -> dict[str, Any]:
    """Children with a pace of their own; one is measured 4 to 9 times."""
    rng = np.random.default_rng(seed)
    child = np.repeat(np.arange(groups), rng.integers(4, 10, groups))
    age = rng.uniform(1, 10, len(child))
    height = rng.normal(75, 4, groups)[child] + rng.normal(6, 0.6, groups)[child] * age
    return {"child": child, "age": age, "sex": np.array(["f", "m"])[child % 2], "height": height}


def of_table(loader: Any) -> MAMLAlgorithm[Any, Any, Any, Any]:
    model = NeuralNetworkModel(mlp(4, 1), input_shape=loader.encoding.input_shape, seed=0)
    return MAMLAlgorithm(MAMLOptions(model, DataLoader=loader))


@pytest.fixture(scope="module")
def run_on_a_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that tests read alone."""
    folder = tmp_path_factory.mktemp("table")
    pd.DataFrame(heights(20, 0)).to_csv(folder / "heights.csv", index=False)
    arguments = ["train", str(folder / "heights.csv"), "--task", "child", "--target", "height", "--iterations", "20"]
    options = ["--set", "options.EvaluationTasks=4", "--set", "options.EvaluationFrequency=10"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aidotnet_py.runs.folder.draw_training", lambda *_: (_ for _ in ()).throw(ImportError()))
        done = run_command([*arguments, "--run", str(folder / "run"), *options])
    assert done.exit_code == 0, done.output
    return folder / "run"


class TestRuns:
    @pytest.mark.slow
    @pytest.mark.parametrize("library", [pd, polars])
    def test_on_a_table_as_the_command_adapts(self, run_on_a_table: Path, tmp_path: Path, library: Any) -> None:
        new = pd.DataFrame(heights(1, 1))
        new.iloc[:3].to_csv(tmp_path / "support.csv", index=False)
        new.iloc[3:].drop(columns="height").to_csv(tmp_path / "query.csv", index=False)
        arguments = [*("--support", tmp_path / "support.csv"), "--query", tmp_path / "query.csv"]
        done = run_command(["adapt", str(run_on_a_table), *map(str, arguments), "--out", str(tmp_path / "out.csv")])
        assert done.exit_code == 0, done.output
        with (tmp_path / "out.csv").open(newline="") as lines:
            expected = [float(row["height"]) for row in csv.DictReader(lines)]
        frame = library.DataFrame(heights(1, 1))
        X, y = frame[["age", "sex"]], frame["height"]
        regressor = FewShotRegressor(run_on_a_table).fit(X[:3], y[:3])
        np.testing.assert_array_equal(regressor.predict(X[3:]), expected)
        # By place instead of by name; and from a checkpoint of the run.
        rows = np.column_stack([X["age"].to_numpy(), X["sex"].to_numpy()]).astype(object)
        regressor = FewShotRegressor(str(run_on_a_table / "best.safetensors"))
        values = regressor.fit(np.array(rows[:3]), np.array(y[:3])).predict(rows[3:])
        np.testing.assert_array_equal(values, expected)
        assert 50 < np.mean(values) < 160

    def test_an_array_has_the_columns_of_the_frame_that_was_fitted(self) -> None:
        table = pd.DataFrame(heights(6, 0)).drop(columns="sex").assign(mass=lambda rows: rows["age"] ** 2)
        regressor = FewShotRegressor(of_table(TableLoader(table, task="child", target="height", seed=0)))
        X, y = table[["mass", "age"]], table["height"]
        expected = regressor.fit(X, y).predict(X)
        with pytest.warns(UserWarning, match="X does not have valid feature names"):
            np.testing.assert_array_equal(regressor.predict(X.to_numpy()), expected)
        # A fit on an array has the encoding's order, as before.
        array = X[["age", "mass"]].to_numpy()
        np.testing.assert_array_equal(regressor.fit(array, y).predict(array), expected)

    def test_rows_are_lists_of_several_types(self) -> None:
        table = pd.DataFrame(heights(6, 0))
        regressor = FewShotRegressor(of_table(TableLoader(table, task="child", target="height", seed=0)))
        X, y = table[["age", "sex"]], table["height"]
        expected = regressor.fit(X, y).predict(X)
        rows = X.to_numpy(object).tolist()
        np.testing.assert_array_equal(regressor.fit(rows, y).predict(rows), expected)

    def test_columns_of_one_name(self) -> None:
        table = pd.DataFrame(heights(6, 0))
        regressor = FewShotRegressor(of_table(TableLoader(table, task="child", target="height", seed=0)))
        with pytest.raises(ArgumentException, match="X must be a frame that narwhals takes: Expected unique column"):
            regressor.fit(table[["age", "sex", "age"]], table["height"])

    @pytest.mark.slow
    def test_what_a_table_lacks(self, run_on_a_table: Path) -> None:
        frame = pd.DataFrame(heights(1, 1))
        with pytest.raises(ArgumentException, match=r"^table must have the column 'sex', got 'age'$"):
            FewShotRegressor(run_on_a_table).fit(frame[["age"]], frame["height"])
        with pytest.raises(ArgumentException, match="X must be a frame, or have the 2 columns age, sex, got shape"):
            FewShotRegressor(run_on_a_table).fit(frame[["age"]].to_numpy(), frame["height"])

    @pytest.mark.slow
    def test_a_saved_learner_knows_its_table(self, tmp_path: Path) -> None:
        loader = TableLoader(heights(12, 0), task="child", target="height", seed=0)
        learner = of_table(loader)
        learner.Options.DataLoader = None
        for _ in range(20):
            learner.MetaTrain(loader.GetTaskBatch(4))
        aidotnet_py.save(learner, tmp_path / "learner.safetensors")
        frame = pd.DataFrame(heights(1, 1))
        X, y = frame[["age", "sex"]], frame["height"]
        task = loader.encoding.task(frame)
        expected = loader.encoding.decode(learner.Adapt(task).Predict(task.SupportInput))
        for given in (learner, tmp_path / "learner.safetensors", aidotnet_py.load(tmp_path / "learner.safetensors")):
            regressor = FewShotRegressor(given).fit(X, y)
            assert regressor.encoding_ == loader.encoding
            np.testing.assert_allclose(regressor.predict(X), expected, rtol=1e-6)
        # Its own encoding, and not that of a loader that it has not learned from.
        other = TableLoader(heights(12, 2), task="child", target="height", seed=0)
        learner.Options.DataLoader = other
        assert FewShotRegressor(learner).fit(X, y).encoding_ == loader.encoding

    def test_rows_of_several_groups_are_no_task(self) -> None:
        frame = pd.DataFrame(heights(6, 0))
        regressor = FewShotRegressor(of_table(TableLoader(frame, task="child", target="height", seed=0)))
        X, y = frame[["child", "age", "sex"]], frame["height"]
        message = "X must have rows of one group, got 6 groups in column 'child', 0, 1, 2, 3, 4, …; give the rows of"
        with pytest.raises(ArgumentException, match=message):
            regressor.fit(X, y)
        own = X["child"] == 3
        regressor.fit(X[own], y[own])
        with pytest.raises(ArgumentException, match=message):
            regressor.predict(X)
        assert len(regressor.predict(X[own])) == own.sum()

    def test_rows_of_another_group_than_the_fitted_one(self) -> None:
        frame = pd.DataFrame(heights(6, 0))
        regressor = FewShotRegressor(of_table(TableLoader(frame, task="child", target="height", seed=0)))
        X, y = frame[["child", "age", "sex"]], frame["height"]
        own, other = X["child"] == 3, X["child"] == 4
        regressor.fit(X[own], y[own])
        message = "^X must have rows of the group that was fitted, 3, got 4 in column 'child'; fit"
        for call in (regressor.predict, lambda rows: regressor.score(rows, y[other])):
            with pytest.raises(ArgumentException, match=message):
                call(X[other])
        # Rows that do not name their group are taken for those of the fitted one.
        np.testing.assert_array_equal(regressor.predict(X[own].assign(child=np.nan)), regressor.predict(X[own]))
        regressor.fit(X[other], y[other])
        assert len(regressor.predict(X[other])) == other.sum()

    def test_an_encoding_of_another_kind_is_left_to_the_caller(self) -> None:
        learner = digits_learner()
        learner.GetModelMetadata().SetProperty("encoding", {"kind": "sound"})
        classifier = FewShotClassifier(learner)
        with pytest.warns(UserWarning, match="encoding's kind should be 'images' or 'table', got 'sound'"):
            classifier.fit(np.zeros((2, 8, 8, 1)), [0, 1])
        assert classifier.encoding_ is None

    def test_bytes_for_a_learner_of_a_folder_of_images(self) -> None:
        form = {"kind": "images", "height": 8, "width": 8, "fit": "crop", "color": False, "dtype": "float32"}
        learner = digits_learner()
        learner.GetModelMetadata().SetProperty("encoding", form)
        images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1)).astype(np.uint8)
        with pytest.raises(ArgumentException, match=r"X must have pixels from 0 for black to 1 .* numbers up to 2"):
            FewShotClassifier(learner).fit(images, [0, 0, 1, 1])
        classifier = FewShotClassifier(learner).fit(images / 255, [0, 0, 1, 1])
        assert classifier.encoding_ == ImageEncoding.from_settings(form)
        assert classifier.adapted_.GetModelMetadata().Properties == {"encoding": form, "classes": [0, 1]}
        with pytest.raises(ArgumentException, match="X must have pixels from 0 for black to 1"):
            classifier.predict(images)
        # A loader's transforms may give such numbers.
        assert len(classifier.predict(images / 255 * 4 - 2)) == 4

    @pytest.mark.slow
    def test_from_python(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("aidotnet_py.runs.folder.draw_training", lambda *_: (_ for _ in ()).throw(ImportError()))
        learner = digits_learner()
        learner.Options.DataLoader = DigitsLoader(seed=0)
        learner.Options.NumMetaIterations, learner.Options.EvaluationFrequency = 2, 0
        learner.Train(run=RunFolder(tmp_path / "run"))
        aidotnet_py.save(learner, tmp_path / "learner.safetensors")
        task = DigitsLoader(split="test", seed=0).GetNextTask()
        shares = [
            FewShotClassifier(given).fit(task.SupportInput, task.SupportOutput).predict_proba(task.QueryInput)
            for given in (learner, tmp_path / "run", str(tmp_path / "learner.safetensors"))
        ]
        np.testing.assert_array_equal(shares[0], shares[1])
        np.testing.assert_array_equal(shares[0], shares[2])

    @pytest.mark.slow
    def test_a_learner_with_a_table_loader(self) -> None:
        table = heights(12, 0)
        table["tall"] = np.where(table.pop("height") > 105, "tall", "small")
        loader = TableLoader(table, task="child", target="tall", seed=0)
        loss = CrossEntropyLoss()
        model = NeuralNetworkModel(mlp(16, 2), input_shape=loader.encoding.input_shape, loss=loss, seed=0)
        learner = MAMLAlgorithm(MAMLOptions(model, DataLoader=loader, InnerLearningRate=0.1, NumMetaIterations=100))
        learner.Train()
        X, y = pd.DataFrame(table)[["age", "sex"]], table["tall"]
        classifier = FewShotClassifier(learner).fit(X, y)
        assert classifier.score(X, y) > 0.8
        # A group whose rows are all of one class may still get the other.
        small = np.asarray(y) == "small"
        assert FewShotClassifier(learner).fit(X[small], y[small]).classes_.tolist() == ["small", "tall"]
        with pytest.raises(ArgumentException, match=r"'tall' must hold classes of the training groups, .*, got 'huge'"):
            FewShotClassifier(learner).fit(X, np.where(small, "small", "huge"))


def spans(seed: int) -> pd.DataFrame:
    """Groups of six rows with two durations and two times of each, all of them within some minutes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=48)
    frame = pd.DataFrame({"group": np.repeat([f"g{number}" for number in range(8)], 6), "x": x})
    frame["took"] = pd.to_timedelta((100 + 10 * x).round(2), unit="s").as_unit("ns")
    frame["rested"] = pd.to_timedelta((70 - 3 * x).round(2), unit="s").as_unit("ms")
    frame["began"] = (pd.Timestamp("2024-01-01") + frame["took"]).dt.tz_localize("Europe/Berlin")
    return frame


def regressor_of(table: pd.DataFrame, *target: str) -> FewShotRegressor:
    loader = TableLoader(table[["group", "x", *target]], task="group", target=target, seed=0, dtype=np.float64)
    shape, outputs = loader.encoding.input_shape, len(target)
    model = NeuralNetworkModel(mlp(8, outputs), input_shape=shape, dtype=np.float64, seed=0)
    return FewShotRegressor(
        MAMLAlgorithm(MAMLOptions(model, DataLoader=loader, InnerLearningRate=0.1, AdaptationSteps=20))
    )


class TestTargetsOfATable:
    @pytest.mark.costly
    @pytest.mark.parametrize("unit", ["ns", "us", "ms"])
    def test_durations_are_in_seconds(self, unit: Any) -> None:
        table = spans(0)
        regressor, X, took = regressor_of(table, "took"), table[["x"]], table["took"].dt.as_unit(unit)
        expected = regressor.fit(X, took.dt.total_seconds()).predict(X)
        known = regressor.score(X, took.dt.total_seconds())
        assert known > 0.8
        for y in (took, took.to_numpy(), polars.Series(took.to_numpy()), took.to_frame()):
            np.testing.assert_allclose(regressor.fit(X, y).predict(X).ravel(), expected, rtol=1e-9)
            assert regressor.score(X, y) == pytest.approx(known)
            assert cross_val_score(regressor, X, y, cv=2).min() > 0.5

    @pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
    def test_times_are_in_seconds_since_1970(self, zone: str) -> None:
        table = spans(0)
        regressor, X = regressor_of(table, "began"), table[["x"]]
        began = table["began"].dt.tz_convert(zone)
        seconds = (table["began"] - pd.Timestamp(0, tz="UTC")).dt.total_seconds()
        expected, known = regressor.fit(X, seconds).predict(X), regressor.score(X, seconds)
        for y in (began, began.to_numpy(), began.to_frame()):
            np.testing.assert_allclose(regressor.fit(X, y).predict(X).ravel(), expected, rtol=1e-12)
            assert regressor.score(X, y) == pytest.approx(known)
        with pytest.raises(ArgumentException, match="column 'began' must hold times with a time zone"):
            regressor.fit(X, began.dt.tz_localize(None))

    def test_a_target_of_another_kind(self) -> None:
        table = spans(0).assign(weight=70.0)
        for target, other in (("took", "began"), ("weight", "took")):
            regressor, X = regressor_of(table, target), table[["x"]]
            with pytest.raises(ArgumentException, match=f"column '{target}' must hold .*, got .*; convert it"):
                regressor.fit(X, table[other])
            regressor.fit(X, table[target])
            with pytest.raises(ArgumentException, match=f"column '{target}' must hold .*, got .*; convert it"):
                regressor.score(X, table[other])

    def test_durations_without_a_table(self) -> None:
        X, seconds = np.linspace(-1, 1, 8)[:, np.newaxis], np.arange(8.0)
        expected = FewShotRegressor(regressing()).fit(X, seconds).predict(X)
        regressor = FewShotRegressor(regressing()).fit(X, seconds.astype("timedelta64[s]").astype("timedelta64[ns]"))
        np.testing.assert_array_equal(regressor.predict(X), expected)

    @pytest.mark.parametrize("library", [pd, polars])
    def test_columns_are_matched_by_name(self, library: Any) -> None:
        table = spans(0)
        frame = table if library is pd else polars.from_pandas(table)
        regressor, X = regressor_of(table, "took", "rested"), frame[["x"]]
        expected = regressor.fit(X, frame[["took", "rested"]]).predict(X)
        known = regressor.score(X, frame[["took", "rested"]])
        assert known > 0.8
        # Predictions are in the order of y, as metrics take them.
        np.testing.assert_array_equal(regressor.fit(X, frame[["rested", "took"]]).predict(X), expected[:, ::-1])
        assert regressor.score(X, frame[["took", "rested"]]) == pytest.approx(known)
        # Without names, they are in the order of the encoding.
        array = table[["took", "rested"]].to_numpy()
        np.testing.assert_array_equal(regressor.fit(X, array).predict(X), expected)
        numbered = table[["took", "rested"]].set_axis([0, 1], axis=1)
        np.testing.assert_array_equal(regressor.fit(X, numbered).predict(X), expected)

    def test_columns_of_other_names(self) -> None:
        table = spans(0)
        X, regressor = table[["x"]], regressor_of(table, "took", "rested")
        with pytest.raises(ArgumentException, match=r"y must have the columns took, rested, .*, got took, began"):
            regressor.fit(X, table[["took", "began"]])
        # One column is the target, whatever it is called.
        regressor, foreign = regressor_of(table, "took"), table[["took"]].rename(columns={"took": "ran"})
        expected = regressor.fit(X, table["took"]).predict(X)
        for y in (foreign, foreign["ran"]):
            np.testing.assert_array_equal(regressor.fit(X, y).predict(X).ravel(), expected)

    def test_what_is_no_array_of_targets(self) -> None:
        table = spans(0)
        regressor, X = regressor_of(table, "took"), table[["x"]]
        regressor.fit(X, table["took"])
        for y in (3.0, polars.from_pandas(table[["took"]]).lazy()):
            for method in (regressor.fit, regressor.score):
                with pytest.raises(ArgumentException, match="y must be an array, "):
                    method(X, y)
        for known, lazy in ((regressor, X), (FewShotRegressor(regressing()), table[["x"]])):
            with pytest.raises(ArgumentException, match=r"^X must be a frame or an array, got .*; collect it"):
                known.fit(polars.from_pandas(lazy).lazy(), table["took"])

    def test_missing_durations_among_objects(self) -> None:
        table = spans(0)
        took = [np.nan, *table["took"].tolist()[1:]]
        with pytest.raises(ArgumentException, match="'took'"):
            regressor_of(table, "took").fit(table[["x"]], np.array(took, object))

    def test_remedies_name_no_argument_that_it_lacks(self) -> None:
        table = spans(0)
        regressor = regressor_of(table, "took")
        for x, remedy in (
            (np.nan, "drop or fill such rows, as TableLoader does with missing='fill'"),
            (pd.Period("2024-01"), "convert or drop it"),
        ):
            # With another column, since a table needs one of some kind.
            with pytest.raises(ArgumentException, match=f"; {remedy}$"):
                regressor.fit(table[["took"]].assign(x=x), table["took"])


class TestRefusals:
    def test_what_is_no_learner(self, tmp_path: Path) -> None:
        X, y = np.zeros((2, 1)), np.zeros(2)
        wanted = "learner must be a learner, the folder of a run, or a learner's file, got"
        for given in (3, ""):
            with pytest.raises(ArgumentException, match=f"{wanted} {given!r}"):
                FewShotRegressor(given).fit(X, y)
        model = NeuralNetworkModel(mlp(4, 1), input_shape=(1,), seed=0)
        aidotnet_py.save(model, tmp_path / "model.safetensors")
        with pytest.raises(ArgumentException, match=wanted):
            FewShotRegressor(tmp_path / "model.safetensors").fit(X, y)
        with pytest.raises(FileNotFoundError):
            FewShotRegressor(tmp_path / "nothing").fit(X, y)
        with pytest.raises(FileNotFoundError, match="path must be the folder of a run"):
            FewShotRegressor(tmp_path).fit(X, y)

    def test_a_learner_of_the_other_kind(self) -> None:
        with pytest.raises(ArgumentException, match="learner must have a loss of regression, got CrossEntropyLoss"):
            FewShotRegressor(classifying()).fit(np.zeros((2, 1)), np.zeros(2))
        with pytest.raises(ArgumentException, match="use FewShotRegressor"):
            FewShotClassifier(regressing()).fit(np.zeros((2, 1)), [0, 1])

    def test_a_loss_of_the_options_that_is_false(self) -> None:
        """A user's loss may have a length, and so a truth value."""

        class Weighted(CrossEntropyLoss[Any]):
            def __len__(self) -> int:
                return 0

        model = NeuralNetworkModel(mlp(4, 2), input_shape=(2,), seed=0)
        learner = MAMLAlgorithm(MAMLOptions(model, LossFunction=Weighted()))
        fitted = FewShotClassifier(learner).fit(np.eye(2), ["a", "b"])
        assert fitted.predict(np.eye(2)).shape == (2,)
        with pytest.raises(ArgumentException, match="learner must have a loss of regression, got Weighted"):
            FewShotRegressor(learner).fit(np.eye(2), np.zeros(2))
        assert ProtoNetsOptions(model, LossFunction=Weighted()).IsValid()

    def test_a_refused_fit_changes_nothing(self) -> None:
        def learner(loss: Any, outputs: int) -> Any:
            model = NeuralNetworkModel(mlp(4, outputs), input_shape=(2,), loss=loss, seed=0)
            return MAMLAlgorithm(MAMLOptions(model))

        X = np.random.default_rng(0).normal(size=(12, 2))
        fitted = FewShotClassifier(learner(BinaryCrossEntropyLoss(), 1)).fit(X, [0, 1] * 6)
        before = fitted.predict_proba(X)
        fitted.set_params(learner=learner(CrossEntropyLoss(), 2))
        with pytest.raises(ArgumentException, match="y must have at most 2 classes"):
            fitted.fit(X, [0, 1, 2] * 4)
        np.testing.assert_array_equal(fitted.predict_proba(X), before)

    def test_a_refused_fit_leaves_the_columns(self) -> None:
        rng = np.random.default_rng(0)
        X = pd.DataFrame(rng.normal(size=(8, 2)), columns=["a", "b"])
        fitted = FewShotRegressor(regressing()).fit(X, X["a"])
        before = fitted.predict(X)
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            fitted.fit(X.assign(c=1.0), X["a"][:-1])
        np.testing.assert_array_equal(fitted.predict(X), before)
        assert (fitted.n_features_in_, fitted.feature_names_in_.tolist()) == (2, ["a", "b"])

    @pytest.mark.parametrize("size", [1e300, 1e38])
    def test_numbers_beyond_the_model(self, size: float) -> None:
        """The learner's numbers are of float32: 1e300 is inf there, and 1e38 gives scores of inf."""
        model = NeuralNetworkModel(mlp(4, 2), input_shape=(2,), loss=CrossEntropyLoss(), seed=0)
        classifier = FewShotClassifier(MAMLAlgorithm(MAMLOptions(model))).fit(np.eye(2), ["a", "b"])
        messages = {
            1e300: r"X must be finite, got 1e\+300 at \[0, 0\]",
            1e38: "X must have rows with finite predictions",
        }
        X = np.full((1, 2), size)
        for ask in (classifier.predict, classifier.predict_proba):
            with pytest.raises(ArgumentException, match=messages[size]):
                ask(X)

    def test_targets_beyond_the_model(self) -> None:
        model = NeuralNetworkModel(mlp(4, 1), input_shape=(2,), seed=0)
        with pytest.raises(ArgumentException, match=r"y must be finite, got 1e\+300 at \[1, 0\]"):
            FewShotRegressor(MAMLAlgorithm(MAMLOptions(model))).fit(np.eye(2), [0.0, 1e300])

    def test_binary_scores_of_several_outputs(self) -> None:
        model = NeuralNetworkModel(mlp(4, 2), input_shape=(2,), loss=BinaryCrossEntropyLoss(), seed=0)
        with pytest.raises(ArgumentException, match="learner must have one output for a BinaryCrossEntropyLoss, got 2"):
            FewShotClassifier(MAMLAlgorithm(MAMLOptions(model))).fit(np.eye(2), ["a", "b"])

    def test_masked_values(self) -> None:
        """Whose numbers scikit-learn takes for data."""
        X = np.ma.masked_equal([[1.0, 2.0], [-9999.0, 3.0]], -9999.0)
        with pytest.raises(ArgumentException, match=r"X must have no masked values, .* got 1; .*X\.filled"):
            FewShotClassifier(classifying()).fit(X, [0, 1])
        with pytest.raises(ArgumentException, match="y must have no masked values"):
            FewShotRegressor(regressing()).fit(np.eye(2), np.ma.masked_equal([1.0, -9999.0], -9999.0))

    def test_labels_in_a_column(self) -> None:
        with pytest.warns(DataConversionWarning, match="column-vector"):
            FewShotClassifier(classifying()).fit(np.eye(2), np.array([["a"], ["b"]]))
