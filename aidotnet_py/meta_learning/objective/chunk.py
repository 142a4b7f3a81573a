"""Tasks of a batch that are worked on together, with the objectives of their sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends import Array, Backend
from aidotnet_py.meta_learning.contract.tasks import IMetaLearningTask
from aidotnet_py.meta_learning.objective.buffers import Lease
from aidotnet_py.meta_learning.objective.finiteness import all_finite, require_sound
from aidotnet_py.meta_learning.objective.interface import TaskObjective
from aidotnet_py.models import IFullModel

__all__ = ["Chunk"]


@dataclass(frozen=True)
class Chunk:
    """Tasks of a batch that are worked on together, and their objectives.

    Attributes
    ----------
    backend : Backend
        The backend of all arrays.
    model, parameters, learned : IFullModel, array of shape (P,), mapping of arrays
        The model, θ, and the other learned vectors of this call; the learner's own may change meanwhile.
    lease : Lease
        The workspace of the objectives.
    tasks : sequence of task
        The tasks.
    objectives : mapping
        The objective of each role: "Support", "Query", or "Adapted", the support sets as functions of the adapted
        parameters.
    staying : set of str or None
        Names of the parameters that the inner steps leave alone; None where they move all.
    places : sequence of int
        The places of the tasks in the batch.
    sizes : mapping of str to int
        The size that the sets of a role are padded to, if they are.
    training : bool
        Whether layers such as Dropout are active.
    lane : int
        The lane whose buffers the objectives use.
    """

    backend: Backend
    model: IFullModel[Any, Any, Any]
    parameters: Array
    learned: Mapping[str, Array]
    lease: Lease
    tasks: Sequence[IMetaLearningTask[Any, Any, Any]]
    objectives: Mapping[str, TaskObjective]
    staying: frozenset[str] | None = None
    places: Sequence[int] = (0,)
    sizes: Mapping[str, int] = field(default_factory=dict[str, int])
    training: bool = False
    lane: int = 0

    @property
    def support(self) -> TaskObjective:
        """The loss on the support sets."""
        return self.objectives["Support"]

    @property
    def query(self) -> TaskObjective:
        """The loss on the query sets."""
        return self.objectives["Query"]

    def with_support(self, role: str) -> Chunk:
        """Return the same tasks, with the objective of another role in place of the support sets."""
        return replace(self, objectives={**self.objectives, "Support": self.objectives[role]})

    def together(self) -> AbstractContextManager[None]:
        """Collect the work on all objectives for one schedule at the end, if the objectives share a queue."""
        first, *others = (objective.queue for objective in self.objectives.values())
        return first.together() if all(other is first for other in others) else nullcontext()

    def require_finite(self, quantity: str, stacked: Array) -> None:
        """Raise InvalidOperationException, naming task and quantity, if a row of (tasks, …) is not finite."""
        self.require_sound(quantity, all_finite(self.backend, stacked))

    def require_sound(self, quantity: str, sound: NDArray[np.bool_]) -> None:
        """Raise InvalidOperationException, naming the first task that is not sound."""
        require_sound(quantity, sound, self.tasks, self.places)

    def on_host(self, array: Array) -> NDArray[Any]:
        """Return a copy of an array on the host."""
        return np.array(self.backend.to_numpy(array))

    def part(self, start: int, stop: int, lane: int) -> Chunk:
        """Return some of these tasks, with the buffers of a lane."""
        if stop - start == len(self.tasks) and lane == self.lane:
            return self
        objectives = {role: objective.part(start, stop, lane) for role, objective in self.objectives.items()}
        tasks, places = self.tasks[start:stop], self.places[start:stop]
        return replace(self, tasks=tasks, objectives=objectives, places=places, lane=lane)
