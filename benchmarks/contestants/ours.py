"""aidotnet_py, through its public interface."""

# ruff: noqa: D102 -- documented by the protocol that they implement

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py import (
    ANILAlgorithm,
    ANILOptions,
    CrossEntropyLoss,
    MAMLAlgorithm,
    MAMLOptions,
    MeanSquaredErrorLoss,
    MetaLearnerBase,
    MetaLearningTask,
    NeuralNetworkModel,
    SGDOptimizer,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.backends import get_backend
from aidotnet_py.meta_learning.objective.stacking import row_views
from aidotnet_py.nn import conv4, mlp, resnet12
from benchmarks.contestants import BACKENDS
from benchmarks.workloads import Workload, flat

__all__ = ["Contestant", "batch_of", "model_of", "options_of"]


class _Recorder(SGDOptimizer):
    """Gradient descent that keeps the last gradient for the comparison."""

    last: NDArray[Any]

    def UpdateParameters(self, parameters: Any, gradient: Any) -> Any:
        self.last = gradient
        return super().UpdateParameters(parameters, gradient)


def model_of(work: Workload, device: str) -> NeuralNetworkModel[np.float32]:
    """The network with the workload's start weights."""
    net, backend = work.network, get_backend(BACKENDS[device])
    if net.kind == "mlp":
        layers = mlp(net.width, net.width, net.outputs)
    elif net.kind == "residual":
        layers = resnet12(net.outputs, filters=net.filters())
    else:
        layers = conv4(net.outputs, filters=net.width, reduction=net.kind)
    loss = CrossEntropyLoss() if work.classifies else MeanSquaredErrorLoss()
    model = NeuralNetworkModel(
        layers, input_shape=net.input_shape, loss=loss, dtype=work.support_x.dtype.type, backend=backend, seed=0
    )
    if list(model.parameter_shapes.values()) != [p.shape for p in work.parameters.values()]:
        raise AssertionError(f"{work.name}: the parameters of the model have other shapes than the workload's")
    model.SetParameters(backend.asarray(flat(work.parameters)))
    return model


def batch_of(work: Workload, device: str) -> TaskBatch[np.float32]:
    """The tasks, each kind of their arrays handed over in one piece, as loaders do."""
    backend = get_backend(BACKENDS[device])
    ways, shots = (5, 1) if work.classifies else (1, work.support_x.shape[1])
    stacked = (work.support_x, work.support_y, work.query_x, work.query_y)
    sets = zip(*(row_views(backend, backend.asarray(array)) for array in stacked), strict=True)
    return TaskBatch(
        MetaLearningTask(
            SupportSetX=a,
            SupportSetY=b,
            QuerySetX=c,
            QuerySetY=d,
            NumWays=ways,
            NumShots=shots,
            NumQueryPerClass=work.query_x.shape[1] // ways,
        )
        for a, b, c, d in sets
    )


def options_of(work: Workload, optimizer: SGDOptimizer, device: str) -> iMAMLOptions[np.float32]:
    """The workload's numbers as options; a tolerance that no residual reaches, so that every product is made."""
    return iMAMLOptions(
        model_of(work, device),
        MetaOptimizer=optimizer,
        InnerLearningRate=work.inner_rate,
        AdaptationSteps=work.steps,
        LambdaRegularization=work.weight,
        ConjugateGradientIterations=work.products,
        ConjugateGradientTolerance=1e-30,
        GradientClipThreshold=None,
    )


def _maml(
    algorithm: Any, of_options: Any, work: Workload, optimizer: SGDOptimizer, device: str, **options: Any
) -> MAMLAlgorithm[np.float32]:
    learner: MAMLAlgorithm[np.float32] = algorithm(
        of_options(
            model_of(work, device),
            MetaOptimizer=optimizer,
            InnerLearningRate=work.inner_rate,
            AdaptationSteps=work.steps,
            GradientClipThreshold=None,
            **options,
        )
    )
    return learner


# What a setting says to a learner of MAML.
_FORMS: dict[str, dict[str, Any]] = {
    "default": {},
    "sqrt": {"CheckpointSegments": "sqrt"},
    "first-order": {"UseFirstOrder": True},
}


class Contestant:
    """`MetaTrain`, or `Adapt` and `Predict`; a setting is "default" or, of MAML, another form."""

    def __init__(self, workload: Workload, setting: str, device: str) -> None:
        self._recorder = _Recorder(workload.meta_rate)
        self._learner: MetaLearnerBase[np.float32]
        if workload.method == "imaml":
            self._learner = iMAMLAlgorithm(options_of(workload, self._recorder, device))
        else:
            kind = (ANILAlgorithm, ANILOptions) if workload.method == "anil" else (MAMLAlgorithm, MAMLOptions)
            algorithm, of_options = kind
            self._learner = _maml(algorithm, of_options, workload, self._recorder, device, **_FORMS[setting])
        self._adapts = workload.method == "adapt"
        self._batch = batch_of(workload, device)
        self._backend = get_backend(BACKENDS[device])
        self._scores: list[Any] = []

    def step(self) -> float:
        if self._adapts:
            self._scores = [self._learner.Adapt(task).Predict(task.QuerySetX) for task in self._batch]
            self._backend.synchronize()
            return float(self._scores[-1].ravel()[-1])
        loss = float(self._learner.MetaTrain(self._batch))
        self._backend.synchronize()
        return loss

    def outcome(self) -> NDArray[np.float64]:
        found = self._scores if self._adapts else [self._recorder.last]
        return np.concatenate([self._backend.to_numpy(array).astype(np.float64).ravel() for array in found])

    def helpers(self) -> list[int]:
        return []
