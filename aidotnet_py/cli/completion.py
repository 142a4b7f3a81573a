"""What the shell completes: names of algorithms, data and backends."""

from __future__ import annotations

from collections.abc import Callable, Iterable

__all__ = ["names"]


def names(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Return what completes a name of these; after a comma, another one."""
    every = list(known)

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in every if name.startswith(last)]

    return complete
