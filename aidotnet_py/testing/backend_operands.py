"""Checks of a backend's operations on operands of all dtypes, in many shapes and layouts, against NumPy's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from aidotnet_py.backends import Array, Backend
from aidotnet_py.backends.protocol import ELEMENTWISE_NAMES
from aidotnet_py.testing.backend_comparison import LOGICAL, UNARY, agree, reference, require, strided_out
from aidotnet_py.testing.layouts import LAYOUTS

__all__ = ["OPERAND_CHECKS", "folded", "windows_of"]

Host = NDArray[Any]
Shape = tuple[int, ...]
_FULL = ("float64", "float32")
_FLOATS = (*_FULL, "float16")
_NUMBERS = (*_FLOATS, "int64")
_ALL = (*_NUMBERS, "bool")
# Multiples of 1/8 add up and multiply without rounding; among these are ties, and both signs.
_EIGHTHS = np.random.default_rng(0).integers(-16, 17, 1000)
_SHAPES: Sequence[Shape] = ((), (5,), (4, 3), (2, 3, 4), (2, 3, 2, 2), (7, 40), (0, 3))
_OF_ELEMENTS: Sequence[Shape] = ((), (5,), (2, 3, 2, 2), (7, 40), (0, 3))
_OF_ALL = ("equal", "not_equal")
_OF_INTEGERS = (
    *("abs", "add", "greater", "greater_equal", "less", "less_equal", "maximum", "minimum", "multiply", "negative"),
    *("sign", "subtract"),
)
# float64 has no such number.
_LARGE = 2**60 + 1


class _Case(NamedTuple):
    """An operation and NumPy's, for operands of some dtypes and shapes; the operation takes ``out`` too.

    With a ``corner``, the first operand is of matrices that have inverses, the first number of whose diagonal is large
    and has its sign.
    """

    name: str
    of: Callable[..., Array]
    numpys: Callable[..., Any]
    dtypes: Sequence[str]
    shapes: Sequence[Shape]
    corner: float | None = None


def _check(cases: Callable[[Backend], Iterable[_Case]], backend: Backend) -> None:
    """Call each operation with each dtype; layouts and kinds of ``out`` take turns."""
    dtypes, layouts = _dtypes(backend), [("", _as_given), *LAYOUTS.items()]
    for turn, case in enumerate(cases(backend)):
        for place, dtype in enumerate(d for d in case.dtypes if d in dtypes):
            name, lay_out = layouts[(turn + place) % len(layouts)]
            hosts = [_values(turn, i, shape, dtype) for i, shape in enumerate(case.shapes)]
            if case.corner is not None:
                diagonal = [case.corner, *[9.0] * (case.shapes[0][-1] - 1)]
                hosts[0] += np.diag(diagonal).astype(dtype)
            # A matrix of one row repeated has no inverse.
            least = 0 if case.corner is None else 2
            operands = [lay_out(backend, x) if x.ndim > least else backend.asarray(x) for x in hosts]
            # One entry repeated has other values.
            with np.errstate(all="ignore"):
                wanted = np.asarray(case.numpys(*(np.array(backend.to_numpy(x)) for x in operands)))
            # Without `out`, elementwise functions may return the library's scalar.
            kind = (turn + 2 * place) % 3 or int(not wanted.ndim and case.name in ELEMENTWISE_NAMES)
            with backend.errors_ignored():
                found = _result(backend, case, operands, wanted, kind)
            shapes = " and ".join(map(str, case.shapes))
            what = f"{case.name} of {dtype} {shapes}"
            agree(backend, f"{what}, {name} in memory," if name else what, found, wanted)


def _as_given(backend: Backend, host: Host) -> Array:
    return backend.asarray(host)


def _dtypes(backend: Backend) -> Sequence[str]:
    """Return the dtypes to be tried: half precision is not in the array API standard, nor in every library."""
    try:
        backend.empty((), np.float16)
    except Exception:
        return [dtype for dtype in _ALL if dtype != "float16"]
    return _ALL


def _values(turn: int, place: int, shape: Shape, dtype: str) -> Host:
    """Return the values of an operand; the first one of integers has a number that float64 has not."""
    size = math.prod(shape)
    start = (37 * turn + 11 * place) % (len(_EIGHTHS) - size)
    eighths = _EIGHTHS[start : start + size].reshape(shape)
    values: Host = eighths > 0 if dtype == "bool" else (eighths / (8 if dtype in _FLOATS else 4)).astype(dtype)
    if dtype == "int64" and place == 0 and size:
        values.flat[0] = _LARGE
    return values


def _result(backend: Backend, case: _Case, operands: Sequence[Array], wanted: Host, kind: int) -> Array:
    """Call an operation without ``out``, with a new one, or with a strided one."""
    if kind == 0:
        return case.of(*operands)
    new = np.full(wanted.shape, np.nan if wanted.dtype.kind == "f" else 1).astype(wanted.dtype)
    out = backend.asarray(new) if kind == 1 else strided_out(backend, wanted.shape, wanted.dtype)[0]
    case.of(*operands, out=out)
    return out


def _of_their_dtype(numpys: Callable[..., Any], *hosts: Host) -> Host:
    result = np.asarray(numpys(*hosts))
    return result if result.dtype == bool else result.astype(hosts[0].dtype)


def _elementwise(backend: Backend) -> Iterator[_Case]:
    for name in ELEMENTWISE_NAMES:
        numpys = partial(_of_their_dtype, reference(name))
        dtypes = (
            _ALL[-1:] if name in LOGICAL else _ALL if name in _OF_ALL else _NUMBERS if name in _OF_INTEGERS else _FLOATS
        )
        count = 1 if name in UNARY or name == "logical_not" else 2
        if name != "where":
            for shape in _OF_ELEMENTS:
                yield _Case(name, backend.elementwise(name), numpys, dtypes, [shape] * count)
    for shape in _OF_ELEMENTS:
        mask = np.arange(math.prod(shape)).reshape(shape) % 3 == 0
        where = partial(backend.elementwise("where"), backend.asarray(mask))
        yield _Case("where", where, partial(np.where, mask), _ALL, [shape] * 2)


def _copies(backend: Backend) -> Iterator[_Case]:
    def copied(x: Array, out: Array | None = None) -> Array:
        out = backend.empty(tuple(x.shape), backend.dtype_of(x)) if out is None else out
        backend.copyto(out, x)
        return out

    for shape in _SHAPES:
        yield _Case("copyto", copied, np.copy, _ALL, [shape])
        for dtype in _ALL:
            if dtype in _dtypes(backend):
                astype = partial(_call, backend.astype, np.dtype(dtype))
                yield _Case(f"astype to {np.dtype(dtype)}", astype, partial(_as, dtype), _ALL, [shape])


def _call(operation: Callable[..., Array], argument: Any, x: Array, out: Array | None = None) -> Array:
    """Call an operation with an argument after its operand."""
    return operation(x, argument, out=out)


def _as(dtype: str, x: Host) -> Host:
    return x.astype(dtype)


def _sum(axes: Any, x: Host) -> Host:
    return np.asarray(np.sum(x, axes, dtype=x.dtype))


def _max(axes: Any, x: Host) -> Host:
    return np.asarray(np.max(x, axes))


def _running(axis: int, x: Host) -> Host:
    return np.cumsum(x, axis, dtype=x.dtype)


def _reductions(backend: Backend) -> Iterator[_Case]:
    places: Sequence[tuple[Shape, Shape]] = (
        *(((5,), (0,)), ((4, 3), (1,)), ((2, 3, 4), (0, 2)), ((2, 3, 2, 2), (1, 3)), ((7, 40), (0,))),
        *(((7, 40), (1,)), ((7, 40), (0, 1)), ((3, 0), (0,))),
    )
    for shape, axes in places:
        yield _Case(f"sum over {axes}", partial(_call, backend.sum, axes), partial(_sum, axes), _NUMBERS, [shape])
        yield _Case(f"max over {axes}", partial(_call, backend.max, axes), partial(_max, axes), _NUMBERS, [shape])
    for shape in _SHAPES[1:]:
        for axis in (0, len(shape) - 1):
            running, wanted = partial(_call, backend.cumulative_sum, axis), partial(_running, axis)
            yield _Case(f"cumulative_sum along {axis}", running, wanted, _NUMBERS, [shape])


def _products(backend: Backend) -> Iterator[_Case]:
    for shape in (*_SHAPES[1:], (3, 0)):
        yield _Case("vecdot", backend.vecdot, np.vecdot, _FLOATS, [shape] * 2)
    for before, rows, shared, columns in (
        *(((), 3, 4, 2), ((2,), 3, 4, 5), ((2, 2), 3, 4, 2), ((), 20, 30, 10), ((3,), 1, 4, 1), ((), 1, 1, 1)),
        *(((2,), 3, 1, 4), ((), 5, 0, 2), ((2,), 0, 3, 4), ((0,), 2, 3, 4)),
    ):
        shapes = [(*before, rows, shared), (*before, shared, columns)]
        yield _Case("matmul", backend.matmul, np.matmul, _NUMBERS, shapes)


def _matrices(backend: Backend) -> Iterator[_Case]:
    for before in ((), (2,), (2, 3), (1,), (5,)):
        for n in (1, 3):
            square = (*before, n, n)
            yield _Case("solve", backend.solve, np.linalg.solve, _FULL, [square, (*before, n, 2)], -9.0)
            yield _Case("cholesky", backend.cholesky, np.linalg.cholesky, _FULL, [square], 9.0)
            for corner in (-9.0, 9.0):
                yield _Case("slogdet", backend.slogdet, _slogdet, _FULL, [square], corner)


def _slogdet(matrices: Host) -> Host:
    return np.stack(np.linalg.slogdet(matrices), -1)


def _rows(backend: Backend) -> Iterator[_Case]:
    for shapes, axis in (
        *(([(2, 3), (1, 3), (0, 3)], 0), ([(2, 3), (2, 1)], 1), ([(5,), (2,)], 0), ([(2, 3, 4), (2, 1, 4)], 1)),
        *(([(7, 40), (7, 2)], 1), ([(4, 3)], 0)),
    ):
        yield _Case(f"concat along {axis}", partial(_concat, backend, axis), partial(_joined, axis), _ALL, shapes)
    for shape in _SHAPES[1:-1]:
        for places in (np.array(3 % shape[0]), np.array([1, 0, 1]), np.array([[0, 1], [1, 1]]), np.zeros(0, np.int64)):
            indices, what = backend.asarray(places), f"by indices {places.shape}"
            values = [(*places.shape, *shape[1:])]
            added, by_hand = partial(_scattered, backend, indices, shape), partial(_added, places, shape)
            yield _Case(f"take {what}", partial(_call, backend.take, indices), partial(_taken, places), _ALL, [shape])
            yield _Case(f"scatter_add {what}", added, by_hand, _NUMBERS, values)
    for shape in (*_SHAPES[1:], (3, 0)):
        yield _Case("wrap_indices", partial(_call, backend.wrap_indices, _LARGE + 1), _wrapped, ["int64"], [shape])
    # Long enough for an algorithm that is not stable to show.
    for shape in (*_SHAPES[1:], (2, 300), (300,), (3, 0)):
        yield _Case("argsort", backend.argsort, partial(np.argsort, kind="stable"), _NUMBERS, [shape])


def _concat(backend: Backend, axis: int, *arrays: Array, out: Array | None = None) -> Array:
    return backend.concat(arrays, axis, out=out)


def _joined(axis: int, *hosts: Host) -> Host:
    return np.concatenate(hosts, axis)


def _taken(places: Host, x: Host) -> Host:
    return x[places]


def _scattered(backend: Backend, indices: Array, shape: Shape, x: Array, out: Array | None = None) -> Array:
    out = backend.empty(shape, backend.dtype_of(x)) if out is None else out
    return backend.scatter_add(x, indices, out)


def _added(places: Host, shape: Shape, x: Host) -> Host:
    total = np.zeros(shape, x.dtype)
    np.add.at(total, places, x)
    return total


def _wrapped(x: Host) -> Host:
    return np.mod(x, _LARGE + 1)


def _windows(backend: Backend) -> Iterator[_Case]:
    settings: Sequence[tuple[Shape, tuple[int, int], tuple[int, int]]] = (
        *(((2, 7, 6, 3), (3, 2), (2, 1)), ((1, 3, 3, 1), (3, 3), (1, 1)), ((3, 4, 5, 2), (1, 1), (3, 3))),
        *(((1, 6, 2, 4), (2, 2), (2, 2)), ((2, 5, 5, 1), (2, 3), (1, 2)), ((0, 3, 3, 2), (2, 2), (1, 1))),
    )
    for shape, window, stride in settings:
        what = f"of windows {window} at steps {stride}"
        cut, folded_back = partial(_cut, backend, window, stride), partial(_folded_back, backend, stride, shape)
        yield _Case(f"patches {what}", cut, partial(windows_of, window, stride), _NUMBERS, [shape])
        patches = windows_of(window, stride, np.zeros(shape)).shape
        yield _Case(f"fold {what}", folded_back, partial(folded, stride, shape), _NUMBERS, [patches])


def _cut(backend: Backend, window: Any, stride: Any, x: Array, out: Array | None = None) -> Array:
    return backend.patches(x, window, stride, out=out)


def _folded_back(backend: Backend, stride: Any, shape: Shape, x: Array, out: Array | None = None) -> Array:
    out = backend.empty(shape, backend.dtype_of(x)) if out is None else out
    return backend.fold(x, stride, out)


def windows_of(window: tuple[int, int], stride: tuple[int, int], x: Host) -> Host:
    """Return what `Backend.patches` must return."""
    views = sliding_window_view(x, window, (1, 2))[:, :: stride[0], :: stride[1]]
    return np.moveaxis(views, 3, -1)


def folded(stride: tuple[int, int], shape: Shape, patches: Host) -> Host:
    """Return what `Backend.fold` must write."""
    total = np.zeros(shape, patches.dtype)
    for n, i, j, a, b, c in np.ndindex(patches.shape):
        total[n, i * stride[0] + a, j * stride[1] + b, c] += patches[n, i, j, a, b, c]
    return total


def _half_precision(backend: Backend) -> None:
    if "float16" not in _dtypes(backend):
        return
    # After 2048, half precision has every second number alone, and would lose each 1.
    host = np.array([2048, 1, 1, 1], np.float16)
    x, ones = backend.asarray(host), backend.asarray(np.ones(4, np.float16))
    columns = backend.asarray(np.stack([host, host], axis=1))
    row, column = backend.reshape(x, (1, 4)), backend.reshape(ones, (4, 1))
    # Each of four windows has one number, over the pixel in the middle.
    middle = np.zeros((2, 2, 2, 2), np.float16)
    for place, number in zip(np.ndindex(2, 2), host, strict=True):
        middle[place][1 - place[0], 1 - place[1]] = number
    windows = backend.asarray(middle.reshape(1, 2, 2, 2, 2, 1))
    image = backend.fold(windows, (1, 1), backend.empty((1, 3, 3, 1), np.float16))
    for name, found in {
        # NumPy itself adds up in single precision along the last axis alone.
        "sum": backend.sum(columns, (0,)),
        "cumulative_sum": backend.index(backend.cumulative_sum(columns, 0), (slice(3, 4), slice(None))),
        "vecdot": backend.vecdot(x, ones),
        "matmul": backend.matmul(row, column),
        "scatter_add": backend.scatter_add(x, backend.asarray(np.zeros(4, np.int64)), backend.empty((1,), np.float16)),
        "fold": backend.index(image, (slice(None), slice(1, 2), slice(1, 2), slice(None))),
    }.items():
        wanted = np.full(tuple(found.shape), 2052, np.float16)
        require(
            np.array_equal(backend.to_numpy(found), wanted),
            f"{name} of float16 must add up in single precision, 2048 + 1 + 1 + 1 to 2052, "
            f"got {backend.to_numpy(found).ravel()[0]:.0f}",
        )


OPERAND_CHECKS: dict[str, Callable[[Backend], None]] = {
    "elementwise functions of all operands": partial(_check, _elementwise),
    "copies and conversions of all operands": partial(_check, _copies),
    "reductions of all operands": partial(_check, _reductions),
    "products of all operands": partial(_check, _products),
    "linear algebra of all operands": partial(_check, _matrices),
    "rows of all operands": partial(_check, _rows),
    "windows of all operands": partial(_check, _windows),
    "sums of half precision": _half_precision,
}
