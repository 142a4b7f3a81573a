"""The amendments to the contract, read against AiDotNet's source, as far as they concern options, tasks and results."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from aidotnet_py import (
    ANILOptions,
    ArgumentException,
    ArgumentNullException,
    BasicStats,
    FunctionModel,
    IEpisode,
    InvalidOperationException,
    ITaskSampler,
    MAMLOptions,
    MetaAdaptationResult,
    MetaEvaluationResult,
    MetaLearningTask,
    MetaLearningTaskBase,
    MetaSGDOptions,
    MetaTrainingResult,
    MetaTrainingStepResult,
    ModelMetadata,
    NeuralNetworkModel,
    ReptileOptions,
    TaskBatch,
    iMAMLOptions,
)
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.nn import mlp

X = np.arange(12.0).reshape(6, 2)
LABELS = np.array([0, 1, 2, 0, 1, 2])
SECOND = timedelta(seconds=1)


def model() -> FunctionModel[Any, Any, Any]:
    return FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((2, 1))})


def task(**changes: Any) -> MetaLearningTask[Any, Any, Any]:
    return MetaLearningTask(**{"SupportSetX": X, "SupportSetY": LABELS, "NumWays": 3, "NumShots": 2, **changes})


def trained(*losses: float) -> MetaTrainingResult[Any]:
    return MetaTrainingResult(np.array(losses), np.full(len(losses), np.nan), SECOND)


class TestFrequencies:
    """2. EvaluationFrequency = 0 switches evaluation off; CheckpointFrequency = 0 is valid without checkpoints."""

    def test_of_zero_are_valid(self) -> None:
        assert iMAMLOptions(model(), EvaluationFrequency=0, CheckpointFrequency=0).IsValid()

    def test_checkpoints_need_one(self) -> None:
        options = iMAMLOptions(model(), CheckpointFrequency=0, EnableCheckpointing=True)
        assert options.first_problem() == "CheckpointFrequency must be at least 1 with EnableCheckpointing, got 0"


STEP = dict(zip(("metaLoss", "taskLoss", "accuracy", "numTasks", "iteration", "timeMs"), range(6), strict=True))
ADAPTATION = {
    "queryAccuracy": 1,
    "queryLoss": 2,
    "supportAccuracy": 3,
    "supportLoss": 4,
    "adaptationSteps": 5,
    "adaptationTimeMs": 6.0,
}
RUN = {"lossHistory": np.ones(2), "accuracyHistory": np.ones(2), "trainingTime": SECOND}
EVALUATION = {"taskAccuracies": np.ones(2), "taskLosses": np.ones(2), "evaluationTime": SECOND}
CONSTRUCTORS: list[tuple[Any, dict[str, Any]]] = [
    (MetaTrainingStepResult, STEP),
    (MetaAdaptationResult, ADAPTATION),
    (MetaTrainingResult, RUN),
    (MetaEvaluationResult, EVALUATION),
]


class TestNull:
    """3. null arguments are ArgumentNullException."""

    @pytest.mark.parametrize(("kind", "arguments"), CONSTRUCTORS, ids=lambda v: getattr(v, "__name__", ""))
    def test_in_a_result(self, kind: Any, arguments: dict[str, Any]) -> None:
        kind(**arguments)
        for name in arguments:
            with pytest.raises(ArgumentNullException, match=rf"^{name} must be given, got None$"):
                kind(**{**arguments, name: None})

    @pytest.mark.parametrize(
        "call",
        [
            lambda: task().SetMetadata(None, 1),
            lambda: task().TryGetMetadata(None),
            lambda: TaskBatch([task()]).SetMetadata(None, 1),
            lambda: TaskBatch([task()]).GetMetadata(None),
            lambda: ModelMetadata().SetProperty(None, 1),
            lambda: ModelMetadata().RemoveProperty(None),
        ],
    )
    def test_key(self, call: Callable[[], Any]) -> None:
        with pytest.raises(ArgumentNullException, match=r"^key must be a string, got None$"):
            call()

    def test_tasks_and_data(self) -> None:
        with pytest.raises(ArgumentNullException, match=r"^tasks must be a sequence of tasks, got None$"):
            TaskBatch(None)  # type: ignore[arg-type]
        for name in ("SupportSetX", "SupportSetY"):
            with pytest.raises(ArgumentNullException, match=rf"^{name} must be an array, got None$"):
                task(**{name: None})
        with pytest.raises(ArgumentNullException, match=r"^QuerySetY must be an array, got None$"):
            task(QuerySetX=X)
        with pytest.raises(ArgumentNullException, match=r"^values must be an array of numbers, got None$"):
            BasicStats.of(None)  # type: ignore[arg-type]


class TestParameterNames:
    """4. parameter names are AiDotNet's; ours before become errors that name the new one."""

    @pytest.mark.parametrize(
        ("function", "names"),
        [
            (TaskBatch.GetRange, ["startIndex", "count"]),
            (TaskBatch.Split, ["numSubBatches"]),
            (SinusoidLoader.GetTaskBatch, ["numTasks"]),
            (MetaTrainingResult.__init__, [*RUN, "additionalMetrics"]),
            (MetaEvaluationResult.__init__, [*EVALUATION, "additionalMetrics"]),
            (MetaTrainingStepResult.__init__, [*STEP, "additionalMetrics"]),
            (MetaAdaptationResult.__init__, [*ADAPTATION, "perStepLosses", "additionalMetrics"]),
        ],
    )
    def test_are_those_of_aidotnet(self, function: Any, names: list[str]) -> None:
        assert list(inspect.signature(function).parameters)[1 : 1 + len(names)] == names

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda b: b.GetRange(start=0, count=1), "GetRange has no argument 'start'; it is 'startIndex'"),
            (lambda b: b.Split(n=1), "Split has no argument 'n'; it is 'numSubBatches'"),
            (lambda b: SinusoidLoader().GetTaskBatch(n=1), "GetTaskBatch has no argument 'n'; it is 'numTasks'"),
            (lambda b: MetaTrainingResult(LossHistory=1), "MetaTrainingResult has no .* 'LossHistory'; it is 'lossH"),
            (lambda b: MetaEvaluationResult(PerTaskLosses=1), "no argument 'PerTaskLosses'; it is 'taskLosses'"),
            (lambda b: MetaAdaptationResult(PerStepLosses=1), "no argument 'PerStepLosses'; it is 'perStepLosses'"),
            (lambda b: MetaTrainingStepResult(TimeMs=1), "no argument 'TimeMs'; it is 'timeMs'"),
        ],
    )
    def test_earlier_names_are_errors(self, call: Callable[[Any], Any], message: str) -> None:
        with pytest.raises(TypeError, match=message):
            call(TaskBatch([task()]))

    def test_results_have_properties_of_the_documented_names(self) -> None:
        step = MetaTrainingStepResult(**STEP, additionalMetrics={"norm": 2.0})  # type: ignore[arg-type]
        assert (step.MetaLoss, step.TaskLoss, step.Accuracy, step.NumTasks, step.Iteration, step.TimeMs) == (*range(6),)
        assert step.AdditionalMetrics == {"norm": 2.0}
        adaptation = MetaAdaptationResult(**ADAPTATION)  # type: ignore[arg-type]
        assert (adaptation.QueryAccuracy, adaptation.QueryLoss, adaptation.SupportAccuracy) == (1, 2, 3)
        assert (adaptation.SupportLoss, adaptation.AdaptationSteps, adaptation.AdaptationTimeMs) == (4, 5, 6.0)
        assert adaptation.PerStepLosses.size == 0

    def test_metrics_are_copied(self) -> None:
        metrics = {"norm": 2.0}
        step = MetaTrainingStepResult(**STEP, additionalMetrics=metrics)  # type: ignore[arg-type]
        metrics["norm"] = 3.0
        assert step.AdditionalMetrics == {"norm": 2.0}


