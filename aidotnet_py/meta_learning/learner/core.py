"""What every meta-learner is made of: options, model, optimizers, the tasks' objectives, inner loop and meta-update.

An algorithm builds on these; what users call is in `base`.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, cast

import numpy as np

from aidotnet_py.backends import Array, Backend, backend_of
from aidotnet_py.exceptions import (
    ArgumentException,
    ArgumentNullException,
    InvalidOperationException,
)
from aidotnet_py.locks import Lock
from aidotnet_py.losses import ILossFunction
from aidotnet_py.meta_learning.contract.options import MetaLearnerOptions, ProximalOptions
from aidotnet_py.meta_learning.contract.protocols import is_inner_solver, missing_members, model_backend
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask
from aidotnet_py.meta_learning.inner.minimizer import minimized
from aidotnet_py.meta_learning.inner.rule import InnerRule, along_proximal_gradient
from aidotnet_py.meta_learning.inner.steps import InnerLoop
from aidotnet_py.meta_learning.learner.journal import Journal
from aidotnet_py.meta_learning.learner.own_optimizer import OwnOptimizer
from aidotnet_py.meta_learning.learner.random_state import RandomState
from aidotnet_py.meta_learning.learner.turns import Turns, takes_turns
from aidotnet_py.meta_learning.objective import ObjectiveFactory
from aidotnet_py.meta_learning.objective.checks import require_no_more_batches
from aidotnet_py.meta_learning.objective.chunk import Chunk
from aidotnet_py.meta_learning.objective.finiteness import all_finite, norm_of
from aidotnet_py.meta_learning.objective.stacking import repeat_rows
from aidotnet_py.models import IFullModel
from aidotnet_py.models.interfaces import parameter_dtype
from aidotnet_py.optimizers import (
    AdamOptimizer,
    ElementwiseOptimizer,
    IGradientBasedOptimizer,
    InnerSolver,
    RowMinimizer,
    SGDOptimizer,
)
from aidotnet_py.type_parameters import T, TInput, TOutput

__all__ = ["LearnerCore", "Tasks"]

Tasks = Sequence[IMetaLearningTask[T, TInput, TOutput]]

# Optimizers of the options that a learner's memory is kept for, should they come back into them.
_MOST_OPTIMIZERS = 4


class LearnerCore(ABC, Generic[T, TInput, TOutput]):
    """Options and model, and the tools that an algorithm works with; see `MetaLearnerBase`."""

    # What the algorithm's options must be.
    _options_type: ClassVar[type[Any]] = MetaLearnerOptions

    def __init__(self, options: MetaLearnerOptions[T, TInput, TOutput]) -> None:
        if options is None:  # pyright: ignore[reportUnnecessaryComparison] -- callers may be untyped
            raise ArgumentNullException("options is None; the algorithm's options are wanted")
        wanted: type[object] = self._options_type
        if not isinstance(options, wanted):
            raise ArgumentException(f"options is a {type(options).__name__}; {self._options_type.__name__} are wanted")
        if options.MetaModel is None:  # pyright: ignore[reportUnnecessaryComparison] -- as above
            raise InvalidOperationException("MetaModel of the options is None; a model is wanted")
        self._options = options
        # Held for whole steps; and for moments, so that what is learned is read and changed in one piece.
        self._turn, self._state = Turns(), Lock()
        self._journal = Journal()
        self._require_valid()
        self._iteration = 0
        self._default_optimizer: ElementwiseOptimizer | None = None
        self._default_inner: SGDOptimizer | None = None
        self._own_optimizers: list[OwnOptimizer] = []
        self._random = RandomState(options)
        self._objectives = ObjectiveFactory(self._random.generator)
        self._kind = self._kind_of(self.BaseModel.GetParameters())

    def _require_valid(self) -> None:
        wrong = self._options.first_problem()
        if wrong is not None:
            raise ArgumentException(wrong)

    @property
    def BaseModel(self) -> IFullModel[T, TInput, TOutput]:
        """The model whose parameters are learned."""
        return self._options.MetaModel

    @property
    def Options(self) -> MetaLearnerOptions[T, TInput, TOutput]:
        """The options, as given."""
        return self._options

    @property
    def CurrentIteration(self) -> int:
        """Steps taken by `MetaTrainStep` and `Train`."""
        return self._iteration

    @property
    def AdaptationSteps(self) -> int:
        """K, the number of inner steps."""
        return self._options.AdaptationSteps

    @property
    def InnerLearningRate(self) -> float:
        """The rate of the inner steps: the option's, or that of the InnerOptimizer given.

        Where a solver takes their place, it is the option's, which nothing uses.
        """
        return self._inner_optimizer().GetCurrentLearningRate()

    @property
    def OuterLearningRate(self) -> float:
        """The rate of the meta-updates: the option's, or that of the MetaOptimizer given."""
        given = self._options.MetaOptimizer
        return float(self._options.OuterLearningRate) if given is None else self._own(given).GetCurrentLearningRate()

    def GetMetaModel(self) -> IFullModel[T, TInput, TOutput]:
        """The model whose parameters are learned."""
        return self._options.MetaModel

    @takes_turns
    def SetMetaModel(self, model: IFullModel[T, TInput, TOutput]) -> None:
        """Learn another model's parameters from now on; the optimizers forget the old one's gradients.

        Raises
        ------
        ArgumentNullException
            When the model is None.
        ArgumentException
            When it is no IFullModel, or the algorithm cannot learn it; the message says why, and the old one is kept.
        """
        if model is None:  # pyright: ignore[reportUnnecessaryComparison] -- callers may be untyped
            raise ArgumentNullException("model is None; a model is wanted")
        missing = missing_members(model, IFullModel)
        if missing:
            raise ArgumentException(
                f"model is a {type(model).__name__}, which lacks {', '.join(missing)} of IFullModel"
            )
        with self._state:
            before, self._options.MetaModel = self._options.MetaModel, model
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
            self._kind = self._kind_of(self.BaseModel.GetParameters())
            self._begin_anew()

    # What an algorithm may do otherwise; docs/algorithms.md has a table of it.

    @property
    def _inner_steps(self) -> int:
        """How many inner steps there are in all."""
        return self._options.AdaptationSteps

    def _inner_tolerance(self) -> float | None:
        """The norm of the inner gradient at which a task's inner steps may end early; None: they never do."""
        return None

    def _proximal_strength(self, chunk: Chunk) -> Array | float | None:
        """1/λ of a proximal term ‖φ − θ‖²/(2λ) of the inner objective, or one a parameter; None: no such term."""
        options = self._options
        if isinstance(options, ProximalOptions) and options.InnerObjective == "proximal":
            return 1.0 / float(options.LambdaRegularization)
        return None

    def _rule(self, chunk: Chunk) -> InnerRule:
        """Return a step of the inner loop."""
        optimizer, strength = self._inner_optimizer(), self._proximal_strength(chunk)
        return InnerRule(optimizer) if strength is None else InnerRule(optimizer, along_proximal_gradient, (strength,))

    def _inner_problem(self, chunk: Chunk) -> tuple[Chunk, Array]:
        """The tasks as the inner steps see them, and where these start, stacked."""
        return chunk, repeat_rows(chunk.backend, chunk.parameters, len(chunk.tasks))

    def _whole(self, chunk: Chunk, points: Array) -> Array:
        """All parameters (tasks, P), from those that the inner steps move."""
        return points

    def _learned(self) -> Array | None:
        """What the meta-optimizer moves beside the model's parameters, a vector; None: nothing."""
        return None

    def _set_learned(self, vector: Array) -> None:
        """Take a new one; what may fail, fails before anything is changed."""

    def _begin_anew(self) -> None:
        """Forget what was learned and kept beside the model's parameters: at Reset, and with a new model."""

    def _extra_state(self) -> dict[str, Array]:
        """What else the next steps depend on, by name: arrays, saved with the rest."""
        return {}

    def _set_extra_state(self, state: Mapping[str, Array]) -> None:
        """Take up what `_extra_state` gave, on the host or not."""

    def _new_meta_optimizer(self, rate: float) -> ElementwiseOptimizer:
        """The meta-optimizer where the options name none."""
        return AdamOptimizer(rate)

    # What every algorithm has.

    @property
    def _backend(self) -> Backend:
        return model_backend(self.BaseModel)

    def _loss(self) -> ILossFunction[T]:
        loss = self._options.LossFunction
        return self.BaseModel.DefaultLossFunction if loss is None else loss

    def _inner_optimizer(self) -> IGradientBasedOptimizer:
        optimizer = self._options.InnerOptimizer
        if optimizer is None or is_inner_solver(optimizer):
            rate, kept = self._options.InnerLearningRate, self._default_inner
            if kept is None or kept.GetCurrentLearningRate() != rate:
                kept = self._default_inner = SGDOptimizer(rate)
            return kept
        return optimizer

    def _meta_optimizer(self) -> IGradientBasedOptimizer:
        """What moves the meta-parameters, with this learner's memory; by what takes turns alone."""
        if self._options.MetaOptimizer is not None:
            return self._own(self._options.MetaOptimizer)
        rate = self._options.OuterLearningRate
        if self._default_optimizer is None:
            self._default_optimizer = self._new_meta_optimizer(rate)
        elif self._default_optimizer.GetCurrentLearningRate() != rate:
            state = self._default_optimizer.GetState()
            self._default_optimizer = self._new_meta_optimizer(rate)
            self._default_optimizer.SetState(state)
        return self._default_optimizer

    def _own(self, given: IGradientBasedOptimizer) -> OwnOptimizer:
        """An optimizer of the options with this learner's memory, also when it comes back after others."""
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

    def _opened(self, tasks: Tasks[T, TInput, TOutput], *roles: str, training: bool = True) -> Chunk:
        """All the tasks with the objectives of their sets, after everything about them has been checked.

        In training, layers such as Dropout are active; adaptation and evaluation for use are without.
        """
        self._require_valid()
        with self._state:
            model, parameters, loss = self.BaseModel, self.BaseModel.GetParameters(), self._loss()
            learned = self._learned_for(parameters)
        if not is_inner_solver(self._options.InnerOptimizer):
            for place, task in enumerate(tasks):
                require_no_more_batches(task, place, self._inner_steps)
        lease = self._objectives.lease(model, loss)
        objectives = {role: self._objectives.make(role, tasks, model, loss, lease, training=training) for role in roles}
        return Chunk(model_backend(model), model, parameters, learned, lease, tasks, objectives)

    def _kind_of(self, parameters: Array) -> tuple[np.dtype[Any], tuple[int, ...]]:
        return self._backend.dtype_of(parameters), tuple(parameters.shape)

    def _learned_for(self, parameters: Array) -> Array | None:
        """What is learned beside these parameters of the model.

        Refuses a model that came into the options by itself, where something was learned beside the one before.
        """
        kind, learned = self._kind_of(parameters), self._learned()
        if kind != self._kind and learned is not None:
            (dtype, shape), (own, size) = self._kind, kind
            raise InvalidOperationException(
                f"what is learned beside the parameters is for {dtype}{shape}, and MetaModel has {own}{size}; with "
                "SetMetaModel it starts anew for another model"
            )
        self._kind = kind
        return learned

    def _inner_loop(self, chunk: Chunk, steps: int | None = None) -> InnerLoop:
        """The inner loop of some tasks, before its first step."""
        inner, start = self._inner_problem(chunk)
        count = self._inner_steps if steps is None else steps
        return InnerLoop(inner, start, self._rule(chunk), count, self._inner_tolerance())

    def _adapted(self, chunk: Chunk, watch: Callable[[Array], None] | None = None) -> tuple[Array, Array]:
        """The start θ and the adapted parameters φ of every task, stacked; ``watch`` sees the losses of each step.

        φ may lie where the support objective works: to keep it beyond the chunk, copy it.
        Raises InvalidOperationException when a task's parameters do not stay finite.
        """
        solver = self._options.InnerOptimizer
        if is_inner_solver(solver):
            return self._minimized(chunk, solver, watch)
        loop = self._inner_loop(chunk)
        with chunk.backend.errors_ignored():
            loop.run(watch)
            loop.work.queue.then(lambda: self._require_adapted(loop.chunk, loop.start, loop.points))
        return self._whole(chunk, loop.start), self._whole(chunk, loop.points)

    def _minimized(
        self, chunk: Chunk, solver: InnerSolver | RowMinimizer, watch: Callable[[Array], None] | None
    ) -> tuple[Array, Array]:
        """θ and φ where a solver of the inner problem, which may do anything, takes the place of steps."""
        inner, start = self._inner_problem(chunk)
        if watch is not None:
            watch(inner.support.evaluate(start).losses)
        with chunk.backend.errors_ignored():
            adapted = minimized(inner, start, solver, self._rule(chunk).follow, self._proximal_strength(chunk))
            self._require_adapted(inner, start, adapted, "parameter vector that InnerOptimizer returned")
        return self._whole(chunk, start), self._whole(chunk, adapted)

    def _require_adapted(
        self, chunk: Chunk, start: Array, points: Array, name: str = "adapted parameter vector"
    ) -> None:
        """Raise InvalidOperationException when a task's adapted parameters are not finite."""
        if not all_finite(chunk.backend, points).all():
            # Which it was is worth one more evaluation: bad data, or steps that are too long.
            ended = chunk.backend.asarray(points)
            first = chunk.support.evaluate(start)
            chunk.require_finite("support loss", first.losses)
            chunk.require_finite("support gradient", first.gradients)
            chunk.require_finite(name, ended)

    def _meta_parameters(self) -> Array:
        """All that the meta-optimizer moves, in one vector: the model's parameters, and what else is learned."""
        with self._state:
            parameters, learned = self.BaseModel.GetParameters(), self._learned()
        return parameters if learned is None else self._backend.concat([parameters, learned], 0)

    def _set_meta_parameters(self, vector: Array) -> None:
        with self._state:
            backend, learned = self._backend, self._learned()
            if learned is not None:
                count = int(vector.shape[0]) - int(learned.shape[0])
                self._set_learned(backend.asarray(backend.index(vector, (slice(count, None),))))
                vector = backend.asarray(backend.index(vector, (slice(0, count),)))
            self.BaseModel.SetParameters(vector)

    def _put_aside(self) -> Callable[[], None]:
        """Keep all that a step may change; returns what puts it back."""
        try:
            return self._putting_back()
        except Exception:
            # Where an option is to blame, that is what is said.
            self._require_valid()
            raise

    def _putting_back(self) -> Callable[[], None]:
        iteration, extra, random = self._iteration, self._extra_state(), self._random.get()
        put_parameters_back = self._put_parameters_aside()

        def put_back() -> None:
            put_parameters_back()
            self._set_extra_state(extra)
            self._random.set(random)
            self._iteration = iteration

        return put_back

    def _put_parameters_aside(self) -> Callable[[], None]:
        """The part of `_put_aside` that a meta-update changes."""
        model, optimizer = self.BaseModel, self._meta_optimizer()
        memory = optimizer.GetState()
        with self._state:
            # Copies, since not every model keeps to itself what it is given.
            parameters, learned = _copied(model.GetParameters()), _copied(self._learned())

        def put_back() -> None:
            optimizer.SetState(memory)
            with self._state:
                if learned is not None:
                    self._set_learned(learned)
                model.SetParameters(parameters)

        return put_back

    def _meta_update(self, meta_gradients: Array) -> float:
        """Clip the mean of the tasks' meta-gradients, hand it to the meta-optimizer; returns its norm before that.

        Whatever goes wrong in it, parameters and optimizer are put back.
        """
        backend, optimizer = self._backend, self._meta_optimizer()
        with backend.errors_ignored():
            mean = backend.sum(meta_gradients, (0,)) / float(meta_gradients.shape[0])
            norm = norm_of(backend, mean)
        if not math.isfinite(norm):
            raise InvalidOperationException("the mean meta-gradient is not finite; nothing was changed")
        limit = self._options.GradientClipThreshold
        if limit is not None and 0 < limit < norm:
            mean = mean * float(limit / norm)
        self._journal.run(self._put_parameters_aside, lambda: self._move(optimizer, mean))
        return norm

    def _move(self, optimizer: IGradientBasedOptimizer, mean: Array) -> None:
        """Have the meta-optimizer move the meta-parameters along a mean meta-gradient."""
        backend = self._backend
        with backend.errors_ignored():
            updated = optimizer.UpdateParameters(backend.asarray(self._meta_parameters()), mean)
            if not bool(backend.to_numpy(backend.elementwise("isfinite")(updated)).all()):
                raise InvalidOperationException("the meta-update is not finite; nothing was changed")
        self._set_meta_parameters(updated)

    def _scalar(self) -> Callable[[float], T]:
        """The type T: from floats to numbers of the model's dtype."""
        return cast("Callable[[float], T]", parameter_dtype(self.BaseModel, self._backend).type)


def _copied(array: Array) -> Array:
    backend = backend_of(array)
    return array if backend is None else backend.asarray(array)
