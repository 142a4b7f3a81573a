"""The curvature that meta-training of a regression will bring, as a short training shows it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from aidotnet_py.backends import Array, Backend
from aidotnet_py.exceptions import InvalidOperationException
from aidotnet_py.losses import ILossFunction
from aidotnet_py.meta_learning.algorithms.maml import MAMLAlgorithm, MAMLOptions
from aidotnet_py.meta_learning.contract.options import MetaLearnerOptions
from aidotnet_py.meta_learning.contract.protocols import model_backend
from aidotnet_py.meta_learning.contract.sources import IEpisodicDataLoader
from aidotnet_py.meta_learning.contract.task_batch import TaskBatch
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask
from aidotnet_py.meta_learning.learner.loader_place import look_ahead
from aidotnet_py.meta_learning.objective import ObjectiveFactory
from aidotnet_py.meta_learning.objective.sets import Sets
from aidotnet_py.models import IFullModel

__all__ = ["largest_eigenvalue", "shortly_trained"]

_STEPS, _INNER_STEPS = 200, 16
# Options of a training that the short one has too.
_OF_TRAINING = (
    *("LossFunction", "MetaOptimizer", "OuterLearningRate", "OuterLearningRateSchedule"),
    *("GradientClipThreshold", "Executor"),
)
_POWER_ITERATIONS = 30


def shortly_trained(
    options: MetaLearnerOptions[Any, Any, Any, Any], rate: float, batches: int
) -> IFullModel[Any, Any, Any]:
    """Return a copy of the model after a short training on the next tasks of the loader, which then stays in place.

    The training is by exact MAML, whose gradient sees the inner steps, at this inner rate, with at least as many steps
    as a support set has batches.
    """
    learner: MAMLAlgorithm[Any, Any, Any, Any] = MAMLAlgorithm(
        MAMLOptions(
            options.MetaModel.Clone(),
            InnerLearningRate=rate,
            AdaptationSteps=max(_INNER_STEPS, batches),
            RandomSeed=0,
            **{name: getattr(options, name) for name in _OF_TRAINING},
        )
    )

    def train(loader: IEpisodicDataLoader[Any, Any, Any]) -> None:
        for _ in range(min(_STEPS, options.NumMetaIterations)):
            tasks = TaskBatch(loader.GetTaskBatch(options.MetaBatchSize))
            try:
                learner.MetaTrain(tasks)
            except InvalidOperationException:
                # A step that fails changes nothing: the model before it is a result too.
                return

    assert options.DataLoader is not None
    look_ahead(options.DataLoader, train)
    trained: IFullModel[Any, Any, Any] = learner.BaseModel
    return trained


def largest_eigenvalue(
    model: IFullModel[Any, Any, Any], loss: ILossFunction[Any], tasks: Iterable[IMetaLearningTask[Any, Any, Any]]
) -> float:
    """Return the largest eigenvalue of the support loss's Gauss–Newton matrix, by power iteration; the tasks' mean.

    It is infinite or NaN where products are beyond the numbers of the model.
    """
    backend, factory = model_backend(model), ObjectiveFactory(np.random.default_rng(0))
    parameters = backend.asarray(model.GetParameters())[None, :]
    dtype, divide = backend.dtype_of(parameters), backend.elementwise("divide")
    found: list[float] = []
    for task in tasks:
        objective = factory.make("Support", Sets([task], ["the task"]), model, loss, factory.lease(model, loss))
        product = objective.part(0, 1, 0).curvature(parameters, "gauss-newton")[1]
        # In float64, whose squares do not overflow.
        vector = backend.asarray(np.random.default_rng(0).standard_normal((1, model.ParameterCount)))
        with backend.errors_ignored():
            for _ in range(_POWER_ITERATIONS):
                image = product(backend.astype(divide(vector, _norm(backend, vector)), dtype))
                vector = backend.astype(image, np.float64)
                if not 0 < _norm(backend, vector) < math.inf:
                    break
        found.append(_norm(backend, vector))
    return float(np.mean(found))


def _norm(backend: Backend, vector: Array) -> float:
    return math.sqrt(float(backend.to_numpy(backend.vecdot(vector, vector))[0]))
