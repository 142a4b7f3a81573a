"""The contestants: one entry for each algorithm, and the two baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np

from aidotnet_py.comparison.problems import Loader, Model, Problem
from aidotnet_py.losses import CrossEntropyLoss
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
    ProtoNetsAlgorithm,
    ProtoNetsOptions,
    ReptileAlgorithm,
    ReptileOptions,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.models import FunctionModel, NeuralNetworkModel
from aidotnet_py.nn import Sequential
from aidotnet_py.optimizers import AdamOptimizer

__all__ = ["ALGORITHMS", "BASELINES", "BASELINES_OF_CLASSES", "Algorithm", "Contestant", "Learner", "Suited"]

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


class Suited(Protocol):
    """Data with the options that suit them: a `Problem`, or the data of a run."""

    @property
    def classification(self) -> bool:
        """Whether accuracy has a meaning."""
        ...

    @property
    def options(self) -> Mapping[str, Any]:
        """Keywords of the options of every algorithm."""
        ...


# From a problem, a model, the training tasks and their number per step to an entrant.
Contestant: TypeAlias = Callable[[Problem, Model, Loader, int], Entrant]


@dataclass(frozen=True)
class Algorithm:
    """An algorithm and its options: the problem's, overridden by its own for regression or classification.

    Attributes
    ----------
    algorithm, options : callable
        The learner's class, and what makes its options from a model and keywords.
    everywhere, regression, classification : mapping
        Keywords of the options that the algorithm has otherwise than the problem.
    needs_classes : bool
        Whether it cannot do a regression.
    """

    algorithm: Callable[[Any], Learner]
    options: Callable[..., Any]
    everywhere: Mapping[str, Any] = field(default_factory=dict[str, Any])
    regression: Mapping[str, Any] = field(default_factory=dict[str, Any])
    classification: Mapping[str, Any] = field(default_factory=dict[str, Any])
    needs_classes: bool = False

    def keywords(self, suited: Suited) -> dict[str, Any]:
        """Return the keywords of the options for a problem, or for other data."""
        own = self.classification if suited.classification else self.regression
        return {**suited.options, **self.everywhere, **own}

    def __call__(self, problem: Problem, model: Model, loader: Loader, meta_batch: int) -> Entrant:
        """Return the entrant at its start."""
        keywords = self.keywords(problem)
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


def _without_head(model: Model) -> Model:
    """Return the network without its last layer, with the other layers' parameters: an embedding."""
    network: Any = model.settings()["network"]
    embedding = NeuralNetworkModel(
        Sequential(*list(network.layers.values())[:-1]), input_shape=model.input_shape, loss=CrossEntropyLoss()
    )
    return embedding.WithParameters(model.GetParameters()[: embedding.ParameterCount])


def _of_embedding(model: Model, **options: Any) -> ProtoNetsOptions[np.float32, Any, Any, Any]:
    return ProtoNetsOptions(_without_head(model), **options)


def _as_it_is(parameters: Mapping[str, Any], x: Any) -> Any:
    """Return the inputs as vectors; a model must have a parameter, which is 1."""
    return x.reshape(len(x), -1) * parameters["scale"]


def _centroid(problem: Problem, model: Model, loader: Loader, meta_batch: int) -> Entrant:
    """Choose the nearest mean of the inputs of a class."""
    inputs = FunctionModel(_as_it_is, {"scale": np.ones(1, np.float32)}, CrossEntropyLoss())
    return Entrant(ProtoNetsAlgorithm(ProtoNetsOptions(inputs)), None)


def _embedded_centroid(problem: Problem, model: Model, loader: Loader, meta_batch: int) -> Entrant:
    """Choose the nearest mean of a class after the untrained network without its last layer."""
    return Entrant(ProtoNetsAlgorithm(_of_embedding(model)), None)


#: The contestants without meta-learning for all data, by name.
BASELINES: Mapping[str, Contestant] = {"random": _random, "transfer": _transfer}
BASELINES_OF_CLASSES: Mapping[str, Contestant] = {"centroid": _centroid, "embedded-centroid": _embedded_centroid}

#: The algorithms that can be compared, by name.
ALGORITHMS: Mapping[str, Algorithm] = {
    # Gauss–Newton curvature, since the Hessian of such networks is indefinite; more steps, since the implicit gradient
    # is exact only at the inner minimum. For a regression λ is that of plain inner steps, as `iMAMLOptions.Recommended`
    # has it, at a rate that stays stable while training raises the curvature.
    "iMAML": Algorithm(
        iMAMLAlgorithm,
        iMAMLOptions,
        everywhere={"Curvature": "gauss-newton"},
        regression={"InnerLearningRate": 0.001, "AdaptationSteps": 32, "LambdaRegularization": 0.064},
        classification={
            "InnerObjective": "proximal",
            "LambdaRegularization": 2.0,
            "AdaptationSteps": 16,
            "ConjugateGradientIterations": 5,
        },
    ),
    "MAML": Algorithm(MAMLAlgorithm, MAMLOptions),
    "FOMAML": Algorithm(MAMLAlgorithm, MAMLOptions, everywhere={"UseFirstOrder": True}),
    "Reptile": Algorithm(ReptileAlgorithm, ReptileOptions),
    "MetaSGD": Algorithm(MetaSGDAlgorithm, MetaSGDOptions, regression={"OuterLearningRate": 0.002}),
    # The head alone has fewer directions, and allows longer steps.
    "ANIL": Algorithm(ANILAlgorithm, ANILOptions, regression={"InnerLearningRate": 0.01}),
    "BOIL": Algorithm(BOILAlgorithm, BOILOptions),
    # The network without its last layer is the embedding.
    "ProtoNets": Algorithm(ProtoNetsAlgorithm, _of_embedding, needs_classes=True),
}
