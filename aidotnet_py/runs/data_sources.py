"""What the DATA of the command line stands for: the name of built-in data, a folder of images, or a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aidotnet_py.arguments import refusal
from aidotnet_py.comparison import PROBLEMS
from aidotnet_py.comparison.settings import SEEDS
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.runs.own_data import TABLE_SUFFIXES, Details, open_folder, open_table
from aidotnet_py.runs.run_data import RunData

__all__ = ["open_data"]


@dataclass(frozen=True)
class _Source:
    shots: int
    archive: str | None


def open_data(
    data: str, *, shots: int | None = None, archive: str | None = None, seed: int = 0, details: Details | None = None
) -> RunData:
    """Return the data that a text stands for.

    'sinusoid', 'digits' and 'omniglot' are built in; otherwise it is the path of a folder of class folders, or of a
    table in CSV, TSV or Parquet. Validation and test tasks are of classes or groups that are not trained on. Built-in
    data, and data without a published division, have two splits: both draw from the second, with other seeds.

    Raises
    ------
    ArgumentException
        When there is no such data, or it needs an archive or a column, or something is given that it has no use for.
    ImportError
        When a library for the data is not installed.

    Examples
    --------
    >>> from aidotnet_py.runs.data_sources import open_data
    >>> open_data("sinusoid").training.KShot
    10
    """
    details = Details() if details is None else details
    if data in PROBLEMS:
        details.require_none(data)
        return _open_problem(data, shots, archive, seed)
    if archive is not None:
        raise ArgumentException(refusal("archive", f"left out for {data}", archive))
    path = Path(data)
    if path.is_dir():
        return open_folder(path, details, 1 if shots is None else shots, seed)
    if path.is_file() and path.suffix.lower() in TABLE_SUFFIXES:
        return open_table(path, details, shots, seed)
    kinds = f"one of {', '.join(PROBLEMS)}, a folder of class folders, or a table ({', '.join(TABLE_SUFFIXES)})"
    raise ArgumentException(refusal("data", kinds, data))


def _open_problem(data: str, shots: int | None, archive: str | None, seed: int) -> RunData:
    problem = PROBLEMS[data]
    if problem.needs_archive and archive is None:
        raise ArgumentException(refusal("archive", f"the path of a published archive or its folder for {data}", None))
    if not problem.needs_archive and archive is not None:
        raise ArgumentException(refusal("archive", f"left out for {data}", archive))
    source = _Source(problem.shots if shots is None else shots, archive)
    # Seeds of runs are below SEEDS, so that no run trains on the tasks that it is evaluated on.
    training, validation, test = (
        problem.loader("train", source, seed),
        problem.loader("test", source, SEEDS + 1),
        problem.loader("test", source, SEEDS),
    )
    options = {**problem.options, "NumMetaIterations": problem.iterations, "MetaBatchSize": problem.meta_batch}
    return RunData(problem.classification, options, problem.model, training, validation, test)
