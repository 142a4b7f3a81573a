"""Which objective a model gets, and the programs kept for the next batch of the same shapes."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from aidotnet_py.backends import Array, Backend
from aidotnet_py.losses import ILossFunction
from aidotnet_py.meta_learning.objectives.interface import TaskObjective
from aidotnet_py.meta_learning.objectives.sampled import ComputedObjective, PerturbedObjective
from aidotnet_py.meta_learning.objectives.traced import BatchedPrograms, Signature, TracedObjective
from aidotnet_py.models import IDifferentiableModel, IFullModel, IGradientComputable

__all__ = ["ObjectiveFactory"]

# Support and query sets, in training and in evaluation, and the last, smaller chunk of each.
_MOST_PROGRAMS = 8


class ObjectiveFactory:
    """Makes the objectives of a learner.

    Parameters
    ----------
    generator : numpy.random.Generator
        For the models whose gradients are estimated from random perturbations.
    """

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator
        self._programs: OrderedDict[Signature, BatchedPrograms] = OrderedDict()
        self._warned = False

    def make(
        self,
        role: str,
        model: IFullModel[Any, Any, Any],
        loss: ILossFunction[Any],
        inputs: Sequence[Array],
        targets: Sequence[Array],
    ) -> TaskObjective:
        """The objective of one set (its role: support or query) of each task, by the best that the model offers."""
        if isinstance(model, IDifferentiableModel):
            return TracedObjective(role, model, loss, inputs, targets, self._compiled)
        if isinstance(model, IGradientComputable):
            return ComputedObjective(model, loss, inputs, targets)
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{type(model).__name__} offers neither apply (IDifferentiableModel) nor ComputeGradients "
                "(IGradientComputable); its gradients are estimated by simultaneous perturbation and are noisy",
                UserWarning,
                stacklevel=4,
            )
        return PerturbedObjective(model, loss, inputs, targets, self._generator)

    def _compiled(self, signature: Signature, backend: Backend) -> BatchedPrograms:
        programs = self._programs.pop(signature, None) or BatchedPrograms(signature, backend)
        self._programs[signature] = programs
        if len(self._programs) > _MOST_PROGRAMS:
            self._programs.popitem(last=False)
        return programs
