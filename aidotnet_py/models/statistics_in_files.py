"""The statistics of a model among the arrays of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

__all__ = ["pop_statistics", "statistics_for_file"]

# Names of other arrays come from code, which has no colons.
_PREFIX = "statistics: "


def statistics_for_file(statistics: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return statistics by their names in files."""
    return {_PREFIX + name: value for name, value in statistics.items()}


def pop_statistics(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Take the statistics out of the arrays of a file; return them by their own names."""
    names = [name for name in arrays if name.startswith(_PREFIX)]
    return {name.removeprefix(_PREFIX): arrays.pop(name) for name in names}
