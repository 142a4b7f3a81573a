"""The options of `iMAMLOptions.Recommended`: what they are, what making them leaves alone, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aidotnet_py import (
    AdamOptimizer,
    ArgumentException,
    ArgumentNullException,
    ConstantSchedule,
    CosineSchedule,
    CrossEntropyLoss,
    FunctionModel,
    InvalidOperationException,
    LBFGSMinimizer,
    MeanSquaredErrorLoss,
    MetaLearningTask,
    NeuralNetworkModel,
    TaskBatch,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.data import GaussianClassificationMetaDataset, SinusoidLoader, UniformEpisodicDataLoader
from aidotnet_py.nn import Dense, Sequential, Tanh, mlp


class Lines:
    """Regressions y = xw with inputs of a scale, all of them with the same curvature of the support loss.

    The columns of the support inputs are orthogonal, so that the Hessian of the mean squared error is 2 · scale² · I.
    """

    NWay = AvailableClasses = 1
    KShot = QueryShots = 4

    def __init__(self, scale: float = 1.0, target: float = 1.0) -> None:
        self.scale, self.target, self.generator = scale, target, np.random.default_rng(0)

    def SetSeed(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)

    def GetNextTask(self) -> MetaLearningTask[np.float64, Any, Any]:
        w = self.target * self.generator.normal(size=(4, 1)) / self.scale
        x = 2 * self.scale * np.linalg.qr(self.generator.normal(size=(4, 4)))[0]
        return MetaLearningTask(SupportSetX=x, SupportSetY=x @ w, QuerySetX=x, QuerySetY=x @ w, NumWays=1, NumShots=4)

    def GetTaskBatch(self, numTasks: int) -> TaskBatch[np.float64, Any, Any]:
        return TaskBatch([self.GetNextTask() for _ in range(numTasks)])


def line(start: float = 0.0) -> FunctionModel[np.float64]:
    return FunctionModel(lambda p, x: x @ p["w"], {"w": np.full((4, 1), start)})


def sines_model(seed: int = 0) -> NeuralNetworkModel[np.float32]:
    return NeuralNetworkModel(mlp(20, 20, 1), input_shape=(1,), seed=seed)


class TestTheRate:
    @pytest.mark.slow
    @pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
    def test_is_a_share_of_the_greatest_stable_one(self, scale: float) -> None:
        # On a quadratic with Hessian h·I, K = 32 steps of rate η leave (1 − ηh)⁶⁴ of the loss: at most a hundredth for
        # 0.0694 ≤ ηh. The search takes the lowest such rate on its grid of quarters of a decade.
        options = iMAMLOptions.Recommended(line(), Lines(scale), NumMetaIterations=5)
        assert 0.0694 / 2 <= options.InnerLearningRate * 2 * scale**2 <= 0.0694 * 10**0.25 / 2

    @pytest.mark.slow
    def test_does_not_depend_on_the_unit_of_targets(self) -> None:
        small, large = (
            iMAMLOptions.Recommended(line(), Lines(target=unit), NumMetaIterations=5) for unit in (1e-3, 1e3)
        )
        assert small.InnerLearningRate == pytest.approx(large.InnerLearningRate)

    @pytest.mark.slow
    @pytest.mark.parametrize("seed", [0, 1])
    def test_is_stable_for_the_curvature_that_training_brings(self, seed: int) -> None:
        # At the start of a tanh network, steps are stable up to about 0.02; in training that falls to 0.001 or 0.002.
        network = NeuralNetworkModel(
            Sequential(Dense(40), Tanh(), Dense(40), Tanh(), Dense(1)), input_shape=(1,), seed=seed
        )
        rate = iMAMLOptions.Recommended(network, SinusoidLoader(seed=seed)).InnerLearningRate
        assert 0.0003 < rate < 0.0012  # a half of the best rate at the start is 0.009

    @pytest.mark.slow
    def test_after_a_shorter_training_it_is_higher(self) -> None:
        network = NeuralNetworkModel(Sequential(Dense(40), Tanh(), Dense(1)), input_shape=(1,), seed=0)
        short, long = (
            iMAMLOptions.Recommended(network, SinusoidLoader(seed=0), NumMetaIterations=n).InnerLearningRate
            for n in (1, 200)
        )
        assert short > 2 * long

    @pytest.mark.slow
    def test_a_pilot_that_fails_ends_at_its_last_step(self) -> None:
        # Loaders that run out of finite data after the eight tasks.
        class Spoilt(Lines):
            def GetTaskBatch(self, numTasks: int) -> TaskBatch[np.float64, Any, Any]:
                self.target = 1.0 if numTasks == 8 else 1e200
                return super().GetTaskBatch(numTasks)

        spoilt, plain = (
            iMAMLOptions.Recommended(line(), kind(), NumMetaIterations=5).InnerLearningRate for kind in (Spoilt, Lines)
        )
        assert spoilt == plain

    def test_without_a_loss_it_is_the_default(self) -> None:
        # No loss, nothing to measure.
        options = iMAMLOptions.Recommended(line(), Lines(target=0.0))
        assert options.InnerLearningRate == 0.01

    @pytest.mark.parametrize("given", [{}, {"AdaptationSteps": 4}, {"InnerLearningRate": 0.03}])
    def test_lambda_is_the_time_of_the_steps(self, given: dict[str, Any]) -> None:
        options = iMAMLOptions.Recommended(line(), Lines(), NumMetaIterations=5, **given)
        assert options.LambdaRegularization == 2 * options.AdaptationSteps * options.InnerLearningRate
        assert options.InnerObjective == "support"
        assert options.InnerLearningRate == given.get("InnerLearningRate", options.InnerLearningRate)


class TestOtherSettings:
    @pytest.mark.slow
    def test_of_more_batches_than_a_short_training_has_steps(self) -> None:
        class Batches(Lines):
            def GetNextTask(self) -> MetaLearningTask[np.float64, Any, Any]:
                task = super().GetNextTask()
                x, y = [task.SupportInput] * 20, [task.SupportOutput] * 20
                return MetaLearningTask(
                    SupportSetX=x,
                    SupportSetY=y,
                    QuerySetX=task.QueryInput,
                    QuerySetY=task.QueryOutput,
                    NumWays=1,
                    NumShots=4,
                )

        options = iMAMLOptions.Recommended(line(), Batches(), NumMetaIterations=2)
        assert options.AdaptationSteps == 32
        assert 0 < options.InnerLearningRate < 1

    @pytest.mark.slow
    def test_the_short_training_has_the_outer_rate_of_the_long_one(self) -> None:
        """By its schedule or its optimizer: at a rate near zero the curvature stays that of the start."""
        network, loader = sines_model(), SinusoidLoader(seed=0)
        given: list[dict[str, Any]] = [
            {},
            {"OuterLearningRate": 8.0, "OuterLearningRateSchedule": ConstantSchedule(1e-9)},
            {"MetaOptimizer": AdamOptimizer(1e-9)},
        ]
        trained, *slow = (
            iMAMLOptions.Recommended(network, loader, NumMetaIterations=100, MetaBatchSize=5, **some).InnerLearningRate
            for some in given
        )
        assert slow[0] == pytest.approx(slow[1], rel=1e-3) != pytest.approx(trained, rel=0.1)

    @pytest.mark.slow
    def test_of_a_regression(self) -> None:
        loader = Lines()
        options = iMAMLOptions.Recommended(line(), loader, NumMetaIterations=30)
        assert (options.OuterLearningRate, options.MetaBatchSize, options.Curvature) == (0.008, 25, "gauss-newton")
        assert options.AdaptationSteps == 32
        assert options.OuterLearningRateSchedule == CosineSchedule(30, final=0.1)
        assert options.DataLoader is loader

    def test_of_classes(self) -> None:
        generator = np.random.default_rng(0)
        x, y = generator.normal(size=(60, 3)).astype(np.float32), np.repeat(np.arange(6), 10)
        loader = UniformEpisodicDataLoader(x, y, nWay=3, kShot=2, queryShots=4, seed=0)
        network = NeuralNetworkModel(mlp(8, 3), input_shape=(3,), loss=CrossEntropyLoss(), seed=0)
        options = iMAMLOptions.Recommended(network, loader)
        assert (options.OuterLearningRate, options.MetaBatchSize, options.AdaptationSteps) == (0.003, 8, 16)
        assert iMAMLAlgorithm(options).MetaTrainStep(2).NumTasks == 2

    def test_given_options_hold(self) -> None:
        optimizer = AdamOptimizer(0.1)
        options = iMAMLOptions.Recommended(
            line(),
            Lines(),
            NumMetaIterations=5,
            MetaOptimizer=optimizer,
            MetaBatchSize=2,
            Curvature="hessian",
            OuterLearningRate=0.5,
        )
        assert (options.MetaBatchSize, options.Curvature, options.OuterLearningRate) == (2, "hessian", 0.5)
        assert options.MetaOptimizer is optimizer
        assert options.OuterLearningRateSchedule is None  # the optimizer's own rate holds
        assert options.IsValid()

    @pytest.mark.slow
    def test_of_a_model_that_is_not_traced(self) -> None:
        class Plain:
            """The model of lines, of which the library sees gradients alone."""

            def __init__(self, inner: Any) -> None:
                self._inner = inner

            def __getattr__(self, name: str) -> Any:
                if name in ("apply", "backend", "_inner"):
                    raise AttributeError(name)
                return getattr(self._inner, name)

            def WithParameters(self, parameters: Any) -> Plain:
                return Plain(self._inner.WithParameters(parameters))

            def Clone(self) -> Plain:
                return Plain(self._inner.Clone())

        plain: Any = Plain(line())
        options = iMAMLOptions.Recommended(plain, Lines(), NumMetaIterations=5)
        assert options.Curvature == "hessian"
        assert options.InnerLearningRate == pytest.approx(
            iMAMLOptions.Recommended(line(), Lines(), NumMetaIterations=5).InnerLearningRate, rel=1e-6
        )


class TestWhatItLeavesAlone:
    @pytest.mark.slow
    def test_model_and_loader(self) -> None:
        network, loader, other = sines_model(), SinusoidLoader(seed=0), SinusoidLoader(seed=0)
        before = network.GetParameters().copy()
        loader.GetTaskBatch(3)
        other.GetTaskBatch(3)
        iMAMLOptions.Recommended(network, loader, NumMetaIterations=5)
        np.testing.assert_array_equal(network.GetParameters(), before)
        np.testing.assert_array_equal(loader.GetNextTask().SupportInput, other.GetNextTask().SupportInput)

    def test_a_loader_without_a_state_is_copied(self) -> None:
        loader, other = Lines(), Lines()
        iMAMLOptions.Recommended(line(), loader, NumMetaIterations=5)
        np.testing.assert_array_equal(loader.GetNextTask().SupportInput, other.GetNextTask().SupportInput)

    @pytest.mark.slow
    def test_another_learner_goes_on_at_its_place(self) -> None:
        def second_loss(recommend: bool) -> float:
            loader = SinusoidLoader(seed=0)
            learner = iMAMLAlgorithm(iMAMLOptions(sines_model(), DataLoader=loader, InnerLearningRate=1e-3))
            learner.MetaTrainStep(2)
            if recommend:
                iMAMLOptions.Recommended(sines_model(1), loader, NumMetaIterations=5)
            return float(learner.MetaTrainStep(2).MetaLoss)

        assert second_loss(True) == second_loss(False)

    @pytest.mark.slow
    def test_equal_models_and_loaders_have_equal_options(self) -> None:
        first, second = (
            iMAMLOptions.Recommended(sines_model(), SinusoidLoader(seed=5), NumMetaIterations=5).InnerLearningRate
            for _ in range(2)
        )
        assert first == second


class TestWhatItRefuses:
    def test_nothing(self) -> None:
        with pytest.raises(ArgumentNullException, match="MetaModel must be a model, got None"):
            iMAMLOptions.Recommended(None, Lines())  # type: ignore[arg-type]
        with pytest.raises(ArgumentNullException, match="DataLoader must be a source of tasks, got None"):
            iMAMLOptions.Recommended(line(), None)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("LambdaRegularization", 1.0),
            ("InnerObjective", "proximal"),
            ("InnerOptimizer", LBFGSMinimizer()),
            ("LearnedLambda", "scalar"),
            ("ErrorConstants", None),
        ],
    )
    def test_what_it_sets_itself(self, name: str, value: Any) -> None:
        with pytest.raises(ArgumentException, match=f"{name} must be left to Recommended, .*, got"):
            iMAMLOptions.Recommended(line(), Lines(), **{name: value})

    def test_before_it_draws(self) -> None:
        class Untouched(Lines):
            def GetTaskBatch(self, numTasks: int) -> TaskBatch[np.float64, Any, Any]:
                raise AssertionError("drawn")

        with pytest.raises(ArgumentException, match="AdaptationSteps must be"):
            iMAMLOptions.Recommended(line(), Untouched(), AdaptationSteps=0)
        with pytest.raises(ArgumentException, match="DataLoader must be an IEpisodicDataLoader"):
            iMAMLOptions.Recommended(line(), GaussianClassificationMetaDataset(seed=0))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="did you mean 'AdaptationSteps'"):
            iMAMLOptions.Recommended(line(), Untouched(), AdaptionSteps=3)  # type: ignore[call-arg]

    def test_a_loader_that_cannot_be_copied(self) -> None:
        class Streaming(Lines):
            def __init__(self) -> None:
                super().__init__()
                self.tasks = (super(Streaming, self).GetNextTask() for _ in range(100))

        with pytest.raises(ArgumentException, match="DataLoader must have GetState and SetState, or be one that"):
            iMAMLOptions.Recommended(line(), Streaming())

    def test_tasks_that_do_not_fit(self) -> None:
        with pytest.raises(ArgumentException, match="SupportSetX of task 0 must have the model's dtype"):
            iMAMLOptions.Recommended(line(), SinusoidLoader(seed=0))

    def test_a_loss_that_is_not_finite(self) -> None:
        with pytest.raises(InvalidOperationException, match="not finite"):
            iMAMLOptions.Recommended(line(1e200), Lines())

    @pytest.mark.parametrize("lowered", [0.3, 30.0])
    def test_a_loss_that_becomes_negative(self, lowered: float) -> None:
        """As a likelihood's may, at the start or later: no rate is a share of it, but a given one needs none."""

        class Lowered(MeanSquaredErrorLoss[Any]):
            def formula(self, predicted: Any, actual: Any) -> Any:
                return super().formula(predicted, actual) - lowered

        with pytest.raises(ArgumentException, match=r"LossFunction must be at least 0 .* -.*; give InnerLearningRate"):
            iMAMLOptions.Recommended(line(), Lines(), LossFunction=Lowered())
        options = iMAMLOptions.Recommended(line(), Lines(), LossFunction=Lowered(), InnerLearningRate=0.01)
        assert options.LambdaRegularization == 2 * 32 * 0.01
