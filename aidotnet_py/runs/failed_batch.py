"""The tasks of the step that a run failed on, as a file for numpy.load."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np

from aidotnet_py.backends import backend_of
from aidotnet_py.exceptions import InvalidOperationException
from aidotnet_py.meta_learning import TaskBatch, TrainingRun
from aidotnet_py.whole_files import replacing

__all__ = ["keep_failed_batch"]

_SETS = ("SupportInput", "SupportOutput", "QueryInput", "QueryOutput")


def keep_failed_batch(path: Path, run: TrainingRun[Any, Any, Any], error: InvalidOperationException) -> None:
    """Write the tasks on which a step failed, if the learner has them, and have the error name the file."""
    batch: TaskBatch[Any, Any, Any] | None = getattr(run.learner, "failed_batch", None)
    if batch is None:
        return
    arrays = {
        f"task{place}.{name}": array
        for place, task in enumerate(batch)
        for role in _SETS
        for name, array in _arrays_of(role, getattr(task, role))
    }
    with replacing(path) as file:
        np.savez(file, allow_pickle=False, **arrays)
    error.add_note(f"The tasks of the step are in {str(path)!r}, for numpy.load")


def _arrays_of(name: str, data: Any) -> list[tuple[str, Any]]:
    """Return the arrays of a set on the host; of batches, each by its number."""
    if isinstance(data, (list, tuple)):
        return [entry for i, part in enumerate(cast("list[Any]", data)) for entry in _arrays_of(f"{name}.{i}", part)]
    backend = backend_of(data)
    array = np.asarray(data) if backend is None else backend.to_numpy(data)
    return [] if data is None or array.dtype.hasobject else [(name, array)]
