"""A race of meta-learning algorithms on sinusoids: one start, the same tasks, a step at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import SEED, Number
from aidotnet_py.comparison import ALGORITHMS, BASELINES, ComparisonSettings
from aidotnet_py.meta_learning import MetaLearningTask, TaskBatch

__all__ = ["AMPLITUDE", "EVALUATED_EVERY", "GRID", "PHASE", "RACERS", "Adaptation", "Race", "Wave"]

RACERS = ("random", "transfer", "MAML", "FOMAML", "Reptile", "iMAML")
GRID = np.linspace(-5.0, 5.0, 101, dtype=np.float32)[:, np.newaxis]
# The ranges of `SinusoidLoader`, both ends included.
AMPLITUDE, PHASE = Number(least=0.1, most=5.0), Number(least=0.0, most=float(np.pi))
EVALUATED_EVERY = 10

_TEST_TASKS = 20
# Above all seeds of races, so that nobody trains on the test tasks.
_TEST_SEED = 2**32


@dataclass(frozen=True)
class Wave:
    """A task of the person's own: y = A sin(x − φ), known at some points x.

    Parameters
    ----------
    amplitude, phase : float
        A in [0.1, 5] and φ in [0, π].
    seed : int
        Of the points.
    """

    amplitude: float
    phase: float
    seed: int = 0

    def __post_init__(self) -> None:
        AMPLITUDE.check("amplitude", self.amplitude)
        PHASE.check("phase", self.phase)
        SEED.check("seed", self.seed)

    def at(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return y at points x."""
        return (self.amplitude * np.sin(x.astype(np.float64) - self.phase)).astype(np.float32)

    def task(self, shots: int) -> MetaLearningTask[np.float32, NDArray[Any], NDArray[Any]]:
        """Return the task: random points as its support set, the grid as its query set."""
        x = np.random.default_rng(self.seed).uniform(-5.0, 5.0, size=(shots, 1)).astype(np.float32)
        return MetaLearningTask(
            SupportSetX=x, SupportSetY=self.at(x), QuerySetX=GRID, QuerySetY=self.at(GRID), NumWays=1, NumShots=shots,
            NumQueryPerClass=len(GRID),
        )  # fmt: skip


@dataclass(frozen=True)
class Adaptation:
    """What a racer makes of a wave: predictions on the grid, shape (101,), and their mean squared errors there."""

    before: NDArray[np.float32]
    after: NDArray[np.float32]
    loss_before: float
    loss_after: float


class Race:
    """Racers with the same weights at the start, which train on the same tasks in the same order.

    Parameters
    ----------
    seed : int
        Of the weights and the training tasks, below 2³².

    Attributes
    ----------
    iteration : int
        Steps of training taken.
    iterations : list of int
        When the racers were tested: at the start, and after every tenth step.
    losses : dict of str to list of float
        For each racer, the mean query loss after adaptation on twenty tasks that nobody trains on.

    Raises
    ------
    ArgumentException
        When the seed is no whole number.
    ArgumentOutOfRangeException
        When the seed lies outside its range.

    Examples
    --------
    >>> race = Race(seed=0)
    >>> for _ in range(10):
    ...     race.step()
    >>> race.iterations, list(race.losses) == list(RACERS)
    ([0, 10], True)
    """

    def __init__(self, seed: int = 0) -> None:
        settings = ComparisonSettings.of("sinusoid", seeds=(seed,))
        problem = settings.problem
        self._entrants = {
            name: (BASELINES.get(name) or ALGORITHMS[name])(
                problem, problem.model(seed), problem.loader("train", settings, seed), settings.meta_batch
            )
            for name in RACERS
        }
        self._test = TaskBatch(problem.loader("test", settings, _TEST_SEED).GetTaskBatch(_TEST_TASKS))
        self.shots = settings.shots
        self.iteration = 0
        self.iterations: list[int] = []
        self.losses: dict[str, list[float]] = {name: [] for name in RACERS}
        self._evaluate()

    def step(self) -> None:
        """Let each racer train on the next tasks, and test all of them after every tenth step."""
        for entrant in self._entrants.values():
            if entrant.step is not None:
                entrant.step()
        self.iteration += 1
        if self.iteration % EVALUATED_EVERY == 0:
            self._evaluate()

    def _evaluate(self) -> None:
        self.iterations.append(self.iteration)
        for name, entrant in self._entrants.items():
            self.losses[name].append(float(entrant.learner.Evaluate(self._test)))

    def adapt(self, wave: Wave) -> Mapping[str, Adaptation]:
        """Let each racer adapt to the points of a wave that are known."""
        task, truth = wave.task(self.shots), wave.at(GRID).ravel()
        adaptations: dict[str, Adaptation] = {}
        for name, entrant in self._entrants.items():
            before = np.asarray(entrant.learner.BaseModel.Predict(GRID)).ravel()
            after = np.asarray(entrant.learner.Adapt(task).Predict(GRID)).ravel()
            errors = (float(np.mean((values - truth) ** 2)) for values in (before, after))
            adaptations[name] = Adaptation(before, after, *errors)
        return adaptations
