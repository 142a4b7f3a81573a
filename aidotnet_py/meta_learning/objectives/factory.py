"""Which objective a model gets, and what is kept for the next batch of the same shapes."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from aidotnet_py.backends import Array, Backend
from aidotnet_py.losses import ILossFunction
from aidotnet_py.meta_learning.caller import level_outside
from aidotnet_py.meta_learning.capabilities import computes_gradients, is_differentiable, missing_members, model_backend
from aidotnet_py.meta_learning.objectives.interface import TaskObjective
from aidotnet_py.meta_learning.objectives.sampled import ComputedObjective, PerturbedObjective
from aidotnet_py.meta_learning.objectives.traced import BatchedPrograms, Signature, TracedObjective
from aidotnet_py.meta_learning.tasks import IMetaLearningTask
from aidotnet_py.meta_learning.validation import Shape, checked_sets, output_shape
from aidotnet_py.models import IDifferentiableModel, IFullModel

__all__ = ["ObjectiveFactory"]

# Support and query sets, in training and in evaluation, and the last, smaller chunk of each; and the bytes of them all,
# beyond which the oldest go, though never the two that a step works with.
_MOST_PROGRAMS, _LEAST_PROGRAMS, _MOST_BYTES = 8, 2, 2**30


class ObjectiveFactory:
    """Makes the objectives of a learner.

    Parameters
    ----------
    generator : numpy.random.Generator
        For the models whose gradients are estimated from random perturbations.
    """

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator
        self._apply: Callable[..., Any] | None = None
        self._programs: OrderedDict[Signature, BatchedPrograms] = OrderedDict()
        self._output_shapes: dict[Any, Shape] = {}
        self._warned = False

    def __getstate__(self) -> dict[str, Any]:
        """Without what is kept: a copied program would no longer share the buffers that its parts share."""
        return {**self.__dict__, "_apply": None, "_programs": OrderedDict(), "_output_shapes": {}}

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
        inputs, targets = checked_sets(role, tasks, model, loss, self._output_shape)
        if is_differentiable(model):
            return TracedObjective(role, model, loss, inputs, targets, self._compiled)
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

    def _output_shape(self, model: IDifferentiableModel[Any, Any, Any], x: Array) -> Shape:
        if model.apply != self._apply:
            # Another model: what was kept for the one before is of no more use, and would keep it alive.
            self._programs.clear()
            self._output_shapes.clear()
            self._apply = model.apply
        key = (tuple(x.shape), model.backend.dtype_of(x))
        if key not in self._output_shapes:
            self._output_shapes[key] = output_shape(model, x)
        return self._output_shapes[key]

    def _compiled(self, signature: Signature, backend: Backend) -> BatchedPrograms:
        programs = self._programs.pop(signature, None) or BatchedPrograms(signature, backend)
        self._programs[signature] = programs
        while len(self._programs) > _MOST_PROGRAMS or (
            len(self._programs) > _LEAST_PROGRAMS and sum(p.nbytes for p in self._programs.values()) > _MOST_BYTES
        ):
            self._programs.popitem(last=False)
        return programs
