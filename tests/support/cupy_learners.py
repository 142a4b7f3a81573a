"""One small learner of each kind for runs on CuPy, and all numbers of such a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from aidotnet_py import (
    ANILAlgorithm,
    ANILOptions,
    BOILAlgorithm,
    BOILOptions,
    MAMLAlgorithm,
    MAMLOptions,
    MetaSGDAlgorithm,
    MetaSGDOptions,
    NeuralNetworkModel,
    ReptileAlgorithm,
    ReptileOptions,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.backends import get_backend
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.nn import (
    Dense,
    Sequential,
    Sigmoid,
    Tanh,
)

__all__ = ["LEARNERS", "Values", "from_paper", "host", "learner_on", "network", "outcome"]


Values = dict[str, Any]


def host(array: Any) -> Any:
    """The values on the host, from wherever they are."""
    return next((b.to_numpy(array) for b in map(get_backend, ("numpy", "cupy")) if b.owns(array)), array)


def network(backend: str, seed: int = 0) -> NeuralNetworkModel[Any]:
    layers = Sequential(Dense(6), Tanh(), Dense(5), Sigmoid(), Dense(1))
    return NeuralNetworkModel(layers, input_shape=(1,), dtype=np.float64, backend=backend, seed=seed)


def from_paper(model: Any, **options: Any) -> Any:
    return iMAMLOptions.FromPaper(model, Lambda=50.0, UseNeumannApproximation=True, NeumannSeriesTerms=4, **options)


LEARNERS: dict[str, tuple[Any, Callable[..., Any], Values]] = {
    "iMAML": (iMAMLAlgorithm, iMAMLOptions, {"ConjugateGradientIterations": 4, "ConjugateGradientDamping": 0.1}),
    "iMAML, Gauss-Newton": (iMAMLAlgorithm, iMAMLOptions, {"Curvature": "gauss-newton"}),
    "iMAML, first order": (iMAMLAlgorithm, iMAMLOptions, {"UseFirstOrder": True}),
    "iMAML, Neumann series": (iMAMLAlgorithm, from_paper, {}),
    "MAML": (MAMLAlgorithm, MAMLOptions, {}),
    "FOMAML": (MAMLAlgorithm, MAMLOptions, {"UseFirstOrder": True}),
    "ANIL": (ANILAlgorithm, ANILOptions, {}),
    "BOIL": (BOILAlgorithm, BOILOptions, {}),
    "Meta-SGD": (MetaSGDAlgorithm, MetaSGDOptions, {}),
    "Reptile": (ReptileAlgorithm, ReptileOptions, {}),
}


def learner_on(backend: str, name: str, seed: int = 0, **more: Any) -> Any:
    algorithm, options, settings = LEARNERS[name]
    loader = SinusoidLoader(5, 6, seed=seed, dtype=np.float64, backend=backend)
    common = {"AdaptationSteps": 3, "MetaBatchSize": 3, "NumMetaIterations": 4, "RandomSeed": 1, "EvaluationTasks": 3}
    return algorithm(
        options(network(backend, seed), DataLoader=loader, EvaluationFrequency=2, **(common | settings | more))
    )


def outcome(learner: Any) -> Values:
    """All numbers of a run: training, evaluating, adapting, one step more."""
    result = learner.Train()
    batch = learner.Options.DataLoader.GetTaskBatch(3)
    adapted = learner.AdaptAndEvaluate(batch[0])
    return {
        "losses": result.LossHistory,
        "metrics": [v for k, v in sorted(result.AdditionalMetrics.items()) if not k.endswith("Ms")],
        "evaluated": [learner.Evaluate(batch), *learner.Evaluate(3).PerTaskLosses],
        "adapted": host(learner.Adapt(batch[1]).GetParameters()),
        "steps": [*adapted.PerStepLosses, adapted.QueryLoss],
        "one step more": learner.MetaTrain(batch),
        "parameters": host(learner.BaseModel.GetParameters()),
        "predicted": host(learner.BaseModel.Predict(batch[0].QueryInput)),
    }
