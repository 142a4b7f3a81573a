"""The settings of a comparison, checked before any work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from aidotnet_py.arguments import Choice, Whole, entries_of, refusal, shown
from aidotnet_py.comparison.contestants import ALGORITHMS
from aidotnet_py.comparison.problems import PROBLEMS, Problem
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException
from aidotnet_py.paths import check_path

__all__ = ["SEEDS", "ComparisonSettings"]

# Seeds are below this number, which is the seed of the test tasks, so that no contestant trains on them.
SEEDS = 2**32

_DATA, _SEED = Choice(*PROBLEMS), Whole(0, SEEDS - 1)
# No limit of memory bounds the number of steps; 10⁹ steps of a millisecond take twelve days. An interval requires two
# test tasks.
_STEPS = Whole(1, 10**9)
_NUMBERS = {
    "iterations": _STEPS,
    "meta_batch": Whole(1),
    "shots": Whole(1),
    "test_tasks": Whole(2),
    "adaptation_steps": _STEPS,
}

# Bytes of a number of a task, in float32; and of a loss with an accuracy, in float64.
_NUMBER_BYTES, _MEASURED_BYTES = 4, 16
# The machine's memory if the system does not report it.
_USUAL_MEMORY = 2**37
# The quotients of larger sizes need not fit into a float.
_MOST_TOLD = 2**1000


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings:
    """The algorithms of a comparison, their data and the lengths of runs; `of` fills in the data's defaults.

    Sequences are kept as tuples, NumPy's numbers as Python's and paths as text, so that all of them fit into JSON.

    Parameters
    ----------
    data : str
        A name in ``PROBLEMS``.
    algorithms : tuple of str
        Names in ``ALGORITHMS``, without duplicates. The baselines are always included.
    iterations, meta_batch : int
        Steps of training and tasks per step, > 0.
    shots : int
        Support examples (per class if there are classes), > 0.
    test_tasks : int
        Number of test tasks, > 1.
    adaptation_steps : int
        Number of adaptation steps in the test, > 0.
    seeds : tuple of int
        Seeds of initial weights and training tasks, from 0 to 2³² − 1, without duplicates.
    archive : str, optional
        An archive of Omniglot or its folder, only for the data "omniglot".

    Raises
    ------
    ArgumentException
        When a name is unknown, an entry is missing or a duplicate, or a value has a wrong type.
    ArgumentOutOfRangeException
        When a number is too small, too large, or too large for the machine's memory.

    Examples
    --------
    >>> from aidotnet_py.comparison import ComparisonSettings
    >>> settings = ComparisonSettings.of("sinusoid", algorithms=["MAML", "iMAML"], iterations=100)
    >>> settings.algorithms, settings.meta_batch
    (('MAML', 'iMAML'), 25)
    """

    data: str
    algorithms: tuple[str, ...]
    iterations: int
    meta_batch: int
    shots: int
    test_tasks: int
    adaptation_steps: int
    seeds: tuple[int, ...]
    archive: str | None = None

    def __post_init__(self) -> None:
        self._keep("data", _DATA.check("data", self.data))
        names = entries_of("algorithms", "a sequence of names", self.algorithms)
        self._keep("algorithms", tuple(self._algorithm(name) for name in names))
        _require_unique("algorithms", self.algorithms)
        for name, constraint in _NUMBERS.items():
            self._keep(name, constraint.check(name, getattr(self, name)))
        seeds = entries_of("seeds", "a sequence of whole numbers", self.seeds)
        self._keep("seeds", tuple(_SEED.check("seeds", seed) for seed in seeds))
        _require_unique("seeds", self.seeds)
        self._keep("archive", self._path_of_archive())
        self._require_room()

    def _keep(self, name: str, value: object) -> None:
        """Replace a field by its plain value, which JSON can hold."""
        object.__setattr__(self, name, value)

    def _algorithm(self, name: object) -> str:
        plain = next((known for known in ALGORITHMS if isinstance(name, str) and name == known), None)
        if plain is None:
            meant = [one for one in ALGORITHMS if one.lower() == str(name).lower()]
            question = f" (did you mean {meant[0]}?)" if meant else ""
            raise ArgumentException(refusal("algorithms", f"names out of {', '.join(ALGORITHMS)}", name) + question)
        if ALGORITHMS[plain].needs_classes and not self.problem.classification:
            raise ArgumentException(refusal("algorithms", f"without those that need classes for {self.data}", plain))
        return plain

    def _path_of_archive(self) -> str | None:
        path = cast(object, self.archive)
        if not self.problem.needs_archive:
            if path is not None:
                raise ArgumentException(refusal("archive", f"left out for {self.data}", path))
            return None
        check_path("archive", path, f"the path of a published archive or its folder for {self.data}")
        # As it was given; NumPy's strings become plain.
        return str(os.fspath(cast("str | os.PathLike[str]", path)))

    def _require_room(self) -> None:
        """Refuse sizes whose tasks or results alone exceed the machine's memory."""
        problem = self.problem
        task = _NUMBER_BYTES * problem.ways * (self.shots + problem.queries) * problem.inputs
        curve = _MEASURED_BYTES * (self.adaptation_steps + 1)
        for name, size in (
            ("shots", task),
            ("meta_batch", self.meta_batch * task),
            ("test_tasks", self.test_tasks * (task + _MEASURED_BYTES)),
            ("adaptation_steps", self.test_tasks * (task + curve)),
        ):
            if size > _memory():
                raise ArgumentOutOfRangeException(
                    f"{name} must be smaller, got {shown(getattr(self, name))}: the run would take at least "
                    f"{min(size, _MOST_TOLD) / 2**30:.3g} GiB, and this machine has {_memory() / 2**30:.3g}"
                )

    @property
    def problem(self) -> Problem:
        """The data set with its network and defaults."""
        return PROBLEMS[self.data]

    @staticmethod
    def of(
        data: str,
        *,
        algorithms: Sequence[str] | None = None,
        iterations: int | None = None,
        meta_batch: int | None = None,
        shots: int | None = None,
        test_tasks: int | None = None,
        adaptation_steps: int | None = None,
        seeds: Sequence[int] = (0,),
        archive: str | os.PathLike[str] | None = None,
    ) -> ComparisonSettings:
        """Return settings with the data's defaults in place of None; by default all algorithms that suit them."""
        problem = _problem_of(data)
        # Any: the new settings make them plain.
        given: dict[str, Any] = {"seeds": seeds, "archive": archive}
        given["algorithms"] = _suited_to(problem) if algorithms is None else algorithms
        return ComparisonSettings(
            data=data,
            iterations=problem.iterations if iterations is None else iterations,
            meta_batch=problem.meta_batch if meta_batch is None else meta_batch,
            shots=problem.shots if shots is None else shots,
            test_tasks=problem.test_tasks if test_tasks is None else test_tasks,
            adaptation_steps=problem.adaptation_steps if adaptation_steps is None else adaptation_steps,
            **given,
        )


def _memory() -> int:
    """Return the machine's memory in bytes."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return _USUAL_MEMORY


def _problem_of(data: str) -> Problem:
    return PROBLEMS[_DATA.check("data", data)]


def _suited_to(problem: Problem) -> tuple[str, ...]:
    return tuple(name for name, one in ALGORITHMS.items() if problem.classification or not one.needs_classes)


def _require_unique(name: str, values: tuple[object, ...]) -> None:
    if not values:
        raise ArgumentException(f"{name} must have at least one entry, got none")
    if len(set(values)) < len(values):
        raise ArgumentException(f"{name} must have no duplicates, got {', '.join(map(str, values))}")
