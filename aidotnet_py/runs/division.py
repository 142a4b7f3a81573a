"""The classes or groups that a run trains on, and those that it holds out: they stay apart when the data change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from aidotnet_py.arguments import check_given
from aidotnet_py.exceptions import ArgumentException

__all__ = ["Division"]

# Labels in a message.
_MOST_NAMED = 5


@dataclass(frozen=True)
class Division:
    """The labels of the two parts of a run's data, as text, which JSON can hold.

    Attributes
    ----------
    training, held_out : tuple of str
        The classes or groups that are trained on, and those of the evaluations during the run and after it.

    Examples
    --------
    >>> from aidotnet_py.runs.division import Division
    >>> division = Division(("1", "3"), ("2",))
    >>> division.parts_of([1, 2, 3], "growth.csv")
    ([1, 3], [2])
    >>> division.parts_of([2, 3, 4], "growth.csv")
    Traceback (most recent call last):
    aidotnet_py.exceptions.ArgumentException: data must have the classes or groups that the run began with, got ...
    """

    training: tuple[str, ...]
    held_out: tuple[str, ...]

    @classmethod
    def of(cls, training: Iterable[Any], held_out: Iterable[Any]) -> Self:
        """Return the division into these labels."""
        return cls(tuple(map(str, training)), tuple(map(str, held_out)))

    def parts_of(self, labels: Sequence[Any], data: str) -> tuple[list[Any], list[Any]]:
        """Return the labels of each part.

        Raises
        ------
        ArgumentException
            When a label of the division is not among ``labels``, or one of these is in neither part.
        """
        known, trained = {str(label): label for label in labels}, set(self.training)
        self.require(Division.of(known.keys() & trained, known.keys() - trained), data)
        return [known[name] for name in self.training], [known[name] for name in self.held_out]

    def require(self, found: Division, data: str) -> None:
        """Raise ArgumentException unless another division has the same labels in each part."""
        differences = [
            f"{word} {_told(names)} {use}"
            for use, kept, present in (
                ("to train on", set(self.training), set(found.training)),
                ("to hold out", set(self.held_out), set(found.held_out)),
            )
            for word, names in (("without", kept - present), ("with", present - kept))
            if names
        ]
        if differences:
            raise ArgumentException(
                f"data must have the classes or groups that the run began with, got {data!r} "
                f"{' and '.join(differences)}; restore the data of the run, or train a new run"
            )

    def settings(self) -> dict[str, list[str]]:
        """Return it as plain JSON values, for `from_settings`."""
        return {"training": [*self.training], "held_out": [*self.held_out]}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Return the division that `settings` described.

        Raises
        ------
        ArgumentException
            ``settings`` is no such description.
        """
        check_given("settings", settings, "a mapping of Division.settings")
        try:
            return cls.of(settings["training"], settings["held_out"])
        except (KeyError, TypeError) as error:
            raise ArgumentException(f"settings must be those of a Division, got {settings!r:.80}") from error


def _told(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - _MOST_NAMED} more" if len(ordered) > _MOST_NAMED else ""
    return ", ".join(f"{name!r:.80}" for name in ordered[:_MOST_NAMED]) + more
