"""Checkpoints of a run without a folder, by EnableCheckpointing, in the current folder."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from aidotnet_py.meta_learning.contract.options import MetaLearnerOptions
from aidotnet_py.meta_learning.contract.results import MetaTrainingStepResult
from aidotnet_py.meta_learning.contract.training_run import ITrainingCallback, TrainingRun

__all__ = ["PeriodicCheckpoints"]


class PeriodicCheckpoints(ITrainingCallback):
    """With EnableCheckpointing, a checkpoint every CheckpointFrequency steps.

    They are in the folder that is the current one as the run begins, or as a callback switches them on.
    """

    def __init__(self, options: MetaLearnerOptions[Any, Any, Any]) -> None:
        self._folder = _writable_folder() if options.EnableCheckpointing else None

    def on_step(self, run: TrainingRun[Any, Any, Any], step: MetaTrainingStepResult[Any]) -> None:
        """Save the learner, if it is time."""
        learner = run.learner
        if not learner.Options.EnableCheckpointing:
            return
        if self._folder is None:
            self._folder = _writable_folder()
        if step.Iteration % learner.Options.CheckpointFrequency == 0:
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
