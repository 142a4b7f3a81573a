"""Whole runs with ``backend="cupy"``: the same program, the same numbers, the same checkpoints as on NumPy.

What each function gives on CuPy is held to its own witnesses in the tests of that function, which run on it too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cupy_learners import LEARNERS, host, learner_on, network, outcome
from numpy.testing import assert_allclose
from omniglot_files import alphabets, load, write

from aidotnet_py import (
    AdamOptimizer,
    CrossEntropyLoss,
    NeuralNetworkModel,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.backends import Backend, get_backend, registry
from aidotnet_py.data import DigitsLoader, SinusoidLoader
from aidotnet_py.nn import (
    AveragePool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Flatten,
    GlobalAveragePool2D,
    LayerNorm,
    MaxPool2D,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Tanh,
    conv4,
    mlp,
    resnet18,
)


@pytest.fixture(autouse=True)
def cupy(cupy_backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """CuPy's backend under the name that users type, simulated or not."""
    monkeypatch.setitem(registry._backends, "cupy", cupy_backend)
    return cupy_backend


@pytest.mark.costly
@pytest.mark.parametrize("name", LEARNERS)
def test_a_run_gives_the_numbers_of_numpy(name: str) -> None:
    learner = learner_on("cupy", name)
    found, wanted = outcome(learner), outcome(learner_on("numpy", name))
    assert get_backend("cupy").owns(learner.BaseModel.GetParameters())
    assert isinstance(found["one step more"], np.float64)
    for quantity in wanted:
        assert_allclose(found[quantity], wanted[quantity], rtol=1e-10, atol=1e-13, err_msg=quantity)


@pytest.mark.parametrize("name", ["iMAML", "MAML", "Meta-SGD"])
@pytest.mark.parametrize(("start", "end"), [("cupy", "numpy"), ("numpy", "cupy")])
def test_a_run_saved_on_one_backend_goes_on_on_the_other(name: str, start: str, end: str, tmp_path: Path) -> None:
    first, second = (learner_on(b, name, s, MetaOptimizer=AdamOptimizer(0.01)) for b, s in ((start, 0), (end, 7)))
    for _ in range(3):
        first.MetaTrainStep(3)
    first.Save(tmp_path / "run")
    second.Load(tmp_path / "run")
    assert second.CurrentIteration == 3
    assert get_backend(end).owns(second.BaseModel.GetParameters())
    assert host(second.BaseModel.GetParameters()).tobytes() == host(first.BaseModel.GetParameters()).tobytes()
    losses = [[one.MetaTrainStep(3).MetaLoss for _ in range(3)] for one in (first, second)]
    assert_allclose(losses[1], losses[0], rtol=1e-10)


def test_a_model_moves_in_one_call() -> None:
    model = network("numpy")
    moved = model.To("cupy")
    x = np.linspace(-1.0, 1.0, 7)[:, None]
    there = get_backend("cupy").asarray(x)
    assert_allclose(host(moved.Predict(there)), model.Predict(x), rtol=1e-12)
    moved.Train(there, get_backend("cupy").asarray(np.sin(x)))
    model.Train(x, np.sin(x))
    back = moved.To("numpy")
    assert_allclose(back.GetParameters(), model.GetParameters(), rtol=1e-10)
    restored = network("cupy", seed=5)
    restored.Deserialize(moved.Serialize())
    assert host(restored.GetParameters()).tobytes() == back.GetParameters().tobytes()


@pytest.mark.parametrize("name", ["sinusoids", "digits", "omniglot"])
def test_a_seed_gives_the_same_tasks_to_the_bit(name: str, tmp_path: Path) -> None:
    archive = write(tmp_path / "set.zip", alphabets("A", "B")) if name == "omniglot" else tmp_path
    make: dict[str, Callable[[str], Any]] = {
        "sinusoids": lambda backend: SinusoidLoader(5, 6, seed=3, backend=backend),
        "digits": lambda backend: DigitsLoader(3, 2, 4, seed=3, backend=backend),
        "omniglot": lambda backend: load(archive, backend=backend),
    }
    for here, there in zip(make[name]("numpy").GetTaskBatch(3), make[name]("cupy").GetTaskBatch(3), strict=True):
        for part in ("SupportInput", "SupportOutput", "QueryInput", "QueryOutput"):
            assert get_backend("cupy").owns(getattr(there, part))
            assert host(getattr(there, part)).tobytes() == getattr(here, part).tobytes()
            assert host(getattr(there, part)).dtype == getattr(here, part).dtype


NETWORKS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "mlp": (mlp(7, 3), (4,)),
    "conv4, strides": (conv4(3, filters=3), (8, 8, 1)),
    "conv4, pools": (conv4(3, filters=3, reduction="pool"), (16, 16, 1)),
    "resnet18": (resnet18(3, filters=2), (16, 16, 3)),
    "each layer once": (
        Sequential(
            *(Conv2D(4, (3, 2)), LayerNorm(), Sigmoid(), AveragePool2D(2, stride=1), Conv2D(4, 3, groups=2)),
            *(Residual(Sequential(Conv2D(4, 3), BatchNorm(), Tanh())), MaxPool2D(2), ReLU(), Flatten(), Dense(3)),
        ),
        (7, 6, 2),
    ),
    "pooled to one": (Sequential(Conv2D(5, 3), ReLU(), GlobalAveragePool2D(), Dense(3)), (5, 5, 1)),
}


@pytest.mark.costly
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "resnet18")) for n in NETWORKS])
def test_networks_start_alike_and_learn_alike(name: str) -> None:
    layers, shape = NETWORKS[name]
    here, there = (
        NeuralNetworkModel(layers, input_shape=shape, loss=CrossEntropyLoss(), dtype=np.float64, backend=b, seed=2)
        for b in ("numpy", "cupy")
    )
    assert host(there.GetParameters()).tobytes() == here.GetParameters().tobytes()
    x, y = np.random.default_rng(0).random((5, *shape)), np.array([0, 2, 1, 1, 0])
    move = get_backend("cupy").asarray
    assert_allclose(host(there.Predict(move(x))), here.Predict(x), rtol=1e-10, atol=1e-12)
    for _ in range(2):
        there.Train(move(x), move(y))
        here.Train(x, y)
    # Adam divides the gradient by its own size, rounding errors and all where it is zero, as before a normalisation.
    assert_allclose(host(there.GetParameters()), here.GetParameters(), rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-10), (np.float32, 2e-4)])
def test_a_classifier_of_digits(dtype: Any, rtol: float) -> None:
    losses = []
    for backend in ("numpy", "cupy"):
        model = NeuralNetworkModel(
            conv4(3, filters=4), input_shape=(8, 8, 1), loss=CrossEntropyLoss(), dtype=dtype, backend=backend, seed=0
        )
        loader = DigitsLoader(3, 2, 3, seed=1, dtype=dtype, backend=backend)
        options = iMAMLOptions.FromPaper(
            model, Lambda=0.5, DataLoader=loader, AdaptationSteps=3, ConjugateGradientIterations=3,
            Curvature="gauss-newton",
        )  # fmt: skip
        learner = iMAMLAlgorithm(options)
        steps = [learner.MetaTrainStep(3) for _ in range(3)]
        losses.append([(step.MetaLoss, step.Accuracy) for step in steps])
        assert isinstance(steps[0].MetaLoss, dtype)
    assert_allclose(losses[1], losses[0], rtol=rtol)
