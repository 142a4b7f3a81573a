"""What a comparison found: a curve with its intervals for each contestant and seed, its time and its memory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np

from aidotnet_py.comparison.settings import ComparisonSettings
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning import ConfidenceInterval

__all__ = ["Comparison", "Curve", "Interval", "Run"]

Interval: TypeAlias = ConfidenceInterval[np.float64]
# After 0, 1, … steps of adaptation.
Curve: TypeAlias = tuple[Interval, ...]


@dataclass(frozen=True)
class Run:
    """One contestant from one seed.

    Attributes
    ----------
    algorithm, seed
        Who, and from where.
    losses : tuple of ConfidenceInterval
        The mean query loss over the test tasks after 0, 1, … steps of adaptation.
    accuracies : tuple of ConfidenceInterval or None
        The same of the accuracy; None for regression.
    training_seconds : float or None
        Wall clock of the training; None where there is none.
    peak_bytes : int or None
        The most memory of arrays and objects at a time in a step of training, above what there was before the learner.
    single_accuracy : ConfidenceInterval or None
        The accuracy after all these steps of the adapted models, asked about one example at a time; ``accuracies`` are
        those of all examples of a query set together, normalised as a whole where the network has batch norm. None for
        regression, and of a comparison saved before it was measured.
    """

    algorithm: str
    seed: int
    losses: Curve
    accuracies: Curve | None
    training_seconds: float | None
    peak_bytes: int | None
    single_accuracy: Interval | None = None


@dataclass(frozen=True)
class Comparison:
    """All runs of a comparison, in the order of the seeds and, within them, of the contestants.

    Examples
    --------
    >>> from aidotnet_py.comparison import Comparison, ComparisonSettings, compare
    >>> settings = ComparisonSettings.of("sinusoid", algorithms=["FOMAML"], iterations=2, test_tasks=5)
    >>> found = compare(settings)
    >>> [run.algorithm for run in found.runs], len(found.runs[0].losses)
    (['random', 'transfer', 'FOMAML'], 33)
    >>> Comparison.from_json(found.to_json()) == found
    True
    """

    settings: ComparisonSettings
    runs: tuple[Run, ...]

    @property
    def contestants(self) -> tuple[str, ...]:
        """Who took part, in order."""
        return tuple(dict.fromkeys(run.algorithm for run in self.runs))

    def of(self, algorithm: str) -> tuple[Run, ...]:
        """The runs of a contestant, one a seed.

        Raises
        ------
        ArgumentException
            When it did not take part.
        """
        runs = tuple(run for run in self.runs if run.algorithm == algorithm)
        if not runs:
            raise ArgumentException(f"algorithm is {algorithm!r}; one of {', '.join(self.contestants)} is wanted")
        return runs

    def curves(self, seed: int) -> tuple[dict[str, Curve], dict[str, Curve]]:
        """Loss and accuracy of each contestant from a seed; of the second, only those that have one."""
        runs = [run for run in self.runs if run.seed == seed]
        return (
            {run.algorithm: run.losses for run in runs},
            {run.algorithm: run.accuracies for run in runs if run.accuracies is not None},
        )

    def to_json(self) -> str:
        """Settings and runs; each point of a curve as mean and half-width."""
        runs = [
            {
                **vars(run),
                "losses": _pairs(run.losses),
                "accuracies": _pairs(run.accuracies),
                "single_accuracy": None if run.single_accuracy is None else _pair(run.single_accuracy),
            }
            for run in self.runs
        ]
        return json.dumps({"settings": asdict(self.settings), "runs": runs}, indent=1)

    @staticmethod
    def from_json(text: str) -> Comparison:
        """What `to_json` wrote.

        Raises
        ------
        ArgumentException
            When it did not write that.
        """
        try:
            found: dict[str, Any] = json.loads(text)
            settings: dict[str, Any] = dict(found["settings"])
            for name in ("algorithms", "seeds"):
                settings[name] = tuple(settings[name])
            return Comparison(ComparisonSettings(**settings), tuple(_run(run) for run in found["runs"]))
        except ArgumentException:
            raise
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ArgumentException(f"text is not what to_json writes: {error!r}") from error


def _pairs(curve: Curve | None) -> list[tuple[float, float]] | None:
    return None if curve is None else [_pair(point) for point in curve]


def _pair(point: Interval) -> tuple[float, float]:
    return float(point.Mean), float(point.HalfWidth)


def _run(found: Mapping[str, Any]) -> Run:
    fields: dict[str, Any] = dict(found)
    accuracies = fields["accuracies"]
    fields["losses"] = _curve(fields["losses"])
    fields["accuracies"] = None if accuracies is None else _curve(accuracies)
    single = fields.get("single_accuracy")
    fields["single_accuracy"] = None if single is None else _curve([single])[0]
    return Run(**fields)


def _curve(pairs: Sequence[tuple[float, float]]) -> Curve:
    return tuple(ConfidenceInterval(np.float64(mean), np.float64(width)) for mean, width in pairs)
