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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from tqdm import trange

from aidotnet_py import BasicStats, CrossEntropyLoss, NeuralNetworkModel, iMAMLAlgorithm, iMAMLOptions
from aidotnet_py.data import DigitsLoader, OmniglotLoader, SinusoidLoader, TableLoader
from aidotnet_py.data.drawn_tasks import DrawnTasks
from aidotnet_py.data.episodic import EpisodicLoader
from aidotnet_py.data.random_stream import RandomStream
from aidotnet_py.exceptions import InvalidOperationException
from aidotnet_py.meta_learning import IEpisodicDataLoader, TaskBatch
from aidotnet_py.nn import Dense, Flatten, Sequential, Tanh, conv4, mlp
from benchmarks.report import table

__all__: list[str] = []

Loader: TypeAlias = IEpisodicDataLoader[np.float32, NDArray[Any], NDArray[Any]]
Options: TypeAlias = iMAMLOptions[np.float32]

_WAYS = 5
# Seeds of test tasks; those of training are small.
_TEST = 10**6


@dataclass(frozen=True)
class Data:
    """Tasks and a network; ``loader`` takes a split and a seed."""

    network: Callable[[], Any]
    shape: tuple[int, ...]
    loader: Callable[[str, int], Loader]
    steps: int
    tasks: int
    test_tasks: int
    classes: bool = False

    def model(self, seed: int) -> NeuralNetworkModel[np.float32]:
        """The untrained model."""
        loss: dict[str, Any] = {"loss": CrossEntropyLoss()} if self.classes else {}
        return NeuralNetworkModel(self.network(), input_shape=self.shape, seed=seed, **loss)


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


def curves(split: str, seed: int) -> Loader:
    """Saturating curves of 60 groups of 24 rows in a table, 45 of them to train on."""
    generator, rows = np.random.default_rng(0), 24
    height, speed = (np.repeat(generator.uniform(low, high, 60), rows) for low, high in ((20, 80), (0.1, 1.0)))
    hours = generator.uniform(0, 10, 60 * rows)
    values = height * (1 - np.exp(-speed * hours)) + generator.normal(0, 1, 60 * rows)
    groups = [f"group {i:02}" for i in range(60)]
    whole: Any = TableLoader(
        {"group": np.repeat(groups, rows), "hours": hours, "value": values}, task="group", target="value", seed=seed
    )
    train, test = whole.split(groups[:45], groups[45:])
    return train if split == "train" else test


def data_sets(archive: Path | None) -> dict[str, Data]:
    """By name; Omniglot is among them where its archive is given."""

    def sinusoids(split: str, seed: int) -> Loader:
        return SinusoidLoader(KShot=10, QueryShots=10, seed=seed)

    def digits(split: Any, seed: int) -> Loader:
        return DigitsLoader(split=split, seed=seed)

    def lines(split: str, seed: int, unit: float = 1.0) -> Loader:
        return Lines(unit, seed=seed)

    regressor = partial(mlp, 40, 40, 1)
    tanh = partial(_sequence, lambda: [Dense(40), Tanh(), Dense(40), Tanh(), Dense(1)])
    convolutions = partial(conv4, _WAYS, filters=32)
    of_digits = partial(Data, shape=(8, 8, 1), loader=digits, steps=300, tasks=8, test_tasks=300, classes=True)
    found = {
        "sinusoids, tanh": Data(tanh, (1,), sinusoids, 2000, 25, 600),
        "sinusoids, ReLU": Data(regressor, (1,), sinusoids, 2000, 25, 600),
        "a table of curves": Data(regressor, (1,), curves, 1000, 25, 60),
        "lines": Data(partial(_sequence, lambda: [Dense(1)]), (8,), lines, 1000, 8, 300),
        "lines, times 100": Data(
            partial(_sequence, lambda: [Dense(1)]), (8,), partial(lines, unit=100.0), 1000, 8, 300
        ),
        "digits, conv4": of_digits(convolutions),
        "digits, conv4 with layer norm": of_digits(partial(convolutions, norm="layer")),
        "digits, MLP": of_digits(partial(_sequence, lambda: [Flatten(), *mlp(64, 64, _WAYS).layers.values()])),
    }
    if archive is not None:

        def characters(split: Any, seed: int) -> Loader:
            return OmniglotLoader(archive, split=split, seed=seed)

        found["Omniglot, conv4"] = Data(convolutions, (28, 28, 1), characters, 500, 8, 400, classes=True)
    return found


