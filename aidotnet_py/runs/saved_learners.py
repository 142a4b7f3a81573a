"""The learners that a run has saved, looked at before it goes on: the last checkpoint and the best learner."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aidotnet_py.caller import level_outside
from aidotnet_py.descriptions import join_clauses
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning import EvaluationRecord, TrainingRun
from aidotnet_py.meta_learning.learner.checkpoint import Checkpoint
from aidotnet_py.runs.run_files import BEST, checkpoint_name

__all__ = ["check_best", "read_last", "warn_of_other_evaluations"]

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
        _LOG.warning(
            "%s should be of step %d, which has the best evaluation, got step %d; copy the file from the folder "
            "that this is a copy of",
            best,
            wanted.iteration,
            held,
        )
