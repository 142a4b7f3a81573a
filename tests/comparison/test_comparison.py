"""Comparisons: who is compared, on what, what is measured, and what the settings refuse."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.neighbors import NearestCentroid

from aidotnet_py import (
    ArgumentException,
    ArgumentNullException,
    ArgumentOutOfRangeException,
    ConfidenceInterval,
    InvalidOperationException,
    MAMLAlgorithm,
    MAMLOptions,
    MetaLearningTask,
    NeuralNetworkModel,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.comparison import ALGORITHMS, BASELINES, PROBLEMS, Comparison, ComparisonSettings, compare
from aidotnet_py.comparison import running as running_module
from aidotnet_py.comparison.contestants import BASELINES_OF_CLASSES
from aidotnet_py.comparison.problems import Loader, Model
from aidotnet_py.meta_learning import BasicStats
from aidotnet_py.nn import Dense, Sequential
from aidotnet_py.optimizers import NewtonCGMinimizer
from aidotnet_py.plotting import draw_adaptation_curves

TINY: dict[str, Any] = {"iterations": 2, "meta_batch": 3, "test_tasks": 4, "adaptation_steps": 2}

OF_EITHER = [*BASELINES, *(name for name, one in ALGORITHMS.items() if not one.needs_classes)]

PEAK_OF_A_STEP = running_module._peak_of_a_step


def settings(**given: Any) -> ComparisonSettings:
    return ComparisonSettings.of(given.pop("data", "sinusoid"), **{**TINY, **given})


@pytest.fixture(autouse=True, scope="module")
def no_memory_measured() -> Iterator[None]:
    """It takes ten times as long as these trainings; the tests about it ask for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running_module, "_peak_of_a_step", lambda start: 1)
        yield


@pytest.fixture
def memory_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """As users have it."""
    monkeypatch.setattr(running_module, "_peak_of_a_step", PEAK_OF_A_STEP)


@pytest.fixture(scope="module")
def regression() -> Comparison:
    """Three algorithms, two seeds."""
    return compare(settings(seeds=(0, 5), algorithms=["iMAML", "MAML", "FOMAML"]))


@pytest.fixture(scope="module")
def classification() -> Comparison:
    """One algorithm, one seed."""
    return compare(settings(data="digits", algorithms=["FOMAML"]))


