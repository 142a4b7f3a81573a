"""Functions that the inputs of drawn tasks go through: transforms and augmentations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.arguments import Choice, shown
from aidotnet_py.data.drawn_tasks import DrawnTasks
from aidotnet_py.exceptions import InvalidOperationException

__all__ = ["SETS", "Transform"]

SETS = Choice("support", "query", "both")


@dataclass(frozen=True)
class Transform:
    """A function of inputs and a random generator, and which sets it is for."""

    function: Callable[[NDArray[Any], np.random.Generator], NDArray[Any]]
    sets: str

    def apply(self, drawn: DrawnTasks, generator: np.random.Generator, dtype: np.dtype[Any]) -> DrawnTasks:
        """Return the one task of a draw with other inputs."""
        arrays = list(drawn.arrays)
        for name, place in (("support", 0), ("query", 2)):
            if self.sets in (name, "both"):
                examples = arrays[place] if drawn.sizes is not None else arrays[place][0]
                changed = self._call(examples, generator, dtype)
                arrays[place] = changed if drawn.sizes is not None else changed[np.newaxis]
        return replace(drawn, arrays=arrays)

    def _call(self, examples: NDArray[Any], generator: np.random.Generator, dtype: np.dtype[Any]) -> NDArray[Any]:
        count = len(examples)
        changed = np.asarray(self.function(examples, generator))
        if changed.ndim < 2 or len(changed) != count or changed.dtype.kind not in "fiub":
            raise InvalidOperationException(
                f"{self.function!r:.80} must return real inputs of {count} examples, got {shown(changed)}"
            )
        # A copy of what is not of the inputs, since the function may return the next ones in the same array.
        own = np.may_share_memory(changed, examples)
        with np.errstate(over="ignore"):
            changed = changed.astype(dtype, copy=not own)
        if not np.isfinite(changed).all():
            raise InvalidOperationException(f"{self.function!r:.80} must return finite inputs, got inf or NaN")
        return changed
