"""Options: the documented defaults, which values are refused and how, and that they are read when used."""

from __future__ import annotations

import copy
import dataclasses
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from imaml_reference import (
    adam,
    batch_on,
    dense,
    descent,
    first_order,
    linear_model,
    linear_tasks,
    meta_gradient,
    series,
    start,
)
from numpy.typing import NDArray

from aidotnet_py import (
    AdamOptimizer,
    ANILAlgorithm,
    ANILOptions,
    ArgumentException,
    ArgumentNullException,
    ArgumentOutOfRangeException,
    BOILOptions,
    CrossEntropyLoss,
    FunctionModel,
    InvalidOperationException,
    MAMLOptions,
    MeanSquaredErrorLoss,
    MetaLearnerOptions,
    NeuralNetworkModel,
    ReptileOptions,
    SGDOptimizer,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.backends import Backend, get_backend
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.meta_learning.algorithms.imaml.keywords import PaperKeywords
from aidotnet_py.nn import mlp

DOCUMENTED = {
    "LossFunction": None,
    "MetaOptimizer": None,
    "InnerOptimizer": None,
    "DataLoader": None,
    "InnerLearningRate": 0.01,
    "OuterLearningRate": 0.001,
    "ValidationLoader": None,
    "Executor": None,
    "OuterLearningRateSchedule": None,
    "EarlyStoppingPatience": None,
    "MicroBatchSize": None,
    "AdaptationSteps": 10,
    "MetaBatchSize": 4,
    "NumMetaIterations": 1000,
    "GradientClipThreshold": 10.0,
    "RandomSeed": None,
    "EvaluationTasks": 100,
    "EvaluationFrequency": 100,
    "EnableCheckpointing": False,
    "CheckpointFrequency": 500,
    "UseFirstOrder": False,
    "LambdaRegularization": 1.0,
    "ConjugateGradientIterations": 10,
    "ConjugateGradientTolerance": 1e-10,
    "UseNeumannApproximation": False,
    "NeumannSeriesTerms": 5,
    "InnerObjective": "support",
    "ConjugateGradientDamping": 0.0,
    "Curvature": "hessian",
    "InnerGradientTolerance": None,
    "LearnedLambda": None,
    "WarmStartSolves": False,
    "PreconditionerProbes": 0,
    "ErrorConstants": None,
}
RATES = ("InnerLearningRate", "OuterLearningRate")
COUNTS = (
    *("AdaptationSteps", "MetaBatchSize", "NumMetaIterations", "EvaluationTasks"),
    *("ConjugateGradientIterations", "NeumannSeriesTerms"),
)
FREQUENCIES = ("EvaluationFrequency", "CheckpointFrequency")
WEIGHTS = ("LambdaRegularization", "ConjugateGradientDamping")
SWITCHES = ("EnableCheckpointing", "UseFirstOrder", "UseNeumannApproximation")
OBJECTS = {
    "LossFunction": "ILossFunction",
    "MetaOptimizer": "IGradientBasedOptimizer",
    "InnerOptimizer": "IGradientBasedOptimizer",
    "DataLoader": "IEpisodicDataLoader",
    "ValidationLoader": "IEpisodicDataLoader",
}


def model() -> FunctionModel[np.float64, NDArray[Any], NDArray[Any]]:
    return linear_model(get_backend("numpy"), start())


def test_defaults_are_the_documented_ones() -> None:
    options = iMAMLOptions(model())
    assert {
        f.name: getattr(options, f.name) for f in dataclasses.fields(options) if f.name != "MetaModel"
    } == DOCUMENTED
    assert options.IsValid()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            (name, value)
            for name in RATES
            for value in (0, 0.0, -0.1, math.nan, math.inf, -math.inf, True, "0.1", None)
        ),
        *((name, value) for name in COUNTS for value in (0, -1, 1.0, 2.5, math.nan, math.inf, True, "3", None)),
        *((name, value) for name in FREQUENCIES for value in (-1, 1.0, 2.5, math.nan, math.inf, True, "3", None)),
        *((name, value) for name in WEIGHTS for value in (-1e-9, math.nan, math.inf, True, "1", None, 1j)),
        *(("ConjugateGradientTolerance", value) for value in (0.0, 1.0, 1.5, -0.1, math.nan, math.inf, True, None)),
        *(("GradientClipThreshold", value) for value in (math.nan, math.inf, -math.inf, True, "10")),
        *(("RandomSeed", value) for value in (1.5, True, False, "seed", math.nan)),
        *((name, value) for name in SWITCHES for value in (0, 1, "yes", None)),
        *(("InnerObjective", value) for value in ("Proximal", "query", None, 1)),
        *(("Curvature", value) for value in ("Hessian", "gauss_newton", None)),
        *((name, 10**400) for name in (*RATES, *COUNTS, *FREQUENCIES, *WEIGHTS)),
    ],
)
def test_invalid_values_are_refused_by_name(name: str, value: Any) -> None:
    options = iMAMLOptions(model(), **{name: value})
    assert not options.IsValid()
    with pytest.raises(ArgumentException, match=rf"^{name} must be .*, got .*$"):
        iMAMLAlgorithm(options)


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_of_the_wrong_kind_are_refused_with_what_they_lack(name: str) -> None:
    options = iMAMLOptions(model(), **{name: object()})
    assert not options.IsValid()
    with pytest.raises(
        ArgumentException, match=rf"^{name} must be an {OBJECTS[name]}, got a object, which lacks .*, .*$"
    ):
        iMAMLAlgorithm(options)


