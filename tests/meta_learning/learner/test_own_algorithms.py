"""What an algorithm of one's own returns is checked before it is used; errors name the method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import Any

import numpy as np
import pytest

from aidotnet_py import ArgumentException, InvalidOperationException, NeuralNetworkModel, SGDOptimizer
from aidotnet_py.data import SinusoidLoader
from aidotnet_py.meta_learning.extend import InnerRule, Learned, MetaLearnerBase, MetaLearnerOptions, Tasks
from aidotnet_py.nn import mlp

BATCH = SinusoidLoader(seed=0).GetTaskBatch(3)
P = 13


class Own(Enum):
    Own = "Own"


def first_order(learner: Any, tasks: Tasks) -> Any:
    return tasks.query_gradient(tasks.adapt())


def one_vector(learner: Any) -> list[Learned]:
    return [Learned("a", (1.0, 2.0), size=2)]


def learner_with(**methods: Any) -> MetaLearnerBase[Any, Any, Any]:
    methods = {"AlgorithmType": Own.Own, "meta_gradient": first_order, **methods}
    model = NeuralNetworkModel(mlp(4, 1), input_shape=(1,), seed=0)
    return type("Mine", (MetaLearnerBase,), methods)(MetaLearnerOptions(model, DataLoader=SinusoidLoader(seed=0)))


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda g: g.mean(axis=0), r"float32\(13,\)"),
        (lambda g: g[:, :3], r"float32\(3, 3\)"),
        (lambda g: g.astype(np.float64), r"float64\(3, 13\)"),
        (lambda g: g.tolist(), "a list"),
        (lambda g: None, "a NoneType"),
        (lambda g: (g, {}, {}), "a tuple"),
    ],
)
def test_a_meta_gradient_must_have_a_row_of_all_parameters_for_each_task(
    change: Callable[[Any], Any], got: str
) -> None:
    learner = learner_with(meta_gradient=lambda self, tasks: change(np.array(first_order(self, tasks))))
    with pytest.raises(ArgumentException, match=rf"result of meta_gradient must be float32\(3, 13\).* got {got}"):
        learner.MetaTrain(BATCH)


def test_gradients_of_learned_vectors_must_have_their_names() -> None:
    learner = learner_with(learned=one_vector)
    with pytest.raises(ArgumentException, match=r"must have the names \['a'\], got \[\]"):
        learner.MetaTrain(BATCH)
    # Dropped in silence, it would look as if it were learned.
    learner = learner_with(meta_gradient=lambda self, tasks: (first_order(self, tasks), {"a": np.zeros((3, 2))}))
    with pytest.raises(ArgumentException, match=r"must have the names \[\], got \['a'\]"):
        learner.MetaTrain(BATCH)


def test_gradients_of_learned_vectors_must_have_their_shapes() -> None:
    def summed(self: Any, tasks: Tasks) -> Any:
        return first_order(self, tasks), {"a": np.zeros(2, np.float32)}

    with pytest.raises(ArgumentException, match=r"gradient of learned 'a' must be float32\(3, 2\)"):
        learner_with(learned=one_vector, meta_gradient=summed).MetaTrain(BATCH)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (["0_dense.wieght"], "did you mean '0_dense.weight'"),
        (["0_dense"], "names of the model's parameters"),
        ("0_dense.weight", "a collection of names"),
        ([], "at least one"),
    ],
)
def test_adapted_names_must_be_names_of_parameters(result: Any, message: str) -> None:
    with pytest.raises(ArgumentException, match=f"result of adapted_names must be .*{message}"):
        learner_with(adapted_names=lambda self, model: result).MetaTrain(BATCH)


@pytest.mark.parametrize("result", [None, SGDOptimizer(0.1)])
def test_an_inner_rule_must_be_one(result: Any) -> None:
    with pytest.raises(ArgumentException, match="result of inner_rule must be an InnerRule"):
        learner_with(inner_rule=lambda self, tasks: result).MetaTrain(BATCH)


def test_a_direction_must_have_the_shape_of_the_gradients() -> None:
    # It would broadcast: each parameter would move along the same number.
    rule = InnerRule(SGDOptimizer(0.1), lambda points, start, gradients: np.sum(gradients, axis=1, keepdims=True))
    with pytest.raises(ArgumentException, match="direction of an InnerRule must have the shape of the gradients"):
        learner_with(inner_rule=lambda self, tasks: rule).MetaTrain(BATCH)


class WithoutFormula:
    """An inner optimizer of a user's own, whose steps cannot be traced."""

    def UpdateParameters(self, parameters: Any, gradient: Any) -> Any:
        return parameters - 0.1 * gradient

    def Reset(self) -> None: ...

    def GetCurrentLearningRate(self) -> float:
        return 0.1

    def GetState(self) -> dict[str, Any]:
        return {}

    def SetState(self, state: Any) -> None: ...


