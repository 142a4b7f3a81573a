"""What a learner's model keeps of how raw data became the inputs of its tasks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from aidotnet_py.caller import level_outside
from aidotnet_py.descriptions import differences
from aidotnet_py.meta_learning.contract.sources import IEncoding
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask
from aidotnet_py.models.raw_data import ENCODING, encoding_of_model, set_classes, set_encoding

__all__ = ["keep_encoding", "keep_task", "property_of_loader", "warn_of_other_encodings"]

# Differences of two encodings in a warning.
_MOST_TOLD = 3

_Tasks = Sequence[IMetaLearningTask[Any, Any, Any]]


def keep_encoding(model: Any, tasks: _Tasks) -> None:
    """Have a model's properties hold the encoding of tasks, the last one if they have several; warn of another before.

    Warns of tasks without an encoding too, if the model learned from others: it keeps the one of these.
    """
    warn_of_other_encodings(model, tasks)
    known, encodings = encoding_of_model(model), _encodings_of(tasks)
    if known is not None and None in encodings:
        _warn("Metadata['Encoding'] is missing here")
    settings = [encoding.settings() for encoding in encodings if encoding is not None]
    if not settings or settings[-1] == known:
        return
    set_encoding(model, settings[-1])
    if encoding_of_model(model) is None:
        warnings.warn(
            f"GetModelMetadata of {type(model).__name__} should return the same Properties each time, got new ones; "
            "the learner's files will not say how its data were encoded",
            UserWarning,
            stacklevel=level_outside(),
        )


def warn_of_other_encodings(model: Any, tasks: _Tasks) -> None:
    """Warn of tasks whose inputs were encoded otherwise than those that the model learned from, or than each other."""
    known = encoding_of_model(model)
    for encoding in _encodings_of(tasks):
        settings = known if encoding is None else encoding.settings()
        if known is not None and settings != known:
            _warn(*differences(known, settings, ENCODING))
        known = settings


def keep_task(adapted: Any, model: Any, task: IMetaLearningTask[Any, Any, Any]) -> None:
    """Have an adapted model's properties hold the encoding, of its task or else of the meta-model, and the classes."""
    (encoding,) = _encodings_of([task])
    set_encoding(adapted, encoding_of_model(model) if encoding is None else encoding.settings())
    classes = _note(task, "Classes")
    if isinstance(classes, (tuple, list)):
        labels = cast("Sequence[Any]", classes)
        set_classes(adapted, [label.item() if isinstance(label, np.generic) else label for label in labels])


def property_of_loader(loader: object) -> dict[str, Any]:
    """Return the property that says how a loader's data were encoded; nothing if they were not."""
    encoding = getattr(loader, "encoding", None)
    return {ENCODING: encoding.settings()} if isinstance(encoding, IEncoding) else {}


def _encodings_of(tasks: _Tasks) -> list[IEncoding | None]:
    """Return the different encodings of tasks, in their order, with None for tasks without."""
    once = {id(encoding): encoding for encoding in (_note(task, "Encoding") for task in tasks)}
    return [encoding if isinstance(encoding, IEncoding) else None for encoding in once.values()]


def _note(task: IMetaLearningTask[Any, Any, Any], name: str) -> Any:
    notes: Any = task.Metadata
    # A task of one's own may have anything there.
    return cast(Any, notes).get(name) if isinstance(notes, Mapping) else None


def _warn(*clauses: str) -> None:
    more = f" and {len(clauses) - _MOST_TOLD} more differences" if len(clauses) > _MOST_TOLD else ""
    warnings.warn(
        "tasks should be encoded as those that the model learned from (there), got others (here): "
        f"{', '.join(clauses[:_MOST_TOLD])}{more}; pass encoding=first.encoding to TableLoader, read images with one "
        "size, fit and color, or make tasks by encoding.task",
        UserWarning,
        stacklevel=level_outside(),
    )