@pytest.mark.parametrize(("name", "value"), [("MetaOptimizer", AdamOptimizer), ("LossFunction", MeanSquaredErrorLoss)])
def test_a_class_is_no_object_of_it(name: str, value: Any) -> None:
    with pytest.raises(
        ArgumentException, match=rf"{name} must be an I\w+, got the class {value.__name__}; use an object of it"
    ):
        iMAMLAlgorithm(iMAMLOptions(model(), **{name: value}))


def test_a_model_of_the_wrong_kind() -> None:
    with pytest.raises(
        ArgumentException, match=r"MetaModel must be an IFullModel, got a ndarray, which lacks Clone, .*Predict.*"
    ):
        iMAMLAlgorithm(iMAMLOptions(np.zeros(3)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in RATES for value in (np.float32(0.1), Fraction(1, 3), 2, np.int64(1), 1e-300)),
        *((name, value) for name in COUNTS for value in (np.int64(3), np.uint8(2), 10**6)),
        *((name, value) for name in FREQUENCIES for value in (0, np.int64(3), 10**6)),
        *((name, value) for name in WEIGHTS for value in (0, 0.0, np.float32(2.0), Fraction(1, 2))),
        *(("GradientClipThreshold", value) for value in (None, 0, -1, 1e-9, np.float32(3.0))),
        *(("RandomSeed", value) for value in (None, 0, np.int64(0), 2**32, -1, -(2**40))),
        *((name, value) for name in SWITCHES for value in (np.True_, False)),
    ],
)
def test_whatever_means_a_valid_value_is_taken(name: str, value: Any) -> None:
    options = iMAMLOptions(model(), **({"LambdaRegularization": 0.1} | {name: value}))
    assert options.IsValid()
    # Step 256 of a run was one too many for a frequency in eight bits, and AdaptationSteps for a compiled chain.
    plain: Any = getattr(options, name)
    assert type(plain) in (bool, int, float, type(None))
    assert plain is value or plain == type(plain)(value)
    backend = get_backend("numpy")
    if name not in ("OuterLearningRate", "InnerLearningRate", "NumMetaIterations", "AdaptationSteps"):
        learner = iMAMLAlgorithm(options)
        learner.MetaTrain(batch_on(backend, linear_tasks(2)))
        assert learner.BaseModel.GetParameters().dtype == np.float64


@given(st.floats() | st.integers() | st.booleans() | st.none() | st.text(max_size=3))
def test_is_valid_never_raises(value: Any) -> None:
    options = iMAMLOptions(model())
    for name in DOCUMENTED:
        setattr(options, name, value)
        assert options.IsValid() in (True, False)
        setattr(options, name, DOCUMENTED[name])


