"""The learners that a run has saved, looked at before it goes on: the last checkpoint and the best learner."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from aidotnet_py.caller import level_outside
from aidotnet_py.descriptions import join_clauses
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning import EvaluationRecord, TrainingRun
from aidotnet_py.meta_learning.contract.training_run import TrainingHistory
from aidotnet_py.meta_learning.learner.checkpoint import Checkpoint
from aidotnet_py.runs.json_lines import read_lines
from aidotnet_py.runs.metric_lines import float_of, history_of, is_step
from aidotnet_py.runs.run_files import BEST, checkpoint_name

__all__ = ["check_best", "read_last", "warn_of_older_best", "warn_of_other_evaluations"]

_LOG = logging.getLogger("aidotnet_py.training")


def read_last(checkpoints: Sequence[Path]) -> Checkpoint:
    """Return the last checkpoint; an error names the one before."""
    last = checkpoints[-1]
    try:
        checkpoint = Checkpoint.load(last)
        if last.name != checkpoint_name(checkpoint.algorithm, checkpoint.iteration):
            # The next checkpoint would count as older, and be removed.
            raise ArgumentException(
                f"{last} must have the name of its algorithm and step, got {checkpoint.algorithm} after "
                f"{checkpoint.iteration} steps"
            )
        return checkpoint
    except ArgumentException as error:
        earlier = (
            f"; if you remove that file, Train continues from {checkpoints[-2].name}" if len(checkpoints) > 1 else ""
        )
        raise type(error)(f"{error}{earlier}") from error


def warn_of_other_evaluations(run: TrainingRun[Any, Any, Any], checkpoint: Checkpoint) -> None:
    """Warn if the evaluations to come draw other tasks than those so far; for a learner that was loaded."""
    clauses = checkpoint.differences_of_evaluations(run.learner.Options)
    if clauses:
        warnings.warn(
            f"evaluations will be on other tasks than those before, with which {BEST} and EarlyStoppingPatience "
            f"compare them: {join_clauses(clauses)}; set these as they were, or begin a new run with {BEST} loaded",
            UserWarning,
            stacklevel=level_outside(),
        )


def check_best(best: Path, last: int, wanted: EvaluationRecord | None) -> None:
    """Remove the best learner if it is of a step that is taken anew, perhaps with other settings.

    Tell if it is not that of the best evaluation, as in a copy of the folder that was made while the run went on.
    """
    if not best.exists():
        return
    try:
        held = Checkpoint.load(best).iteration
    except ArgumentException:
        # A damaged one says so where it is opened, and keeps no run from going on.
        return
    if held > last:
        best.unlink()
        _LOG.warning("%s of step %d is removed, as the run goes on from step %d", best, held, last)
    elif wanted is not None and held != wanted.iteration:
        _LOG.warning("%s", _not_the_best(best, held, wanted))


def warn_of_older_best(best: Path, held: int, metrics: Path) -> None:
    """Warn if the best learner, of step ``held``, is that of an earlier evaluation than the best one."""
    try:
        evaluations = [line for line, _ in read_lines(metrics) if not is_step(line)]
        history = TrainingHistory[Any]()
        history.take_up(*history_of(evaluations, float_of, metrics), timedelta())
    except (ArgumentException, FileNotFoundError):
        # Damaged metrics say so where a run goes on.
        return
    wanted = history.best_evaluation
    # While a run goes on, the file is there before the line.
    if wanted is not None and held < wanted.iteration:
        warnings.warn(_not_the_best(best, held, wanted), UserWarning, stacklevel=level_outside())


def _not_the_best(best: Path, held: int, wanted: EvaluationRecord) -> str:
    return (
        f"{best} should be of step {wanted.iteration}, which has the best evaluation, got step {held}; copy the file "
        "from the folder that this is a copy of"
    )
