"""The training loop: steps, and the evaluations and checkpoints that fall due between them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from aidotnet_py.meta_learning.contract.learner import IMetaLearner
from aidotnet_py.meta_learning.contract.results import MetaTrainingResult, MetaTrainingStepResult
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["TrainingHistory", "train"]

R = TypeVar("R")


class TrainingHistory(Generic[T]):
    """The steps, evaluations and time of a run so far."""

    def __init__(self) -> None:
        # Loss and accuracy of a step together, so that there is never one without the other.
        self._steps: list[tuple[T, T]] = []
        self._metrics: dict[str, T] = {}
        self._elapsed = timedelta()

    def __len__(self) -> int:
        """How many steps were taken."""
        return len(self._steps)

    def from_here(self) -> Callable[[], None]:
        """Return a function that forgets the steps noted from now on."""
        count = len(self._steps)

        def forget() -> None:
            del self._steps[count:]

        return forget

    def note(self, step: MetaTrainingStepResult[T]) -> None:
        """Note a step that was taken."""
        self._steps.append((step.MetaLoss, step.Accuracy))

    def note_evaluation(self, iteration: int, loss: T, accuracy: T) -> None:
        """Note the means of an evaluation."""
        self._metrics |= {f"EvaluationLoss@{iteration}": loss, f"EvaluationAccuracy@{iteration}": accuracy}

    def note_time(self, began: float) -> None:
        """Note how long the run has taken, by the performance counter."""
        self._elapsed = timedelta(seconds=time.perf_counter() - began)

    def result(self) -> MetaTrainingResult[T] | None:
        """Return the result of the run; None before its first step, as histories hold at least one."""
        if not self._steps:
            return None
        losses, accuracies = zip(*self._steps, strict=True)
        return MetaTrainingResult(np.array(losses), np.array(accuracies), self._elapsed, dict(self._metrics))


class _Aside(Protocol):
    """Runs something whose draws do not count."""

    def __call__(self, work: Callable[[], R]) -> R: ...


def train(
    learner: IMetaLearner[T, TInput, TOutput],
    history: TrainingHistory[T],
    step: Callable[[], MetaTrainingStepResult[T]],
    aside: _Aside,
) -> MetaTrainingResult[T]:
    """Take NumMetaIterations steps, each of which notes itself in the history; draws of evaluations do not count.

    An error that stops the run gets a note with the number of its steps.
    """
    folder = _writable_folder() if learner.Options.EnableCheckpointing else None
    began = time.perf_counter()
    try:
        _take_steps(learner, history, step, aside, folder)
    except BaseException as error:
        done, wanted = len(history), learner.Options.NumMetaIterations
        error.add_note(
            f"Train was stopped after {done} of {wanted} steps, all of them whole; training_result has their "
            f"histories. To go on, set NumMetaIterations to {wanted - done} and call Train again"
        )
        raise
    finally:
        history.note_time(began)
    result = history.result()
    assert result is not None
    return result


def _take_steps(
    learner: IMetaLearner[T, TInput, TOutput],
    history: TrainingHistory[T],
    step: Callable[[], MetaTrainingStepResult[T]],
    aside: _Aside,
    folder: Path | None,
) -> None:
    # Imported here, since it takes a fifth of the time that the whole package takes.
    from tqdm import tqdm

    options = learner.Options
    with tqdm(total=options.NumMetaIterations, desc=learner.AlgorithmType.name, disable=None) as progress:
        while len(history) < options.NumMetaIterations:
            taken = step()
            progress.set_postfix_str(f"loss={float(taken.MetaLoss):.4f}", refresh=False)
            progress.update()
            frequency = options.EvaluationFrequency
            if frequency and options.DataLoader is not None and taken.Iteration % frequency == 0:
                evaluation = aside(lambda: learner.Evaluate(options.EvaluationTasks))
                history.note_evaluation(taken.Iteration, evaluation.LossStats.Mean, evaluation.AccuracyStats.Mean)
            if folder is not None and taken.Iteration % options.CheckpointFrequency == 0:
                learner.Save(folder / f"checkpoint_{learner.AlgorithmType.name}_{taken.Iteration}.safetensors")


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
