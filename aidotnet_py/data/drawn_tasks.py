"""Tasks as they are drawn: arrays on the host for all of them at once, of one size or of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends import Array, Backend
from aidotnet_py.meta_learning.contract.tasks import MetaLearningTask
from aidotnet_py.meta_learning.objective.stacking import row_views
from aidotnet_py.type_parameters import T

__all__ = ["DrawnTasks", "on_host"]

_Task: TypeAlias = MetaLearningTask[T, NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class DrawnTasks:
    """Arrays of support inputs and targets, query inputs and targets, with one entry a task, and what describes them.

    ``name`` is that of all tasks, or the name of each. ``ways``, ``shots`` and ``queries`` are the classes of a task,
    and its support and query examples of a class. With ``sizes``, the support and query examples of each task, tasks
    have different sizes: the arrays hold their examples one task after the other.
    """

    arrays: Sequence[NDArray[Any]]
    name: str | Sequence[str]
    metadata: Sequence[Mapping[str, Any]]
    ways: int
    shots: int
    queries: int
    sizes: Sequence[tuple[int, int]] | None = None

    @classmethod
    def of_classes(
        cls, examples: NDArray[Any], shots: int, name: str | Sequence[str], metadata: Sequence[Mapping[str, Any]]
    ) -> DrawnTasks:
        """Return tasks of examples (tasks, ways, shots + queries, …), labelled by their index among the ways."""
        count, ways, per_class = examples.shape[:3]
        shape, labels = (count, -1, *examples.shape[3:]), np.arange(ways, dtype=np.int64)
        support, query = examples[:, :, :shots].reshape(shape), examples[:, :, shots:].reshape(shape)
        queries = per_class - shots
        support_labels, query_labels = (np.tile(np.repeat(labels, n), (count, 1)) for n in (shots, queries))
        arrays = (support, support_labels, query, query_labels)
        return cls(arrays, name, metadata, ways, shots, queries)

    def with_targets(self, targets: NDArray[Any]) -> DrawnTasks:
        """Return the same tasks with targets (tasks, ways, shots + queries, …) in place of labels."""
        support, _, query, _ = self.arrays
        of_targets = DrawnTasks.of_classes(targets, self.shots, self.name, self.metadata).arrays
        return replace(self, arrays=(support, of_targets[0], query, of_targets[2]))

    @classmethod
    def join(cls, parts: Sequence[DrawnTasks]) -> DrawnTasks:
        """Return the tasks of several draws in one."""
        arrays = [np.concatenate(of_all) for of_all in zip(*(part.arrays for part in parts), strict=True)]
        metadata = [notes for part in parts for notes in part.metadata]
        sizes = None if parts[0].sizes is None else [size for part in parts for size in part.sizes or ()]
        names = [name for part in parts for name in part._names]
        return replace(parts[0], arrays=arrays, name=names, metadata=metadata, sizes=sizes)

    @property
    def _names(self) -> Sequence[str]:
        return [self.name] * len(self.metadata) if isinstance(self.name, str) else self.name

    def tasks(self, backend: Backend, arrays: Sequence[Array]) -> list[_Task[Any]]:
        """Return the tasks over views of the four arrays, which were moved to a backend."""
        entries = [self._entries(backend, array, place // 2) for place, array in enumerate(arrays)]
        return [
            MetaLearningTask(
                SupportSetX=support_x,
                SupportSetY=support_y,
                QuerySetX=query_x,
                QuerySetY=query_y,
                NumWays=self.ways,
                NumShots=self.shots,
                NumQueryPerClass=self.queries,
                Name=name,
                Metadata=metadata,
            )
            for support_x, support_y, query_x, query_y, name, metadata in zip(
                *entries, self._names, self.metadata, strict=True
            )
        ]

    def tasks_on(self, backend: Backend) -> list[_Task[Any]]:
        """Return the tasks on a backend; for a device, each of the four arrays is moved at once."""
        convert = np.ascontiguousarray if on_host(backend) else backend.asarray
        return self.tasks(backend, [convert(array) for array in self.arrays])

    def _entries(self, backend: Backend, array: Array, query: int) -> list[Array]:
        """Return the part of each task in one of the arrays, of the support sets or of the query sets."""
        if self.sizes is None:
            return list(array) if on_host(backend) else row_views(backend, array)
        ends = np.cumsum([size[query] for size in self.sizes]).tolist()
        whole = (slice(None),) * (len(array.shape) - 1)
        return [
            backend.index(array, (slice(end - size[query], end), *whole))
            for end, size in zip(ends, self.sizes, strict=True)
        ]


def on_host(backend: Backend) -> bool:
    """Return whether the backend's arrays are NumPy's."""
    return backend.owns(np.empty(0))
