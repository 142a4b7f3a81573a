"""The results of a comparison: for each contestant and seed, curves with intervals, time and memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np

from aidotnet_py.arguments import SEED, Choice, Number, OrNone, Whole, check_given, refusal
from aidotnet_py.comparison.contestants import ALGORITHMS, BASELINES, BASELINES_OF_CLASSES
from aidotnet_py.comparison.settings import ComparisonSettings
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.meta_learning import ConfidenceInterval

__all__ = ["Comparison", "Curve", "Interval", "Run", "merge", "require_alike"]

Interval: TypeAlias = ConfidenceInterval[np.float64]
# What else a run has, in JSON.
_PLAIN = {
    "algorithm": Choice(*BASELINES, *BASELINES_OF_CLASSES, *ALGORITHMS),
    "seed": SEED,
    "training_seconds": OrNone(Number(least=0.0)),
    # Above what any machine has; a difference may be below 0.
    "peak_bytes": OrNone(Whole(-(2**63), 2**63 - 1)),
}
# Mean and half-width of losses, which float32 holds: sums of the largest numbers of float64 have no figure. The
# half-width of numbers of at most M is at most that of the two tasks −M and M, 1.96 √2 M / √2.
_MOST = float(np.finfo(np.float32).max)
_LOSS = Number(least=-_MOST, most=_MOST), Number(least=0.0, most=2 * _MOST)
_SHARE = Number(least=0.0, most=1.0), Number(least=0.0, most=1.0)
# One interval after 0, 1, … steps of adaptation.
Curve: TypeAlias = tuple[Interval, ...]


@dataclass(frozen=True)
class Run:
    """One contestant from one seed.

    Attributes
    ----------
    algorithm, seed
        The contestant and its seed.
    losses : tuple of ConfidenceInterval
        The mean query loss over the test tasks after 0, 1, … steps of adaptation.
    accuracies : tuple of ConfidenceInterval or None
        The mean accuracy likewise; None for regression.
    training_seconds : float or None
        Wall-clock time of the training; None without training.
    peak_bytes : int or None
        Peak memory of arrays and objects in a step of training, minus the memory before the learner was created.
    single_accuracy : ConfidenceInterval or None
        The accuracy of the adapted models after all steps, for predictions of one example at a time; ``accuracies`` are
        those of whole query sets, which batch norm normalises together. None for regression, and in comparisons saved
        by versions that did not measure it.
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
    >>> comparison = compare(settings)
    >>> [run.algorithm for run in comparison.runs], len(comparison.runs[0].losses)
    (['random', 'transfer', 'FOMAML'], 33)
    >>> Comparison.from_json(comparison.to_json()) == comparison
    True
    """

    settings: ComparisonSettings
    runs: tuple[Run, ...]

    @property
    def contestants(self) -> tuple[str, ...]:
        """The names of the contestants, in order."""
        return tuple(dict.fromkeys(run.algorithm for run in self.runs))

    def of(self, algorithm: str) -> tuple[Run, ...]:
        """Return the runs of a contestant, one per seed.

        Raises
        ------
        ArgumentException
            When the comparison has no such contestant.
        """
        runs = tuple(run for run in self.runs if run.algorithm == algorithm)
        if not runs:
            raise ArgumentException(refusal("algorithm", f"one of {', '.join(self.contestants)}", algorithm))
        return runs

    def curves(self, seed: int) -> tuple[dict[str, Curve], dict[str, Curve]]:
        """Return the curves of loss and of accuracy by contestant, for a seed; without accuracy where there is none.

        Raises
        ------
        ArgumentException
            When the comparison has no run from this seed.
        """
        runs = [run for run in self.runs if run.seed == seed]
        if not runs:
            seeds = dict.fromkeys(str(run.seed) for run in self.runs)
            raise ArgumentException(refusal("seed", f"one of {', '.join(seeds)}", seed))
        return (
            {run.algorithm: run.losses for run in runs},
            {run.algorithm: run.accuracies for run in runs if run.accuracies is not None},
        )

    def to_json(self) -> str:
        """Return settings and runs as JSON; each point of a curve is mean and half-width."""
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
        """Read a comparison from the output of `to_json`.

        Raises
        ------
        ArgumentException
            When the text is anything else.
        """
        try:
            document: dict[str, Any] = json.loads(text)
            settings = ComparisonSettings(**document["settings"])
            runs = tuple(_read_run(run, settings) for run in document["runs"])
        except ArgumentException:
            raise
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ArgumentException(f"{refusal('text', 'an output of to_json', text)}: {error!r}") from error
        _require_one_of_each(runs)
        return Comparison(settings, runs)


def merge(comparisons: Mapping[str, Comparison]) -> Comparison:
    """Join comparisons of the same data and lengths, such as from several machines, each with seeds of its own.

    Parameters
    ----------
    comparisons : mapping of str to Comparison
        By names for messages, such as their files.

    Returns
    -------
    Comparison
        Of all algorithms and seeds, by rising seed. A run that several have with the same curves, as the baselines of
        one seed have on machines of one kind, is that of the first.

    Raises
    ------
    ArgumentException
        When there is none, or another kind of argument; when settings differ, apart from algorithms and seeds, or the
        curves of a run; when a seed lacks the run of an algorithm, or there are only runs of baselines.

    Examples
    --------
    >>> from aidotnet_py.comparison import ComparisonSettings, compare, merge
    >>> def of_seed(seed):
    ...     return ComparisonSettings.of("sinusoid", algorithms=["FOMAML"], iterations=2, test_tasks=5, seeds=[seed])
    >>> merge({"here": compare(of_seed(0)), "there": compare(of_seed(1))}).settings.seeds
    (0, 1)
    """
    _require_named(comparisons)
    (first_name, first), *_ = comparisons.items()
    runs: dict[tuple[int, str], tuple[str, Run]] = {}
    for name, comparison in comparisons.items():
        require_alike(name, comparison.settings, first.settings, of=first_name)
        for run in comparison.runs:
            owner, known = runs.setdefault((run.seed, run.algorithm), (name, run))
            if (known.losses, known.accuracies) != (run.losses, run.accuracies):
                raise ArgumentException(
                    f"{run.algorithm} from seed {run.seed} must have the same curves in {owner} and {name}, got "
                    "others; give each machine seeds of its own"
                )
    seeds = sorted({seed for seed, _ in runs})
    names = list(
        dict.fromkeys(algorithm for comparison in comparisons.values() for algorithm in comparison.contestants)
    )
    lacking = [f"{name} from seed {seed}" for seed in seeds for name in names if (seed, name) not in runs]
    if lacking:
        raise ArgumentException(
            f"comparisons must have each algorithm from each seed, got none of {', '.join(lacking)}"
        )
    algorithms = tuple(name for name in names if name in ALGORITHMS)
    if not algorithms:
        raise ArgumentException(
            f"comparisons must have runs of at least one algorithm, got {', '.join(names) or 'none'}; let compare make "
            "the other runs first (--resume, or earlier=… in Python)"
        )
    settings = replace(first.settings, algorithms=algorithms, seeds=tuple(seeds))
    return Comparison(settings, tuple(runs[seed, name][1] for seed in seeds for name in names))


def _require_named(comparisons: object) -> None:
    wanted = "a mapping of names to comparisons"
    check_given("comparisons", comparisons, wanted)
    if not isinstance(comparisons, Mapping):
        remedy = '; give each a name, as in merge({"here": one, "there": another})'
        raise ArgumentException(refusal("comparisons", wanted, comparisons) + remedy)
    entries = cast("Mapping[object, object]", comparisons)
    if not entries:
        raise ArgumentException("comparisons must have at least one entry, got none")
    for name, comparison in entries.items():
        if not isinstance(comparison, Comparison):
            raise ArgumentException(refusal(str(name), "a Comparison", comparison))


def require_alike(name: str, settings: ComparisonSettings, wanted: ComparisonSettings, *, of: str = "") -> None:
    """Raise ArgumentException where settings differ, apart from algorithms and seeds, and the folder of the archive."""
    given, expected = (
        {**asdict(one), "archive": None if one.archive is None else Path(one.archive).name}
        for one in (settings, wanted)
    )
    for field, value in given.items():
        if field not in ("algorithms", "seeds") and value != expected[field]:
            whose = f", as in {of}" if of else ""
            raise ArgumentException(f"{name} must have {field} {expected[field]!r}{whose}, got {value!r}")


def _pairs(curve: Curve | None) -> list[tuple[float, float]] | None:
    return None if curve is None else [_pair(point) for point in curve]


def _pair(point: Interval) -> tuple[float, float]:
    return float(point.Mean), float(point.HalfWidth)


def _read_run(entries: Mapping[str, Any], settings: ComparisonSettings) -> Run:
    fields: dict[str, Any] = dict(entries)
    for name, constraint in _PLAIN.items():
        fields[name] = constraint.check(name, fields[name])
    _require_suited(fields, settings)
    points = settings.adaptation_steps + 1
    fields["losses"] = _read_curve("losses", fields["losses"], points, _LOSS)
    accuracies, single = fields["accuracies"], fields.get("single_accuracy")
    fields["accuracies"] = None if accuracies is None else _read_curve("accuracies", accuracies, points, _SHARE)
    fields["single_accuracy"] = None if single is None else _read_curve("single_accuracy", [single], 1, _SHARE)[0]
    return Run(**fields)


def _require_suited(fields: Mapping[str, Any], settings: ComparisonSettings) -> None:
    """Raise ArgumentException where a run is of other data: of classes, or of none."""
    name, has_classes = fields["algorithm"], settings.problem.classification
    needs_classes = name in BASELINES_OF_CLASSES or (name in ALGORITHMS and ALGORITHMS[name].needs_classes)
    if needs_classes and not has_classes:
        raise ArgumentException(refusal("algorithm", f"without those that need classes for {settings.data}", name))
    if has_classes and fields["accuracies"] is None:
        raise ArgumentException(refusal("accuracies", f"pairs of numbers for {settings.data}", None))
    for field in ("accuracies", "single_accuracy"):
        if not has_classes and fields.get(field) is not None:
            raise ArgumentException(refusal(field, f"None for {settings.data}", fields[field]))


def _require_one_of_each(runs: tuple[Run, ...]) -> None:
    """Raise ArgumentException where a contestant has two runs from a seed: means would count both."""
    known: set[tuple[int, str]] = set()
    for run in runs:
        if (run.seed, run.algorithm) in known:
            raise ArgumentException(f"runs must have one of {run.algorithm} from seed {run.seed}, got several")
        known.add((run.seed, run.algorithm))


def _read_curve(name: str, pairs: Any, points: int, kinds: tuple[Number, Number]) -> Curve:
    held = cast("list[Any]", pairs) if isinstance(cast("object", pairs), list) else []
    if len(held) != points:
        raise ArgumentException(refusal(name, f"{points} pairs of numbers", pairs))
    means, widths = kinds
    return tuple(
        ConfidenceInterval(np.float64(means.check(name, mean)), np.float64(widths.check(name, width)))
        for mean, width in held
    )