class TestWhoIsCompared:
    @pytest.mark.slow
    def test_the_baselines_and_all_algorithms_of_every_seed(self) -> None:
        everyone = [*BASELINES, *(name for name, one in ALGORITHMS.items() if not one.needs_classes)]
        found = compare(settings(seeds=(0, 5)))
        assert [(run.algorithm, run.seed) for run in found.runs] == [(n, s) for s in (0, 5) for n in everyone]
        assert found.contestants == tuple(everyone)

    def test_those_that_are_asked_for(self) -> None:
        found = compare(settings(algorithms=["FOMAML"]))
        assert found.contestants == ("random", "transfer", "FOMAML")

    @pytest.mark.slow
    def test_those_that_need_classes(self) -> None:
        found = compare(settings(data="digits", algorithms=["ProtoNets"]))
        assert found.contestants == ("random", "transfer", "centroid", "embedded-centroid", "ProtoNets")
        assert "ProtoNets" in settings(data="digits", algorithms=None).algorithms
        with pytest.raises(ArgumentException, match="without those that need classes for sinusoid, got 'ProtoNets'"):
            settings(algorithms=["ProtoNets"])

    @pytest.mark.slow
    def test_the_nearest_mean_of_raw_inputs_is_scikit_learns(self) -> None:
        problem, wanted = PROBLEMS["digits"], settings(data="digits", shots=3)
        loader = problem.loader("test", wanted, 3)
        learner = BASELINES_OF_CLASSES["centroid"](problem, problem.model(3), loader, 3).learner
        for task in loader.GetTaskBatch(5):
            # It warns of pixels that are alike in a class.
            with warnings.catch_warnings(action="ignore"):
                nearest = NearestCentroid().fit(task.SupportInput.reshape(15, -1), task.SupportOutput)
            expected = nearest.predict(task.QueryInput.reshape(-1, 64))
            np.testing.assert_array_equal(learner.Adapt(task).Predict(task.QueryInput).argmax(axis=1), expected)
            accuracy = np.mean(expected == task.QueryOutput)
            assert learner.AdaptAndEvaluate(task).QueryAccuracy == pytest.approx(accuracy)

    @pytest.mark.costly
    @pytest.mark.parametrize(
        ("name", "data"),
        [
            *((name, "digits") for name in [*BASELINES_OF_CLASSES, "ProtoNets"]),
            *(pytest.param(name, "digits", marks=pytest.mark.slow) for name in OF_EITHER),
            *((name, "sinusoid") for name in OF_EITHER),
        ],
    )
    def test_all_start_alike_and_only_training_moves_them(self, name: str, data: str) -> None:
        problem, wanted = PROBLEMS[data], settings(data=data)
        model = problem.model(3)
        before = model.GetParameters().copy()
        np.testing.assert_array_equal(before, problem.model(3).GetParameters())
        assert (before != problem.model(4).GetParameters()).any()
        contestants = {**BASELINES, **BASELINES_OF_CLASSES, **ALGORITHMS}
        entrant = contestants[name](problem, model, problem.loader("train", wanted, 3), 3)
        assert entrant.learner.Options.IsValid()
        np.testing.assert_array_equal(before, model.GetParameters())
        if entrant.step is None:
            assert name in ("random", *BASELINES_OF_CLASSES)
        else:
            learned = entrant.learner.BaseModel
            assert set(learned.GetParameters()) <= set(before)
            entrant.step()
            assert not set(learned.GetParameters()) <= set(before)

    def test_all_train_on_the_same_tasks_and_none_on_those_of_the_test(self, monkeypatch: pytest.MonkeyPatch) -> None:
        drawn: list[list[float]] = []
        original = PROBLEMS["sinusoid"].loader("train", settings(), 0).GetTaskBatch

        class Watched(type(original.__self__)):
            def GetTaskBatch(self, batchSize: int) -> Any:
                batch = super().GetTaskBatch(batchSize)
                drawn[-1] += [float(task.Metadata["Phase"]) for task in batch]
                return batch

        def loader(split: str, source: Any, seed: int) -> Loader:
            drawn.append([])
            return Watched(KShot=source.shots, QueryShots=10, seed=seed)

        monkeypatch.setattr(running_module, "_peak_of_a_step", lambda start: 0)
        problem = PROBLEMS["sinusoid"]
        monkeypatch.setitem(vars(problem), "loader", loader)
        compare(settings(algorithms=["MAML", "FOMAML"]))
        test, random, transfer, maml, fomaml = drawn
        assert random == []
        assert transfer == maml == fomaml
        assert len(maml) == 2 * 3
        assert len(test) == 4
        assert not set(test) & set(maml)

    @pytest.mark.slow
    def test_transfer_learns_the_mean_of_contradicting_tasks(self) -> None:
        # y = 2x and y = −4x, pooled: the best line is y = −x, and gradient descent on a line finds it.
        x = np.linspace(-1, 1, 8, dtype=np.float32)[:, None]
        tasks = TaskBatch(
            [
                MetaLearningTask(SupportSetX=x, SupportSetY=a * x, QuerySetX=x, QuerySetY=a * x, NumWays=1)
                for a in (2, -4)
            ]
        )

        class Twice:
            def GetTaskBatch(self, batchSize: int) -> Any:
                assert batchSize == 2
                return tasks

        model: Model = NeuralNetworkModel(Sequential(Dense(1)), input_shape=(1,), seed=0)
        loader: Any = Twice()
        step = BASELINES["transfer"](PROBLEMS["sinusoid"], model, loader, 2).step
        assert step is not None
        for _ in range(3000):
            step()
        np.testing.assert_allclose(model.Predict(x), -x, atol=1e-3)