class TestConstruction:
    def test_no_model(self) -> None:
        for cls in (iMAMLOptions, MetaLearnerOptions):
            with pytest.raises(ArgumentNullException, match="MetaModel must be a model, got None"):
                cls(None)
            with pytest.raises(TypeError, match="MetaModel"):
                cls()

    def test_all_but_the_model_are_keywords(self) -> None:
        with pytest.raises(TypeError, match="positional"):
            iMAMLOptions(model(), CrossEntropyLoss())  # type: ignore[misc]

    @pytest.mark.parametrize(
        ("slip", "meant"),
        [
            ("AdaptionSteps", "AdaptationSteps"),
            ("adaptation_steps", "AdaptationSteps"),
            ("lambdaRegularization", "LambdaRegularization"),
            ("inner_lr", "InnerLearningRate"),
            ("meta_lr", "OuterLearningRate"),
            ("inner_steps", "AdaptationSteps"),
            ("cg_steps", "ConjugateGradientIterations"),
            ("max_grad_norm", "GradientClipThreshold"),
            ("eval_every", "EvaluationFrequency"),
            ("UseFirstOder", "UseFirstOrder"),
            ("ConjugateGradientTol", "ConjugateGradientTolerance"),
        ],
    )
    def test_a_misspelt_keyword(self, slip: str, meant: str) -> None:
        with pytest.raises(TypeError, match=f"iMAMLOptions has no option '{slip}'; did you mean '{meant}'?"):
            iMAMLOptions(model(), **{slip: 1})

    @pytest.mark.parametrize(
        ("kind", "slip", "hint"),
        [
            (iMAMLOptions, "Lambda", "LambdaRegularization is 1/λ"),
            (MAMLOptions, "AdaptedLayers", "ANILOptions and BOILOptions have it"),
            (iMAMLOptions, "CheckpointSegments", "have it"),
            (MAMLOptions, "LearnedLambda", "; iMAMLOptions has it"),
            (ReptileOptions, "UseFirstOrder", "have it"),
        ],
    )
    def test_an_option_of_another_algorithm(self, kind: Any, slip: str, hint: str) -> None:
        with pytest.raises(TypeError, match=f"{kind.__name__} has no option '{slip}'.*{hint}"):
            kind(model(), **{slip: 1})

    def test_a_misspelt_attribute(self) -> None:
        options = iMAMLOptions(model())
        with pytest.raises(AttributeError, match=r"has no option 'AdaptionSteps'; did you mean 'AdaptationSteps'\?"):
            options.AdaptionSteps = 3  # type: ignore[attr-defined]
        with pytest.raises(
            AttributeError, match=r"has no option 'xyzzy'; it has MetaModel, LossFunction, .*ErrorConstants$"
        ):
            options.xyzzy = 3  # type: ignore[attr-defined]

    def test_algorithm_options_are_unknown_to_the_general_ones(self) -> None:
        with pytest.raises(TypeError, match="MetaLearnerOptions has no option 'UseFirstOrder'"):
            MetaLearnerOptions(model(), UseFirstOrder=True)  # type: ignore[call-arg]

    def test_with_type_arguments(self) -> None:
        options = iMAMLOptions[np.float64, NDArray[Any], NDArray[Any]](model(), AdaptationSteps=2)
        assert options.AdaptationSteps == 2

    def test_clone_is_independent(self) -> None:
        options = iMAMLOptions(model(), AdaptationSteps=3, MetaOptimizer=SGDOptimizer(0.1))
        other = options.Clone()
        assert type(other) is iMAMLOptions
        assert other.MetaModel is options.MetaModel
        assert other.MetaOptimizer is options.MetaOptimizer
        other.AdaptationSteps = 7
        options.LambdaRegularization = 5.0
        assert (options.AdaptationSteps, other.AdaptationSteps) == (3, 7)
        assert other.LambdaRegularization == 1.0

    def test_clone_has_lists_of_its_own(self) -> None:
        names = ["a"]
        options = BOILOptions(FunctionModel(lambda p, x: x @ p["a"] @ p["b"], dict.fromkeys("abc", np.eye(2))))
        options.AdaptedLayers = names
        other = options.Clone()
        assert isinstance(other.AdaptedLayers, list)
        other.AdaptedLayers.append("b")
        assert options.AdaptedLayers is names
        assert names == ["a"]


