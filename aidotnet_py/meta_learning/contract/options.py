"""Options that every algorithm has, and how misspelt or impossible ones are told."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Generic, Literal, Self

import numpy as np
from typing_extensions import TypeVar

from aidotnet_py.descriptions import Described, describe, differences
from aidotnet_py.exceptions import ArgumentNullException
from aidotnet_py.losses import ILossFunction
from aidotnet_py.meta_learning.contract.protocols import is_inner_solver, missing_members
from aidotnet_py.meta_learning.contract.sources import IEpisodicDataLoader
from aidotnet_py.models import IFullModel
from aidotnet_py.optimizers import IGradientBasedOptimizer, InnerSolver, RowMinimizer
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["MetaLearnerOptions", "ProximalOptions", "is_count", "is_rate", "number_of", "with_suggestions"]

C = TypeVar("C", bound=type[Any])

# How long Train goes on, and when it evaluates and saves.
_OF_THE_RUN = frozenset(
    ("NumMetaIterations", "EvaluationTasks", "EvaluationFrequency", "EnableCheckpointing", "CheckpointFrequency")
)
_OF_LOADERS = ("NWay", "KShot", "QueryShots", "AvailableClasses")


def with_suggestions(cls: C) -> C:
    """Let a dataclass answer a misspelt option with the nearest name that it has."""
    names = [field.name for field in dataclasses.fields(cls)]
    original: Callable[..., None] = cls.__init__

    @functools.wraps(original)
    def checked(self: Any, *args: Any, **options: Any) -> None:
        for name in options:
            if name not in names:
                raise TypeError(f"{cls.__name__} has no option {name!r}{_suggestion(name, names)}")
        original(self, *args, **options)

    cls.__init__ = checked
    return cls


def _suggestion(name: str, names: list[str]) -> str:
    # Compared in lower case: a C# or snake_case habit is the likeliest slip.
    by_lower = {n.lower(): n for n in names}
    slip = name.lower().replace("_", "")
    begun = [n for lower, n in by_lower.items() if len(slip) > 3 and lower.startswith(slip)]
    near = begun or [by_lower[n] for n in get_close_matches(slip, by_lower, n=1, cutoff=0.75)]
    elsewhere = [kind.__name__ for kind in _all_options() if name in {f.name for f in dataclasses.fields(kind)}]
    if not near and elsewhere:
        return f"; {' and '.join(elsewhere)} {'have' if len(elsewhere) > 1 else 'has'} it"
    near = near or [by_lower[n] for n in get_close_matches(slip, by_lower, n=1, cutoff=0.5)]
    return f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(names)}"


def _all_options() -> list[type[Any]]:
    """The options of all algorithms that there are names for."""
    found: list[type[Any]] = []
    waiting: list[type[Any]] = [MetaLearnerOptions]
    while waiting:
        kind = waiting.pop(0)
        waiting += kind.__subclasses__()
        if dataclasses.is_dataclass(kind) and not kind.__name__.startswith("_") and kind not in found:
            found.append(kind)
    return found


def number_of(value: object) -> float:
    """A real number as a float; NaN for what is none, booleans included."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def is_rate(value: object) -> bool:
    """Whether a value is a finite number above 0."""
    return 0 < number_of(value) < math.inf


def is_count(value: object) -> bool:
    """Whether a value is a whole number above 0."""
    return isinstance(value, Integral) and is_rate(value)