class TestWhatIsMeasured:
    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["Reptile", "ANIL"])
    def test_single_accuracies_are_those_of_one_example_at_a_time(self, name: str) -> None:
        wanted = settings(data="digits", algorithms=[name])
        run = compare(wanted).of(name)[0]
        problem = wanted.problem
        entrant = ALGORITHMS[name](problem, problem.model(0), problem.loader("train", wanted, 0), 3)
        assert entrant.step is not None
        for _ in range(2):
            entrant.step()
        entrant.learner.Options.AdaptationSteps = wanted.adaptation_steps
        accuracies: list[float] = []
        for task in problem.loader("test", wanted, 2**32).GetTaskBatch(4):
            adapted, x = entrant.learner.Adapt(task), task.QueryInput
            alone = np.concatenate([adapted.Predict(x[i : i + 1]) for i in range(len(x))])
            accuracies.append(float(np.mean(np.argmax(alone, axis=1) == task.QueryOutput)))
        assert run.single_accuracy is not None
        np.testing.assert_allclose(run.single_accuracy.Mean, np.mean(accuracies), rtol=1e-6)

    @pytest.mark.slow
    def test_regression_has_none_of_these(self, regression: Comparison) -> None:
        assert all(run.single_accuracy is None for run in regression.runs)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", [name for name, one in ALGORITHMS.items() if not one.needs_classes])
    def test_curves_are_those_of_the_learner_itself(self, name: str) -> None:
        wanted = settings(algorithms=[name])
        run = compare(wanted).of(name)[0]
        problem = wanted.problem
        entrant = ALGORITHMS[name](problem, problem.model(0), problem.loader("train", wanted, 0), 3)
        assert entrant.step is not None
        for _ in range(2):
            entrant.step()
        test = problem.loader("test", wanted, 2**32).GetTaskBatch(4)
        learner = entrant.learner
        for steps, interval in enumerate(run.losses):
            if steps:
                learner.Options.AdaptationSteps = steps
                losses = [float(learner.AdaptAndEvaluate(task).QueryLoss) for task in test]
            else:
                losses = [
                    float(np.mean((np.asarray(learner.BaseModel.Predict(t.QueryInput)) - t.QueryOutput) ** 2))
                    for t in test
                ]
            np.testing.assert_allclose(interval.Mean, np.mean(losses), rtol=1e-5)
            np.testing.assert_allclose(interval.HalfWidth, 1.96 * np.std(losses, ddof=1) / 2, rtol=1e-4)

    @pytest.mark.slow
    def test_the_same_seed_gives_the_same_numbers(self, regression: Comparison) -> None:
        again = compare(settings(seeds=(5,), algorithms=["iMAML"]))
        assert again.of("iMAML")[0].losses == regression.of("iMAML")[1].losses
        assert regression.of("iMAML")[0].losses != regression.of("iMAML")[1].losses

    def test_regression_has_no_accuracy(self, regression: Comparison) -> None:
        assert all(run.accuracies is None for run in regression.runs)
        assert all(len(run.losses) == 3 for run in regression.runs)
        losses, accuracies = regression.curves(5)
        assert losses["MAML"] == regression.of("MAML")[1].losses
        assert accuracies == {}

    @pytest.mark.slow
    def test_classification_has(self, classification: Comparison) -> None:
        for run in classification.runs:
            assert run.accuracies is not None
            assert len(run.accuracies) == 3
            assert all(0 <= point.Mean <= 1 for point in run.accuracies)
        assert set(classification.curves(0)[1]) == {"random", "transfer", "centroid", "embedded-centroid", "FOMAML"}

    @pytest.mark.slow
    @pytest.mark.usefixtures("memory_measured")
    def test_what_training_costs(self) -> None:
        found = compare(settings(algorithms=["iMAML", "MAML", "FOMAML"]))
        for run in found.runs:
            trained = run.algorithm != "random"
            assert (run.training_seconds is not None and run.training_seconds > 0) == trained
            assert (run.peak_bytes is not None) == trained
        peak = {run.algorithm: run.peak_bytes or 0 for run in found.runs}
        # MAML keeps the sixteen points of its inner loop; FOMAML keeps one.
        points = 3 * found.settings.problem.model(0).ParameterCount * 4
        assert peak["MAML"] - peak["FOMAML"] > 10 * points
        assert peak["iMAML"] < peak["MAML"]

    @pytest.mark.slow
    def test_memory_does_not_depend_on_who_came_first(self) -> None:
        # In a process of its own, where nothing is compiled or loaded yet.
        program = (
            "from aidotnet_py.comparison import ComparisonSettings, compare\n"
            f"found = compare(ComparisonSettings.of('sinusoid', **{TINY}, algorithms=['iMAML'], seeds=(0, 1)))\n"
            "print(*(run.peak_bytes for name in ('transfer', 'iMAML') for run in found.of(name)))\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        transfer, transfer_again, imaml, imaml_again = map(int, done.stdout.split())
        assert transfer == pytest.approx(transfer_again, rel=0.05)
        assert imaml == pytest.approx(imaml_again, rel=0.05)

    @pytest.mark.usefixtures("memory_measured")
    @pytest.mark.slow
    def test_tracing_that_was_on_stays_on(self) -> None:
        tracemalloc.start()
        try:
            compare(settings(algorithms=["FOMAML"]))
            assert tracemalloc.is_tracing()
        finally:
            tracemalloc.stop()

    def test_a_contestant_that_did_not_take_part(self, regression: Comparison) -> None:
        with pytest.raises(
            ArgumentException, match=r"algorithm must be one of random, transfer, iMAML.*, got 'Newton'"
        ):
            regression.of("Newton")

    def test_a_seed_that_was_not_run(self, regression: Comparison) -> None:
        with pytest.raises(ArgumentException, match=r"^seed must be one of 0, 5, got 9$"):
            regression.curves(9)

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("settings", None, "settings must be ComparisonSettings, got None"),
            ("settings", "sinusoid", "settings must be ComparisonSettings, got 'sinusoid'"),
            ("earlier", 5, "earlier must be a Comparison, or None, got 5"),
            ("on_run", 5, "on_run must be a function of a Comparison, or None, got 5"),
        ],
    )
    def test_arguments_of_another_kind(self, name: str, value: Any, message: str) -> None:
        kind = ArgumentException if value is not None else ArgumentNullException
        with pytest.raises(kind, match=message):
            compare(**{"settings": settings(), name: value})

    def test_a_divergence_names_contestant_and_seed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        problem = PROBLEMS["sinusoid"]
        monkeypatch.setitem(vars(problem), "options", {**problem.options, "InnerLearningRate": 1e30})
        with pytest.raises(InvalidOperationException, match=r"random from seed 7: the query loss of task 0"):
            compare(settings(algorithms=["FOMAML"], seeds=(7,)))