@pytest.mark.parametrize(
    ("optimizer", "tolerance", "message"),
    [
        (WithoutFormula(), None, "the optimizer of the inner rule must be an ElementwiseOptimizer with a formula"),
        # Adapt stays at θ: the way back went through gradient descent instead, in silence.
        (lambda objective, theta: theta, None, "InnerOptimizer must take steps for adapt_with_path"),
        (None, 1e-3, "the tolerance of the inner rule must be None for adapt_with_path"),
    ],
)
def test_a_way_back_goes_through_the_steps_of_adapt(optimizer: Any, tolerance: float | None, message: str) -> None:
    learner = learner_with(
        meta_gradient=lambda self, tasks: tasks.adapt_with_path().end,
        inner_rule=lambda self, tasks: replace(MetaLearnerBase.inner_rule(self, tasks), tolerance=tolerance),
    )
    learner.Options.InnerOptimizer = optimizer
    with pytest.raises(ArgumentException, match=message):
        learner.MetaTrain(BATCH)


def unit_steps(points: Any, start: Any, gradients: Any) -> Any:
    return gradients / np.sqrt(0.1 + np.sum(gradients**2, axis=1, keepdims=True))


def test_a_direction_may_mix_the_entries_of_a_row() -> None:
    def exact(self: Any, tasks: Tasks) -> Any:
        path = tasks.adapt_with_path()
        return path.pull_back(tasks.query_gradient(path.end))

    rule = InnerRule(SGDOptimizer(0.1), unit_steps)
    learner = learner_with(inner_rule=lambda self, tasks: rule, meta_gradient=exact)
    learner.SetMetaModel(NeuralNetworkModel(mlp(4, 1), input_shape=(1,), seed=0, dtype=np.float64))
    batch, start = SinusoidLoader(seed=0, dtype=np.float64).GetTaskBatch(3), learner.GetParameters()
    along, losses = np.cos(np.arange(P)), []
    gradient = learner.mean_meta_gradient(batch).parameters
    for sign in (1, -1):
        learner.SetParameters(start + sign * 1e-6 * along)
        losses.append(learner.Evaluate(batch))
    assert gradient @ along == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-6)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "the result of report must be a mapping"),
        ({"a": "b"}, "'a' in the result of report must be a number"),
        ({"a": np.zeros(3)}, "'a' in the result of report must be a number"),
        ({1: 2.0}, "the names in the result of report must be strings"),
        ({"MetaGradientNorm": 5.0}, "other than MetaGradientNorm"),
        # In metrics.jsonl they took the place of the run's own, and no run went on from there.
        ({"Iteration": 5.0}, "which the base reports, got 'Iteration'"),
        ({"EvaluationLoss": 5.0}, "which the base reports, got 'EvaluationLoss'"),
    ],
)
def test_a_report_must_be_numbers_under_names_of_their_own(result: Any, message: str) -> None:
    with pytest.raises(ArgumentException, match=message):
        learner_with(report=lambda self, details: result).MetaTrainStep(2)


