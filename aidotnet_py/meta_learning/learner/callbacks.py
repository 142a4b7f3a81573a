"""The callbacks of a run: whom the training loop tells of what, in which order, and what they must leave alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aidotnet_py.exceptions import ArgumentException, InvalidOperationException
from aidotnet_py.meta_learning.contract.options import MetaLearnerOptions
from aidotnet_py.meta_learning.contract.results import MetaEvaluationResult, MetaTrainingStepResult
from aidotnet_py.meta_learning.contract.training_run import IRunFolder, ITrainingCallback, TrainingRun
from aidotnet_py.meta_learning.learner.periodic_checkpoints import PeriodicCheckpoints

__all__ = ["Callbacks", "is_evaluated", "require_valid"]


class Callbacks:
    """The folder of a run, or else its checkpoints, and the callbacks of the user.

    The folder comes first, before others may fail; but after a step it comes last, as a checkpoint must hold what the
    others changed: another process goes on from it without calling them again.
    """

    def __init__(
        self, run: TrainingRun[Any, Any, Any], folder: IRunFolder | None, callbacks: Sequence[ITrainingCallback]
    ) -> None:
        self._run, self._folder, self._users = run, folder, callbacks
        self._keeper = PeriodicCheckpoints(run.learner.Options) if folder is None else folder

    def start(self, *, resume: bool) -> None:
        """Start all; if one fails, stop those that have started, and the folder, which may be held already."""
        run, folder, started = self._run, self._folder, list[ITrainingCallback]()
        try:
            for callback in (self._keeper, *self._users):
                if resume and folder is not None and callback is folder:
                    folder.resume(run)
                else:
                    self._tell(callback, lambda callback: callback.on_start(run))
                started.append(callback)
        except BaseException as error:
            self._stop(started if folder is None or folder in started else [folder], error)
            raise

    def note_step(self, step: MetaTrainingStepResult[Any]) -> None:
        """Tell all of a step."""
        for callback in (*self._users, self._keeper):
            self._tell(callback, lambda callback: callback.on_step(self._run, step))

    def note_evaluation(self, evaluation: MetaEvaluationResult[Any]) -> None:
        """Tell all of an evaluation; the folder first, as it keeps the best learner as it was evaluated."""
        for callback in (self._keeper, *self._users):
            self._tell(callback, lambda callback: callback.on_evaluation(self._run, evaluation))

    def stop(self, error: BaseException | None = None) -> BaseException | None:
        """Tell all of the end, or of an error; return it, or their own first error, with the others as notes."""
        return self._stop([self._keeper, *self._users], error)

    def _stop(self, callbacks: Sequence[ITrainingCallback], error: BaseException | None) -> BaseException | None:
        first = error
        for callback in callbacks:
            try:
                callback.on_stop(self._run, error)
            except Exception as another:
                if first is None:
                    first = another
                else:
                    name = type(callback).__name__
                    first.add_note(f"on_stop of {name} failed after it: {type(another).__name__}: {another}")
        return first

    def _tell(self, callback: ITrainingCallback, call: Callable[[ITrainingCallback], None]) -> None:
        """Call a callback; raise if it left what the run cannot go on from."""
        learner, folder = self._run.learner, self._folder
        before = learner.CurrentIteration
        call(callback)
        if folder is not None and learner.CurrentIteration != before:
            raise InvalidOperationException(
                f"CurrentIteration must be {before} after a call of {type(callback).__name__}, got "
                f"{learner.CurrentIteration}: the folder of a run holds each of its steps once. A callback may change "
                "options and parameters, and end the run by run.stop; it may take steps and call Load in a run without "
                "a folder"
            )
        require_valid(learner.Options)


def require_valid(options: MetaLearnerOptions[Any, Any, Any]) -> None:
    """Raise ArgumentException if a run cannot go on with these options, which callbacks may have set."""
    problem = options.first_problem()
    if problem is not None:
        raise ArgumentException(problem)
    patience = options.EarlyStoppingPatience
    if patience is not None and not is_evaluated(options):
        raise ArgumentException(
            f"EarlyStoppingPatience must be None where nothing is evaluated, got {patience}; set EvaluationFrequency "
            "to at least 1, and a ValidationLoader or a DataLoader"
        )


def is_evaluated(options: MetaLearnerOptions[Any, Any, Any]) -> bool:
    """Whether a run has evaluations: how often is given, and a loader to draw their tasks from."""
    has_loader = options.ValidationLoader is not None or options.DataLoader is not None
    return options.EvaluationFrequency > 0 and has_loader
