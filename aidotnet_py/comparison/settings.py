"""What a comparison can be told, checked before any work is done."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

from aidotnet_py.comparison.contestants import ALGORITHMS
from aidotnet_py.comparison.problems import PROBLEMS, Problem
from aidotnet_py.exceptions import ArgumentException, ArgumentOutOfRangeException

__all__ = ["SEEDS", "ComparisonSettings"]

# Seeds lie below this; above it is the seed of the test tasks, which nobody trains on.
SEEDS = 2**32

# The fewest that a comparison can do with: an interval takes two test tasks.
_LEAST = {"iterations": 1, "meta_batch": 1, "shots": 1, "test_tasks": 2, "adaptation_steps": 1}
# Steps take no memory of their own; so many of a millisecond take twelve days.
_MOST = {"iterations": 10**9, "adaptation_steps": 10**9}

# What a number of a task takes, in float32; and a loss with an accuracy, in float64.
_NUMBER_BYTES, _MEASURED_BYTES = 4, 16
# Taken for the machine's memory where the system does not tell it.
_USUAL_MEMORY = 2**37


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings:
    """Which algorithms are compared, on what, and how long; `of` fills in what is usual for the data.

    Parameters
    ----------
    data : str
        A name in ``PROBLEMS``.
    algorithms : tuple of str
        Names in ``ALGORITHMS``, each once. The baselines come with any of them.
    iterations, meta_batch : int
        Steps of training and tasks a step, > 0.
    shots : int
        Support examples (of a class, where there are classes), > 0.
    test_tasks : int
        How many tasks all are tested on, > 1.
    adaptation_steps : int
        How many steps of adaptation are followed in the test, > 0.
    seeds : tuple of int
        Each gives initial weights and training tasks; from 0 to 2³² − 1, each once.
    archive : str, optional
        An archive of Omniglot or its folder, where data is "omniglot".

    Raises
    ------
    ArgumentException
        When a name is unknown, something is there twice or missing; the message says what is wanted.
    ArgumentOutOfRangeException
        When a number is too small or too large, or the machine's memory too small for it.

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
        problem = _problem_of(self.data)
        for name in self.algorithms:
            if name not in ALGORITHMS:
                meant = [known for known in ALGORITHMS if known.lower() == str(name).lower()]
                question = f" (did you mean {meant[0]}?)" if meant else ""
                raise ArgumentException(
                    f"algorithms has {name!r}{question}; names out of {', '.join(ALGORITHMS)} are wanted"
                )
        _require_some_once("algorithms", self.algorithms)
        for name, least in _LEAST.items():
            _require_within(name, getattr(self, name), least, _MOST.get(name))
        for seed in self.seeds:
            _require_within("seeds", seed, 0, SEEDS - 1)
        _require_some_once("seeds", self.seeds)
        if problem.needs_archive and self.archive is None:
            raise ArgumentException(
                f"archive is not given; {self.data} wants the path of a published archive or its folder"
            )
        if not problem.needs_archive and self.archive is not None:
            raise ArgumentException(f"archive is {self.archive!r}; {self.data} takes none")
        self._require_room()

    def _require_room(self) -> None:
        """Refuse sizes of which the tasks or the results alone are more than the machine's memory."""
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
                    f"{name} must be smaller, got {getattr(self, name)}: the run would take at least "
                    f"{size / 2**30:.3g} GiB, and this machine has {_memory() / 2**30:.3g}"
                )

    @property
    def problem(self) -> Problem:
        """The data set and all that belongs to it."""
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
        archive: str | None = None,
    ) -> ComparisonSettings:
        """What is given, and where it is None what is usual for the data; all algorithms where none are named."""
        problem = _problem_of(data)
        return ComparisonSettings(
            data=data,
            algorithms=tuple(ALGORITHMS if algorithms is None else algorithms),
            iterations=problem.iterations if iterations is None else iterations,
            meta_batch=problem.meta_batch if meta_batch is None else meta_batch,
            shots=problem.shots if shots is None else shots,
            test_tasks=problem.test_tasks if test_tasks is None else test_tasks,
            adaptation_steps=problem.adaptation_steps if adaptation_steps is None else adaptation_steps,
            seeds=tuple(seeds),
            archive=archive,
        )


def _memory() -> int:
    """Bytes of the machine's memory."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return _USUAL_MEMORY


def _problem_of(data: str) -> Problem:
    if data not in PROBLEMS:
        raise ArgumentException(f"data is {data!r}; one of {', '.join(PROBLEMS)} is wanted")
    return PROBLEMS[data]


def _require_within(name: str, value: object, least: int, most: int | None) -> None:
    # True and False are whole numbers in Python's eyes.
    whole = -1 if isinstance(value, bool) or not isinstance(value, Integral) else int(value)
    if whole < least or (most is not None and whole > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ArgumentOutOfRangeException(f"{name} is {value!r}; a whole number {bounds} is wanted")


def _require_some_once(name: str, values: tuple[object, ...]) -> None:
    if not values:
        raise ArgumentException(f"{name} is empty; at least one is wanted")
    if len(set(values)) < len(values):
        raise ArgumentException(f"{name} is {', '.join(map(str, values))}; each is wanted once")
