"""Programs of learners and models outlast their steps: nothing is traced anew while only parameters change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from process_cases import KINDS

from aidotnet_py import CrossEntropyLoss, MetaLearningTask, NeuralNetworkModel, TaskBatch, nn
from aidotnet_py.autodiff.tracing.recording import Trace

NETWORKS: dict[str, Any] = {
    "batch norm": nn.Sequential(nn.Flatten(), nn.Dense(4), nn.BatchNorm(), nn.ReLU(), nn.Dense(2)),
    "by the support set": nn.Sequential(nn.Flatten(), nn.Dense(4), nn.BatchNorm(statistics="support"), nn.Dense(2)),
    "group norm": nn.Sequential(nn.Conv2D(4, 3), nn.Residual(nn.GroupNorm(2)), nn.GlobalAveragePool2D(), nn.Dense(2)),
    "dropout": nn.Sequential(nn.Flatten(), nn.Dense(4), nn.Tanh(), nn.Dropout(0.3), nn.Dense(2)),
    "conv4": nn.conv4(2, filters=2),
    "resnet12": nn.resnet12(2, filters=(2, 2, 2, 2)),
}
# The default tests have each kind of layer that the deepest one has.
EACH = [pytest.param(name, marks=[pytest.mark.slow] * (name == "resnet12")) for name in NETWORKS]


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


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[Trace]:
    """The traces that begin from now on."""
    made, begin = list[Trace](), Trace.__init__

    def counting(self: Trace, *given: Any, **named: Any) -> None:
        made.append(self)
        begin(self, *given, **named)

    monkeypatch.setattr(Trace, "__init__", counting)
    return made


def a_model(network: Any) -> NeuralNetworkModel[Any, Any, Any]:
    return NeuralNetworkModel(network, input_shape=(16, 16, 1), loss=CrossEntropyLoss(), seed=0)


@pytest.mark.costly
@pytest.mark.parametrize(
    ("kind", "network"),
    [
        *((kind, "batch norm") for kind in KINDS),
        *(pytest.param("iMAML", *each.values, marks=each.marks) for each in EACH[1:]),
    ],
)
def test_learners_trace_no_step_anew(kind: str, network: str, traces: list[Trace]) -> None:
    rng = np.random.default_rng(0)
    algorithm, options = KINDS[kind]
    # With other draws, a solve may be the first to need its measured residual, which is traced then, once.
    learner = algorithm(options(a_model(NETWORKS[network]), AdaptationSteps=2, RandomSeed=0))
    for _ in range(3):
        traces.clear()
        before = learner.BaseModel.GetParameters()
        learner.MetaTrain(a_batch(rng))
        assert not np.array_equal(learner.BaseModel.GetParameters(), before)
        learner.Adapt(next(iter(a_batch(rng))))
        learner.Evaluate(a_batch(rng))
    assert not traces


@pytest.mark.parametrize("network", EACH)
def test_models_trace_nothing_anew(network: str, traces: list[Trace]) -> None:
    rng = np.random.default_rng(0)
    model = a_model(NETWORKS[network])
    x, y = rng.standard_normal((8, 16, 16, 1)).astype(np.float32), np.arange(8) % 2
    for _ in range(2):
        traces.clear()
        model.Train(x, y)
        model.ComputeGradients(x, y)
        model.Predict(x)
        model.with_statistics_of(x).Predict(x)
    assert not traces
