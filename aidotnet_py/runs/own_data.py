"""Data of one's own for a run: a folder of class folders, or a table, with the network and options that suit it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np

from aidotnet_py.arguments import COUNT, OrNone, Whole, refusal
from aidotnet_py.comparison.settings import SEEDS
from aidotnet_py.data import ImageEncoding, ImageFolderLoader, TableEncoding, TableLoader
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.losses import CrossEntropyLoss, MeanSquaredErrorLoss
from aidotnet_py.models import NeuralNetworkModel
from aidotnet_py.nn import conv4, mlp

__all__ = [
    "TABLE_SUFFIXES",
    "Details",
    "Encoding",
    "OwnData",
    "describe_encoding",
    "encoding_of",
    "open_folder",
    "open_table",
    "tasks_of_tables",
]

Encoding: TypeAlias = ImageEncoding | TableEncoding

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
# Defaults: ways, the side of an image, query images of a class.
_WAYS, _SIDE, _QUERIES = 5, 32, 15
_DETAILS = {"ways": OrNone(Whole(2)), "size": OrNone(COUNT)}


@dataclass(frozen=True, kw_only=True)
class Details:
    """What there is to say of data of one's own; None stands for the default, or for nothing.

    Attributes
    ----------
    ways : int or None
        Classes of a task of images.
    size : int or None
        The side of images in pixels.
    task, target, order : str or None
        Columns of a table: its groups, the values to predict, and the times by which rows are divided.
    """

    ways: int | None = None
    size: int | None = None
    task: str | None = None
    target: str | None = None
    order: str | None = None

    def __post_init__(self) -> None:
        for name, constraint in _DETAILS.items():
            constraint.check(name, getattr(self, name))
        for name in ("task", "target", "order"):
            value: object = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise ArgumentException(refusal(name, "the name of a column", value))

    def require_none(self, data: str, *names: str) -> None:
        """Raise ArgumentException if one of these, or of all, is given."""
        for name in names or [field.name for field in fields(self)]:
            if getattr(self, name) is not None:
                raise ArgumentException(refusal(name, f"left out for {data}", getattr(self, name)))


@dataclass(frozen=True)
class OwnData:
    """Tasks of one's own data.

    Attributes
    ----------
    encoding : ImageEncoding or TableEncoding
        What makes inputs of images or rows.
    classification : bool
        Whether accuracy has a meaning.
    outputs : int
        Numbers that the network gives for an example.
    options : mapping
        Options that suit the data.
    iterations, meta_batch : int
        How many steps to train, and tasks for a step.
    training, validation, test : loader
        Sources of tasks; the latter two have classes or groups of their own, or are None.
    """

    encoding: Encoding
    classification: bool
    outputs: int
    options: Mapping[str, Any]
    iterations: int
    meta_batch: int
    training: Any
    validation: Any
    test: Any

    def model(self, seed: int) -> NeuralNetworkModel[Any]:
        """Return the untrained network, in the dtype of the data."""
        images = isinstance(self.encoding, ImageEncoding)
        layers = conv4(self.outputs, filters=32) if images else mlp(40, 40, self.outputs)
        loss = CrossEntropyLoss() if self.classification else MeanSquaredErrorLoss()
        return NeuralNetworkModel(
            layers, input_shape=self.encoding.input_shape, loss=loss, dtype=self.encoding.dtype.type, seed=seed
        )


def describe_encoding(encoding: Encoding) -> dict[str, Any]:
    """Return an encoding as plain JSON values, for `encoding_of`."""
    return {"kind": "images" if isinstance(encoding, ImageEncoding) else "table", **encoding.settings()}


def encoding_of(values: Mapping[str, Any]) -> Encoding:
    """Return the encoding that `describe_encoding` described.

    Raises
    ------
    ArgumentException
        When ``values`` are no such description.
    """
    kind = ImageEncoding if values.get("kind") == "images" else TableEncoding
    return kind.from_settings({name: value for name, value in values.items() if name != "kind"})


def open_folder(folder: Path, details: Details, shots: int, seed: int) -> OwnData:
    """Return tasks of a folder of class folders, or of one in a published layout.

    Without a published division, a quarter of the classes, and at least as many as a task has, is held out.
    """
    details.require_none("a folder", "task", "target", "order")
    # As a function of anything: pyright does not know the overloads of a partial class.
    opened: Any = partial(cast(Any, ImageFolderLoader), folder, KShot=shots, size=details.size or _SIDE)
    loaders: list[Any]
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        ways = details.ways or _WAYS
        held = "val" if (folder / "val").is_dir() else "test"
        loaders = [
            opened(NWay=ways, QueryShots=_QUERIES, split=split, seed=of)
            for split, of in (("train", seed), (held, SEEDS + 1), ("test", SEEDS))
        ]
    else:
        loaders, ways = _divided_folder(opened, details.ways, shots, seed)
    options = {"InnerLearningRate": 0.1, "AdaptationSteps": 5, "OuterLearningRate": 0.001}
    return OwnData(loaders[0].encoding, True, ways, options, 500, 4, *loaders)


def _divided_folder(opened: Any, ways: int | None, shots: int, seed: int) -> tuple[list[Any], int]:
    # Once for the numbers of classes and images; the images are in the cache then.
    pool = opened(NWay=2, QueryShots=1, seed=0)
    count = len(pool.labels)
    ways = min(_WAYS, count // 3 if count >= 6 else count // 2) if ways is None else ways
    held = max(ways, count // 4)
    if ways < 2 or count - held < ways:
        raise ArgumentException(
            f"data must have at least {2 * max(ways, 2)} classes for tasks of {max(ways, 2)}, to train on and to "
            f"evaluate on, got {count}; add classes or lower ways"
        )
    fewest = min(pool.dataset(seed=0).ClassExampleCounts.values())
    whole = opened(NWay=ways, QueryShots=min(_QUERIES, fewest - shots), seed=0)
    return _divided(whole, count - held, held, seed), ways


def open_table(file: Path, details: Details, shots: int | None, seed: int) -> OwnData:
    """Return tasks of a table's groups, a quarter of which is held out; groups with too few rows are left out."""
    details.require_none("a table", "ways", "size")
    for name in ("task", "target"):
        if getattr(details, name) is None:
            raise ArgumentException(refusal(name, f"a column of {file.name!r}", None))
    whole: TableLoader[np.float32] = TableLoader(
        file,
        task=str(details.task),
        target=str(details.target),
        order=details.order,
        support=0.5 if shots is None else shots,
        small="skip",
        seed=0,
    )
    count = len(whole.labels)
    if count < 2:
        raise ArgumentException(
            f"task must be a column with at least 2 large enough groups, to train on and to evaluate on, got {count}"
        )
    held = max(1, count // 4)
    return tasks_of_tables(*_divided(whole, count - held, held, seed))


def tasks_of_tables(training: TableLoader[Any], validation: Any = None, test: Any = None) -> OwnData:
    """Return tasks of a table's groups, with the options that suit them."""
    encoding = training.encoding
    options = {"InnerLearningRate": 0.01, "AdaptationSteps": 5, "OuterLearningRate": 0.004}
    batch = min(25, training.AvailableClasses)
    classification = encoding.classes is not None
    return OwnData(encoding, classification, encoding.outputs, options, 1000, batch, training, validation, test)


def _divided(whole: Any, training: int, held: int, seed: int) -> list[Any]:
    """Return loaders to train on, and to evaluate on during a run and after it; every run has the same division."""
    parts = [part.labels for part in whole.split(training, held, seed=0)]
    # Seeds of runs are below SEEDS, so that no run trains on the tasks that it is evaluated on.
    return [whole.split(*parts, seed=of)[place] for place, of in ((0, seed), (1, SEEDS + 1), (1, SEEDS))]
