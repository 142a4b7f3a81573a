"""aidotnet_py, through its public interface: iMAML as its rivals do it, and MAML on the same workload."""

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
from aidotnet_py.nn import conv4, mlp
from benchmarks.workloads import Workload, flat

__all__ = ["Contestant", "batch_of", "model_of", "options_of"]


class _Recorder(SGDOptimizer):
    """Gradient descent that keeps the last gradient for the comparison."""

    last: NDArray[Any]

    def UpdateParameters(self, parameters: Any, gradient: Any) -> Any:
        self.last = gradient
        return super().UpdateParameters(parameters, gradient)


def model_of(work: Workload) -> NeuralNetworkModel[np.float32]:
    """The network with the workload's start weights."""
    net = work.network
    if net.kind == "mlp":
        layers = mlp(net.width, net.width, net.outputs)
    else:
        layers = conv4(net.outputs, filters=net.width, reduction=net.kind)
    loss = CrossEntropyLoss() if work.classifies else MeanSquaredErrorLoss()
    model = NeuralNetworkModel(layers, input_shape=net.input_shape, loss=loss, dtype=work.support_x.dtype.type, seed=0)
    if list(model.parameter_shapes.values()) != [p.shape for p in work.parameters.values()]:
        raise AssertionError(f"{work.name}: the parameters of the model have other shapes than the workload's")
    model.SetParameters(flat(work.parameters))
    return model


def batch_of(work: Workload) -> TaskBatch[np.float32]:
    """The tasks."""
    ways, shots = (5, 1) if work.classifies else (1, work.support_x.shape[1])
    sets = zip(work.support_x, work.support_y, work.query_x, work.query_y, strict=True)
    return TaskBatch(
        MetaLearningTask(
            SupportSetX=a,
            SupportSetY=b,
            QuerySetX=c,
            QuerySetY=d,
            NumWays=ways,
            NumShots=shots,
            NumQueryPerClass=len(c) // ways,
        )
        for a, b, c, d in sets
    )


def options_of(work: Workload, optimizer: SGDOptimizer) -> iMAMLOptions[np.float32]:
    """The workload's numbers as options; a tolerance that no residual reaches, so that every product is made."""
    return iMAMLOptions(
        model_of(work),
        MetaOptimizer=optimizer,
        InnerLearningRate=work.inner_rate,
        AdaptationSteps=work.steps,
        LambdaRegularization=work.weight,
        ConjugateGradientIterations=work.products,
        ConjugateGradientTolerance=1e-30,
        GradientClipThreshold=None,
    )


def _maml(
    algorithm: Any, of_options: Any, work: Workload, optimizer: SGDOptimizer, **options: Any
) -> MAMLAlgorithm[np.float32]:
    learner: MAMLAlgorithm[np.float32] = algorithm(
        of_options(
            model_of(work),
            MetaOptimizer=optimizer,
            InnerLearningRate=work.inner_rate,
            AdaptationSteps=work.steps,
            GradientClipThreshold=None,
            **options,
        )
    )
    return learner


class Contestant:
    """`MetaTrain` of iMAML, or by setting of MAML in one of its forms."""

    def __init__(self, workload: Workload, setting: str) -> None:
        self._recorder = _Recorder(workload.meta_rate)
        maml: dict[str, dict[str, Any]] = {
            "maml": {},
            "maml-sqrt": {"CheckpointSegments": "sqrt"},
            "fomaml": {"UseFirstOrder": True},
            "anil": {},
        }
        self._learner: MetaLearnerBase[np.float32]
        if setting in maml:
            algorithm = (ANILAlgorithm, ANILOptions) if setting == "anil" else (MAMLAlgorithm, MAMLOptions)
            self._learner = _maml(*algorithm, workload, self._recorder, **maml[setting])
        else:
            self._learner = iMAMLAlgorithm(options_of(workload, self._recorder))
        self._batch = batch_of(workload)

    def step(self) -> float:
        return float(self._learner.MetaTrain(self._batch))

    def meta_gradient(self) -> NDArray[np.float64]:
        return np.asarray(self._recorder.last, np.float64)

    def helpers(self) -> list[int]:
        return []
