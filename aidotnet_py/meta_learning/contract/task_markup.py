"""Tasks and batches as HTML for notebooks: thumbnails of images, points of curves, shapes of all else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.backends import backend_of
from aidotnet_py.markup import figures, scatter, thumbnail

__all__ = ["MOST_TASKS", "ShownSets", "html_of_batch", "html_of_task"]


class ShownSets(NamedTuple):
    """The data of a task that are shown.

    Attributes
    ----------
    arrays : mapping
        Inputs and outputs of the support set, and of the query set if there is one, by their names.
    is_ink : bool
        Whether high values of images are ink, and not light.
    """

    arrays: Mapping[str, tuple[Any, Any]]
    is_ink: bool


# How many tasks of a batch are shown.
MOST_TASKS = 6
# Thumbnails of a set, points of a set.
_MOST_IMAGES, _MOST_POINTS = 10, 200


def html_of_task(title: str, sets: ShownSets, note: str) -> str:
    """Return a task with its sets: images with their classes, or the points of a function of one number."""
    return figures(title, _rows(sets, ""), note)


def html_of_batch(title: str, tasks: Sequence[ShownSets], note: str) -> str:
    """Return the support sets of some tasks, one below the other."""
    return figures(title, [row for i, sets in enumerate(tasks) for row in _rows(sets, f"task {i} ")[:1]], note)


def _rows(sets: ShownSets, prefix: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the pictures of each set with their captions; none where the data are no pictures."""
    if all(_are_images(x) for x, _ in sets.arrays.values()):
        return [(prefix + name, _images(*pair, is_ink=sets.is_ink)) for name, pair in sets.arrays.items()]
    if all(_is_column(part) for pair in sets.arrays.values() for part in pair):
        points = [(_numbers(inputs), _numbers(outputs)) for inputs, outputs in sets.arrays.values()]
        return [(prefix.strip(), [(scatter(*points), " and ".join(sets.arrays))])]
    return []


def _are_images(array: Any) -> bool:
    shape: Any = getattr(array, "shape", ())
    return backend_of(array) is not None and len(shape) == 4 and min(shape) > 0


def _images(x: Any, y: Any, *, is_ink: bool) -> list[tuple[str, str]]:
    count = min(_MOST_IMAGES, int(x.shape[0]))
    # Spread over the set, whose examples often come class by class.
    places = np.linspace(0, int(x.shape[0]) - 1, count).astype(int).tolist()
    return [(thumbnail(_at(x, place), is_ink=is_ink), _caption(_at(y, place))) for place in places]


def _caption(label: NDArray[Any]) -> str:
    """Return a class index as text; nothing for targets of other kinds."""
    return str(label) if label.ndim == 0 else ""


def _at(array: Any, place: int) -> NDArray[Any]:
    """Return one example on the host; the others stay where they are."""
    backend = backend_of(array)
    if backend is None:
        return np.asarray(array[place])
    (example,) = backend.to_numpy(backend.index(array, _some(array, place, place + 1)))
    return np.asarray(example)


def _some(array: Any, start: int, stop: int) -> tuple[slice, ...]:
    """Return the index of some examples, which names every axis, as the array API asks."""
    return (slice(start, min(stop, int(array.shape[0]))), *[slice(None)] * (len(array.shape) - 1))


def _is_column(array: Any) -> bool:
    """Return whether there is one real number an example."""
    backend, shape = backend_of(array), tuple(getattr(array, "shape", ()))
    return backend is not None and backend.dtype_of(array).kind == "f" and shape in ((shape[:1]), (*shape[:1], 1))


def _numbers(array: Any) -> NDArray[np.float64]:
    backend = backend_of(array)
    assert backend is not None
    first = backend.index(array, _some(array, 0, _MOST_POINTS))
    return backend.to_numpy(first).astype(np.float64).reshape(-1)
