"""Programs of a learner outlast its steps: nothing is traced anew as long as only parameters change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aidotnet_py import (
    CrossEntropyLoss,
    MAMLAlgorithm,
    MAMLOptions,
    MetaLearningTask,
    NeuralNetworkModel,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
    nn,
)
from aidotnet_py.autodiff.tracing.recording import Trace

NETWORKS: dict[str, Any] = {
    "batch norm": nn.Sequential(nn.Flatten(), nn.Dense(4), nn.BatchNorm(), nn.ReLU(), nn.Dense(2)),
    "by the support set": nn.Sequential(nn.Flatten(), nn.Dense(4), nn.BatchNorm(statistics="support"), nn.Dense(2)),
    "group norm": nn.Sequential(nn.Conv2D(4, 3), nn.GroupNorm(2), nn.GlobalAveragePool2D(), nn.Dense(2)),
    "dropout": nn.Sequential(nn.Flatten(), nn.Dense(4), nn.Tanh(), nn.Dropout(0.3), nn.Dense(2)),
    "conv4": nn.conv4(2, filters=2),
    "resnet12": nn.resnet12(2, filters=(2, 2, 2, 2)),
}


def a_batch(rng: np.random.Generator) -> TaskBatch[Any, Any, Any]:
    def images() -> Any:
        return rng.standard_normal((4, 16, 16, 1)).astype(np.float32)

    labels = np.array([0, 1, 0, 1])
    return TaskBatch(
        [
            MetaLearningTask(
                SupportSetX=images(), SupportSetY=labels, QuerySetX=images(), QuerySetY=labels, NumWays=2, TaskId=i
            )
            for i in range(2)
        ]
    )


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())
@pytest.mark.parametrize("kind", ["iMAML", "MAML"])
def test_no_step_traces_anew(network: Any, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    model = NeuralNetworkModel(network, input_shape=(16, 16, 1), loss=CrossEntropyLoss(), seed=0)
    learner: Any = (
        iMAMLAlgorithm(iMAMLOptions(model, AdaptationSteps=2, ConjugateGradientIterations=2))
        if kind == "iMAML"
        else MAMLAlgorithm(MAMLOptions(model, AdaptationSteps=2))
    )
    for _ in range(2):
        learner.MetaTrain(a_batch(rng))
        learner.Adapt(next(iter(a_batch(rng))))
    made = list[Any]()
    begin: Any = Trace.__init__
    monkeypatch.setattr(
        Trace, "__init__", lambda self, *given, **named: [made.append(1), begin(self, *given, **named)][1]
    )
    before = learner.BaseModel.GetParameters()
    learner.MetaTrain(a_batch(rng))
    assert not np.array_equal(learner.BaseModel.GetParameters(), before)
    learner.Adapt(next(iter(a_batch(rng))))
    assert not made
