"""Data of a run: sources of tasks with the network and the options that suit them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Self, TypeAlias

from aidotnet_py.arguments import Choice
from aidotnet_py.data import ImageEncoding, TableEncoding
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.models.raw_data import ENCODING
from aidotnet_py.runs.division import Division

__all__ = ["KINDS", "DataFacts", "Encoding", "RunData", "encoding_of"]

Encoding: TypeAlias = ImageEncoding | TableEncoding

KINDS: Mapping[str, type[Encoding]] = {"images": ImageEncoding, "table": TableEncoding}
# The name of a division beside a run's settings; that of an encoding is as in a model's properties.
_DIVISION = "division"


@dataclass(frozen=True)
class DataFacts:
    """What the folder of a run holds about its data beside the settings; a run keeps it when the data change.

    Attributes
    ----------
    encoding : ImageEncoding, TableEncoding or None
        What makes inputs of images or rows; None for built-in data.
    division : Division or None
        The classes or groups that are trained on, and the others; None for data without, and in runs of older versions.
    """

    encoding: Encoding | None = None
    division: Division | None = None

    @classmethod
    def take_from(cls, values: dict[str, Any]) -> Self:
        """Return the facts that `settings` described among other values, and remove them there.

        Raises
        ------
        ArgumentException
            When they are no such description.
        """
        encoding, division = values.pop(ENCODING, None), values.pop(_DIVISION, None)
        return cls(
            None if encoding is None else encoding_of(encoding),
            None if division is None else Division.from_settings(division),
        )

    def require_encoding(self, run: Path, remedy: str) -> Encoding:
        """Return the encoding; ArgumentException if the run at this path has none."""
        if self.encoding is None:
            raise ArgumentException(
                f"{str(run)!r} must be a run on a folder or a table, got a run on built-in data; {remedy}"
            )
        return self.encoding

    def settings(self) -> dict[str, Any]:
        """Return the facts by their names, in values of JSON."""
        facts = dict[str, Any]()
        if self.encoding is not None:
            facts[ENCODING] = self.encoding.settings()
        if self.division is not None:
            facts[_DIVISION] = self.division.settings()
        return facts


@dataclass(frozen=True)
class RunData:
    """Data that a run learns from: built-in data, a folder of images, or a table.

    Attributes
    ----------
    classification : bool
        Whether accuracy has a meaning.
    options : mapping
        Options of every algorithm that suit the data, with the numbers of steps and of tasks for a step.
    model : callable
        From a seed to the untrained model.
    training, validation, test : IEpisodicDataLoader
        Sources of tasks: to train on, to evaluate on during the run, and after it. Tasks of the latter two have other
        classes or groups; they are None where nothing is evaluated.
    encoding : ImageEncoding, TableEncoding or None
        What makes inputs of images or rows; None for built-in data.
    """

    classification: bool
    options: Mapping[str, Any]
    model: Callable[[int], Any]
    training: Any
    validation: Any
    test: Any
    encoding: Encoding | None = None

    @property
    def division(self) -> Division | None:
        """The classes or groups of the two parts; None for data without."""
        if not hasattr(self.training, "labels"):
            return None
        evaluated = [part.labels for part in (self.validation, self.test) if part is not None]
        return Division.of(self.training.labels, dict.fromkeys(chain(*evaluated)))

    def settings(self) -> dict[str, Any]:
        """Return what a run's folder holds about the data over the settings, in values of JSON."""
        facts = DataFacts(self.encoding, self.division).settings()
        return {"ways": self.training.NWay, **facts} if isinstance(self.encoding, ImageEncoding) else facts


def encoding_of(values: Mapping[str, Any]) -> Encoding:
    """Return the encoding that its ``settings`` described.

    Raises
    ------
    ArgumentException
        When ``values`` are no such description.
    """
    return KINDS[Choice(*KINDS).check("encoding's kind", values.get("kind"))].from_settings(values)
