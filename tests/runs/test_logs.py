"""What other tools read of a run is what its metrics have, also after a run went on."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aidotnet_py import ArgumentException, MAMLAlgorithm, MAMLOptions, NeuralNetworkModel, RunFolder
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.nn import mlp
from aidotnet_py.runs import CsvLog, MLflowLog, TensorBoardLog


def learner(steps: int) -> Any:
    model = NeuralNetworkModel(mlp(4, 1), input_shape=(1,), seed=0)
    loader = SinusoidLoader(3, 3, seed=0, dtype=np.float32)
    settings = {"MetaBatchSize": 2, "EvaluationFrequency": 2, "EvaluationTasks": 3, "UseFirstOrder": True}
    return MAMLAlgorithm(MAMLOptions(model, DataLoader=loader, NumMetaIterations=steps, **settings))


def trained(folder: RunFolder, make: Any) -> list[dict[str, Any]]:
    """The lines of a run of three steps that goes on to five."""
    learner(3).Train(run=folder, callbacks=[make()])
    learner(5).Train(resume=folder, callbacks=[make()])
    return [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]


def numbers(lines: list[dict[str, Any]], *, evaluations: bool) -> dict[str, list[tuple[int, float]]]:
    """The finite numbers by name, with their iterations."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        if ("EvaluationLoss" in line) == evaluations:
            for name, value in line.items():
                if name != "Iteration" and value is not None:
                    found.setdefault(name, []).append((line["Iteration"], value))
    return found


def test_csv(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    lines = trained(folder, lambda: CsvLog(folder))
    with (folder.path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(lines) == 7
    for row, line in zip(rows, lines, strict=True):
        assert {name: float(value) for name, value in row.items() if value} == {
            name: value for name, value in line.items() if value is not None
        }


def test_csv_of_a_run_that_never_began(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "other").touch()
    with pytest.raises(Exception, match="new or empty folder"):
        learner(3).Train(run=folder, callbacks=[CsvLog(folder)])
    assert [path.name for path in (tmp_path / "run").iterdir() if not path.name.startswith(".")] == ["other"]


def test_csv_of_a_run_whose_last_line_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk, which takes a part of it."""
    folder = RunFolder(tmp_path / "run")
    write = os.pwrite

    def full(file: int, data: bytes, place: int) -> int:
        if not data.startswith(b'{"Iteration": 4, "MetaLoss"'):
            return write(file, data, place)
        write(file, data[: len(data) // 2], place)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left") as caught:
        learner(5).Train(run=folder, callbacks=[CsvLog(folder)])
    assert "CsvLog" not in str(caught.value.__notes__)
    lines = (folder.path / "metrics.jsonl").read_bytes()
    assert not lines.endswith(b"\n")
    assert len((folder.path / "metrics.csv").read_text().splitlines()) == 1 + lines.count(b"\n") > 2


def events(folder: Path) -> list[Any]:
    """The events of all files, by TensorBoard's own format: length, its checksum, event, its checksum."""
    proto = pytest.importorskip("tensorboardX").proto.event_pb2
    found: list[Any] = []
    for file in sorted(folder.iterdir()):
        data, place = file.read_bytes(), 0
        while place < len(data):
            (length,) = struct.unpack_from("<Q", data, place)
            found.append(proto.Event.FromString(data[place + 12 : place + 12 + length]))
            place += 12 + length + 4
    return found


@pytest.mark.slow
def test_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboardX")
    # All within one second, after which tensorboardX names its files.
    now = time.time()
    monkeypatch.setattr("tensorboardX.event_file_writer.time.time", lambda: now)
    folder = RunFolder(tmp_path / "run")
    lines = trained(folder, lambda: TensorBoardLog(folder.path / "tensorboard"))
    found: dict[str, list[tuple[int, float]]] = {}
    begun: list[int] = []
    for event in events(folder.path / "tensorboard"):
        if event.session_log.status == event.session_log.START:
            begun.append(event.step)
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    wanted = {f"train/{name}": points for name, points in numbers(lines, evaluations=False).items()}
    of_evaluations = numbers(lines, evaluations=True)
    wanted |= {f"evaluation/{name.removeprefix('Evaluation')}": points for name, points in of_evaluations.items()}
    assert found.keys() == wanted.keys()
    for name, points in wanted.items():
        np.testing.assert_allclose(sorted(found[name]), points, rtol=1e-6)
    # What comes after the checkpoint that a run goes on from is hidden.
    assert begun[-1] == 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:codecs.open:DeprecationWarning")  # MLflow, on Python 3.14
def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    from mlflow.tracking import MlflowClient

    folder = RunFolder(tmp_path / "first")
    lines = trained(folder, lambda: MLflowLog(folder))
    client = MlflowClient()
    experiment = client.get_experiment_by_name("aidotnet_py")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    assert run.data.params["algorithm"] == "MAML"
    assert run.data.params["MetaBatchSize"] == "2"
    wanted = numbers(lines, evaluations=False) | numbers(lines, evaluations=True)
    assert run.data.metrics.keys() == wanted.keys()
    for name, points in wanted.items():
        assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)] == points


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:codecs.open:DeprecationWarning")  # MLflow, on Python 3.14
def test_mlflow_of_a_run_that_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    from mlflow.tracking import MlflowClient

    for name, error, status in (("a", KeyboardInterrupt, "KILLED"), ("b", ValueError, "FAILED")):
        folder, stopped = RunFolder(tmp_path / name), learner(3)

        class Stopping(CsvLog):
            def on_step(self, run: Any, step: Any, error: Any = error) -> None:
                raise error

        with pytest.raises(error):
            stopped.Train(run=folder, callbacks=[MLflowLog(folder), Stopping(folder)])
        run = MlflowClient().get_run((folder.path / "mlflow_run_id").read_text())
        assert run.info.status == status
        assert math.isfinite(run.data.metrics["MetaLoss"])


@pytest.mark.slow
def test_mlflow_where_it_cannot_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://here")
    with pytest.raises(
        ArgumentException, match=r"^MLFLOW_TRACKING_URI must be .* got unsupported URI 'nowhere://here'"
    ):
        MLflowLog(RunFolder(tmp_path / "run"))


@pytest.mark.parametrize(
    ("make", "library"),
    [(TensorBoardLog, "tensorboardX"), (lambda path: MLflowLog(RunFolder(path)), "mlflow.tracking")],
)
def test_without_the_library(make: Any, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(ImportError, match=r'pip install "aidotnet-py\['):
        make(tmp_path)
