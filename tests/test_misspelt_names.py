"""Misspelt keywords and attributes, and the names of other libraries, are refused with the names here."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from aidotnet_py import (
    AdamOptimizer,
    ArgumentException,
    Episode,
    LBFGSMinimizer,
    MAMLAlgorithm,
    MAMLOptions,
    MetaLearningTask,
    NeuralNetworkModel,
    NewtonCGMinimizer,
    SGDOptimizer,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.backends import get_backend
from aidotnet_py.data import ArrayLoader, BalancedEpisodicDataLoader, DigitsLoader, SinusoidLoader, TableLoader
from aidotnet_py.implicit import implicit_diff
from aidotnet_py.nn import Conv2D, conv4, mlp
from aidotnet_py.solvers import conjugate_gradient, gmres, neumann_series

X, Y = np.zeros((4, 3), np.float32), np.array([0, 1, 0, 1])
B = np.ones(2)


def task() -> MetaLearningTask[Any]:
    return MetaLearningTask(SupportSetX=X, SupportSetY=Y, NumWays=2, NumShots=2)


def model() -> NeuralNetworkModel[Any]:
    return NeuralNetworkModel(mlp(4, 2), input_shape=(3,), seed=0)


def learner() -> MAMLAlgorithm[Any]:
    return MAMLAlgorithm(MAMLOptions(model()))


def identity(v: Any) -> Any:
    return v


CALLS: list[tuple[Callable[..., Any], str, str]] = [
    (lambda **k: conjugate_gradient(identity, B, **k), "tol", "conjugate_gradient has no argument 'tol'; it is 'rtol'"),
    (lambda **k: conjugate_gradient(identity, B, **k), "maxiter", "it is 'max_iterations'"),
    (lambda **k: conjugate_gradient(identity, B, **k), "x0", "it is 'initial'"),
    (lambda **k: conjugate_gradient(identity, B, **k), "M", "it is 'preconditioner'"),
    (lambda **k: conjugate_gradient(**k), "A", "it is 'operator'"),
    (lambda **k: gmres(identity, B, **k), "tol", "gmres has no argument 'tol'; it is 'rtol'"),
    (lambda **k: gmres(identity, B, **k), "maxiter", "it is 'max_iterations'"),
    (lambda **k: gmres(identity, B, **k), "x0", "it is 'initial'"),
    (lambda **k: gmres(identity, B, **k), "M", "it has operator, rhs, max_iterations, rtol, atol, initial, callback"),
    (lambda **k: neumann_series(identity, B, **k), "n_terms", "did you mean 'terms'?"),
    (lambda **k: implicit_diff(identity, **k), "maxiter", "it is 'max_iterations'"),
    (lambda **k: SGDOptimizer(**k), "lr", "SGDOptimizer has no argument 'lr'; it is 'learning_rate'"),
    (lambda **k: AdamOptimizer(0.1, **k), "betas", "it is 'beta1' and 'beta2'"),
    (lambda **k: LBFGSMinimizer(**k), "maxiter", "LBFGSMinimizer has no argument 'maxiter'; it is 'max_iterations'"),
    (lambda **k: NewtonCGMinimizer(**k), "gtol", "it is 'gradient_tolerance'"),
    (lambda **k: MetaLearningTask(**k), "SupportInput", "it is 'SupportSetX'"),
    (lambda **k: MetaLearningTask(SupportSetX=X, SupportSetY=Y, **k), "ways", "did you mean 'NumWays'?"),
    (lambda **k: TaskBatch([task()], **k), "task_difficulties", "did you mean 'taskDifficulties'?"),
    (lambda **k: NeuralNetworkModel(mlp(2), **k), "inputShape", "did you mean 'input_shape'?"),
    (lambda **k: NeuralNetworkModel(mlp(2), input_shape=(3,), **k), "loss_function", "it is 'loss'"),
    (lambda **k: ArrayLoader(X, Y, **k), "n_way", "ArrayLoader has no argument 'n_way'; did you mean 'NWay'?"),
    (lambda **k: ArrayLoader(X, Y, **k), "shots", "did you mean 'KShot'?"),
    (
        lambda **k: BalancedEpisodicDataLoader(X, Y, **k),
        "NWay",
        "BalancedEpisodicDataLoader has no argument 'NWay'",
    ),
    (lambda **k: SinusoidLoader(**k), "k_shot", "did you mean 'KShot'?"),
    (lambda **k: SinusoidLoader(**k), "n_shot", "did you mean 'KShot'?"),
    (lambda **k: DigitsLoader(**k), "n_shot", "did you mean 'KShot'?"),
    (lambda **k: DigitsLoader(**k), "ways", "did you mean 'NWay'?"),
    (lambda **k: MetaLearningTask(SupportSetX=X, SupportSetY=Y, **k), "n_shot", "did you mean 'NumShots'?"),
    (lambda **k: SinusoidLoader(**k), "shots", "did you mean 'KShot'?"),
    (lambda **k: TableLoader({}, task="a", target="b", **k), "feature", "did you mean 'features'?"),
    (lambda **k: conv4(5, **k), "channels", "conv4 has no argument 'channels'; it is 'filters'"),
    (lambda **k: Conv2D(5, **k), "kernel_size", "it is 'kernel'"),
]


def test_a_subclass_that_passes_its_own_keyword_on() -> None:
    class Noisy(SinusoidLoader[Any]):
        def __init__(self, noise: float) -> None:
            super().__init__(noise=noise)  # type: ignore[call-overload]

    with pytest.raises(TypeError, match=r"^SinusoidLoader has no argument 'noise'"):
        Noisy(0.1)


@pytest.mark.parametrize(("call", "slip", "message"), CALLS, ids=[message for *_, message in CALLS])
def test_a_keyword_that_is_none(call: Callable[..., Any], slip: str, message: str) -> None:
    with pytest.raises(TypeError) as error:
        call(**{slip: 1})
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NeuralNetworkModel(mlp(2), input_shape=(3,), backend="NumPy"), "; did you mean 'numpy'?"),
        (lambda: get_backend("cuda:0"), "got 'cuda:0'; did you mean 'cupy'?"),
        (lambda: get_backend("gpu"), "; did you mean 'cupy'?"),
        (lambda: NeuralNetworkModel(mlp(2), input_shape=(3,), dtype="flaot32"), "; did you mean 'float32'?"),
        (lambda: SinusoidLoader(dtype="float32"), "got 'float32'; use np.float32"),
        (lambda: SinusoidLoader(dtype=np.dtype("f8")), "; use np.float64"),
        (lambda: SinusoidLoader(dtype=float), "; use np.float64"),
        # Models would refuse its tasks.
        (lambda: SinusoidLoader(dtype=np.longdouble), "; models have at most np.float64"),
        (lambda: ArrayLoader(X, Y, NWay=2, weighting="uniforn"), "; did you mean 'uniform'?"),
        (lambda: conv4(5, norm="bacth"), "; did you mean 'batch'?"),
        (lambda: iMAMLAlgorithm(iMAMLOptions(model(), Curvature="gauss_newton")), "; did you mean 'gauss-newton'?"),
    ],
)
def test_a_word_that_is_none(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArgumentException) as error:
        call()
    assert str(error.value).endswith(message)


def test_tolerance_still_works_beside_the_suggestions() -> None:
    with pytest.warns(DeprecationWarning, match="tolerance of gmres is now"):
        gmres(identity, B, tolerance=1e-3)  # type: ignore[call-arg]


def test_signatures_are_those_of_the_functions() -> None:
    assert list(inspect.signature(SGDOptimizer).parameters) == ["learning_rate", "momentum"]
    assert pickle.loads(pickle.dumps(LBFGSMinimizer(history=3))) == LBFGSMinimizer(history=3)


@pytest.mark.parametrize(
    ("make", "slip", "message"),
    [
        (task, "SupportInputs", "MetaLearningTask has no attribute 'SupportInputs'; did you mean 'SupportInput'?"),
        (task, "name", "did you mean 'Name'?"),
        (lambda: TaskBatch([task()]), "Difficulties", "did you mean"),
        (learner, "AdaptationStep", "MAMLAlgorithm has no attribute 'AdaptationStep'; did you mean 'AdaptationSteps'?"),
        (learner, "options", "did you mean 'Options'?"),
        (model, "loss_function", "did you mean 'DefaultLossFunction'?"),
        (lambda: SinusoidLoader(seed=0), "Kshot", "did you mean 'KShot'?"),
        (lambda: Episode(task()), "difficulty", "did you mean 'Difficulty'?"),
        (task, "zzz", "keep what belongs to it in an object of your own"),
    ],
)
def test_an_attribute_that_is_none(make: Callable[[], Any], slip: str, message: str) -> None:
    thing = make()
    with pytest.raises(AttributeError) as error:
        setattr(thing, slip, 1)
    assert message in str(error.value)
    assert slip not in vars(thing)


def test_attributes_that_there_are() -> None:
    episode = Episode(task())
    episode.Difficulty, episode.LastLoss = 0.5, 1.0
    assert (episode.Difficulty, episode.LastLoss) == (0.5, 1.0)


def test_classes_of_others_have_attributes_of_their_own() -> None:
    class Own(SinusoidLoader[np.float32]):
        pass

    loader = Own(seed=0)
    loader.anything = 3  # type: ignore[attr-defined]
    assert vars(loader)["anything"] == 3


def test_another_base_sees_what_is_set() -> None:
    class Recording:
        def __setattr__(self, name: str, value: Any) -> None:
            self.__dict__.setdefault("names", []).append(name)
            super().__setattr__(name, value)

    class Own(SinusoidLoader[np.float32], Recording):
        pass

    loader = Own(seed=0)
    loader.anything = 3  # type: ignore[attr-defined]
    assert vars(loader)["names"][-1] == "anything"
