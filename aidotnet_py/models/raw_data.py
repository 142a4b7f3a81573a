"""The properties of a model that say how raw data become its inputs, and what its classes are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

__all__ = ["ENCODING", "encoding_in", "encoding_of_model", "put_encoding_aside", "set_classes", "set_encoding"]

# It belongs to the parameters, and so goes where these go: into copies and files, and out of files.
ENCODING = "encoding"
# Of an adapted model.
_CLASSES = "classes"


def encoding_in(properties: object) -> dict[str, Any] | None:
    """Return the settings of an encoding among properties of any JSON; None if there are none."""
    found: Any = cast("Mapping[str, Any]", properties).get(ENCODING) if isinstance(properties, Mapping) else None
    # A property of this name may be the user's own.
    return cast("dict[str, Any]", found) if isinstance(found, dict) and "kind" in found else None


def encoding_of_model(model: Any) -> dict[str, Any] | None:
    """Return the settings of the encoding of a model's inputs; None if it has none."""
    return encoding_in(_properties(model))


def set_encoding(model: Any, settings: Mapping[str, Any] | None) -> None:
    """Have a model's properties hold these settings of an encoding; None: none."""
    properties = _properties(model)
    if settings is not None:
        properties[ENCODING] = dict(settings)
    elif encoding_in(properties) is not None:
        del properties[ENCODING]


def set_classes(model: Any, names: list[Any]) -> None:
    """Have a model's properties hold what its first scores stand for."""
    _properties(model)[_CLASSES] = names


def put_encoding_aside(model: Any) -> Callable[[], None]:
    """Keep the settings of a model's encoding; return a function that puts them back."""
    kept = encoding_of_model(model)
    return lambda: set_encoding(model, kept)


def _properties(model: Any) -> dict[str, Any]:
    properties: dict[str, Any] = getattr(model.GetModelMetadata(), "Properties", {})
    return properties
