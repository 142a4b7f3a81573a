"""The run of a comparison: the same training tasks, start and test tasks for every contestant."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import trange

from aidotnet_py.comparison.contestants import ALGORITHMS, BASELINES, Contestant, Learner
from aidotnet_py.comparison.results import Comparison, Curve, Interval, Run
from aidotnet_py.comparison.settings import SEEDS, ComparisonSettings
from aidotnet_py.exceptions import InvalidOperationException
from aidotnet_py.meta_learning import BasicStats, TaskBatch

__all__ = ["compare"]

# The least number of steps that create programs and buffers, and the number of steps whose peak memory is measured.
_WARMING, _MEASURED = 12, 2


def compare(settings: ComparisonSettings) -> Comparison:
    """Train and test the baselines and the algorithms of the settings, one after another.

    For each seed, all contestants start with the same weights and train on the same tasks in the same order. The test
    tasks are the same for all seeds, and never trained on. The test adapts by the learner's own rule, and evaluates the
    query set after every step.

    Raises
    ------
    ArgumentException
        When there are fewer examples than the settings require, or the archive cannot be read.
    ImportError
        When a library for the data is not installed; the message has the command that installs it.
    InvalidOperationException
        When a loss is not finite; the message names contestant, seed and task.

    Examples
    --------
    >>> from aidotnet_py.comparison import ComparisonSettings, compare
    >>> comparison = compare(ComparisonSettings.of("sinusoid", algorithms=["MAML"], iterations=5, test_tasks=10))
    >>> [(run.algorithm, len(run.losses)) for run in comparison.runs]
    [('random', 33), ('transfer', 33), ('MAML', 33)]
    """
    test = TaskBatch(settings.problem.loader("test", settings, SEEDS).GetTaskBatch(settings.test_tasks))
    entries: Mapping[str, Contestant] = {**BASELINES, **{name: ALGORITHMS[name] for name in settings.algorithms}}
    runs: list[Run] = []
    for seed in settings.seeds:
        for name, contestant in entries.items():
            try:
                runs.append(_run(name, contestant, settings, seed, test))
            except InvalidOperationException as error:
                raise InvalidOperationException(f"{name} from seed {seed}: {error}") from error
    return Comparison(settings, tuple(runs))


def _run(
    name: str,
    contestant: Contestant,
    settings: ComparisonSettings,
    seed: int,
    test: TaskBatch[np.float32, NDArray[Any], NDArray[Any]],
) -> Run:
    problem = settings.problem
    loader = problem.loader("train", settings, seed)
    entrant = contestant(problem, problem.model(seed), loader, settings.meta_batch)
    seconds, peak = None, None
    if entrant.step is not None:
        start = time.perf_counter()
        for _ in trange(settings.iterations, desc=f"{name}, seed {seed}", mininterval=1, disable=None):
            entrant.step()
        seconds = time.perf_counter() - start
        peak = _peak_of_a_step(lambda: contestant(problem, problem.model(seed), loader, settings.meta_batch).step)
    losses, accuracies = entrant.learner.adaptation_curve(test, settings.adaptation_steps)
    if not problem.classification:
        return Run(name, seed, _curve(losses), None, seconds, peak)
    single = _single_accuracy(entrant.learner, test, settings.adaptation_steps)
    return Run(name, seed, _curve(losses), _curve(accuracies), seconds, peak, single)


def _single_accuracy(learner: Learner, test: TaskBatch[np.float32, NDArray[Any], NDArray[Any]], steps: int) -> Interval:
    """Return the accuracy of the adapted models for predictions of one example at a time."""
    learner.Options.AdaptationSteps = steps
    loss = learner.BaseModel.DefaultLossFunction
    # Adapted models normalise by their support sets, so whole query sets give the predictions of single examples.
    accuracies = [loss.accuracy(learner.Adapt(task).Predict(task.QueryInput), task.QueryOutput) for task in test]
    return BasicStats.of(np.array(accuracies)).ConfidenceInterval()


def _curve(values: NDArray[Any]) -> Curve:
    """Turn values (tasks, steps + 1) into an interval for each step."""
    return tuple(BasicStats.of(column).ConfidenceInterval() for column in values.T.astype(np.float64))


def _peak_of_a_step(start: Callable[[], Callable[[], object] | None]) -> int:
    """Return the peak memory of later steps in bytes, minus the memory before model and learner were created.

    Tracing allocations slows steps down, so they are measured apart from the timed training. A first entrant compiles
    and loads everything that lasts for the process, so that the order of contestants does not matter.
    """
    _warm_up(start)
    gc.collect()
    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        step = _warm_up(start)
        gc.collect()
        tracemalloc.reset_peak()
        for _ in range(_MEASURED):
            step()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        if not was_tracing:
            tracemalloc.stop()


def _warm_up(start: Callable[[], Callable[[], object] | None]) -> Callable[[], object]:
    """Repeat a contestant's step until its programs are built and compiled, and return the step."""
    step = start()
    assert step is not None
    while True:
        for _ in range(_WARMING):
            step()
        compiling = [thread for thread in threading.enumerate() if thread.name == "aidotnet_py compiler"]
        if not compiling:
            # Code that became ready during the last step is used from the next one on.
            step()
            return step
        for thread in compiling:
            thread.join()
