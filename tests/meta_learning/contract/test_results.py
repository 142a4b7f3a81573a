"""Results: summaries against scipy and the statistics module, NaN accuracies, reports and refusals."""

from __future__ import annotations

import copy
import math
import pickle
import statistics
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException
from aidotnet_py.meta_learning.contract.results import (
    MetaAdaptationResult,
    MetaEvaluationResult,
    MetaTrainingResult,
    MetaTrainingStepResult,
)
from aidotnet_py.meta_learning.contract.statistics import BasicStats, ConfidenceInterval

FLOATS = st.floats(-1e3, 1e3)
NAN = float("nan")


def trained(losses: Any, accuracies: Any = None, **more: Any) -> MetaTrainingResult:
    losses = np.asarray(losses)
    accuracies = np.full_like(losses, NAN) if accuracies is None else np.asarray(accuracies)
    return MetaTrainingResult(losses, accuracies, timedelta(seconds=4), **more)


def evaluated(losses: Any, accuracies: Any = None, **more: Any) -> MetaEvaluationResult:
    losses = np.asarray(losses)
    accuracies = np.full_like(losses, NAN) if accuracies is None else np.asarray(accuracies)
    return MetaEvaluationResult(accuracies, losses, timedelta(seconds=4), **more)


def adapted(**changes: Any) -> MetaAdaptationResult:
    values: dict[str, Any] = {
        "queryAccuracy": np.float64(0.75),
        "queryLoss": np.float64(0.5),
        "supportAccuracy": np.float64(1.0),
        "supportLoss": np.float64(0.25),
        "adaptationSteps": 5,
        "adaptationTimeMs": 1.5,
    }
    return MetaAdaptationResult(**{**values, **changes})


class TestStats:
    def test_an_interval(self) -> None:
        stats = BasicStats.of(np.array([1.0, 2.0, 3.0]))
        assert stats.ConfidenceInterval() == ConfidenceInterval(np.float64(2.0), np.float64(1.96 / 3**0.5))

    @pytest.mark.parametrize("value", [0.1, 0.7, 1e300])
    def test_equal_numbers_have_no_spread(self, value: float) -> None:
        # The mean of seven is off by rounding, which was taken for a spread: a skewness of −2.4 of three equal numbers.
        stats = BasicStats.of(np.full(7, value))
        assert stats.Variance == stats.StandardDeviation == stats.ConfidenceInterval().HalfWidth == 0
        assert math.isnan(stats.Skewness)
        assert math.isnan(stats.Kurtosis)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (np.array([]), r"values must have at least one number, got shape \(0,\)"),
            (np.ones((2, 2)), r"values must be one-dimensional, got shape \(2, 2\)"),
            (np.array([1, 2]), "values must hold floating-point numbers, got dtype int64"),
        ],
    )
    def test_of_no_numbers(self, values: Any, message: str) -> None:
        with pytest.raises(ArgumentException, match=message):
            BasicStats.of(values)


class TestStep:
    def test_holds_what_it_was_given_and_cannot_change(self) -> None:
        step = MetaTrainingStepResult(np.float32(1), np.float32(2), np.float32(0.5), 4, 7, 12.5)
        assert (step.MetaLoss, step.TaskLoss, step.Accuracy) == (1, 2, 0.5)
        assert (step.NumTasks, step.Iteration, step.TimeMs, step.AdditionalMetrics) == (4, 7, 12.5, {})
        with pytest.raises(AttributeError):
            step.MetaLoss = np.float32(3)  # type: ignore[misc]