class TestStatistics:
    """5. HasConverged: sample variance, strictly below; averages of a batch without numbers are 0."""

    def test_has_converged_takes_the_sample_variance_strictly_below_the_threshold(self) -> None:
        # Of 0 and 1 the sample variance is 1/2, the population's 1/4.
        assert not trained(0.0, 1.0).HasConverged(2, 0.3)
        assert not trained(0.0, 1.0).HasConverged(2, 0.5)
        assert trained(0.0, 1.0).HasConverged(2, math.nextafter(0.5, 1.0))
        assert not trained(1.0, 1.0).HasConverged(2, 0.0)

    def test_averages_of_a_batch_without_numbers(self) -> None:
        batch = TaskBatch([task(), task()])
        assert (batch.AverageDifficulty, batch.DifficultyVariance, batch.AverageTaskSimilarity) == (0.0, 0.0, 0.0)
        assert batch.TaskDifficulties is batch.TaskSimilarities is None


class TestValidate:
    """5. Validate without data: InvalidOperationException."""

    @pytest.mark.parametrize("missing", ["SupportInput", "SupportOutput", "QueryInput", "QueryOutput"])
    def test_without_data(self, missing: str) -> None:
        class Own(MetaLearningTaskBase[Any, Any, Any]):
            SupportInput = QueryInput = property(lambda self: X)  # type: ignore[assignment]
            SupportOutput = QueryOutput = property(lambda self: LABELS)  # type: ignore[assignment]

        Own().Validate()
        setattr(Own, missing, property(lambda self: None))
        with pytest.raises(InvalidOperationException, match=rf"^{missing} must be an array, got None$"):
            Own().Validate()


