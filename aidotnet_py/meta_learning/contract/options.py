"""Options that every algorithm has, and the errors for misspelt or impossible ones."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self, TypeAlias

from typing_extensions import TypeVar

from aidotnet_py.arguments import (
    ANY_WHOLE,
    COUNT,
    COUNT_OR_ZERO,
    FINITE,
    NON_NEGATIVE,
    POSITIVE,
    SWITCH,
    Choice,
    Constraint,
    OrNone,
    check_given,
    refusal,
)
from aidotnet_py.descriptions import Described, describe, differences
from aidotnet_py.keywords import refuses_other_keywords
from aidotnet_py.losses import ILossFunction
from aidotnet_py.meta_learning.contract.protocols import is_inner_solver, missing_members
from aidotnet_py.meta_learning.contract.sources import IEpisodicDataLoader
from aidotnet_py.models import IFullModel
from aidotnet_py.models.interfaces import IFullModelOf, TModel_co
from aidotnet_py.optimizers import IGradientBasedOptimizer, InnerSolver, LearningRateSchedule, RowMinimizer
from aidotnet_py.representations import concise_repr
from aidotnet_py.suggestions import suggest_or_list
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["ExecutorOrMaker", "MetaLearnerOptions", "ProximalOptions", "with_suggestions"]

C = TypeVar("C", bound=type[Any])

# An executor, or a function that makes one.
ExecutorOrMaker: TypeAlias = futures.Executor | Callable[[], futures.Executor]

# How long Train goes on, and when it evaluates and saves.
_OF_THE_RUN = frozenset(
    (
        *("NumMetaIterations", "EvaluationTasks", "EvaluationFrequency", "ValidationLoader", "EarlyStoppingPatience"),
        *("EnableCheckpointing", "CheckpointFrequency"),
    )
)
# Other spellings of the proximal term's λ, of which LambdaRegularization is the reciprocal.
_LAMBDAS = ("lambda", "lam", "lamda", "lambd", "λ")
_OF_LOADERS = ("NWay", "KShot", "QueryShots", "AvailableClasses")
_PROTOCOLS: dict[str, type[Any]] = {
    "MetaModel": IFullModel,
    "LossFunction": ILossFunction,
    "MetaOptimizer": IGradientBasedOptimizer,
    "InnerOptimizer": IGradientBasedOptimizer,
    "DataLoader": IEpisodicDataLoader,
    "ValidationLoader": IEpisodicDataLoader,
}
# Types of values that an option keeps as they are.
_PYTHON_TYPES = (int, float, bool, str, type(None))
# What an object of each looks like.
_EXAMPLES: dict[type[Any], str] = {
    IFullModel: "NeuralNetworkModel(network, input_shape=…)",
    ILossFunction: "CrossEntropyLoss(), or derive from LossFunctionBase, which needs a formula alone",
    IGradientBasedOptimizer: "SGDOptimizer(0.01)",
    IEpisodicDataLoader: "ArrayLoader(X, y)",
}


def with_suggestions(cls: C) -> C:
    """Let a dataclass of options answer a misspelt option with the nearest name that it has.

    Parameters
    ----------
    cls : type
        A dataclass, such as a subclass of `MetaLearnerOptions`.

    Returns
    -------
    type
        The same class; its constructor raises TypeError with the suggestion.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from aidotnet_py.meta_learning.extend import with_suggestions
    >>> @with_suggestions
    ... @dataclass
    ... class Options:
    ...     Power: float = 1.0
    >>> Options(power=2.0)
    Traceback (most recent call last):
    TypeError: Options has no option 'power'; did you mean 'Power'?
    """
    cls.__repr__ = concise_repr  # type: ignore[assignment]
    cls.__init__ = refuses_other_keywords(cls.__init__, _names_of(cls), lambda slip, _: _refusal(cls, slip))
    return cls


def _names_of(cls: type[Any]) -> tuple[str, ...]:
    """Return the names of the options of a class."""
    return tuple(field.name for field in dataclasses.fields(cls))


def _refusal(cls: type[Any], name: str) -> str:
    """Return the message for an option that a class lacks."""
    return f"{cls.__name__} has no option {name!r}; {_remedy(cls, name)}"


def _remedy(cls: type[Any], name: str) -> str:
    names = _names_of(cls)
    if name.lower().replace("_", "") in _LAMBDAS and "LambdaRegularization" in names:
        # A suggestion would have the value taken for its reciprocal.
        remedy = (
            f"{cls.__name__}.FromPaper(model, Lambda=2) sets it"
            if hasattr(cls, "FromPaper")
            else "InnerObjective='proximal' uses it"
        )
        return f"LambdaRegularization is 1/λ for the λ of the proximal term, such as 0.5 for λ = 2: {remedy}"
    elsewhere = [kind.__name__ for kind in _all_options() if name in _names_of(kind)]
    if elsewhere:
        return f"{' and '.join(elsewhere)} {'have' if len(elsewhere) > 1 else 'has'} it"
    return suggest_or_list(name, names)


@cache
def _constraints_of(cls: type[Any]) -> Mapping[str, Constraint[Any]]:
    """Return what single values of a class of options must be, by name."""
    constraints: dict[str, Constraint[Any]] = {}
    for kind in reversed(cls.__mro__):
        constraints.update(vars(kind).get("_constraints", {}))
    return constraints


def _plain(constraint: Constraint[Any] | None, name: str, value: Any) -> Any:
    """Return the value of an option as Python's own; what the option cannot be stays as given, for the message.

    Counts of steps do not fit into NumPy's short integers, which arithmetic with one would have them in.
    """
    if constraint is None or type(value) in _PYTHON_TYPES or constraint.problem(name, value):
        return value
    return constraint.check(name, value)


def _all_options() -> list[type[Any]]:
    """Return the public classes of options, from the general ones on."""
    kinds: list[type[Any]] = []
    waiting: list[type[Any]] = [MetaLearnerOptions]
    while waiting:
        kind = waiting.pop(0)
        waiting += kind.__subclasses__()
        if dataclasses.is_dataclass(kind) and not kind.__name__.startswith("_") and kind not in kinds:
            kinds.append(kind)
    return kinds


@with_suggestions
@dataclass(eq=False)
class MetaLearnerOptions(Described, Generic[T, TInput, TOutput, TModel_co]):
    """Options of every meta-learning algorithm; read when used, so they can be changed between steps.

    Parameters
    ----------
    MetaModel : IFullModel
        The model whose parameters are learned. Required. `SetMetaModel` of the learner changes it.
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
    ValidationLoader : IEpisodicDataLoader, optional
        Where the evaluations of Train draw tasks from, such as one of held-out classes; None: the DataLoader. With
        GetState and SetState, all evaluations of a run have the same tasks, those that come next in it. RandomSeed does
        not seed it.
    InnerLearningRate, OuterLearningRate : float
        Steps of adaptation and of meta-training, > 0.
    OuterLearningRateSchedule : LearningRateSchedule, optional
        A function from the number of the step, CurrentIteration, to a factor > 0 of OuterLearningRate, such as
        `CosineSchedule`; None: always 1. Only without a MetaOptimizer, whose own rate holds. `Train` and MetaTrainStep
        count steps; MetaTrain does not, so that it stays at the first factor.
    AdaptationSteps : int
        K, the number of inner steps, > 0.
    MetaBatchSize : int
        Tasks a step of Train, > 0.
    MicroBatchSize : int, optional
        How many of these are worked on at a time, > 0, for batches too large for memory; the meta-gradients are summed
        up in their order. None: all.
    NumMetaIterations : int
        Steps of Train, > 0.
    GradientClipThreshold : float or None
        Largest global norm of the meta-gradient; None or ≤ 0: no limit.
    RandomSeed : int, optional
        Seeds the learner's random numbers and its draws from the DataLoader; None: those begin where the loader is. A
        negative seed counts as its remainder modulo 2³².
    EvaluationTasks, EvaluationFrequency : int
        Train evaluates this many tasks, every so many steps; EvaluationFrequency 0 switches that off.
    EarlyStoppingPatience : int, optional
        Train ends after so many evaluations in a row whose mean loss is not below the lowest before; None: never.
    EnableCheckpointing : bool
        Whether Train saves the learner.
    CheckpointFrequency : int
        Every how many steps; 0 only without EnableCheckpointing.
    Executor : concurrent.futures.Executor, or a function that makes one, optional
        Shares the tasks of a batch out to its workers, in steps and in evaluations, with the bits of one process; see
        docs/scaling.md. What a function made is made anew if a worker of it dies, and ends with the learner. Pickles
        and copies of the options have None.

    Raises
    ------
    ArgumentNullException
        When MetaModel is None.
    TypeError
        When an option is misspelt; the message suggests the nearest.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from aidotnet_py import NeuralNetworkModel
    >>> from aidotnet_py.meta_learning.extend import MetaLearnerOptions, with_suggestions
    >>> from aidotnet_py.nn import mlp
    >>> @with_suggestions
    ... @dataclass(eq=False, repr=False)
    ... class MyOptions(MetaLearnerOptions):
    ...     Power: float = 1.0
    ...     def invalid(self):
    ...         yield from super().invalid()
    ...         if self.Power <= 0:
    ...             yield f"Power must be above 0, got {self.Power}"
    >>> model = NeuralNetworkModel(mlp(8, 1), input_shape=(1,), seed=0)
    >>> MyOptions(model, Power=-1.0).first_problem()
    'Power must be above 0, got -1.0'
    """

    MetaModel: IFullModelOf[T, TInput, TOutput, TModel_co]
    _: dataclasses.KW_ONLY
    # Any: a loss serves models of every number type.
    LossFunction: ILossFunction[Any] | None = None
    MetaOptimizer: IGradientBasedOptimizer | None = None
    InnerOptimizer: IGradientBasedOptimizer | InnerSolver | RowMinimizer | None = None
    DataLoader: IEpisodicDataLoader[Any, TInput, TOutput] | None = None
    ValidationLoader: IEpisodicDataLoader[Any, TInput, TOutput] | None = None
    InnerLearningRate: float = 0.01
    OuterLearningRate: float = 0.001
    OuterLearningRateSchedule: LearningRateSchedule | None = None
    AdaptationSteps: int = 10
    MetaBatchSize: int = 4
    MicroBatchSize: int | None = None
    NumMetaIterations: int = 1000
    GradientClipThreshold: float | None = 10.0
    RandomSeed: int | None = None
    EvaluationTasks: int = 100
    EvaluationFrequency: int = 100
    EarlyStoppingPatience: int | None = None
    EnableCheckpointing: bool = False
    CheckpointFrequency: int = 500
    Executor: ExecutorOrMaker | None = None

    # What single values must be; a class adds its own.
    _constraints: ClassVar[Mapping[str, Constraint[Any]]] = {
        "InnerLearningRate": POSITIVE,
        "OuterLearningRate": POSITIVE,
        "AdaptationSteps": COUNT,
        "MetaBatchSize": COUNT,
        "MicroBatchSize": OrNone(COUNT),
        "NumMetaIterations": COUNT,
        "GradientClipThreshold": OrNone(FINITE),
        "RandomSeed": OrNone(ANY_WHOLE),
        "EvaluationTasks": COUNT,
        "EvaluationFrequency": COUNT_OR_ZERO,
        "EarlyStoppingPatience": OrNone(COUNT),
        "EnableCheckpointing": SWITCH,
        "CheckpointFrequency": COUNT_OR_ZERO,
    }

    def __post_init__(self) -> None:
        check_given("MetaModel", self.MetaModel, "a model")

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for another process, without the executor, which belongs to this one."""
        return {**self.__dict__, "Executor": None}

    def __copy__(self) -> Self:
        return self.Clone()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a copy of all but the executor, whose workers cannot be copied."""
        memo[id(self.Executor)] = self.Executor
        other = memo[id(self)] = object.__new__(type(self))
        vars(other).update(copy.deepcopy(vars(self), memo))
        return other

    # Hidden from type checkers, which know the options and would take this for leave to set any other.
    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None:
            if name not in _names_of(type(self)):
                raise AttributeError(_refusal(type(self), name))
            object.__setattr__(self, name, _plain(_constraints_of(type(self)).get(name), name, value))
            # The list is replaced, not emptied: another thread may be about to note what it saw before.
            object.__setattr__(self, "_verdict", [])

    def invalid(self) -> Iterator[str]:
        """Yield a message for each problem; a subclass adds those of its own."""
        yield from self._invalid_objects()
        for name, constraint in _constraints_of(type(self)).items():  # type: ignore[arg-type]  # classes have hashes
            if problem := constraint.problem(name, getattr(self, name)):
                yield problem
        if self.CheckpointFrequency == 0 and self.EnableCheckpointing:
            yield "CheckpointFrequency must be at least 1 with EnableCheckpointing, got 0"
        yield from self._invalid_schedule()
        executor = self.Executor
        if executor is not None and not isinstance(executor, futures.Executor) and not callable(executor):
            yield refusal("Executor", "a concurrent.futures.Executor, or a function that makes one", executor)

    def _invalid_schedule(self) -> Iterator[str]:
        schedule = self.OuterLearningRateSchedule
        if schedule is None:
            return
        if not callable(schedule) or isinstance(schedule, type):
            wanted = "a function of the step, such as CosineSchedule(1000)"
            yield refusal("OuterLearningRateSchedule", wanted, schedule)
        if self.MetaOptimizer is not None:
            yield (
                "OuterLearningRateSchedule must be None with a MetaOptimizer, whose own rate holds, got "
                f"{schedule!r:.80}; leave MetaOptimizer out for Adam at OuterLearningRate"
            )

    def _invalid_objects(self) -> Iterator[str]:
        for name, protocol in _PROTOCOLS.items():
            value = getattr(self, name)
            if name == "InnerOptimizer" and is_inner_solver(value):
                continue
            wanted = f"an {protocol.__name__}"
            if value is None and name == "MetaModel":
                yield refusal(name, wanted, value)
            elif isinstance(value, type):
                yield f"{name} must be {wanted}, got the class {value.__name__}; use an object of it"
            elif value is not None and (missing := missing_members(value, protocol)):
                lacking = f"which lacks {', '.join(missing)}; use one such as {_EXAMPLES[protocol]}"
                yield f"{name} must be {wanted}, got a {type(value).__name__}, {lacking}"
        if self.LossFunction is None and not missing_members(self.MetaModel, IFullModel):
            loss = self.MetaModel.DefaultLossFunction
            if missing_members(loss, ILossFunction):
                owner = f"DefaultLossFunction of {type(self.MetaModel).__name__}"
                yield refusal(owner, "an ILossFunction", loss) + "; pass LossFunction"

    def first_problem(self) -> str | None:
        """Return the first message of `invalid`, None if there is none.

        It is remembered until an option is set, or a list among them changes.
        """
        verdict: list[tuple[str | None, list[Any], list[Any]]] = vars(self).get("_verdict", [])
        if not verdict or verdict[0][1] != verdict[0][2]:
            values: list[Any] = [getattr(self, name) for name in _names_of(type(self))]
            lists: list[Any] = [value for value in values if isinstance(value, list)]
            copies: list[Any] = [value.copy() for value in lists]
            verdict[:] = [(next(self.invalid(), None), lists, copies)]
        return verdict[0][0]

    def loss_of(self, model: IFullModel[T, Any, Any]) -> ILossFunction[T]:
        """Return the loss that a model is trained by: LossFunction, or its own."""
        return model.DefaultLossFunction if self.LossFunction is None else self.LossFunction

    @property
    def inner_steps(self) -> int:
        """How many inner steps there are in all: AdaptationSteps."""
        return self.AdaptationSteps

    def IsValid(self) -> bool:
        """Whether every option has a value that it may take."""
        return self.first_problem() is None

    def settings(self) -> dict[str, Any]:
        """Return what checkpoints hold of the options: all but the model, and the type and sizes of the loader."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del values["MetaModel"], values["Executor"]
        for name in ("DataLoader", "ValidationLoader"):
            loader = values[name]
            if loader is not None:
                sizes = {size: getattr(loader, size) for size in _OF_LOADERS}
                values[name] = {"type": type(loader).__name__, **sizes}
        return values

    def differences(self, held: Mapping[str, Any]) -> list[str]:
        """Return a clause for each option that differs from a checkpoint's, if that can change the steps.

        A loader on one side alone is passed over here; loading its place reports it.
        """
        if not held:
            return []
        own, there = describe(self), dict(held)
        omitted = set(self._names_left_to_checkpoint())
        if own["DataLoader"] is None or there.get("DataLoader") is None:
            omitted.add("DataLoader")
        for name in omitted:
            own.pop(name, None)
            there.pop(name, None)
        return list(differences(there, own))

    def _names_left_to_checkpoint(self) -> frozenset[str]:
        """Return the options that change no step, or that a checkpoint's state replaces."""
        return _OF_THE_RUN | {"RandomSeed"}

    def Clone(self) -> Self:
        """Return an independent copy; it shares model, optimizers and loader, but no learner's memory of them."""
        own: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        copies: dict[str, Any] = {name: copy.copy(of) for name, of in own.items() if type(of) in (list, set, dict)}
        return dataclasses.replace(self, **copies)


