"""The run of a suite: all of its checks, and one error that names each that failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

__all__ = ["run_checks"]


def run_checks(subject: str, checks: Mapping[str, Callable[[], None]]) -> None:
    """Call all checks; raise one AssertionError with the message of each that raised, from the first of them."""
    failures: dict[str, Exception] = {}
    for name, check in checks.items():
        try:
            check()
        # Code of others may fail in any way.
        except Exception as error:
            failures[name] = error
    if failures:
        lines = [f"- {name}: {_message(error)}" for name, error in failures.items()]
        summary = f"{subject} fails {len(failures)} of {len(checks)} checks:\n" + "\n".join(lines)
        raise AssertionError(summary) from next(iter(failures.values()))


def _message(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if type(error) is AssertionError else f"raised {type(error).__name__}: {text}"