class TestEpisodes:
    """6. samplers deal in episodes."""

    def test_members(self) -> None:
        members = ("Task", "EpisodeId", "Domain", "Difficulty", "LastLoss", "SampleCount")

        class Plain:
            pass

        episode = Plain()
        assert not isinstance(episode, IEpisode)
        for name in members:
            setattr(episode, name, None)
        assert isinstance(episode, IEpisode)

    def test_signatures_of_samplers(self) -> None:
        assert "IEpisode" in str(inspect.signature(ITaskSampler.SampleOne).return_annotation)
        parameters = inspect.signature(ITaskSampler.UpdateWithFeedback).parameters
        assert list(parameters) == ["self", "episodes", "losses"]
        assert "IEpisode" in str(parameters["episodes"].annotation)


class TestDefaults:
    """8. Reptile and Meta-SGD take AiDotNet's defaults; Meta-SGD and ANIL stay exact; negative seeds are valid."""

    @pytest.mark.parametrize("kind", [ReptileOptions, MetaSGDOptions])
    def test_of_the_run(self, kind: Any) -> None:
        options = kind(model())
        assert (options.NumMetaIterations, options.EvaluationFrequency, options.CheckpointFrequency) == (
            10000,
            500,
            1000,
        )

    @pytest.mark.parametrize("kind", [iMAMLOptions, MAMLOptions])
    def test_of_the_others(self, kind: Any) -> None:
        options = kind(model())
        assert (options.NumMetaIterations, options.EvaluationFrequency, options.CheckpointFrequency) == (1000, 100, 500)

    def test_meta_sgd_and_anil_are_exact(self) -> None:
        network = NeuralNetworkModel(mlp(4, 1), input_shape=(1,), seed=0)
        assert MetaSGDOptions(network).UseFirstOrder is False
        assert ANILOptions(network).UseFirstOrder is False

    def test_a_negative_seed_is_valid(self) -> None:
        assert iMAMLOptions(model(), RandomSeed=-3).IsValid()


