"""MAML through 100 inner steps of a ResNet-18 on 16 images of 224 × 224, by gradient checkpointing.

python examples/resnet.py
"""

from __future__ import annotations

import argparse
import resource
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py import (
    CrossEntropyLoss,
    MAMLAlgorithm,
    MAMLOptions,
    MetaLearningTask,
    NeuralNetworkModel,
    TaskBatch,
)
from aidotnet_py.nn import resnet18

CLASSES = 10


def random_task(
    size: int, images: int, batches: int, generator: np.random.Generator
) -> MetaLearningTask[Any, Any, Any]:
    """Random images and labels, to measure memory and time. With batches, each inner step takes the next batch."""

    def images_and_labels() -> tuple[NDArray[Any], NDArray[Any]]:
        shape = (images, size, size, 3)
        return generator.standard_normal(shape, dtype=np.float32), generator.integers(0, CLASSES, images)

    support = [images_and_labels() for _ in range(batches)]
    query_x, query_y = images_and_labels()
    x, y = [x for x, _ in support], [y for _, y in support]
    return MetaLearningTask(
        SupportSetX=x if batches > 1 else x[0],
        SupportSetY=y if batches > 1 else y[0],
        QuerySetX=query_x,
        QuerySetY=query_y,
        NumWays=CLASSES,
    )


def segments_of(text: str) -> int | str | None:
    return {"none": None, "sqrt": "sqrt"}.get(text) if text in ("none", "sqrt") else int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="inner steps (default: 100)")
    parser.add_argument("--segments", default="sqrt", help="checkpoints: a number, sqrt or none (default: sqrt)")
    parser.add_argument("--images", type=int, default=16, help="images a set (default: 16)")
    parser.add_argument("--size", type=int, default=224, help="their height and width (default: 224)")
    parser.add_argument("--batches", type=int, default=1, help="support batches, taken in turns (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and data (default: 0)")
    arguments = parser.parse_args()

    generator = np.random.default_rng(arguments.seed)
    model = NeuralNetworkModel(
        resnet18(CLASSES), input_shape=(arguments.size,) * 2 + (3,), loss=CrossEntropyLoss(), seed=arguments.seed
    )
    learner = MAMLAlgorithm(
        MAMLOptions(
            model,
            AdaptationSteps=arguments.steps,
            InnerLearningRate=0.01,
            CheckpointSegments=segments_of(arguments.segments),  # type: ignore[arg-type]
            GradientClipThreshold=1.0,
        )
    )
    task = random_task(arguments.size, arguments.images, arguments.batches, generator)
    before = model.GetParameters()
    began = time.perf_counter()
    loss = learner.MetaTrain(TaskBatch([task]))
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    size = arguments.size
    print(f"ResNet-18, {model.ParameterCount:,} parameters, {arguments.images} images of {size} × {size}")
    print(f"  MAML, {arguments.steps} inner steps, checkpoints: {arguments.segments}")
    change = np.abs(model.GetParameters() - before).max()
    print(f"  query loss {float(loss):.4f}, largest change of a parameter {change:.2e}")
    print(f"  {seconds:.0f} s, peak memory {peak:.1f} GiB")


if __name__ == "__main__":
    main()