@with_suggestions
@dataclass(eq=False)
class MetaLearnerOptions(Described, Generic[T, TInput, TOutput]):
    """What every meta-learning algorithm can be told; read when used, so they can be changed between steps.

    Parameters
    ----------
    MetaModel : IFullModel
        The model whose parameters are learned. Required.
    LossFunction : ILossFunction, optional
        None: the model's DefaultLossFunction.
    MetaOptimizer : IGradientBasedOptimizer, optional
        None: Adam at OuterLearningRate. Otherwise its own rate holds. It is not changed: what it remembers is kept for
        each learner, by its GetState and SetState.
    InnerOptimizer : IGradientBasedOptimizer, InnerSolver or RowMinimizer, optional
        None: gradient descent at InnerLearningRate. Otherwise its own rate holds, with fresh state for each task. A
        solver, any callable (objective, θ) → φ, takes the place of all inner steps; it may be called for several
        tasks at the same time, in threads.
    DataLoader : IEpisodicDataLoader, optional
        Where Train, MetaTrainStep and Evaluate(numTasks) draw tasks from. Learners that share one with GetState and
        SetState do not move each other's draws.
    InnerLearningRate, OuterLearningRate : float
        Steps of adaptation and of meta-training, > 0.
    AdaptationSteps : int
        K, the number of inner steps, > 0.
    MetaBatchSize : int
        Tasks a step of Train, > 0.
    NumMetaIterations : int
        Steps of Train, > 0.
    GradientClipThreshold : float or None
        Largest global norm of the meta-gradient; None or ≤ 0: no limit.
    RandomSeed : int, optional
        Seeds the learner's random numbers and its draws from the DataLoader; None: those begin where the loader is.
    EvaluationTasks, EvaluationFrequency : int
        Train evaluates this many tasks, every so many steps.
    EnableCheckpointing : bool
        Whether Train saves the learner.
    CheckpointFrequency : int
        Every how many steps.

    Raises
    ------
    ArgumentNullException
        When MetaModel is None.
    TypeError
        When an option is misspelt; the message suggests the nearest.
    """

    MetaModel: IFullModel[T, TInput, TOutput]
    _: dataclasses.KW_ONLY
    # Any: a loss serves models of every number type.
    LossFunction: ILossFunction[Any] | None = None
    MetaOptimizer: IGradientBasedOptimizer | None = None
    InnerOptimizer: IGradientBasedOptimizer | InnerSolver | RowMinimizer | None = None
    DataLoader: IEpisodicDataLoader[T, TInput, TOutput] | None = None
    InnerLearningRate: float = 0.01
    OuterLearningRate: float = 0.001
    AdaptationSteps: int = 10
    MetaBatchSize: int = 4
    NumMetaIterations: int = 1000
    GradientClipThreshold: float | None = 10.0
    RandomSeed: int | None = None
    EvaluationTasks: int = 100
    EvaluationFrequency: int = 100
    EnableCheckpointing: bool = False
    CheckpointFrequency: int = 500

    def __post_init__(self) -> None:
        if self.MetaModel is None:  # pyright: ignore[reportUnnecessaryComparison] -- callers may be untyped
            raise ArgumentNullException("MetaModel is None; a model is wanted")

    # Hidden from type checkers, which know the options and would take this for leave to set any other.
    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None:
            names = [field.name for field in dataclasses.fields(self)]
            if name not in names:
                raise AttributeError(f"{type(self).__name__} has no option {name!r}{_suggestion(name, names)}")
            object.__setattr__(self, name, value)

    def invalid(self) -> Iterator[str]:
        """What is wrong, one sentence an option."""
        yield from self._invalid_objects()
        for name in ("InnerLearningRate", "OuterLearningRate"):
            if not is_rate(getattr(self, name)):
                yield f"{name} is {getattr(self, name)!r}; a finite number above 0 is wanted"
        for name in ("AdaptationSteps", "MetaBatchSize", "NumMetaIterations"):
            yield from self._invalid_count(name)
        clip = self.GradientClipThreshold
        if clip is not None and not math.isfinite(number_of(clip)):
            yield f"GradientClipThreshold is {clip!r}; a finite number or None is wanted"
        seed = self.RandomSeed
        if seed is not None and not (is_count(seed) or (isinstance(seed, Integral) and number_of(seed) == 0)):
            yield f"RandomSeed is {seed!r}; a whole number of at least 0 or None is wanted"
        for name in ("EvaluationTasks", "EvaluationFrequency", "CheckpointFrequency"):
            yield from self._invalid_count(name)
        yield from self._invalid_switch("EnableCheckpointing")

    def _invalid_objects(self) -> Iterator[str]:
        wanted: dict[str, type[Any]] = {
            "MetaModel": IFullModel,
            "LossFunction": ILossFunction,
            "MetaOptimizer": IGradientBasedOptimizer,
            "InnerOptimizer": IGradientBasedOptimizer,
            "DataLoader": IEpisodicDataLoader,
        }
        for name, protocol in wanted.items():
            value = getattr(self, name)
            if name == "InnerOptimizer" and is_inner_solver(value):
                continue
            if value is None and name == "MetaModel":
                yield f"{name} is None; an {protocol.__name__} is wanted"
            elif isinstance(value, type):
                yield f"{name} is the class {value.__name__}; an object of an {protocol.__name__} class is wanted"
            elif value is not None and (missing := missing_members(value, protocol)):
                yield f"{name} is a {type(value).__name__}, which lacks {', '.join(missing)} of {protocol.__name__}"

    def _invalid_count(self, name: str) -> Iterator[str]:
        if not is_count(getattr(self, name)):
            yield f"{name} is {getattr(self, name)!r}; a whole number above 0 is wanted"

    def _invalid_switch(self, name: str) -> Iterator[str]:
        if not isinstance(getattr(self, name), (bool, np.bool_)):
            yield f"{name} is {getattr(self, name)!r}; True or False is wanted"

    @property
    def inner_steps(self) -> int:
        """How many inner steps there are in all: AdaptationSteps."""
        return self.AdaptationSteps

    def IsValid(self) -> bool:
        """Whether every option has a value that it may take."""
        return next(self.invalid(), None) is None

    def settings(self) -> dict[str, Any]:
        """What checkpoints say of the options: all but the model, and of the loader its type and sizes."""
        told = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del told["MetaModel"]
        loader = told["DataLoader"]
        if loader is not None:
            sizes = {name: getattr(loader, name) for name in _OF_LOADERS}
            told["DataLoader"] = {"type": type(loader).__name__, **sizes}
        return told

    def differences(self, held: Mapping[str, Any]) -> list[str]:
        """One clause for each option of a checkpoint that is otherwise here, if that can change what steps give.

        A loader on one side alone is none of them: where its place is taken up, that is said.
        """
        if not held:
            return []
        own, there = describe(self), dict(held)
        passed_over = set(self._told_by_checkpoint())
        if own["DataLoader"] is None or there.get("DataLoader") is None:
            passed_over.add("DataLoader")
        for name in passed_over:
            own.pop(name, None)
            there.pop(name, None)
        return list(differences(there, own))

    def _told_by_checkpoint(self) -> frozenset[str]:
        """Options in whose place a checkpoint's state comes, and those that change no step."""
        return _OF_THE_RUN | {"RandomSeed"}

    def Clone(self) -> Self:
        """An independent copy; model, optimizers and loader are shared, but not what learners remember of them."""
        return dataclasses.replace(self)


