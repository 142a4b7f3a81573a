"""Runs a comparison: trains every contestant on the same tasks from the same start, and tests all on the same tasks."""

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

# Steps that bring programs and buffers into being, at the least, and steps at whose height memory is read.
_WARMING, _MEASURED = 12, 2


def compare(settings: ComparisonSettings) -> Comparison:
    """Train and test the baselines and the algorithms that the settings name, one after another.

    From a seed, every contestant starts with the same weights and is given the same training tasks in the same order;
    the test tasks are the same for all seeds too, and none is trained on. A test adapts by the learner's own rule, and
    looks at the query set after every step.

    Raises
    ------
    ArgumentException
        When there are fewer examples than the settings want, or the archive cannot be read.
    ImportError
        When a library that the data want is not installed; the message says what to type.
    InvalidOperationException
        When a loss does not stay finite; the message names contestant, seed and task.

    Examples
    --------
    >>> from aidotnet_py.comparison import ComparisonSettings, compare
    >>> found = compare(ComparisonSettings.of("sinusoid", algorithms=["MAML"], iterations=5, test_tasks=10))
    >>> [(run.algorithm, len(run.losses)) for run in found.runs]
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
        began = time.perf_counter()
        for _ in trange(settings.iterations, desc=f"{name}, seed {seed}", mininterval=1, disable=None):
            entrant.step()
        seconds = time.perf_counter() - began
        peak = _peak_of_a_step(lambda: contestant(problem, problem.model(seed), loader, settings.meta_batch).step)
    losses, accuracies = entrant.learner.adaptation_curve(test, settings.adaptation_steps)
    if not problem.classification:
        return Run(name, seed, _curve(losses), None, seconds, peak)
    single = _single_accuracy(entrant.learner, test, settings.adaptation_steps)
    return Run(name, seed, _curve(losses), _curve(accuracies), seconds, peak, single)


def _single_accuracy(learner: Learner, test: TaskBatch[np.float32, NDArray[Any], NDArray[Any]], steps: int) -> Interval:
    """The accuracy of the adapted models, which answer for one example at a time as for all together."""
    learner.Options.AdaptationSteps = steps
    loss = learner.BaseModel.DefaultLossFunction
    found = [loss.accuracy(learner.Adapt(task).Predict(task.QueryInput), task.QueryOutput) for task in test]
    return BasicStats.of(np.array(found)).ConfidenceInterval()


def _curve(values: NDArray[Any]) -> Curve:
    """(tasks, steps + 1) to an interval for each step."""
    return tuple(BasicStats.of(column).ConfidenceInterval() for column in values.T.astype(np.float64))


def _peak_of_a_step(start: Callable[[], Callable[[], object] | None]) -> int:
    """Bytes at the height of a later step, above what there was before the contestant's model and learner.

    Taken of a second contestant after the training of the first: to trace allocations takes time. One before it leaves
    to the process what is compiled and loaded once, so that it does not matter who came first.
    """
    _settled(start)
    gc.collect()
    traced_already = tracemalloc.is_tracing()
    if not traced_already:
        tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        step = _settled(start)
        gc.collect()
        tracemalloc.reset_peak()
        for _ in range(_MEASURED):
            step()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        if not traced_already:
            tracemalloc.stop()


def _settled(start: Callable[[], Callable[[], object] | None]) -> Callable[[], object]:
    """A contestant's step, taken until its programs are built and all is compiled that can be."""
    step = start()
    assert step is not None
    while True:
        for _ in range(_WARMING):
            step()
        compiling = [thread for thread in threading.enumerate() if thread.name == "aidotnet_py compiler"]
        if not compiling:
            # What was ready during the last of them is taken up at the next.
            step()
            return step
        for thread in compiling:
            thread.join()
