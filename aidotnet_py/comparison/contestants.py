"""The contestants: one entry for each algorithm, and the two baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from aidotnet_py.comparison.problems import Loader, Model, Problem
from aidotnet_py.meta_learning import (
    ANILAlgorithm,
    ANILOptions,
    BOILAlgorithm,
    BOILOptions,
    MAMLAlgorithm,
    MAMLOptions,
    MetaLearnerBase,
    MetaSGDAlgorithm,
    MetaSGDOptions,
    ReptileAlgorithm,
    ReptileOptions,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.optimizers import AdamOptimizer

__all__ = ["ALGORITHMS", "BASELINES", "Contestant", "Learner"]

Learner: TypeAlias = MetaLearnerBase[np.float32]


@dataclass(frozen=True)
class Entrant:
    """A contestant at its start.

    Attributes
    ----------
    learner : MetaLearnerBase
        The learner that adapts to tasks.
    step : callable or None
        One step of training; None if there is no training.
    """

    learner: Learner
    step: Callable[[], object] | None


# From a problem, a model, the training tasks and their number per step to an entrant.
Contestant: TypeAlias = Callable[[Problem, Model, Loader, int], Entrant]


@dataclass(frozen=True)
class _Algorithm:
    """An algorithm and its options: the problem's, overridden by its own for regression or classification."""

    algorithm: Callable[[Any], Learner]
    options: Callable[..., Any]
    everywhere: Mapping[str, Any] = field(default_factory=dict[str, Any])
    regression: Mapping[str, Any] = field(default_factory=dict[str, Any])
    classification: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __call__(self, problem: Problem, model: Model, loader: Loader, meta_batch: int) -> Entrant:
        own = self.classification if problem.classification else self.regression
        keywords = {**problem.options, **self.everywhere, **own}
        # Adam for all algorithms, whatever their defaults: its steps do not depend on the norm of meta-gradients, which
        # differs between algorithms.
        keywords["MetaOptimizer"] = AdamOptimizer(keywords["OuterLearningRate"])
        learner = self.algorithm(self.options(model, DataLoader=loader, MetaBatchSize=meta_batch, **keywords))
        return Entrant(learner, lambda: learner.MetaTrainStep(meta_batch))


def _learner_without_training(problem: Problem, model: Model) -> Learner:
    """Return a learner that adapts like FOMAML, with the problem's own options."""
    return MAMLAlgorithm(MAMLOptions(model, UseFirstOrder=True, **problem.options))


def _random(problem: Problem, model: Model, loader: Loader, meta_batch: int) -> Entrant:
    """Return an entrant without training."""
    return Entrant(_learner_without_training(problem, model), None)


def _transfer(problem: Problem, model: Model, loader: Loader, meta_batch: int) -> Entrant:
    """Train by Adam on the pooled examples of the tasks, without any adaptation."""
    optimizer = AdamOptimizer(problem.options["OuterLearningRate"])

    def step() -> None:
        tasks = loader.GetTaskBatch(meta_batch)
        x = np.concatenate([part for task in tasks for part in (task.SupportInput, task.QueryInput)])
        y = np.concatenate([part for task in tasks for part in (task.SupportOutput, task.QueryOutput)])
        model.SetParameters(optimizer.UpdateParameters(model.GetParameters(), model.ComputeGradients(x, y)))

    return Entrant(_learner_without_training(problem, model), step)


BASELINES: Mapping[str, Contestant] = {"random": _random, "transfer": _transfer}

ALGORITHMS: Mapping[str, Contestant] = {
    # Gauss–Newton curvature, since the Hessian of such networks is indefinite; more steps, since the implicit gradient
    # is exact only at the inner minimum.
    "iMAML": _Algorithm(
        iMAMLAlgorithm,
        iMAMLOptions.FromPaper,
        everywhere={"Curvature": "gauss-newton"},
        regression={"Lambda": 2.0},
        classification={"Lambda": 0.5, "AdaptationSteps": 16, "ConjugateGradientIterations": 5},
    ),
    "MAML": _Algorithm(MAMLAlgorithm, MAMLOptions),
    "FOMAML": _Algorithm(MAMLAlgorithm, MAMLOptions, everywhere={"UseFirstOrder": True}),
    "Reptile": _Algorithm(ReptileAlgorithm, ReptileOptions),
    "MetaSGD": _Algorithm(MetaSGDAlgorithm, MetaSGDOptions, regression={"OuterLearningRate": 0.002}),
    # The head alone has fewer directions, and allows longer steps.
    "ANIL": _Algorithm(ANILAlgorithm, ANILOptions, regression={"InnerLearningRate": 0.01}),
    "BOIL": _Algorithm(BOILAlgorithm, BOILOptions),
}
