"""Meta-train iMAML on real handwritten digits, and adapt it to unseen digits from one example each.

    python examples/digits.py

Tasks are five-way one-shot. Training tasks have the digits 0, 1, 6, 8 and 9 and their rotations; test tasks have the
digits 2, 3, 4, 5 and 7 and their rotations. The script prints two accuracies with 95 % intervals: with all query images
of a task normalised together, and with one query image at a time. It also draws one adapted task.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from aidotnet_py import (
    AdamOptimizer,
    BasicStats,
    CrossEntropyLoss,
    MetaEvaluationResult,
    NeuralNetworkModel,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.data import DigitsLoader
from aidotnet_py.nn import conv4
from aidotnet_py.plotting import draw_classification_task

Model = NeuralNetworkModel[np.float32]


def new_model(seed: int) -> Model:
    """The paper's ConvNet with 32 filters, on images of 8 × 8."""
    return NeuralNetworkModel(conv4(5, filters=32), input_shape=(8, 8, 1), loss=CrossEntropyLoss(), seed=seed)


def options(model: Model, loader: DigitsLoader[np.float32]) -> iMAMLOptions[np.float32]:
    """The proximal form with Λ = 0.5; Gauss–Newton curvature, since the Hessian of such a network is indefinite."""
    return iMAMLOptions.FromPaper(
        model,
        Lambda=0.5,
        DataLoader=loader,
        InnerLearningRate=0.1,
        AdaptationSteps=16,
        ConjugateGradientIterations=5,
        MetaBatchSize=8,
        Curvature="gauss-newton",
    )


def train(model: Model, steps: int, seed: int) -> None:
    """Meta-train in place."""
    learner = iMAMLAlgorithm(options(model, DigitsLoader(split="train", seed=seed)))
    recent: list[float] = []
    with tqdm(range(steps), desc="meta-training iMAML", mininterval=1, disable=None) as progress:
        for _ in progress:
            step = learner.MetaTrainStep(8)
            recent = [*recent[-19:], float(step.Accuracy)]
            progress.set_postfix(query_accuracy=f"{np.mean(recent):.1%}", refresh=False)


def train_without_meta_learning(model: Model, steps: int, seed: int) -> None:
    """The same number of Adam steps on the pooled examples of the same tasks, without adaptation."""
    loader = DigitsLoader(split="train", seed=seed)
    optimizer = AdamOptimizer(0.001)
    for _ in tqdm(range(steps), desc="training without meta-learning", mininterval=1, disable=None):
        tasks = loader.GetTaskBatch(8)
        x = np.concatenate([part for task in tasks for part in (task.SupportInput, task.QueryInput)])
        y = np.concatenate([part for task in tasks for part in (task.SupportOutput, task.QueryOutput)])
        model.SetParameters(optimizer.UpdateParameters(model.GetParameters(), model.ComputeGradients(x, y)))


def accuracy_before(model: Model, tasks: int) -> tuple[float, float]:
    """Query accuracy of the model without adaptation to the support sets; mean and 95 % half-width."""
    loss = model.DefaultLossFunction
    batch = DigitsLoader(split="test", seed=1).GetTaskBatch(tasks)
    found = [loss.accuracy(model.Predict(task.QueryInput), task.QueryOutput) for task in batch]
    return float(np.mean(found)), 1.96 * float(np.std(found, ddof=1)) / len(found) ** 0.5


def evaluate(model: Model, tasks: int) -> MetaEvaluationResult[np.float32]:
    """Adapt to the same test tasks for every model."""
    return iMAMLAlgorithm(options(model, DigitsLoader(split="test", seed=1))).Evaluate(tasks)


def report(name: str, *figures: tuple[float, float]) -> None:
    """One line, with a mean and the half-width of its interval in each column."""
    print(f"  {name:<50}" + "".join(f"{f'{mean:.1%} ± {half_width:.1%}':>16}" for mean, half_width in figures))


def draw(model: Model, path: Path) -> None:
    """One test task, before and after adaptation."""
    task = DigitsLoader(split="test", seed=2).GetNextTask()
    learner = iMAMLAlgorithm(options(model, DigitsLoader(split="test", seed=2)))
    adapted, result = learner.Adapt(task), learner.AdaptAndEvaluate(task)
    before, after = model.Predict(task.QueryInput), adapted.Predict(task.QueryInput)
    figure = draw_classification_task(
        task, before, after, result.PerStepLosses, "Unseen digits, learned from the left column alone"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="meta-training steps (default: 300)")
    parser.add_argument("--tasks", type=int, default=300, help="test tasks (default: 300)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and training tasks (default: 0)")
    parser.add_argument("--figure", type=Path, default=Path("out/digits.png"), help="where the figure goes")
    arguments = parser.parse_args()
    began = time.perf_counter()

    untrained, pooled, learned = (new_model(arguments.seed) for _ in range(3))
    train(learned, arguments.steps, arguments.seed)
    train_without_meta_learning(pooled, arguments.steps, arguments.seed)

    print(f"\nAccuracy on {arguments.tasks} tasks of unseen digits, 5-way 1-shot, with 95 % intervals")
    print(f"  {'':<50}{'all together':>16}{'one at a time':>16}")
    print(f"  {'chance':<50}{0.2:>16.1%}{0.2:>16.1%}")
    report("iMAML's start, before adaptation", accuracy_before(learned, arguments.tasks))
    for name, model in (
        ("random start, after adaptation", untrained),
        ("trained without meta-learning, after adaptation", pooled),
        ("iMAML, after adaptation", learned),
    ):
        result = evaluate(model, arguments.tasks)
        assert result.single_accuracies is not None
        together, single = result.AccuracyStats, BasicStats.of(result.single_accuracies)
        intervals = (together.ConfidenceInterval(), single.ConfidenceInterval())
        report(name, *((float(interval.Mean), float(interval.HalfWidth)) for interval in intervals))
    draw(learned, arguments.figure)
    print(f"\nFigure of one adapted task: {arguments.figure}\nTime: {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
