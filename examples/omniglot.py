"""Meta-train iMAML and its first-order form on Omniglot's alphabets, and test both on held-out alphabets.

    python examples/omniglot.py images_background_small1.zip

The argument is a published archive, or the folder of an unpacked archive; --download fetches it first. Tasks are
five-way one-shot with 15 queries a class; classes are characters and their rotations. The script prints two accuracies:
with all query images of a task normalised together, and with one query image at a time.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import trange

from aidotnet_py import BasicStats, CrossEntropyLoss, NeuralNetworkModel, iMAMLAlgorithm, iMAMLOptions
from aidotnet_py.data import OmniglotLoader
from aidotnet_py.nn import conv4

Model = NeuralNetworkModel[np.float32]
Loader = OmniglotLoader[np.float32]


def learner_of(model: Model, loader: Loader, *, first_order: bool = False) -> iMAMLAlgorithm[np.float32]:
    options = iMAMLOptions.FromPaper(
        model,
        Lambda=0.1,
        DataLoader=loader,
        InnerLearningRate=0.1,
        OuterLearningRate=0.003,
        AdaptationSteps=16,
        ConjugateGradientIterations=5,
        Curvature="gauss-newton",
        UseFirstOrder=first_order,
    )
    return iMAMLAlgorithm(options)


def meta_train(model: Model, loader: Loader, steps: int, tasks: int, *, first_order: bool) -> float:
    """Meta-train in place; returns the seconds."""
    learner = learner_of(model, loader, first_order=first_order)
    began = time.perf_counter()
    name = "first-order" if first_order else "iMAML"
    with trange(steps, desc=f"meta-training {name}", mininterval=1, disable=None) as progress:
        for _ in progress:
            step = learner.MetaTrainStep(tasks)
            progress.set_postfix(query_accuracy=f"{step.Accuracy:.1%}", refresh=False)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="an archive of Omniglot, or its unpacked folder")
    parser.add_argument("--download", action="store_true", help="fetch the archive if it is not there")
    parser.add_argument("--steps", type=int, default=500, help="meta-training steps (default: 500)")
    parser.add_argument("--batch", type=int, default=8, help="tasks a step (default: 8)")
    parser.add_argument("--tasks", type=int, default=200, help="test tasks (default: 200)")
    parser.add_argument("--filters", type=int, default=32, help="filters of each convolution (default: 32)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and training tasks (default: 0)")
    arguments = parser.parse_args()

    def loader(split: Literal["train", "test"], seed: int) -> Loader:
        return OmniglotLoader(arguments.source, split=split, download=arguments.download, seed=seed)

    def report(name: str, model: Model, seconds: float) -> None:
        result = learner_of(model, loader("test", 1)).Evaluate(arguments.tasks)
        assert result.single_accuracies is not None
        intervals = [
            stats.ConfidenceInterval() for stats in (result.AccuracyStats, BasicStats.of(result.single_accuracies))
        ]
        figures = "   ".join(f"{interval.Mean:6.1%} ± {interval.HalfWidth:.1%}" for interval in intervals)
        print(f"  {name:<32} {figures}   {seconds:6.0f} s")

    untrained, first_order, implicit = (
        NeuralNetworkModel(
            conv4(5, filters=arguments.filters), input_shape=(28, 28, 1), loss=CrossEntropyLoss(), seed=arguments.seed
        )
        for _ in range(3)
    )
    first_time = meta_train(
        first_order, loader("train", arguments.seed), arguments.steps, arguments.batch, first_order=True
    )
    time_taken = meta_train(
        implicit, loader("train", arguments.seed), arguments.steps, arguments.batch, first_order=False
    )
    print(
        f"\nAccuracy on {arguments.tasks} tasks of held-out alphabets, 5-way 1-shot, with 95 % intervals: query images "
        "all together, one at a time; training time"
    )
    report("untrained, after adaptation", untrained, 0)
    report("first-order, after adaptation", first_order, first_time)
    report("iMAML, after adaptation", implicit, time_taken)


if __name__ == "__main__":
    main()
