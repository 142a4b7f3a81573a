"""The run of a comparison: the same training tasks, start and test tasks for every contestant."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import check_given, refusal
from aidotnet_py.comparison.contestants import ALGORITHMS, BASELINES, BASELINES_OF_CLASSES, Contestant, Learner
from aidotnet_py.comparison.results import Comparison, Curve, Interval, Run, require_alike
from aidotnet_py.comparison.settings import SEEDS, ComparisonSettings
from aidotnet_py.exceptions import ArgumentException, InvalidOperationException
from aidotnet_py.meta_learning import BasicStats, TaskBatch
from aidotnet_py.meta_learning.contract.options import ExecutorOrMaker
from aidotnet_py.progress import progress_bar

__all__ = ["compare", "warm_up"]

# The least number of steps that create programs and buffers, and the number of steps whose peak memory is measured.
_WARMING, _MEASURED = 12, 2


def compare(
    settings: ComparisonSettings,
    *,
    earlier: Comparison | None = None,
    on_run: Callable[[Comparison], object] | None = None,
    executor: ExecutorOrMaker | None = None,
) -> Comparison:
    """Train and test the baselines and the algorithms of the settings, one after another.

    For each seed, all contestants start with the same weights and train on the same tasks in the same order. The test
    tasks are the same for all seeds, and never trained on. The test adapts by the learner's own rule, and evaluates the
    query set after every step.

    Parameters
    ----------
    settings : ComparisonSettings
        Who is compared, and on what.
    earlier : Comparison, optional
        A comparison that was stopped, or one of fewer algorithms or seeds: its runs are not made again, and all of them
        are in the result.
    on_run : callable, optional
        Called after each run that was made, with the comparison so far, such as to keep it in a file. All runs of the
        earlier comparison are in it from the first call on.
    executor : concurrent.futures.Executor, or a function that makes one, optional
        Whose workers share the tasks of steps and tests; the option Executor of each learner.

    Raises
    ------
    ArgumentNullException
        When the settings are None.
    ArgumentException
        When an argument is of another kind. When there are fewer examples than the settings require, or the archive
        cannot be read; when the earlier comparison has other settings, apart from its algorithms and seeds, or runs of
        algorithms or seeds that the settings lack.
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
    _require_kinds(settings, earlier, on_run)
    baselines = {**BASELINES, **(BASELINES_OF_CLASSES if settings.problem.classification else {})}
    entries: Mapping[str, Contestant] = {**baselines, **{name: ALGORITHMS[name] for name in settings.algorithms}}
    if earlier is not None:
        require_alike("earlier", earlier.settings, settings)
        _require_no_others(earlier.runs, entries, settings.seeds)
    runs = {(run.seed, run.algorithm): run for run in (earlier.runs if earlier is not None else ())}
    order = [(seed, name) for seed in settings.seeds for name in entries]
    test = TaskBatch(settings.problem.loader("test", settings, SEEDS).GetTaskBatch(settings.test_tasks))
    for seed, name in order:
        if (seed, name) in runs:
            continue
        try:
            runs[seed, name] = _run(name, entries[name], settings, seed, test, executor)
        except InvalidOperationException as error:
            raise InvalidOperationException(f"{name} from seed {seed}: {error}") from error
        if on_run is not None:
            on_run(Comparison(settings, tuple(runs[key] for key in order if key in runs)))
    return Comparison(settings, tuple(runs[key] for key in order))


def _require_kinds(settings: object, earlier: object, on_run: object) -> None:
    check_given("settings", settings, "ComparisonSettings")
    if not isinstance(settings, ComparisonSettings):
        raise ArgumentException(refusal("settings", "ComparisonSettings", settings))
    if earlier is not None and not isinstance(earlier, Comparison):
        raise ArgumentException(refusal("earlier", "a Comparison, or None", earlier))
    if on_run is not None and not callable(on_run):
        raise ArgumentException(refusal("on_run", "a function of a Comparison, or None", on_run))


def _require_no_others(runs: Iterable[Run], entries: Collection[str], seeds: Collection[int]) -> None:
    """Refuse runs that the comparison would leave out: whoever keeps it in their file would lose them."""
    names = dict.fromkeys(run.algorithm for run in runs if run.algorithm not in entries)
    others = dict.fromkeys(f"seed {run.seed}" for run in runs if run.seed not in seeds)
    if names or others:
        raise ArgumentException(
            f"earlier must have only algorithms and seeds of the settings, got also {', '.join([*names, *others])}; "
            "add them, or keep the new runs in another file"
        )


def _run(
    name: str,
    contestant: Contestant,
    settings: ComparisonSettings,
    seed: int,
    test: TaskBatch[np.float32, NDArray[Any], NDArray[Any]],
    executor: ExecutorOrMaker | None,
) -> Run:
    problem = settings.problem
    loader = problem.loader("train", settings, seed)
    entrant = contestant(problem, problem.model(seed), loader, settings.meta_batch)
    entrant.learner.Options.Executor = executor
    seconds, peak = None, None
    if entrant.step is not None:
        start = time.perf_counter()
        for _ in progress_bar(range(settings.iterations), desc=f"{name}, seed {seed}", mininterval=1):
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
    loss = learner.DefaultLossFunction
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
    warm_up(start)
    gc.collect()
    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        step = warm_up(start)
        gc.collect()
        tracemalloc.reset_peak()
        for _ in range(_MEASURED):
            step()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        if not was_tracing:
            tracemalloc.stop()


def warm_up(start: Callable[[], Callable[[], object] | None]) -> Callable[[], object]:
    """Repeat a step until its programs are built and compiled, and return the step."""
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