class TestTraining:
    def test_ends_and_improvements(self) -> None:
        result = trained([2.5, 3.0, 0.75], [0.25, 0.5, 0.75])
        assert result.TotalIterations == 3
        assert (result.InitialLoss, result.FinalLoss) == (2.5, 0.75)
        assert (result.InitialAccuracy, result.FinalAccuracy) == (0.25, 0.75)
        assert result.CalculateLossImprovement() == 1.75
        assert result.CalculateAccuracyImprovement() == 0.5

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_numbers_keep_their_type(self, dtype: type[np.floating[Any]]) -> None:
        result = trained(np.array([2, 1], dtype), np.array([0, 1], dtype))
        for value in (
            result.InitialLoss,
            result.FinalAccuracy,
            result.CalculateLossImprovement(),
            result.CalculateAccuracyImprovement(),
            result.FindBestLoss().Value,
            result.FindBestAccuracy().Value,
        ):
            assert type(value) is dtype

    def test_histories_are_copies_that_cannot_be_written_to(self) -> None:
        losses = np.array([1.0, 2.0])
        result = trained(losses)
        losses[0] = 9
        assert result.LossHistory.tolist() == [1, 2]
        with pytest.raises(ValueError, match="read-only"):
            result.LossHistory[0] = 3

    def test_a_list_of_scalars_is_a_history(self) -> None:
        scalars = [np.float32(2), np.float32(1)]
        result = MetaTrainingResult(scalars, scalars, timedelta())  # type: ignore[arg-type, var-annotated]
        assert result.LossHistory.dtype == np.float32

    @given(st.lists(FLOATS, min_size=1, max_size=30), st.lists(FLOATS, min_size=30, max_size=30))
    def test_the_best_is_the_first_extreme(self, losses: list[float], others: list[float]) -> None:
        accuracies = others[: len(losses)]
        result = trained(losses, accuracies)
        assert result.FindBestLoss() == (min(losses), losses.index(min(losses)))
        assert result.FindBestAccuracy() == (max(accuracies), accuracies.index(max(accuracies)))

    def test_the_best_passes_nan_over(self) -> None:
        result = trained([NAN, 3.0, NAN, 2.0], [NAN, 0.5, NAN, 0.25])
        assert result.FindBestLoss() == (2.0, 3)
        assert result.FindBestAccuracy() == (0.5, 1)
        value, iteration = trained([1.0, 2.0]).FindBestAccuracy()
        assert math.isnan(value)
        assert iteration == 0

    @given(st.lists(st.floats(-0.1, 0.1), min_size=5, max_size=40), st.integers(2, 45))
    def test_convergence_is_a_small_variance_of_the_last_window(self, losses: list[float], window: int) -> None:
        variance = statistics.variance(losses[-window:])
        for threshold in (variance * 0.999, variance * 1.001 + 1e-300):
            wanted = len(losses) >= window and variance < threshold
            assert trained(losses).HasConverged(window, threshold) == wanted

    def test_a_window_may_be_a_small_integer_of_numpy(self) -> None:
        # −100 is 156 in uint8, and the window was empty.
        assert trained(np.ones(120)).HasConverged(np.uint8(100))  # type: ignore[arg-type]  # callers may be untyped

    def test_convergence_has_the_documented_defaults(self) -> None:
        assert not trained(np.ones(99)).HasConverged()
        assert trained(np.r_[50.0, np.ones(100)]).HasConverged()
        # 100 numbers ±a about 0 have the sample variance a² · 100/99.
        assert trained(np.tile([1.0, -1.0], 50) * math.sqrt(0.99 * 0.00099)).HasConverged()
        assert not trained(np.tile([1.0, -1.0], 50) * math.sqrt(0.99 * 0.00101)).HasConverged()
        assert not trained(np.r_[np.ones(99), NAN]).HasConverged()

    def test_convergence_refuses_senseless_questions(self) -> None:
        with pytest.raises(ArgumentOutOfRangeException, match="windowSize must be at least 2 for a variance, got 1"):
            trained([1.0]).HasConverged(windowSize=1)
        for bad in (-1e-9, NAN):
            with pytest.raises(ArgumentOutOfRangeException, match=f"varianceThreshold must be at least 0, got {bad}"):
                trained([1.0]).HasConverged(varianceThreshold=bad)

    def test_report(self) -> None:
        report = trained([2.0, 0.5, 1.0], [0.2, 0.9, 0.8], additionalMetrics={"gradient norm": np.float64(3)})
        lines = {line[:22].strip(): line[23:] for line in report.GenerateReport().splitlines()}
        assert lines == {
            "Meta-training": "",
            "iterations": "3",
            "time": "4.00 s (0.8 iterations/s)",
            "loss": "2 → 1 (improved by 1)",
            "best loss": "0.5 at iteration 1",
            "accuracy": "0.2 → 0.8 (improved by 0.6)",
            "best accuracy": "0.9 at iteration 1",
            "converged": "no",
            "gradient norm": "3",
        }

    def test_report_of_a_regression_that_took_no_time(self) -> None:
        report = MetaTrainingResult(np.ones(100), np.full(100, NAN), timedelta()).GenerateReport()
        assert "0.00 s\n" in report
        assert "accuracy" not in report
        assert "nan" not in report
        assert "converged            yes" in report

    def test_histories_that_do_not_fit(self) -> None:
        with pytest.raises(
            ArgumentException, match=r"lossHistory and accuracyHistory must .* shapes \(2,\) and \(1,\)"
        ):
            trained([1.0, 2.0], [1.0])
        with pytest.raises(ArgumentException, match=r"must have one length, at least 1, got shapes \(0,\)"):
            trained(np.empty(0))
        with pytest.raises(ArgumentException, match=r"lossHistory must be one-dimensional, got shape \(1, 1\)"):
            trained([[1.0]])
        with pytest.raises(
            ArgumentException, match="accuracyHistory must hold floating-point numbers, got dtype int64"
        ):
            trained([1.0], np.array([1], np.int64))


