"""The training loop: steps, and the evaluations, checkpoints and callbacks that fall due between them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from aidotnet_py.arguments import COUNT
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
from aidotnet_py.meta_learning.learner.callbacks import Callbacks, is_evaluated, require_valid
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
    require_valid(run.learner.Options)
    everyone = Callbacks(run, folder, callbacks)
    everyone.start(resume=resume)
    began = time.perf_counter()
    try:
        done, wanted = len(run.history), run.learner.Options.NumMetaIterations
        _LOG.info("%s begins at step %d of %d", run.learner.AlgorithmType.name, done, wanted)
        _take_steps(run, step, evaluate, everyone)
    except BaseException as error:
        error.add_note(_how_to_go_on(run, folder))
        _LOG.info("stopped after %d steps by %s", len(run.history), type(error).__name__)
        everyone.stop(error)
        raise
    finally:
        run.history.note_time(began)
    if failure := everyone.stop():
        raise failure
    _LOG.info("ended after %d steps%s", len(run.history), f": {run.stop_reason}" if run.stop_reason else "")
    result = run.history.result()
    if result is None:
        raise InvalidOperationException(
            f"Train must take a step, got a stop before the first: {run.stop_reason}; call stop in on_step or later"
        )
    return result


def _how_to_go_on(run: TrainingRun[Any, Any, Any], folder: IRunFolder | None) -> str:
    done, wanted = len(run.history), run.learner.Options.NumMetaIterations
    # What a callback set may be the very reason.
    known = COUNT.problem("NumMetaIterations", wanted) is None
    steps = f"{done} of {wanted} steps" if known else f"{done} steps"
    if folder is not None:
        return f"Train was stopped after {steps}, all of them whole. To go on, {folder.remedy}"
    patience = run.learner.Options.EarlyStoppingPatience
    return (
        f"Train was stopped after {steps}, all of them whole; training_result has their histories. To go on, set "
        f"NumMetaIterations to {wanted - done if known else 'what is left'} and call Train again"
        f"{'' if patience is None else '; EarlyStoppingPatience counts anew then, which a run folder spares'}"
    )


def _take_steps(
    run: TrainingRun[T, TInput, TOutput],
    step: Callable[[], MetaTrainingStepResult[T]],
    evaluate: Callable[[], MetaEvaluationResult[T]],
    everyone: Callbacks,
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
                everyone.note_evaluation(evaluation)
            _stop_early(run)
            if run.stop_reason is not None or run.steps_left == 0:
                return
            taken = step()
            progress.set_postfix_str(_shown(taken), refresh=False)
            progress.update()
            everyone.note_step(taken)


def _of(interval: Any) -> tuple[float, float]:
    """Return mean and half-width of an interval."""
    return float(interval.Mean), float(interval.HalfWidth)


def _shown(step: MetaTrainingStepResult[Any]) -> str:
    loss, accuracy = float(step.MetaLoss), float(step.Accuracy)
    return f"loss={loss:.4f}" + (f", accuracy={accuracy:.3f}" if accuracy == accuracy else "")


def _evaluation_is_due(run: TrainingRun[Any, Any, Any]) -> bool:
    options, iteration, noted = run.learner.Options, run.learner.CurrentIteration, run.history.evaluations
    if not is_evaluated(options):
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
