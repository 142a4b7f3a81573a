"""Data of a run: sources of tasks with the network and the options that suit them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from aidotnet_py.data import ImageEncoding, TableEncoding

__all__ = ["ENCODING", "Encoding", "RunData", "encoding_of"]

Encoding: TypeAlias = ImageEncoding | TableEncoding

# The name of an encoding beside a run's settings.
ENCODING = "encoding"


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

    def settings(self) -> dict[str, Any]:
        """Return the facts about the data that a run's folder holds beside the settings, in values of JSON.

        `encoding_of` makes the encoding again.
        """
        if self.encoding is None:
            return {}
        if isinstance(self.encoding, ImageEncoding):
            return {"ways": self.training.NWay, ENCODING: {"kind": "images", **self.encoding.settings()}}
        return {ENCODING: {"kind": "table", **self.encoding.settings()}}


def encoding_of(values: Mapping[str, Any]) -> Encoding:
    """Return the encoding that `RunData.settings` described under its name.

    Raises
    ------
    ArgumentException
        When ``values`` are no such description.
    """
    kind = ImageEncoding if values.get("kind") == "images" else TableEncoding
    return kind.from_settings({name: value for name, value in values.items() if name != "kind"})
