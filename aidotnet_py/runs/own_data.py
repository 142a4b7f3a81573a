"""Data of one's own for a run: a folder of class folders, or a table, with the network and options that suit it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from aidotnet_py.arguments import refusal
from aidotnet_py.comparison.settings import SEEDS
from aidotnet_py.data import ImageFolderLoader, TableEncoding, TableLoader
from aidotnet_py.data.weightings import WeightingName
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.losses import CrossEntropyLoss, ILossFunction, MeanSquaredErrorLoss
from aidotnet_py.meta_learning import MetaLearnerOptions
from aidotnet_py.models import NeuralNetworkModel
from aidotnet_py.nn import Layer, conv4, mlp
from aidotnet_py.runs.run_data import DataFacts, Encoding, RunData
from aidotnet_py.runs.settings import OF_FOLDERS, OF_TABLES, RunSettings

__all__ = ["TABLE_SUFFIXES", "open_folder", "open_new_tasks", "open_table", "tasks_of_tables"]

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
# Defaults: ways, the side of an image, query images of a class.
_WAYS, _SIDE, _QUERIES = 5, 32, 15


def open_folder(folder: Path, settings: RunSettings, facts: DataFacts) -> RunData:
    """Return tasks of a folder of class folders, or of one in a published layout.

    Without a published division, a quarter of the classes, and at least as many as a task has, is held out.
    """
    settings.require_unset("a folder", *OF_TABLES)
    shots = _shots(settings)
    # As a function of anything: pyright does not know the overloads of a partial class.
    opened: Any = partial(cast(Any, ImageFolderLoader), folder, KShot=shots, size=settings.size or _SIDE)
    if _is_divided(folder):
        ways = settings.ways or _WAYS
        held = "val" if (folder / "val").is_dir() else "test"
        training, validation, test = (
            opened(NWay=ways, QueryShots=_QUERIES, split=split, seed=of)
            for split, of in (("train", settings.seed), (held, SEEDS + 1), ("test", SEEDS))
        )
    else:
        (training, validation, test), ways = _divided_folder(opened, settings, shots, facts)
    options = {
        "InnerLearningRate": 0.1,
        "AdaptationSteps": 5,
        "OuterLearningRate": 0.001,
        "NumMetaIterations": 500,
        "MetaBatchSize": 4,
    }
    models = _models(conv4(ways, filters=32), CrossEntropyLoss(), training.encoding)
    return RunData(True, options, models, training, validation, test, training.encoding)


def _is_divided(folder: Path) -> bool:
    """Return whether a folder has the parts of a published division."""
    return (folder / "train").is_dir() and (folder / "test").is_dir()


def _shots(settings: RunSettings) -> int:
    return 1 if settings.shots is None else settings.shots


def _size_of(opened: Any, shots: int) -> tuple[int, int]:
    """Return the number of classes of a folder, and how many query images of each a task may have."""
    # The images are in the cache then.
    pool = opened(NWay=2, QueryShots=1, seed=0)
    return len(pool.labels), min(_QUERIES, min(pool.dataset(seed=0).ClassExampleCounts.values()) - shots)


def _divided_folder(opened: Any, settings: RunSettings, shots: int, facts: DataFacts) -> tuple[list[Any], int]:
    count, queries = _size_of(opened, shots)
    ways = settings.ways or min(_WAYS, count // 3 if count >= 6 else count // 2)
    held = max(ways, count // 4)
    if ways < 2 or count - held < ways:
        raise ArgumentException(
            f"data must have at least {2 * max(ways, 2)} classes for tasks of {max(ways, 2)}, to train on and to "
            f"evaluate on, got {count}; add classes or lower ways"
        )
    whole = opened(NWay=ways, QueryShots=queries, seed=0)
    return _divided(whole, whole, held, settings, facts), ways


def open_table(file: Path, settings: RunSettings, facts: DataFacts) -> RunData:
    """Return tasks of a table's groups, a quarter of which is held out; groups with too few rows are left out."""
    settings.require_unset("a table", *OF_FOLDERS)
    for name in ("task", "target"):
        if getattr(settings, name) is None:
            raise ArgumentException(refusal(name, f"a column of {file.name!r}", None))
    whole = _groups_of(file, settings, facts.encoding, seed=0)
    count = len(whole.labels)
    if count < 2:
        raise ArgumentException(
            f"task must be a column with at least 2 large enough groups, to train on and to evaluate on, got {count}"
        )
    held = max(1, count // 4)
    if settings.order is None:
        return tasks_of_tables(*_divided(whole, whole, held, settings, facts))
    # A group is always the same task then, which an evaluation counts once: others would seem to agree with it.
    data = tasks_of_tables(*_divided(whole, whole.with_weighting("balanced", seed=0), held, settings, facts))
    tasks = min(MetaLearnerOptions.EvaluationTasks, data.test.AvailableClasses)
    return replace(data, options={**data.options, "EvaluationTasks": tasks})


def _groups_of(
    file: Path,
    settings: RunSettings,
    encoding: Encoding | None,
    *,
    weighting: WeightingName = "uniform",
    seed: int,
) -> TableLoader[Any]:
    return TableLoader(
        file,
        task=str(settings.task),
        target=str(settings.target),
        order=settings.order,
        support=0.5 if settings.shots is None else settings.shots,
        small="skip",
        weighting=weighting,
        # One run has one encoding, which its model knows; the loader refuses that of images.
        encoding=cast(Any, encoding),
        seed=seed,
    )


def open_new_tasks(path: Path, settings: RunSettings, encoding: Encoding) -> Any:
    """Return tasks like those of a run from other data: from all classes of a folder, or all groups of a table.

    A folder in a published layout stands for its test classes.

    Raises
    ------
    FileNotFoundError
        When there is nothing at the path.
    ArgumentException
        When the data are those of the run, of another kind, or too few for its tasks.
    """
    if os.path.realpath(path) == os.path.realpath(settings.data):
        raise ArgumentException(
            f"{refusal('data', 'other data than those of the run', str(path))}; leave it out for the classes or groups "
            "that the run held out"
        )
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, "data must be an existing folder or table, got nothing", str(path))
    if isinstance(encoding, TableEncoding):
        if not path.is_file() or path.suffix.lower() not in TABLE_SUFFIXES:
            raise ArgumentException(refusal("data", f"a table ({', '.join(TABLE_SUFFIXES)}), as the run's", str(path)))
        weighting: WeightingName = "uniform" if settings.order is None else "balanced"
        return _groups_of(path, settings, encoding, weighting=weighting, seed=SEEDS)
    if not path.is_dir():
        raise ArgumentException(refusal("data", "a folder of class folders, as the run's", str(path)))
    form, shots, ways = encoding.form, _shots(settings), settings.ways or _WAYS
    opened: Any = partial(
        cast(Any, ImageFolderLoader),
        path,
        KShot=shots,
        split="test" if _is_divided(path) else None,
        size=(form.height, form.width),
        fit=form.fit,
        color=form.color,
    )
    count, queries = _size_of(opened, shots)
    if count < ways:
        raise ArgumentException(f"data must have at least {ways} classes, as many as a task of the run, got {count}")
    return opened(NWay=ways, QueryShots=queries, seed=SEEDS)


