"""The properties of a model that say how raw data become its inputs, and what its classes are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, cast

__all__ = [
    "ENCODING",
    "encoding_in",
    "encoding_of_model",
    "properties_of_model",
    "put_raw_data_aside",
    "set_classes",
    "set_encoding",
    "take_raw_data",
]

# Both belong to the parameters, and so go where these go: into copies and files, and out of files.
ENCODING = "encoding"
_CLASSES = "classes"

_MISSING: Any = object()


def properties_of_model(model: Any) -> Mapping[str, Any] | None:
    """Return the properties of a model's metadata; None if it has no mapping there."""
    properties: object = getattr(model.GetModelMetadata(), "Properties", None)
    return cast("Mapping[str, Any]", properties) if isinstance(properties, Mapping) else None


def encoding_in(values: object) -> dict[str, Any] | None:
    """Return the settings of an encoding among properties of any JSON; None if there are none."""
    found: Any = cast("Mapping[str, Any]", values).get(ENCODING) if isinstance(values, Mapping) else None
    # A property of this name may be the user's own.
    known = isinstance(found, dict) and isinstance(cast("dict[str, Any]", found).get("kind"), str)
    return cast("dict[str, Any]", found) if known else None


def encoding_of_model(model: Any) -> dict[str, Any] | None:
    """Return the settings of the encoding of a model's inputs; None if it has none."""
    return encoding_in(properties_of_model(model))


def set_encoding(model: Any, settings: Mapping[str, Any] | None) -> None:
    """Have a model's properties hold these settings of an encoding; None: none.

    A value of the user's own stays, and so do properties that cannot be changed.
    """
    properties = _changeable(model)
    if ENCODING not in properties or encoding_in(properties) is not None:
        _put(properties, ENCODING, _MISSING if settings is None else dict(settings))


def set_classes(model: Any, names: Sequence[Any] | None) -> None:
    """Have a model's properties hold what its first scores stand for; None: nothing.

    A value of the user's own that is no list stays, and so do properties that cannot be changed.
    """
    properties = _changeable(model)
    if isinstance(properties.get(_CLASSES, []), list):
        _put(properties, _CLASSES, _MISSING if names is None else list(names))


def take_raw_data(model: Any, properties: object) -> None:
    """Have a model's properties say of raw data what those of a file say, of any JSON."""
    set_encoding(model, encoding_in(properties))
    names: Any = cast("Mapping[str, Any]", properties).get(_CLASSES) if isinstance(properties, Mapping) else None
    set_classes(model, cast("Sequence[Any]", names) if isinstance(names, list) else None)


def put_raw_data_aside(model: Any) -> Callable[[], None]:
    """Keep what a model's properties say of raw data; return a function that puts it back."""
    properties = _changeable(model)
    kept = {name: properties.get(name, _MISSING) for name in (ENCODING, _CLASSES)}

    def put_back() -> None:
        for name, value in kept.items():
            _put(properties, name, value)

    return put_back


def _changeable(model: Any) -> MutableMapping[str, Any]:
    """Return a model's properties; a mapping of nobody if they cannot be changed."""
    properties = properties_of_model(model)
    return properties if isinstance(properties, MutableMapping) else {}


def _put(properties: MutableMapping[str, Any], name: str, value: Any) -> None:
    if value is _MISSING:
        properties.pop(name, None)
    else:
        properties[name] = value
