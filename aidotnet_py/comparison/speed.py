"""How long a step of training and an adaptation take on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from aidotnet_py.arguments import POSITIVE
from aidotnet_py.comparison.contestants import ALGORITHMS, Learner
from aidotnet_py.comparison.running import warm_up
from aidotnet_py.comparison.settings import ComparisonSettings
from aidotnet_py.meta_learning import IMetaLearningTask

__all__ = ["Speed", "measure_speed"]


class Speed(NamedTuple):
    """The times of one algorithm, in milliseconds.

    Attributes
    ----------
    algorithm : str
        Its name.
    step : float
        The median of `MetaTrainStep`, the drawing of its tasks included.
    adapt : float
        The median of `Adapt` to one task and the prediction of its query set.
    """

    algorithm: str
    step: float
    adapt: float


def measure_speed(settings: ComparisonSettings, seconds: float) -> list[Speed]:
    """Return the times of the algorithms of the settings, each measured for about so long once it is compiled.

    Raises
    ------
    ArgumentException, ArgumentOutOfRangeException
        When ``seconds`` is no number above 0; when the archive cannot be read.

    Examples
    --------
    >>> from aidotnet_py.comparison import ComparisonSettings, measure_speed
    >>> [speed] = measure_speed(ComparisonSettings.of("sinusoid", algorithms=["FOMAML"], meta_batch=4), seconds=0.02)
    >>> speed.algorithm, speed.step > 0, speed.adapt > 0
    ('FOMAML', True, True)
    """
    POSITIVE.check("seconds", seconds)
    problem, seed = settings.problem, settings.seeds[0]
    found: list[Speed] = []
    for name in settings.algorithms:
        loader = problem.loader("train", settings, seed)
        entrant = ALGORITHMS[name](problem, problem.model(seed), loader, settings.meta_batch)
        assert entrant.step is not None
        adapt = partial(_adapt, entrant.learner, loader.GetNextTask())
        found.append(Speed(name, *(_median(work, seconds / 2) for work in (entrant.step, adapt))))
    return found


def _adapt(learner: Learner, task: IMetaLearningTask[Any, Any, Any]) -> None:
    learner.Adapt(task).Predict(task.QueryInput)


def _median(work: Callable[[], object], seconds: float) -> float:
    """Return the median time of some work in milliseconds once it is compiled, over at least three rounds."""
    warm_up(lambda: work)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        began = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - began))
    return float(np.median(times))
