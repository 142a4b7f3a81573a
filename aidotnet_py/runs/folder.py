"""The folder of a run: settings, metrics while they happen, checkpoints, curves; another process goes on from it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aidotnet_py.arguments import COUNT, refusal
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException, InvalidOperationException
from aidotnet_py.json_text import json_text
from aidotnet_py.meta_learning import (
    EvaluationRecord,
    ITrainingCallback,
    MetaEvaluationResult,
    MetaTrainingResult,
    MetaTrainingStepResult,
    TrainingRun,
)
from aidotnet_py.paths import check_path
from aidotnet_py.plotting import draw_training
from aidotnet_py.runs.failed_batch import keep_failed_batch
from aidotnet_py.runs.folder_lock import LOCK, in_use, locked
from aidotnet_py.runs.json_lines import JsonLines, read_lines
from aidotnet_py.runs.metric_lines import (
    float_of,
    history_of,
    is_step,
    line_of,
    line_of_evaluation,
    line_of_time,
    scalar_of,
    time_of,
)
from aidotnet_py.runs.run_files import BEST, CURVES, FAILED, METRICS, RUN, TIMES, checkpoint_name, checkpoints_in
from aidotnet_py.runs.run_record import first_iteration, read_run, require_same_source, write_run
from aidotnet_py.runs.saved_learners import check_best, read_last, warn_of_other_evaluations
from aidotnet_py.whole_files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["RunFolder"]

_LOG = logging.getLogger("aidotnet_py.training")


class RunFolder(ITrainingCallback):
    """A folder that `Train` keeps a run in, and goes on from.

    - ``run.json``: algorithm, options, model, seed and ``settings``, and for each process that worked on the run,
      when it began, at which step, and its `environment`.
    - ``metrics.jsonl``: a line for each step (MetaLoss, TaskLoss, Accuracy, NumTasks, and the metrics of the step) and
      each evaluation (means and half-widths of 95 % intervals), written while they happen. Numbers are exact, and null
      if they are not finite. Two runs of one seed have the same bytes.
    - ``times.jsonl``: the milliseconds of each step, and when it ended.
    - ``checkpoint_{algorithm}_{iteration}.safetensors``: every CheckpointFrequency steps and where the run stopped; the
      last ``keep`` of them. ``best.safetensors``: at the evaluation of the lowest mean loss.
    - ``curves.png``, when the run stops, if matplotlib is installed (the extra ``plot``).
    - ``failed_batch.npz``: the tasks of the step that failed, such as on a loss that is not finite, as
      ``task0.SupportInput`` and so on; `numpy.load` reads it.

    `Train` makes the first checkpoint before the first step. Whatever ends a process, at most the steps since the last
    checkpoint are taken again, with the same bits.

    Parameters
    ----------
    path : str or path
        The folder; made if it is missing. Relative to the working folder of now. One run at a time trains in it.
    keep : int
        How many of the last checkpoints are kept, > 0.
    settings : mapping, optional
        What the caller wants to find in ``run.json`` again, in values that JSON can hold, with strings as keys.

    Raises
    ------
    ArgumentException, ArgumentOutOfRangeException
        When an argument is none of these.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from aidotnet_py import FunctionModel, MAMLAlgorithm, MAMLOptions, RunFolder
    >>> from aidotnet_py.data import SinusoidLoader
    >>> def learner(steps):
    ...     model = FunctionModel(lambda p, x: x * p["w"], {"w": np.zeros(1, np.float32)})
    ...     return MAMLAlgorithm(MAMLOptions(model, DataLoader=SinusoidLoader(seed=0), NumMetaIterations=steps))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     learner(3).Train(run=RunFolder(folder)).TotalIterations
    ...     learner(5).Train(resume=RunFolder(folder)).TotalIterations
    3
    5
    """

    # Of the class, since an object whose arguments are refused is collected too.
    _metrics: JsonLines | None = None
    _times: JsonLines | None = None
    _lock: FileIO | None = None
    # The run that holds the folder, and its thread.
    _run: TrainingRun[Any, Any, Any] | None = None
    _thread: threading.Thread | None = None
    # Where the learner stood as the run began here, and where it is saved as it is; None if it may have changed since.
    _first: int = 0
    _saved: int | None = None

    def __init__(self, path: str | os.PathLike[str], keep: int = 3, settings: Mapping[str, Any] | None = None) -> None:
        self.path = check_path("path", path, "the path of a folder").absolute()
        self.keep = COUNT.check("keep", keep, type_error=ArgumentOutOfRangeException)
        try:
            self.settings = None if settings is None else dict(settings)
            json_text(self.settings, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            wanted = "a mapping of values that JSON can hold"
            raise ArgumentException(f"{refusal('settings', wanted, settings)}: {error}") from error

    @property
    def remedy(self) -> str:
        """How to go on with a run that was stopped, as the end of a sentence."""
        made, given = "the learner", ""
        if self._run is not None and self._run.sampler is not None:
            made, given = "learner and sampler", "sampler, "
        return f"make {made} as for this run and call Train({given}resume=RunFolder({str(self.path)!r}))"

    @property
    def best(self) -> Path:
        """The file of the learner at its best evaluation; there is none before the first."""
        return self.path / BEST

    @property
    def checkpoints(self) -> list[Path]:
        """The checkpoints by their iterations, the last at the end."""
        return checkpoints_in(self.path)

    @property
    def holds_run(self) -> bool:
        """Whether a run has begun in the folder."""
        return (self.path / RUN).exists()

    def read(self) -> dict[str, Any]:
        """Return what ``run.json`` holds.

        Raises
        ------
        FileNotFoundError
            When the folder holds no run.
        ArgumentException
            When the file is damaged, or of a later version of the library.
        """
        return read_run(self.path)

    def draw(self, title: str = "", ax: Axes | None = None) -> Figure:
        """Draw losses and accuracies of the steps so far, with the evaluations; also while a process trains.

        Parameters
        ----------
        title : str
            The title of the figure.
        ax : matplotlib.axes.Axes, optional
            An axes of a grid, whose place the panels take; None: a new figure.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        FileNotFoundError
            When the folder holds no run.
        ArgumentException
            When its files are damaged.
        InvalidOperationException
            When the run has no step yet.
        ImportError
            When matplotlib is not installed.
        """
        self.read()
        metrics, times = self.path / METRICS, self.path / TIMES
        steps, evaluations = history_of([line for line, _ in read_lines(metrics)], float_of, metrics)
        if not steps:
            raise InvalidOperationException(f"run must have a step to draw, got none in {str(self.path)!r}")
        losses, accuracies = map(np.array, zip(*steps, strict=True))
        elapsed = time_of([line for line, _ in read_lines(times)], times)
        return draw_training(MetaTrainingResult(losses, accuracies, elapsed), evaluations, title, ax)

    # What `Train` calls.

    def on_start(self, run: TrainingRun[Any, Any, Any]) -> None:
        """Begin a run in the folder, which must be new or empty."""
        self._make()
        self._hold(run)
        try:
            self._require_empty()
            self._open()
            self._first, self._saved = run.learner.CurrentIteration, None
            # The first checkpoint shows that there is room; after run.json, a kill leaves a run to go on with.
            self._save(run)
            write_run(self.path, run, self.settings, [])
        except BaseException:
            self._close()
            raise

    def resume(self, run: TrainingRun[Any, Any, Any]) -> None:
        """Bring learner and history to the last checkpoint, and cut the metrics off there."""
        known = self.read()
        require_same_source(self.path, known, run)
        self._hold(run)
        try:
            self._take_up(run, known)
            self._first = self._saved = run.learner.CurrentIteration
            if self.settings is None:
                self.settings = known.get("settings")
            write_run(self.path, run, self.settings, known["sessions"])
        except BaseException:
            self._close()
            raise

    def on_step(self, run: TrainingRun[Any, Any, Any], step: MetaTrainingStepResult[Any]) -> None:
        """Write the step's line; save, if it is time."""
        self._catch_up(run)
        frequency = run.learner.Options.CheckpointFrequency
        if frequency and step.Iteration % frequency == 0:
            self._save(run)

    def on_evaluation(self, run: TrainingRun[Any, Any, Any], evaluation: MetaEvaluationResult[Any]) -> None:
        """Write the evaluation's line; keep the learner if it is the best so far."""
        self._catch_up(run)
        # The callbacks after this one may change it.
        self._saved = None

    def on_stop(self, run: TrainingRun[Any, Any, Any], error: BaseException | None) -> None:
        """Save where the run stopped, with the batch that failed, if one did, and draw the curves."""
        if self._run is not run:
            # Another run is going on in the folder; this one was refused.
            return
        try:
            if self._metrics is None:
                # It was stopped before it began.
                return
            if isinstance(error, InvalidOperationException):
                keep_failed_batch(self.path / FAILED, run, error)
            self._catch_up(run)
            # A callback that moved the learner, and was refused for it, leaves nothing that follows the lines.
            if run.learner.CurrentIteration == self._place(run):
                self._save(run)
            self._draw(run)
        finally:
            self._close()

    def __del__(self) -> None:
        # An interrupt at the first line of on_stop leaves the folder held.
        self._close()

    # The parts.

    def _make(self) -> None:
        """Make the folder, if it is missing."""
        if self.path.exists() and not self.path.is_dir():
            raise ArgumentException(f"path must be a folder or a new one, got a file at {str(self.path)!r}")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                error.errno, f"path must be a folder that can be made: {error.strerror}", str(self.path)
            ) from error

    def _hold(self, run: TrainingRun[Any, Any, Any]) -> None:
        """Keep other processes, and other runs of this one, out of the folder."""
        thread, here = self._thread, threading.current_thread()
        if thread is here and self._run is not None and self._run.is_going:
            raise in_use(self.path)
        if thread is not None and (thread is here or not thread.is_alive()):
            # An interrupt left it held by a run that is over.
            self._close()
        lock = locked(self.path)
        self._lock, self._thread, self._run = lock, here, run

    def _require_empty(self) -> None:
        names = sorted(path.name for path in self.path.iterdir())
        if RUN in names:
            raise ArgumentException(
                f"run must be a new or empty folder, got {str(self.path)!r}, which holds a run; resume continues it"
            )
        # A kill before run.json was written leaves a beginning behind; other checkpoints are the user's own.
        empty = [name for name in (METRICS, TIMES) if name in names and (self.path / name).stat().st_size == 0]
        checkpoints = [path.name for path in self.checkpoints]
        ours = [*(checkpoints if len(empty) == 2 and len(checkpoints) == 1 else ()), *empty]
        others = [name for name in names if name not in (*ours, LOCK) and not name.startswith(".aidotnet_py-")]
        if others:
            raise ArgumentException(
                f"run must be a new or empty folder, got {str(self.path)!r} with {others[0]!r} in it"
            )
        # The checkpoint first: alone, it would count as the user's.
        for name in ours:
            (self.path / name).unlink()

    def _open(self) -> None:
        try:
            self._metrics = JsonLines(self.path / METRICS)
            self._times = JsonLines(self.path / TIMES)
        except OSError as error:
            raise OSError(error.errno, f"path must be a writable folder: {error.strerror}", str(self.path)) from error

    def _close(self) -> None:
        for file in (self._metrics, self._times, self._lock):
            if file is not None:
                with suppress(OSError):
                    file.close()
        self._metrics = self._times = self._lock = self._run = self._thread = None

    def _take_up(self, run: TrainingRun[Any, Any, Any], known: Mapping[str, Any]) -> None:
        files = self.checkpoints
        if not files:
            raise FileNotFoundError(2, "path must be the folder of a run with a checkpoint, got none", str(self.path))
        self._open()
        checkpoint = read_last(files)
        first, last = first_iteration(self.path, known), checkpoint.iteration
        # Before the learner changes, so that a folder that is refused leaves the learner as it was.
        steps, evaluations = self._history(first, last, run.learner.BaseModel)
        assert self._times is not None
        elapsed = time_of(self._times.read(first, last), self.path / TIMES)
        run.learner.Load(files[-1])
        if evaluations:
            warn_of_other_evaluations(run, checkpoint)
        for file in (self._metrics, self._times):
            assert file is not None
            file.cut()
        run.history.take_up(steps, evaluations, elapsed)
        check_best(self.best, last, run.history.best_evaluation)

    def _history(self, first: int, last: int, model: Any) -> tuple[list[tuple[Any, Any]], list[EvaluationRecord]]:
        """Return loss and accuracy of each step of the metrics between two iterations, and the evaluations."""
        assert self._metrics is not None
        lines = self._metrics.read(first, last)
        steps = [line["Iteration"] for line in lines if is_step(line)]
        if steps != [*range(first + 1, last + 1)]:
            raise ArgumentException(
                f"{self.path / METRICS} must hold each step from {first + 1} to {last}, the step of "
                f"{self.checkpoints[-1].name}, got {len(steps)} steps"
            )
        return history_of(lines, scalar_of(model), self.path / METRICS)

    def _catch_up(self, run: TrainingRun[Any, Any, Any]) -> None:
        """Write the last step and the last evaluation, if they are not written yet."""
        assert self._metrics is not None
        assert self._times is not None
        step, noted = run.history.last_step, run.history.evaluations
        if step is not None:
            self._metrics.append(line_of(step))
            self._times.append(line_of_time(step))
        if noted and noted[-1].iteration == run.learner.CurrentIteration:
            # Before its line: a kill between the two has the evaluation made again, and saved again.
            if run.history.best_evaluation is noted[-1] and not self._metrics.holds(line_of_evaluation(noted[-1])):
                self._require_in_place(run)
                run.learner.Save(self.best)
            self._metrics.append(line_of_evaluation(noted[-1]))

    def _place(self, run: TrainingRun[Any, Any, Any]) -> int:
        """Return the iteration of the learner after the last step of the run."""
        step = run.history.last_step
        return self._first if step is None else step.Iteration

    def _save(self, run: TrainingRun[Any, Any, Any]) -> None:
        """Save the learner, and remove all but the last checkpoints."""
        assert self._metrics is not None
        assert self._times is not None
        learner = run.learner
        self._require_in_place(run)
        if self._saved == learner.CurrentIteration:
            return
        path = self.path / checkpoint_name(learner.AlgorithmType.name, learner.CurrentIteration)
        # A checkpoint tells of steps whose lines must be there.
        self._metrics.flush()
        self._times.flush()
        learner.Save(path)
        self._saved = learner.CurrentIteration
        _LOG.info("saved %s", path)
        for old in self.checkpoints[: -self.keep]:
            old.unlink(missing_ok=True)

    def _require_in_place(self, run: TrainingRun[Any, Any, Any]) -> None:
        """Raise if files would be written apart from the lines: into a folder that took the place of the run's."""
        assert self._metrics is not None
        if not self._metrics.is_in_place():
            raise InvalidOperationException(
                f"the run's folder must stay in its place until the run ends, got another {METRICS}, or none, in "
                f"{str(self.path)!r}: it was moved, removed or replaced. The learner has all "
                f"{run.learner.CurrentIteration} steps: Save it elsewhere, or move the folder back"
            )

    def _draw(self, run: TrainingRun[Any, Any, Any]) -> None:
        """Draw the curves; a run does not fail for want of a figure."""
        result = run.history.result()
        if result is None:
            return
        try:
            # Dollars would begin a formula, and a path may have bytes that are no characters.
            path = str(self.path).encode(errors="replace").decode().replace("$", r"\$")
            title = f"{run.learner.AlgorithmType.name}, {path}"
            figure: Any = draw_training(result, run.history.evaluations, title)
            with replacing(self.path / CURVES) as file:
                figure.savefig(file, format="png")
        except ImportError as error:
            _LOG.info("no curves: %s", error)
        except Exception as error:
            # As text: a log that keeps the error would keep this folder held.
            _LOG.warning("no curves: %s", str(error))