class TestFromPaper:
    @given(st.floats(1e-3, 1e3))
    def test_lambda_is_the_inverse(self, strength: float) -> None:
        options = iMAMLOptions.FromPaper(model(), Lambda=strength)
        assert options.LambdaRegularization == 1 / strength
        assert options.InnerObjective == "proximal"
        assert options.IsValid()

    def test_other_options_pass_through(self) -> None:
        assert iMAMLOptions.FromPaper(model(), AdaptationSteps=3).AdaptationSteps == 3
        assert iMAMLOptions.FromPaper(model()).LambdaRegularization == 0.5
        with pytest.raises(TypeError, match="did you mean 'AdaptationSteps'"):
            iMAMLOptions.FromPaper(model(), AdaptionSteps=3)  # type: ignore[call-arg]

    def test_zero_is_the_original_loss(self) -> None:
        options = iMAMLOptions.FromPaper(model(), Lambda=0, AdaptationSteps=3)
        assert (options.InnerObjective, options.UseFirstOrder, options.AdaptationSteps) == ("support", True, 3)
        assert options.IsValid()
        assert iMAMLOptions.FromPaper(model(), Lambda=0, UseFirstOrder=True).UseFirstOrder is True
        with pytest.raises(ArgumentException, match=r"^UseFirstOrder must be True or left out .*, got False"):
            iMAMLOptions.FromPaper(model(), Lambda=0, UseFirstOrder=False)

    def test_keywords_are_all_options_but_those_that_lambda_sets(self) -> None:
        names = {field.name for field in dataclasses.fields(iMAMLOptions)}
        assert set(PaperKeywords.__annotations__) == names - {"MetaModel", "LambdaRegularization", "InnerObjective"}

    @pytest.mark.parametrize("bad", [-2.0, math.nan, math.inf, True, "2", None])
    def test_senseless_lambdas(self, bad: Any) -> None:
        with pytest.raises(ArgumentOutOfRangeException, match=r"^Lambda must be a finite number of at least 0, got .*"):
            iMAMLOptions.FromPaper(model(), Lambda=bad)

    @pytest.mark.parametrize("name", ["LambdaRegularization", "InnerObjective"])
    def test_what_it_sets_itself(self, name: str) -> None:
        with pytest.raises(ArgumentException, match=f"{name} must be left to FromPaper, which sets it from Lambda"):
            iMAMLOptions.FromPaper(model(), **{name: 1.0})


def test_proximal_with_lambda_zero() -> None:
    options = iMAMLOptions(model(), InnerObjective="proximal", LambdaRegularization=0.0)
    with pytest.raises(
        ArgumentException,
        match="LambdaRegularization must be above 0 for InnerObjective 'proximal', which divides by it, got 0",
    ):
        iMAMLAlgorithm(options)
    options.InnerObjective = "support"
    assert options.IsValid()