class TestEvaluation:
    @given(st.lists(FLOATS, min_size=2, max_size=50))
    def test_statistics_and_intervals(self, losses: list[float]) -> None:
        result = evaluated(losses)
        stats, n = result.LossStats, len(losses)
        assert result.NumTasks == stats.N == n
        close = {"rel": 1e-9, "abs": 1e-9}
        assert stats.Mean == pytest.approx(statistics.fmean(losses), **close)
        assert stats.StandardDeviation == pytest.approx(statistics.stdev(losses), **close)
        assert stats.Median == pytest.approx(statistics.median(losses), **close)
        assert (stats.Min, stats.Max) == (min(losses), max(losses))
        lower, upper = interval = result.GetLossConfidenceInterval()
        error = scipy.stats.sem(losses)
        # 1.96 is the contract's rounding of the normal quantile 1.959964.
        reference = scipy.stats.norm(statistics.fmean(losses), max(error, 1e-300)).interval(0.95)
        assert (lower, upper) == pytest.approx(reference, abs=4e-5 * error + 1e-9)
        assert interval.HalfWidth == pytest.approx(1.96 * statistics.stdev(losses) / math.sqrt(n), **close)
        assert interval.Mean == stats.Mean
        assert (interval.Lower, interval.Upper) == (lower, upper)

    def test_accuracies_and_losses_are_not_confused(self) -> None:
        result = evaluated([1.0, 3.0], [0.25, 0.75])
        assert result.AccuracyStats.Mean == 0.5
        assert result.LossStats.Mean == 2.0
        assert result.GetAccuracyConfidenceInterval().HalfWidth == pytest.approx(1.96 * 0.25, rel=1e-15)
        assert result.GetLossConfidenceInterval().HalfWidth == pytest.approx(1.96, rel=1e-15)

    def test_float32_is_summed_in_double_precision(self) -> None:
        losses = np.full(10_001, 0.1, np.float32)
        losses[0] = 1e4
        result = evaluated(losses)
        assert result.LossStats.Mean == np.float32(np.mean(losses.astype(np.float64)))
        stats = result.LossStats
        values = (stats.Mean, stats.StandardDeviation, stats.Median, stats.Min, stats.Max)
        assert all(type(value) is np.float32 for value in (*values, *result.GetLossConfidenceInterval()))

    def test_one_task_says_nothing_of_the_spread(self) -> None:
        stats = evaluated([2.0]).LossStats
        assert (stats.Mean, stats.Median, stats.Min, stats.Max, stats.N) == (2, 2, 2, 2, 1)
        assert math.isnan(stats.StandardDeviation)
        assert all(math.isnan(end) for end in evaluated([2.0]).GetLossConfidenceInterval())

    def test_regression_has_no_accuracy(self) -> None:
        stats = evaluated([1.0, 2.0]).AccuracyStats
        assert all(math.isnan(v) for v in (stats.Mean, stats.StandardDeviation, stats.Median, stats.Min, stats.Max))
        assert stats.N == 2

    def test_infinite_losses_are_told_without_a_warning(self) -> None:
        assert evaluated([1.0, math.inf]).LossStats.Mean == math.inf
        assert "inf" in evaluated([1.0, math.inf]).GenerateReport()

    def test_report(self) -> None:
        result = evaluated([1.0, 2.0, 3.0], [0.5, 0.75, 1.0], additionalMetrics={"worst residual": np.float64(1e-11)})
        lines = {line[:22].strip(): line[23:] for line in result.GenerateReport().splitlines()}
        assert lines == {
            "Meta-evaluation": "",
            "tasks": "3",
            "time": "4.00 s",
            "accuracy": "0.75 ± 0.283 (median 0.75, from 0.5 to 1)",
            "loss": "2 ± 1.13 (median 2, from 1 to 3)",
            "worst residual": "1e-11",
        }

    def test_arrays_that_do_not_fit(self) -> None:
        with pytest.raises(ArgumentException, match=r"taskAccuracies and taskLosses must .* shapes \(1,\) and \(2,"):
            evaluated([1.0, 2.0], [1.0])
        with pytest.raises(ArgumentException, match="at least 1"):
            evaluated(np.empty(0))


