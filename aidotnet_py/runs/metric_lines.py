"""The lines of metrics.jsonl and times.jsonl: from steps and evaluations, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning import ConfidenceInterval, EvaluationRecord, MetaTrainingStepResult
from aidotnet_py.meta_learning.contract.protocols import model_backend
from aidotnet_py.models.interfaces import parameter_dtype

__all__ = [
    "float_of",
    "history_of",
    "is_step",
    "line_of",
    "line_of_evaluation",
    "line_of_time",
    "scalar_of",
    "time_of",
]

# A function from a number of JSON, where null is one that was not finite, to a number of the caller's type.
_Scalar = Callable[[float | None], Any]


def line_of(step: MetaTrainingStepResult[Any]) -> dict[str, Any]:
    """Return the numbers of a step by their names in ``metrics.jsonl``."""
    line = {"Iteration": step.Iteration, "MetaLoss": float(step.MetaLoss), "TaskLoss": float(step.TaskLoss)}
    line |= {"Accuracy": float(step.Accuracy), "NumTasks": step.NumTasks}
    return line | {name: float(value) for name, value in step.AdditionalMetrics.items()}


def line_of_time(step: MetaTrainingStepResult[Any]) -> dict[str, Any]:
    """Return the line of a step that has just ended in ``times.jsonl``."""
    ended = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"Iteration": step.Iteration, "TimeMs": step.TimeMs, "Ended": ended}


def line_of_evaluation(evaluation: EvaluationRecord) -> dict[str, Any]:
    """Return the numbers of an evaluation by their names in ``metrics.jsonl``."""
    return {
        "Iteration": evaluation.iteration,
        "EvaluationLoss": float(evaluation.loss.Mean),
        "EvaluationLossHalfWidth": float(evaluation.loss.HalfWidth),
        "EvaluationAccuracy": float(evaluation.accuracy.Mean),
        "EvaluationAccuracyHalfWidth": float(evaluation.accuracy.HalfWidth),
        "EvaluationTasks": evaluation.tasks,
    }


def _evaluation_of(line: Mapping[str, Any], scalar: Any) -> EvaluationRecord:
    loss, accuracy = (
        ConfidenceInterval(scalar(line[f"Evaluation{name}"]), scalar(line[f"Evaluation{name}HalfWidth"]))
        for name in ("Loss", "Accuracy")
    )
    return EvaluationRecord(line["Iteration"], loss, accuracy, line["EvaluationTasks"])


def scalar_of(model: Any) -> Callable[[float | None], Any]:
    """Return the model's number type, from numbers of JSON; null is NaN."""
    kind = parameter_dtype(model, model_backend(model)).type
    return lambda value: kind(float_of(value))


def float_of(value: float | None) -> np.float64:
    """Return a number of JSON, where null is one that was not finite."""
    # A list would be an array.
    return np.float64(np.nan if value is None else float(value))


def is_step(line: Mapping[str, Any]) -> bool:
    """Return whether a line of metrics is of a step, and not of an evaluation."""
    return "EvaluationLoss" not in line


def history_of(
    lines: Sequence[Mapping[str, Any]], scalar: _Scalar, path: Path
) -> tuple[list[tuple[Any, Any]], list[EvaluationRecord]]:
    """Return loss and accuracy of each step, and the evaluations, from the lines of metrics in a file.

    Raises
    ------
    ArgumentException
        When they hold anything else.
    """
    try:
        return (
            [(scalar(line["MetaLoss"]), scalar(line["Accuracy"])) for line in lines if is_step(line)],
            [_evaluation_of(line, scalar) for line in lines if not is_step(line)],
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ArgumentException(f"{path} must hold losses and accuracies, got {error!r}") from error


def time_of(lines: Sequence[Mapping[str, Any]], path: Path) -> timedelta:
    """Return the time that steps took, from their lines in a file of times.

    Raises
    ------
    ArgumentException
        When they hold anything else.
    """
    try:
        return timedelta(milliseconds=sum(line["TimeMs"] for line in lines))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ArgumentException(f"{path} must hold times in milliseconds, got {error!r}") from error
