"""What a run writes beside its folder's own metrics: a table in CSV, TensorBoard's events, MLflow's runs."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from aidotnet_py.arguments import Choice, refusal
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning import ITrainingCallback, MetaEvaluationResult, MetaTrainingStepResult, TrainingRun
from aidotnet_py.paths import check_path
from aidotnet_py.runs.folder import RunFolder
from aidotnet_py.runs.json_lines import read_lines
from aidotnet_py.runs.metric_lines import line_of, line_of_evaluation
from aidotnet_py.whole_files import write_file

__all__ = ["LOGS", "CsvLog", "MLflowLog", "TensorBoardLog", "logs_of", "require_logs"]


class CsvLog(ITrainingCallback):
    """``metrics.csv`` in a run's folder when the run stops: a row for each line of ``metrics.jsonl``.

    Columns are all numbers of the run; a step has none of an evaluation, and cells of numbers that are not finite are
    empty.

    Parameters
    ----------
    folder : RunFolder
        The folder of the run.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from aidotnet_py import FunctionModel, MAMLAlgorithm, MAMLOptions, RunFolder
    >>> from aidotnet_py.data import SinusoidLoader
    >>> from aidotnet_py.runs import CsvLog
    >>> model = FunctionModel(lambda p, x: x * p["w"], {"w": np.zeros(1, np.float32)})
    >>> learner = MAMLAlgorithm(MAMLOptions(model, DataLoader=SinusoidLoader(seed=0), NumMetaIterations=2))
    >>> with tempfile.TemporaryDirectory() as path:
    ...     folder = RunFolder(path)
    ...     result = learner.Train(run=folder, callbacks=[CsvLog(folder)])
    ...     print((folder.path / "metrics.csv").read_text().splitlines()[0])
    Iteration,MetaLoss,TaskLoss,Accuracy,NumTasks,MetaGradientNorm
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def on_stop(self, run: TrainingRun[Any, Any, Any], error: BaseException | None) -> None:
        """Write the table."""
        metrics = self._folder.path / "metrics.jsonl"
        if not metrics.exists():
            # The run was stopped before it began.
            return
        lines = [line for line, _ in read_lines(metrics)]
        table = io.StringIO(newline="")
        writer = csv.DictWriter(
            table, list(dict.fromkeys(name for line in lines for name in line)), lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(lines)
        write_file(metrics.with_suffix(".csv"), table.getvalue().encode())


class TensorBoardLog(ITrainingCallback):
    """Scalars of steps and evaluations as events for ``tensorboard --logdir``, by tensorboardX (the extra tensorboard).

    Numbers that are not finite are left out. A run that goes on from a checkpoint hides the events after it.

    Parameters
    ----------
    path : str or path
        The folder of the events.

    Raises
    ------
    ArgumentException
        When it is no path.
    ImportError
        When tensorboardX is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            import tensorboardX  # pyright: ignore[reportMissingTypeStubs] -- it has none
        except ImportError as error:
            raise ImportError('TensorBoardLog needs tensorboardX: pip install "aidotnet-py[tensorboard]"') from error
        self._make: Callable[..., Any] = tensorboardX.SummaryWriter
        self._path = check_path("path", path, "the path of a folder")
        self._writer: Any = None

    def on_start(self, run: TrainingRun[Any, Any, Any]) -> None:
        """Open a file of events."""
        begun = run.learner.CurrentIteration
        # tensorboardX names files by the second: a run that goes on within a second must not replace its first file.
        self._writer = self._make(str(self._path), purge_step=begun + 1, filename_suffix=f".{begun:09d}")

    def on_step(self, run: TrainingRun[Any, Any, Any], step: MetaTrainingStepResult[Any]) -> None:
        """Write the numbers of a step."""
        self._write("train", line_of(step))

    def on_evaluation(self, run: TrainingRun[Any, Any, Any], evaluation: MetaEvaluationResult[Any]) -> None:
        """Write the numbers of an evaluation."""
        self._write("evaluation", line_of_evaluation(run.history.evaluations[-1]))

    def on_stop(self, run: TrainingRun[Any, Any, Any], error: BaseException | None) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()

    def _write(self, group: str, line: Mapping[str, Any]) -> None:
        for name, value in _finite(line).items():
            self._writer.add_scalar(f"{group}/{name.removeprefix('Evaluation')}", value, line["Iteration"])


class MLflowLog(ITrainingCallback):
    """A run in MLflow with the run's options as parameters, by mlflow-skinny (the extra mlflow).

    MLflow's own variable ``MLFLOW_TRACKING_URI`` says where: at the address of a server, or in a folder such as
    ``file:mlruns``, for which ``MLFLOW_ALLOW_FILE_STORE`` must be true. Databases need all of mlflow. The run's
    identity is kept as ``mlflow_run_id`` in the folder, so that a run that goes on from a checkpoint stays one run.
    Numbers that are not finite are left out.

    Parameters
    ----------
    folder : RunFolder
        The folder of the run; its name is the name of MLflow's run.
    experiment : str
        MLflow's experiment; made if it is missing.

    Raises
    ------
    ImportError
        When mlflow-skinny is not installed.
    ArgumentException
        When MLflow cannot write there.
    """

    def __init__(self, folder: RunFolder, experiment: str = "aidotnet_py") -> None:
        try:
            from mlflow.exceptions import MlflowException
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise ImportError('MLflowLog needs mlflow: pip install "aidotnet-py[mlflow]"') from error
        try:
            MlflowClient()
        except MlflowException as error:
            raise ArgumentException(
                "MLFLOW_TRACKING_URI must be where MLflow can write, such as the address of a server, or file:mlruns "
                f"with MLFLOW_ALLOW_FILE_STORE=true; MLflow says: {' '.join(str(error).split())}"
            ) from error
        self._make: Callable[[], Any] = MlflowClient
        self._folder, self._experiment = folder, experiment
        self._client: Any = None
        self._id = ""

    def on_start(self, run: TrainingRun[Any, Any, Any]) -> None:
        """Begin MLflow's run, or go on with it."""
        self._client, kept = self._make(), self._folder.path / "mlflow_run_id"
        if kept.exists():
            self._id = kept.read_text(encoding="utf-8").strip()
            self._client.update_run(self._id, status="RUNNING")
            return
        known = self._client.get_experiment_by_name(self._experiment)
        experiment = self._client.create_experiment(self._experiment) if known is None else known.experiment_id
        self._id = self._client.create_run(experiment, run_name=self._folder.path.name).info.run_id
        described = self._folder.read()
        for name, value in {"algorithm": described["algorithm"], **described["options"]}.items():
            # MLflow's own bound.
            self._client.log_param(self._id, name, f"{value!s:.500}")
        write_file(kept, self._id.encode())

    def on_step(self, run: TrainingRun[Any, Any, Any], step: MetaTrainingStepResult[Any]) -> None:
        """Write the numbers of a step."""
        self._write(line_of(step))

    def on_evaluation(self, run: TrainingRun[Any, Any, Any], evaluation: MetaEvaluationResult[Any]) -> None:
        """Write the numbers of an evaluation."""
        self._write(line_of_evaluation(run.history.evaluations[-1]))

    def on_stop(self, run: TrainingRun[Any, Any, Any], error: BaseException | None) -> None:
        """End MLflow's run: finished, killed by Ctrl-C, or failed."""
        if self._id:
            killed = isinstance(error, KeyboardInterrupt)
            self._client.set_terminated(self._id, "FINISHED" if error is None else "KILLED" if killed else "FAILED")

    def _write(self, line: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        written = [Metric(name, value, now, line["Iteration"]) for name, value in _finite(line).items()]
        self._client.log_batch(self._id, metrics=written)


def _finite(line: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers of a line but its iteration."""
    return {name: float(value) for name, value in line.items() if name != "Iteration" and math.isfinite(value)}


# What `aidotnet-py train --log` knows; "json" is what every folder has.
LOGS: Mapping[str, Callable[[RunFolder], list[ITrainingCallback]]] = {
    "json": lambda _: [],
    "csv": lambda folder: [CsvLog(folder)],
    "tensorboard": lambda folder: [TensorBoardLog(folder.path / "tensorboard")],
    "mlflow": lambda folder: [MLflowLog(folder)],
}


def require_logs(names: object) -> None:
    """Raise ArgumentException unless these are names in ``LOGS``, each once."""
    if not isinstance(names, (list, tuple)):
        raise ArgumentException(refusal("log", f"a sequence of names among {', '.join(LOGS)}", names))
    known, given = Choice(*LOGS), cast("Sequence[str]", names)
    for name in given:
        known.check("log", name)
    if len(set(given)) < len(given):
        raise ArgumentException(f"log must have no duplicates, got {', '.join(given)}")


def logs_of(names: Sequence[str], folder: RunFolder) -> list[ITrainingCallback]:
    """Return the callbacks of names in ``LOGS``.

    Raises
    ------
    ImportError
        When a library is not installed.
    """
    return [callback for name in names for callback in LOGS[name](folder)]