class TestTheLearner:
    def test_no_options_and_no_model(self) -> None:
        with pytest.raises(ArgumentNullException, match="options must be iMAMLOptions, got None"):
            iMAMLAlgorithm(None)  # type: ignore[arg-type]
        options = iMAMLOptions(model())
        options.MetaModel = None  # type: ignore[assignment]
        with pytest.raises(InvalidOperationException, match="MetaModel of the options must be a model, got None"):
            iMAMLAlgorithm(options)

    def test_options_of_another_kind(self) -> None:
        with pytest.raises(ArgumentException, match="options must be iMAMLOptions, got a dict"):
            iMAMLAlgorithm({"MetaModel": model()})  # type: ignore[arg-type]
        with pytest.raises(ArgumentException, match="options must be iMAMLOptions, got a MetaLearnerOptions"):
            iMAMLAlgorithm(MetaLearnerOptions(model()))  # type: ignore[arg-type]

    @pytest.mark.parametrize("call", ["MetaTrain", "Adapt", "Evaluate", "AdaptAndEvaluate", "MetaTrainStep", "Train"])
    def test_options_are_checked_at_each_call(self, call: str) -> None:
        backend = get_backend("numpy")
        learner = iMAMLAlgorithm(iMAMLOptions(model(), DataLoader=SinusoidLoader(seed=0)))
        before = learner.BaseModel.GetParameters()
        learner.Options.InnerLearningRate = math.nan
        batch = batch_on(backend, linear_tasks())
        arguments: dict[str, Any] = {"Adapt": batch[0], "AdaptAndEvaluate": batch[0], "MetaTrainStep": 2}
        with pytest.raises(ArgumentException, match="InnerLearningRate must be a finite number above 0, got nan"):
            getattr(learner, call)(*([] if call == "Train" else [arguments.get(call, batch)]))
        np.testing.assert_array_equal(learner.BaseModel.GetParameters(), before)

    def test_properties_follow_the_options(self) -> None:
        learner = iMAMLAlgorithm(iMAMLOptions(model()))
        assert (learner.InnerLearningRate, learner.OuterLearningRate, learner.AdaptationSteps) == (0.01, 0.001, 10)
        learner.Options.InnerLearningRate, learner.Options.OuterLearningRate = 0.2, 0.3
        learner.Options.AdaptationSteps = 2
        assert (learner.InnerLearningRate, learner.OuterLearningRate, learner.AdaptationSteps) == (0.2, 0.3, 2)
        learner.Options.InnerOptimizer, learner.Options.MetaOptimizer = AdamOptimizer(0.4), SGDOptimizer(0.5)
        assert (learner.InnerLearningRate, learner.OuterLearningRate) == (0.4, 0.5)


@pytest.mark.numpy_first
def test_options_are_read_when_used(backend: Backend) -> None:
    """Each step under other options, and each by the closed form of the options of its own time."""
    learner = iMAMLAlgorithm(iMAMLOptions(linear_model(backend, start()), GradientClipThreshold=None))
    tasks, theta = linear_tasks(), start()
    changes: list[tuple[dict[str, Any], Any, int, float, float]] = [
        ({"MetaOptimizer": SGDOptimizer(0.1), "InnerLearningRate": 0.1, "AdaptationSteps": 3}, dense(1.0), 3, 0.1, 0),
        ({"LambdaRegularization": 0.2}, dense(0.2), 3, 0.1, 0),
        ({"InnerLearningRate": 0.2}, dense(0.2), 3, 0.2, 0),
        ({"AdaptationSteps": 8}, dense(0.2), 8, 0.2, 0),
        ({"InnerObjective": "proximal"}, dense(0.2), 8, 0.1, 5),
        ({"UseFirstOrder": True}, first_order, 8, 0.1, 5),
        ({"UseFirstOrder": False, "UseNeumannApproximation": True}, series(0.2, 5), 8, 0.1, 5),
        ({"UseNeumannApproximation": False, "ConjugateGradientDamping": 1.0}, dense(0.2, 1.0), 8, 0.1, 5),
    ]
    for options, solve, steps, rate, proximal in changes:
        for name, value in {**options, "InnerLearningRate": rate}.items():
            setattr(learner.Options, name, value)
        adapted = [descent(theta, task.support, steps, rate, proximal) for task in tasks]
        theta = theta - 0.1 * meta_gradient(adapted, tasks, solve)
        learner.MetaTrain(batch_on(backend, tasks))
        found = backend.to_numpy(learner.BaseModel.GetParameters())
        np.testing.assert_allclose(found, theta, rtol=1e-10, atol=1e-10)


def test_the_loss_is_read_when_used(backend: Backend) -> None:
    class Doubled(MeanSquaredErrorLoss[Any]):
        def formula(self, predicted: Any, actual: Any) -> Any:
            return 2.0 * super().formula(predicted, actual)

    learner, batch = iMAMLAlgorithm(iMAMLOptions(linear_model(backend, start()))), batch_on(backend, linear_tasks())
    # Twice the loss at half the rate takes the same steps.
    before = learner.Evaluate(batch)
    learner.Options.LossFunction, learner.Options.InnerLearningRate = Doubled(), 0.005
    np.testing.assert_allclose(learner.Evaluate(batch), 2 * before, rtol=1e-12)


