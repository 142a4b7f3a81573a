"""Assignment to elements, without writing into the array: `at(x)[index].set(value)`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.autodiff.functions.indexing import Selection, Span, in_range, move_axis, select
from aidotnet_py.autodiff.functions.on_arrays import on_arrays
from aidotnet_py.autodiff.primitives import elementwise as ew
from aidotnet_py.autodiff.primitives.broadcasting import broadcast_to
from aidotnet_py.autodiff.primitives.concatenation import concatenate
from aidotnet_py.autodiff.primitives.gather import gather, scatter_add
from aidotnet_py.autodiff.primitives.shape import flip, full, permute_dims, reshape, slice_, unslice
from aidotnet_py.autodiff.primitives.sorting import argsort
from aidotnet_py.autodiff.tracing.host_data import HostData, host_array
from aidotnet_py.autodiff.tracing.tracer import Tracer
from aidotnet_py.autodiff.tracing.value_types import is_array, type_of
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.exceptions import ArgumentException

__all__ = ["At", "Elements", "at"]


@dataclass(frozen=True, eq=False)
class Elements:
    """The elements of an array at an index; its methods return a new array, in which they are others."""

    array: Any
    index: Any

    def set(self, value: Any) -> Any:
        """Return the array with ``value``, which broadcasts, at the index; the last of repeated indices counts."""
        return _set(self.array, _checked(value), self.index)

    def add(self, value: Any) -> Any:
        """Return the array with ``value``, which broadcasts, added at the index; repeated indices add up."""
        return _add(self.array, _checked(value), self.index)


@dataclass(frozen=True, eq=False)
class At:
    """An array whose elements an index in brackets selects."""

    array: Any

    def __getitem__(self, index: Any) -> Elements:
        return Elements(self.array, index)


def at(x: Any) -> At:
    """Return what ``x[index] = value`` is without writing into x: ``x = at(x)[index].set(value)``, or ``.add(value)``.

    Parameters
    ----------
    x : array or traced value
        It stays as it is. Traced values have it as a property too, ``x.at[index]``.

    Returns
    -------
    At
        ``at(x)[index].set(value)`` and ``at(x)[index].add(value)`` have the shape and dtype of x. Indices are ints,
        slices, None, Ellipsis and one array of integers, of arrays too; ``value`` broadcasts to the shape of
        ``x[index]``. Where indices repeat, ``set`` takes the last value, and ``add`` adds all.

    Raises
    ------
    ArgumentException
        When x is no array, the index does not fit it, or ``value`` does not broadcast or would lose its fractions.
    IndexError
        When an index is out of bounds.

    Examples
    --------
    >>> import numpy as np
    >>> at(np.zeros(3))[1:].set([5.0, 6.0])
    array([0., 5., 6.])
    >>> at(np.zeros(3))[[0, 0, 2]].add(1.0)
    array([2., 0., 1.])
    """
    if not is_array(x):
        raise ArgumentException(f"x must be an array, got {type(x).__name__}; make it one with np.asarray")
    return At(x)


def _checked(value: Any) -> Any:
    """Return the value, a list of numbers as an array, as NumPy's assignment takes them."""
    value = np.asarray(cast(Any, value)) if isinstance(value, (list, tuple)) else value
    type_of(value, "value")
    return value


@on_arrays("x", "value")
def _set(x: Any, value: Any, index: Any) -> Any:
    selection = select(x.shape, index)
    window = _as_window(value, x, selection, selection.window(x))
    unfolded = unslice(window, x.shape, selection.spans)
    mask = _mask(x.shape, selection.spans)
    return unfolded if mask is None else ew.where(mask, unfolded, x)


@on_arrays("x", "value")
def _add(x: Any, value: Any, index: Any) -> Any:
    selection = select(x.shape, index)
    window = _as_window(value, x, selection, None)
    return ew.add(x, unslice(window, x.shape, selection.spans))


def _as_window(value: Any, x: Any, selection: Selection, window: Any) -> Any:
    """Return the elements of x at the selection's spans, with the value at its indices.

    The others are those of ``window``; if it is None, they are 0, and values at repeated indices add up.
    """
    if selection.indices is None:
        value = _fitted(value, x.dtype, selection.shape)
    else:
        length, axis = selection.shape[selection.axis], selection.axis
        places = in_range(selection.indices, length)
        values = _rows(value, x.dtype, places.shape, selection)
        added = window is None
        rows = scatter_add(values, places, length) if added else _replaced(move_axis(window, axis, 0), values, places)
        value = move_axis(rows, 0, axis)
    return flip(reshape(value, tuple(len(range(*span)) for span in selection.spans)), selection.backwards)


_KINDS = {"b": 0, "i": 1, "u": 1, "f": 2}


def _fitted(value: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    """Return the value in the dtype of x and in the shape of ``x[index]``."""
    have = type_of(value)
    if _KINDS[have.dtype.kind] > _KINDS[dtype.kind]:
        raise ArgumentException(f"value must fit the dtype {dtype} of x, got {have}; convert x with astype")
    try:
        return broadcast_to(ew.astype(value, dtype), shape)
    except ArgumentException:
        raise ArgumentException(f"value must broadcast to the shape {shape} of x[index], got {have.shape}") from None


def _rows(value: Any, dtype: np.dtype[Any], places: tuple[int, ...], selection: Selection) -> Any:
    """Return the value with the axes of the array of integers in front, and then the window's others."""
    start, count = 0 if selection.in_front else selection.axis, len(places)
    others = [n for axis, n in enumerate(selection.shape) if axis != selection.axis]
    value = _fitted(value, dtype, (*others[:start], *places, *others[start:]))
    order = [*range(start, start + count), *range(start), *range(start + count, len(value.shape))]
    return permute_dims(value, tuple(order))


def _replaced(rows: Any, values: Any, places: Any) -> Any:
    """Return the rows with the values at their places; of several at one place, the last."""
    count = math.prod(places.shape)
    if count == 0:
        return rows
    length, *row = rows.shape
    source = _sources(places, length)
    # Rows that stay read any value: `where` leaves it out.
    chosen = gather(reshape(values, (count, *row)), ew.maximum(source, 0))
    replaced = reshape(ew.greater_equal(source, 0), (length, *(1 for _ in row)))
    return ew.where(replaced, chosen, rows)


def _sources(places: Any, length: int) -> Any:
    """Return the last position in ``places`` of each of 0 … length − 1; −1 where there is none."""
    if not isinstance(places, Tracer):
        known = host_array(places)
        sources = np.full(length, -1)
        np.maximum.at(sources, known.ravel(), np.arange(known.size))
        return HostData(sources)
    flat = reshape(places, (places.size,))
    order = argsort(flat)
    ordered = gather(flat, order)
    # Equal places keep their order, so that the last of each run is the last position.
    after = concatenate([slice_(ordered, ((1, flat.size, 1),)), full(ArrayType((1,), flat.dtype), -1)], 0)
    return ew.subtract(scatter_add(ew.where(ew.not_equal(ordered, after), ew.add(order, 1), 0), ordered, length), 1)


def _mask(shape: tuple[int, ...], spans: tuple[Span, ...]) -> HostData | None:
    """Return where the spans reach, with axes of length 1 where they cover all; None if they cover the array."""
    masks: list[NDArray[np.bool]] = []
    for axis, (length, span) in enumerate(zip(shape, spans, strict=True)):
        if span != (0, length, 1):
            reached = np.isin(np.arange(length), range(*span))
            masks.append(reached.reshape(-1, *(1 for _ in shape[axis + 1 :])))
    return HostData(reduce(np.logical_and, masks)) if masks else None