class TestAdaptation:
    def test_overfitting_gap_of_a_classifier_is_in_accuracy(self) -> None:
        assert adapted().CalculateOverfittingGap() == 0.25
        assert type(adapted().CalculateOverfittingGap()) is np.float64

    def test_overfitting_gap_of_a_regression_is_in_loss(self) -> None:
        nan = np.float32(NAN)
        losses = {"queryLoss": np.float32(0.75), "supportLoss": np.float32(0.5)}
        gap = adapted(queryAccuracy=nan, supportAccuracy=nan, **losses).CalculateOverfittingGap()
        assert gap == 0.25
        assert type(gap) is np.float32

    @pytest.mark.parametrize(
        ("losses", "threshold", "converged"),
        [
            ([1.0, 0.5, 0.995], 0.01, False),
            ([1.0, 2.0, 0.98], 0.01, True),
            ([1.0, 0.98], 0.05, False),
            ([1.0, 0.75], 0.25, True),
            ([0.5, 0.505], 0.01, False),
            ([0.5, 0.5], 0.0, True),
            ([0.5, 0.75], 0.0, False),
            ([0.5], 0.01, False),
            ([], 0.01, False),
            ([0.5, NAN], 0.01, False),
            ([NAN, 0.5], 0.01, False),
            ([1.0, NAN, 0.5], 0.01, True),
            ([math.inf, math.inf], 0.01, False),
        ],
    )
    def test_convergence_is_a_fall_of_the_loss_by_the_threshold(
        self, losses: list[float], threshold: float, converged: bool
    ) -> None:
        result = adapted(perStepLosses=np.array(losses))
        assert result.DidConverge(threshold) is converged
        if threshold == 0.01:
            assert result.DidConverge() is converged

    def test_convergence_refuses_senseless_thresholds(self) -> None:
        for bad in (-0.1, NAN):
            with pytest.raises(
                ArgumentOutOfRangeException, match=f"convergenceThreshold must be at least 0, got {bad}"
            ):
                adapted().DidConverge(bad)

    def test_report(self) -> None:
        lines = {
            line[:22].strip(): line[23:]
            for line in adapted(
                perStepLosses=np.array([1.0, 0.5, 0.25]), additionalMetrics={"gradient norm": np.float64(0.125)}
            )
            .GenerateReport()
            .splitlines()
        }
        assert lines == {
            "Adaptation": "",
            "steps": "5",
            "time": "1.50 ms",
            "query": "loss 0.5, accuracy 0.75",
            "support": "loss 0.25, accuracy 1",
            "overfitting gap": "0.25",
            "loss by step": "1 → 0.25",
            "converged": "yes",
            "gradient norm": "0.125",
        }
        assert "converged" not in adapted().GenerateReport()

    def test_losses_by_step_that_do_not_fit(self) -> None:
        with pytest.raises(ArgumentException, match=r"perStepLosses must be one-dimensional, got shape \(1, 1\)"):
            adapted(perStepLosses=np.ones((1, 1)))
        with pytest.raises(ArgumentException, match=r"step_parameters must be two-dimensional, got shape \(3,\)"):
            adapted(step_parameters=np.ones(3))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda result: pickle.loads(pickle.dumps(result))])
def test_copies_have_arrays_that_cannot_be_written_to(copied: Any) -> None:
    adaptation = adapted(perStepLosses=[1.0, 0.5], step_parameters=np.ones((1, 3)))
    evaluation = evaluated([1.0, 2.0], single_accuracies=np.ones(2))
    for result, names in (
        (trained([1.0, 2.0]), ("LossHistory", "AccuracyHistory")),
        (evaluation, ("PerTaskLosses", "PerTaskAccuracies", "single_accuracies")),
        (adaptation, ("PerStepLosses", "step_parameters")),
    ):
        again = copied(result)
        for name in names:
            np.testing.assert_array_equal(getattr(again, name), getattr(result, name))
            with pytest.raises(ValueError, match="read-only"):
                getattr(again, name)[0] = 3


def test_results_are_equal_to_themselves_alone_and_keys_of_a_mapping() -> None:
    def stepped() -> MetaTrainingStepResult:
        return MetaTrainingStepResult(np.float32(1), np.float32(1), np.float32(1), 4, 1, 2.5)

    for make in (stepped, adapted, lambda: trained([1.0]), lambda: evaluated([1.0])):
        first, second = make(), make()
        assert {first: 1, second: 2}[first] == 1
        assert first != second


def test_a_report_says_worse_where_it_got_worse() -> None:
    losses, accuracies = np.array([1.0, 3.5]), np.array([0.5, 0.25])
    report = MetaTrainingResult(losses, accuracies, timedelta(seconds=1)).GenerateReport()
    assert "1 → 3.5 (worsened by 2.5)" in report
    assert "0.5 → 0.25 (worsened by 0.25)" in report