@pytest.mark.numpy_first
def test_adam_keeps_its_moments_when_its_rate_changes(backend: Backend) -> None:
    learner = iMAMLAlgorithm(
        iMAMLOptions(linear_model(backend, start()), AdaptationSteps=2, InnerLearningRate=0.1, OuterLearningRate=0.05)
    )
    tasks, theta, moments = linear_tasks(), start(), adam(1.0)
    for t, rate in enumerate((0.05, 0.05, 0.2, 0.01), start=1):
        learner.Options.OuterLearningRate = rate
        assert learner.OuterLearningRate == rate
        gradient = meta_gradient([descent(theta, x.support, 2, 0.1) for x in tasks], tasks, dense(1.0))
        theta = theta + rate * (moments(theta, gradient, t) - theta)
        learner.MetaTrain(batch_on(backend, tasks))
        found = backend.to_numpy(learner.BaseModel.GetParameters())
        np.testing.assert_allclose(found, theta, rtol=1e-10, atol=1e-10)


def test_options_that_become_wrong_are_refused_at_the_next_step() -> None:
    model = NeuralNetworkModel(mlp(3, 1), input_shape=(1,), seed=0)
    layers = ["2_dense"]
    learner = ANILAlgorithm(ANILOptions(model, AdaptedLayers=layers))
    loader = SinusoidLoader(KShot=5, QueryShots=5, seed=0)
    task = loader.GetNextTask()
    for _ in range(2):
        learner.Adapt(task)
    learner.Options.InnerLearningRate = -1.0
    with pytest.raises(ArgumentException, match=r"InnerLearningRate must be a finite number above 0, got -1\.0"):
        learner.Adapt(task)
    learner.Options.InnerLearningRate = 0.1
    learner.Adapt(task)
    # Changed in place, where no setting of an option tells of it.
    layers[0] = "nowhere"
    with pytest.raises(ArgumentException, match="AdaptedLayers"):
        learner.Adapt(task)


class TestTheVerdict:
    """It is remembered, since every step asks for it, and forgotten when an option is set."""

    class _Counting(iMAMLOptions[Any, Any, Any]):
        looks = 0

        def invalid(self) -> Any:
            type(self).looks += 1
            yield from super().invalid()

    def test_it_is_remembered_until_an_option_is_set(self) -> None:
        options = self._Counting(model())
        before = self._Counting.looks
        for _ in range(3):
            assert options.IsValid()
        assert self._Counting.looks == before + 1
        options.AdaptationSteps = 0
        for _ in range(3):
            assert not options.IsValid()
        assert self._Counting.looks == before + 2
        options.AdaptationSteps = 1
        assert options.IsValid()

    @pytest.mark.parametrize("duplicate", [copy.copy, lambda options: options.Clone()])
    def test_copies_have_verdicts_of_their_own(self, duplicate: Any) -> None:
        options = iMAMLOptions(model())
        assert options.IsValid()
        other = duplicate(options)
        other.AdaptationSteps = -1
        assert (options.IsValid(), other.IsValid()) == (True, False)
        options.InnerLearningRate = -1.0
        other.AdaptationSteps = 1
        assert (options.IsValid(), other.IsValid()) == (False, True)

    def test_an_option_set_while_the_others_are_looked_at(self) -> None:
        class _Slow(iMAMLOptions[Any, Any, Any]):
            def invalid(self) -> Any:
                yield from super().invalid()
                if self.AdaptationSteps == 10:
                    # As another thread may.
                    self.AdaptationSteps = -1

        options = _Slow(model())
        assert options.IsValid()
        assert not options.IsValid()

    def test_no_description_or_field_tells_of_it(self) -> None:
        options = iMAMLOptions(model())
        before = options.settings(), dataclasses.asdict(options).keys(), repr(options)
        assert options.IsValid()
        assert (options.settings(), dataclasses.asdict(options).keys(), repr(options)) == before
