"""Arguments of a wrong kind get the contract's errors, with their names, where a foreign error would be no help."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typing_extensions import get_protocol_members

from aidotnet_py import (
    ArgumentException,
    ArgumentNullException,
    ArgumentOutOfRangeException,
    CrossEntropyLoss,
    FunctionModel,
    IEpisodicDataLoader,
    IFullModel,
    IGradientBasedOptimizer,
    ILossFunction,
    IResumable,
    ITaskSampler,
    MeanSquaredErrorLoss,
    MetaLearningTask,
    MetaTrainingResult,
    NeuralNetworkModel,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.backends import get_backend
from aidotnet_py.data import DigitsLoader, SinusoidLoader
from aidotnet_py.meta_learning.contract.protocols import missing_members
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask
from aidotnet_py.nn import mlp

W = {"w": np.zeros((1, 1))}


def linear(p: Any, x: Any) -> Any:
    return x @ p["w"]


def learner(**options: Any) -> iMAMLAlgorithm[Any]:
    return iMAMLAlgorithm(iMAMLOptions(FunctionModel(linear, W), **options))


def batch() -> TaskBatch[Any]:
    return SinusoidLoader(dtype=np.float64, seed=0).GetTaskBatch(2)


def task(**more: Any) -> MetaLearningTask[Any]:
    return MetaLearningTask(SupportSetX=np.ones((2, 1)), SupportSetY=np.ones((2, 1)), **more)


def trained() -> MetaTrainingResult[Any]:
    return MetaTrainingResult(np.ones(3), np.ones(3), timedelta())


def train_without_a_model() -> None:
    one = learner()
    one.Options.MetaModel = None  # type: ignore[assignment]
    one.MetaTrain(batch())


CALLS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: get_backend(None), ArgumentException, "backend must be a Backend or one of 'numpy'"),
    (lambda: FunctionModel(linear, W, backend=3), ArgumentException, "backend must be a Backend or one of .*, got 3"),
    (lambda: DigitsLoader(backend=3), ArgumentException, "backend must be a Backend or one of .*, got 3"),
    (lambda: FunctionModel(3, W), ArgumentException, "function must be a function of .*, got 3"),
    (
        lambda: FunctionModel(linear, W, CrossEntropyLoss),
        ArgumentException,
        "loss must be an object of an ILoss.*, got <class",
    ),
    (lambda: FunctionModel(linear, W, 3), ArgumentException, "loss must be an object of an ILoss.*, got 3"),
    (
        lambda: FunctionModel(linear, W).ComputeGradients(np.ones((2, 1)), np.ones((2, 1)), "mse"),
        ArgumentException,
        "lossFunction must be an object of an ILoss.*, got 'mse'",
    ),
    (
        lambda: FunctionModel(linear, W).ComputeGradients(np.ones((2, 1)), np.ones((2, 1)), CrossEntropyLoss),
        ArgumentException,
        "lossFunction must be an object of an ILoss.*, got <class",
    ),
    (lambda: FunctionModel(linear, W, dtype="zz"), ArgumentException, "dtype must be one of float16, .*, got 'zz'"),
    (lambda: NeuralNetworkModel("x", input_shape=(1,)), ArgumentException, "network must be a layer, got 'x'"),
    (
        lambda: NeuralNetworkModel(mlp(1), input_shape=5),
        ArgumentException,
        "input_shape must be a sequence of .*, got 5",
    ),
    (
        lambda: NeuralNetworkModel(mlp(1), input_shape=(1.5,)),
        ArgumentException,
        r"input_shape must be .*, got \(1.5,\)",
    ),
    (
        lambda: NeuralNetworkModel(mlp(1), input_shape=(1,), seed=-1),
        ArgumentOutOfRangeException,
        "seed must be .* or None, got -1",
    ),
    (lambda: batch().GetRange(0.5, 1), ArgumentOutOfRangeException, "got startIndex 0.5 and count 1"),
    (
        lambda: batch().Split(1.5),
        ArgumentOutOfRangeException,
        "numSubBatches must be from 1 to the batch size, 2, got 1.5",
    ),
    (lambda: TaskBatch([MetaLearningTask]), ArgumentException, "task"),
    (lambda: task(Metadata=5), ArgumentException, "Metadata must be a mapping, got 5"),
    (lambda: task(Metadata=np.ones(3)), ArgumentException, "Metadata must be a mapping, got ndarray"),
    (lambda: trained().HasConverged(None), ArgumentException, "windowSize must be a whole number, got None"),
    (lambda: trained().HasConverged(2.5), ArgumentException, "windowSize must be a whole number, got 2.5"),
    (lambda: trained().HasConverged(2, None), ArgumentNullException, "varianceThreshold must be a number of .*, got N"),
    (lambda: trained().HasConverged(2, "0"), ArgumentException, "varianceThreshold must be a number of .*, got '0'"),
    (lambda: learner().Save(None), ArgumentNullException, "filePath must be a path, got None"),
    (lambda: learner().Load(3), ArgumentException, "filePath must be a path, got 3"),
    (lambda: learner().SetMetaModel(FunctionModel), ArgumentException, "lacks .*Clone"),
    (train_without_a_model, ArgumentException, "MetaModel must be an IFullModel, got None"),
]


@pytest.mark.parametrize(("call", "error", "message"), CALLS)
def test_the_argument_is_named(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_what_an_object_lacks_is_asked_of_each() -> None:
    class Loose:
        pass

    whole, empty = Loose(), Loose()
    for name in missing_members(empty, IMetaLearningTask):
        setattr(whole, name, None)
    assert missing_members(empty, IMetaLearningTask)
    assert not missing_members(whole, IMetaLearningTask)
    assert missing_members(Loose(), IMetaLearningTask)


@pytest.mark.parametrize(
    "protocol", [IFullModel, ILossFunction, IGradientBasedOptimizer, IEpisodicDataLoader, ITaskSampler, IResumable]
)
def test_a_member_that_is_only_inherited_from_its_protocol_is_lacking(protocol: type[Any]) -> None:
    members = sorted(get_protocol_members(protocol))
    inherits = type("Inherits", (protocol,), {members[0]: None})
    assert missing_members(inherits(), protocol) == tuple(members[1:])
    whole = inherits()
    vars(whole).update(dict.fromkeys(members[1:]))
    assert missing_members(whole, protocol) == ()


def test_a_model_class_that_forgets_a_member_does_not_train() -> None:
    class Forgets(IFullModel[Any, Any, Any]):
        """Has all members, but what it inherits as SetParameters would keep none of the steps."""

    for name in get_protocol_members(IFullModel) - {"SetParameters"}:
        setattr(Forgets, name, getattr(FunctionModel, name))
    with pytest.raises(ArgumentException, match=r"^MetaModel must be an IFullModel, got a Forgets, which lacks SetP"):
        iMAMLAlgorithm(iMAMLOptions(Forgets()))


def test_a_model_without_a_loss_needs_one_in_the_options() -> None:
    class Lossless(FunctionModel[Any]):
        DefaultLossFunction = None  # type: ignore[assignment]

    message = r"^DefaultLossFunction of Lossless must be an ILossFunction, got None; pass LossFunction$"
    with pytest.raises(ArgumentException, match=message):
        iMAMLAlgorithm(iMAMLOptions(Lossless(linear, W)))
    assert iMAMLOptions(Lossless(linear, W), LossFunction=MeanSquaredErrorLoss()).IsValid()


def test_a_loss_that_is_falsy_is_still_the_one_given() -> None:
    class Steep(MeanSquaredErrorLoss[Any]):
        def __len__(self) -> int:
            return 0

        def formula(self, predicted: Any, actual: Any) -> Any:
            return 100.0 * super().formula(predicted, actual)

    model, x = FunctionModel(linear, W), np.ones((1, 1))
    np.testing.assert_allclose(model.ComputeGradients(x, x, Steep()), 100 * model.ComputeGradients(x, x))


def test_a_place_that_is_lost_on_loading_is_told(tmp_path: Path) -> None:
    file = tmp_path / "learner.safetensors"
    learner(DataLoader=SinusoidLoader(dtype=np.float64, seed=0)).Save(file)
    with pytest.warns(UserWarning, match="a loader's place and this learner has no DataLoader"):
        learner().Load(file)
    learner().Save(file)
    with pytest.warns(UserWarning, match="no place of a loader and this learner has a SinusoidLoader"):
        learner(DataLoader=SinusoidLoader(dtype=np.float64, seed=0)).Load(file)


def test_the_norm_of_large_gradients_does_not_overflow() -> None:
    model = FunctionModel(linear, {"w": np.zeros((1, 1), np.float32)})
    x = np.ones((2, 1), np.float32)
    task = MetaLearningTask(SupportSetX=x, SupportSetY=x * np.float32(1e21), QuerySetX=x, QuerySetY=x, NumWays=1)
    one = iMAMLAlgorithm(iMAMLOptions(model, InnerLearningRate=1e-9, AdaptationSteps=1, UseFirstOrder=True))
    one.MetaTrain(TaskBatch([task]))
    assert one._record is not None
    assert np.isfinite(one._record.metrics["InnerGradientNorm"])
