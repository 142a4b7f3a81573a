"""`check_algorithm`: it passes every algorithm that ships, and names the one defect of each broken one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import numpy as np
import pytest

from aidotnet_py import (
    AdamOptimizer,
    ANILAlgorithm,
    ArgumentException,
    BOILAlgorithm,
    InvalidOperationException,
    MAMLAlgorithm,
    MAMLOptions,
    MetaLearningTask,
    MetaSGDAlgorithm,
    NewtonCGMinimizer,
    ReptileAlgorithm,
    ReptileOptions,
    SGDOptimizer,
    iMAMLAlgorithm,
    iMAMLOptions,
)
from aidotnet_py.meta_learning.extend import InnerRule
from aidotnet_py.testing import check_algorithm

PROXIMAL = {"InnerObjective": "proximal", "LambdaRegularization": 0.5}
TIGHT = {
    "InnerOptimizer": NewtonCGMinimizer(gradient_tolerance=1e-12),
    "ConjugateGradientIterations": 60,
    "ConjugateGradientTolerance": 1e-14,
}
EXACT: dict[str, Callable[..., Any]] = {
    "MAML": MAMLAlgorithm,
    "MAML through Adam": lambda m, **o: MAMLAlgorithm(MAMLOptions(m, InnerOptimizer=AdamOptimizer(0.05), **o)),
    "MAML, proximal": lambda m, **o: MAMLAlgorithm(MAMLOptions(m, **PROXIMAL, **o)),
    "iMAML": lambda m, **o: iMAMLAlgorithm(iMAMLOptions(m, **PROXIMAL, **TIGHT, **o)),
    "iMAML, learned λ": lambda m, **o: iMAMLAlgorithm(
        iMAMLOptions(m, LearnedLambda="scalar", **PROXIMAL, **TIGHT, **o)
    ),
    "Meta-SGD": MetaSGDAlgorithm,
    "ANIL": ANILAlgorithm,
    "BOIL": BOILAlgorithm,
}
OTHERS: dict[str, Callable[..., Any]] = {
    "FOMAML": lambda m, **o: MAMLAlgorithm(MAMLOptions(m, UseFirstOrder=True, **o)),
    "iMAML, warm": lambda m, **o: iMAMLAlgorithm(iMAMLOptions(m, WarmStartSolves=True, PreconditionerProbes=2, **o)),
    "iMAML, Gauss-Newton": lambda m, **o: iMAMLAlgorithm(iMAMLOptions(m, Curvature="gauss-newton", **o)),
    "Reptile": ReptileAlgorithm,
}


# What other cases have too, or take longest.
SLOW = {
    *("MAML", "MAML, proximal", "MAML through Adam", "FOMAML", "ANIL", "BOIL", "Meta-SGD"),
    *("iMAML", "iMAML, learned λ", "iMAML, Gauss-Newton", "iMAML, warm"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in (*EXACT, *OTHERS)]
)
def test_each_algorithm_that_ships_passes(name: str) -> None:
    check_algorithm((EXACT | OTHERS)[name], exact=name in EXACT)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backend"), [("iMAML, warm", "strict"), ("Reptile", "simulated")])
def test_on_other_backends(name: str, backend: str) -> None:
    check_algorithm(OTHERS[name], exact=False, backend=backend)


@pytest.mark.slow
def test_reptile_one_task_at_a_time_is_no_mean() -> None:
    """By its definition, which says so; the suite sees it."""
    with pytest.raises(
        AssertionError, match=r"- steps: .*\n- the order of tasks: a step on the tasks in reverse order"
    ):
        check_algorithm(lambda m, **o: ReptileAlgorithm(ReptileOptions(m, UseSerialUpdate=True, **o)), exact=False)


# --- broken in one place ----------------------------------------------------------------------------------------------


class First(MAMLAlgorithm[Any, Any, Any]):
    """FOMAML, whose defects do not change what `meta_gradient` returns; to be passed with exact=False."""

    def meta_gradient(self, tasks: Any) -> Any:
        return tasks.query_gradient(tasks.adapt())


class WrongBody(MAMLAlgorithm[Any, Any, Any]):
    def meta_gradient(self, tasks: Any) -> Any:
        gradient, learned = super().meta_gradient(tasks)
        factors = np.ones(gradient.shape[-1], gradient.dtype)
        factors[:2] = 1.001
        return gradient * factors, learned


class Summed(MAMLAlgorithm[Any, Any, Any]):
    def meta_gradient(self, tasks: Any) -> Any:
        gradient, learned = super().meta_gradient(tasks)
        return gradient * 3.0, learned


class WrongRates(MetaSGDAlgorithm[Any, Any, Any]):
    def meta_gradient(self, tasks: Any) -> Any:
        gradient, learned = super().meta_gradient(tasks)
        return gradient, {"rates": -learned["rates"]}


class Uphill(First):
    def meta_gradient(self, tasks: Any) -> Any:
        return -super().meta_gradient(tasks)


class ByPlace(First):
    """The first task of a batch counts for more."""

    def meta_gradient(self, tasks: Any) -> Any:
        gradient = super().meta_gradient(tasks)
        return gradient * np.where(np.array(tasks.chunk.places) == 0, 2.0, 1.0)[:, None]


class AgainstEachOther(First):
    """Each task is compared with those beside it."""

    def meta_gradient(self, tasks: Any) -> Any:
        gradient = super().meta_gradient(tasks)
        return gradient / np.linalg.norm(gradient)


class LearnsInAdapt(First):
    def Adapt(self, task: Any) -> Any:
        adapted = super().Adapt(task)
        self.BaseModel.SetParameters(adapted.GetParameters())
        return adapted


class ShorterEachTime(First):
    """A rate that decays with every call, wherever it is called from."""

    calls = 0

    def inner_rule(self, tasks: Any) -> Any:
        self.calls += 1
        return InnerRule(SGDOptimizer(0.1 / self.calls))


class RemembersAdapt(First):
    """What `Adapt` left makes the next step another."""

    seen = 0

    def Adapt(self, task: Any) -> Any:
        self.seen += 1
        return super().Adapt(task)

    def meta_gradient(self, tasks: Any) -> Any:
        return super().meta_gradient(tasks) * (2.0 if self.seen else 1.0)


class WritesIntoTasks(First):
    def Adapt(self, task: Any) -> Any:
        task.SupportInput[...] /= np.abs(task.SupportInput).max()
        return super().Adapt(task)


class GivesTheModelItself(First):
    def Adapt(self, task: Any) -> Any:
        super().Adapt(task)
        return self.BaseModel


class GivesOneModel(First):
    def Adapt(self, task: Any) -> Any:
        adapted = super().Adapt(task)
        self.adapted = getattr(self, "adapted", adapted)
        self.adapted.SetParameters(adapted.GetParameters())
        return self.adapted


class LearnsFromQueries(First):
    def Adapt(self, task: Any) -> Any:
        if task.QueryInput is None:
            return super().Adapt(task)
        x, y = task.QueryInput, task.QueryOutput
        return super().Adapt(MetaLearningTask(SupportSetX=x, SupportSetY=y, NumWays=1))


class RequiresQueries(First):
    def Adapt(self, task: Any) -> Any:
        len(task.QueryInput)
        return super().Adapt(task)


class AdaptsFurther(First):
    """Than what is evaluated."""

    def Adapt(self, task: Any) -> Any:
        adapted = super().Adapt(task)
        return adapted.WithParameters(1.01 * adapted.GetParameters())


class KeepsTheTask(First):
    """In an attribute, where another thread finds it."""

    def Adapt(self, task: Any) -> Any:
        self.task = task
        time.sleep(0.002)
        return super().Adapt(self.task)


class DrawsByItself(First):
    def meta_gradient(self, tasks: Any) -> Any:
        return super().meta_gradient(tasks) * np.random.default_rng().uniform(1.0, 1.01)


class ForgetsInFiles(First):
    """A momentum that no file and no reset knows of."""

    steps = 0

    def MetaTrain(self, taskBatch: Any) -> Any:
        self.steps += 1
        return super().MetaTrain(taskBatch)

    def meta_gradient(self, tasks: Any) -> Any:
        return super().meta_gradient(tasks) * (1.0 + 0.1 * max(self.steps - 1, 0))


class GoesOn(First):
    def MetaTrain(self, taskBatch: Any) -> Any:
        try:
            return super().MetaTrain(taskBatch)
        except InvalidOperationException:
            return np.float64("nan")


class ReportsNaN(First):
    def report(self, details: Sequence[Any]) -> dict[str, float]:
        return {"Spread": float("nan")}


class NoEnum(First):
    AlgorithmType = "mine"  # type: ignore[assignment]


class InDouble(First):
    def meta_gradient(self, tasks: Any) -> Any:
        return super().meta_gradient(tasks).astype(np.float64)


class OtherLoss(First):
    def MetaTrain(self, taskBatch: Any) -> Any:
        return 2.0 * super().MetaTrain(taskBatch)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (WrongBody, r"fails 1 of 13 checks:\n- the meta-gradient: .* in '0_dense\.weight'; exact=False if it approx"),
        (Summed, r"fails 1 of 13 checks:\n- the meta-gradient: .*; it is 3 times the derivative$"),
        (WrongRates, r"fails 1 of 13 checks:\n- the meta-gradient: .* in 'rates';"),
        (First, r"fails 1 of 13 checks:\n- the meta-gradient: .*; exact=False if it approximates"),
    ],
)
def test_a_gradient_that_is_off_is_named(kind: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_algorithm(kind)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Uphill, r"fails 1 of 13 checks:\n- the meta-gradient: it must have a positive inner product .* got -"),
        (ByPlace, r"- the order of tasks: a step on the tasks in reverse order must be the step in their order to"),
        (
            AgainstEachOther,
            r"- tasks alone: the meta-gradient of a batch .*\n- micro-batches: .* MicroBatchSize=2 must",
        ),
        (LearnsInAdapt, r"- adaptation: Adapt: it must leave the learner as it was, got other bits of its parameters"),
        (RemembersAdapt, r"fails 1 of 13 .*\n- adaptation: a step after adaptations must have the bits of one without"),
        (KeepsTheTask, r"fails 1 of 13 .*\n- threads: Adapt on several threads must give the bits of one, got others"),
        (DrawsByItself, r"- equal learners: two steps of one learner must have the bits of those of another"),
        (GoesOn, r"fails 1 of 13 .*\n- a step that fails: a step on targets with a NaN must raise InvalidOperation"),
        (ReportsNaN, r"fails 1 of 13 .*\n- reports: report must return finite numbers by name, got 'Spread': nan"),
        (InDouble, r"fails 1 of 13 .*\n- float32: "),
        (OtherLoss, r"fails 1 of 13 .*\n- steps: the loss that MetaTrain returns must be that of Evaluate"),
        (
            ForgetsInFiles,
            r"- Save and Load: a step after Save and Load must have the bits of one that goes on, got others\n"
            r"- Reset: a step after Reset, from the first parameters, must have the bits of a new learner's first",
        ),
        (ShorterEachTime, r"- adaptation: Adapt must give the same bits when called again, got others"),
        (WritesIntoTasks, r"- adaptation: Adapt must leave the tasks' arrays alone, got other bits of them"),
        (
            GivesTheModelItself,
            r"fails 1 of 13 .*\n- adaptation: Adapt must return a new model of the model's class, got",
        ),
        (
            GivesOneModel,
            r"- adaptation: Adapt must return a model of its own each time, got one that the next call changed",
        ),
        (
            LearnsFromQueries,
            r"fails 1 of 13 .*\n- adaptation: Adapt must not read the query set, got another model without one",
        ),
        (
            RequiresQueries,
            r"fails 1 of 13 .*\n- adaptation: Adapt must not read the query set, which may be absent, got TypeError",
        ),
        (
            AdaptsFurther,
            r"fails 1 of 13 .*\n- adaptation: the query loss of Evaluate must be that of the model that Adapt returns",
        ),
        (NoEnum, r"- reports: AlgorithmType must be a member of an Enum, got 'mine'"),
    ],
)
def test_a_broken_learner_is_named(kind: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_algorithm(kind, exact=False)


def test_learners_that_are_none_are_refused() -> None:
    for algorithm, message in (
        (7, "algorithm must be a subclass of MetaLearnerBase or a callable, got 7"),
        (lambda model, **options: model, "algorithm must make a MetaLearnerBase, got a NeuralNetworkModel"),
    ):
        with pytest.raises(ArgumentException, match=message):
            check_algorithm(algorithm)  # type: ignore[arg-type]
    with pytest.raises(ArgumentException, match="exact must be"):
        check_algorithm(MAMLAlgorithm, exact=1)  # type: ignore[arg-type]


class Own(Enum):
    """What docs/algorithms.md does for an algorithm that AiDotNet does not know."""

    OWN = "Own"


def test_an_algorithm_of_ones_own_passes() -> None:
    class Mine(First):
        AlgorithmType = Own.OWN  # type: ignore[assignment]

    check_algorithm(Mine, exact=False)