def _sequence(layers: Callable[[], list[Any]]) -> Sequential:
    return Sequential(*layers())


def options_of(kind: str, data: Data, seed: int) -> Options:
    """Those of a kind, with the same steps and tasks a step."""
    model, loader = data.model(seed), data.loader("train", seed)
    common: Mapping[str, Any] = {"NumMetaIterations": data.steps, "MetaBatchSize": data.tasks}
    if kind == "recommended":
        return iMAMLOptions.Recommended(model, loader, **common)
    return iMAMLOptions(model, DataLoader=loader, **common)


def row_of(name: str, data: Data, kind: str, seed: int) -> list[str]:
    """Train and test: the row of a table."""
    began = time.perf_counter()
    options = options_of(kind, data, seed)
    measuring = time.perf_counter() - began
    steps, rate = options.AdaptationSteps, options.InnerLearningRate
    row = [name, kind, str(seed), f"{rate:.2g}", str(steps)]
    learner = iMAMLAlgorithm(options)
    try:
        with warnings.catch_warnings():
            # The defaults' exact Hessian is often indefinite, and says so.
            warnings.simplefilter("ignore")
            for _ in trange(data.steps, desc=f"{name}, {kind}, seed {seed}", mininterval=1, disable=None):
                learner.MetaTrainStep(data.tasks)
    except InvalidOperationException:
        return [*row, "diverged", "", ""]
    seconds = time.perf_counter() - began - measuring
    test = TaskBatch(data.loader("test", _TEST + seed).GetTaskBatch(data.test_tasks))
    curve = learner.adaptation_curve(test, 2 * steps)
    values = curve.accuracies if data.classes else curve.losses
    return [
        *row,
        *(shown(values[:, n], data.classes) for n in (steps, 2 * steps)),
        f"{measuring:.1f} + {seconds:.0f} s",
    ]


def shown(values: NDArray[Any], are_accuracies: bool) -> str:
    """Their mean and its 95 % interval."""
    interval = BasicStats.of(values.astype(float)).ConfidenceInterval()
    form = "{:.1%} ± {:.1%}" if are_accuracies else "{:#.3g} ± {:.2g}"
    return form.format(float(interval.Mean), float(interval.HalfWidth))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--omniglot", type=Path, help="an archive of Omniglot, or its unpacked folder")
    parser.add_argument("--data", action="append", help="the beginning of names; again for more (default: all)")
    parser.add_argument("--kind", action="append", choices=["recommended", "default"], help="again for more (both)")
    parser.add_argument("--seed", action="append", type=int, help="of weights and training tasks (default: 0)")
    arguments = parser.parse_args()
    sets = data_sets(arguments.omniglot)
    wanted = tuple(arguments.data or [""])
    chosen = {name: data for name, data in sets.items() if name.startswith(wanted)}
    if not chosen:
        parser.error(f"--data must be the beginning of one of {', '.join(sets)}, got {', '.join(wanted)}")
    rows = [
        row_of(name, data, kind, seed)
        for name, data in chosen.items()
        for seed in arguments.seed or [0]
        for kind in arguments.kind or ["recommended", "default"]
    ]
    title = "Loss or accuracy on held-out tasks after K and after 2K inner steps, with 95 % intervals"
    table(
        Console(width=140),
        title,
        ["data", "options", "seed", "η", "K", "after K", "after 2K", "measuring + training"],
        rows,
    )


if __name__ == "__main__":
    main()
