"""What shorter steps on outlying groups gain: ``python -m benchmarks.line_search``.

Groups are patients with a response to doses; a model adapts to five rows of each of 400 new patients and predicts their
other rows. Few patients have a weight far from the mean, on which the steps of training are too long.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.console import Console

from aidotnet_py import MetaLearningTask
from aidotnet_py.estimators import MetaTrainedRegressor
from benchmarks.report import table

__all__: list[str] = []

FEATURES = ["patient", "dose", "temperature", "weight"]
NEW, ROWS = 400, 5
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("MAML", {}),
    ("MAML", {"InnerLearningRate": 0.003}),
    ("ANIL", {}),
    ("MetaSGD", {}),
]


def patients(count: int, generator: np.random.Generator, prefix: str) -> pl.DataFrame:
    """Rows of patients: a saturating response, with its own size and half dose for each, and noise of 1.5."""
    frames: list[pl.DataFrame] = []
    for number in range(count):
        base, size, half = generator.normal(5, 2), generator.normal(40, 10), np.exp(generator.normal(1, 0.5))
        weight, rows = generator.normal(70, 12), int(generator.integers(8, 16))
        dose = generator.choice([0, 0.5, 1, 2, 5, 10, 20], rows)
        temperature = generator.normal(37, 0.5, rows)
        response = base + size * dose / (dose + half) + 3 * (temperature - 37) - 0.1 * (weight - 70)
        columns = ([f"{prefix}{number}"] * rows, dose, temperature, np.full(rows, weight))
        response += generator.normal(0, 1.5, rows)
        frames.append(pl.DataFrame({**dict(zip(FEATURES, columns, strict=True)), "response": response}))
    return pl.concat(frames)


def measure(algorithm: str, options: dict[str, Any], seed: int) -> tuple[float, float, int]:
    """Return the RMSE of `Adapt` and of the line search, and the groups that `Adapt` fits worse than the start."""
    generator = np.random.default_rng(seed)
    known, new = patients(80, generator, "a"), patients(NEW, generator, "n")
    model = MetaTrainedRegressor("patient", algorithm=algorithm, options=options, random_state=0)
    model.fit(known[FEATURES], known["response"])
    learner: Any = model.learner_
    encoding: Any = model.encoding_
    plain, searched, worse = list[NDArray[Any]](), list[NDArray[Any]](), 0
    for rows in new.partition_by("patient", maintain_order=True):
        inputs, responses = encoding.inputs(rows[FEATURES]), rows["response"].to_numpy()
        outcomes = ((responses - encoding.targets[0].mean) / encoding.targets[0].deviation)[:, np.newaxis]
        task = MetaLearningTask(SupportSetX=inputs[:ROWS], SupportSetY=outcomes[:ROWS], NumWays=1)
        adapted = learner.Adapt(task)
        worse += _loss(adapted, task) > _loss(learner.GetMetaModel(), task)
        for errors, each in ((plain, adapted), (searched, learner.adapt_with_line_search(task))):
            errors.append(encoding.decode(each.Predict(inputs[ROWS:])).ravel() - responses[ROWS:])
    found, wanted = (float(np.sqrt(np.mean(np.concatenate(errors) ** 2))) for errors in (plain, searched))
    return found, wanted, worse


def _loss(model: Any, task: Any) -> float:
    return float(np.mean((model.Predict(task.SupportInput) - task.SupportOutput) ** 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many (default: 3)")
    seeds, rows = range(parser.parse_args().seeds), list[list[str]]()
    for algorithm, options in SETTINGS:
        for seed in seeds:
            plain, searched, worse = measure(algorithm, options, seed)
            name = " ".join([algorithm, *map(str, options.values())])
            rows.append([name, str(seed), f"{plain:.2f}", f"{searched:.2f}", str(worse)])
    heads = ["settings", "seed", "Adapt", "line search", "worse than the start"]
    table(Console(), f"RMSE on {NEW} new groups", heads, rows)


if __name__ == "__main__":
    main()
