"""`iMAMLOptions.Recommended` against the defaults: ``python -m benchmarks.recommended``.

Meta-trains iMAML on data whose best inner rates differ by a factor of 200, with both kinds of options and for the same
numbers of steps and tasks a step, and tests on held-out tasks after K and after 2K inner steps. Omniglot is among the
data where ``--omniglot ARCHIVE`` is given.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from tqdm import trange

from aidotnet_py import CrossEntropyLoss, NeuralNetworkModel, iMAMLAlgorithm, iMAMLOptions
from aidotnet_py.comparison import PROBLEMS
from aidotnet_py.comparison.problems import Loader, Model, Problem, Source
from aidotnet_py.data import TableLoader
from aidotnet_py.data.drawn_tasks import DrawnTasks
from aidotnet_py.data.episodic import EpisodicLoader
from aidotnet_py.data.random_stream import RandomStream
from aidotnet_py.exceptions import InvalidOperationException
from aidotnet_py.meta_learning import TaskBatch
from aidotnet_py.nn import Dense, Flatten, Layer, Sequential, conv4, mlp
from benchmarks.report import mean_of, table

__all__: list[str] = []

# Seeds of test tasks; those of training are small.
_TEST = 10**6


@dataclass(frozen=True)
class Settings:
    """What the loader of a problem takes."""

    shots: int
    archive: str | None


class Lines(EpisodicLoader[np.float32]):
    """Linear regressions y = xᵀw of eight inputs with six support points; w is normal around 2, times a unit."""

    def __init__(self, unit: float, *, seed: int) -> None:
        super().__init__(1, 6, 6, seed=seed, dtype=np.float32, backend="numpy")
        self._unit = unit

    @property
    def AvailableClasses(self) -> int:
        """One, as for every regression."""
        return 1

    def _draw(self, stream: RandomStream, count: int) -> DrawnTasks:
        x = stream.generator.standard_normal((count, 12, 8))
        y = self._unit * x @ stream.generator.normal(2, 1, (count, 8, 1))
        x, y = x.astype(np.float32), y.astype(np.float32)
        return DrawnTasks((x[:, :6], y[:, :6], x[:, 6:], y[:, 6:]), "lines", [{}] * count, 1, 6, 6)


def lines(unit: float, split: str, source: Source, seed: int) -> Loader:
    """New lines for every seed."""
    return Lines(unit, seed=seed)


def curves(split: str, source: Source, seed: int) -> Loader:
    """Saturating curves of 60 groups of 24 rows in a table, 45 of them to train on."""
    generator, rows = np.random.default_rng(0), 24
    height, speed = (np.repeat(generator.uniform(low, high, 60), rows) for low, high in ((20, 80), (0.1, 1.0)))
    hours = generator.uniform(0, 10, 60 * rows)
    values = height * (1 - np.exp(-speed * hours)) + generator.normal(0, 1, 60 * rows)
    groups = [f"group {i:02}" for i in range(60)]
    whole: TableLoader[np.float32] = TableLoader(
        {"group": np.repeat(groups, rows), "hours": hours, "value": values}, task="group", target="value", seed=seed
    )
    train, test = whole.split(groups[:45], groups[45:])
    return train if split == "train" else test


def regressor(network: Callable[[], Layer], inputs: int, seed: int) -> Model:
    """An untrained network with a number for an example."""
    return NeuralNetworkModel(network(), input_shape=(inputs,), seed=seed)


def classifier(network: Callable[[], Layer], seed: int) -> Model:
    """An untrained network for digits."""
    return NeuralNetworkModel(network(), input_shape=(8, 8, 1), loss=CrossEntropyLoss(), seed=seed)


def problems() -> dict[str, Problem]:
    """Those of comparisons by name, and others of their kind."""
    sinusoids, digits, characters = (PROBLEMS[name] for name in ("sinusoid", "digits", "omniglot"))
    relu = partial(mlp, 40, 40, 1)
    straight = replace(
        sinusoids,
        model=partial(regressor, lambda: Sequential(Dense(1)), 8),
        loader=partial(lines, 1.0),
        iterations=1000,
        meta_batch=8,
        test_tasks=300,
    )
    table_of_curves = replace(
        sinusoids, model=partial(regressor, relu, 1), loader=curves, iterations=1000, test_tasks=60
    )
    return {
        "sinusoids, tanh": sinusoids,
        "sinusoids, ReLU": replace(sinusoids, model=partial(regressor, relu, 1)),
        "a table of curves": table_of_curves,
        "lines": straight,
        "lines, times 100": replace(straight, loader=partial(lines, 100.0)),
        "digits, conv4": digits,
        "digits, conv4 with layer norm": replace(
            digits, model=partial(classifier, lambda: conv4(digits.ways, filters=32, norm="layer"))
        ),
        "digits, MLP": replace(
            digits, model=partial(classifier, lambda: Sequential(Flatten(), mlp(64, 64, digits.ways)))
        ),
        "Omniglot, conv4": replace(characters, test_tasks=400),
    }


def options_of(kind: str, problem: Problem, source: Source, seed: int) -> iMAMLOptions[np.float32]:
    """Those of a kind, with the same steps and tasks a step."""
    model, loader = problem.model(seed), problem.loader("train", source, seed)
    common: Mapping[str, Any] = {"NumMetaIterations": problem.iterations, "MetaBatchSize": problem.meta_batch}
    if kind == "recommended":
        return iMAMLOptions.Recommended(model, loader, **common)
    return iMAMLOptions(model, DataLoader=loader, **common)


def row_of(name: str, problem: Problem, source: Source, kind: str, seed: int) -> list[str]:
    """Train and test: the row of a table."""
    began = time.perf_counter()
    options = options_of(kind, problem, source, seed)
    measuring = time.perf_counter() - began
    steps, rate = options.AdaptationSteps, options.InnerLearningRate
    row = [name, kind, str(seed), f"{rate:.2g}", str(steps)]
    learner = iMAMLAlgorithm(options)
    try:
        with warnings.catch_warnings():
            # The defaults' exact Hessian is often indefinite, and says so.
            warnings.simplefilter("ignore")
            for _ in trange(problem.iterations, desc=f"{name}, {kind}, seed {seed}", mininterval=1, disable=None):
                learner.MetaTrainStep(problem.meta_batch)
    except InvalidOperationException:
        return [*row, "diverged", "", ""]
    seconds = time.perf_counter() - began - measuring
    test = TaskBatch(problem.loader("test", source, _TEST + seed).GetTaskBatch(problem.test_tasks))
    curve = learner.adaptation_curve(test, 2 * steps)
    values, form = (
        (curve.accuracies, "{:.1%} ± {:.1%}") if problem.classification else (curve.losses, "{:#.3g} ± {:.2g}")
    )
    found = [mean_of(values[:, n], form) for n in (steps, 2 * steps)]
    return [*row, *found, f"{measuring:.1f} + {seconds:.0f} s"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--omniglot", type=Path, help="an archive of Omniglot, or its unpacked folder")
    parser.add_argument("--data", action="append", help="the beginning of names; again for more (default: all)")
    parser.add_argument("--kind", action="append", choices=["recommended", "default"], help="again for more (both)")
    parser.add_argument("--seed", action="append", type=int, help="of weights and training tasks (default: 0)")
    arguments = parser.parse_args()
    archive = None if arguments.omniglot is None else str(arguments.omniglot)
    known = {name: one for name, one in problems().items() if archive is not None or not one.needs_archive}
    wanted = tuple(arguments.data or [""])
    chosen = {name: one for name, one in known.items() if name.startswith(wanted)}
    if not chosen:
        parser.error(f"--data must be the beginning of one of {', '.join(known)}, got {', '.join(wanted)}")
    rows = [
        row_of(name, problem, Settings(problem.shots, archive), kind, seed)
        for name, problem in chosen.items()
        for seed in arguments.seed or [0]
        for kind in arguments.kind or ["recommended", "default"]
    ]
    title = "Loss or accuracy on held-out tasks after K and after 2K inner steps, with 95 % intervals"
    columns = ["data", "options", "seed", "η", "K", "after K", "after 2K", "measuring + training"]
    table(Console(width=140), title, columns, rows)


if __name__ == "__main__":
    main()
