"""Errors about data that do not fit say what to do."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from aidotnet_py import (
    ArgumentException,
    BatchingStrategy,
    BinaryCrossEntropyLoss,
    CrossEntropyLoss,
    CurriculumStage,
    Episode,
    MAMLAlgorithm,
    MAMLOptions,
    MeanSquaredErrorLoss,
    MetaLearningTask,
    NeuralNetworkModel,
    TaskBatch,
)
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.nn import Flatten, Sequential, conv4, mlp
from aidotnet_py.solvers import conjugate_gradient

X, Y = np.zeros((4, 3), np.float32), np.array([0, 1, 0, 1])
STRINGS = np.array(["a", "b", "a", "b"])
NUMBERED = r"; number the classes from 0, as by np\.unique\({}, return_inverse=True\)\[1\]$"


def task(x: Any = X, y: Any = Y) -> MetaLearningTask[Any, Any, Any]:
    return MetaLearningTask(SupportSetX=x, SupportSetY=y, QuerySetX=x, QuerySetY=y, NumWays=2, NumShots=2)


def model(outputs: int = 2, **options: Any) -> NeuralNetworkModel[Any, Any, Any]:
    return NeuralNetworkModel(mlp(4, outputs), input_shape=(3,), seed=0, **{"loss": CrossEntropyLoss(), **options})


def learner(of: Any = None) -> MAMLAlgorithm[Any, Any, Any]:
    return MAMLAlgorithm(MAMLOptions(model() if of is None else of, AdaptationSteps=1))


def train(x: Any = X, y: Any = Y, of: Any = None) -> Any:
    return learner(of).MetaTrain(TaskBatch([task(x, y), task(x, y)]))


def images(shape: tuple[int, ...]) -> Any:
    network = NeuralNetworkModel(conv4(5, filters=2), input_shape=(28, 20, 1), seed=0)
    return network.Predict(np.zeros(shape, np.float32))


CALLS: list[tuple[Callable[[], Any], str]] = [
    # Types.
    (
        lambda: train(np.zeros((4, 3))),
        r"; use SupportSetX\.astype\(np\.float32\), or make the model with dtype=np\.fl",
    ),
    (
        lambda: train(of=model(dtype=np.float64)),
        r"; use SupportSetX\.astype\(np\.float64\), or make the model",
    ),
    (
        lambda: train([[0.0] * 3] * 4),
        r"SupportSetX of task 0 must .* list; use np\.asarray\(SupportSetX\)$",
    ),
    (lambda: model().Predict([[0.0] * 3]), r"got a list; use np\.asarray\(input\)$"),
    (lambda: CrossEntropyLoss().CalculateLoss(np.zeros((1, 2)), [0]), r"got list; use np\.asarray\(actual\)$"),
    (
        lambda: MeanSquaredErrorLoss().CalculateLoss(np.zeros(2, int), np.zeros(2)),
        r"; use predicted\.astype",
    ),
    (lambda: conjugate_gradient(lambda v: v, [1.0]), r"got list; use np\.asarray\(rhs\)$"),
    (lambda: conjugate_gradient(lambda v: v, np.array([1, 2])), r"; use rhs\.astype\(np\.float64\)$"),
    # Labels, first by what the loss makes of them.
    (lambda: train(y=Y.astype(np.float32)), r"got dtype float32; use SupportSetY\.astype\(np\.int64\)$"),
    (lambda: train(y=Y.astype(np.float64)), r"got dtype float64; use SupportSetY\.astype\(np\.int64\)$"),
    (lambda: train(y=Y == 1), r"got dtype bool; use SupportSetY\.astype\(np\.int64\)$"),
    (lambda: train(y=Y + 0.5), r"; for a regression, use MeanSquaredErrorLoss$"),
    (lambda: train(y=STRINGS), NUMBERED.format("SupportSetY")),
    (lambda: train(y=STRINGS, of=model(loss=MeanSquaredErrorLoss())), r"must have the predictions' shape"),
    (lambda: train(y=Y + 1), NUMBERED.format("SupportSetY")),
    (lambda: train(y=Y[:, np.newaxis]), r"got shape \(4, 1\); use SupportSetY\[\.\.\., 0\]$"),
    (lambda: train(y=np.arange(4)), r"; a model for 4 classes must have as many outputs$"),
    (lambda: train(y=np.eye(4, 3, dtype=np.float32)), r"; a model for one-hot rows of 3 classes must have 3 outputs$"),
    (lambda: train(of=model(1)), r"; for two classes and one output, use BinaryCrossEntropyLoss$"),
    (lambda: train(of=model(loss=MeanSquaredErrorLoss())), r"; for class indices, use CrossEntropyLoss, as in"),
    (
        lambda: CrossEntropyLoss().CalculateLoss(np.zeros(4), Y),
        r"; for one logit an example, use BinaryCross",
    ),
    (lambda: BinaryCrossEntropyLoss().CalculateLoss(np.zeros((4, 1)), Y), r"; use actual\.reshape\(-1, 1\)$"),
    (lambda: MeanSquaredErrorLoss().CalculateLoss(np.zeros(4), STRINGS), NUMBERED.format("actual")),
    # Shapes.
    (lambda: images((10, 1, 28, 20)), r"; channels come last: use np\.moveaxis\(input, 1, -1\)$"),
    (lambda: images((10, 28, 20)), r"; use input\.reshape\(-1, 28, 20, 1\)$"),
    (lambda: images((28, 20, 1)), r"; for one example, use input\[np\.newaxis\]$"),
    (lambda: images((10, 14, 10, 1)), r"got \(10, 14, 10, 1\)$"),
    (lambda: task(X.T), r"got shapes \(3, 4\) and \(4,\); use SupportSetX\.T$"),
    (lambda: NeuralNetworkModel(mlp(2), input_shape=3), r"got 3; use \(3,\)$"),  # type: ignore[arg-type]
    # Batches.
    (lambda: TaskBatch(task()), r"; use TaskBatch\(\[task\]\)$"),
    (lambda: TaskBatch([X, Y]), r"got a ndarray; use MetaLearningTask\(SupportSetX=…, SupportSetY=…\)$"),
    (lambda: TaskBatch(SinusoidLoader(seed=0)), r"; use GetTaskBatch\(numTasks\) of it$"),
    (lambda: TaskBatch([task()], "uniform"), r"got 'uniform'; use BatchingStrategy\.Uniform$"),
    (lambda: TaskBatch([task()], curriculumStage="Easy"), r"got 'Easy'; use CurriculumStage\.Easy$"),
    (lambda: learner().MetaTrain(task()), r"got a MetaLearningTask; use TaskBatch\(\[task\]\)$"),
    (lambda: learner().Evaluate([task()]), r"got a list; use TaskBatch\(tasks\)$"),
    (lambda: learner().Adapt(TaskBatch([task()])), r"got a TaskBatch; pass its tasks one by one$"),
    (lambda: learner().Adapt([task()]), r"got a list; pass its tasks one by one$"),
    (lambda: TaskBatch([TaskBatch([task()])]), r"^tasks\[0\] must be .*, got a TaskBatch; pass its tasks one by one$"),
    (lambda: learner().Adapt(SinusoidLoader(seed=0)), r"got a SinusoidLoader; use GetNextTask\(\) of it$"),
    (lambda: learner().MetaTrain(SinusoidLoader(seed=0)), r"got a SinusoidLoader; use GetTaskBatch\(numTasks\) of it$"),
    (lambda: Episode((X, Y)), r"got a tuple; use MetaLearningTask\(SupportSetX=…, SupportSetY=…\)$"),  # type: ignore[arg-type]
    (lambda: learner().Adapt(X), r"got a ndarray; use MetaLearningTask\("),
    # Objects.
    (lambda: MAMLAlgorithm(model()), r"got a NeuralNetworkModel; use MAMLOptions\(model\)$"),
    (lambda: MAMLAlgorithm(MAMLOptions(mlp(2))), r"; use one such as NeuralNetworkModel\(network, input_shape=…\)$"),
    (lambda: MAMLAlgorithm(MAMLOptions(model(), InnerOptimizer="sgd")), r"; use one such as SGDOptimizer\(0\.01\)$"),
    (
        lambda: MAMLAlgorithm(MAMLOptions(model(), LossFunction="mse")),
        r"; use one such as CrossEntropyLoss\(\), or derive",
    ),
    (lambda: MAMLAlgorithm(MAMLOptions(model(), DataLoader=[])), r"; use one such as ArrayLoader\(X, y\)$"),
]


@pytest.mark.parametrize(("call", "message"), CALLS, ids=[message for _, message in CALLS])
def test_the_error_names_the_remedy(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArgumentException, match=message):
        call()


def test_what_some_remedies_name() -> None:
    assert TaskBatch([task()], BatchingStrategy.Uniform, curriculumStage=CurriculumStage.Easy).BatchSize == 1
    for labels in (Y.astype(np.float64), Y == 1):
        assert np.isfinite(train(y=labels.astype(np.int64)))
    assert np.isfinite(train(y=np.unique(STRINGS, return_inverse=True)[1]))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 84, 84), (3, 60, 80)])
def test_channels_that_seem_to_be_first(shape: tuple[int, int, int]) -> None:
    channels, height, width = shape
    last = f"use \\({height}, {width}, {channels}\\) and np\\.moveaxis\\(images, 1, -1\\)"
    with pytest.warns(UserWarning, match=f"of height {channels}, width {height} and {width} channels; .*{last}"):
        NeuralNetworkModel(conv4(5, filters=2), input_shape=shape)


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (conv4(5, filters=2), (28, 28, 1)),
        (conv4(5, filters=2), (4, 4, 4)),
        # A sequence of many values, and images whose pixels are read in any order.
        (conv4(5, filters=2), (1, 1000, 16)),
        (Sequential(Flatten(), *mlp(4, 2).layers.values()), (1, 28, 28)),
    ],
)
def test_shapes_that_may_be_meant(network: Any, shape: tuple[int, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NeuralNetworkModel(network, input_shape=shape)