@pytest.mark.slow
@pytest.mark.parametrize("data", ["sinusoid", "digits"])
def test_workers_find_the_same(data: str) -> None:
    wanted = compare(settings(data=data, algorithms=["MAML"]))
    with ThreadPoolExecutor(3) as pool:
        found = compare(settings(data=data, algorithms=["MAML"]), executor=pool)
    assert [(run.losses, run.accuracies) for run in found.runs] == [(run.losses, run.accuracies) for run in wanted.runs]


class TestAdaptationCurve:
    def learner(self, slope: float) -> tuple[MAMLAlgorithm[np.float64], TaskBatch[np.float64]]:
        """A line y = wx from w = 0, and tasks y = ax: w after k steps is a (1 − (1 − 2α mean x²)ᵏ)."""
        x = np.array([[1.0], [-1.0]])
        task = MetaLearningTask(
            SupportSetX=x, SupportSetY=slope * x, QuerySetX=2 * x, QuerySetY=2 * slope * x, NumWays=1
        )
        model = NeuralNetworkModel(Sequential(Dense(1, bias=False)), input_shape=(1,), dtype=np.float64, seed=0)
        model.SetParameters(np.zeros(1))
        learner = MAMLAlgorithm(MAMLOptions(model, InnerLearningRate=0.1, AdaptationSteps=3))
        return learner, TaskBatch([task, task])

    def expected(self, slope: float, steps: int) -> NDArray[np.float64]:
        return np.array([4 * slope**2 * 0.8 ** (2 * k) for k in range(steps + 1)])

    def test_as_many_steps_as_the_learner_takes(self) -> None:
        learner, batch = self.learner(3.0)
        losses, accuracies = learner.adaptation_curve(batch)
        np.testing.assert_allclose(losses, np.tile(self.expected(3.0, 3), (2, 1)), rtol=1e-12)
        assert accuracies.shape == (2, 4)
        assert np.isnan(accuracies).all()
        assert learner.BaseModel.GetParameters() == 0
        assert learner.CurrentIteration == 0

    def test_more_steps_than_that(self) -> None:
        learner, batch = self.learner(-2.0)
        np.testing.assert_allclose(learner.adaptation_curve(batch, 9).losses[1], self.expected(-2.0, 9), rtol=1e-12)
        assert learner.AdaptationSteps == 3

    @pytest.mark.parametrize("steps", [0, -1, 1.5, "two"])
    def test_no_count(self, steps: Any) -> None:
        learner, batch = self.learner(1.0)
        with pytest.raises(ArgumentOutOfRangeException, match="steps must be a whole number of at least 1, got"):
            learner.adaptation_curve(batch, steps)

    def test_no_batch(self) -> None:
        nothing: Any = None
        with pytest.raises(ArgumentException, match="taskBatch must be a TaskBatch, got None"):
            self.learner(1.0)[0].adaptation_curve(nothing)

    def test_a_solver_takes_no_steps(self) -> None:
        learner, batch = self.learner(1.0)
        options = iMAMLOptions.FromPaper(learner.BaseModel, InnerOptimizer=NewtonCGMinimizer())
        with pytest.raises(
            InvalidOperationException, match=r"InnerOptimizer must take steps .*, got a NewtonCGMinimizer"
        ):
            iMAMLAlgorithm(options).adaptation_curve(batch)

    def test_a_loss_that_is_not_finite(self) -> None:
        learner, batch = self.learner(1.0)
        learner.Options.InnerLearningRate = 1e200
        with pytest.raises(InvalidOperationException, match="query loss of task 0"):
            learner.adaptation_curve(batch)


