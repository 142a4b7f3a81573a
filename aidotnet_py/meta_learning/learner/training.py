"""The training loop: steps, and the evaluations, checkpoints and callbacks that fall due between them."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aidotnet_py.exceptions import InvalidOperationException
from aidotnet_py.meta_learning.contract.results import (
    MetaEvaluationResult,
    MetaTrainingResult,
    MetaTrainingStepResult,
)
from aidotnet_py.meta_learning.contract.training_run import (
    EvaluationRecord,
    IRunFolder,
    ITrainingCallback,
    TrainingRun,
)
from aidotnet_py.progress import progress_bar
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["train"]

_LOG = logging.getLogger("aidotnet_py.training")


def train(
    run: TrainingRun[T, TInput, TOutput],
    step: Callable[[], MetaTrainingStepResult[T]],
    evaluate: Callable[[], MetaEvaluationResult[T]],
    folder: IRunFolder | None = None,
    callbacks: Sequence[ITrainingCallback] = (),
    *,
    resume: bool = False,
) -> MetaTrainingResult[T]:
    """Take steps until NumMetaIterations are in the history, each of which notes itself there.

    ``evaluate`` evaluates EvaluationTasks tasks; its draws do not count. An error that stops the run gets a note with
    the number of its steps.
    """
    options = run.learner.Options
    # A folder keeps the checkpoints of its run itself, and saves before other callbacks may fail.
    keeper = folder if folder is not None else _Checkpoints() if options.EnableCheckpointing else None
    everyone = [*([] if keeper is None else [keeper]), *callbacks]
    _start(run, everyone, folder, resume=resume)
    began = time.perf_counter()
    try:
        done = len(run.history)
        _LOG.info("%s begins at step %d of %d", run.learner.AlgorithmType.name, done, options.NumMetaIterations)
        _take_steps(run, step, evaluate, everyone)
    except BaseException as error:
        error.add_note(_how_to_go_on(run, folder))
        _LOG.info("stopped after %d steps by %s", len(run.history), type(error).__name__)
        _stop(run, everyone, error)
        raise
    finally:
        run.history.note_time(began)
    if failure := _stop(run, everyone):
        raise failure
    _LOG.info("ended after %d steps%s", len(run.history), f": {run.stop_reason}" if run.stop_reason else "")
    result = run.history.result()
    if result is None:
        raise InvalidOperationException(
            f"Train must take a step, got a stop before the first: {run.stop_reason}; call stop in on_step or later"
        )
    return result


def _start(
    run: TrainingRun[Any, Any, Any],
    callbacks: Sequence[ITrainingCallback],
    folder: IRunFolder | None,
    *,
    resume: bool,
) -> None:
    """Start all callbacks; if one fails, stop those that have started, and the folder, which may be held already."""
    started: list[ITrainingCallback] = []
    try:
        for callback in callbacks:
            if resume and folder is not None and callback is folder:
                folder.resume(run)
            else:
                callback.on_start(run)
            started.append(callback)
    except BaseException as error:
        _stop(run, started if folder is None or folder in started else [folder], error)
        raise


def _stop(
    run: TrainingRun[Any, Any, Any], callbacks: Sequence[ITrainingCallback], error: BaseException | None = None
) -> BaseException | None:
    """Tell all callbacks of the end, or of an error; return it, or their own first error, with the others as notes."""
    first = error
    for callback in callbacks:
        try:
            callback.on_stop(run, error)
        except Exception as another:
            if first is None:
                first = another
            else:
                name = type(callback).__name__
                first.add_note(f"on_stop of {name} failed after it: {type(another).__name__}: {another}")
    return first


def _how_to_go_on(run: TrainingRun[Any, Any, Any], folder: IRunFolder | None) -> str:
    done, wanted = len(run.history), run.learner.Options.NumMetaIterations
    if folder is not None:
        return f"Train was stopped after {done} of {wanted} steps, all of them whole. To go on, {folder.remedy}"
    return (
        f"Train was stopped after {done} of {wanted} steps, all of them whole; training_result has their "
        f"histories. To go on, set NumMetaIterations to {wanted - done} and call Train again"
    )


def _take_steps(
    run: TrainingRun[T, TInput, TOutput],
    step: Callable[[], MetaTrainingStepResult[T]],
    evaluate: Callable[[], MetaEvaluationResult[T]],
    callbacks: Sequence[ITrainingCallback],
) -> None:
    total, name = run.learner.Options.NumMetaIterations, run.learner.AlgorithmType.name
    with progress_bar(total=total, initial=len(run.history), desc=name) as progress:
        while True:
            # Before the step and not after it, so that a run that was stopped in between makes up for it.
            if _evaluation_is_due(run):
                evaluation = evaluate()
                record = EvaluationRecord.of(run.learner.CurrentIteration, evaluation)
                run.history.note_evaluation(record)
                _LOG.info("step %d: evaluation loss %.6g ± %.2g", record.iteration, *_of(record.loss))
                for callback in callbacks:
                    callback.on_evaluation(run, evaluation)
            _stop_early(run)
            if run.stop_reason is not None or run.steps_left == 0:
                return
            taken = step()
            progress.set_postfix_str(_shown(taken), refresh=False)
            progress.update()
            for callback in callbacks:
                callback.on_step(run, taken)


def _of(interval: Any) -> tuple[float, float]:
    """Return mean and half-width of an interval."""
    return float(interval.Mean), float(interval.HalfWidth)


def _shown(step: MetaTrainingStepResult[Any]) -> str:
    loss, accuracy = float(step.MetaLoss), float(step.Accuracy)
    return f"loss={loss:.4f}" + (f", accuracy={accuracy:.3f}" if accuracy == accuracy else "")


def _evaluation_is_due(run: TrainingRun[Any, Any, Any]) -> bool:
    options, iteration, noted = run.learner.Options, run.learner.CurrentIteration, run.history.evaluations
    if not options.EvaluationFrequency or (options.ValidationLoader is None and options.DataLoader is None):
        return False
    already = bool(noted) and noted[-1].iteration == iteration
    return len(run.history) > 0 and iteration % options.EvaluationFrequency == 0 and not already


def _stop_early(run: TrainingRun[Any, Any, Any]) -> None:
    """Stop the run if so many evaluations as EarlyStoppingPatience did not improve on the best one."""
    patience = run.learner.Options.EarlyStoppingPatience
    if patience is None or run.history.evaluations_since_best < patience:
        return
    best = run.history.best_evaluation
    assert best is not None
    run.stop(f"{patience} evaluations in a row were not better than that at step {best.iteration}")


class _Checkpoints(ITrainingCallback):
    """Every CheckpointFrequency steps, a checkpoint in the folder that is the current one as the run begins."""

    def __init__(self) -> None:
        self._folder = _writable_folder()

    def on_step(self, run: TrainingRun[Any, Any, Any], step: MetaTrainingStepResult[Any]) -> None:
        learner = run.learner
        if learner.Options.EnableCheckpointing and step.Iteration % learner.Options.CheckpointFrequency == 0:
            learner.Save(self._folder / f"checkpoint_{learner.AlgorithmType.name}_{step.Iteration}.safetensors")


def _writable_folder() -> Path:
    """Return the current folder; raise OSError if no file can be made in it, which only an attempt tells."""
    folder = Path()
    try:
        folder = Path.cwd()
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=".part"):
            return folder
    except OSError as error:
        raise OSError(
            error.errno,
            f"EnableCheckpointing must be False, as no checkpoint can be written: {error.strerror}",
            str(folder),
        ) from error
