"""Tasks that nobody has validated, and tasks whose support sets are split into batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tanh_network import Values, batch_of
from whole_procedure import split

from aidotnet_py import (
    MetaLearningTask,
    MetaLearningTaskBase,
    TaskBatch,
)
from aidotnet_py.backends import Backend

__all__ = ["Unchecked", "in_batches"]


class Unchecked(MetaLearningTaskBase[Any, Any, Any]):
    """A task of the user's own, which nobody has validated."""

    def __init__(self, arrays: Mapping[str, Any], **options: Any) -> None:
        super().__init__(**options)
        self._arrays = arrays

    SupportInput = property(lambda self: self._arrays["SupportSetX"])  # type: ignore[assignment]
    SupportOutput = property(lambda self: self._arrays["SupportSetY"])  # type: ignore[assignment]
    QueryInput = property(lambda self: self._arrays.get("QuerySetX"))  # type: ignore[assignment]
    QueryOutput = property(lambda self: self._arrays.get("QuerySetY"))  # type: ignore[assignment]


def in_batches(backend: Backend, sets: Sequence[tuple[Values, ...]], count: int) -> TaskBatch[Any, Any, Any]:
    """The tasks with their support sets split into so many batches; one is an array."""
    if count == 1:
        return batch_of(backend, list(sets))
    tasks = []
    for x, y, query_x, query_y in sets:
        pieces = split((x, y), count)
        tasks.append(
            MetaLearningTask(
                SupportSetX=[backend.asarray(p) for p, _ in pieces],
                SupportSetY=[backend.asarray(p) for _, p in pieces],
                QuerySetX=backend.asarray(query_x),
                QuerySetY=backend.asarray(query_y),
            )
        )
    return TaskBatch(tasks)
