"""MAML's loop on one sigmoid layer, a usual first exercise, in a few lines.

    python examples/from_scratch.py

Ten binary classification tasks, ten samples at a time, fifty features, cross-entropy. Each task has its own boundary,
near a shared boundary. Every epoch draws new samples. The script prints the loss after adaptation.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np

from aidotnet_py import (
    BinaryCrossEntropyLoss,
    FunctionModel,
    MAMLAlgorithm,
    MAMLOptions,
    MetaLearningTask,
    TaskBatch,
)


def layer(theta: Mapping[str, Any], x: Any) -> Any:
    """The logits; BinaryCrossEntropyLoss applies the sigmoid without overflow of an exponential."""
    return x @ theta["w"]


def sample(generator: np.random.Generator, boundary: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Points, and on which side of the boundary they are."""
    x = generator.normal(size=(samples, len(boundary)))
    return x, (x @ boundary > 0).astype(float)


def draw_tasks(generator: np.random.Generator, boundaries: list[np.ndarray], samples: int) -> TaskBatch:
    """New samples of every task: a support set and a query set."""
    tasks = []
    for boundary in boundaries:
        (x, y), (x_test, y_test) = (sample(generator, boundary, samples) for _ in range(2))
        tasks.append(MetaLearningTask(SupportSetX=x, SupportSetY=y, QuerySetX=x_test, QuerySetY=y_test, NumWays=2))
    return TaskBatch(tasks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=10, help="tasks (default: 10)")
    parser.add_argument("--samples", type=int, default=10, help="samples of a set (default: 10)")
    parser.add_argument("--features", type=int, default=50, help="features of a sample (default: 50)")
    parser.add_argument("--steps", type=int, default=500, help="epochs (default: 500)")
    arguments = parser.parse_args()

    generator = np.random.default_rng(0)
    shared = generator.normal(size=(arguments.features, 1))
    boundaries = [shared + 0.3 * generator.normal(size=shared.shape) for _ in range(arguments.tasks)]
    model = FunctionModel(layer, {"w": generator.normal(size=shared.shape)}, loss=BinaryCrossEntropyLoss())
    learner = MAMLAlgorithm(MAMLOptions(model, AdaptationSteps=1, InnerLearningRate=0.1, OuterLearningRate=0.02))

    for epoch in range(arguments.steps):
        # Each task takes φ = θ − α ∇L_support(θ). Then θ takes a step against the gradient of the mean L_query(φ).
        loss = learner.MetaTrain(draw_tasks(generator, boundaries, arguments.samples))
        if epoch % max(1, arguments.steps // 10) == 0 or epoch == arguments.steps - 1:
            print(f"epoch {epoch:4}   loss after adaptation {loss:.3f}")


if __name__ == "__main__":
    main()
