"""What the DATA of the command line stands for: the name of built-in data, a folder of images, or a table."""

from __future__ import annotations

from dataclasses import dataclass

from aidotnet_py.arguments import refusal
from aidotnet_py.comparison import PROBLEMS
from aidotnet_py.comparison.problems import Problem
from aidotnet_py.comparison.settings import SEEDS
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.paths import check_path
from aidotnet_py.runs.own_data import TABLE_SUFFIXES, open_folder, open_table
from aidotnet_py.runs.run_data import DataFacts, RunData
from aidotnet_py.runs.settings import OF_FOLDERS, OF_TABLES, RunSettings

__all__ = ["open_data"]


@dataclass(frozen=True)
class _Source:
    shots: int
    archive: str | None


def open_data(settings: RunSettings, facts: DataFacts | None = None) -> RunData:
    """Return the data that the settings of a run name, for a new run or with the facts that a run began with.

    'sinusoid', 'digits' and 'omniglot' are built in; otherwise it is the path of a folder of class folders, or of a
    table in CSV, TSV or Parquet. Validation and test tasks are of classes or groups that are not trained on. Built-in
    data, and data without a published division, have two splits: both draw from the second, with other seeds.

    Raises
    ------
    ArgumentException
        When there is no such data, or it needs an archive or a column, or something is given that it has no use for;
        or when the data no longer fit the facts of the run.
    ImportError
        When a library for the data is not installed.

    Examples
    --------
    >>> from aidotnet_py.runs.data_sources import open_data
    >>> from aidotnet_py.runs.settings import RunSettings
    >>> open_data(RunSettings(data="sinusoid")).training.KShot
    10
    """
    known = DataFacts() if facts is None else facts
    opened = _open(settings, known)
    if known.division is not None and opened.division is not None:
        known.division.require(opened.division, settings.data)
    return opened


def _open(settings: RunSettings, facts: DataFacts) -> RunData:
    data = settings.data
    if data in PROBLEMS:
        settings.require_unset(data, *OF_FOLDERS, *OF_TABLES)
        return _open_problem(PROBLEMS[data], settings)
    settings.require_unset(data, "archive")
    kinds = f"one of {', '.join(PROBLEMS)}, a folder of class folders, or a table ({', '.join(TABLE_SUFFIXES)})"
    path = check_path("data", data, kinds)
    if path.is_dir():
        return open_folder(path, settings, facts)
    if path.is_file() and path.suffix.lower() in TABLE_SUFFIXES:
        return open_table(path, settings, facts)
    raise ArgumentException(refusal("data", kinds, data))


def _open_problem(problem: Problem, settings: RunSettings) -> RunData:
    data, archive = settings.data, settings.archive
    if problem.needs_archive and archive is None:
        raise ArgumentException(refusal("archive", f"the path of a published archive or its folder for {data}", None))
    if not problem.needs_archive:
        settings.require_unset(data, "archive")
    source = _Source(problem.shots if settings.shots is None else settings.shots, archive)
    # Seeds of runs are below SEEDS, so that no run trains on the tasks that it is evaluated on.
    training, validation, test = (
        problem.loader("train", source, settings.seed),
        problem.loader("test", source, SEEDS + 1),
        problem.loader("test", source, SEEDS),
    )
    options = {**problem.options, "NumMetaIterations": problem.iterations, "MetaBatchSize": problem.meta_batch}
    return RunData(problem.classification, options, problem.model, training, validation, test)