def test_a_report_may_hold_numbers_of_numpy_and_nan() -> None:
    report = {"a": np.float64(1), "b": np.array(2), "c": np.nan, "d": -(10**400)}
    step = learner_with(report=lambda self, details: report).MetaTrainStep(2)
    assert step.AdditionalMetrics["a"] == 1
    assert step.AdditionalMetrics["b"] == 2
    assert np.isnan(step.AdditionalMetrics["c"])
    assert step.AdditionalMetrics["d"] == -np.inf


@pytest.mark.parametrize("result", [Learned("a", 1.0), [1.0]])
def test_learned_must_return_a_sequence_of_learned(result: Any) -> None:
    with pytest.raises(ArgumentException, match="result of learned must be a sequence of Learned"):
        learner_with(learned=lambda self: result)


def test_two_learned_vectors_need_two_names() -> None:
    with pytest.raises(ArgumentException, match="names of learned vectors must differ"):
        learner_with(learned=lambda self: [*one_vector(self), *one_vector(self)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "", "start": 1.0}, "name must be a string"),
        ({"name": "a", "start": 1.0, "size": 0}, "size must be"),
        ({"name": "a", "start": float("nan")}, "start must be a finite number"),
        ({"name": "a", "start": "1"}, "start must be a finite number"),
        ({"name": "a", "start": (1.0, 2.0, 3.0), "size": 2}, "start must be a number or as many as size, 2, got 3"),
    ],
)
def test_a_learned_vector_is_checked_when_made(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentException, match=message):
        Learned(**arguments)


def test_a_start_must_have_as_many_numbers_as_there_are_parameters() -> None:
    with pytest.raises(ArgumentException, match=f"start of 'a' must be a number or as many as the parameters, {P}"):
        learner_with(learned=lambda self: [Learned("a", (1.0, 2.0))])


@pytest.mark.parametrize(
    "use",
    [
        lambda tasks, row: tasks.query_gradient(row),
        lambda tasks, row: tasks.support_gradient(row),
        lambda tasks, row: tasks.curvature(row),
        lambda tasks, row: tasks.adapt_with_path().pull_back(row),
    ],
)
@pytest.mark.parametrize("like", [np.zeros(P, np.float32), np.zeros((3, P)), np.zeros((3, 2), np.float32)])
def test_points_must_have_a_row_for_each_task(use: Callable[[Tasks, Any], Any], like: Any) -> None:
    with pytest.raises(ArgumentException, match=r"(points|v) must be float32\(3, 13\)"):
        learner_with(meta_gradient=lambda self, tasks: use(tasks, like)).MetaTrain(BATCH)


def test_a_kind_of_curvature_and_segments_must_be_known() -> None:
    # Any kind but "gauss-newton" was taken for the Hessian.
    with pytest.raises(ArgumentException, match="kind must be 'hessian' or 'gauss-newton', got 'gn'"):
        learner_with(meta_gradient=lambda self, tasks: tasks.curvature(tasks.adapt(), "gn")[0]).MetaTrain(BATCH)
    with pytest.raises(ArgumentException, match="segments must be None, 'sqrt'"):
        learner_with(meta_gradient=lambda self, tasks: tasks.adapt_with_path("sqr").end).MetaTrain(BATCH)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda tasks: tasks.start * 0, "must call tasks.adapt"),
        (lambda tasks: tasks.query_losses(), "must call tasks.adapt"),
        (lambda tasks: tasks.memory, "inner steps must have begun"),
        (lambda tasks: tasks.reached, "inner steps must have begun"),
    ],
)
def test_members_that_need_a_call_before_say_which(use: Callable[[Tasks], Any], message: str) -> None:
    with pytest.raises(InvalidOperationException, match=message):
        learner_with(meta_gradient=lambda self, tasks: use(tasks)).MetaTrain(BATCH)


def test_a_misspelt_attribute_of_the_tasks_is_refused() -> None:
    def meta_gradient(self: Any, tasks: Tasks) -> Any:
        setattr(tasks, "detials", 1)  # noqa: B010 -- a type checker would find it
        return first_order(self, tasks)

    with pytest.raises(AttributeError, match="no attribute 'detials'"):
        learner_with(meta_gradient=meta_gradient).MetaTrain(BATCH)