def tasks_of_tables(training: TableLoader[Any], validation: Any = None, test: Any = None) -> RunData:
    """Return tasks of a table's groups, with the options that suit them."""
    encoding = training.encoding
    options = {
        "InnerLearningRate": 0.01,
        "AdaptationSteps": 5,
        "OuterLearningRate": 0.004,
        "NumMetaIterations": 1000,
        "MetaBatchSize": min(25, training.AvailableClasses),
    }
    classification = encoding.classes is not None
    loss = CrossEntropyLoss() if classification else MeanSquaredErrorLoss()
    models = _models(mlp(40, 40, encoding.outputs), loss, encoding)
    return RunData(classification, options, models, training, validation, test, encoding)


def _models(network: Layer, loss: ILossFunction[Any], encoding: Encoding) -> Callable[[int], NeuralNetworkModel[Any]]:
    """Return the function from a seed to the untrained network, in the dtype of the data."""
    shape, dtype = encoding.input_shape, encoding.dtype.type
    return lambda seed: NeuralNetworkModel(network, input_shape=shape, loss=loss, dtype=dtype, seed=seed)


def _divided(whole: Any, evaluated: Any, held: int, settings: RunSettings, facts: DataFacts) -> list[Any]:
    """Return loaders to train on, of `whole`, and to evaluate on during a run and after it, of `evaluated`.

    Every run on the same classes or groups has the same division, and a run keeps the one that it began with.
    """
    if facts.division is not None:
        parts = facts.division.parts_of(whole.labels, settings.data)
    else:
        parts = tuple(part.labels for part in whole.split(len(whole.labels) - held, held, seed=0))
    # Seeds of runs are below SEEDS, so that no run trains on the tasks that it is evaluated on.
    drawn = (whole, 0, settings.seed), (evaluated, 1, SEEDS + 1), (evaluated, 1, SEEDS)
    return [loader.split(*parts, seed=of)[place] for loader, place, of in drawn]
