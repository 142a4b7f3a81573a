"""Whether numbers stayed finite, told by task and quantity; and norms that overflow no sooner than they must."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends import Array, Backend
from aidotnet_py.exceptions import InvalidOperationException
from aidotnet_py.meta_learning.tasks import IMetaLearningTask

__all__ = ["all_finite", "norm_of", "require_sound"]

# What to try where the data were sound and the numbers ran away.
_ADVICE = {
    "adapted parameter vector": ". A smaller InnerLearningRate is wanted",
    "solve": ". The inner steps may have run far from any minimum: try a smaller InnerLearningRate",
}
_Tasks = Sequence[IMetaLearningTask[Any, Any, Any]]


def all_finite(backend: Backend, stacked: Array) -> NDArray[np.bool_]:
    """Which rows of an array (tasks, …) have finite elements alone, as booleans (tasks,) on the host."""
    magnitudes = backend.elementwise("abs")(stacked)
    if len(stacked.shape) > 1 and 0 not in stacked.shape:
        # One number a row for the host to fetch; NaN is the largest.
        magnitudes = backend.max(magnitudes, tuple(range(1, len(stacked.shape))))
    found = backend.to_numpy(magnitudes)
    return np.asarray(np.isfinite(found).reshape(found.shape[0], -1).all(axis=1))


def require_sound(quantity: str, sound: NDArray[np.bool_], tasks: _Tasks, first: int = 0) -> None:
    """Raise InvalidOperationException, naming the first of the tasks, ``first`` and on, that is not sound."""
    if not sound.all():
        place = int(np.argmin(sound))
        name = tasks[place].Name or tasks[place].TaskId
        advice = _ADVICE.get(quantity, "")
        raise InvalidOperationException(
            f"the {quantity} of task {first + place} ({name}) is not finite; nothing was changed{advice}"
        )


def norm_of(backend: Backend, vector: Array) -> float:
    """The Euclidean norm of a vector (P,), also where the squares of its elements overflow."""
    norm = math.sqrt(float(backend.to_numpy(backend.vecdot(vector, vector))))
    if math.isfinite(norm):
        return norm
    largest = float(backend.to_numpy(backend.max(backend.elementwise("abs")(vector), (0,))))
    if not math.isfinite(largest):
        return largest
    scaled = vector / largest
    return largest * math.sqrt(float(backend.to_numpy(backend.vecdot(scaled, scaled))))
