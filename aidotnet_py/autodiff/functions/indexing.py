"""NumPy's indexing of traced values: ints, slices, None, Ellipsis, and one array of integers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from aidotnet_py.autodiff.primitives.elementwise import add
from aidotnet_py.autodiff.primitives.gather import gather, wrap_indices
from aidotnet_py.autodiff.primitives.shape import flip, permute_dims, reshape, slice_
from aidotnet_py.autodiff.tracing.host_data import HostData
from aidotnet_py.autodiff.tracing.tracer import Tracer
from aidotnet_py.autodiff.tracing.value_types import type_of
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.backends import backend_of, get_backend
from aidotnet_py.exceptions import ArgumentException, NotSupportedException

__all__ = [
    "Selection",
    "Span",
    "getitem",
    "in_range",
    "is_integer",
    "move_axis",
    "select",
    "take_along",
    "take_along_axis",
]

Span = tuple[int, int, int]


def move_axis(x: Any, source: int, destination: int) -> Any:
    """Move one axis, keeping the order of the others; both numbers in 0 … n − 1."""
    order = list(range(len(type_of(x).shape)))
    order.insert(destination, order.pop(source))
    return permute_dims(x, tuple(order))


def in_range(indices: Any, length: int) -> Any:
    """Return indices as int64 in 0 … length − 1; known values are checked now, traced ones at each run."""
    if isinstance(indices, Tracer):
        _require_integers(indices.type)
        if length == 0 and indices.size:
            raise IndexError(f"indices must be empty for an axis of length 0, got shape {indices.shape}")
        return wrap_indices(indices, length)
    backend = backend_of(indices)
    values = np.asarray(indices if backend is None else backend.to_numpy(indices))
    if values.size == 0 and backend is None:
        values = values.astype(np.int64)  # NumPy gives an empty list the dtype float64.
    _require_integers(ArrayType(values.shape, values.dtype))
    wrapped = get_backend("numpy").wrap_indices(values, length)
    return HostData(wrapped) if backend is None else backend.asarray(wrapped)


def _require_integers(of: ArrayType) -> None:
    if of.dtype.kind not in "iu":
        remedy = "; for a mask, use np.where" if of.dtype.kind == "b" else ""
        raise ArgumentException(f"indices must be integers, got dtype {of.dtype}{remedy}")


def take_along(x: Any, indices: Any, axis: int) -> Any:
    """Take elements at indices of one axis, which the axes of the indices replace."""
    length = type_of(x).shape[axis]
    places = in_range(indices, length)
    chosen = gather(move_axis(x, axis, 0), places)
    n = len(places.shape)
    order = (*range(n, n + axis), *range(n), *range(n + axis, len(chosen.shape)))
    return permute_dims(chosen, order)


def take_along_axis(arr: Any, indices: Any, axis: int) -> Any:
    """Take elements by indices for each place of the other axes, as NumPy does; axis in 0 … n − 1."""
    shape = type_of(arr).shape
    places = in_range(indices, shape[axis])
    if len(places.shape) != len(shape):
        raise ArgumentException(f"indices must have as many axes as {shape}, got shape {places.shape}")
    last = len(shape) - 1
    rows, places = move_axis(arr, axis, last), move_axis(places, axis, last)
    lead = rows.shape[:-1]
    start = HostData((np.arange(math.prod(lead), dtype=np.int64) * shape[axis]).reshape(*lead, 1))
    chosen = gather(reshape(rows, (type_of(rows).size,)), add(places, start))
    return move_axis(chosen, last, axis)


@dataclass(frozen=True)
class Selection:
    """What an index selects: a window of slices, and perhaps elements of it at an array of integers.

    Attributes
    ----------
    spans : tuple of (start, stop, step)
        The elements of each axis, counted forwards.
    backwards : tuple of int
        Axes whose order is reversed then.
    shape : tuple of int
        The window's shape then: axes of ints are gone, new axes are there.
    axis : int
        The axis of the window that the array of integers indexes.
    in_front : bool
        Whether NumPy puts the array's axes in front: where other keys separate it from an int.
    indices : array or None
        The integers.
    """

    spans: tuple[Span, ...]
    backwards: tuple[int, ...]
    shape: tuple[int, ...]
    axis: int
    in_front: bool
    indices: Any

    def window(self, x: Any) -> Any:
        """Return the window of x."""
        return reshape(flip(slice_(x, self.spans), self.backwards), self.shape)


def getitem(a: Any, key: Any) -> Any:
    """Index with ints, slices, None, Ellipsis and at most one array of integers."""
    selection = select(type_of(a).shape, key)
    y, axis = selection.window(a), selection.axis
    if selection.indices is None:
        return y
    if selection.in_front:
        y, axis = move_axis(y, axis, 0), 0
    return take_along(y, selection.indices, axis)


def select(shape: tuple[int, ...], key: Any) -> Selection:
    """Return what a key selects of an array of that shape."""
    parts: tuple[Any, ...] = key if isinstance(key, tuple) else (key,)  # pyright: ignore[reportUnknownVariableType] -- any key
    keys = list(parts)
    given = sum(k is not None and k is not Ellipsis for k in keys)
    if given > len(shape) or sum(k is Ellipsis for k in keys) > 1:
        raise ArgumentException(f"index must fit a traced array of shape {shape}, got {key}")
    # An Ellipsis for no axis stays: it still separates the keys around it.
    rest: list[Any] = [slice(None)] * (len(shape) - given) or [Ellipsis]
    at = next((i for i, k in enumerate(keys) if k is Ellipsis), len(keys))
    return _select(shape, [*keys[:at], *rest, *keys[at + 1 :]])


def _select(lengths: tuple[int, ...], keys: list[Any]) -> Selection:
    spans: list[Span] = []
    backwards: list[int] = []
    shape: list[int] = []
    arrays: list[tuple[int, bool, Any]] = []
    left = iter(lengths)
    for k in keys:
        if k is None:
            shape.append(1)
        if k is None or k is Ellipsis:
            continue
        n = next(left)
        if isinstance(k, slice):
            span, reverse = _span(k, n)  # pyright: ignore[reportUnknownArgumentType] -- any slice
            if reverse:
                backwards.append(len(spans))
            shape.append(len(range(*span)))
        elif is_integer(k):
            if not -n <= k < n:
                raise IndexError(f"index {k} is out of bounds for an axis of length {n}")
            span = (int(k) % n, int(k) % n + 1, 1)
        else:
            span = (0, n, 1)
            arrays.append((len(shape), _is_apart(keys), k))
            shape.append(n)
        spans.append(span)
    if len(arrays) > 1:
        raise NotSupportedException(
            f"index must have at most one array for a traced value, got {len(arrays)}; use np.take"
        )
    axis, in_front, indices = arrays[0] if arrays else (0, False, None)
    return Selection(tuple(spans), tuple(backwards), tuple(shape), axis, in_front, indices)


def _is_apart(keys: list[Any]) -> bool:
    """Whether other keys separate the array from an int."""
    advanced = [i for i, k in enumerate(keys) if not (k is None or k is Ellipsis or isinstance(k, slice))]
    return advanced[-1] - advanced[0] + 1 != len(advanced)


def is_integer(key: object) -> bool:
    """Whether a key is an int, of Python or NumPy, and no bool."""
    return isinstance(key, (int, np.integer)) and not isinstance(key, bool)


def _span(key: slice[Any, Any, Any], length: int) -> tuple[Span, bool]:
    """Return the elements of a slice counted forwards, and whether their order is reversed."""
    chosen = range(*key.indices(length))
    if chosen.step > 0:
        return (chosen.start, max(chosen.stop, chosen.start), chosen.step), False
    if not chosen:
        return (0, 0, 1), False
    return (chosen[-1], chosen[0] + 1, -chosen.step), True
