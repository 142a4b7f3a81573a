"""JSON that gives mappings back as they are."""

# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# Values here are whatever JSON holds.

from __future__ import annotations

import json
from typing import Any

__all__ = ["json_text"]


def json_text(value: Any, *, allow_nan: bool = True) -> str:
    """Return a value as JSON, which gives its mappings back with the names that they have.

    Raises
    ------
    TypeError, ValueError, RecursionError
        When JSON cannot hold the value; when a name in a mapping, at any depth, is not a string.

    Examples
    --------
    >>> from aidotnet_py.json_text import json_text
    >>> json_text({"classes": ["cat", "dog"]})
    '{"classes": ["cat", "dog"]}'
    """
    _require_names(value)
    return json.dumps(value, allow_nan=allow_nan)


def _require_names(value: Any) -> None:
    """Refuse names that `json` would turn into strings: a file with one name twice cannot be read."""
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                raise TypeError(f"names in a mapping must be strings, got {name!r:.80}; use str of it")
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            _require_names(item)
