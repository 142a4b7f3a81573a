"""The files in the folder of a run, by name."""

from __future__ import annotations

import re
from pathlib import Path

from aidotnet_py.runs.folder_lock import LOCK

__all__ = ["BEST", "CURVES", "FAILED", "METRICS", "RUN", "TIMES", "checkpoint_name", "checkpoints_in", "is_run_file"]

RUN, METRICS, TIMES = "run.json", "metrics.jsonl", "times.jsonl"
BEST, CURVES, FAILED = "best.safetensors", "curves.png", "failed_batch.npz"
_CHECKPOINT = re.compile(r"checkpoint_(\w+?)_([0-9]+)\.safetensors")


def checkpoint_name(algorithm: str, iteration: int) -> str:
    """Return the name of a checkpoint."""
    return f"checkpoint_{algorithm}_{iteration}.safetensors"


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the checkpoints by their iterations, the last at the end."""
    if not folder.is_dir():
        return []
    files = {path: match for path in folder.iterdir() if (match := _CHECKPOINT.fullmatch(path.name))}
    return sorted(files, key=lambda path: int(files[path][2]))


def is_run_file(name: str) -> bool:
    """Return whether a file of a run's folder with this name is read or replaced by the run."""
    # The last two are those of `CsvLog` and `MLflowLog`.
    names = (RUN, METRICS, TIMES, BEST, CURVES, FAILED, LOCK, "metrics.csv", "mlflow_run_id")
    return name in names or _CHECKPOINT.fullmatch(name) is not None
