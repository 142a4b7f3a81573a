"""What a learner's model keeps of how raw data became the inputs of its tasks."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any, cast

import numpy as np

from aidotnet_py.arguments import shown
from aidotnet_py.caller import level_outside
from aidotnet_py.descriptions import differences
from aidotnet_py.meta_learning.contract.sources import IEncoding
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask, note_of
from aidotnet_py.models.raw_data import (
    ENCODING,
    encoding_in,
    encoding_of_model,
    properties_of_model,
    set_classes,
    set_encoding,
)

__all__ = ["keep_encoding", "keep_task", "property_of_loader", "warn_of_other_encodings"]

# Differences of two encodings in a warning.
_MOST_TOLD = 3

_Tasks = Sequence[IMetaLearningTask[Any, Any, Any]]


def keep_encoding(model: Any, tasks: _Tasks, *, learned: bool) -> None:
    """Have a model's properties hold the encoding of tasks, the last one if they have several; warn of another before.

    Warns of tasks without an encoding too, if the model learned from others: it keeps the one of these. ``learned``
    says whether the model learned from tasks before.
    """
    known, encodings = encoding_of_model(model), _encodings_of(tasks)
    if known is None and encodings == [None]:
        return
    missing = ["Metadata['Encoding'] is missing here"] if known is not None and None in encodings else []
    _warn_of(missing + _differences(known, encodings) + _untold(model, encodings, learned=learned))
    settings = [encoding for encoding in encodings if encoding is not None]
    if not settings or settings[-1] == known:
        return
    set_encoding(model, settings[-1])
    if encoding_of_model(model) is None:
        warnings.warn(
            f"{_obstacle(model)}; the learner's files will not say how its data were encoded",
            UserWarning,
            stacklevel=level_outside(),
        )


def warn_of_other_encodings(model: Any, tasks: _Tasks, *, learned: bool, told: set[str] | None = None) -> None:
    """Warn of tasks whose inputs were encoded otherwise than those that the model learned from, or than each other.

    Tasks without an encoding are taken to have the model's. ``learned`` is as for `keep_encoding`. ``told`` holds the
    differences that the same call of a learner warned of before, and takes up the new ones.
    """
    told = set() if told is None else told
    encodings = _encodings_of(tasks)
    clauses = _differences(encoding_of_model(model), encodings) + _untold(model, encodings, learned=learned)
    clauses = [clause for clause in clauses if clause not in told]
    told.update(clauses)
    _warn_of(clauses)


def keep_task(adapted: Any, model: Any, task: IMetaLearningTask[Any, Any, Any]) -> None:
    """Have an adapted model's properties hold the encoding, of its task or else of the meta-model, and the classes."""
    (settings,) = _encodings_of([task])
    set_encoding(adapted, encoding_of_model(model) if settings is None else settings)
    classes = note_of(task, "Classes")
    if isinstance(classes, (tuple, list)):
        labels = cast("Sequence[Any]", classes)
        set_classes(adapted, [label.item() if isinstance(label, np.generic) else label for label in labels])
    else:
        set_classes(adapted, None)


def property_of_loader(loader: object) -> dict[str, Any]:
    """Return the property that says how a loader's data were encoded; nothing if they were not."""
    settings = _settings_of(getattr(loader, "encoding", None))
    return {} if settings is None else {ENCODING: settings}


def _encodings_of(tasks: _Tasks) -> list[dict[str, Any] | None]:
    """Return the settings of the different encodings of tasks, in their order, with None for tasks without."""
    once = {id(encoding): encoding for encoding in (note_of(task, "Encoding") for task in tasks)}
    return [_settings_of(encoding) for encoding in once.values()]


def _settings_of(encoding: Any) -> dict[str, Any] | None:
    """Return the settings of an encoding; None of anything else."""
    # Most tasks have none, and to ask for a protocol takes long beside a small step.
    if encoding is None:
        return None
    # An object of one's own may have anything of this name.
    known = isinstance(encoding, IEncoding) and callable(encoding.settings) and not isinstance(encoding, type)
    return encoding_in({ENCODING: encoding.settings()}) if known else None


def _differences(known: dict[str, Any] | None, encodings: Iterable[dict[str, Any] | None]) -> list[str]:
    """Return how encodings differ, each from the one before it and the first from the known one."""
    clauses = list[str]()
    for settings in encodings:
        if settings is None:
            continue
        if known is not None and settings != known:
            clauses += differences(known, settings, ENCODING)
        known = settings
    return list(dict.fromkeys(clauses))


def _untold(model: Any, encodings: Sequence[dict[str, Any] | None], *, learned: bool) -> list[str]:
    """Return the clause for tasks with an encoding, where the model learned from tasks without one."""
    if not learned or not any(encodings):
        return []
    properties = properties_of_model(model)
    # A model that cannot keep an encoding may have learned from tasks with this one.
    if not isinstance(properties, MutableMapping) or properties is not properties_of_model(model):
        return []
    return [] if ENCODING in properties else ["Metadata['Encoding'] is missing there"]


def _warn_of(clauses: Sequence[str]) -> None:
    if not clauses:
        return
    more = f" and {len(clauses) - _MOST_TOLD} more differences" if len(clauses) > _MOST_TOLD else ""
    warnings.warn(
        "tasks should be encoded as those that the model learned from (there), got others (here): "
        f"{', '.join(clauses[:_MOST_TOLD])}{more}; pass encoding=first.encoding to TableLoader, read images with one "
        "size, fit and color, or make tasks by encoding.task",
        UserWarning,
        stacklevel=level_outside(),
    )


def _obstacle(model: Any) -> str:
    """Return why a model's properties did not take up an encoding."""
    properties, name = properties_of_model(model), type(model).__name__
    if not isinstance(properties, MutableMapping):
        return f"Properties of the metadata of {name} should be a dict, got {shown(properties)}"
    if ENCODING in properties:
        own = shown(properties[ENCODING])
        return f"property {ENCODING!r} of {name} should be free for the encoding of its data, got {own}; rename yours"
    return f"GetModelMetadata of {name} should return the same Properties each time, got new ones"
