"""run.json: what a run is, and the processes that worked on it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from aidotnet_py.arguments import COUNT_OR_ZERO
from aidotnet_py.descriptions import describe
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning import TrainingRun
from aidotnet_py.meta_learning.contract.protocols import model_backend
from aidotnet_py.models.comparison import describe_model
from aidotnet_py.runs.environment import environment
from aidotnet_py.runs.run_files import RUN
from aidotnet_py.whole_files import read_file, write_file

__all__ = ["first_iteration", "read_run", "require_same_source", "write_run"]

_FORMAT = 1


def read_run(folder: Path) -> dict[str, Any]:
    """Return what ``run.json`` holds.

    Raises
    ------
    FileNotFoundError
        When the folder holds no run.
    ArgumentException
        When the file is damaged, or of a later version of the library.
    """
    path = folder / RUN
    if not path.exists():
        raise FileNotFoundError(2, "path must be the folder of a run, got one without run.json", str(folder))
    try:
        run: Any = json.loads(read_file(path))
    except (ValueError, RecursionError) as error:
        raise ArgumentException(f"{path} must hold a run in JSON, got other text: {error!s:.100}") from error
    if not isinstance(run, dict) or not isinstance(run.get("sessions"), list):  # pyright: ignore[reportUnknownMemberType] -- of anything
        raise ArgumentException(f"{path} must hold a run with its sessions, got {run!r:.60}")
    known = cast("dict[str, Any]", run)
    if known.get("format") != _FORMAT:
        raise ArgumentException(
            f"{path} must have format {_FORMAT}, got {known.get('format')!r:.60}; install the version of "
            "aidotnet_py that wrote it"
        )
    return known


def write_run(
    folder: Path, run: TrainingRun[Any, Any, Any], settings: Mapping[str, Any] | None, sessions: Sequence[Any]
) -> None:
    """Write ``run.json`` as a session begins; ``sessions`` are those before it."""
    learner = run.learner
    session = {
        "iteration": learner.CurrentIteration,
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment(),
    }
    record = {
        "format": _FORMAT,
        "algorithm": learner.AlgorithmType.name,
        "seed": describe(learner.Options.RandomSeed),
        "sampler": _sampler_name(run),
        "backend": model_backend(learner.BaseModel).name,
        "options": describe(learner.Options),
        "model": describe_model(learner.BaseModel),
        "settings": settings,
        "sessions": [*sessions, session],
    }
    write_file(folder / RUN, (json.dumps(record, indent=1) + "\n").encode())


def require_same_source(folder: Path, known: Mapping[str, Any], run: TrainingRun[Any, Any, Any]) -> None:
    """Raise if only one of the run so far and of what goes on with it draws its tasks from a sampler."""
    # Early versions wrote none down.
    held, own = known.get("sampler"), _sampler_name(run)
    if "sampler" in known and (held is None) != (own is None):
        wanted = "left out" if held is None else f"given, a {held!s:.80}"
        got = "none" if own is None else f"a {own}"
        raise ArgumentException(f"sampler must be {wanted}, as in the run in {str(folder)!r}, got {got}")


def first_iteration(folder: Path, known: Mapping[str, Any]) -> int:
    """Return the iteration that the run began at."""
    try:
        return COUNT_OR_ZERO.check("iteration", known["sessions"][0]["iteration"])
    except (LookupError, TypeError, ArgumentException) as error:
        raise ArgumentException(f"{folder / RUN} must hold where the run began, got {error!r}") from error


def _sampler_name(run: TrainingRun[Any, Any, Any]) -> str | None:
    return None if run.sampler is None else type(run.sampler).__name__
