"""A run of `Train` as callbacks see it: its history, and the protocols of callbacks and of a run's folder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Generic, NamedTuple, Protocol, runtime_checkable

import numpy as np

from aidotnet_py.arguments import check_given, refusal
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.locks import Lock
from aidotnet_py.meta_learning.contract.learner import IMetaLearner
from aidotnet_py.meta_learning.contract.results import (
    MetaEvaluationResult,
    MetaTrainingResult,
    MetaTrainingStepResult,
)
from aidotnet_py.meta_learning.contract.sources import ITaskSampler
from aidotnet_py.meta_learning.contract.statistics import ConfidenceInterval
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["EvaluationRecord", "IRunFolder", "ITrainingCallback", "TrainingHistory", "TrainingRun"]


class EvaluationRecord(NamedTuple):
    """The means of an evaluation, with half-widths of their 95 % intervals.

    Attributes
    ----------
    iteration : int
        The steps that the learner had taken.
    loss, accuracy : ConfidenceInterval
        Over the tasks; the accuracy is NaN for regression.
    tasks : int
        How many tasks there were.
    """

    iteration: int
    loss: ConfidenceInterval[Any]
    accuracy: ConfidenceInterval[Any]
    tasks: int

    @staticmethod
    def of(iteration: int, result: MetaEvaluationResult[Any]) -> EvaluationRecord:
        """Return the record of an evaluation after some steps."""
        loss, accuracy = result.GetLossConfidenceInterval(), result.GetAccuracyConfidenceInterval()
        return EvaluationRecord(iteration, loss, accuracy, result.NumTasks)


class TrainingHistory(Generic[T]):
    """The steps, evaluations and time of a run so far."""

    def __init__(self) -> None:
        # Loss and accuracy of a step together, so that there is never one without the other.
        self._steps: list[tuple[T, T]] = []
        self._evaluations: list[EvaluationRecord] = []
        # How many evaluations were compared, and the place of the best of these.
        self._best: tuple[int, int] = (0, 0)
        self._last_step: MetaTrainingStepResult[T] | None = None
        # Of the calls of `Train` that took the first steps, and of all.
        self._before = self._elapsed = timedelta()

    def __len__(self) -> int:
        """How many steps were taken."""
        return len(self._steps)

    @property
    def last_step(self) -> MetaTrainingStepResult[T] | None:
        """The result of the last step that this process took; None before it."""
        return self._last_step

    @property
    def evaluations(self) -> Sequence[EvaluationRecord]:
        """The evaluations, from the first on."""
        return self._evaluations

    @property
    def best_evaluation(self) -> EvaluationRecord | None:
        """The evaluation of the lowest mean loss, the first of several; None before the first."""
        return self._evaluations[self._place_of_best()] if self._evaluations else None

    @property
    def evaluations_since_best(self) -> int:
        """How many evaluations came after the best one."""
        return len(self._evaluations) - 1 - self._place_of_best() if self._evaluations else 0

    def _place_of_best(self) -> int:
        count, best = self._best
        for place in range(count, len(self._evaluations)):
            if _mean_loss(self._evaluations[place]) < _mean_loss(self._evaluations[best]):
                best = place
        self._best = len(self._evaluations), best
        return best

    def from_here(self) -> Callable[[], None]:
        """Return a function that forgets the steps noted from now on."""
        count, last = len(self._steps), self._last_step

        def forget() -> None:
            del self._steps[count:]
            self._last_step = last

        return forget

    def note(self, step: MetaTrainingStepResult[T]) -> None:
        """Note a step that was taken."""
        self._steps.append((step.MetaLoss, step.Accuracy))
        self._last_step = step

    def note_evaluation(self, evaluation: EvaluationRecord) -> None:
        """Note an evaluation."""
        self._evaluations.append(evaluation)

    def take_up(
        self, steps: Sequence[tuple[T, T]], evaluations: Sequence[EvaluationRecord], elapsed: timedelta
    ) -> None:
        """Begin with losses and accuracies of steps, evaluations, and the time taken, that another process noted."""
        self._steps, self._evaluations, self._last_step, self._best = list(steps), list(evaluations), None, (0, 0)
        self._before = self._elapsed = elapsed

    def note_time(self, began: float) -> None:
        """Note how long the run has taken, by the performance counter, with the time from before."""
        self._elapsed = self._before + timedelta(seconds=time.perf_counter() - began)

    def result(self) -> MetaTrainingResult[T] | None:
        """Return the result of the run; None before its first step, as histories hold at least one."""
        if not self._steps:
            return None
        losses, accuracies = zip(*self._steps, strict=True)
        metrics: dict[str, T] = {}
        for evaluation in self._evaluations:
            metrics[f"EvaluationLoss@{evaluation.iteration}"] = evaluation.loss.Mean
            metrics[f"EvaluationAccuracy@{evaluation.iteration}"] = evaluation.accuracy.Mean
        return MetaTrainingResult(np.array(losses), np.array(accuracies), self._elapsed, metrics)


def _mean_loss(evaluation: EvaluationRecord) -> float:
    loss = float(evaluation.loss.Mean)
    return math.inf if math.isnan(loss) else loss


class TrainingRun(Generic[T, TInput, TOutput]):
    """A run of `Train`, as its callbacks see it.

    Attributes
    ----------
    learner : IMetaLearner
        The learner that trains.
    history : TrainingHistory
        Steps and evaluations so far.
    sampler : ITaskSampler or None
        Where the tasks of the steps come from; None: the DataLoader.
    stop_reason : str or None
        Why the run ends before NumMetaIterations steps; None if it does not.
    """

    def __init__(
        self,
        learner: IMetaLearner[T, TInput, TOutput],
        history: TrainingHistory[T],
        sampler: ITaskSampler[Any, TInput, TOutput] | None = None,
        running: Lock | None = None,
    ) -> None:
        self.learner = learner
        self.history = history
        self.sampler = sampler
        self.stop_reason: str | None = None
        # Held as long as `Train` goes on, whatever ends it.
        self._running = running

    @property
    def is_going(self) -> bool:
        """Whether this thread is in the `Train` of this run, such as in a callback."""
        return self._running is not None and self._running.is_owned()

    @property
    def steps_left(self) -> int:
        """Steps to NumMetaIterations."""
        return max(self.learner.Options.NumMetaIterations - len(self.history), 0)

    def stop(self, reason: str) -> None:
        """End the run before the next step, as if NumMetaIterations were reached.

        Raises
        ------
        ArgumentException
            When the reason is no text, or an empty one; None is refused too (ArgumentNullException).
        """
        check_given("reason", reason, "a non-empty string")
        if not isinstance(reason, str) or not reason:  # pyright: ignore[reportUnnecessaryIsInstance] -- callers may be untyped
            raise ArgumentException(refusal("reason", "a non-empty string", reason))
        self.stop_reason = reason


@runtime_checkable
class ITrainingCallback(Protocol):
    """What `Train` calls as it goes on. A class that inherits from this writes only the methods that it needs.

    It may change the learner's options and, in `on_step`, its parameters. An error in a callback stops the run, as an
    error in a step does.

    Examples
    --------
    >>> import numpy as np
    >>> from aidotnet_py import FunctionModel, ITrainingCallback, MAMLAlgorithm, MAMLOptions
    >>> from aidotnet_py.data import SinusoidLoader
    >>> class StopAtThree(ITrainingCallback):
    ...     def on_step(self, run, step):
    ...         if step.Iteration == 3:
    ...             run.stop("three are enough")
    >>> model = FunctionModel(lambda p, x: x * p["w"], {"w": np.zeros(1, np.float32)})
    >>> learner = MAMLAlgorithm(MAMLOptions(model, DataLoader=SinusoidLoader(seed=0)))
    >>> learner.Train(callbacks=[StopAtThree()]).TotalIterations
    3
    """

    def on_start(self, run: TrainingRun[Any, Any, Any]) -> None:
        """Prepare, before the first step; an error here costs no work."""
        return

    def on_step(self, run: TrainingRun[Any, Any, Any], step: MetaTrainingStepResult[Any]) -> None:
        """Take note of a step."""
        return

    def on_evaluation(self, run: TrainingRun[Any, Any, Any], evaluation: MetaEvaluationResult[Any]) -> None:
        """Take note of an evaluation on EvaluationTasks tasks."""
        return

    def on_stop(self, run: TrainingRun[Any, Any, Any], error: BaseException | None) -> None:
        """Clean up after the last step, or after what stopped the run."""
        return


@runtime_checkable
class IRunFolder(ITrainingCallback, Protocol):
    """Where a run is kept, so that another process can go on with it; `aidotnet_py.RunFolder` is one."""

    @property
    def remedy(self) -> str:
        """How to go on with a run that was stopped, as the end of a sentence."""
        ...

    def resume(self, run: TrainingRun[Any, Any, Any]) -> None:
        """Bring learner and history to where the run was; called instead of `on_start`."""
        ...
