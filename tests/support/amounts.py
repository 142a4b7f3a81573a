"""How much the longest tests do: as much as CI has time for, and five times as much under Hypothesis's deep profile."""

from __future__ import annotations

from hypothesis import settings

__all__ = ["TIMES", "many"]

TIMES = 5 if settings.default.max_examples > 100 else 1


def many(count: int) -> int:
    """So many in CI."""
    return count * TIMES