@with_suggestions
@dataclass(eq=False, kw_only=True)
class ProximalOptions(MetaLearnerOptions[T, TInput, TOutput, TModel_co]):
    """Options of the algorithms whose inner steps can be held near the start.

    Parameters
    ----------
    MetaModel : IFullModel
        See `MetaLearnerOptions`, also for the other options.
    InnerObjective : "support" or "proximal"
        What the inner steps follow: L_support(φ), or L_support(φ) + ‖φ − θ‖²/(2λ).
    LambdaRegularization : float
        λ ≥ 0; 1/λ_p for the λ_p of Rajeswaran et al. 2019.

    Examples
    --------
    >>> from aidotnet_py import NeuralNetworkModel
    >>> from aidotnet_py.meta_learning.extend import ProximalOptions
    >>> from aidotnet_py.nn import mlp
    >>> model = NeuralNetworkModel(mlp(8, 1), input_shape=(1,), seed=0)
    >>> ProximalOptions(model, InnerObjective="proximal", LambdaRegularization=0.0).IsValid()
    False
    """

    LambdaRegularization: float = 1.0
    InnerObjective: Literal["support", "proximal"] = "support"

    _constraints: ClassVar = {"LambdaRegularization": NON_NEGATIVE, "InnerObjective": Choice("support", "proximal")}

    def invalid(self) -> Iterator[str]:
        """Yield a message for each problem."""
        yield from super().invalid()
        if self.InnerObjective == "proximal" and self.LambdaRegularization == 0:
            yield "LambdaRegularization must be above 0 for InnerObjective 'proximal', which divides by it, got 0"
