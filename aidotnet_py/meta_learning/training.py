"""The training loop: steps, and the evaluations and checkpoints that fall due between them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path

import numpy as np

from aidotnet_py.meta_learning.interface import IMetaLearner
from aidotnet_py.meta_learning.results import MetaTrainingResult
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["train"]


def train(
    learner: IMetaLearner[T, TInput, TOutput], put_aside: Callable[[], AbstractContextManager[None]]
) -> MetaTrainingResult[T]:
    """NumMetaIterations steps of MetaBatchSize tasks, by the learner's own methods alone.

    Draws within a context of ``put_aside`` are not to count.
    """
    # Imported here, since it takes a fifth of the time that the whole package takes.
    from tqdm import tqdm

    options = learner.Options
    losses: list[T] = []
    accuracies: list[T] = []
    metrics: dict[str, T] = {}
    began = time.perf_counter()
    with tqdm(total=options.NumMetaIterations, desc=learner.AlgorithmType.name, disable=None) as progress:
        while len(losses) < options.NumMetaIterations:
            step = learner.MetaTrainStep(options.MetaBatchSize)
            losses.append(step.MetaLoss)
            accuracies.append(step.Accuracy)
            progress.set_postfix_str(f"loss={float(step.MetaLoss):.4f}", refresh=False)
            progress.update()
            if step.Iteration % options.EvaluationFrequency == 0:
                with put_aside():
                    found = learner.Evaluate(options.EvaluationTasks)
                metrics[f"EvaluationLoss@{step.Iteration}"] = found.LossStats.Mean
                metrics[f"EvaluationAccuracy@{step.Iteration}"] = found.AccuracyStats.Mean
            if options.EnableCheckpointing and step.Iteration % options.CheckpointFrequency == 0:
                learner.Save(Path(f"checkpoint_{step.Iteration}.safetensors"))
    elapsed = timedelta(seconds=time.perf_counter() - began)
    return MetaTrainingResult(np.array(losses), np.array(accuracies), elapsed, metrics)
