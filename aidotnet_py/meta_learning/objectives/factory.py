"""Which objective a model gets, and what is kept for the next batch of the same shapes."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from aidotnet_py.autodiff.array_type import ArrayType
from aidotnet_py.autodiff.transforms.splitting import Split, split
from aidotnet_py.backends import Array, Backend, backend_of
from aidotnet_py.caller import level_outside
from aidotnet_py.exceptions import ArgumentException
from aidotnet_py.losses import ILossFunction
from aidotnet_py.meta_learning.capabilities import computes_gradients, is_differentiable, missing_members, model_backend
from aidotnet_py.meta_learning.objectives.by_support import NormalizedBySupport
from aidotnet_py.meta_learning.objectives.interface import TaskObjective
from aidotnet_py.meta_learning.objectives.partial import PartialObjective
from aidotnet_py.meta_learning.objectives.sampled import ComputedObjective, PerturbedObjective
from aidotnet_py.meta_learning.objectives.successive import SuccessiveObjective
from aidotnet_py.meta_learning.objectives.traced import (
    BatchedPrograms,
    ModelFunction,
    Place,
    Shapes,
    Signature,
    TaskPrograms,
    TracedObjective,
)
from aidotnet_py.meta_learning.tasks import IMetaLearningTask, all_examples, first_batch
from aidotnet_py.meta_learning.validation import Shape, TracedOutput, checked_batches, traced_output
from aidotnet_py.models import IDifferentiableModel, IFullModel
from aidotnet_py.nn.statistics import Statistics

__all__ = ["ObjectiveFactory"]

# Support and query sets, in training and in evaluation, and the last, smaller chunk of each; and the bytes of them all,
# beyond which the oldest go, though never those that the batch at hand or the last one worked with.
_MOST_PROGRAMS, _MOST_BYTES = 8, 2**30
# A function in two is small, and takes long to make.
_MOST_SPLITS = 64


class ObjectiveFactory:
    """Makes the objectives of a learner.

    Parameters
    ----------
    generator : numpy.random.Generator
        For the models whose gradients are estimated from random perturbations.
    """

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator
        self._warned = False
        self._forget()

    def _forget(self) -> None:
        """Begin with nothing kept."""
        self._apply: Callable[..., Any] | None = None
        self._traced: OrderedDict[Signature, TaskPrograms] = OrderedDict()
        self._ready: OrderedDict[Place, BatchedPrograms] = OrderedDict()
        self._splits: OrderedDict[Hashable, Split] = OrderedDict()
        # The places used for the batch at hand, and for the one before it, whose programs stay.
        self._in_use: set[Place] = set()
        self._in_use_before: set[Place] = set()
        self._outputs: dict[Any, TracedOutput] = {}
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        """Without what is kept: a copied program would no longer share the buffers that its parts share."""
        return {"_generator": self._generator, "_warned": self._warned}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._generator, self._warned = state["_generator"], state["_warned"]
        self._forget()

    def make(
        self,
        role: str,
        tasks: Sequence[IMetaLearningTask[Any, Any, Any]],
        model: IFullModel[Any, Any, Any],
        loss: ILossFunction[Any],
    ) -> TaskObjective:
        """The objective of one set (its role: "Support" or "Query") of each task, by the best that the model offers.

        All is checked here, and nothing computed yet.
        """
        if role == "Query" and is_differentiable(model) and "support" in self._statistics(tasks, model, loss):
            return self._by_support(tasks, model, loss)
        batches = checked_batches(role, tasks, model, loss, self._output_shape)
        objectives = [self._of_batch(role, model, loss, *batch) for batch in batches]
        return objectives[0] if len(objectives) == 1 else SuccessiveObjective(objectives, model_backend(model))

    def normalization(
        self,
        tasks: Sequence[IMetaLearningTask[Any, Any, Any]],
        model: IFullModel[Any, Any, Any],
        loss: ILossFunction[Any],
    ) -> Statistics | None:
        """What the query sets of such tasks are normalised by.

        "batch" where a layer takes the statistics of the query set itself; None where nothing that is known hangs on
        other examples.
        """
        found = self._statistics(tasks, model, loss) if is_differentiable(model) else frozenset[Statistics]()
        return "batch" if "batch" in found else next(iter(found), None)

    def _statistics(
        self,
        tasks: Sequence[IMetaLearningTask[Any, Any, Any]],
        model: IDifferentiableModel[Any, Any, Any],
        loss: ILossFunction[Any],
    ) -> frozenset[Statistics]:
        """The statistics that the model's layers normalise query sets by."""
        first = first_batch(tasks[0].SupportInput)
        known = None if backend_of(first) is None else ArrayType(tuple(first.shape), model.backend.dtype_of(first))
        if known not in self._outputs or model.apply != self._apply:
            checked_batches("Support", tasks, model, loss, self._output_shape)
            known = ArrayType(tuple(first.shape), model.backend.dtype_of(first))
        return self._outputs[known].statistics

    def _by_support(
        self,
        tasks: Sequence[IMetaLearningTask[Any, Any, Any]],
        model: IDifferentiableModel[Any, Any, Any],
        loss: ILossFunction[Any],
    ) -> TaskObjective:
        """The objective of query sets that are normalised by the statistics of the support sets."""
        backend = model.backend
        supports = [all_examples(backend, task.SupportInput) for task in tasks]
        count = int(supports[0].shape[0])
        function = NormalizedBySupport(model.apply, count)

        def both(x: Array) -> ArrayType:
            if backend.dtype_of(x) != backend.dtype_of(supports[0]) or x.shape[1:] != supports[0].shape[1:]:
                raise ArgumentException(
                    "query examples must be of the dtype and shape of support examples, whose statistics they are "
                    f"normalised by, {backend.dtype_of(supports[0])}{tuple(supports[0].shape[1:])}, got "
                    f"{backend.dtype_of(x)}{tuple(x.shape[1:])}"
                )
            return ArrayType((count + x.shape[0], *x.shape[1:]), backend.dtype_of(x))

        def shape_of(model: IDifferentiableModel[Any, Any, Any], x: Array) -> Shape:
            key = function, both(x)
            if key not in self._outputs:
                self._outputs[key] = traced_output(function, model, both(x))
            return self._outputs[key].shape

        ((queries, targets),) = checked_batches("Query", tasks, model, loss, shape_of)
        inputs = [backend.concat(pair, 0) for pair in zip(supports, queries, strict=True)]
        return self._of_batch("Query", model, loss, inputs, targets, function)

    def _of_batch(
        self,
        role: str,
        model: IFullModel[Any, Any, Any],
        loss: ILossFunction[Any],
        inputs: Sequence[Array],
        targets: Sequence[Array],
        apply: ModelFunction | None = None,
    ) -> TaskObjective:
        """The objective of one batch of each task; of a function of the model's parameters in the place of its own."""
        if is_differentiable(model):
            if self._in_use:
                self._in_use_before, self._in_use = self._in_use, set()
            signature = Signature.of(model, loss, inputs[0], targets[0])
            if apply is not None:
                signature = replace(signature, apply=apply)
            return TracedObjective(role, model.backend, signature, inputs, targets, self)
        backend = model_backend(model)
        if computes_gradients(model):
            return ComputedObjective(model, loss, backend, inputs, targets)
        if not self._warned:
            self._warned = True
            missing = ", ".join(missing_members(model, IDifferentiableModel))
            warnings.warn(
                f"{type(model).__name__} lacks {missing} of IDifferentiableModel, and ComputeGradients of "
                "IGradientComputable; its gradients are estimated by simultaneous perturbation: they are noisy where "
                "it has more than a few parameters, and slow",
                UserWarning,
                stacklevel=level_outside(),
            )
        return PerturbedObjective(model, loss, backend, inputs, targets, self._generator)

    def partial(
        self, role: str, whole: TaskObjective, model: IDifferentiableModel[Any, Any, Any], adapted: Sequence[str]
    ) -> TaskObjective:
        """An objective of the parameters of these names alone, with buffers of that role; of a traced model's."""
        backend = model.backend
        shapes = {name: tuple(shape) for name, shape in model.parameter_shapes.items()}
        staying = {name: shape for name, shape in shapes.items() if name not in adapted}
        parts: list[TaskObjective] = []
        for place, batch in enumerate(whole.batches):
            assert isinstance(batch, TracedObjective)
            split = self._split(model, shapes, adapted, batch.input_type)
            parts.append(PartialObjective(batch, f"{role} {place}", split, staying, backend))
        return parts[0] if len(parts) == 1 else SuccessiveObjective(parts, backend)

    def _split(
        self, model: IDifferentiableModel[Any, Any, Any], shapes: Shapes, adapted: Sequence[str], x: ArrayType
    ) -> Split:
        dtype = model.backend.dtype_of(model.GetParameters())
        key = (tuple(shapes.items()), tuple(adapted), x, dtype)
        found = self._splits.pop(key, None) or split(model.apply, shapes, adapted, x, dtype)
        self._splits[key] = found
        while len(self._splits) > _MOST_SPLITS:
            self._splits.popitem(last=False)
        return found

    def _output_shape(self, model: IDifferentiableModel[Any, Any, Any], x: Array) -> Shape:
        if model.apply != self._apply:
            # Another model: what was kept for the one before is of no more use, and would keep it alive.
            for kept in (self._traced, self._ready, self._splits, self._in_use, self._in_use_before):
                kept.clear()
            self._outputs.clear()
            self._apply = model.apply
        key = ArrayType(tuple(x.shape), model.backend.dtype_of(x))
        if key not in self._outputs:
            self._outputs[key] = traced_output(model.apply, model, key)
        return self._outputs[key].shape

    def programs(self, signature: Signature) -> TaskPrograms:
        """The programs of one task, kept for as long as they are among the last few used."""
        with self._lock:
            programs = self._traced.pop(signature, None) or TaskPrograms(signature)
            self._traced[signature] = programs
            while len(self._traced) > _MOST_PROGRAMS:
                self._traced.popitem(last=False)
            return programs

    def ready(self, place: Place, backend: Backend) -> BatchedPrograms:
        """The programs of a place and its buffers, kept within bounds beyond which the oldest go."""
        programs = self.programs(place.signature)
        with self._lock:
            found = self._ready.pop(place, None) or BatchedPrograms(programs, place.tasks, backend)
            self._ready[place] = found
            self._in_use.add(place)
            for old in [p for p in self._ready if p not in self._in_use | self._in_use_before]:
                total = sum(p.nbytes for p in self._ready.values())
                if len(self._ready) > _MOST_PROGRAMS or total > _MOST_BYTES:
                    del self._ready[old]
            return found