class TestSettings:
    def test_what_is_usual_for_the_data(self) -> None:
        found = ComparisonSettings.of("digits")
        assert found.algorithms == tuple(ALGORITHMS)
        assert (found.iterations, found.meta_batch, found.shots, found.seeds) == (300, 8, 1, (0,))

    def test_values_are_kept_as_plain_ones(self, tmp_path: Path) -> None:
        given: dict[str, Any] = {
            "algorithms": np.array(["MAML", "ProtoNets"]),
            **{name: np.int64(3) for name in ("iterations", "meta_batch", "shots", "test_tasks", "adaptation_steps")},
            "seeds": np.arange(2),
            "archive": tmp_path,
        }
        plain = {
            "data": "omniglot",
            "algorithms": ("MAML", "ProtoNets"),
            **dict.fromkeys(("iterations", "meta_batch", "shots", "test_tasks", "adaptation_steps"), 3),
            "seeds": (0, 1),
            "archive": str(tmp_path),
        }
        data = np.str_("omniglot")
        for found in (ComparisonSettings(data=data, **given), ComparisonSettings.of(data, **given)):
            assert vars(found) == plain
            assert [type(value) for value in vars(found).values()] == [type(value) for value in plain.values()]
            assert {type(entry) for entry in (*found.algorithms, *found.seeds)} == {str, int}
            none = Comparison(found, ())
            assert Comparison.from_json(none.to_json()) == none

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"data": "cifar"}, "data must be 'sinusoid', 'digits' or 'omniglot', got 'cifar'"),
            ({"algorithms": ["Newton"]}, r"algorithms must be names out of iMAML, MAML, FOMAML.*, got 'Newton'$"),
            ({"algorithms": ["imaml"]}, r"algorithms must be names .*, got 'imaml' \(did you mean iMAML\?\)"),
            ({"algorithms": 5}, "algorithms must be a sequence of names, got 5"),
            ({"algorithms": "MAML"}, "algorithms must be a sequence of names, got 'MAML'"),
            ({"algorithms": [["MAML"]]}, r"algorithms must be names out of .*, got \['MAML'\]$"),
            ({"algorithms": []}, "algorithms must have at least one entry, got none"),
            ({"algorithms": ["MAML", "MAML"]}, "algorithms must have no duplicates, got MAML, MAML"),
            ({"iterations": 0}, "iterations must be a whole number from 1 to 1000000000, got 0"),
            ({"meta_batch": 1.5}, "meta_batch must be a whole number of at least 1, got 1.5"),
            ({"shots": -1}, "shots must be a whole number of at least 1, got -1"),
            ({"shots": True}, "shots must be a whole number of at least 1, got True"),
            ({"test_tasks": 1}, "test_tasks must be a whole number of at least 2, got 1"),
            ({"adaptation_steps": 0}, "adaptation_steps must be a whole number from 1 to 1000000000, got 0"),
            ({"seeds": ()}, "seeds must have at least one entry, got none"),
            ({"seeds": 5}, "seeds must be a sequence of whole numbers, got 5"),
            ({"seeds": (1, 1)}, "seeds must have no duplicates, got 1, 1"),
            ({"seeds": (-1,)}, "seeds must be a whole number from 0 to 4294967295, got -1"),
            ({"seeds": (False,)}, "seeds must be a whole number from 0 to 4294967295, got False"),
            ({"seeds": (0.0,)}, "seeds must be a whole number from 0 to 4294967295, got 0.0"),
            ({"seeds": (2**32,)}, "seeds must be a whole number from 0 to 4294967295, got 4294967296"),
            (
                {"data": "omniglot"},
                "archive must be the path of a published archive or its folder for omniglot, got None",
            ),
            ({"data": "omniglot", "archive": 5}, "archive must be the path of a published archive .*, got 5"),
            ({"data": "omniglot", "archive": ""}, "archive must be the path of a published archive .*, got ''"),
            ({"archive": "here.zip"}, "archive must be left out for sinusoid, got 'here.zip'"),
        ],
    )
    def test_refused(self, given: dict[str, Any], message: str) -> None:
        with pytest.raises(ArgumentException, match=message):
            settings(**given)

    @pytest.mark.parametrize("name", ["meta_batch", "shots", "test_tasks"])
    def test_sizes_beyond_all_memories(self, name: str) -> None:
        """Those beyond float64 ended in an OverflowError, in files too."""
        for size in (10**18, 10**320, 10**5000):
            with pytest.raises(ArgumentOutOfRangeException, match=f"^{name} must be smaller, got .* GiB"):
                settings(**{name: size})
        document = json.loads(Comparison(settings(), ()).to_json())
        document["settings"][name] = 10**320
        with pytest.raises(ArgumentOutOfRangeException, match=f"^{name} must be smaller, got .* GiB"):
            Comparison.from_json(json.dumps(document))


