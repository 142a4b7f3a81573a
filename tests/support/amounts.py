"""How much the longest tests do: as much as CI has time for, more under Hypothesis's deep profile and if asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator

from hypothesis import settings

__all__ = ["TIMES", "groups", "many", "rounds"]

TIMES = 5 if settings.default.max_examples > 100 else 1


def many(count: int) -> int:
    """So many in CI."""
    return count * TIMES


def rounds(usual: int = 1) -> int:
    """So many trials of a test whose course is never the same, or as many as AIDOTNET_STRESS_ROUNDS says."""
    return int(os.environ.get("AIDOTNET_STRESS_ROUNDS", str(usual)))


def groups(count: int, most: int) -> Iterator[int]:
    """Yield the sizes of groups of at most so many that make up a count."""
    for first in range(0, count, most):
        yield min(most, count - first)