@with_suggestions
@dataclass(eq=False, kw_only=True)
class ProximalOptions(MetaLearnerOptions[T, TInput, TOutput]):
    """Options of the algorithms whose inner steps can be held near the start.

    Parameters
    ----------
    MetaModel : IFullModel
        See `MetaLearnerOptions`, also for the other options.
    InnerObjective : "support" or "proximal"
        What the inner steps follow: L_support(φ), or L_support(φ) + ‖φ − θ‖²/(2λ).
    LambdaRegularization : float
        λ ≥ 0; 1/λ_p for the λ_p of Rajeswaran et al. 2019.
    """

    LambdaRegularization: float = 1.0
    InnerObjective: Literal["support", "proximal"] = "support"

    def invalid(self) -> Iterator[str]:
        """What is wrong, one sentence an option."""
        yield from super().invalid()
        if not 0 <= number_of(self.LambdaRegularization) < math.inf:
            yield f"LambdaRegularization is {self.LambdaRegularization!r}; a finite number of at least 0 is wanted"
        if self.InnerObjective not in ("support", "proximal"):
            yield f"InnerObjective is {self.InnerObjective!r}; 'support' or 'proximal' is wanted"
        elif self.InnerObjective == "proximal" and self.LambdaRegularization == 0:
            yield "LambdaRegularization is 0; InnerObjective 'proximal' divides by it and wants a number above 0"
