"""The objective of each kind of model, and caches for the next batch of the same shapes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from aidotnet_py.autodiff.extend import ArrayType, CapturedState, Split, split
from aidotnet_py.backends import Array, Backend, backend_of
from aidotnet_py.caching import BoundedCache
from aidotnet_py.caller import level_outside
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.locks import Lock
from aidotnet_py.losses import ILossFunction
from aidotnet_py.meta_learning.contract.protocols import (
    computes_gradients,
    is_differentiable,
    missing_members,
    model_backend,
)
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask, all_examples, first_batch, is_batches
from aidotnet_py.meta_learning.objective.batches import SuccessiveObjective
from aidotnet_py.meta_learning.objective.buffers import Lease, Workspaces
from aidotnet_py.meta_learning.objective.by_support import NormalizedBySupport
from aidotnet_py.meta_learning.objective.checks import (
    Shape,
    TracedOutput,
    check_batches,
    places_by_size,
    trace_output,
)
from aidotnet_py.meta_learning.objective.interface import TaskObjective
from aidotnet_py.meta_learning.objective.numerical import ComputedObjective, PerturbedObjective
from aidotnet_py.meta_learning.objective.padding import (
    MaskedLoss,
    can_mark,
    flops_of_example,
    pad_set,
    padded_size,
)
from aidotnet_py.meta_learning.objective.partial import PartialObjective
from aidotnet_py.meta_learning.objective.sets import Sets, names_of_places
from aidotnet_py.meta_learning.objective.task_programs import ModelFunction, Shapes, Signature, TaskPrograms
from aidotnet_py.meta_learning.objective.traced import TracedObjective
from aidotnet_py.models import IDifferentiableModel, IFullModel
from aidotnet_py.models.interfaces import parameter_dtype
from aidotnet_py.models.noise import noise_shapes
from aidotnet_py.nn.statistics import Statistics

__all__ = ["Group", "ObjectiveFactory"]

# Support and query sets, in training and in evaluation, of a dozen sizes.
_MOST_PROGRAMS = 32
# Of all else, which is small and takes long to make: five facts for each kind of sets.
_MOST_FACTS = 1280


@dataclass(frozen=True)
class Group:
    """Places of tasks in a batch, and for each role the size that their sets are padded to, if they are.

    Of a share of a batch, it also has the noise of the whole batch: the keys of each role's batches, and the place of
    the first task among those of the whole group.
    """

    places: Sequence[int]
    sizes: Mapping[str, int] = field(default_factory=dict[str, int])
    noise: Mapping[str, Sequence[Sequence[int]]] | None = None
    first: int = 0

    def with_noise(self, role: str, objective: TaskObjective, backend: Backend) -> TaskObjective:
        """Return the objective of a role's sets with the noise of the whole batch, if the group is a share's."""
        if self.noise is None:
            return objective
        batches = [
            batch.with_noise(key, self.first) if isinstance(batch, TracedObjective) else batch
            for batch, key in zip(objective.batches, self.noise[role], strict=True)
        ]
        return batches[0] if len(batches) == 1 else SuccessiveObjective(batches, backend)


class ObjectiveFactory:
    """Factory of a learner's objectives; calls in several threads share traced programs, but no buffers.

    Parameters
    ----------
    generator : numpy.random.Generator
        Source of the noise of training steps, and of the perturbations that estimate gradients.
    """

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator
        self._warned = False
        self._forget()

    def _forget(self) -> None:
        """Begin with empty caches."""
        self._subjects: tuple[Callable[..., Any], ILossFunction[Any]] | None = None
        self._settings: CapturedState | None = None
        self._traced: BoundedCache[Signature, TaskPrograms] = BoundedCache(_MOST_PROGRAMS)
        # What is known of model and loss on some kind of sets; keys begin with the name of the fact.
        self._facts: BoundedCache[tuple[Hashable, ...], Any] = BoundedCache(_MOST_FACTS)
        self._masked: MaskedLoss | None = None
        self._workspaces = Workspaces()
        self._lock = Lock()
        # Held during calls of a model that is not traced.
        self.asking = Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the caches: parts of a copied program would no longer share their buffers."""
        return {"_generator": self._generator, "_warned": self._warned}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._generator, self._warned = state["_generator"], state["_warned"]
        self._forget()

    def lease(self, model: IFullModel[Any, Any, Any], loss: ILossFunction[Any]) -> Lease:
        """Return the workspace of one call; empty the caches first if model, loss or a setting has changed."""
        with self._lock:
            if is_differentiable(model):
                self._keep_for(model, loss)
            return Lease(self._workspaces, self._lock, self.programs)

    def groups(
        self,
        sets: Sets,
        roles: Sequence[str],
        model: IFullModel[Any, Any, Any],
        loss: ILossFunction[Any],
        *,
        training: bool,
    ) -> list[Group]:
        """Return the tasks of a batch in groups that one program serves; nothing is checked.

        Tasks are alike in a group, or are padded to one size where model and loss treat each example by itself.
        """
        exact = places_by_size(sets, roles)
        if len(exact) == 1:
            return [Group(places) for places in exact]
        flops = [self._flops_if_padded(sets, role, model, loss, training) for role in roles]
        if 0 in flops:
            return [Group(places) for places in exact]
        firsts, inputs = [places[0] for places in exact], [sets.columns(role)[0] for role in roles]
        counts = [tuple(int(of_role[place].shape[0]) for of_role in inputs) for place in firsts]
        most = tuple(max(of_role) for of_role in zip(*counts, strict=True))
        # Where the work is little, calls cost more than examples, and one size serves all.
        work = len(sets) * sum(count * each for count, each in zip(most, flops, strict=True))
        if work <= model_backend(model).flops_at_once:
            counts = [most] * len(exact)
        merged: dict[tuple[int, ...], list[int]] = {}
        for places, of_roles in zip(exact, counts, strict=True):
            merged.setdefault(tuple(map(padded_size, of_roles)), []).extend(places)
        return [Group(sorted(places), dict(zip(roles, sizes, strict=True))) for sizes, places in merged.items()]

    def _flops_if_padded(
        self,
        sets: Sets,
        role: str,
        model: IFullModel[Any, Any, Any],
        loss: ILossFunction[Any],
        training: bool,
    ) -> int:
        """Return the operations of a pass over one example, if sets of a role may be padded; 0 if not."""
        if not is_differentiable(model):
            return 0
        backend, data = model.backend, sets.pairs(role)
        if not all(backend.owns(x) and backend.owns(y) and 0 not in x.shape[:1] for x, y in data):
            return 0
        x, y = data[0]
        if not can_mark(backend, [y for _, y in data]):
            return 0
        example, target = (ArrayType(tuple(of.shape[1:]), backend.dtype_of(of)) for of in (x, y))
        counts = {int(x.shape[0]) for x, _ in data}
        # One look into the cache for all sizes.
        known: dict[int, int] = self._facts.get_or_make(("flops", model.apply, example, target), dict)
        for size in counts | set(map(padded_size, counts)):
            if size not in known:
                known[size] = flops_of_example(model, loss, example, target, size)
            if not known[size]:
                return 0
        # After the look at examples, which passes over those that the model cannot take: the checks name them.
        if training and self._noise_shapes(model, ArrayType(tuple(x.shape), backend.dtype_of(x))):
            return 0
        return known[max(counts)]

    def check(
        self,
        role: str,
        sets: Sets,
        model: IFullModel[Any, Any, Any],
        loss: ILossFunction[Any],
        *,
        beside: str | None = None,
    ) -> None:
        """Raise ArgumentException where a set of a role fits model or loss not, each task by itself.

        ``beside`` is the role of the sets that the model sees together with these.
        """
        for place in range(len(sets)):
            part = sets.part([place])
            others = 0 if beside is None else _count_of_examples(part.columns(beside)[0][0])
            check_batches(role, part, model, loss, partial(self._output_shape, others=others))

    def make(
        self,
        role: str,
        sets: Sets,
        model: IFullModel[Any, Any, Any],
        loss: ILossFunction[Any],
        lease: Lease,
        *,
        training: bool = False,
        size: int | None = None,
    ) -> TaskObjective:
        """Return the objective of one set of each task (role "Support" or "Query"), by the best way the model offers.

        All checks are made here, and nothing is computed yet. In training, a model that takes noise gets noise, which
        stays the same for all work on the objective.
        """
        if size is not None:
            return self._padded(role, sets, model, loss, lease, size)
        if role == "Query" and is_differentiable(model) and "support" in self._statistics(sets, model, loss):
            return self._by_support(sets, model, loss, lease, training)
        batches = check_batches(role, sets, model, loss, self._output_shape)
        objectives = [self._of_batch(role, model, loss, lease, training, *batch) for batch in batches]
        return objectives[0] if len(objectives) == 1 else SuccessiveObjective(objectives, model_backend(model))

    def _padded(
        self,
        role: str,
        sets: Sets,
        model: IFullModel[Any, Any, Any],
        loss: ILossFunction[Any],
        lease: Lease,
        size: int,
    ) -> TaskObjective:
        """Return the objective of sets that are checked as they are, and padded to a size."""
        checked: dict[int, tuple[Array, Array]] = {}
        for places in places_by_size(sets, [role]):
            (some,) = check_batches(role, sets.part(places), model, loss, self._output_shape)
            checked.update(zip(places, zip(*some, strict=True), strict=True))
        backend, masked = model_backend(model), self._masked
        if masked is None or masked.loss is not loss:
            # Another call has another loss by now.
            masked = MaskedLoss(loss)
        padded = [pad_set(backend, *checked[place], size) for place in range(len(sets))]
        inputs, targets = ([pair[i] for pair in padded] for i in range(2))
        return self._of_batch(role, model, masked, lease, False, inputs, targets)

    def normalization(
        self,
        tasks: Sequence[IMetaLearningTask[Any, Any, Any]],
        model: IFullModel[Any, Any, Any],
        loss: ILossFunction[Any],
    ) -> Statistics | None:
        """Return the kind of statistics that normalise the query sets of such tasks.

        "batch" if a layer takes the statistics of the query set itself; None if no layer is known to depend on other
        examples.
        """
        kinds = (
            self._statistics(Sets(tasks, names_of_places(len(tasks))), model, loss)
            if is_differentiable(model)
            else frozenset[Statistics]()
        )
        return "batch" if "batch" in kinds else next(iter(kinds), None)

    def _statistics(
        self,
        sets: Sets,
        model: IDifferentiableModel[Any, Any, Any],
        loss: ILossFunction[Any],
    ) -> frozenset[Statistics]:
        """Return the kinds of statistics by which the model's layers normalise query sets."""
        first = first_batch(sets.columns("Support")[0][0])
        if backend_of(first) is None:
            # Raises, with the message for a set that is no array.
            check_batches("Support", sets, model, loss, self._output_shape)
        return self._output(model, model.apply, ArrayType(tuple(first.shape), model.backend.dtype_of(first))).statistics

    def _by_support(
        self,
        sets: Sets,
        model: IDifferentiableModel[Any, Any, Any],
        loss: ILossFunction[Any],
        lease: Lease,
        training: bool,
    ) -> TaskObjective:
        """Return the objective of query sets that are normalised by the statistics of the support sets."""
        backend = model.backend
        supports = [all_examples(backend, support) for support in sets.columns("Support")[0]]
        count = int(supports[0].shape[0])
        function = NormalizedBySupport(model.apply, tuple(model.parameter_shapes), count)

        def both(x: Array) -> ArrayType:
            if backend.dtype_of(x) != backend.dtype_of(supports[0]) or x.shape[1:] != supports[0].shape[1:]:
                raise ArgumentException(
                    "query examples must be of the dtype and shape of support examples, whose statistics they are "
                    f"normalised by, {backend.dtype_of(supports[0])}{tuple(supports[0].shape[1:])}, got "
                    f"{backend.dtype_of(x)}{tuple(x.shape[1:])}"
                )
            return ArrayType((count + x.shape[0], *x.shape[1:]), backend.dtype_of(x))

        def shape_of(model: IDifferentiableModel[Any, Any, Any], x: Array) -> Shape:
            return self._output(model, function, both(x)).shape

        ((queries, targets),) = check_batches("Query", sets, model, loss, shape_of)
        inputs = [backend.concat(pair, 0) for pair in zip(supports, queries, strict=True)]
        noisy = [ArrayType(tuple(of.shape), backend.dtype_of(of)) for of in (queries[0], supports[0])]
        return self._of_batch("Query", model, loss, lease, training, inputs, targets, function, noisy)

    def _of_batch(
        self,
        role: str,
        model: IFullModel[Any, Any, Any],
        loss: ILossFunction[Any],
        lease: Lease,
        training: bool,
        inputs: Sequence[Array],
        targets: Sequence[Array],
        apply: ModelFunction | None = None,
        noisy: Sequence[ArrayType] = (),
    ) -> TaskObjective:
        """Return the objective of one batch of each task, by ``apply`` or, without it, by the model's function.

        ``noisy`` has the types of the inputs that noise is drawn for and of those that normalise them, if ``apply``
        takes both.
        """
        if is_differentiable(model):
            signature = Signature.of(model, loss, inputs[0], targets[0])
            if apply is not None:
                signature = replace(signature, apply=apply)
            key: list[int] = []
            if training and (shapes := self._noise_shapes(model, *(noisy or [signature.input]))):
                signature = replace(signature, noise=tuple(shapes.items()))
                # One draw for all tasks, so that neither their number nor their chunks change later draws.
                key = self._generator.integers(0, 2**64, 2, np.uint64).tolist()
            signature = self._pure_signature(signature)
            return TracedObjective(role, model.backend, signature, inputs, targets, lease, key)
        backend = model_backend(model)
        if computes_gradients(model):
            return ComputedObjective(model, loss, backend, inputs, targets, self.asking)
        with self._lock:
            warned, self._warned = self._warned, True
        if not warned:
            missing = ", ".join(missing_members(model, IDifferentiableModel))
            warnings.warn(
                f"{type(model).__name__} lacks {missing} of IDifferentiableModel, and ComputeGradients of "
                "IGradientComputable; its gradients are estimated by simultaneous perturbation: they are noisy where "
                "it has more than a few parameters, and slow",
                UserWarning,
                stacklevel=level_outside(),
            )
        return PerturbedObjective(model, loss, backend, inputs, targets, self.asking, self._generator)

    def partial(
        self, role: str, whole: TaskObjective, model: IFullModel[Any, Any, Any], staying: Collection[str]
    ) -> TaskObjective:
        """Return an objective of a traced model's parameters but those staying, with buffers of its own role."""
        assert is_differentiable(model)
        backend = model.backend
        shapes = {name: tuple(shape) for name, shape in model.parameter_shapes.items()}
        adapted = [name for name in shapes if name not in staying]
        others = {name: shape for name, shape in shapes.items() if name in staying}
        parts: list[TaskObjective] = []
        for place, batch in enumerate(whole.batches):
            assert isinstance(batch, TracedObjective)
            split = self._split(model, shapes, adapted, batch)
            parts.append(PartialObjective(batch, f"{role} {place}", split, others, backend))
        return parts[0] if len(parts) == 1 else SuccessiveObjective(parts, backend)

    def _split(
        self, model: IDifferentiableModel[Any, Any, Any], shapes: Shapes, adapted: Sequence[str], batch: TracedObjective
    ) -> Split:
        dtype, x, noise = parameter_dtype(model, model.backend), batch.input_type, batch.noise_shapes
        key = ("split", model.apply, tuple(shapes.items()), tuple(adapted), x, dtype, tuple(noise.items()))
        with self._lock:
            made: Split = self._facts.get_or_make(key, lambda: split(model.apply, shapes, adapted, x, dtype, noise))
        return made

    def _keep_for(self, model: IDifferentiableModel[Any, Any, Any], loss: ILossFunction[Any]) -> None:
        """Empty the caches if model or loss is another one than before, or if a setting of them has changed.

        Old programs are of no more use, and would keep the old model alive. A call that still uses them returns its
        workspace to the old collection.
        """
        before = self._subjects
        same = before is not None and model.apply == before[0] and loss is before[1]
        if same and not (self._settings is not None and self._settings.changed()):
            return
        self._traced.clear()
        self._facts.clear()
        self._masked = MaskedLoss(loss)
        self._workspaces = Workspaces()
        self._subjects, self._settings = (model.apply, loss), None

    def _pure_signature(self, signature: Signature) -> Signature:
        """Return the one object of equal signatures, once two traces of model and loss have given one program."""

        def checked() -> Signature:
            self.programs(signature).require_pure()
            return signature

        known: Signature = self._facts.get_or_make(("pure", signature), checked)
        return known

    def _note_settings(self) -> None:
        """Remember the settings with which model and loss have just been traced."""
        if self._subjects is not None and (self._settings is None or self._settings.changed()):
            apply, loss = self._subjects
            self._settings = CapturedState(apply, loss.formula)

    def _noise_shapes(self, model: IDifferentiableModel[Any, Any, Any], *types: ArrayType) -> dict[str, Shape]:
        with self._lock:
            shapes: dict[str, Shape] = self._facts.get_or_make(
                ("noise", model.apply, types), lambda: noise_shapes(model, *types)
            )
        return shapes

    def _output_shape(self, model: IDifferentiableModel[Any, Any, Any], x: Array, others: int = 0) -> Shape:
        """Return the shape of the outputs for some examples, and so many other ones with them."""
        examples = ArrayType((others + x.shape[0], *x.shape[1:]), model.backend.dtype_of(x))
        return self._output(model, model.apply, examples).shape

    def _output(self, model: IDifferentiableModel[Any, Any, Any], apply: ModelFunction, x: ArrayType) -> TracedOutput:
        with self._lock:
            output: TracedOutput = self._facts.get_or_make(("output", apply, x), lambda: trace_output(apply, model, x))
        return output

    def programs(self, signature: Signature) -> TaskPrograms:
        """Return the programs of one task; a bounded cache keeps those used last."""
        with self._lock:
            return self._traced.get_or_make(signature, lambda: TaskPrograms(signature, self._note_settings))


def _count_of_examples(data: Any) -> int:
    """Return the number of examples of a set that comes as one array or in batches."""
    return sum(int(batch.shape[0]) for batch in (data if is_batches(data) else [data]))