class TestJson:
    @pytest.mark.slow
    @pytest.mark.parametrize("data", ["sinusoid", "digits"])
    def test_round_trip(self, data: str, request: pytest.FixtureRequest) -> None:
        found: Comparison = request.getfixturevalue("regression" if data == "sinusoid" else "classification")
        text = found.to_json()
        assert Comparison.from_json(text) == found
        older = json.loads(text)
        for run in older["runs"]:
            del run["single_accuracy"]
        assert all(run.single_accuracy is None for run in Comparison.from_json(json.dumps(older)).runs)
        plain = json.loads(text)
        assert plain["runs"][0]["losses"][0][0] == found.runs[0].losses[0].Mean

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"settings": {}, "runs": []}', '{"settings": 1, "runs": 1}'])
    def test_other_text(self, text: str) -> None:
        with pytest.raises(ArgumentException, match="text must be an output of to_json, got "):
            Comparison.from_json(text)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            *(("algorithm", value) for value in (None, [], "mamba")),
            *(("seed", value) for value in (None, "0", 0.5, -1)),
            *(("losses", value) for value in (None, "", {}, [], [[1.0, 2.0]], [1.0] * 9)),
            *(
                ("losses", [[1.0, 2.0]] * 8 + [pair])
                for pair in ([1.0, []], [None, 1.0], ["1", 1.0], [1.0], [1e400, 1.0])
            ),
            *(("accuracies", value) for value in ("", {}, [[1.0, 2.0]])),
            *(("losses", [pair] * 9) for pair in ([1.0, -0.5], [1e300, 1.0], [1.0, 1e300])),
            *(("training_seconds", value) for value in ("", {}, "x", True, -1.0)),
            *(("peak_bytes", value) for value in ("", [1], 0.5, 10**400)),
            *(("single_accuracy", value) for value in (1.0, [1.0], ["x", 1.0])),
        ],
    )
    def test_runs_are_checked(self, name: str, value: Any) -> None:
        """A file that was edited, or cut off and mended: its tables ended in a traceback."""
        plain = self.document("sinusoid", None)
        assert Comparison.from_json(json.dumps(plain)).runs[0].losses[8].HalfWidth == 0.5
        plain["runs"][0][name] = value
        with pytest.raises(ArgumentException):
            Comparison.from_json(json.dumps(plain))

    @pytest.mark.parametrize(
        ("data", "changes", "message"),
        [
            ("digits", {"accuracies": None}, "accuracies must be pairs of numbers for digits, got None"),
            ("digits", {"accuracies": [[1.5, 0.1]] * 9}, r"accuracies must be a number in \[0.0, 1.0\], got 1.5"),
            ("digits", {"single_accuracy": [0.5, -0.1]}, r"single_accuracy must be a number in \[0.0, 1.0\], got -0.1"),
            ("sinusoid", {"accuracies": [[0.5, 0.1]] * 9}, "accuracies must be None for sinusoid"),
            ("sinusoid", {"single_accuracy": [0.5, 0.1]}, "single_accuracy must be None for sinusoid"),
            ("sinusoid", {"algorithm": "centroid"}, "without those that need classes for sinusoid, got 'centroid'"),
            ("sinusoid", {"algorithm": "ProtoNets"}, "without those that need classes for sinusoid, got 'ProtoNets'"),
        ],
    )
    def test_runs_are_of_the_data(self, data: str, changes: dict[str, Any], message: str) -> None:
        plain = self.document(data, None if data == "sinusoid" else [[0.5, 0.1]] * 9)
        assert len(Comparison.from_json(json.dumps(plain)).runs) == 1
        plain["runs"][0] |= changes
        with pytest.raises(ArgumentException, match=message):
            Comparison.from_json(json.dumps(plain))

    def test_intervals_of_the_largest_losses_are_read(self) -> None:
        """The widest interval is that of two tasks, one at each end of float32."""
        largest = float(np.finfo(np.float32).max)
        widest = BasicStats.of(np.array([-largest, largest])).ConfidenceInterval()
        plain = self.document("sinusoid", None)
        plain["runs"][0]["losses"] = [[largest, float(widest.HalfWidth)]] * 9
        assert Comparison.from_json(json.dumps(plain)).runs[0].losses[0].HalfWidth == widest.HalfWidth

    def test_a_contestant_has_one_run_from_a_seed(self) -> None:
        plain = self.document("sinusoid", None)
        plain["runs"] *= 2
        with pytest.raises(ArgumentException, match="runs must have one of MAML from seed 0, got several"):
            Comparison.from_json(json.dumps(plain))

    @staticmethod
    def document(data: str, accuracies: Any) -> dict[str, Any]:
        """A comparison of one run, as in a file."""
        run = {
            "algorithm": "MAML",
            "seed": 0,
            "losses": [[1.0, 0.5]] * 9,
            "accuracies": accuracies,
            "training_seconds": 0.5,
            "peak_bytes": 9,
            "single_accuracy": None,
        }
        return {"settings": asdict(ComparisonSettings.of(data, adaptation_steps=8)), "runs": [run]}

    def test_settings_are_checked(self, regression: Comparison) -> None:
        with pytest.raises(ArgumentException, match=r"data must be .*, got 'cifar'"):
            Comparison.from_json(regression.to_json().replace('"sinusoid"', '"cifar"'))


