"""Batches of ever new sizes: programs that are not kept are freed at once, without the garbage collector."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from aidotnet_py import (
    AdamOptimizer,
    ANILAlgorithm,
    ANILOptions,
    BOILAlgorithm,
    BOILOptions,
    MAMLAlgorithm,
    MAMLOptions,
    MetaLearningTask,
    MetaSGDAlgorithm,
    MetaSGDOptions,
    NeuralNetworkModel,
    ReptileAlgorithm,
    ReptileOptions,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.meta_learning.objective import buffers
from aidotnet_py.meta_learning.objective.batched_programs import BatchedPrograms
from aidotnet_py.nn import mlp

LEARNERS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "MAML": (MAMLAlgorithm, MAMLOptions, {}),
    "MAML, two segments": (MAMLAlgorithm, MAMLOptions, {"CheckpointSegments": 2}),
    "MAML through Adam": (MAMLAlgorithm, MAMLOptions, {"InnerOptimizer": AdamOptimizer(0.01)}),
    "iMAML": (iMAMLAlgorithm, iMAMLOptions, {"LambdaRegularization": 0.1}),
    "Reptile": (ReptileAlgorithm, ReptileOptions, {}),
    "Meta-SGD": (MetaSGDAlgorithm, MetaSGDOptions, {}),
    "ANIL": (ANILAlgorithm, ANILOptions, {}),
    "BOIL": (BOILAlgorithm, BOILOptions, {}),
}


def a_task(count: int) -> Any:
    x = np.linspace(-1.0, 1.0, count)[:, None]
    return MetaLearningTask(SupportSetX=x, SupportSetY=x, QuerySetX=x, QuerySetY=x, NumWays=1)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[weakref.ref[Any]]]:
    """All programs that are made, while nothing is collected."""
    made: list[weakref.ref[Any]] = []
    initialise: Any = BatchedPrograms.__init__

    def noted(self: Any, *arguments: Any) -> None:
        made.append(weakref.ref(self))
        initialise(self, *arguments)

    monkeypatch.setattr(BatchedPrograms, "__init__", noted)
    gc.collect()
    gc.disable()
    yield made
    gc.enable()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in ("MAML", "iMAML", "Reptile") else pytest.mark.slow) for n in LEARNERS]
)
def test_programs_beyond_those_kept_are_freed_at_once(
    name: str, made: list[weakref.ref[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buffers, "_MOST_SMALL", 6)
    algorithm, options, given = LEARNERS[name]
    model = NeuralNetworkModel(mlp(4, 4, 1), input_shape=(1,), dtype=np.float64, seed=0)
    learner = algorithm(options(model, **{"AdaptationSteps": 3, **given}))
    for count in range(2, 12):
        learner.MetaTrain(TaskBatch([a_task(count) for _ in range(2)]))
        learner.AdaptAndEvaluate(a_task(count))
    (workspace,) = learner._objectives._workspaces._idle
    assert len(made) > 2 * len(workspace.places)
    assert sum(programs() is not None for programs in made) == len(workspace.places)
