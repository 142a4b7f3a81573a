"""What every meta-learner is made of: options, model, optimizers, the tasks' objectives, inner loop and meta-update.

An algorithm builds on these; what users call is in `base`.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, Generic, cast

import numpy as np

from aidotnet_py.arguments import POSITIVE, check_given, refusal
from aidotnet_py.backends import Array, Backend, backend_of
from aidotnet_py.exceptions import (
    ArgumentException,
    ArgumentNullException,
    InvalidOperationException,
    NotSupportedException,
)
from aidotnet_py.known_attributes import KnownAttributes
from aidotnet_py.locks import Lock
from aidotnet_py.losses import ILossFunction
from aidotnet_py.meta_learning.contract.options import MetaLearnerOptions, ProximalOptions
from aidotnet_py.meta_learning.contract.protocols import is_inner_solver, missing_members, model_backend
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask
from aidotnet_py.meta_learning.inner.rule import InnerRule, along_proximal_gradient
from aidotnet_py.meta_learning.learner.journal import Journal
from aidotnet_py.meta_learning.learner.learned import Learned, LearnedValues
from aidotnet_py.meta_learning.learner.model_statistics import put_statistics_aside, set_parameters
from aidotnet_py.meta_learning.learner.own_optimizer import OwnOptimizer
from aidotnet_py.meta_learning.learner.own_results import checked_kinds, checked_names
from aidotnet_py.meta_learning.learner.random_state import RandomState
from aidotnet_py.meta_learning.learner.records import StepRecord
from aidotnet_py.meta_learning.learner.tasks import Tasks
from aidotnet_py.meta_learning.learner.turns import Turns, takes_turns
from aidotnet_py.meta_learning.learner.workers import Workers
from aidotnet_py.meta_learning.objective import ObjectiveFactory, TaskObjective
from aidotnet_py.meta_learning.objective.checks import require_no_more_batches
from aidotnet_py.meta_learning.objective.chunk import Chunk
from aidotnet_py.meta_learning.objective.factory import Group
from aidotnet_py.meta_learning.objective.finiteness import all_finite, norm_of
from aidotnet_py.meta_learning.objective.second_order import second_order_gradients
from aidotnet_py.meta_learning.objective.sets import Sets, names_of_places
from aidotnet_py.models import IFullModel
from aidotnet_py.models.interfaces import TModel_co, parameter_dtype
from aidotnet_py.models.raw_data import put_raw_data_aside
from aidotnet_py.optimizers import (
    AdamOptimizer,
    ElementwiseOptimizer,
    IGradientBasedOptimizer,
    SGDOptimizer,
    parameters_after,
)
from aidotnet_py.optimizers.protocol import current_rate
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["Batch", "LearnerCore"]

Batch = Sequence[IMetaLearningTask[T, TInput, TOutput]]

# Optimizers of the options that a learner's memory is kept for, should they come back into them.
_MOST_OPTIMIZERS = 4


class LearnerCore(KnownAttributes, ABC, Generic[T, TInput, TOutput, TModel_co]):
    """Options and model, and the tools that an algorithm works with; see `MetaLearnerBase`."""

    # Whether adapted models score as many classes as a support set has, and not those of the meta-model's outputs.
    scores_any_classes: ClassVar[bool] = False
    # What the algorithm's options must be.
    _options_type: ClassVar[type[Any]] = MetaLearnerOptions

    def __init__(self, options: MetaLearnerOptions[T, TInput, TOutput, TModel_co]) -> None:
        if options is None:  # pyright: ignore[reportUnnecessaryComparison] -- callers may be untyped
            raise ArgumentNullException(refusal("options", f"{self._options_type.__name__}", options))
        wanted: type[object] = self._options_type
        if not isinstance(options, wanted):
            name = self._options_type.__name__
            hint = "" if missing_members(options, IFullModel) else f"; use {name}(model)"
            raise ArgumentException(f"options must be {name}, got a {type(options).__name__}{hint}")
        if options.MetaModel is None:  # pyright: ignore[reportUnnecessaryComparison] -- as above
            raise InvalidOperationException("MetaModel of the options must be a model, got None")
        self._options = options
        # Held for whole steps; and for moments, so that what is learned is read and changed in one piece.
        self._turn, self._state, self._workers = Turns(), Lock(), Workers()
        self._journal = Journal()
        self._require_valid()
        self._iteration = 0
        self._record: StepRecord | None = None
        self._default_optimizer: ElementwiseOptimizer | None = None
        # From the beginning, so that an adaptation changes nothing of the learner: neither its pickle nor its hash.
        self._default_inner = SGDOptimizer(options.InnerLearningRate)
        self._own_optimizers: list[OwnOptimizer] = []
        self._random = RandomState(options)
        self._objectives = ObjectiveFactory(self._random.generator)
        parameters = self.BaseModel.GetParameters()
        self._begun_with = self._identity_of(parameters)
        self._values = LearnedValues()
        self._values.begin(checked_kinds(self.learned()), parameters, self._backend)

    def _require_valid(self) -> None:
        wrong = self._options.first_problem()
        if wrong is not None:
            raise ArgumentException(wrong)

    @property
    def BaseModel(self) -> TModel_co:
        """The model whose parameters are learned."""
        return cast("TModel_co", self._options.MetaModel)

    @property
    def Options(self) -> MetaLearnerOptions[T, TInput, TOutput, TModel_co]:
        """The options, as given."""
        return self._options

    @property
    def CurrentIteration(self) -> int:
        """Steps taken by `MetaTrainStep` and `Train`."""
        return self._iteration

    @property
    def _has_learned(self) -> bool:
        """Whether a step was taken, also by `MetaTrain`, which does not count."""
        return self._iteration > 0 or self._record is not None

    @property
    def AdaptationSteps(self) -> int:
        """K, the number of inner steps."""
        return self._options.AdaptationSteps

    @property
    def InnerLearningRate(self) -> float:
        """The rate of the inner steps: the option's, or that of the InnerOptimizer given.

        Where a solver takes their place, it is the option's, which nothing uses.
        """
        return current_rate(self._inner_optimizer())

    @property
    def OuterLearningRate(self) -> float:
        """The rate of the next meta-update: the option's by its schedule, or that of the MetaOptimizer given."""
        given = self._options.MetaOptimizer
        return self._scheduled_rate() if given is None else self._own(given).GetCurrentLearningRate()

    def _scheduled_rate(self) -> float:
        rate, schedule = float(self._options.OuterLearningRate), self._options.OuterLearningRateSchedule
        if schedule is None:
            return rate
        return rate * POSITIVE.check(f"OuterLearningRateSchedule({self._iteration})", schedule(self._iteration))

    def GetMetaModel(self) -> TModel_co:
        """Return the model whose parameters are learned."""
        return cast("TModel_co", self._options.MetaModel)

    @takes_turns
    def SetMetaModel(self, model: IFullModel[T, TInput, TOutput]) -> None:
        """Learn another model's parameters from now on; the optimizers forget the old one's gradients.

        Learned vectors start anew too. The next step does the same for a model that was put into the options instead,
        unless vectors are learned beside the one before.

        For type checkers, what `Adapt` returns stays of the class of the model at construction; annotate the learner
        with three type parameters, as ``iMAMLAlgorithm[T, TInput, TOutput]``, to set a model of another class.

        Raises
        ------
        ArgumentNullException
            When the model is None.
        ArgumentException
            When it is no IFullModel, or the algorithm cannot learn it; the message says why, and the old one is kept.
        """
        check_given("model", model, "a model")
        missing = missing_members(model, IFullModel)
        if missing:
            raise ArgumentException(
                f"model must be an IFullModel, got a {type(model).__name__}, which lacks {', '.join(missing)}"
            )
        with self._state:
            before, self._options.MetaModel = self._options.MetaModel, cast(Any, model)
            try:
                self._require_valid()
            except ArgumentException:
                self._options.MetaModel = before
                raise
            self._begin_with_model()

    def _begin_with_model(self) -> None:
        """Begin anew with the model as it is now; its parameters stay."""
        with self._state:
            self._reset_optimizers()
            parameters = self.BaseModel.GetParameters()
            self._begun_with = self._identity_of(parameters)
            self._values.begin(checked_kinds(self.learned()), parameters, self._backend)
            self._begin_anew()

    # What an algorithm writes, and may do otherwise; docs/algorithms.md has a table of it.

    def meta_gradient(self, tasks: Tasks) -> Array | tuple[Array, Mapping[str, Array]]:
        """Return the meta-gradients (tasks, P) of some tasks; with those of the learned vectors by name, if there are.

        Raises
        ------
        InvalidOperationException
            When something is not finite; the message names the task.
        """
        raise NotSupportedException(
            f"{type(self).__name__} must have meta_gradient(tasks), or MetaTrain, of its own, got neither"
        )

    def inner_rule(self, tasks: Tasks) -> InnerRule:
        """Return a step of the inner loop: InnerOptimizer's, along the gradient that InnerObjective says."""
        optimizer, options = self._inner_optimizer(), self._options
        if isinstance(options, ProximalOptions) and options.InnerObjective == "proximal":
            return InnerRule(optimizer, along_proximal_gradient, (1.0 / float(options.LambdaRegularization),))
        return InnerRule(optimizer)

    def learned(self) -> Sequence[Learned]:
        """Return what the meta-optimizer moves beside θ."""
        return ()

    def adapted_names(self, model: IFullModel[Any, Any, Any]) -> Collection[str] | None:
        """Return the names of the parameters that the inner steps move; None for all."""
        return None

    def report(self, details: Sequence[Any]) -> Mapping[str, float]:
        """Return numbers to report with a step, from the `Tasks.details` of its parts."""
        return {}

    def _begin_anew(self) -> None:
        """Forget what was kept beside parameters and learned vectors: at Reset, and with a new model."""

    def _extra_state(self) -> dict[str, Array]:
        """Return other arrays that the next steps depend on, by name; they are saved with the rest."""
        return {}

    def _set_extra_state(self, state: Mapping[str, Array]) -> None:
        """Take up a state that `_extra_state` returned, on the host or not."""

    def _new_meta_optimizer(self, rate: float) -> ElementwiseOptimizer:
        """Return the meta-optimizer for options that name none."""
        return AdamOptimizer(rate)

    def _second_order_gradients(self, tasks: Tasks) -> Array:
        """Return MAML's meta-gradients (tasks, P) as the model computes them, for plain descent alone."""
        rate = tasks.rule.plain_rate
        assert rate is not None
        steps = self._options.inner_steps
        return second_order_gradients(tasks.chunk, self._loss(), steps, rate, self._objectives.asking)

    # What every algorithm has.

    @property
    def _backend(self) -> Backend:
        return model_backend(self.BaseModel)

    @property
    def DefaultLossFunction(self) -> ILossFunction[T]:
        """The loss of the learner: LossFunction of the options, or the meta-model's."""
        return self._options.loss_of(self.BaseModel)

    def _loss(self) -> ILossFunction[T]:
        """Return the loss that the objectives are made of, which is an algorithm's own in ProtoNets."""
        return self.DefaultLossFunction

    def _inner_optimizer(self) -> IGradientBasedOptimizer:
        optimizer = self._options.InnerOptimizer
        if optimizer is None or is_inner_solver(optimizer):
            rate, kept = self._options.InnerLearningRate, self._default_inner
            if kept.GetCurrentLearningRate() != rate:
                kept = self._default_inner = SGDOptimizer(rate)
            return kept
        return optimizer

    def _meta_optimizer(self) -> IGradientBasedOptimizer:
        """Return the meta-optimizer with this learner's memory; for methods that take turns alone."""
        if self._options.MetaOptimizer is not None:
            return self._own(self._options.MetaOptimizer)
        rate = self._scheduled_rate()
        if self._default_optimizer is None:
            self._default_optimizer = self._new_meta_optimizer(rate)
        elif self._default_optimizer.GetCurrentLearningRate() != rate:
            state = self._default_optimizer.GetState()
            self._default_optimizer = self._new_meta_optimizer(rate)
            self._default_optimizer.SetState(state)
        return self._default_optimizer

    def _own(self, given: IGradientBasedOptimizer) -> OwnOptimizer:
        """Return an optimizer of the options with this learner's memory, also when it comes back after others."""
        with self._state:
            known = [own for own in self._own_optimizers if own.given is given] or [OwnOptimizer(given)]
            others = [own for own in self._own_optimizers if own.given is not given]
            self._own_optimizers = [*known, *others][:_MOST_OPTIMIZERS]
            return known[0]

    def _reset_optimizers(self) -> None:
        self._default_optimizer = None
        if self._options.MetaOptimizer is not None:
            # Known from here on, lest the first step takes up what it remembers.
            self._own(self._options.MetaOptimizer)
        for own in self._own_optimizers:
            own.Reset()

    def _open(
        self, tasks: Batch[T, TInput, TOutput], *roles: str, training: bool = True, first: int | None = None
    ) -> list[Chunk]:
        """Check everything about the tasks; return them with the objectives of their sets, in groups of one size.

        In training, layers such as Dropout are active; adaptation and evaluation for use are without. ``first`` is the
        place of the first task in a batch of which these are a part; None: they are all.
        """
        return self._open_groups(tasks, roles, training, first)

    def _open_groups(
        self,
        tasks: Batch[T, TInput, TOutput],
        roles: Sequence[str],
        training: bool,
        first: int | None,
        groups: Sequence[Group] | None = None,
    ) -> list[Chunk]:
        """Return tasks in groups, with their objectives; ``groups`` has them if they are known."""
        self._require_valid()
        if training:
            self._heed_model()
        with self._state:
            model, parameters, loss = self.BaseModel, self.BaseModel.GetParameters(), self._loss()
            learned = self._read_learned(parameters)
        sets = Sets(tasks, names_of_places(len(tasks), first))
        if not is_inner_solver(self._options.InnerOptimizer):
            require_no_more_batches(sets, first or 0, self._options.inner_steps)
        lease, backend = self._objectives.lease(model, loss), model_backend(model)
        staying = self._staying_names(model)
        opened, make = list[Chunk](), self._objectives.make
        for group in groups or self._objectives.groups(sets, roles, model, loss, training=training):
            some = sets.part(group.places)
            objectives: dict[str, TaskObjective] = {}
            for role in roles:
                size = group.sizes.get(role)
                made = make(role, some, model, loss, lease, training=training, size=size)
                objectives[role] = group.with_noise(role, made, backend)
            if staying is not None:
                objectives["Adapted"] = self._objectives.partial("Adapted", objectives["Support"], model, staying)
            opened.append(
                Chunk(
                    backend=backend,
                    model=model,
                    parameters=parameters,
                    learned=learned,
                    lease=lease,
                    tasks=some.tasks,
                    objectives=objectives,
                    staying=staying,
                    places=[(first or 0) + place for place in group.places],
                    sizes=group.sizes,
                    training=training,
                )
            )
        return opened

    def _staying_names(self, model: IFullModel[T, TInput, TOutput]) -> frozenset[str] | None:
        """Return the parameters that inner steps leave as they are; None where they adapt all."""
        names = self.adapted_names(model)
        if names is None:
            return None
        shapes: Mapping[str, Any] | None = getattr(model, "parameter_shapes", None)
        return frozenset(shapes or ()) - checked_names(names, shapes)

    def _over_shares(self, groups: Sequence[Chunk], method: str, *arguments: Any) -> list[Any]:
        """Return what a method of this learner returns for each share of a batch, opened, in their order.

        Without an Executor in the options, the whole batch is one share.
        """
        executor = self._options.Executor
        if executor is None:
            return [getattr(self, method)(groups, *arguments)]
        return self._workers.run(executor, self, groups, method, arguments)

    def _state_for(self, tasks: Batch[Any, Any, Any]) -> dict[str, Array]:
        """Return what the meta-gradients of these tasks depend on of `_extra_state`."""
        return self._extra_state()

    def _take_up(self, parameters: Array, learned: Mapping[str, Array], state: Mapping[str, Array]) -> None:
        """Stand where another learner stands, whose share of a batch this one is to work on."""
        self.BaseModel.SetParameters(parameters)
        self._values.restore(learned)
        self._set_extra_state(state)

    def _identity_of(self, parameters: Array) -> tuple[TModel_co, np.dtype[Any], tuple[int, ...]]:
        """Return what tells the present model, whose parameters these are, from another."""
        return self.BaseModel, self._backend.dtype_of(parameters), tuple(parameters.shape)

    def _heed_model(self) -> None:
        """Begin anew, as `SetMetaModel` does, if another model came into the options by itself."""
        with self._state:
            if self.BaseModel is not self._begun_with[0]:
                self._require_valid()
                # Refuses where vectors are learned, which nobody asked to forget.
                self._read_learned(self.BaseModel.GetParameters())
                self._begin_with_model()

    def _read_learned(self, parameters: Array) -> Mapping[str, Array]:
        """Return the learned vectors; where there are some, the model must be the one that they belong to."""
        kinds = self.learned()
        if kinds:
            (model, dtype, shape), (known, *own) = self._identity_of(parameters), self._begun_with
            if model is not known or [dtype, shape] != own:
                raise InvalidOperationException(
                    f"MetaModel must be the model beside which vectors are learned, with parameters {own[0]}{own[1]}, "
                    f"got another with {dtype}{shape}; use SetMetaModel to begin anew with it"
                )
        return self._values.read(kinds, parameters, self._backend)

    def _learned_vectors(self) -> Mapping[str, Array]:
        """Return the learned vectors, as they are now."""
        with self._state:
            return self._read_learned(self.BaseModel.GetParameters())

    def _meta_parameters(self) -> Array:
        """Return all that the meta-optimizer moves, in one vector: the model's parameters, and the learned vectors."""
        with self._state:
            parameters = self.BaseModel.GetParameters()
            learned = self._read_learned(parameters)
        return self._backend.concat([parameters, *learned.values()], 0) if learned else parameters

    def _set_meta_parameters(self, vector: Array, statistics: Mapping[str, Array] | None = None) -> None:
        """Set all that the meta-optimizer moves, and what the model normalises by, unless it is None."""
        with self._state:
            parameters, learned = self._split(vector)
            self._values.write(self.learned(), learned, self._backend)
            set_parameters(self.BaseModel, parameters, statistics)

    def _split(self, vector: Array) -> tuple[Array, dict[str, Array]]:
        """Return the part of the model's parameters, and those of the learned vectors by name."""
        backend, kinds = self._backend, self.learned()
        if not kinds:
            return vector, {}
        learned, stop = dict(self._learned_vectors()), int(vector.shape[0])
        for kind in reversed(kinds):
            start = stop - int(learned[kind.name].shape[0])
            learned[kind.name] = backend.asarray(backend.index(vector, (slice(start, stop),)))
            stop = start
        return backend.asarray(backend.index(vector, (slice(0, stop),))), learned

    def _put_aside(self) -> Callable[[], None]:
        """Keep all that a step may change; return a function that puts it back."""
        try:
            return self._restorer()
        except Exception:
            # An invalid option may be the reason; its message comes first.
            self._require_valid()
            raise

    def _restorer(self) -> Callable[[], None]:
        self._heed_model()
        iteration, extra, random = self._iteration, self._extra_state(), self._random.get()
        put_parameters_back, put_statistics_back = self._put_parameters_aside(), put_statistics_aside(self.BaseModel)
        put_raw_data_back = put_raw_data_aside(self.BaseModel)

        def put_back() -> None:
            put_parameters_back()
            put_statistics_back()
            put_raw_data_back()
            self._set_extra_state(extra)
            self._random.set(random)
            self._iteration = iteration

        return put_back

    def _put_parameters_aside(self) -> Callable[[], None]:
        """Keep the part of `_put_aside` that a meta-update changes."""
        model, optimizer = self.BaseModel, self._meta_optimizer()
        memory = optimizer.GetState()
        with self._state:
            # Copies, since not every model keeps to itself what it is given.
            parameters = _copy(model.GetParameters())
            learned = {name: _copy(vector) for name, vector in self._read_learned(parameters).items()}

        def put_back() -> None:
            optimizer.SetState(memory)
            with self._state:
                self._values.restore(learned)
                model.SetParameters(parameters)

        return put_back

    def _meta_update(self, mean: Array) -> float:
        """Clip the mean of the tasks' meta-gradients, hand it to the meta-optimizer; return its norm before that.

        Whatever goes wrong in it, parameters and optimizer are put back.
        """
        optimizer = self._meta_optimizer()
        norm = self._norm_of(mean)
        limit = self._options.GradientClipThreshold
        if limit is not None and 0 < limit < norm:
            mean = _scale(mean, float(limit) / norm, self._backend.dtype_of(mean))
        self._journal.run(self._put_parameters_aside, lambda: self._move(optimizer, mean))
        return norm

    def _norm_of(self, mean: Array) -> float:
        """Return the norm of a mean meta-gradient; raise if it is not finite."""
        norm = norm_of(self._backend, mean)
        if not math.isfinite(norm):
            raise InvalidOperationException("the mean meta-gradient is not finite; nothing was changed")
        return norm

    def _move(self, optimizer: IGradientBasedOptimizer, mean: Array) -> None:
        """Have the meta-optimizer move the meta-parameters along a mean meta-gradient."""
        backend = self._backend
        with backend.errors_ignored():
            updated = parameters_after(optimizer, backend.asarray(self._meta_parameters()), mean)
            if not all_finite(backend, backend.reshape(updated, (1, *updated.shape))).all():
                raise InvalidOperationException("the meta-update is not finite; nothing was changed")
        self._set_meta_parameters(updated)

    def _scalar(self) -> Callable[[float], T]:
        """Return the function from floats to T, numbers of the model's dtype; those beyond it are infinite."""
        kind = cast("Callable[[float], T]", parameter_dtype(self.BaseModel, self._backend).type)

        def scalar(value: float) -> T:
            with np.errstate(all="ignore"):
                return kind(value)

        return scalar


def _scale(vector: Array, factor: float, dtype: np.dtype[Any]) -> Array:
    """Return a vector times a number below 1, which may be too small for the dtype."""
    if factor >= np.finfo(dtype).smallest_normal:
        return vector * factor
    root = math.sqrt(factor)
    return vector * root * root


def _copy(array: Array) -> Array:
    backend = backend_of(array)
    return array if backend is None else backend.asarray(array)