class TestFigure:
    def curve(self, *means: float) -> list[ConfidenceInterval[np.float64]]:
        return [ConfidenceInterval(np.float64(mean), np.float64(0.25)) for mean in means]

    def test_a_panel_each_with_bands(self) -> None:
        losses = {
            "seed 0": {"MAML": self.curve(3, 2, 1), "random": self.curve(4, 4, 4)},
            "seed 1": {"MAML": self.curve(3, 1, 1), "random": self.curve(5, 5, 4)},
        }
        figure: Any = draw_adaptation_curves(losses, {}, "A title")
        assert [axes.get_title() for axes in figure.axes] == ["seed 0", "seed 1"]
        first, second = figure.axes
        assert first.get_yscale() == "log"
        np.testing.assert_array_equal(second.lines[0].get_ydata(), [3, 1, 1])
        band = first.collections[0].get_paths()[0].vertices
        assert (band[:, 1].min(), band[:, 1].max()) == (0.75, 3.25)
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["MAML", "random"]

    def test_accuracies_below(self) -> None:
        figure: Any = draw_adaptation_curves({"": {"A": self.curve(2, 1)}}, {"": {"A": self.curve(0.2, 0.7)}})
        assert [axes.get_ylabel() for axes in figure.axes] == ["query loss", "query accuracy"]
        assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear"]

    def test_nothing_to_draw(self) -> None:
        with pytest.raises(ArgumentException, match="losses must have the curves of at least one panel, got none"):
            draw_adaptation_curves({})


@pytest.mark.slow
def test_on_sinusoids_meta_learning_beats_transfer_and_a_random_start() -> None:
    algorithms = ["iMAML", "MAML", "FOMAML", "Reptile"]
    found = compare(ComparisonSettings.of("sinusoid", algorithms=algorithms, iterations=500))
    last = {run.algorithm: run.losses[-1] for run in found.runs}
    baselines = min(last["random"].Lower, last["transfer"].Lower)
    assert all(2 * last[algorithm].Upper < baselines for algorithm in algorithms), last
