"""What a learner says of a step that went on, but not as it should."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plain_models import BareModel
from tanh_network import TanhNetwork

from aidotnet_py import (
    ArgumentException,
    FunctionModel,
    InvalidOperationException,
    LooseToleranceWarning,
    MetaLearningTask,
    NonPositiveCurvatureWarning,
    SGDOptimizer,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.backends import get_backend
from aidotnet_py.data import SinusoidLoader

X = np.array([[1.0], [2.0]])


def saddle(**options: Any) -> tuple[iMAMLAlgorithm[Any], TaskBatch[Any]]:
    """The loss (w² − 1)², whose curvature at w = 0 is −4: with λ = 1, I + λH = −3."""
    model = FunctionModel(lambda p, x: (p["w"] ** 2) * np.ones_like(x), {"w": np.zeros(())})
    task = MetaLearningTask(
        SupportSetX=X, SupportSetY=np.ones_like(X), QuerySetX=X, QuerySetY=2 * np.ones_like(X), NumWays=1
    )
    options = {"InnerLearningRate": 1e-9, "AdaptationSteps": 1, "NumMetaIterations": 1, **options}
    return iMAMLAlgorithm(iMAMLOptions(model, **options)), TaskBatch([task])


class SaddleLoader:
    """A loader of the one task of `saddle`."""

    NWay = KShot = AvailableClasses = 1
    QueryShots = 2

    def GetNextTask(self) -> Any:
        return saddle()[1][0]

    def GetTaskBatch(self, n: int) -> TaskBatch[Any]:
        return TaskBatch([self.GetNextTask() for _ in range(n)])

    def SetSeed(self, seed: int) -> None:
        pass


def test_non_positive_curvature_is_said_once_with_its_remedies() -> None:
    learner, batch = saddle()
    learner.GetMetaModel().SetParameters(np.array([0.1]))
    remedies = r"in 1 of 1 tasks.*ConjugateGradientDamping.*gauss-newton"
    with pytest.warns(NonPositiveCurvatureWarning, match=remedies) as said:
        learner.MetaTrain(batch)
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner.MetaTrain(batch)


def test_a_warning_points_at_the_users_line_however_deep_it_arose() -> None:
    learner, _ = saddle(DataLoader=SaddleLoader())
    learner.GetMetaModel().SetParameters(np.array([0.1]))
    with pytest.warns(NonPositiveCurvatureWarning) as said:
        learner.Train()
    assert said[0].filename == __file__


@pytest.mark.parametrize("option", [{"Curvature": "gauss-newton"}, {"ConjugateGradientDamping": 10.0}])
def test_its_remedies_mend_it(option: dict[str, Any]) -> None:
    learner, batch = saddle(**option)
    learner.GetMetaModel().SetParameters(np.array([0.1]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner.MetaTrain(batch)


def test_gauss_newton_needs_a_model_that_can_be_traced() -> None:
    model = BareModel(TanhNetwork(), np.zeros(13), get_backend("numpy"))
    with pytest.raises(
        ArgumentException,
        match=r"Curvature must be 'hessian' for a model .* IDifferentiableModel, such as BareModel, got 'gauss-newton'",
    ):
        iMAMLAlgorithm(iMAMLOptions(model, Curvature="gauss-newton"))


def test_steps_that_are_too_long_are_told_what_to_try() -> None:
    model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((1, 1))})
    loader = SinusoidLoader(dtype=np.float64, seed=0)
    learner = iMAMLAlgorithm(iMAMLOptions(model, DataLoader=loader, InnerLearningRate=1e200))
    with pytest.raises(
        InvalidOperationException, match=r"adapted parameter vector.*; try a smaller InnerLearningRate$"
    ):
        learner.MetaTrainStep(2)


def test_a_batch_and_a_number_are_one_too_many() -> None:
    learner, batch = saddle()
    with pytest.raises(ArgumentException, match="taskBatch must be left out if numTasks is given, got both"):
        learner.Evaluate(batch, numTasks=7)  # type: ignore[call-overload]


class Forgetful:
    """A loader that cannot tell its place."""

    def __init__(self) -> None:
        self._loader = SinusoidLoader(dtype=np.float64, seed=0)

    def __getattr__(self, name: str) -> Any:
        if name in ("GetState", "SetState"):
            raise AttributeError(name)
        return getattr(self._loader, name)


def test_a_loader_whose_place_cannot_be_saved_is_named(tmp_path: Path) -> None:
    model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((1, 1))})
    learner = iMAMLAlgorithm(iMAMLOptions(model, DataLoader=Forgetful()))  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="Forgetful lacks GetState and SetState"):
        learner.Save(tmp_path / "learner.safetensors")


def in_units(unit: float, **options: Any) -> tuple[iMAMLAlgorithm[Any], TaskBatch[Any]]:
    """A linear model, whose gradients and meta-gradient are proportional to the unit of its targets."""
    model = FunctionModel(lambda p, x: x @ p["w"], {"w": np.zeros((3, 1))})
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((8, 3)), rng.standard_normal((3, 1))
    y = unit * (x @ w)
    task = MetaLearningTask(SupportSetX=x[:4], SupportSetY=y[:4], QuerySetX=x[4:], QuerySetY=y[4:], NumWays=1)
    options = {"InnerLearningRate": 0.1, "GradientClipThreshold": None, "MetaOptimizer": SGDOptimizer(1.0), **options}
    return iMAMLAlgorithm(iMAMLOptions(model, **options)), TaskBatch([task])


@pytest.mark.parametrize("unit", [1e-9, 1e-12])
def test_a_gradient_below_the_tolerance_is_not_taken_for_zero_in_silence(unit: float) -> None:
    learner, batch = in_units(unit)
    with pytest.warns(
        LooseToleranceWarning, match=r"ConjugateGradientTolerance 1e-10 ended the solves of 1 tasks"
    ) as said:
        learner.MetaTrain(batch)
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learner.MetaTrain(batch)


@pytest.mark.parametrize(
    ("unit", "option"),
    [
        (1.0, {}),
        (1e-6, {}),
        (0.0, {}),
        (1e-12, {"ConjugateGradientTolerance": 1e-24}),
        (1e-12, {"UseFirstOrder": True}),
        (1e-12, {"UseNeumannApproximation": True, "LambdaRegularization": 0.1}),
    ],
)
def test_gradients_that_are_solved_for_are_not_warned_of_and_right(unit: float, option: dict[str, Any]) -> None:
    moved = []
    for size in (unit, 1.0):
        learner, batch = in_units(size, **{**option, **({} if size < 1 else {"ConjugateGradientTolerance": 1e-10})})
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            learner.MetaTrain(batch)
        moved.append(np.array(learner.GetMetaModel().GetParameters()))
    np.testing.assert_allclose(moved[0], unit * moved[1], rtol=1e-6)