class TestBasicStats:
    """11. BasicStats has Variance, Skewness, Kurtosis, quartiles, InterquartileRange, MAD."""

    @given(st.lists(st.integers(-1000, 1000), min_size=4, max_size=30).filter(lambda v: len(set(v)) > 1))
    def test_against_scipy(self, values: list[int]) -> None:
        numbers = np.array(values, float)
        stats = BasicStats.of(numbers)
        first, third = scipy.stats.scoreatpercentile(numbers, [25, 75])
        expected = {
            "Variance": scipy.stats.tvar(numbers),
            "StandardDeviation": scipy.stats.tstd(numbers),
            "Skewness": scipy.stats.skew(numbers, bias=False),
            "Kurtosis": scipy.stats.kurtosis(numbers, bias=False),
            "FirstQuartile": first,
            "ThirdQuartile": third,
            "InterquartileRange": scipy.stats.iqr(numbers),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(getattr(stats, name), value, rtol=1e-9, atol=1e-9, err_msg=name)

    def test_a_mean_deviation_from_the_median(self) -> None:
        # |1 − 2|, |2 − 2|, |9 − 2| about the median, not the mean.
        assert pytest.approx(8 / 3) == BasicStats.of(np.array([1.0, 2.0, 9.0])).MAD

    def test_what_needs_more_numbers_is_nan(self) -> None:
        fields = ("Variance", "Skewness", "Kurtosis")
        for count in (1, 2, 3):
            stats = BasicStats.of(np.arange(float(count)))
            assert [math.isnan(getattr(stats, name)) for name in fields] == [count < 2, count < 3, count < 4]
            assert (stats.InterquartileRange, stats.N) == ((count - 1) / 2, count)

    def test_numbers_without_spread_have_no_shape(self) -> None:
        stats = BasicStats.of(np.ones(5))
        assert (stats.Variance, stats.MAD) == (0, 0)
        assert math.isnan(stats.Skewness)
        assert math.isnan(stats.Kurtosis)

    def test_of_a_list(self) -> None:
        assert BasicStats.of([1.0, 2.0, 9.0]).Mean == 4.0  # type: ignore[arg-type]
        with pytest.raises(ArgumentException, match=r"^values must hold floating-point numbers, got dtype int64$"):
            BasicStats.of([1, 2])  # type: ignore[arg-type]

    def test_in_the_dtype_of_the_numbers(self) -> None:
        stats = BasicStats.of(np.arange(5, dtype=np.float32))
        assert {type(getattr(stats, name)) for name in vars(stats) if name != "N"} == {np.float32}


class TestHints:
    def test_lambda_is_not_taken_for_its_reciprocal(self) -> None:
        with pytest.raises(TypeError, match=r"no option 'Lambda'; LambdaRegularization is 1/λ .* 0\.5 for λ = 2") as e:
            iMAMLOptions(model(), Lambda=2.0)  # type: ignore[call-arg]
        assert "did you mean" not in str(e.value)
        assert "iMAMLOptions.FromPaper(model, Lambda=2)" in str(e.value)
        assert iMAMLOptions.FromPaper(model(), Lambda=2.0).LambdaRegularization == 0.5
        with pytest.raises(TypeError, match=r"LambdaRegularization is 1/λ .*InnerObjective='proximal'"):
            MAMLOptions(model(), lam=2.0)  # type: ignore[call-arg]

    @pytest.mark.parametrize(
        ("slip", "meant"),
        [
            ("inner", ["InnerOptimizer", "InnerLearningRate", "InnerObjective"]),
            ("lr", ["InnerLearningRate", "OuterLearningRate", "OuterLearningRateSchedule"]),
            ("alpha", ["InnerLearningRate"]),
            ("num_steps", ["AdaptationSteps"]),
            ("batch_size", ["MetaBatchSize", "MicroBatchSize"]),
            ("seed", ["RandomSeed"]),
            ("save_every", ["CheckpointFrequency"]),
            ("hessian", ["Curvature"]),
        ],
    )
    def test_go_by_meaning(self, slip: str, meant: list[str]) -> None:
        with pytest.raises(TypeError) as error:
            iMAMLOptions(model(), **{slip: 1})
        asked = " or ".join(map(repr, meant))
        assert str(error.value) == f"iMAMLOptions has no option {slip!r}; did you mean {asked}?"

    @pytest.mark.parametrize("slip", ["invert", "verbose", "device"])
    def test_do_not_go_by_spelling_alone(self, slip: str) -> None:
        with pytest.raises(TypeError, match=f"no option '{slip}'; it has MetaModel, "):
            iMAMLOptions(model(), **{slip: 1})


class TestDescriptions:
    def test_of_a_regression_has_no_ways(self) -> None:
        regression = MetaLearningTask(SupportSetX=X, SupportSetY=X[:, :1], Name="line")
        assert repr(regression) == "<MetaLearningTask 'line': support (6, 2) → (6, 1)>"
        assert repr(TaskBatch([regression])) == "<TaskBatch of 1: support (6, 2) → (6, 1)>"
        assert "way" not in repr(MetaLearningTask(SupportSetX=[1.0], SupportSetY=[2.0]))
        assert "way" not in repr(SinusoidLoader().GetNextTask())

    @pytest.mark.parametrize(
        "targets", [LABELS, np.eye(3)[LABELS], np.eye(3)[LABELS] > 0], ids=["indices", "rows", "bool"]
    )
    def test_of_classes_has_them(self, targets: Any) -> None:
        shape = tuple(targets.shape)
        assert repr(task(SupportSetY=targets, Name="c")) == (
            f"<MetaLearningTask 'c': 3-way 2-shot, support (6, 2) → {shape}>"
        )
